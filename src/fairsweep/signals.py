"""Ctrl-C and SIGTERM: counted once for the whole process, so that none is lost, and when they take effect.

The handler raises KeyboardInterrupt, to leave calls that take long. Where Python calls the handler within a
callback (of a weak reference, of the garbage collector) it only prints that exception, and some libraries
turn it into another one. So the count decides: what begins anything new calls `check`, or asks a `Stop`.
"""

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from types import FrameType


class Process:
    """The signals that this process got within `handled`, and how many of them raise nothing."""

    is_handled = False
    received = 0
    tolerated = 0


def handle(_: int, __: FrameType | None) -> None:
    Process.received += 1
    if Process.received > Process.tolerated:
        raise KeyboardInterrupt


@contextmanager
def handled() -> Iterator[bool]:
    """Inside, both signals count, and raise KeyboardInterrupt. The outermost block forgets them at its end.

    Yields whether this is the main thread. Python calls handlers in no other one.
    """
    is_main = threading.current_thread() is threading.main_thread()
    if Process.is_handled or not is_main:
        yield is_main
        return
    unraisable = sys.unraisablehook

    def report(lost: "sys.UnraisableHookArgs") -> None:
        if not isinstance(lost.exc_value, KeyboardInterrupt):  # which has been counted
            unraisable(lost)

    previous = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    Process.is_handled, sys.unraisablehook = True, report
    try:
        yield True
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
        Process.is_handled, Process.received, sys.unraisablehook = False, 0, unraisable


@contextmanager
def tolerated(number: int) -> Iterator[None]:
    """Inside, the first signals, up to this number, only count; the next one raises KeyboardInterrupt."""
    with handled() as is_main:
        if not is_main:
            yield
            return
        before, Process.tolerated = Process.tolerated, number
        try:
            yield
        finally:
            Process.tolerated = before


def received() -> bool:
    """Whether the user asked this process to end."""
    return Process.received > 0


def check() -> None:
    """
    Raises:
        KeyboardInterrupt: the user asked this process to end, whether or not that was raised before.
    """
    if received():
        raise KeyboardInterrupt


@contextmanager
def postponed() -> Iterator[None]:
    """Inside is what must not be cut in two: a signal takes effect at its end, a second one at once."""
    with handled() as is_main:
        known = Process.received
        try:
            with tolerated(known + 1):
                yield
        finally:
            if is_main and Process.received > max(known, Process.tolerated):
                raise KeyboardInterrupt


class Stop:
    """True after Ctrl-C or SIGTERM, or where it is wanted."""

    def __init__(self) -> None:
        self.wanted = False

    def __call__(self) -> bool:
        return self.wanted or received()

    @property
    def received(self) -> bool:
        """Whether the user requested it."""
        return received()

    def immediate(self) -> AbstractContextManager[None]:
        """Inside, the first signal raises, too: nothing is lost there, and it may take long."""
        return tolerated(0)


@contextmanager
def stopping() -> Iterator[Stop]:
    """Inside, work is to end in order once this is true; a second signal raises KeyboardInterrupt."""
    with tolerated(1):
        yield Stop()
