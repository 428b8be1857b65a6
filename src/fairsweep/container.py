"""What a container may lack and libraries rely on: a home folder and a name of the user."""

import getpass
import logging
import os
import tempfile
from pathlib import Path


def complete_environment() -> None:
    """Set what is missing, for this process and those that it starts."""
    try:
        Path.home()
    except RuntimeError:
        os.environ["HOME"] = tempfile.gettempdir()
    try:
        getpass.getuser()
    except (KeyError, OSError):  # the latter since Python 3.13
        os.environ["LOGNAME"] = str(os.getuid())
    # Without a home it can write to, it warns that its cache is temporary.
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
