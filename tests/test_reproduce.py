"""`from=RUN` composes a recorded run again; `tracking.register` and `mlflow models serve` pass it on."""

import json
import os
import re
import shlex
import subprocess
import time
from pathlib import Path
from urllib.error import URLError
from urllib.request import Request, urlopen

import pytest
import yaml
from conftest import Compose
from servers import free_port
from test_cli import assert_one_line
from test_sweep import ARMS, QUICK, Outputs, empty_store, outputs

from fairsweep.config import ConfigError, resolved
from fairsweep.runs import identity, reproduce
from fairsweep.runs.identity import RunSpec

__all__ = ["empty_store", "outputs"]  # fixtures

MLP = ("model=mlp", "model.widths=[12]", "data.limit=200", "trainer.epochs=1", "trainer.threads=1")


def signature(compose: Compose, which: str, *given: str) -> str:
    """The signature of the run that `from=WHICH` with these words composes."""
    cfg = compose(*reproduce.words(which, given), *given)
    return identity.identify(RunSpec(cfg)).signature


def test_a_recorded_run_is_composed_again_from_its_name_its_folder_and_mlflow(
    outputs: Outputs, compose: Compose
) -> None:
    words = (*MLP, "optimizer=sgd", "optimizer.lr=0.07", "scheduler=step", "trainer.weights=null")
    assert outputs.start(*words, single=True).wait().status == 0
    (ours,), (run,) = outputs.runs, outputs.tracked.values()
    here, run_id = f"record.dir={outputs.path}", run.info.run_id
    for which in (ours[:6], "latest", "best", str(outputs.runs[ours].path), run_id):
        assert signature(compose, which, here) == ours
    elsewhere = (f"record.dir={outputs.path}/elsewhere", f"tracking.uri=sqlite:///{outputs.path}/mlflow.db")
    assert signature(compose, f"http://host/#/experiments/1/runs/{run_id}", *elsewhere) == ours
    answer = outputs.start("from=latest", "-m", "seed=0,1", "dry_run=true", single=True).wait()
    assert [line.split()[1] for line in answer.stdout.splitlines()[:2]] == ["exists", "to"], answer


def test_a_record_from_elsewhere_names_no_function_unless_the_user_does(
    compose: Compose, tmp_path: Path
) -> None:
    metrics = {"top2": {"_target_": "mine.scores.top2", "better": "lower"}, "f1": {}}
    recorded = resolved(compose(*MLP, "objective=val_f1")) | {"metrics": metrics}
    for folder in (tmp_path / "runs" / "a0123456789abcde", tmp_path / "downloaded"):
        folder.mkdir(parents=True)
        (folder / "config.yaml").write_text(yaml.safe_dump(recorded))
    here, word = f"record.dir={tmp_path}", "+metrics.top2._target_=mine.scores.top2"
    with pytest.raises(
        ConfigError, match=r"mine\.scores\.top2: must not be named in a record from elsewhere; if it is yours"
    ) as caught:
        reproduce.words(str(tmp_path / "downloaded"), [here])
    assert str(caught.value).endswith(f"add {word}")
    for which, given in (("downloaded", (here, word)), ("runs/a0123456789abcde", (here,))):
        cfg = compose(*reproduce.words(str(tmp_path / which), given), *given)
        assert (cfg.metrics, cfg.objective) == (metrics, "val_f1")


def test_a_recorded_text_is_taken_as_it_is(compose: Compose, tmp_path: Path) -> None:
    text = 'é \\\\ \\t ${oc.env:HOME} "it\'s" \\'
    cfg = resolved(compose())
    cfg["model"]["name"] = text
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(cfg))
    assert compose(*reproduce.words(str(tmp_path), [])).model.name == text


