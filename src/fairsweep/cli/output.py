"""Standard output and error as they may be: closed, on a full disk, of another encoding than UTF-8."""

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


class Unfailing(io.FileIO):
    """A descriptor that drops what it cannot write."""

    def write(self, data: "ReadableBuffer") -> int:
        with suppress(OSError):
            written: int | None = super().write(data)
            if written is not None:  # else it would have to wait
                return written
        return memoryview(data).nbytes


@contextmanager
def unfailing(*names: str) -> Iterator[None]:
    """Inside, writing to these streams (`stdout`, `stderr`) never raises.

    What the encoding of standard output lacks becomes a question mark.
    """
    # A file of ours with the number of a closed stream would get what libraries print there.
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(number)
    if isinstance(sys.stdout, io.TextIOWrapper):
        with suppress(OSError):
            sys.stdout.reconfigure(errors="replace")
    before = {name: getattr(sys, name) for name in names}
    for name, stream in before.items():
        setattr(sys, name, unfailing_stream(stream))
    try:
        yield
    finally:
        for name, stream in before.items():
            if stream is not None:
                getattr(sys, name).flush()
            setattr(sys, name, stream)


def unfailing_stream(stream: TextIO | None) -> TextIO | None:
    """A stream like this one whose writes never raise; the same one, if it writes to no descriptor."""
    if not isinstance(stream, io.TextIOWrapper):
        return stream
    try:
        descriptor = stream.fileno()
    except io.UnsupportedOperation:
        return stream
    return io.TextIOWrapper(
        io.BufferedWriter(Unfailing(descriptor, "wb", closefd=False)),
        encoding=stream.encoding,
        errors=stream.errors,
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )
