"""What the fused launcher costs on the CPU, where it cannot help: beside Hydra's own, and the bare loop.

A sweep of Adam and SGD over learning rates and seeds, `two_conv` on MNIST. By turns:
- `fused` and `basic`: the whole command, from the shell's view: seconds by the clock, and of the processor;
- bare: the training loop alone, without sweep, record or imports; its processor seconds, times runs.

    python tests/benchmarks/fused.py                               # five rounds: half an hour
    python tests/benchmarks/fused.py --rounds 1 --images 3000      # to see that it works
"""

import statistics
import tempfile
from pathlib import Path

from common import Result, alternate, child, heading, parser, spread, table
from timed import train


def sweep(launcher: str, options: list[str], outputs: Path) -> Result:
    done = train(
        "-m", f"hydra/launcher={launcher}", f"record.dir={outputs}", "tracking=none",
        "optimizer=adam,sgd", "optimizer.lr=0.001,0.01", *options,
    )  # fmt: skip
    return {"seconds": done.seconds, "cpu": done.cpu}


def main() -> None:
    made = parser(__doc__)
    made.add_argument("--rounds", type=int, default=5, help="default: %(default)s")
    made.add_argument("--images", type=int, default=30_000, help="default: %(default)s")
    made.add_argument("--epochs", type=int, default=2, help="default: %(default)s")
    args = made.parse_args()
    options = [
        "recipe=two_conv", f"data.root={args.data}", f"data.limit={args.images}", "trainer.device=cpu",
        f"trainer.epochs={args.epochs}", "trainer.test_each_epoch=false", "seed=range(3)",
    ]  # fmt: skip
    runs = 12
    print(heading() + f"; {runs} runs; {' '.join(options[2:])}\n", flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        outputs = Path(scratch)
        found = alternate(
            {
                "fused": lambda number: sweep("fused", options, outputs / f"fused{number}"),
                "basic": lambda number: sweep("basic", options, outputs / f"basic{number}"),
                "bare": lambda _: child(
                    "loop_ours.py", "fp32", "two_conv", args.images, args.data, args.epochs, 0
                ),
            },
            args.rounds,
        )
    pairs = list(zip(found["fused"], found["basic"], found["bare"], strict=True))
    clock = [fused["seconds"] / basic["seconds"] for fused, basic, _ in pairs]
    bare = [runs * one["cpu"] for _, _, one in pairs]
    work = [fused["cpu"] / seconds for (fused, _, _), seconds in zip(pairs, bare, strict=True)]
    for name in ("fused", "basic"):
        seconds = [one["seconds"] for one in found[name]]
        print(f"{name}: {statistics.median(seconds):.1f} s by the clock in the median", flush=True)
    print(f"bare loops: {statistics.median(bare):.1f} s of the processor\n")
    rows = [
        ["fused / basic, by the clock", spread(clock), "at most 1.03"],
        ["fused / bare loops, of the processor", spread(work), "at most 1.15"],
    ]
    print(table(("what", "median (range)", "wanted"), rows))


if __name__ == "__main__":
    main()
