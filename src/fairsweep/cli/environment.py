"""An environment that libraries can rely on: a home folder, a user name, no empty variables."""

import getpass
import logging
import os
import tempfile
from pathlib import Path

# Environment variables that set a key's default.
VARIABLES = {
    "data.root": "FAIRSWEEP_DATA",
    "tracking.uri": "MLFLOW_TRACKING_URI",
    "tracking.experiment": "MLFLOW_EXPERIMENT_NAME",
}


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
    for name in VARIABLES.values():
        if not os.environ.get(name, "unset"):
            del os.environ[name]  # else an empty value would hide the default
    # Without a home it can write to, it warns that its cache is temporary.
    logging.getLogger("matplotlib").setLevel(logging.ERROR)


def with_variables(text: str) -> str:
    """An error's text that also names the environment variable that set a value in it."""
    for key, name in VARIABLES.items():
        if value := os.environ.get(name):
            text = text.replace(f"{key}={value}:", f"{key}={value} (from {name}):", 1)
    return text
