"""What a comparison report costs: seconds, and megabytes of its page, for made-up sweeps in a SQLite store.

Three sides, each round each in a new process: a sweep of 100 runs alone in its store; the same sweep in a
store with 11,000 other runs; and, in that store, a sweep of 1,000 runs of 100 epochs each. Of each the whole
command, from the start of Python to its end; and of another report loading modules, reading the tables, and
writing. Then the page of 1,000 runs in a browser: until all of it stands, and how long it takes to answer the
pointer, and a click that sorts its table.

    python tests/benchmarks/report_cost.py                        # about 6 minutes, most to make the store
    python tests/benchmarks/report_cost.py --store /somewhere     # keep the store there, or use the one there
"""

import argparse
import gc
import json
import os
import shutil
import sqlite3
import subprocess
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
    gc.disable()  # as src/compare.py does
    from fairsweep.compare import mlflow_tables, report
    from fairsweep.compare.findings import ReportSettings

    import_module("mlflow")  # after ours, which sets its environment

    loaded = time.perf_counter()
    tables = mlflow_tables.load(uri, str(folder), [sweep])
    read = time.perf_counter()
    report.write(tables, ReportSettings(), folder / "report")
    written = time.perf_counter()
    return {"modules": loaded - begun, "read": read - loaded, "write": written - read}


def pointed_at(page: Path) -> list[list[object]]:
    """How the page answers in a browser, in milliseconds."""
    from playwright.sync_api import sync_playwright

    point = "#plot-verdict .trace .points path"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), chromium_sandbox=os.geteuid() != 0
        )
        tab = browser.new_page(viewport={"width": 1240, "height": 900})
        begun = time.perf_counter()
        tab.goto(page.as_uri())
        tab.wait_for_selector("#plot-parallel .parcoords", state="attached")
        loaded = time.perf_counter() - begun
        tab.locator("#plot-sensitivity").scroll_into_view_if_needed()
        tab.wait_for_timeout(500)
        boxes = [
            p.bounding_box() for p in tab.locator(point.replace("verdict", "sensitivity")).all()[:200:10]
        ]
        hovers = []
        for box in filter(None, boxes):
            tab.mouse.move(5, 5)
            tab.wait_for_selector("#plot-sensitivity .hovertext", state="detached")
            begun = time.perf_counter()
            tab.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
            tab.wait_for_selector("#plot-sensitivity .hovertext")
            hovers.append(1000 * (time.perf_counter() - begun))
        sort = "() => { const t = performance.now(); document.querySelectorAll('#runs th')[3].click(); "
        sort += "document.body.offsetHeight; return performance.now() - t; }"
        sorts = [tab.evaluate(sort) for _ in range(5)]
        browser.close()
    rows = [
        ("until all figures are drawn", [1000 * loaded]),
        ("hovering over a point", hovers),
        ("sorting the table", sorts),
    ]
    return [[name, spread(values, 0)] for name, values in rows]


def measure(store: Path, database: str, sweep: str, _: int) -> Result:
    """One report by the command, and one taken apart; each in a process of its own."""
    uri, page = f"sqlite:///{store}/{database}", store / "report"
    words = [f"record.dir={store}", f"tracking.uri={uri}", f"sweep={sweep}", f"output={page}"]
    begun = time.perf_counter()
    subprocess.run(
        [sys.executable, "src/compare.py", *words], cwd=ROOT, stdout=subprocess.DEVNULL, check=True
    )
    seconds = time.perf_counter() - begun
    parts = child("report_cost.py", "--once", uri, sweep, store / "scratch")
    return {**parts, "command": seconds, "size": (page / "report.html").stat().st_size / 1e6}


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
        answers = pointed_at(store / "report" / "report.html")  # the last side's: 1,000 runs
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
    print("\nThe page of 1,000 runs in Chromium, without a graphics card:\n")
    print(table(["what", "ms"], answers))
    print("\nWanted: 1,000 runs under 10 s and 8 MB; 100 runs under 3 s, however many others there are.")


if __name__ == "__main__":
    main()
