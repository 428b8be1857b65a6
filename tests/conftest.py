import os
from pathlib import Path

import pytest

from fairsweep.config import ROOT


@pytest.fixture(scope="session")
def real_mnist() -> str:
    """The folder that holds MNIST/raw/ with the four original files."""
    root = Path(os.environ.get("FAIRSWEEP_DATA", ROOT.parent / "shared" / "data"))
    if not (root / "MNIST" / "raw").is_dir():
        pytest.skip(f"no real MNIST in {root}; FAIRSWEEP_DATA names the folder")
    return str(root)
