"""Runs that train side by side in one process: each is the run that it would be alone."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_cli import assert_one_line
from test_sweep import Outputs, assert_same_sweep, eager, empty_store, others, outputs, outputs_in, unlucky

__all__ = ["empty_store", "others", "outputs"]  # fixtures

MLP = "model: mlp, model.widths: [16]"
# Arms that differ in all that a neighbour could disturb: random states, buffers, schedules, batches, endings.
MIXED = (
    "data.limit=320", "trainer.epochs=6", "trainer.log_every=5", "trainer.threads=1", "seeds=2", "confirm=0",
    "arms={"
    f"drop: {{{MLP}, model.dropout: 0.3, trainer.batch_size: 16}}, "
    "norm: {model: cnn, model.widths: [4], model.hidden: [8], model.norm: batch, optimizer: sgd, "
    "scheduler: cosine, trainer.batch_size: 33}, "
    f"early: {{{MLP}, data.augment.shift: 2, trainer.patience: 1, optimizer: rmsprop, optimizer.lr: 0.03}}, "
    f"cycle: {{{MLP}, optimizer: sgd, scheduler: onecycle, scheduler.warmup: 1}}, "
    f"newton: {{{MLP}, optimizer: other, optimizer._target_: torch.optim.LBFGS, optimizer.lr: 0.5, "
    "+optimizer.max_iter: 3}, "
    f"lost: {{{MLP}, optimizer: sgd, optimizer.lr: 1e30}}, "
    f"large: {{{MLP}, trainer.batch_size: 100000}}"
    "}",
)  # fmt: skip


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Iterator[Outputs]:
    """The sweep MIXED as it ends when nothing stops it."""
    with outputs_in(tmp_path_factory.mktemp("undisturbed") / "outputs", empty_store) as made:
        made.sweep(*MIXED, status=1)
        yield made


def test_runs_side_by_side_are_those_that_each_would_be_alone(outputs: Outputs, others: Outputs) -> None:
    outputs.sweep(*MIXED, "hydra.launcher.lanes=4", status=1, before=unlucky)
    others.sweep(*MIXED, "hydra/launcher=basic", status=1, before=unlucky)
    assert outputs.definition["counts"] == {"finished": 5, "diverged": 1, "failed": 8}
    assert_same_sweep(outputs, others)
    outputs.assert_tracked()


def test_fail_fast_interrupts_the_runs_beside_the_one_that_fails(
    outputs: Outputs, undisturbed: Outputs
) -> None:
    words = (*MIXED, "hydra.launcher.lanes=5")
    answer = outputs.sweep(*words, "fail_fast=true", status=1, before=unlucky)
    assert outputs.statuses == {"failed": 2, "interrupted": 3}  # two fail at the same step
    assert "waiting" in answer.stdout
    outputs.assert_tracked()
    outputs.sweep(*words, status=1)
    assert_same_sweep(outputs, undisturbed)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_lanes_that_were_stopped_end_as_they_would_have(
    outputs: Outputs, undisturbed: Outputs, number: signal.Signals
) -> None:
    words = (*MIXED, "hydra.launcher.lanes=5")
    command = outputs.start(*words, before=eager)
    outputs.wait_for_lines(40)
    command.send(number)
    assert command.wait().status == (130 if number == signal.SIGINT else -number)
    assert {"finished", "running" if number == signal.SIGKILL else "interrupted"} & outputs.statuses.keys()
    outputs.sweep(*words, status=1)
    assert_same_sweep(outputs, undisturbed)
    outputs.assert_tracked()


@pytest.mark.parametrize("lanes", ["0", "-1", "1.5", "many"])
def test_a_number_of_lanes_that_cannot_be_is_refused(outputs: Outputs, lanes: str) -> None:
    answer = outputs.sweep(f"hydra.launcher.lanes={lanes}", status=2)
    assert_one_line(
        answer, f"error: hydra.launcher.lanes={lanes}: must be auto or a whole number, 1 or more\n"
    )
