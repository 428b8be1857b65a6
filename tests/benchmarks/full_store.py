"""A store that holds 10,000 finished runs: is anything slower than in an empty one?

The runs are one real run, copied: its folder (by hard links) and its rows in the SQLite database. Measured,
each in a process of its own: a sweep of 100 short runs from the command to the end, the same command again
(which finds them finished), and the report of these 100 alone.

    python tests/benchmarks/full_store.py               # a quarter of an hour
"""

import argparse
import contextlib
import json
import os
import shutil
import sqlite3
import tempfile
import uuid
from pathlib import Path

import timed
from common import alternate, heading, spread, table

QUICK = ("model=mlp", "model.widths=[16]", "data.limit=200", "trainer.epochs=2", "trainer.threads=1")

# Tables of MLflow's that hold something of each run.
TABLES = ("metrics", "latest_metrics", "params", "tags")


def command(script: str, outputs: Path, *words: str) -> float:
    """Seconds of a command of ours."""
    done = timed.call(script, *words, f"record.dir={outputs}")
    if done.status != 0:
        raise SystemExit(done.output)
    return done.seconds


def filled(outputs: Path, runs: int) -> None:
    """Copy one real run this many times."""
    command("src/train.py", outputs, "-m", *QUICK, "seed=999999")
    (original,) = (path.parent for path in outputs.glob("runs/*/status.json"))
    with contextlib.closing(sqlite3.connect(outputs / "mlflow.db")) as database:
        state = json.loads((original / "tracking.json").read_text())
        ((uri, known),) = state.items()
        columns = {
            name: [row[1] for row in database.execute(f"PRAGMA table_info({name})")]
            for name in ("runs", *TABLES)
        }
        for number in range(runs - 1):
            signature, run_id = f"c{number:015x}", uuid.uuid4().hex
            copy = original.with_name(signature)
            shutil.copytree(original, copy, copy_function=os.link)
            (copy / "tracking.json").unlink()
            (copy / "tracking.json").write_text(json.dumps({uri: {**known, "run_id": run_id}}))
            for name in ("runs", *TABLES):
                values = ", ".join(":new" if key == "run_uuid" else key for key in columns[name])
                database.execute(
                    f"INSERT INTO {name} SELECT {values} FROM {name} WHERE run_uuid = :old",
                    {"new": run_id, "old": known["run_id"]},
                )
            database.execute(
                "UPDATE tags SET value = ? WHERE run_uuid = ? AND key = 'signature'", (signature, run_id)
            )
        database.commit()


def measured(outputs: Path, number: int) -> dict[str, float]:
    """Seconds of a new sweep, of the same again, and of its report."""
    words = (*QUICK, "optimizer.lr=0.1,0.01", f"seed=range({1000 * number},{1000 * number + 50})")
    return {
        "sweep": command("src/train.py", outputs, "-m", *words),
        "again": command("src/train.py", outputs, "-m", *words),
        "report": command("src/compare.py", outputs),
    }


def main() -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--runs", type=int, default=10_000, help="in the full store (default: %(default)s)")
    options.add_argument("--rounds", type=int, default=3, help="default: %(default)s")
    args = options.parse_args()
    print(heading() + f"; {args.rounds} rounds of 100 runs\n", flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        empty, full = Path(scratch) / "empty", Path(scratch) / "full"
        filled(empty, 1)
        filled(full, args.runs)
        found = alternate(
            {"empty": lambda n: measured(empty, n), "full": lambda n: measured(full, n)}, args.rounds
        )
        rows = []
        for name, what in (
            ("sweep", "a sweep of 100 new runs"),
            ("again", "the same command again"),
            ("report", "a report of 100 runs"),
        ):
            sides = {side: [result[name] for result in results] for side, results in found.items()}
            ratios = [full / empty for full, empty in zip(sides["full"], sides["empty"], strict=True)]
            rows.append([what, spread(sides["empty"]), spread(sides["full"]), spread(ratios), "at most 1.5"])
        sizes = [
            f"{sum(path.stat().st_size for path in outputs.glob('mlflow.db*')) / 1e6:.0f} MB"
            for outputs in (empty, full)
        ]
        rows.append(["`mlflow.db`", *sizes, "", ""])
    print(table(["seconds of", "empty store", f"with {args.runs:,} runs", "ratio", "wanted"], rows))


if __name__ == "__main__":
    main()
