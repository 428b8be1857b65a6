"""Our training loop, for speed.py, which runs this in a process of its own each time.

    python tests/benchmarks/loop_ours.py SIDE CASE IMAGES DATA EPOCHS THREADS

SIDE is `fp32`, or `fast` for the preset trainer=fast. Prints the same JSON as loop_theirs.py, with the
precision and the processor's seconds in all. THREADS 0 is torch's own choice. Timed is the whole of `fit`;
only the writing of journal and checkpoints is not there.
"""

import json
import sys
import time
from typing import Any

from common import compose, overrides


def ours(side: str, case: str, images: int, data: str, epochs: int, threads: int) -> dict[str, Any]:
    from fairsweep.training import build
    from fairsweep.training.lane import Lane
    from fairsweep.training.loop import fit

    # Paused before the last epoch, because the run's end has a test, which the other loops do not.
    horizon = [f"trainer.epochs={epochs + 1}", f"trainer.stop_epoch={epochs}"]
    preset = ["trainer=fast"] if side == "fast" else []
    cfg = compose(*overrides(case, images, data), *preset, *horizon, "trainer.test_each_epoch=false")
    started = time.perf_counter()
    build.data(cfg, build.device(cfg))
    reading = time.perf_counter() - started
    Lane(cfg, threads or None).advance(20, lambda: False)
    lane = Lane(cfg, threads or None)
    started, worked = time.perf_counter(), time.process_time()
    lines = [line for event in fit([lane]) for line in event.lines]
    seconds, worked = (time.perf_counter() - started) / epochs, time.process_time() - worked
    if lane.ending is None or lane.ending.status != "paused":
        sys.exit(f"{case}: {lane.ending}")
    return {
        "seconds": seconds,
        "cpu": worked,
        "reading": reading,
        "steps": lane.steps_per_epoch,
        "loss": lines[-1]["epoch_train_loss"],
        "precision": lane.precision,
    }


if __name__ == "__main__":
    side, case, images, data, epochs, threads = sys.argv[1:]
    print(json.dumps(ours(side, case, int(images), data, int(epochs), int(threads))))
