"""What a lane tells after some steps: a line for its journal, validation, its end."""

import numpy as np

from fairsweep.training.lane import Lane
from fairsweep.training.schedulefree import averaged
from fairsweep.training.tally import Line


def report(lane: Lane) -> list[Line]:
    """The lines that are due after a step; sets `ending` when the run is over.

    A loss that is not finite ends the lane as diverged.
    """
    if not lane.is_due():
        return []
    lines = [interval(lane)]
    limit = lane.trainer.max_seconds
    out_of_time = limit is not None and lane.seconds >= limit
    if lane.ending is None and (out_of_time or lane.step % lane.steps_per_epoch == 0):
        lines.append(epoch_end(lane))
        if lane.ending is None and out_of_time:
            lane.end("finished", f"trainer.max_seconds={limit} reached")
        if lane.ending is not None and lane.ending.status == "finished":
            lines.append(test(lane))
    return lines


def interval(lane: Lane) -> Line:
    """Means over the steps since the last line."""
    steps = len(lane.tally.collected) - 1
    figures, first = lane.tally.close_interval()
    if first is not None:
        step = lane.step - steps + first + 1
        lane.end("diverged", f"the loss of step {step} is {float(lane.tally.collected[first])}")
    return line_of(lane, **figures, lr=float(lane.optimizer.param_groups[0]["lr"]))


def epoch_end(lane: Lane) -> Line:
    """Validation; best weights; early stopping, pause and the end."""
    figures, data = lane.tally.close_epoch(), lane.task.data
    with averaged(lane.optimizer, lane.model):
        if len(data.val):
            figures |= named("val", lane.evaluate(data.val))
            loss, objective = figures["val_loss"], figures[lane.objective_key]
            if not np.isfinite(loss):
                lane.end("diverged", f"the validation loss after step {lane.step} is {loss}")
            elif np.isfinite(objective):
                lane.selection.see(objective, lane.model, lane.epoch, lane.step)
            else:
                lane.end("failed", f"{lane.objective_key} after step {lane.step} is {objective}")
        if lane.trainer.test_each_epoch and len(data.test):
            figures |= named("epoch_test", lane.evaluate(data.test))
    patience = lane.trainer.patience
    if lane.ending is not None:
        pass
    elif lane.step >= lane.total_steps:
        lane.end("finished")
    elif patience is not None and lane.selection.epochs_without_gain >= patience:
        lane.end("finished", f"no better {lane.objective_key} for {patience} epochs")
    elif lane.trainer.stop_epoch is not None and lane.epoch >= lane.trainer.stop_epoch:
        lane.end("paused", f"trainer.stop_epoch={lane.trainer.stop_epoch} reached")
    return line_of(lane, **figures)


def test(lane: Lane) -> Line:
    """Test figures of the weights that `trainer.test_weights` names, and their objective."""
    line, best = line_of(lane), lane.selection.best
    tests_best = lane.trainer.test_weights == "best" and best is not None
    if len(lane.task.data.test):
        last = {name: value.clone() for name, value in lane.model.state_dict().items()}
        lane.model.load_state_dict(best["model"] if best and tests_best else lane.weights()["model"])
        line |= named("test", lane.evaluate(lane.task.data.test))
        lane.model.load_state_dict(last)
    if best is not None and lane.selection.objective is not None:
        line["objective"] = best["objective"] if tests_best else lane.selection.objective
    return line


def named(split: str, figures: dict[str, float]) -> Line:
    """Figures of a split, as journals call them: `val_loss`."""
    return {f"{split}_{name}": value for name, value in figures.items()}


def line_of(lane: Lane, **figures: float) -> Line:
    return {"step": lane.step, "epoch": lane.step / lane.steps_per_epoch, **figures}
