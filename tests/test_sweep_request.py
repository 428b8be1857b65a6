"""What a command asks for with -m: each job has the configuration that its words give without -m."""

import re
from collections.abc import Iterator

import pytest
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from fairsweep.cli.arguments import in_full
from fairsweep.cli.overrides import as_typed, postponed
from fairsweep.config import ROOT, ConfigError
from fairsweep.sweeper import SHORT
from fairsweep.sweeps import phases, request
from fairsweep.sweeps.compose import Composer
from fairsweep.sweeps.request import Request


@pytest.fixture(autouse=True)
def in_conf() -> Iterator[None]:
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        yield


def begun(*words: str) -> tuple[Request, DictConfig, Composer]:
    """What `train.py -m` reads, and what its runs have in common."""
    texts = [postponed(in_full(word, SHORT)) for word in words]
    loader = GlobalHydra.instance().config_loader()
    master = loader.load_configuration("train", texts, RunMode.MULTIRUN)
    composer = Composer(loader.get_search_path())
    typed = OmegaConf.to_container(master.hydra.overrides.task, resolve=False)
    assert isinstance(typed, list)
    return request.read(master, list(map(str, typed)), composer), master, composer


def jobs(*words: str) -> list[DictConfig]:
    """The configurations of the runs that are known from the beginning."""
    asked, master, composer = begun(*words)
    runs, _ = phases.known(asked.arms, asked.settings, asked.named_arms)
    return [composer.run_config(master, asked.overrides(run)) for run in runs]


def single(line: str) -> DictConfig:
    """The configuration of a command without -m."""
    cfg = GlobalHydra.instance().config_loader().load_configuration("train", line.split(), RunMode.RUN)
    return OmegaConf.masked_copy(cfg, [key for key in cfg if key != "hydra"])


MEANINGS: dict[str, tuple[str, ...]] = {
    "data.augment={shift:1} data.augment={rotate:5}": (
        "data.augment={shift:1} data.augment={rotate:5}",
    ),
    "data.augment={shift:1},{shift:2} data.augment={rotate:5}": (
        "data.augment={shift:1} data.augment={rotate:5}",
        "data.augment={shift:2} data.augment={rotate:5}",
    ),
    "optimizer=sgd optimizer={lr:0.5} optimizer={momentum:0.9}": (
        "optimizer=sgd optimizer={lr:0.5} optimizer={momentum:0.9}",
    ),
    "optimizer=adam,sgd optimizer={lr:0.5}": (
        "optimizer=adam optimizer={lr:0.5}",
        "optimizer=sgd optimizer={lr:0.5}",
    ),
    "optimizer={lr:0.5} optimizer.lr=0.1,0.2": ("optimizer.lr=0.1", "optimizer.lr=0.2"),
    "optimizer={lr:0.1},{lr:0.2}": ("optimizer.lr=0.1", "optimizer.lr=0.2"),
    # the later one counts
    "++optimizer.lr=0.01,0.001 optimizer.lr=0.1": ("optimizer.lr=0.1",),
    "optimizer.lr=0.01,0.001 seed=3 ++optimizer.lr=0.1": ("optimizer.lr=0.1 seed=3",),
    "optimizer.lr=0.1 seed=3 optimizer.lr=0.2,0.3": ("optimizer.lr=0.2 seed=3", "optimizer.lr=0.3 seed=3"),
    "+model.depth=1,2 model.depth=3": ("+model.depth=3",),
    "+model.depth=1 model.depth=2,3": ("+model.depth=2", "+model.depth=3"),
    "optimizer=adam,sgd seed=1 optimizer=rmsprop": ("optimizer=rmsprop seed=1",),
    "++seed=1,2": ("seed=1", "seed=2"),
    "+sweep=lr_range optimizer.lr=0.1": ("optimizer.lr=0.1",),
    # keys that only the swept choices have
    "data=mnist,fashion_mnist data.root=/data": (
        "data=mnist data.root=/data",
        "data=fashion_mnist data.root=/data",
    ),
    "optimizer=sgd,rmsprop optimizer.momentum=0.5": (
        "optimizer=sgd optimizer.momentum=0.5",
        "optimizer=rmsprop optimizer.momentum=0.5",
    ),
    "recipe=two_conv,fc_net data.root=/data": (
        "recipe=two_conv data.root=/data",
        "recipe=fc_net data.root=/data",
    ),
    "arms={a:{optimizer:sgd},b:{optimizer:rmsprop}} confirm=0 optimizer.momentum=0.5": (
        "optimizer=sgd optimizer.momentum=0.5",
        "optimizer=rmsprop optimizer.momentum=0.5",
    ),
    # all kinds of values
    "data.limit=null seed=1,2": ("data.limit=null seed=1", "data.limit=null seed=2"),
    "data=mnist model.name= data.root='/a,b'": ("data=mnist model.name= data.root='/a,b'",),
    "model.name=${seed}-${data.name} optimizer.betas=[0.5,0.9]": (
        "model.name=${seed}-${data.name} optimizer.betas=[0.5,0.9]",
    ),
    "optimizer.lr='0.1','0.2'": ("optimizer.lr='0.1'", "optimizer.lr='0.2'"),
    "~optimizer.betas seed=1,2": ("~optimizer.betas seed=1", "~optimizer.betas seed=2"),
}  # fmt: skip


