"""An environment that libraries can rely on: a home folder, a user name, no empty variables."""

import getpass
import logging
import os
import tempfile
from pathlib import Path


def complete_environment() -> None:
    """Complete the environment of this process and of those that it starts."""
    try:
        Path.home()
    except RuntimeError:
        os.environ["HOME"] = tempfile.gettempdir()
    try:
        getpass.getuser()
    except (KeyError, OSError):  # the latter since Python 3.13
        os.environ["LOGNAME"] = str(os.getuid())
    for name in ("MLFLOW_TRACKING_URI", "FAIRSWEEP_DATA"):
        if not os.environ.get(name, "unset"):
            del os.environ[name]  # else an empty value would hide the default
    # Without a home it can write to, it warns that its cache is temporary.
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
