"""A sweep of 200 runs on a Ray of three nodes on one machine, one of them killed (`kill -9`) in the middle.

Counted: runs that finished, that were trained twice, that MLflow lacks; and the seconds, against those of the
same sweep left alone.

    python tests/benchmarks/node_dies.py                # some minutes
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import timed
from common import heading, table

WORDS = (
    "hydra/launcher=ray", "model=mlp", "model.widths=[16]", "optimizer=adam,sgd", "optimizer.lr=0.03,0.01",
    "trainer.epochs=20",
)  # fmt: skip


def statuses(outputs: Path) -> list[str]:
    """Of the runs that have begun."""
    return [json.loads(path.read_text())["status"] for path in outputs.glob("runs/*/status.json")]


def sweep(runs: int, kill: bool) -> tuple[float, list[object]]:
    """Seconds, and what is counted."""
    from mlflow import MlflowClient
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    victim, _ = (cluster.add_node(num_cpus=1) for _ in range(2))
    with tempfile.TemporaryDirectory() as scratch:
        outputs = Path(scratch)
        words = [f"record.dir={scratch}", f"seed=range({runs // 4})"]
        address = f"hydra.launcher.address={cluster.address}"
        begun = time.monotonic()
        with Path(scratch, "log").open("wb") as log:
            process = timed.start(log, "src/train.py", "-m", *WORDS, address, *words)
        while kill and statuses(outputs).count("finished") < runs / 2:
            time.sleep(0.1)
        if kill:
            cluster.remove_node(victim, allow_graceful=False)
        status = process.wait()
        seconds = time.monotonic() - begun
        ended = statuses(outputs)
        logs = [path.read_text() for path in outputs.glob("runs/*/run.log")]
        client = MlflowClient(f"sqlite:///{outputs}/mlflow.db")
        tracked = client.search_runs(
            ["1"], "tags.status = 'finished' and tags.signature != ''", max_results=5000
        )
        found: list[object] = [
            status,
            ended.count("finished"),
            sum(log.count("finished after step") != 1 for log in logs)
            + len(list(outputs.glob("runs/.history/*"))),
            len(tracked),
        ]
    cluster.shutdown()
    return seconds, found


def main() -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--runs", type=int, default=200, help="default: %(default)s")
    args = options.parse_args()
    print(heading() + f"; {args.runs} runs of {' '.join(WORDS[1:])}\n", flush=True)
    rows = []
    for name, kill in (("left alone", False), ("one of three nodes killed", True)):
        seconds, found = sweep(args.runs, kill)
        rows.append([name, f"{seconds:.0f}", *found])
    head = ["sweep", "seconds", "exit status", "finished", "trained twice", "finished in MLflow"]
    print(table(head, rows))


if __name__ == "__main__":
    main()
