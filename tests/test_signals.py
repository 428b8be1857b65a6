"""When Ctrl-C takes effect, and that it always does."""

import gc
import runpy
import signal
import sys
import threading
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext, suppress
from functools import wraps
from pathlib import Path
from types import FunctionType
from typing import Any

import pytest

from fairsweep import signals
from fairsweep.config import ROOT
from fairsweep.runs.folder import RunFolder
from fairsweep.signals import check, handled, postponed, received, stopping


@pytest.fixture(autouse=True)
def handlers_are_put_back() -> Iterator[None]:
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.getsignal(number) for number in numbers]
    yield
    assert [signal.getsignal(number) for number in numbers] == before
    assert not received()
    assert signals.Process.tolerated == 0


def interrupt() -> None:
    signal.raise_signal(signal.SIGINT)


def in_a_weak_references_callback() -> None:
    """A signal where Python prints what the handler raises, as while a module is imported."""

    class Thing:
        pass

    thing = Thing()
    reference = weakref.ref(thing, lambda _: interrupt())
    del thing
    assert reference() is None


def in_the_garbage_collector() -> None:
    def callback(phase: str, _: Any) -> None:
        if phase == "start":
            interrupt()

    gc.callbacks.append(callback)
    try:
        gc.collect()
    finally:
        gc.callbacks.remove(callback)


LOST = [in_a_weak_references_callback, in_the_garbage_collector]


@pytest.mark.parametrize("lose", LOST)
@pytest.mark.parametrize("inside", [nullcontext, postponed])
def test_a_signal_whose_exception_is_lost_is_known_all_the_same(
    lose: Callable[[], None],
    inside: Callable[[], AbstractContextManager[None]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    with handled():
        with suppress(KeyboardInterrupt), inside():
            lose()
        assert received()
        with stopping() as stop:
            assert stop()
        with pytest.raises(KeyboardInterrupt):
            check()
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_asks_for_an_orderly_end_and_the_second_raises(number: signal.Signals) -> None:
    with stopping() as stop:
        assert not stop()
        signal.raise_signal(number)
        assert stop()
        with postponed():
            pass
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)


def test_where_nothing_is_lost_the_first_signal_raises() -> None:
    with stopping() as stop:
        with pytest.raises(KeyboardInterrupt), stop.immediate():
            interrupt()
        assert stop()


def test_what_must_not_be_cut_in_two_is_not() -> None:
    done = []

    def save() -> None:
        with postponed():
            interrupt()
            done.append("all")

    with pytest.raises(KeyboardInterrupt):
        save()
    assert done == ["all"]


def test_what_must_not_be_cut_in_two_is_cut_by_a_second_signal() -> None:
    with handled():
        with pytest.raises(KeyboardInterrupt):
            interrupt()
        with postponed():  # what writes down that it was interrupted
            pass
        with suppress(KeyboardInterrupt), postponed():
            interrupt()
            with pytest.raises(KeyboardInterrupt):
                interrupt()


def test_a_first_signal_in_a_postponed_part_of_training_raises_nothing_behind_it() -> None:
    with stopping() as stop:
        with postponed():
            interrupt()
        assert stop()
        with pytest.raises(KeyboardInterrupt), postponed():
            interrupt()


def test_other_threads_see_the_signal_and_change_nothing() -> None:
    seen = []

    def work() -> None:
        with handled(), postponed(), stopping() as stop:
            begun.set()
            assert go_on.wait(60)
            seen.append(stop())

    begun, go_on = threading.Event(), threading.Event()
    thread = threading.Thread(target=work)
    with handled():
        thread.start()
        assert begun.wait(60)
        with pytest.raises(KeyboardInterrupt):
            interrupt()
        go_on.set()
        thread.join()
    assert seen == [True]


# A sweep, stopped at many moments


@pytest.fixture
def our_calls(monkeypatch: pytest.MonkeyPatch) -> list[Callable[[], None]]:
    """What is called at each call of a function of ours, of nearly all modules."""
    actions: list[Callable[[], None]] = []

    def told(function: FunctionType) -> Callable[..., Any]:
        @wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            for action in actions:
                action()
            return function(*args, **kwargs)

        return call

    for name in [name for name in sys.modules if name.startswith("fairsweep.")]:
        module = sys.modules[name]
        classes = [value for value in vars(module).values() if isinstance(value, type)]
        for holder in [module, *classes] if module is not signals else ():
            for key, value in list(vars(holder).items()):
                if isinstance(value, FunctionType) and value.__code__.co_filename == module.__file__:
                    monkeypatch.setattr(holder, key, told(value))
    return actions


def sweep(outputs: Path) -> int:
    """A sweep of two small runs in this process; its exit status."""
    words = ("tracking=none", "model=mlp", "model.widths=[4]", "data.limit=100", "trainer.epochs=1")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["src/train.py", "-m", *words, "seed=0,1", f"record.dir={outputs}"])
        try:
            runpy.run_path(str(ROOT / "src" / "train.py"), run_name="__main__")
        except SystemExit as end:
            return int(str(end.code))
    return 0


def statuses(outputs: Path) -> Counter[str]:
    return Counter(RunFolder(path.parent).status().name for path in outputs.glob("runs/*/status.json"))


def test_a_sweep_can_be_stopped_at_any_moment_and_goes_on_by_the_same_command(
    tmp_path: Path, our_calls: list[Callable[[], None]]
) -> None:
    calls = 0
    moment: int | None = None
    act: Callable[[], None] = interrupt

    def count() -> None:
        nonlocal calls
        if signals.Process.is_handled:
            calls += 1
            if calls == moment:
                act()

    our_calls.append(count)
    assert sweep(tmp_path / "undisturbed") == 0
    for place, at in enumerate(range(1, calls * 9 // 10, calls // 6)):
        calls, moment, act = 0, at, (interrupt, in_a_weak_references_callback)[place % 2]
        outputs = tmp_path / str(at)
        assert sweep(outputs) == 130, (moment, act)
        assert statuses(outputs).keys() <= {"finished", "interrupted"}, (moment, act)
        moment = None
        assert sweep(outputs) == 0
        assert statuses(outputs) == {"finished": 2}