@pytest.mark.parametrize("line", MEANINGS)
def test_words_mean_the_same_in_a_sweep(line: str) -> None:
    assert jobs(*line.split()) == [single(words) for words in MEANINGS[line]]


def test_what_the_runs_have_in_common_has_the_words_that_fit_it() -> None:
    words = ("tracking.experiment=${model.name}", "model.name=mine", "data=mnist,kmnist", "data.root=/x")
    assert begun(*words)[1].tracking.experiment == "mine"
    assert begun("+hydra.sweeper.params={objective:val_loss}", "seed=1,2")[0].settings.sign == -1


POSTPONED = (
    "optimizer.lr=0.1",
    "+model.depth=[1,2]",
    "data.limit=null",
    "data.augment={shift:1}",
    "data.name=''",
)


@pytest.mark.parametrize("word", POSTPONED)
def test_a_postponed_word_can_be_read_as_it_was_typed(word: str) -> None:
    assert postponed(word) != word
    assert as_typed(postponed(word)) == word


@pytest.mark.parametrize("word", ["optimizer=sgd", "optimizer.lr=1,2", "~data.limit", "seed=1", "a=b=c"])
def test_other_words_are_not_postponed(word: str) -> None:
    assert as_typed(postponed(word)) == postponed(word) == word


ARM = "arms={a:{optimizer:adam,"
CLASHES: dict[str, str] = {
    "optimizer.lr=0.1,0.2 optimizer={lr:0.3}": (
        "optimizer={lr:0.3}: changes what optimizer.lr=0.1,0.2 sweeps; give one of the two, or put it first"
    ),
    "optimizer.lr=0.1,0.2 ~optimizer.lr": "~optimizer.lr: changes what optimizer.lr=0.1,0.2 sweeps",
    "data.augment={shift:1},{shift:2} data.augment={rotate:5},{rotate:6}": (
        "data.augment={rotate:5},{rotate:6}: changes what data.augment={shift:1},{shift:2} sweeps"
    ),
    "optimizer.lr=0.1 optimizer.lr=0.01": (
        "optimizer.lr=0.1 optimizer.lr=0.01: gives one key twice in a row, which is what a shell makes of "
        "{0.1,0.01}; to sweep, write optimizer.lr=0.1,0.01"
    ),
    f"{ARM}optimizer.lr:'1,2'}}}} optimizer={{lr:3}}": "arms.a: optimizer={lr:3}: the arms decide this",
    f"{ARM}data.augment.shift:1}}}} data.augment={{shift:3}}": "arms.a: data.augment={shift:3}: the arms",
    f"{ARM}seed:1}},b:{{optimizer:sgd,seed:2}}}}": "arms.a: seed=1: all arms have the same seeds",
    f"{ARM}++seed:'1,2'}}}}": "arms.a: ++seed=1,2: all arms have the same seeds",
    f"{ARM}+sweep:tpe}}}}": "+sweep=tpe: sets hydra.sweeper, which cannot differ between runs",
    "+sweep=lr_range,tpe": "+sweep=lr_range: sets hydra.sweeper, which cannot differ between runs",
}


@pytest.mark.parametrize("line", CLASHES)
def test_words_that_no_order_can_reconcile_are_refused(line: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(CLASHES[line])):
        jobs(*line.split())


def test_a_choice_that_cannot_differ_is_named_without_those_that_all_runs_have() -> None:
    with pytest.raises(ConfigError, match=r"^\+sweep=lr_range: sets"):
        jobs("trainer=smoke", "+sweep=lr_range,tpe")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("data=mnist data={root:/a}", "data=mnist data={root:/b}"),
        ("data=mnist data={root:/a,limit:50}", "data=mnist data.limit=50 data.root=/b"),
        ("data=mnist data={root:/a},{root:/b}", "data=mnist data={root:/c},{root:/d}"),
        ("data=mnist arms={a:{data:{root:/a}},b:{loss:mse_one_hot}}",
         "data=mnist arms={a:{data:{root:/b}},b:{loss:mse_one_hot}}"),
        ("trainer={threads:1}", "trainer={threads:2}"),
    ],
)  # fmt: skip
def test_paths_and_what_changes_no_result_are_no_part_of_a_sweeps_id_also_in_a_mapping(
    one: str, other: str
) -> None:
    assert id_of(one) == id_of(other)


def test_what_else_a_mapping_sets_is_part_of_a_sweeps_id() -> None:
    words = ("data={limit:50}", "data={limit:60}", "data={limit:50},{limit:60}", "data={limit:50},{limit:70}")
    assert len({id_of(f"data=mnist {word}") for word in words}) == len(words)


def id_of(line: str) -> str:
    """The id of a sweep, all of whose data and weights have the same content."""
    asked, _, _ = begun(*line.split())
    return asked.id({arm.name: ["content"] for arm in asked.arms})
