import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from omegaconf import DictConfig

from fairsweep.config import ROOT
from fairsweep.training import by_task

assert by_task  # registers a resolver, without which nothing can be composed

Compose = Callable[..., DictConfig]

# A shell starts what is in the background deaf to Ctrl-C, and so would be all that the tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def compose(tmp_path: Path) -> Compose:
    """Composes conf/train.yaml with overrides, as `src/train.py` does, for the CPU; writes go to tmp_path."""

    def composed(*overrides: str) -> DictConfig:
        with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
            here = (f"record.dir={tmp_path}", "tracking=none", "trainer.device=cpu")
            return hydra_compose("train", [*here, *overrides])

    return composed


@pytest.fixture(scope="session", autouse=True)
def forks() -> None:
    """What commands are forked from, if any of the collected tests starts one."""
    if "commands" in sys.modules:
        sys.modules["commands"].start_server()


@pytest.fixture(scope="session")
def kept() -> Path:
    """The folder for pictures of screens and pages, to be looked at after the tests; git ignores it."""
    folder = ROOT / "tests" / "screenshots"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def real_mnist() -> str:
    """The folder that holds MNIST/raw/ with the four original files."""
    root = Path(os.environ.get("FAIRSWEEP_DATA", ROOT.parent / "shared" / "data"))
    if not (root / "MNIST" / "raw").is_dir():
        pytest.skip(f"no real MNIST in {root}; FAIRSWEEP_DATA names the folder")
    return str(root)
