"""Memory: how much is free, how an error says that there is none, and keeping it."""

import ctypes
import math
import platform
import re
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path

# In a control group's folder: its limit, what it uses, and the cached pages in that which it gives up.
GROUP_FILES = {
    "sys/fs/cgroup": ("memory.max", "memory.current", "inactive_file"),
    "sys/fs/cgroup/memory": ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
}


def free_memory(root: Path = Path("/")) -> float:
    """Bytes of main memory that this process can still take; infinite where the system does not say.

    The least of what the machine has and of what each control group around the process, as a container's,
    leaves. Cached files count as free.
    """
    free = [math.inf]
    with suppress(OSError):
        text = (root / "proc/meminfo").read_text()
        free += [
            int(amount) * 1024 for amount in re.findall(r"^MemAvailable: +(\d+) kB$", text, re.MULTILINE)
        ]
        for line in (root / "proc/self/cgroup").read_text().splitlines():
            _, controllers, name = line.split(":", 2)
            if controllers and "memory" not in controllers.split(","):
                continue
            where = "sys/fs/cgroup/memory" if controllers else "sys/fs/cgroup"
            group = root / where / name.lstrip("/")
            while group.is_relative_to(root / where):
                free.append(left_in(group, *GROUP_FILES[where]))
                group = group.parent
    return min(free)


def left_in(group: Path, limit: str, usage: str, cached: str) -> float:
    """Bytes that a control group may still take; infinite where it has no limit."""
    try:
        used = int((group / usage).read_text())
        most = int((group / limit).read_text())
        stat = (group / "memory.stat").read_text()
    except (OSError, ValueError):  # not in this container; "max"
        return math.inf
    return most - used + sum(map(int, re.findall(rf"^{cached} (\d+)$", stat, re.MULTILINE)))


def is_out_of_memory(error: BaseException | None) -> bool:
    """Whether it says that a device's memory is full: torch's own error, or CUDA's or cuBLAS's words."""
    return any(
        isinstance(one, RuntimeError) and ("out of memory" in str(one) or "ALLOC_FAILED" in str(one))
        for one in causes(error)
    )


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error, then what was being handled when it came up, and so on."""
    while error is not None:
        yield error
        error = error.__context__


@cache
def keep_freed_memory() -> None:
    """Have glibc keep memory that is freed, for the next step (see `man mallopt`).

    It would return what large tensors took to the system, and faulting the pages in again takes up to a fifth
    of a step on the CPU. In threads other than the main one, where Ray's workers train, it does so sooner.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    mallopt = ctypes.CDLL(None).mallopt
    trim_threshold, mmap_threshold, arena_max = -1, -3, -8
    mallopt(mmap_threshold, 2**25)  # the most that older ones take; without it, less than by itself
    mallopt(mmap_threshold, 2**30)
    mallopt(trim_threshold, 2**31 - 1)
    mallopt(arena_max, 1)
