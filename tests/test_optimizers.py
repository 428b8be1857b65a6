"""Optimizers of the extra [optimizers]: they learn, resume to the bit, and evaluate what they should."""

import copy
import io
from collections.abc import Callable
from typing import Any

import pytest
import torch
from omegaconf import DictConfig
from test_training import assert_same_bits, lines_of
from torch import nn

from fairsweep.config import ROOT, ConfigError, resolved, signature
from fairsweep.training import build, targets
from fairsweep.training.lane import Lane
from fairsweep.training.loop import Event, fit
from fairsweep.training.schedulefree import averaged

Compose = Callable[..., DictConfig]

QUICK = ("model=mlp", "model.widths=[16,16]", "data.limit=200", "trainer.batch_size=32", "trainer.threads=1")
PRESETS = sorted(
    path.stem
    for path in (ROOT / "conf" / "optimizer").glob("[!_]*.yaml")
    if "Extra [optimizers]" in path.read_text()
)
SCHEDULE_FREE = ("schedulefree_adamw", "schedulefree_sgd")


def stored(state: dict[str, Any]) -> dict[str, Any]:
    """A checkpoint as it comes back from the disk."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    loaded: dict[str, Any] = torch.load(buffer, weights_only=True)
    return loaded


@pytest.mark.parametrize("name", PRESETS)
def test_each_preset_learns_and_resumes_with_the_same_bits(compose: Compose, name: str) -> None:
    cfg = compose(*QUICK, f"optimizer={name}", "trainer.epochs=8", "trainer.log_every=3")
    whole = Lane(cfg)
    lines = lines_of(list(fit([whole])), whole)
    losses = [line["epoch_train_loss"] for line in lines if "epoch_train_loss" in line]
    assert losses[-1] < 0.95 * losses[0]

    interrupted = Lane(cfg)
    events = list(fit([interrupted], stop=lambda: interrupted.step >= 17))
    resumed = Lane(cfg)
    resumed.load_state_dict(stored(interrupted.state_dict()))
    events += [Event(interrupted, event.lines) for event in fit([resumed])]
    assert lines_of(events, interrupted) == lines
    assert_same_bits(whole.model.state_dict(), resumed.model.state_dict())


@pytest.mark.parametrize("name", SCHEDULE_FREE)
def test_schedule_free_optimizers_are_judged_by_their_averages_and_train_on_as_if_never_evaluated(
    compose: Compose, name: str
) -> None:
    cfg = compose(*QUICK, f"optimizer={name}", "trainer.epochs=2")
    lane, evaluated = Lane(cfg), Lane(cfg)
    for one in (lane, evaluated):
        with one.own_state():
            for _ in range(4):
                one.advance(1, lambda: False)
                if one is evaluated:
                    with averaged(one.optimizer, one.model):
                        one.evaluate(one.task.data.val)
    assert_same_bits(lane.model.state_dict(), evaluated.model.state_dict())
    (group,) = lane.optimizer.param_groups
    beta = group["momentum"] if name == "schedulefree_sgd" else group["betas"][0]
    kept = lane.weights()["model"]
    for key, weight in lane.model.named_parameters():
        z = lane.optimizer.state[weight]["z"]
        average = weight.detach() + (1 - 1 / beta) * (z - weight.detach())  # y = (1 - beta) z + beta x
        torch.testing.assert_close(kept[key], average)
        assert not torch.equal(kept[key], weight)


def test_the_last_weights_of_a_schedule_free_run_are_tested_as_averages(compose: Compose) -> None:
    cfg = compose(*QUICK, "optimizer=schedulefree_adamw", "trainer.epochs=2", "trainer.test_weights=last")
    lane = Lane(cfg)
    lines = lines_of(list(fit([lane])), lane)
    plain = Lane(cfg)
    plain.model.load_state_dict(lane.weights()["model"])
    assert lines[-1]["test_loss"] == plain.evaluate(plain.task.data.test)["loss"]


def test_schedule_free_with_batch_normalisation_is_cautioned(compose: Compose) -> None:
    words = (*QUICK, "optimizer=schedulefree_sgd")
    assert "prefer a model without it" in Lane(compose(*words, "model.norm=batch")).note
    assert Lane(compose(*words)).note == ""


def test_muon_takes_the_hidden_matrices_and_adamw_the_rest(compose: Compose) -> None:
    cfg = compose("model=cnn", "model.widths=[4,8]", "model.hidden=[8]", "optimizer=muon")
    model = build.model(cfg, (1, 28, 28), 10)
    names = {id(weight): name for name, weight in model.named_parameters()}
    by_muon = [
        names[id(weight)]
        for group in build.optimizer(cfg, model).param_groups
        for weight in group["params"]
        if group["use_muon"]
    ]
    matrices = [name for name, weight in model.named_parameters() if weight.ndim > 1]
    assert by_muon == matrices[1:-1]
    assert len(by_muon) == 2
    with pytest.raises(ConfigError, match=r"the model has 2 layers with weights, none of them hidden"):
        build.optimizer(cfg, nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 2)))


@pytest.mark.parametrize("name", ["adamw", "lion"])
def test_weight_decay_spares_norms_and_biases_where_asked_to(compose: Compose, name: str) -> None:
    words = (f"optimizer={name}", "optimizer.weight_decay=0.1", "model=mlp", "model.norm=batch")
    model = build.model(compose(*words), (1, 28, 28), 10)
    (everything,) = build.optimizer(compose(*words), model).param_groups
    assert everything["weight_decay"] == 0.1
    cfg = compose(*words, "optimizer.decay_norms_and_biases=false")
    weights, others = build.optimizer(cfg, model).param_groups
    assert (weights["weight_decay"], others["weight_decay"]) == (0.1, 0.0)
    assert {weight.ndim for weight in weights["params"]} == {2}
    assert {weight.ndim for weight in others["params"]} == {1}
    assert len(weights["params"]) + len(others["params"]) == len(everything["params"])


def test_an_optimizer_with_groups_of_its_own_refuses_others(compose: Compose) -> None:
    cfg = compose("optimizer=muon", "optimizer.decay_norms_and_biases=false")
    message = r"decay_norms_and_biases=false: fairsweep.optimizers.muon groups the model's parameters itself"
    with pytest.raises(ConfigError, match=message):
        build.optimizer(cfg, build.model(cfg, (1, 28, 28), 10))


def test_a_switch_that_changes_nothing_leaves_the_signature_alone(compose: Compose) -> None:
    values = resolved(compose())
    older = copy.deepcopy(values)
    del older["optimizer"]["decay_norms_and_biases"]
    assert signature(values, "content") == signature(older, "content")
    values["optimizer"]["decay_norms_and_biases"] = False
    assert signature(values, "content") != signature(older, "content")


def test_a_preset_without_its_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(targets.EXTRAS, "absent_package", "optimizers")
    with pytest.raises(ConfigError, match=r"absent_package is not installed; pip install 'fairsweep\[optim"):
        targets.check("optimizer._target_", "absent_package.Lion")
