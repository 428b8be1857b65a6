"""The training loop: bits, lanes, endings, checkpoints."""

import copy
import gc
import math
import sys
import weakref
from collections.abc import Callable
from itertools import islice
from typing import Any

import pytest
import torch
from omegaconf import DictConfig
from recording import Recording
from torch import Tensor, nn

from fairsweep.config import ConfigError, literal, resolved
from fairsweep.models import CNN, MLP
from fairsweep.training.capture import CapturedSteps, obstacle
from fairsweep.training.lane import WARM_UP, Ending, Lane
from fairsweep.training.loop import Event, advance, fit
from fairsweep.training.report import named

Compose = Callable[..., DictConfig]

QUICK = ("model=mlp", "model.widths=[16]", "data.limit=200", "trainer.epochs=2", "trainer.batch_size=32")
# Each has random state or buffers of its own that a resume or a neighbour could disturb.
DELICATE = (
    ("model=mlp", "model.widths=[16]", "model.dropout=0.3"),
    ("model=cnn", "model.widths=[4]", "model.hidden=[8]", "model.norm=batch", "model.dropout=0.2"),
    ("model=mlp", "model.widths=[16]", "optimizer=sgd", "scheduler=onecycle", "scheduler.warmup=1"),
    ("model=mlp", "model.widths=[16]", "optimizer=rmsprop", "scheduler=cosine", "trainer.clip_norm=0.5"),
    ("model=mlp", "model.widths=[16]", "data.augment={shift: 2, rotate: 10, flip: true, crop: 2, cutout: 5}"),
)


def trained(cfg: DictConfig) -> Lane:
    lane = Lane(cfg)
    for _ in fit([lane]):
        pass
    return lane


def lines_of(events: list[Event], lane: Lane) -> list[dict[str, float]]:
    """A lane's journal without the figures that are times."""
    times = ("epoch_seconds", "images_per_second")
    return [
        {key: value for key, value in line.items() if key not in times}
        for event in events
        if event.lane is lane
        for line in event.lines
    ]


def of_test(lines: list[dict[str, float]]) -> dict[str, float]:
    """The test figures of a run's last line."""
    return {key: value for key, value in lines[-1].items() if key.startswith("test_")}