def test_overrides_on_top_of_a_recorded_run_win(compose: Compose, tmp_path: Path) -> None:
    recorded = resolved(compose(*MLP, "optimizer=sgd", "optimizer.lr=0.07"))
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(recorded))
    for given, expected in (
        ((), ("torch.optim.SGD", 0.07, 1)),
        (("optimizer=adam",), ("torch.optim.Adam", 0.001, 1)),
        (("trainer.epochs=2", "optimizer.lr=0.1"), ("torch.optim.SGD", 0.1, 2)),
    ):
        cfg = compose(*reproduce.words(str(tmp_path), given), *given)
        assert (cfg.optimizer._target_, cfg.optimizer.lr, cfg.trainer.epochs) == expected
        assert cfg.model.widths == [12]


@pytest.mark.parametrize(
    ("which", "reason"),
    [
        ("abc", "no runs of that name in"),
        ("0123456789abcdef" * 2, "not in sqlite:"),
        ("", "must be a run's folder, latest, best"),
    ],
)
def test_a_run_that_is_not_there_is_one_line(which: str, reason: str, outputs: Outputs) -> None:
    assert_one_line(outputs.start(f"from={which}", single=True).wait(), f"from={which}: {reason}")


def champion(outputs: Outputs) -> str:
    return str(outputs.client.get_model_version_by_alias("best", "champion").run_id)


def test_the_champion_of_a_sweep_is_registered_once(outputs: Outputs) -> None:
    words = (*QUICK, ARMS, "trials=2", "confirm=1", "tracking.register=best")
    answer = outputs.sweep(*words)
    assert "registered: models:/best@champion is run " in answer.stdout
    (signature,) = [s for s, run in outputs.runs.items() if run.status().weights == "champion"]
    assert champion(outputs) == outputs.tracked[signature].info.run_id

    outputs.sweep(*words)
    assert len(outputs.client.search_model_versions("name='best'")) == 1
    outputs.start(*QUICK, "seed=7", "tracking.register=best", single=True).wait()
    versions = outputs.client.search_model_versions("name='best'")
    assert {int(version.version) for version in versions} == {1, 2}
    assert champion(outputs) != outputs.tracked[signature].info.run_id

    outputs.sweep(*words)  # its version is the champion again
    assert len(outputs.client.search_model_versions("name='best'")) == 2
    assert champion(outputs) == outputs.tracked[signature].info.run_id


@pytest.mark.parametrize(
    ("setting", "reason"),
    [("tracking=none", "nothing is tracked"), ("record.keep=none", "there is no finished run with weights")],
)
def test_what_cannot_be_registered_is_reported(outputs: Outputs, setting: str, reason: str) -> None:
    answer = outputs.start(*MLP, setting, "tracking.register=best", single=True).wait()
    assert answer.status == 0, answer
    assert f"tracking.register=best: nothing is registered, as {reason}" in answer.stdout


@pytest.mark.slow
def test_the_command_that_a_run_prints_serves_its_model(outputs: Outputs) -> None:
    outputs.with_models = True
    answer = outputs.start(*MLP, single=True).wait()
    (line,) = re.findall(r"^serve +(.*)$", answer.stdout, re.MULTILINE)
    setting, *words = shlex.split(line.replace("5001", str(port := free_port())))
    (example,) = outputs.path.glob("artifacts/models/*/artifacts/serving_input_example.json")
    env = os.environ | dict([setting.split("=", 1)])
    with subprocess.Popen(words, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            (probabilities, _) = json.loads(ask(port, example.read_bytes()))["predictions"]
        finally:
            server.terminate()
    assert sum(probabilities) == pytest.approx(1)
    assert len(probabilities) == 10


def ask(port: int, question: bytes) -> bytes:
    """The answer of a server that starts."""
    request = Request(f"http://127.0.0.1:{port}/invocations", question, {"Content-Type": "application/json"})
    deadline = time.monotonic() + 90
    while True:
        try:
            with urlopen(request) as answer:
                return bytes(answer.read())
        except (URLError, ConnectionError):
            assert time.monotonic() < deadline
            time.sleep(0.2)
