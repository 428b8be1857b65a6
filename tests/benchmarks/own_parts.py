"""What it costs to bring one's own model, a large one, and more metrics.

- The same layers by `model=two_conv` and as a user's class (`model._target_=own_model.TwoConv`), on MNIST:
  a user's own model should train as fast, 0.98 to 1.02 times ours.
- `model=resnet18` on images of 3x32x32 with flips and crops, in fp32 and with trainer=fast, against a plain
  loop: DataLoader over PIL images, torchvision's transforms, NCHW. Wanted: 1.05 times as fast in fp32, and
  1.7 with trainer=fast where bf16 is native.
- An epoch of two_conv with its validation, with and without five more metrics: wanted is less than 2% more.
- An epoch of two_conv over images in a mapped file, as they are kept if they do not fit memory, and over
  images in memory: wanted is at most 1.3 times as long. The system caches the file, as it was just written.

Each figure comes from a process of its own, after a warm-up of some steps; sides alternate; a ratio is the
median of the rounds' own ratios (smallest to largest).

    python tests/benchmarks/own_parts.py                  # about 15 minutes on two cores
    python tests/benchmarks/own_parts.py --rounds 1 --images 2000 --large 320       # a quick look
"""

import json
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from common import Result, alternate, child, compose, heading, parser, spread, table

METRICS = ("f1", "balanced_accuracy", "precision", "recall", "mcc")
OWN = ["model=other", "model._target_=own_model.TwoConv", "model.name=own"]
LARGE = ["model=resnet18", "data.augment={flip: true, crop: 4}", "trainer.batch_size=64"]


def ours(overrides: list[str], warm_up: int) -> Result:
    """Seconds of an epoch of training and, if there is any, of its validation."""
    from fairsweep.training.lane import Lane
    from fairsweep.training.loop import fit

    cfg = compose(*overrides, "trainer.device=cpu", "trainer.epochs=2", "trainer.stop_epoch=1")
    Lane(cfg).advance(warm_up, lambda: False)
    lane = Lane(cfg)
    started = time.perf_counter()
    for _ in fit([lane]):
        pass
    assert lane.ending is not None
    assert lane.ending.status == "paused", lane.ending
    return {"seconds": time.perf_counter() - started, "precision": lane.precision}


def plain(file: str, warm_up: int) -> Result:
    """Seconds of an epoch of the plain loop over the same images."""
    import torch
    from own_model import resnet18
    from PIL import Image
    from torch.nn import functional as F
    from torch.utils.data import DataLoader, Dataset
    from torchvision import transforms

    arrays = np.load(file)
    change = transforms.Compose(
        [
            transforms.RandomCrop(32, padding=4),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize((0.5,) * 3, (0.25,) * 3),
        ]
    )

    class Images(Dataset[Any]):
        def __len__(self) -> int:
            return len(arrays["targets"])

        def __getitem__(self, index: int) -> tuple[Any, int]:
            return change(Image.fromarray(images[index])), int(labels[index])

    images, labels = arrays["inputs"].transpose(0, 2, 3, 1), arrays["targets"]
    network = resnet18(10)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)

    def epoch(steps: int | None) -> None:
        for step, (inputs, targets) in enumerate(DataLoader(Images(), batch_size=64, shuffle=True)):
            if step == steps:
                return
            optimizer.zero_grad()
            loss = F.cross_entropy(network(inputs), targets)
            loss.backward()
            optimizer.step()
            loss.item()

    epoch(warm_up)
    started = time.perf_counter()
    epoch(None)
    return {"seconds": time.perf_counter() - started, "precision": "fp32"}


def ratio(results: dict[str, list[Result]], of: str, to: str) -> str:
    pairs = zip(results[of], results[to], strict=True)
    return spread([one["seconds"] / other["seconds"] for one, other in pairs])


def measure(sides: dict[str, tuple[str, list[str], int]], rounds: int) -> dict[str, list[Result]]:
    """Results by side; a side is `ours` or `plain`, its words, and the steps of its warm-up."""

    def run(side: tuple[str, list[str], int], _: int) -> Result:
        return child("own_parts.py", "--child", json.dumps(side))

    return alternate({name: partial(run, side) for name, side in sides.items()}, rounds)


def write_images(file: Path, count: int) -> None:
    """Random images of 3x32x32 in ten classes, and a few for test."""
    random = np.random.default_rng(0)
    inputs = random.integers(0, 256, (count, 3, 32, 32), np.uint8)
    np.savez(file, inputs=inputs, targets=random.permutation(np.arange(count) % 10))


def main() -> None:
    made = parser(__doc__)
    made.add_argument("--images", type=int, default=20000, help="of MNIST (default: %(default)s)")
    made.add_argument("--large", type=int, default=1280, help="of 3x32x32 (default: %(default)s)")
    made.add_argument("--rounds", type=int, default=5)
    args = made.parse_args()
    print(f"{heading()}; {args.rounds} rounds\n")
    mnist = ["data=mnist", f"data.root={args.data}", f"data.limit={args.images}", "trainer.batch_size=200"]
    unjudged = [*mnist, "data.val_size=0"]
    sides = {"ours": [], "own": OWN, "mapped": ["trainer.data_on=disk"]}
    results = measure({name: ("ours", [*unjudged, *words], 20) for name, words in sides.items()}, args.rounds)
    rows = [
        ["a user's two_conv / ours, seconds of an epoch", ratio(results, "own", "ours"), "0.98 to 1.02"],
        ["two_conv, images in a mapped file / in memory", ratio(results, "mapped", "ours"), "at most 1.3"],
    ]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "images.npz"
        write_images(file, args.large)
        words = ["data=arrays", f"data.file={file}", "data.val_size=0", "data.test_size=0", *LARGE]
        results = measure(
            {
                "plain": ("plain", [str(file)], 3),
                "fp32": ("ours", words, 3),
                "fast": ("ours", [*words, "trainer=fast", "trainer.batch_size=64"], 3),
            },
            args.rounds,
        )
    rows.append(["plain loop / ours, ResNet-18, fp32", ratio(results, "plain", "fp32"), "1.05"])
    precision = results["fast"][0]["precision"]
    wanted = "1.7" if precision == "bf16" else "-"
    rows.append([f"plain loop / ours, ResNet-18, {precision}", ratio(results, "plain", "fast"), wanted])
    more = [f"+metrics.{name}={{}}" for name in METRICS]
    results = measure({"few": ("ours", mnist, 20), "more": ("ours", [*mnist, *more], 20)}, args.rounds)
    rows.append(
        ["epoch and validation, five more metrics / none", ratio(results, "more", "few"), "at most 1.02"]
    )
    print(table(["what", "times", "wanted"], rows))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        kind, words, warm_up = json.loads(sys.argv[2])
        print(json.dumps(ours(words, warm_up) if kind == "ours" else plain(words[0], warm_up)))
    else:
        main()