def assert_same_bits(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert torch.equal(value, other[name]), name


@pytest.mark.parametrize("overrides", DELICATE)
def test_same_seed_gives_the_same_bits_whatever_the_global_random_state(
    compose: Compose, overrides: tuple[str, ...]
) -> None:
    cfg = compose(*QUICK, *overrides)
    first = trained(cfg)
    torch.manual_seed(123)
    torch.rand(7)
    second = trained(cfg)
    assert_same_bits(first.model.state_dict(), second.model.state_dict())


def test_a_run_leaves_the_global_random_state_alone(compose: Compose) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    trained(compose(*QUICK, "model.dropout=0.5"))
    assert torch.equal(before, torch.get_rng_state())


def test_seed_decides_initialisation_and_order(compose: Compose) -> None:
    one, other = Lane(compose(*QUICK, "seed=0")), Lane(compose(*QUICK, "seed=1"))
    weights = [next(lane.model.parameters()) for lane in (one, other)]
    assert not torch.equal(*weights)
    for lane in (one, other):
        lane.advance(1, lambda: False)
    assert not torch.equal(one.order, other.order)


def test_order_differs_by_epoch_and_covers_every_image_once(compose: Compose) -> None:
    lane = Lane(compose(*QUICK))
    orders = []
    for _ in range(2):
        lane.advance(lane.steps_per_epoch, lambda: False)
        orders.append(lane.order)
    assert not torch.equal(*orders)
    for order in orders:
        assert torch.equal(order.sort().values, torch.arange(200))


def test_lanes_side_by_side_equal_solo_runs_bit_for_bit(compose: Compose) -> None:
    configs = [
        compose(*QUICK, *overrides, f"seed={seed}", f"trainer.batch_size={size}")
        for seed, (overrides, size) in enumerate(zip(DELICATE, (16, 32, 33, 50, 64), strict=True))
    ]
    solo = []
    for cfg in configs:
        lane = Lane(cfg)
        solo.append((lane, lines_of(list(fit([lane])), lane)))
    lanes = [Lane(cfg) for cfg in configs]
    events = list(fit(lanes))
    for lane, (alone, lines) in zip(lanes, solo, strict=True):
        assert_same_bits(lane.model.state_dict(), alone.model.state_dict())
        assert lines_of(events, lane) == lines


@pytest.mark.parametrize("overrides", DELICATE)
def test_steps_that_read_all_from_the_device_are_the_same_steps(
    compose: Compose, overrides: tuple[str, ...]
) -> None:
    """As a CUDA graph has them; here nothing is captured, so that the bits can be compared."""
    cfg = compose(*QUICK, *overrides, "trainer.log_every=4")
    plain, captured = Lane(cfg), Lane(cfg)
    for lane in (plain, captured):
        with lane.own_state():
            lane.advance(3, lambda: False)
    captured.captured = CapturedSteps(captured)
    captured.captured.begin_epoch(captured.order)
    lines = [lines_of(list(fit([lane])), lane) for lane in (plain, captured)]
    assert lines[0] == lines[1]
    assert_same_bits(plain.model.state_dict(), captured.model.state_dict())
    assert {group["lr"] for group in captured.optimizer.param_groups} == {
        group["lr"] for group in plain.optimizer.param_groups
    }


CAPTURABLE = ("Adadelta", "Adam", "AdamW", "Adamax", "ASGD", "NAdam", "RAdam", "RMSprop", "Rprop", "SGD")


@pytest.mark.parametrize(
    "overrides",
    DELICATE
    + tuple(
        ("optimizer=other", f"optimizer._target_=torch.optim.{name}", "optimizer.lr=0.01", "scheduler=cosine")
        for name in CAPTURABLE
    ),
)
def test_a_step_that_is_recorded_once_and_repeated_is_each_step_anew(
    compose: Compose, overrides: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """All that changes from step to step is read from memory, so that a graph can hold the step."""
    cfg = compose(*QUICK, *overrides, "trainer.log_every=4")
    lanes = [Lane(cfg), Lane(cfg)]
    module = sys.modules[type(lanes[0].optimizer).__module__]
    monkeypatch.setattr(module, "_get_capturable_supported_devices", lambda **_: ["cpu"], raising=False)
    for lane in lanes:
        for group in lane.optimizer.param_groups:  # the form that optimizers have on CUDA
            group.update(capturable=True, foreach=not group.get("fused"))
        with lane.own_state():
            lane.advance(WARM_UP, lambda: False)
            lane.captured = CapturedSteps(lane)
            lane.captured.begin_epoch(lane.order)
    anew, repeated = lanes
    with repeated.own_state():
        repeated.captured.graph = Recording(repeated.captured)
    lines = [lines_of(list(fit([lane])), lane) for lane in lanes]
    assert lines[0] == lines[1]
    assert_same_bits(anew.model.state_dict(), repeated.model.state_dict())


@pytest.mark.parametrize("name", [*CAPTURABLE, "Adafactor", "Adagrad", "LBFGS"])
def test_each_optimizer_trains_a_model_with_convolutions(compose: Compose, name: str) -> None:
    model = ("model=cnn", "model.widths=[4,8]", "model.hidden=[8]", "trainer.epochs=1")
    optimizer = ("optimizer=other", f"optimizer._target_=torch.optim.{name}", "optimizer.lr=0.01")
    lane = Lane(compose(*QUICK, *model, *optimizer))
    before = copy.deepcopy(lane.model.state_dict())
    for _ in fit([lane]):
        pass
    assert lane.ending == Ending("finished")
    after = lane.model.state_dict()
    assert all(value.isfinite().all() and not torch.equal(value, before[key]) for key, value in after.items())


def test_all_lanes_come_to_where_graphs_are_captured_before_any_goes_on(compose: Compose) -> None:
    lanes = [Lane(compose(*QUICK, f"seed={seed}")) for seed in range(3)]
    steps = list[list[int]]()

    def stop() -> bool:
        steps.append([lane.step for lane in lanes])
        return False

    for _ in fit(lanes, stop):
        pass
    assert [WARM_UP] * 3 in steps
    assert all(max(now) <= WARM_UP for now in steps[: steps.index([WARM_UP] * 3)])


def test_the_memory_of_a_lane_that_has_ended_is_free_at_once(compose: Compose) -> None:
    lane = Lane(literal(resolved(compose(*QUICK))))  # as a run's is: OmegaConf's resolvers leave cycles
    lane.captured = CapturedSteps(lane)
    parameter = weakref.ref(next(lane.model.parameters()))
    gc.disable()
    try:
        del lane
        assert parameter() is None
    finally:
        gc.enable()


def test_what_no_graph_can_hold_is_named(compose: Compose) -> None:
    reasons = {
        "optimizer=sgd": "",
        "optimizer=adam": "",
        "optimizer=rmsprop": "",
        "optimizer=adagrad": "Adagrad has no capturable form",
        "+scheduler.cycle_momentum=true": "its scheduler changes more than learning rates",
    }
    for override, reason in reasons.items():
        scheduler = ("scheduler=onecycle", "optimizer=sgd", "++scheduler.cycle_momentum=true")
        cfg = compose(*QUICK, *(scheduler if "cycle" in override else (override,)))
        lane = Lane(cfg)
        found = obstacle(lane.optimizer, lane.main_scheduler)
        assert found.startswith(reason)
        assert bool(found) == bool(reason)


def test_the_place_of_a_lane_that_has_ended_goes_to_the_next_one(compose: Compose) -> None:
    """`lanes` says when there is room; a lane is not even built before."""
    training: list[Lane] = []

    coming = (Lane(compose(*QUICK, f"seed={seed}", f"trainer.epochs={seed + 1}")) for seed in range(4))
    ended = []
    while training := [*training, *islice(coming, 2 - len(training))]:
        events = advance(training, lambda: False)
        ended += [event.lane.seed for event in events if event.lane.ending is not None]
        training = [lane for lane in training if lane.ending is None]
    assert ended == [0, 1, 2, 3]


def test_seconds_are_shared_once_other_lanes_trained_beside_and_stay_so_after_a_resume(
    compose: Compose,
) -> None:
    alone = trained(compose(*QUICK))
    assert not alone.shared
    lanes = [Lane(compose(*QUICK, "trainer.stop_epoch=1")), Lane(compose(*QUICK, "seed=1"))]
    for _ in fit(lanes):
        pass
    assert [lane.shared for lane in lanes] == [True, True]
    state = copy.deepcopy(lanes[0].state_dict())
    resumed = Lane(compose(*QUICK))
    resumed.load_state_dict(state)
    for _ in fit([resumed]):
        pass
    assert resumed.shared
    del state["shared"]  # a checkpoint from before
    older = Lane(compose(*QUICK))
    older.load_state_dict(state)
    assert not older.shared


@pytest.mark.parametrize("overrides", DELICATE)
@pytest.mark.parametrize("steps", [1, 7, 9])
def test_a_lane_restored_in_the_middle_ends_with_the_same_bits_and_lines(
    compose: Compose, overrides: tuple[str, ...], steps: int
) -> None:
    cfg = compose(*QUICK, *overrides, "trainer.log_every=3")
    whole = Lane(cfg)
    lines = lines_of(list(fit([whole])), whole)

    interrupted = Lane(cfg)
    events = list(fit([interrupted], stop=lambda: interrupted.step >= steps))
    assert interrupted.ending is not None
    assert (interrupted.ending.status, interrupted.step) == ("interrupted", steps)
    state = copy.deepcopy(interrupted.state_dict())

    resumed = Lane(cfg)
    resumed.load_state_dict(state)
    events += [Event(interrupted, event.lines) for event in fit([resumed])]
    assert_same_bits(whole.model.state_dict(), resumed.model.state_dict())
    assert lines_of(events, interrupted) == lines
    assert whole.selection.best is not None
    assert resumed.selection.best is not None
    assert_same_bits(whole.selection.best["model"], resumed.selection.best["model"])


@pytest.mark.parametrize("log_every", [3, 7])  # a line in the epoch, and its end
def test_a_stop_right_after_a_line_interrupts_and_tells_nothing_twice(
    compose: Compose, log_every: int
) -> None:
    lane = Lane(compose(*QUICK, f"trainer.log_every={log_every}"))
    events: list[Event] = []
    stream = fit([lane], stop=lambda: bool(events))
    events.append(next(stream))
    events.extend(stream)
    assert lane.ending is not None
    assert (lane.ending.status, lane.step) == ("interrupted", log_every)
    assert len(events[0].lines) == (1 if log_every == 3 else 2)
    assert [event.lines for event in events[1:]] == [[]]


def test_log_every_changes_what_is_told_and_not_what_is_learned(compose: Compose) -> None:
    often, seldom = (trained(compose(*QUICK, f"trainer.log_every={n}")) for n in (1, 100))
    assert_same_bits(often.model.state_dict(), seldom.model.state_dict())


def test_figures_of_an_epoch_are_means_over_its_images(compose: Compose) -> None:
    lane = Lane(compose(*QUICK, "trainer.log_every=4", "trainer.epochs=1", "trainer.batch_size=60"))
    losses: list[tuple[float, int]] = []
    step = lane.train_step

    def watched(index: Tensor) -> None:
        step(index)
        losses.append((float(lane.tally.losses[-1]), len(index)))

    lane.train_step = watched  # type: ignore[method-assign]
    lines = [line for event in fit([lane]) for line in event.lines]
    assert [size for _, size in losses] == [60, 60, 60, 20]
    expected = sum(loss * size for loss, size in losses) / 200
    assert lines[1]["epoch_train_loss"] == pytest.approx(expected, rel=1e-6)
    assert lines[0]["train_loss"] == pytest.approx(expected, rel=1e-6)


def test_evaluation_counts_every_image_once(compose: Compose) -> None:
    lane = Lane(compose(*QUICK, "data.limit=null"))
    split = lane.task.data.train
    assert len(split) > 500
    loss, accuracy = lane.evaluate(split).values()
    with torch.inference_mode():
        logits = lane.model.eval()(lane.task.normalise(split.inputs.float()))
    assert loss == pytest.approx(float(nn.functional.cross_entropy(logits, split.targets)), rel=1e-5)
    assert accuracy == float((logits.argmax(1) == split.targets).double().mean())


def test_a_last_batch_of_one_image_is_left_out(compose: Compose) -> None:
    lane = Lane(compose(*QUICK, "trainer.batch_size=199", "model.norm=batch"))
    assert lane.steps_per_epoch == 1
    assert lane.total_steps == 2
    for _ in fit([lane]):
        pass
    assert lane.ending is not None
    assert lane.ending.status == "finished"


def test_best_weights_are_those_of_the_epoch_with_the_best_objective(compose: Compose) -> None:
    lane = Lane(compose(*QUICK, "trainer.epochs=6", "optimizer.lr=0.05", "objective=val_loss"))
    lines = [line for event in fit([lane]) for line in event.lines]
    losses = [line["val_loss"] for line in lines if "val_loss" in line]
    assert lane.selection.best is not None
    assert lane.selection.best["epoch"] == losses.index(min(losses)) + 1
    assert lane.selection.best["objective"] == min(losses) == lines[-1]["objective"]
    lane.model.load_state_dict(lane.selection.best["model"])
    assert lane.evaluate(lane.task.data.val)["loss"] == min(losses)
    assert named("test", lane.evaluate(lane.task.data.test)) == of_test(lines)


def test_last_weights_are_tested_where_asked_for(compose: Compose) -> None:
    lane = Lane(compose(*QUICK, "trainer.epochs=4", "optimizer.lr=0.05", "trainer.test_weights=last"))
    lines = [line for event in fit([lane]) for line in event.lines]
    assert named("test", lane.evaluate(lane.task.data.test)) == of_test(lines)
    assert lines[-1]["objective"] == [line["val_accuracy"] for line in lines if "val_accuracy" in line][-1]


def test_test_images_never_decide(compose: Compose, monkeypatch: pytest.MonkeyPatch) -> None:
    """With every test label wrong, weights, best epoch, stopping and objective stay what they were."""
    cfg = compose(*QUICK, "trainer.epochs=8", "trainer.patience=2", "trainer.test_each_epoch=true")
    right = trained(cfg)
    lane = Lane(cfg)
    wrong = (lane.task.data.test.targets + 1) % 10
    lane.task.data = copy.copy(lane.task.data)
    object.__setattr__(lane.task.data, "test", type(lane.task.data.test)(lane.task.data.test.inputs, wrong))
    lines = [line for event in fit([lane]) for line in event.lines]
    assert lines[-1]["test_accuracy"] < 0.3
    assert lane.step == right.step
    assert lane.selection.best is not None
    assert right.selection.best is not None
    assert (lane.selection.best["epoch"], lane.selection.best["objective"]) == (
        right.selection.best["epoch"],
        right.selection.best["objective"],
    )
    assert_same_bits(lane.model.state_dict(), right.model.state_dict())


def test_without_validation_there_is_no_objective_and_the_last_weights_count(compose: Compose) -> None:
    lane = Lane(compose(*QUICK, "data.val_size=0"))
    lines = [line for event in fit([lane]) for line in event.lines]
    assert lane.selection.best is None
    assert "objective" not in lines[-1]
    assert lane.evaluate(lane.task.data.test)["accuracy"] == lines[-1]["test_accuracy"]


def test_a_loss_that_is_not_finite_ends_the_lane_as_diverged_at_its_step(compose: Compose) -> None:
    lane = Lane(compose(*QUICK, "optimizer=sgd", "optimizer.lr=1e30", "trainer.log_every=5"))
    events = list(fit([lane]))
    assert lane.ending is not None
    assert lane.ending.status == "diverged"
    step = int(lane.ending.reason.split("step ")[1].split(" ")[0])
    assert 1 < step <= lane.step == 5
    alone = Lane(compose(*QUICK, "optimizer=sgd", "optimizer.lr=1e30"))
    alone.advance(step, lambda: False)
    assert [math.isfinite(loss) for loss in alone.tally.losses] == [True] * (step - 1) + [False]
    assert not any("test_accuracy" in line for event in events for line in event.lines)


def test_a_diverged_or_failed_lane_leaves_its_neighbours_untouched(
    compose: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = compose(*QUICK, "model.dropout=0.3")
    alone = trained(good)
    lanes = [
        Lane(compose(*QUICK, "optimizer=sgd", "optimizer.lr=1e30")),
        Lane(good),
        Lane(compose(*QUICK, "seed=2")),
    ]

    def broken(index: Tensor) -> None:
        raise RuntimeError("out of luck")

    monkeypatch.setattr(lanes[2], "train_step", broken)
    ended = [event.lane for event in fit(lanes) if event.lane.ending is not None]
    endings: Any = [lane.ending for lane in lanes]
    assert [ending.status for ending in endings] == ["diverged", "finished", "failed"]
    assert endings[2].reason == "RuntimeError: out of luck"
    assert sorted(map(id, ended)) == sorted(map(id, lanes))
    assert_same_bits(lanes[1].model.state_dict(), alone.model.state_dict())


def test_a_model_that_sets_the_default_dtype_sets_it_for_no_other(
    compose: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward, seen = CNN.forward, set[torch.dtype]()

    def setting(model: CNN, images: Tensor) -> Tensor:
        logits = forward(model, images)
        torch.set_default_dtype(torch.float64)
        return logits

    def seeing(model: MLP, images: Tensor) -> Tensor:
        seen.add(torch.get_default_dtype())
        return mlp_forward(model, images)

    mlp_forward = MLP.forward
    monkeypatch.setattr(CNN, "forward", setting)
    monkeypatch.setattr(MLP, "forward", seeing)
    cnn = ("model=cnn", "model.widths=[4]", "model.hidden=[8]")
    for _ in fit([Lane(compose(*QUICK, *cnn)), Lane(compose(*QUICK))]):
        pass
    assert seen == {torch.float32}
    assert torch.get_default_dtype() == torch.float32


def test_early_stopping_waits_for_patience_epochs_without_gain(compose: Compose) -> None:
    lane = Lane(compose(*QUICK, "trainer.epochs=40", "trainer.patience=3", "optimizer.lr=0.02"))
    values = [line["val_accuracy"] for event in fit([lane]) for line in event.lines if "val_accuracy" in line]
    assert lane.ending is not None
    assert lane.ending.status == "finished"
    assert len(values) < 40
    best = values.index(max(values))
    assert len(values) - 1 - best == 3
    assert "no better val_accuracy for 3 epochs" in lane.ending.reason


def test_a_time_limit_ends_the_run_with_figures(compose: Compose) -> None:
    lane = Lane(compose(*QUICK, "trainer.max_seconds=1e-6", "trainer.log_every=2", "trainer.epochs=50"))
    lines = [line for event in fit([lane]) for line in event.lines]
    assert lane.ending is not None
    assert (lane.ending.status, lane.step) == ("finished", 2)
    assert "max_seconds" in lane.ending.reason
    assert {"test_accuracy", "objective"} <= lines[-1].keys()


def test_pausing_keeps_the_horizon_of_the_schedule(compose: Compose) -> None:
    overrides = (*QUICK, "scheduler=cosine", "trainer.epochs=4")
    whole = trained(compose(*overrides))
    paused = trained(compose(*overrides, "trainer.stop_epoch=2"))
    assert paused.ending is not None
    assert (paused.ending.status, paused.epoch) == ("paused", 2)
    resumed = Lane(compose(*overrides))
    resumed.load_state_dict(copy.deepcopy(paused.state_dict()))
    for _ in fit([resumed]):
        pass
    assert_same_bits(whole.model.state_dict(), resumed.model.state_dict())


def test_gradients_are_clipped_to_the_global_norm(compose: Compose) -> None:
    lane = Lane(compose(*QUICK, "trainer.clip_norm=0.01", "optimizer=sgd", "optimizer.momentum=0"))
    lane.advance(1, lambda: False)
    norm = torch.cat([p.grad.flatten() for p in lane.model.parameters() if p.grad is not None]).norm()
    assert float(norm) == pytest.approx(0.01, rel=1e-3)


def test_bf16_learns_as_well_and_keeps_fp32_weights(compose: Compose) -> None:
    overrides = ("model=cnn", "model.widths=[8]", "model.hidden=[]", "trainer.epochs=3", "data.limit=800")
    exact, fast = (trained(compose(*overrides, f"trainer.precision={p}")) for p in ("fp32", "bf16"))
    assert fast.precision == "bf16"
    assert all(value.dtype == torch.float32 for value in fast.model.parameters())
    assert fast.selection.best is not None
    assert exact.selection.best is not None
    assert abs(fast.selection.best["objective"] - exact.selection.best["objective"]) < 0.05
    assert not torch.equal(next(fast.model.parameters()), next(exact.model.parameters()))


def test_starting_weights_replace_the_random_ones(compose: Compose) -> None:
    source = trained(compose(*QUICK))
    lane = Lane(compose(*QUICK, "seed=3"))
    lane.load_weights(source.model.state_dict(), "somewhere")
    assert_same_bits(lane.model.state_dict(), source.model.state_dict())
    with pytest.raises(ConfigError, match=r"trainer\.weights=somewhere: not this model's weights"):
        Lane(compose(*QUICK, "model.widths=[8]")).load_weights(source.model.state_dict(), "somewhere")


def test_augmentation_changes_training_images_only(compose: Compose) -> None:
    plain, moved = Lane(compose(*QUICK)), Lane(compose(*QUICK, "data.augment.shift=3"))
    assert plain.evaluate(plain.task.data.val) == moved.evaluate(moved.task.data.val)
    for lane in (plain, moved):
        lane.advance(1, lambda: False)
    assert float(plain.tally.losses[0]) != float(moved.tally.losses[0])


def test_a_checkpoint_of_another_kind_of_device_goes_on_with_new_random_states(compose: Compose) -> None:
    cfg = compose(*QUICK, "model.dropout=0.3", "trainer.stop_epoch=1", "optimizer=rmsprop")
    state = copy.deepcopy(trained(cfg).state_dict())
    state["device"] = "cuda"
    state["optimizer"]["param_groups"][0]["capturable"] = True
    state["random_state"] = {"cpu": torch.zeros(1, dtype=torch.uint8), "cuda": torch.zeros(1)}
    state["augment_state"] = torch.zeros(16, dtype=torch.uint8)
    resumed = []
    for _ in range(2):
        lane = Lane(compose(*QUICK, "model.dropout=0.3", "optimizer=rmsprop"))
        lane.load_state_dict(copy.deepcopy(state))
        for _ in fit([lane]):
            pass
        resumed.append(lane)
    assert resumed[0].ending == Ending("finished")
    assert resumed[0].epoch == 2
    assert_same_bits(resumed[0].model.state_dict(), resumed[1].model.state_dict())


def test_a_model_that_cannot_train_on_such_batches_is_refused(compose: Compose) -> None:
    with pytest.raises(ConfigError, match=r"in batches of 1: Expected more than 1 value"):
        Lane(compose(*QUICK, "model.norm=batch", "trainer.batch_size=1"))


on_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@on_cuda
def test_lanes_side_by_side_on_cuda_are_close_to_solo_runs_without_graphs(
    compose: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After 20 steps and more in fp32, most of them as a graph."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    configs = [
        compose(
            *QUICK, *overrides, f"seed={seed}", "trainer.device=cuda", "data.limit=640", "trainer.epochs=1"
        )
        for seed, overrides in enumerate(DELICATE)
    ]
    solo = [Lane(cfg) for cfg in configs]
    for lane in solo:
        lane.trainer.cuda_graphs = False
        for _ in fit([lane]):
            pass
    lanes = [Lane(cfg) for cfg in configs]
    for event in fit(lanes):
        assert event.lane.note == ""
    for lane, alone in zip(lanes, solo, strict=True):
        assert lane.captured is not None
        for name, value in alone.model.state_dict().items():
            torch.testing.assert_close(lane.model.state_dict()[name], value, rtol=1e-4, atol=1e-5, msg=name)


@on_cuda
@pytest.mark.parametrize("overrides", DELICATE)
def test_steps_on_cuda_do_not_wait_for_the_device(compose: Compose, overrides: tuple[str, ...]) -> None:
    lane = Lane(compose(*QUICK, *overrides, "trainer.device=cuda", "data.limit=640"))
    with lane.own_state():
        lane.advance(WARM_UP, lambda: False)
        torch.cuda.set_sync_debug_mode("error")
        try:
            while lane.epoch < 2:
                lane.advance(lane.steps_per_epoch, lambda: False)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    assert lane.captured is not None


@on_cuda
def test_a_model_that_cannot_be_captured_trains_uncaptured_and_says_so(
    compose: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward = CNN.forward

    def deciding(model: CNN, images: Tensor) -> Tensor:
        return forward(model, images if images.mean().item() < 1e9 else -images)

    monkeypatch.setattr(CNN, "forward", deciding)
    lane = trained(compose(*QUICK, "model=cnn", "model.widths=[4]", "trainer.device=cuda"))
    assert lane.ending is not None
    assert lane.ending.status == "finished"
    assert lane.note.startswith("CUDA graph capture is disabled: ")


@on_cuda
@pytest.mark.parametrize("overrides", DELICATE)
def test_deterministic_mode_gives_the_same_bits_on_cuda(
    compose: Compose, overrides: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    try:
        cfg = compose(*QUICK, *overrides, "trainer.device=cuda", "trainer.deterministic=true")
        lanes = [trained(cfg) for _ in range(2)]
        for lane in lanes:
            assert (lane.ending, lane.note) == (Ending("finished"), "")
        assert_same_bits(*(lane.model.state_dict() for lane in lanes))
    finally:
        torch.use_deterministic_algorithms(False)
