"""Seconds per training epoch: our loop against the tutorials' loops, side by side.

Tutorial: torchvision's data set gives PIL images, ToTensor (two_conv: and Normalize) turns each into a tensor
(bn_convnet: from JPEG files, opened as RGB each epoch), `DataLoader(num_workers=0, shuffle=True)`, a plain
NCHW model with ReLU before pooling, torch's optimizer as it comes, `loss.item()` each step.
Ours: `recipe=<name> trainer.test_each_epoch=false` through the loop that trains all runs, in fp32 and with
`trainer=fast` (bf16 where the processor multiplies it). Same images, batch sizes, steps, threads, CPU.
The mlp (784-64-128-64-10, BatchNorm, batch 128, Adam, 55,000 images) has a plain loop over float tensors in
memory to compare with.

Each figure comes from a process of its own, after a warm-up of 20 steps; the sides alternate; a ratio is the
median of the rounds' ratios (smallest to largest). Not in the time: reading the data set once (its seconds
are shown), building the model, evaluation, and for ours the writing of journal and checkpoints.

    python tests/benchmarks/speed.py                                   # a quick look, about 6 minutes
    python tests/benchmarks/speed.py --images 60000 --rounds 5         # the published table, about 45 minutes
"""

import statistics
import tempfile
from functools import partial
from pathlib import Path

from common import Result, alternate, child, heading, names_of, parser, spread, table
from jpegs import write_jpegs

# Ratios that are wanted: in fp32, and with trainer=fast where bf16 is native.
WANTED = {
    "two_conv": (1.7, 2.5),
    "lenet_no_relu": (1.3, 1.8),
    "bn_convnet": (1.3, 1.8),
    "dropout_convnet": (1.3, 1.8),
    "fc_net": (2.5, 5.0),
}
OURS = ("fp32", "fast")
MLP_IMAGES, MLP_EPOCHS, MLP_SECONDS = 55_000, 3, 0.5


def measure(
    case: str, theirs: str, images: int, data: Path, epochs: int, threads: int, rounds: int
) -> dict[str, list[Result]]:
    """Results per side, one per round."""

    def run(side: str, _: int) -> Result:
        script = "loop_ours.py" if side in OURS else "loop_theirs.py"
        return child(script, side, case, images, data, epochs, threads)

    results = alternate({side: partial(run, side) for side in (theirs, *OURS)}, rounds)
    steps = {result["steps"] for side in results.values() for result in side}
    if len(steps) > 1:
        raise SystemExit(f"{case}: the sides took different numbers of steps: {sorted(steps)}")
    return results


def column(results: list[Result], key: str) -> list[float]:
    return [result[key] for result in results]


def ratios(results: dict[str, list[Result]], theirs: str, ours: str) -> list[float]:
    """How many times as fast ours is, round by round."""
    pairs = zip(column(results[theirs], "seconds"), column(results[ours], "seconds"), strict=True)
    return [slow / fast for slow, fast in pairs]


def medians(results: dict[str, list[Result]], key: str, digits: int) -> str:
    """The medians of all sides, in their order."""
    return " / ".join(f"{statistics.median(column(side, key)):.{digits}f}" for side in results.values())


def row(case: str, results: dict[str, list[Result]]) -> list[str]:
    fp32, fast = WANTED[case]
    precision = results["fast"][0]["precision"]
    return [
        f"`{case}`",
        medians(results, "seconds", 2),
        spread(ratios(results, "tutorial", "fp32")),
        str(fp32),
        spread(ratios(results, "tutorial", "fast")) + f" {precision}",
        str(fast) if precision == "bf16" else "-",
        medians(results, "loss", 3),
        medians(results, "reading", 1),
    ]


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--images", type=int, default=12_000, help="for the recipes (default: %(default)s)")
    options.add_argument("--rounds", type=int, default=3, help="default: %(default)s")
    options.add_argument("--threads", type=int, default=2, help="default: %(default)s")
    cases = [*WANTED, "mlp"]
    options.add_argument(
        "--models",
        type=names_of(cases),
        default=cases,
        metavar="NAME,NAME",
        help=f"default: {','.join(cases)}",
    )
    args = options.parse_args()
    print(heading() + f"; {args.threads} threads, {args.rounds} rounds\n", flush=True)
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        for case in (name for name in args.models if name != "mlp"):
            data = args.data
            if case == "bn_convnet":
                data = Path(scratch) / "jpegs"
                write_jpegs(args.data, data, train=args.images, test=1000)
            results = measure(case, "tutorial", args.images, data, 1, args.threads, args.rounds)
            rows.append(row(case, results))
    if rows:
        print(f"One epoch of {args.images:,} images; tutorial / ours in fp32 / ours with trainer=fast:\n")
        head = "recipe, seconds, times as fast in fp32, wanted, times as fast with trainer=fast, wanted"
        print(table([*head.split(", "), "mean training loss", "reading once, seconds"], rows) + "\n")
    if "mlp" in args.models:
        results = measure("mlp", "tensors", MLP_IMAGES, args.data, MLP_EPOCHS, args.threads, args.rounds)
        print(f"The mlp, an epoch of {MLP_IMAGES:,} images (mean of {MLP_EPOCHS}):\n")
        names = {"tensors": "plain loop over tensors", "fp32": "ours, fp32", "fast": "ours, trainer=fast"}
        mlp_rows = [
            [
                names[side],
                spread(column(found, "seconds")),
                f"at most {MLP_SECONDS}" if side in OURS else "",
                spread(ratios(results, "tensors", side)),
                spread(column(found, "loss"), 3),
            ]
            for side, found in results.items()
        ]
        print(table(["loop", "seconds", "wanted", "times as fast as the plain loop", "loss"], mlp_rows))


if __name__ == "__main__":
    main()
