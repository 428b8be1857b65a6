"""Many runs on one CUDA device: what training them together gains, and how it grows with their number.

Grids of Adam and SGD, learning rates and seeds, `two_conv` on MNIST, resident on the device. Timed is `fit`
alone, to the last figure on the host; not reading the data, the libraries' first steps, or the record.

- together: all lanes at once, as `hydra/launcher=fused` trains them, against
- one by one: the same runs one after the other, without CUDA graphs; the mean of a few, times their number;
- shared: eight processes that share the device, each with an eighth of the runs, without CUDA graphs;
- growth: lanes from 1 to 256, capture, first steps and the final test counted in; beside the floor that the
  memory's bandwidth sets: the bytes that a step's operations read and write, counted one by one, over the
  bandwidth of a large copy;
- a single run as a CUDA graph against the same run without.

    python tests/benchmarks/fused_cuda.py                                        # needs a CUDA device
    python tests/benchmarks/fused_cuda.py --device cpu --images 600 --lanes 4    # to see that it works
"""

import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import torch
from common import compose, heading, parser, table
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from fairsweep.training.lane import Lane
from fairsweep.training.loop import fit

RATES = (0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
PROCESSES = 8
# As many runs of the slow side as are timed, for the mean of them all.
SAMPLE = 4


class Traffic(TorchDispatchMode):
    """Counts the bytes that operations read and write, as if no cache kept any."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        # Of what it selects from, index_select reads no more than it gives.
        touched = (result, result) if func is torch.ops.aten.index_select.default else (args, kwargs, result)
        tensors = [leaf for leaf in tree_leaves(touched) if isinstance(leaf, torch.Tensor)]
        if not func.is_view:
            self.bytes += sum(tensor.numel() * tensor.element_size() for tensor in tensors)
        return result


class Case:
    """The grid on this device."""

    def __init__(self, data: object, device: str, images: int, epochs: int) -> None:
        self.common = [
            "recipe=two_conv", f"data.root={data}", f"data.limit={images}", f"trainer.device={device}",
            f"trainer.epochs={epochs}", "trainer.test_each_epoch=false", "trainer.log_every=100",
        ]  # fmt: skip

    def lanes(self, numbers: Sequence[int], graphs: bool) -> list[Lane]:
        """Those runs of the grid, ready to train."""
        made = []
        for number in numbers:
            optimizer, rest = ("adam", "sgd")[number % 2], number // 2
            words = [f"optimizer={optimizer}", f"optimizer.lr={RATES[rest % 8]}", f"seed={rest // 8}"]
            cfg = compose(*self.common, *words, f"trainer.cuda_graphs={str(graphs).lower()}")
            made.append(Lane(cfg))
        return made

    def seconds(self, numbers: Sequence[int], graphs: bool) -> float:
        """From the first step of these runs, trained side by side, to their last figure."""
        lanes = self.lanes(numbers, graphs)
        started = time.perf_counter()
        for _ in fit(lanes):
            pass
        elapsed = time.perf_counter() - started
        endings = {lane.ending.status for lane in lanes if lane.ending is not None}
        if not endings <= {"finished", "diverged"}:
            raise SystemExit(f"ended as {endings}")
        notes = {lane.note for lane in lanes if lane.note}
        if notes:
            print(f"not captured: {notes}", file=sys.stderr)
        return elapsed

    def bytes_per_step(self) -> int:
        """That the operations of a training step read and write."""
        (lane,) = self.lanes([0], graphs=False)
        lane.advance(1, lambda: False)
        with lane.own_state(), Traffic() as traffic:
            lane.advance(1, lambda: False)
        return traffic.bytes


def bandwidth(device: str) -> float:
    """Bytes per second of a copy within the device's memory, read and written."""
    source = torch.zeros(2**28 if device != "cpu" else 2**24, device=device)
    goal = torch.empty_like(source)
    for _ in range(2):
        goal.copy_(source)
    if device != "cpu":
        torch.cuda.synchronize()
    started = time.perf_counter()
    for _ in range(10):
        goal.copy_(source)
    if device != "cpu":
        torch.cuda.synchronize()
    return 10 * 2 * source.numel() * 4 / (time.perf_counter() - started)


def shared(args: Any) -> float:
    """The longest of several processes that share the device; all begin together, after their first steps."""
    command = [sys.executable, __file__, "--device", args.device, "--images", str(args.images)]
    command += ["--epochs", str(args.epochs), "--lanes", str(args.lanes), "--data", str(args.data)]
    workers = [
        subprocess.Popen(
            [*command, "--worker", str(number)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for number in range(PROCESSES)
    ]
    try:
        pipes = [
            (one.stdin, one.stdout) for one in workers if one.stdin is not None and one.stdout is not None
        ]
        for _, output in pipes:
            output.readline()  # it is ready
        for begin, _ in pipes:
            begin.write("go\n")
            begin.flush()
        return max(float(output.readline()) for _, output in pipes)
    finally:
        for one in workers:
            one.kill()


def worker(case: Case, number: int, lanes: int) -> None:
    """One of those processes: its share of the runs, one after the other."""
    case.seconds([0], graphs=False)
    print("ready", flush=True)
    sys.stdin.readline()
    print(sum(case.seconds([run], graphs=False) for run in range(number, lanes, PROCESSES)), flush=True)


def draw(numbers: Sequence[int], each: Sequence[float], floor: float, file: str) -> None:
    """The growth: seconds per step of a lane against the number of lanes."""
    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    axes.loglog(numbers, [1e6 * one for one in each], "o-", color="#4c8dc4", label="measured")
    axes.axhline(1e6 * floor, color="#888888", linestyle="--", label="floor by the memory's bandwidth")
    axes.set_xscale("log", base=2)
    axes.set_xticks(numbers, map(str, numbers))
    axes.set(xlabel="lanes", ylabel="\N{MICRO SIGN}s per step of a lane")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    figure.savefig(file, dpi=150)


def main() -> None:
    made = parser(__doc__)
    made.add_argument("--device", default="cuda", help="default: %(default)s")
    made.add_argument("--images", type=int, default=60_000, help="default: %(default)s")
    made.add_argument("--epochs", type=int, default=5, help="default: %(default)s")
    made.add_argument("--lanes", type=int, default=64, help="default: %(default)s")
    made.add_argument("--picture", default="fused_cuda.png", help="of the growth (default: %(default)s)")
    made.add_argument("--worker", type=int)
    args = made.parse_args()
    if args.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("no CUDA device here; --device cpu with few images shows that this works")
    case = Case(args.data, args.device, args.images, args.epochs)
    if args.worker is not None:
        worker(case, args.worker, args.lanes)
        return
    name = torch.cuda.get_device_name() if args.device == "cuda" else args.device
    print(f"{heading()}; {name}; torch {torch.__version__}\n", flush=True)
    case.seconds([0], graphs=True)  # what is loaded and chosen once
    together = case.seconds(range(args.lanes), graphs=True)
    sample = sum(case.seconds([number], graphs=False) for number in range(SAMPLE)) / SAMPLE
    processes = shared(args)
    single = sum(case.seconds([number], graphs=True) for number in range(SAMPLE)) / SAMPLE
    rows = [
        ["together, seconds", f"{together:.2f}", "at most 5"],
        ["one by one / together", f"{sample * args.lanes / together:.1f}", "at least 15.2"],
        [f"{PROCESSES} processes / together", f"{processes / together:.1f}", "at least 4.8"],
        ["a single run, without graph / with", f"{sample / single:.1f}", "at least 5"],
    ]
    print(
        table((f"{args.lanes} runs x {args.epochs} epochs x {args.images} images", "found", "wanted"), rows)
    )
    floor = case.bytes_per_step() / bandwidth(args.device)
    steps = case.lanes([0], graphs=False)[0].total_steps
    numbers = [2**power for power in range(12) if 2**power <= 4 * args.lanes]
    growth = [case.seconds(range(number), graphs=True) for number in numbers]
    each = [elapsed / number / steps for number, elapsed in zip(numbers, growth, strict=True)]
    rows = [
        [str(number), f"{elapsed:.2f}", f"{1e6 * one:.0f}", f"{1e6 * floor:.0f}"]
        for number, elapsed, one in zip(numbers, growth, each, strict=True)
    ]
    print()
    print(table(("lanes", "seconds", "us per step of a lane", "floor by bandwidth, us"), rows))
    draw(numbers, each, floor, args.picture)


if __name__ == "__main__":
    main()
