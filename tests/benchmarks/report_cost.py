"""What a comparison report costs: seconds, and megabytes of its page, for made-up sweeps in a SQLite store.

Three sides, each round each in a new process: a sweep of 100 runs alone in its store; the same sweep in a
store with 11,000 other runs; and, in that store, a sweep of 1,000 runs of 100 epochs each. Of each the whole
command, from the start of Python to its end, and of that loading modules, reading the tables, and writing the
report.

    python tests/benchmarks/report_cost.py                        # about 6 minutes, most to make the store
    python tests/benchmarks/report_cost.py --store /somewhere     # keep the store there, or use the one there
"""

import argparse
import json
import shutil
import sqlite3
import sys
import tempfile
import time
from dataclasses import replace
from functools import partial
from importlib import import_module
from pathlib import Path

import numpy as np
from common import ROOT, Result, alternate, child, heading, spread, table

sys.path.insert(0, str(ROOT / "tests"))

EPOCHS, COPIES = 100, 100
TABLES = ("runs", "tags", "params", "metrics", "latest_metrics")


def make_store(folder: Path) -> None:
    """`alone.db` with a sweep of 100 runs; `mlflow.db` with 10,000 copies of these, too, and one of 1,000."""
    from studies import ADAM, SGD, study, upload

    folder.mkdir(parents=True, exist_ok=True)
    uri = f"sqlite:///{folder}/mlflow.db"
    hundred = study(seeds=range(7), confirm=range(100, 108), epochs=EPOCHS)
    many = {"adam": (ADAM, 1e-5, 1e-1), "sgd": (SGD, 1e-4, 1.0)}
    arms = {
        arm: replace(truth, lrs=tuple(np.geomspace(low, high, 48).round(8)))
        for arm, (truth, low, high) in many.items()
    }
    thousand = study(arms, seeds=range(10), confirm=range(100, 120), epochs=EPOCHS)
    for name, tables in (("hundred", hundred), ("thousand", thousand)):
        tables.sweeps[0]["id"] = name
        upload(tables, uri, folder / "artifacts")
        if name == "hundred":
            copy(folder / "mlflow.db", folder / "alone.db")
    with sqlite3.connect(folder / "mlflow.db") as database:
        for number in range(COPIES):
            multiply(database, number)


def copy(source: Path, goal: Path) -> None:
    with sqlite3.connect(source) as old, sqlite3.connect(goal) as new:
        old.backup(new)


def multiply(database: sqlite3.Connection, number: int) -> None:
    """Another sweep like `hundred`: its runs once more, under other ids."""
    which = "select run_uuid from tags where key = 'sweep.hundred'"
    runs = [row[0] for row in database.execute(which)]
    for name in TABLES:
        columns = [row[1] for row in database.execute(f"pragma table_info({name})")]
        values = [f"'{number:04x}' || substr(run_uuid, 5)" if c == "run_uuid" else c for c in columns]
        if name == "tags":
            values[columns.index("key")] = f"replace(key, 'sweep.hundred', 'sweep.other{number}')"
        places = ", ".join("?" * len(runs))
        database.execute(
            f"insert into {name} ({', '.join(columns)}) "
            f"select {', '.join(values)} from {name} where run_uuid in ({places})",
            runs,
        )


def once(uri: str, sweep: str, folder: Path) -> Result:
    """One report; seconds of its parts."""
    begun = time.perf_counter()

    from fairsweep.compare import load, report
    from fairsweep.compare.findings import Settings

    import_module("mlflow")  # after ours, which sets its environment

    loaded = time.perf_counter()
    tables = load.load(uri, str(folder), [sweep])
    read = time.perf_counter()
    report.write(tables, Settings(), folder / "report")
    written = time.perf_counter()
    size = (folder / "report" / "report.html").stat().st_size
    parts = {"modules": loaded - begun, "read": read - loaded, "write": written - read}
    return {**parts, "runs": len(tables.runs), "size": size / 1e6}


def measure(store: Path, database: str, sweep: str, _: int) -> Result:
    """One report in a process of its own."""
    with tempfile.TemporaryDirectory() as scratch:
        begun = time.perf_counter()
        uri = f"sqlite:///{store}/{database}"
        result = child("report_cost.py", "--once", uri, sweep, scratch)
        return {**result, "command": time.perf_counter() - begun}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--store", type=Path, help="folder of the store (default: a temporary one)")
    parser.add_argument("--rounds", type=int, default=3, help="default: %(default)s")
    parser.add_argument("--once", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.once:
        uri, sweep, folder = args.once
        print(json.dumps(once(uri, sweep, Path(folder))))
        return
    store = args.store or Path(tempfile.mkdtemp(prefix="fairsweep-"))
    try:
        if not (store / "mlflow.db").exists():
            make_store(store)
        print(f"{heading()}; {args.rounds} rounds\n", flush=True)
        sides = {
            "100 runs, alone in the store": partial(measure, store, "alone.db", "hundred"),
            "100 runs, 11,000 others there": partial(measure, store, "mlflow.db", "hundred"),
            "1,000 runs, 10,100 others there": partial(measure, store, "mlflow.db", "thousand"),
        }
        results = alternate(sides, args.rounds)
    finally:
        if args.store is None:
            shutil.rmtree(store, ignore_errors=True)
    rows = [
        [
            name,
            *(spread([r[key] for r in rounds]) for key in ("command", "modules", "read", "write")),
            f"{rounds[0]['size']:.1f} MB",
        ]
        for name, rounds in results.items()
    ]
    head = ["sweep of", "whole command, s", "loading modules, s", "reading, s", "writing, s", "page"]
    print(table(head, rows))
    print("\nWanted: 1,000 runs under 10 s and 8 MB; 100 runs under 3 s, however many others there are.")


if __name__ == "__main__":
    main()
