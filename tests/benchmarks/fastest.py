"""MNIST to 99% in as little training as may be: `recipe=fastest_99` beside the fastest published recipe.

That is train_mnist_fast (https://github.com/tuomaso/train_mnist_fast, 0.762 s and 99.04% on a GTX 1660
Ti), here in plain eager code: one epoch in the files' order, the images normalised and on the device
beforehand. By turns, one seed each; then many seeds of ours side by side, as `hydra/launcher=fused` trains
them. Seconds are of training alone, the first steps and, on CUDA, the capture of the graph among them;
before all that, one run of each is not counted, as libraries load and choose what they use once.

    python tests/benchmarks/fastest.py                       # on two CPU cores some 15 minutes
    python tests/benchmarks/fastest.py --seeds 3
"""

import argparse
import time

import torch
from common import Result, alternate, compose, heading, parser, spread, table
from torch import Tensor, nn

from fairsweep.training import build
from fairsweep.training.lane import Lane
from fairsweep.training.loop import fit

BATCH = 256


def ours(args: argparse.Namespace, seeds: range) -> list[Result]:
    """These seeds side by side: seconds of each, and its test accuracy."""
    words = ["recipe=fastest_99", f"data.root={args.data}", f"trainer.device={args.device}"]
    lanes = [Lane(compose(*words, f"seed={seed}")) for seed in seeds]
    accuracy = {}
    for event in fit(lanes):
        for line in event.lines:
            accuracy[event.lane.seed] = line.get("test_accuracy")
    return [{"seconds": lane.seconds, "accuracy": accuracy[lane.seed]} for lane in lanes]


def theirs(args: argparse.Namespace, seed: int) -> Result:
    """The published recipe."""
    data = build.data(compose("recipe=fastest_99", f"data.root={args.data}"), torch.device(args.device))

    def ready(images: Tensor) -> Tensor:
        return images.float().div_(255).sub_(data.mean[0]).div_(data.std[0])

    images, labels, test = ready(data.train.inputs), data.train.targets, ready(data.test.inputs)
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Conv2d(1, 24, 5), nn.MaxPool2d(2), nn.ReLU(), nn.Conv2d(24, 32, 3), nn.MaxPool2d(2), nn.ReLU(),
        nn.Flatten(), nn.Linear(800, 256), nn.ReLU(), nn.Linear(256, 10),
    ).to(args.device)  # fmt: skip
    started = clock(args.device)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01, betas=(0.7, 0.9))
    steps = -(-len(labels) // BATCH)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=0.01, total_steps=steps, cycle_momentum=False
    )
    for step in range(steps):
        batch = slice(BATCH * step, BATCH * (step + 1))
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images[batch]), labels[batch]).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        scheduler.step()
    seconds = clock(args.device) - started
    with torch.inference_mode():
        guesses = torch.cat([model(part).argmax(1) for part in test.split(2000)])
    return {"seconds": seconds, "accuracy": float((guesses == data.test.targets).double().mean())}


def clock(device: str) -> float:
    """The time at which the device has done all that it was given."""
    if device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter()


def main() -> None:
    made = parser(__doc__)
    default = "cuda" if torch.cuda.is_available() else "cpu"
    made.add_argument("--device", default=default, help="default: %(default)s")
    made.add_argument("--seeds", type=int, default=30, help="default: %(default)s")
    args = made.parse_args()
    name = torch.cuda.get_device_name() if args.device == "cuda" else args.device
    print(f"{heading()}; {name}; torch {torch.__version__}; {args.seeds} seeds\n", flush=True)
    ours(args, range(1))
    theirs(args, 0)
    sides = {
        "`recipe=fastest_99`, alone": lambda seed: ours(args, range(seed, seed + 1))[0],
        "the published recipe, eager": lambda seed: theirs(args, seed),
    }
    found = alternate(sides, args.seeds)
    if args.device != "cpu":  # there, one after another is the same
        found["`recipe=fastest_99`, all together"] = ours(args, range(args.seeds))
    rows = []
    for side, results in found.items():
        accuracy = torch.tensor([100 * result["accuracy"] for result in results], dtype=torch.float64)
        deviation = f" ± {accuracy.std():.2f}" if len(results) > 1 else ""
        seconds = spread([result["seconds"] for result in results], 3)
        rows.append([side, f"{accuracy.mean():.2f}{deviation}%", f"{accuracy.min():.2f}%", seconds])
    print(table(("what", "test accuracy, mean ± sd", "lowest", "seconds of training, median (range)"), rows))


if __name__ == "__main__":
    main()
