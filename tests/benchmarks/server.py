"""Sixteen runs that log at once to an MLflow server on PostgreSQL: is anything lost, or twice?

Each has 200 epochs, so 200 points of nine metrics, in a process of its own, and uploads twice a second. Once
left alone, once with the server killed (`kill -9`) and started again in the middle, once with PostgreSQL
stopped for 30 s. Needs PostgreSQL (Debian: postgresql) and psycopg (pip install 'psycopg[binary]').

    python tests/benchmarks/server.py                   # ten minutes
"""

import argparse
import json
import multiprocessing
import os
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import common
from common import ROOT, heading, table

sys.path.insert(0, str(ROOT / "tests"))

from servers import Postgres, Server, mlflow_server, postgres

WORDS = (
    "model=mlp", "model.widths=[16]", "trainer.epochs=200", "trainer.batch_size=16", "trainer.threads=1",
    "trainer.log_every=100000", "optimizer=sgd", "optimizer.lr=0.01",
)  # fmt: skip


def train(outputs: str, uri: str, seed: int) -> None:
    """One run, in a process of its own."""
    from rich.console import Console

    from fairsweep.runs import session, uploader
    from fairsweep.runs.identity import RunSpec
    from fairsweep.runs.progress import Progress

    session.CHECKPOINT_SECONDS, uploader.RETRY_SECONDS = 0.5, 1.0
    cfg = common.compose(*WORDS, f"record.dir={outputs}", f"tracking.uri={uri}", f"seed={seed}")
    with uploader.running(lambda _: None):
        session.run([RunSpec(cfg, single=False)], Progress(Console(quiet=True), quiet=True))
        uploader.flush(cfg)


def scenario(database: Postgres, runs: int, disturb: Callable[[Server], None]) -> list[object]:
    """Seconds, and what the server has too much or too little in the end."""
    from mlflow import MlflowClient

    from fairsweep.runs import markers, tracking

    with (
        tempfile.TemporaryDirectory() as scratch,
        mlflow_server(Path(scratch), database.new_database(), workers=2) as server,
    ):
        outputs = Path(scratch) / "outputs"
        client = MlflowClient(server.uri)
        os.environ["PYTHONPATH"] = str(ROOT / "src")
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["fairsweep.training.loop", "mlflow", "sklearn.datasets"])
        begun = time.monotonic()
        processes = [context.Process(target=train, args=(str(outputs), server.uri, n)) for n in range(runs)]
        for process in processes:
            process.start()
        while (
            sum(path.read_bytes().count(b"\n") for path in outputs.glob("runs/*/journal.jsonl")) < 20 * runs
        ):
            if not any(process.is_alive() for process in processes):
                raise SystemExit("no run was trained")
            time.sleep(0.2)
        other = threading.Thread(target=disturb, args=(server,))
        other.start()
        for process in processes:
            process.join()
        seconds = time.monotonic() - begun
        other.join()
        cfg = common.compose(f"record.dir={outputs}", f"tracking.uri={server.uri}")
        late = len(list(markers.pending(outputs).iterdir()))
        tracking.sync_pending(str(outputs), cfg, lambda text: print(text, file=sys.stderr))
        found = Counter[str]()
        tracked = {run.data.tags["signature"]: run.info.run_id for run in client.search_runs(["1"])}
        found["runs"] = len(client.search_runs(["1"]))
        for path in outputs.glob("runs/*/journal.jsonl"):
            journal = [json.loads(line) for line in path.read_text().splitlines()]
            for key in {key for line in journal for key in line} - {"step", "epoch", "time"}:
                told = Counter((line["step"], line[key]) for line in journal if line.get(key) is not None)
                history = client.get_metric_history(tracked[path.parent.name], key)
                held = Counter((point.step, point.value) for point in history)
                found["points"] += told.total()
                found["lost"] += (told - held).total()
                found["twice"] += (held - told).total()
    return [
        f"{seconds:.0f}", sum(process.exitcode == 0 for process in processes), found["runs"], found["points"],
        found["lost"], found["twice"], late,
    ]  # fmt: skip


def nothing(_: Server) -> None:
    pass


def kill(server: Server) -> None:
    server.kill()
    time.sleep(2)
    server.start()


def main() -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--runs", type=int, default=16, help="default: %(default)s")
    args = options.parse_args()
    print(heading() + f"; {args.runs} runs of {' '.join(WORDS)}\n", flush=True)
    with postgres() as database:

        def stop(_: Server) -> None:
            database.stop()
            time.sleep(30)
            database.start()

        cases = {"left alone": nothing, "server killed": kill, "PostgreSQL stopped for 30 s": stop}
        rows = [[name, *scenario(database, args.runs, disturb)] for name, disturb in cases.items()]
    head = [
        "server",
        "seconds",
        "runs finished",
        "in MLflow",
        "points",
        "lost",
        "twice",
        "uploaded afterwards",
    ]
    print(table(head, rows))


if __name__ == "__main__":
    main()
