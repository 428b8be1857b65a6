"""The command line as people type it: odd file names, options anywhere, one arm of a preset changed."""

import shlex
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from test_cli import assert_one_line
from test_sweep import QUICK, Outputs, empty_store, outputs

from fairsweep.cli import arguments
from fairsweep.sweeper import SHORT

__all__ = ["empty_store", "outputs"]  # fixtures

ODD = ["digit (1).png", "é.png", "it's", "[1]", "a=b", "x #1", "a, b", "back\\slash", "end\\", "\\'", "{x}"]


def rewritten(*words: str, is_sweep: bool = False) -> list[str]:
    return arguments.rewritten(words, SHORT if is_sweep else {}, ["clean"], is_sweep)


@pytest.mark.parametrize("name", ODD)
@pytest.mark.parametrize("key", arguments.TEXTS)
def test_text_and_paths_reach_the_configuration_as_they_were_typed(
    name: str, key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (word,) = rewritten(f"{key}={name}")
    value = OverridesParser.create().parse_override(word).value()
    assert value == (str(tmp_path / name) if key in arguments.PATHS else name)


def test_a_home_folder_and_paths_beside_the_command_become_absolute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/me")
    assert rewritten("data.root=~/x", "input=~/y.png") == ["data.root='/home/me/x'", "input='/home/me/y.png'"]
    assert rewritten("tracking.uri=sqlite:///a/b.db") == [f"tracking.uri=sqlite:///{tmp_path}/a/b.db"]
    for word in ("tracking.uri=sqlite:////a/b.db", "data.root='/quoted'", "data.root=null", "seed=0"):
        assert rewritten(word) == [word]


def test_a_comma_in_a_folder_sweeps_unless_there_is_such_a_folder(tmp_path: Path) -> None:
    word = f"data.root={tmp_path}/a,{tmp_path}/b"
    assert rewritten(word, is_sweep=True) == [word]
    Path(f"{tmp_path}/a,{tmp_path}").mkdir(parents=True)
    Path(word.removeprefix("data.root=")).mkdir()
    assert rewritten(word, is_sweep=True) == [f"data.root='{tmp_path}/a,{tmp_path}/b'"]


def test_options_may_come_after_overrides() -> None:
    typed = ["optimizer=sgd", "-m", "seed=0,1", "--config-dir", "conf", "clean"]
    assert rewritten(*typed) == ["-m", "--config-dir", "conf", "optimizer=sgd", "seed=0,1", "clean=true"]


def arms_of(answer: str) -> set[tuple[str, str]]:
    """Arm and learning rate of each run that a dry run lists."""
    runs = [line.split() for line in answer.partition("\n\n")[0].splitlines()]
    return {(arm, lr.removeprefix("lr=")) for *_, arm, lr, _ in runs}


def test_one_arm_of_a_preset_is_changed_dropped_or_added(outputs: Outputs) -> None:
    preset = (*QUICK, "+sweep=adam_vs_sgd", "confirm=0", "dry_run=true", "trials=2")
    changed = outputs.sweep(*preset, "arms.sgd.optimizer.lr=0.1,0.2", "arms.adam.optimizer.lr=0.01,0.02")
    assert arms_of(changed.stdout) == {("sgd", "0.1"), ("sgd", "0.2"), ("adam", "0.01"), ("adam", "0.02")}
    added = ("+arms.rms.optimizer=rmsprop", "arms.rms.optimizer.lr=0.3,0.4")
    other = outputs.sweep(*preset, "~arms.sgd", "arms.adam.optimizer.lr=0.1,0.2", *added)
    assert arms_of(other.stdout) == {("adam", "0.1"), ("adam", "0.2"), ("rms", "0.3"), ("rms", "0.4")}


@pytest.mark.parametrize(
    ("word", "answer"),
    [
        ("arms.sdg.optimizer.lr=0.1,0.2", "arms.sdg: no such arm; did you mean 'sgd'? (arms: adam, sgd)"),
        ("~arms.sdg", "~arms.sdg: no such arm; dry_run=true lists the arms"),
    ],
)
def test_a_mistyped_arm_is_not_a_new_one(word: str, answer: str, outputs: Outputs) -> None:
    assert_one_line(outputs.sweep("+sweep=adam_vs_sgd", "trials=2", word, status=2), answer)


def test_the_example_for_an_empty_arm_works_as_it_is_printed(outputs: Outputs) -> None:
    words = (*QUICK, "confirm=0", "trials=2", "dry_run=true")
    answer = outputs.sweep(*words, "arms={a: {}}", status=2)
    example = shlex.split(answer.stderr.partition("for example ")[2])
    assert arms_of(outputs.sweep(*words, *example).stdout) == {("a", "0.001"), ("a", "1.0")}


@pytest.mark.parametrize("script", ["show", "predict", "compare", "runs"])
def test_only_training_sweeps(script: str, outputs: Outputs) -> None:
    answer = outputs.start("-m", script=f"src/{script}.py").wait()
    assert (answer.status, answer.stderr) == (2, "error: -m: only src/train.py sweeps; omit it\n")
