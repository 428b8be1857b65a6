"""Made-up studies: sweeps whose truth is known, as tables and as runs in a tracking store."""

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fairsweep.compare.load import Tables

DEFAULT_LR = {"adam": "0.001", "sgd": "0.05"}


@dataclass(frozen=True)
class Arm:
    """What is true of an arm: its accuracy falls with the distance from the best learning rate.

    Attributes:
        accuracy: at the best learning rate, `best`; the same on test.
        diverges: from this learning rate on.
    """

    lrs: Sequence[float] = (1e-4, 1e-3, 1e-2, 1e-1)
    accuracy: float = 0.97
    best: float = 1e-2
    noise: float = 0.004
    diverges: float = math.inf

    def at(self, lr: float) -> float:
        return max(0.1, self.accuracy - 0.02 * abs(math.log10(lr / self.best)) ** 2)


ADAM = Arm((1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2), 0.975, 3e-3)
SGD = Arm((1e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0), 0.968, 1e-1, diverges=0.9)


def study(
    arms: dict[str, Arm] | None = None,
    seeds: Iterable[int] = range(2),
    confirm: Iterable[int] = range(100, 110),
    epochs: int = 10,
    generator: int = 0,
) -> Tables:
    """A sweep of these arms, each with all its learning rates, and a confirm phase at its best."""
    random = np.random.default_rng(generator)
    rows, params, curves = [], {}, []
    for arm, truth in (arms or {"adam": ADAM, "sgd": SGD}).items():
        trials = [(number, lr, "search", seed) for number, lr in enumerate(truth.lrs) for seed in seeds]
        at_best = min(range(len(truth.lrs)), key=lambda i: abs(math.log(truth.lrs[i] / truth.best)))
        trials += [(at_best, truth.lrs[at_best], "confirm", seed) for seed in confirm]
        for number, lr, phase, seed in trials:
            run = f"{len(rows):032x}"
            diverged = lr >= truth.diverges
            final, test = truth.at(lr) + truth.noise * random.standard_normal(2)
            steps = np.arange(1, (2 if diverged else epochs) + 1)
            accuracy = final - 0.6 * np.exp(-steps / 1.5) + 0.001 * random.standard_normal(len(steps))
            accuracy += final - accuracy[-1]
            curve = pd.DataFrame({"run": run, "step": 18 * steps, "seconds": 0.3 * steps})
            curve["val_accuracy"], curve["val_loss"] = accuracy, 3 * (1.002 - accuracy)
            curves.append(curve)
            rows.append(
                {
                    "sweep": "made0up0",
                    "arm": arm,
                    "trial": number,
                    "phase": phase,
                    "seed": seed,
                    "values": {"optimizer.lr": f"{lr:g}"},
                    "reused": False,
                    "status": "diverged" if diverged else "finished",
                    "reason": "the loss is not finite" if diverged else "all epochs done",
                    "val_accuracy": accuracy[-1],
                    "val_loss": curve["val_loss"].iloc[-1],
                    "objective": math.nan if diverged else final,
                    "test_accuracy": math.nan if diverged else test,
                    "test_loss": math.nan if diverged else 3 * (1.002 - test),
                    "seconds": 0.3 * len(steps),
                    "shared": False,
                    "started": 1.79e9 + len(rows),
                    "run": run,
                    "experiment": "1",
                    "name": f"{arm} lr={lr:g} seed={seed}",
                    "signature": f"s{len(rows):015x}",
                    "device": "cpu",
                    "precision": "fp32",
                    "hostname": "here",
                    "commit": "0123456789abcdef0123456789abcdef01234567",
                    "dirty": "false",
                    "code": "c0de",
                    "data": "da7a",
                    "versions": "python 3.11.7, torch 2.15.0",
                }
            )
            params[run] = configuration(arm, lr, seed, epochs)
    table, all_curves = pd.DataFrame(rows), pd.concat(curves, ignore_index=True)
    table = table.sort_values(["arm", "trial", "phase", "seed"], kind="stable", ignore_index=True)
    return Tables(
        runs=table,
        params=pd.DataFrame.from_dict(params, orient="index"),
        curves=lambda runs: all_curves[all_curves["run"].isin(runs)].reset_index(drop=True),
        objective="val_accuracy",
        sweeps=[definition(table, list(seeds), list(confirm))],
        what="sweep made0up0",
        uri="http://127.0.0.1:5000",
    )


