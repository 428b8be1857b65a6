"""The tables of sweeps that were begun here, from their folders and those of their runs, without MLflow."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

import pandas as pd

from fairsweep.compare.load import CURVES, UNREADABLE, Tables, assemble, of_plan, what_is_missing
from fairsweep.config import ConfigError, leaves, without_credentials
from fairsweep.runs import markers, schema
from fairsweep.runs.folder import RunFolder
from fairsweep.runs.status import Status
from fairsweep.sweeps.folder import SweepFolder


def load(sweeps: Sequence[SweepFolder], uri: str | None, judge: str | None = None) -> Tables:
    """The tables of these sweeps.

    Args:
        uri: of the tracking store that links lead to, as `tracking.uri`.
        judge: as `load.assemble` takes it.

    Raises:
        ConfigError: no run has begun yet, or a file of a sweep is damaged.
    """
    rows: list[dict[str, Any]] = []
    params: dict[str, dict[str, str]] = {}
    folders: dict[str, RunFolder] = {}
    definitions, missing = [], []
    for sweep in sweeps:
        try:
            definition, plan = sweep.read(), sweep.rows()
        except OSError as error:
            raise ConfigError(f"{error.filename}: cannot be read: {error.strerror}") from error
        if definition["status"] == "running" and not sweep.is_held(definition["id"]):
            definition["status"] = "interrupted"  # its process died
        definitions.append(definition)
        records: dict[str, list[dict[str, Any]]] = {}
        for folder in (sweep.run(signature) for signature in dict.fromkeys(row.signature for row in plan)):
            record = record_of(folder, definition["id"], uri)
            if record is not None:
                row, configuration = record
                records[folder.signature] = [row]
                params[row["run"]], folders[row["run"]] = configuration, folder
        own = of_plan(plan, records, definition)
        where = str(sweep.outputs / "runs")
        missing.append(what_is_missing(own, where, "repeat the sweep's command to train what is missing"))
        rows += own
    what = ", ".join(definition["id"] for definition in definitions)
    what = f"sweep {what}" if len(definitions) == 1 else f"sweeps {what}"
    if not params:
        raise ConfigError(f"{what}: no run has begun, or none is left in {sweeps[0].outputs / 'runs'}")
    return assemble(
        rows,
        params,
        partial(curves, folders),
        judge,
        what=what,
        uri=without_credentials(uri or ""),
        sweeps=definitions,
        missing="; ".join(filter(None, missing)),
    )


def record_of(folder: RunFolder, sweep: str, uri: str | None) -> tuple[dict[str, Any], dict[str, str]] | None:
    """A run as a row of `Tables.runs`, and its configuration; None where that is missing or damaged."""
    status = folder.status()
    if not status.has_begun or folder.damage():
        return None
    try:
        configuration = schema.read_config(folder.path / "config.yaml")
        last: dict[str, float | None] = {
            key: line[key] for line in folder.journal() for key in line if key.startswith("val_")
        }
        state = markers.read_state(folder.path, uri) if uri else {}
        row = row_of(status, last) | {"signature": folder.signature, "reused": status.sweep != sweep}
    except (OSError, *UNREADABLE):
        return None
    row["run"] = str(state.get("run_id", folder.signature))
    row["experiment"] = str(state.get("experiment", ""))
    return row, {key: str(value) for key, value in leaves(configuration).items()}


def row_of(status: Status, last: dict[str, Any]) -> dict[str, Any]:
    """What a run's status and the last figures of its journal say; as in MLflow, a null is no figure."""
    known = asdict(status)
    figures = {**last, "objective": None}
    if status.name == "finished":  # figures of its end belong to a run that has ended well
        figures |= {"objective": status.objective}
        figures |= {f"test_{name}": value for name, value in status.test.items()}
    row = {key: math.nan if value is None else value for key, value in figures.items()}
    row |= {"status": status.name, "reason": status.reason}
    row |= {"seconds": status.seconds or math.nan, "shared": status.shared}
    row |= {key: known[key] for key in ("started", "device", "precision", "hostname", "code", "data")}
    git, versions = status.git, status.versions
    row |= {"commit": git.get("commit", "unknown"), "dirty": git.get("dirty", "unknown")}
    return row | {"versions": ", ".join(f"{name} {number}" for name, number in sorted(versions.items()))}


def curves(folders: Mapping[str, RunFolder], runs: Sequence[str]) -> pd.DataFrame:
    """Validation figures of these runs, a row per run and epoch; see `Tables.curves`."""
    rows = []
    for run in runs:
        seconds = 0.0
        for line in folders[run].journal():
            figures = {key: value for key, value in line.items() if key.startswith("val_")}
            if not figures and "epoch_seconds" not in line:
                continue
            seconds += line.get("epoch_seconds") or math.nan
            rows.append({"run": run, "step": line["step"], "seconds": seconds, **figures})
    table = pd.DataFrame(rows, columns=None if rows else CURVES)
    return table.astype(dict.fromkeys(table.columns.drop(["run", "step"]), float))
