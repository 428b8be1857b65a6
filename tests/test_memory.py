"""How much memory is free, by what the system says."""

import math
from pathlib import Path

import pytest

from fairsweep.training.memory import free_memory

MIB = 2**20


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


MACHINE = {"proc/meminfo": f"MemTotal: 9000000 kB\nMemFree: 1 kB\nMemAvailable: {1000 * 1024} kB\n"}


def group(folder: str, limit: str, used: int, cached: int = 0) -> dict[str, str]:
    """A control group of version 2, in MiB."""
    return {
        f"{folder}/memory.max": limit if limit == "max" else str(int(limit) * MIB),
        f"{folder}/memory.current": str(used * MIB),
        f"{folder}/memory.stat": f"anon 1\ninactive_file {cached * MIB}\n",
    }


V2 = {"proc/self/cgroup": "0::/jobs/7\n"}
V1 = {
    "proc/self/cgroup": "5:cpu,cpuacct:/x\n4:memory:/jobs\n0::/\n",
    "sys/fs/cgroup/memory/jobs/memory.limit_in_bytes": str(400 * MIB),
    "sys/fs/cgroup/memory/jobs/memory.usage_in_bytes": str(100 * MIB),
    "sys/fs/cgroup/memory/jobs/memory.stat": f"inactive_file 1\ntotal_inactive_file {30 * MIB}\n",
}


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (MACHINE, 1000),
        (MACHINE | V2, 1000),  # its groups are not to be seen here
        (MACHINE | V2 | group("sys/fs/cgroup/jobs/7", "max", 300), 1000),
        (MACHINE | V2 | group("sys/fs/cgroup/jobs/7", "500", 300, 50), 250),
        (MACHINE | V2 | group("sys/fs/cgroup/jobs/7", "9000", 1) | group("sys/fs/cgroup/jobs", "20", 5), 15),
        (MACHINE | V1, 330),
        ({}, math.inf),  # macOS
    ],
)
def test_free_memory_is_the_least_that_machine_and_control_groups_leave(
    files: dict[str, str], expected: float, tmp_path: Path
) -> None:
    assert free_memory(write(tmp_path, files)) == expected * MIB
