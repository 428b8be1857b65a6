"""Twelve runs on the cores of one machine, by each launcher: which is fastest, end to end and after start-up?

`two_conv` on the first 30,000 images of MNIST, 2 epochs, 12 seeds, untracked. Compared with Hydra's basic
launcher, which trains one run after the other with a thread for each core, as `fused` does on a CPU; `joblib`
is hydra-joblib-launcher (pip install hydra-joblib-launcher), a process for each core with one thread each.
"Start-up" is the time until as many runs have begun as train side by side. "Bare loops" are training alone,
without sweep or record, a process for each core against one process with a thread for each: what there is to
gain.

    python tests/benchmarks/launchers.py --rounds 3       # half an hour and more
"""

import json
import os
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import common
import timed
from common import child, heading, spread, table

CORES = len(os.sched_getaffinity(0))
LAUNCHERS: dict[str, tuple[tuple[str, ...], int]] = {
    "basic": (("hydra/launcher=basic",), 1),
    "fused": (("hydra/launcher=fused",), 1),
    "joblib": (("hydra/launcher=joblib", f"hydra.launcher.n_jobs={CORES}", "trainer.threads=1"), CORES),
    "ray": (("hydra/launcher=ray",), CORES),
}


def sweep(launcher: str, words: list[str]) -> tuple[float, float]:
    """Seconds of a whole sweep, and until all workers train."""
    settings, together = LAUNCHERS[launcher]
    with tempfile.TemporaryDirectory() as scratch:
        done = timed.train("-m", f"record.dir={scratch}", "tracking=none", *settings, *words)
        statuses = [json.loads(path.read_text()) for path in Path(scratch).glob("runs/*/status.json")]
    assert {status["status"] for status in statuses} == {"finished"}
    return done.seconds, sorted(status["started"] for status in statuses)[together - 1] - done.started


def loop(processes: int, data: object, images: int) -> float:
    """Seconds per epoch of bare loops, this many side by side, sharing the cores."""

    def one(_: int) -> float:
        threads = CORES // processes
        return float(child("loop_ours.py", "fp32", "two_conv", images, data, 1, threads)["seconds"])

    with ThreadPoolExecutor(processes) as pool:
        return max(pool.map(one, range(processes))) / processes


def main() -> None:
    options = common.parser(__doc__)
    options.add_argument("--rounds", type=int, default=3, help="default: %(default)s")
    options.add_argument("--runs", type=int, default=12, help="default: %(default)s")
    options.add_argument("--images", type=int, default=30_000, help="default: %(default)s")
    args = options.parse_args()
    words = [
        "recipe=two_conv", f"data.root={args.data}", f"data.limit={args.images}", "trainer.epochs=2",
        f"seed=range({args.runs})",
    ]  # fmt: skip
    print(heading() + f"; {args.rounds} rounds of {' '.join(words[2:])}\n", flush=True)
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in LAUNCHERS}
    bare = []
    for _ in range(args.rounds):
        bare.append(loop(1, args.data, args.images) / loop(CORES, args.data, args.images))
        print(f"bare loops: {bare[-1]:.2f}", file=sys.stderr, flush=True)
        for name in LAUNCHERS:
            found[name].append(sweep(name, words))
            print(f"{name}: {found[name][-1]}", file=sys.stderr, flush=True)
    rows = []
    for name, rounds in found.items():
        whole = [base[0] / own[0] for base, own in zip(found["basic"], rounds, strict=True)]
        after = [
            (base[0] - base[1]) / (own[0] - own[1]) for base, own in zip(found["basic"], rounds, strict=True)
        ]
        seconds, start = ([pair[place] for pair in rounds] for place in (0, 1))
        pace = [60 * args.runs / one for one in seconds]
        rows.append([f"`{name}`", spread(pace, 1), spread(start), spread(whole), spread(after)])
    rows.append(["bare loops", "", "", "", spread(bare)])
    print(table(["launcher", "runs a minute", "start-up, seconds", "times as fast", "after start-up"], rows))


if __name__ == "__main__":
    main()
