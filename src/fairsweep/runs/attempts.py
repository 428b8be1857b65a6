"""Changes of a tracking store, by one process at a time; the user learns of what goes wrong, once."""

import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock

from fairsweep.config import without_credentials
from fairsweep.runs.store import Note, Outage, Store, name, opened, reason

if TYPE_CHECKING:
    pass


# Notes that the user has read already, by what they are about.
noted: dict[str, str] = {}


def tell(about: str, text: str, note: Note) -> None:
    """A note that is not repeated until it changes."""
    if noted.get(about) != text:
        noted[about] = text
        note(text)


@contextmanager
def reported(uri: str, note: Note) -> Iterator[None]:
    """Inside, an outage of the store ends the block, and the user learns of it, once."""
    try:
        yield
        noted.pop(uri, None)
    except Outage as error:
        what = (
            f"tracking.uri={name(uri)}: {error}. Nothing is lost: what is missing is uploaded later, by this "
            "command or the next"
        )
        tell(uri, what, note)


@contextmanager
def alone(outputs: Path) -> Iterator[None]:
    """Inside, no other process uploads from this output folder."""
    locks = outputs / "locks"
    locks.mkdir(parents=True, exist_ok=True)
    with FileLock(locks / "uploads.lock"):
        yield


def attempt(
    what: str, uri: str, outputs: Path, action: Callable[[Store], None], log: Note, note: Note
) -> bool:
    """Change the store; False, with the reason in the log and a note, where it refuses.

    Raises:
        Outage: the store does not answer.
    """
    with alone(outputs):
        store = opened(uri, outputs)
        try:
            action(store)
        except Exception as error:
            log(f"tracking: {without_credentials(''.join(traceback.format_exception(error)), uri)}")
            if store.is_away(error):
                raise Outage(reason(error, uri)) from error
            why = f"{reason(error, uri)}; repeat the command to try again"
            tell(f"{uri} {what}", f"{what}: could not be stored in {store.name}: {why}", note)
            return False
    return True
