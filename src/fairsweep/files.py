"""Files that other processes read or lock, and that a power cut must not damage."""

import fcntl
import os
import time
from pathlib import Path


def write_atomically(path: Path, content: bytes) -> None:
    """Replace a file so that a reader, or a power cut, sees the old content or the new, never a part.

    A folder in its place moves aside.
    """
    if path.is_dir():
        path.rename(path.with_name(f"{path.name}.{time.time_ns()}"))
    temporary = path.with_name(f".{path.name}.part")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def is_locked(path: Path) -> bool:
    """Whether a process holds the lock of this file. Asking needs no right to write."""
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return False
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
