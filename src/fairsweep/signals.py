"""Ctrl-C and SIGTERM, and when they take effect."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn


class Stop:
    """True after Ctrl-C or SIGTERM, or where it is wanted; a second signal raises KeyboardInterrupt."""

    def __init__(self) -> None:
        self.received = self.wanted = self.is_immediate = False

    def __call__(self) -> bool:
        return self.received or self.wanted

    def handle(self, _: int, __: FrameType | None) -> None:
        again, self.received = self.received, True
        if again or self.is_immediate:
            raise KeyboardInterrupt

    @contextmanager
    def immediate(self) -> Iterator[None]:
        """Inside, the first one raises, too: nothing is lost there, and it may take long."""
        self.is_immediate = True
        try:
            yield
        finally:
            self.is_immediate = False


@contextmanager
def stopping() -> Iterator[Stop]:
    """Inside, work is to end in order once this is true."""
    stop = Stop()
    with handled(stop.handle):
        yield stop


@contextmanager
def postponed() -> Iterator[None]:
    """Inside is what must not be cut in two: a signal takes effect behind it, a second one at once."""
    received: list[int] = []

    def handle(number: int, _: FrameType | None) -> None:
        received.append(number)
        if len(received) > 1:
            raise KeyboardInterrupt

    try:
        with handled(handle):
            yield
    finally:
        if received:
            signal.raise_signal(received[0])


@contextmanager
def terminating() -> Iterator[None]:
    """Inside, SIGTERM is what Ctrl-C is."""

    def interrupt(_: int, __: FrameType | None) -> NoReturn:
        raise KeyboardInterrupt

    with handled(interrupt):
        yield


@contextmanager
def handled(handle: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Inside, both signals go to this function. Python gives none to threads other than the main one."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