def configuration(arm: str, lr: float, seed: int, epochs: int) -> dict[str, str]:
    """As many keys as a real run has."""
    return {
        "seed": str(seed),
        "objective": "val_accuracy",
        "data.name": "digits",
        "model.name": "two_conv",
        "optimizer._target_": f"torch.optim.{'Adam' if arm == 'adam' else arm.upper()}",
        "optimizer.lr": f"{lr:g}",
        "trainer.epochs": str(epochs),
        "trainer.batch_size": "64",
        **{f"model.other_{number}": str(number) for number in range(50)},
    }


def definition(runs: pd.DataFrame, seeds: list[int], confirm: list[int]) -> dict[str, Any]:
    """The sweep's `sweep.json`."""
    spaces = {
        arm: {"optimizer.lr": ",".join(dict.fromkeys(v["optimizer.lr"] for v in rows["values"]))}
        for arm, rows in runs.groupby("arm")
    }
    return {
        "id": "made0up0",
        "command": "src/train.py -m +sweep=made_up",
        "objective": "val_accuracy",
        "arms": {
            arm: {
                "fixed": [f"optimizer={arm}"],
                "space": space,
                "default": {"optimizer.lr": DEFAULT_LR.get(str(arm), "0.01")},
            }
            for arm, space in spaces.items()
        },
        "sampler": "grid",
        "trials": int(runs.groupby("arm")["trial"].nunique().max()),
        "seeds": seeds,
        "confirm_seeds": confirm,
        "extend": False,
        "halving": None,
        "equal_budget": True,
        "started": 1.79e9,
        "ended": 1.79e9 + 600,
        "status": "finished",
        "counts": runs["status"].value_counts().to_dict(),
        "reused": 0,
    }


def upload(tables: Tables, uri: str, artifacts: Path) -> None:
    """Write a study into a tracking store as a sweep does. Runs get ids, and start times, of MLflow's."""
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Param, RunTag

    client = MlflowClient(uri)
    found = client.get_experiment_by_name("fairsweep")
    experiment = found.experiment_id if found else client.create_experiment("fairsweep", artifacts.as_uri())
    sweep = tables.sweeps[0]
    tags = {"fairsweep_sweep": sweep["id"], "status": sweep["status"], "command": sweep["command"]}
    parent = client.create_run(experiment, round(sweep["started"] * 1000), tags, f"sweep {sweep['id']}")
    client.log_dict(parent.info.run_id, sweep, "sweep.json")
    for row in tables.runs.to_dict("records"):
        member = {key: row[key] for key in ("arm", "trial", "phase", "seed", "values")}
        owner = "another0" if row["reused"] else sweep["id"]
        versions = dict(item.split() for item in row["versions"].split(", "))
        tags = {key: str(row[key]) for key in ("arm", "trial", "phase", "seed", "status", "reason")}
        tags |= {key: row[key] for key in ("signature", "device", "precision", "hostname", "code", "data")}
        tags |= {"sweep": owner, f"sweep.{sweep['id']}": json.dumps([member])}
        tags |= {"mlflow.parentRunId": parent.info.run_id, "mlflow.source.git.commit": row["commit"]}
        tags |= {"git_dirty": row["dirty"], **{f"version.{key}": value for key, value in versions.items()}}
        started = round(row["started"] * 1000)
        run = client.create_run(experiment, started, {}, row["name"]).info.run_id
        metrics = []
        if row["status"] == "finished":
            end = {key: row[key] for key in ("objective", "test_accuracy", "test_loss")}
            metrics = [Metric(k, v, started, 1) for k, v in end.items() if not math.isnan(v)]
        curve = tables.curves([row["run"]])
        lasting = curve["seconds"].diff().fillna(curve["seconds"])
        for point, seconds in zip(curve.to_dict("records"), lasting, strict=True):
            figures = {"epoch_seconds": seconds, **{k: point[k] for k in ("val_loss", "val_accuracy")}}
            time = started + round(point["seconds"] * 1000)
            metrics += [Metric(key, value, time, point["step"]) for key, value in figures.items()]
        client.log_batch(
            run,
            metrics[:1000],
            [Param(key, value) for key, value in tables.params.loc[row["run"]].items()],
            [RunTag(key, value) for key, value in tags.items()],
        )
        client.set_terminated(run, "FINISHED", started + round(row["seconds"] * 1000))
