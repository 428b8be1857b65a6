"""Our plugins keep what Hydra expects of plugins: its own test suites, run on them."""

from collections.abc import Iterator

import pytest
from hydra import version
from hydra.core.plugins import Plugins
from hydra.core.singleton import Singleton
from hydra.plugins.sweeper import Sweeper
from hydra.test_utils.launcher_common_tests import (
    BatchedSweeperTestSuite,
    IntegrationTestSuite,
    LauncherTestSuite,
)

from hydra_plugins.fairsweep.fair_sweeper import FairSweeper


@pytest.fixture(autouse=True)
def hydra_as_its_tests_expect_it() -> Iterator[None]:
    """They count on a folder per job, which was the default once; other tests have said otherwise."""
    state = Singleton.get_state()
    version.setbase("1.1")
    yield
    Singleton.set_state(state)


def test_hydra_finds_the_sweeper() -> None:
    assert FairSweeper.__name__ in [kind.__name__ for kind in Plugins.instance().discover(Sweeper)]


@pytest.mark.parametrize(("launcher_name", "overrides"), [("basic", ["hydra/sweeper=fair"])])
class TestFairSweeper(LauncherTestSuite):
    pass


@pytest.mark.parametrize(
    ("launcher_name", "overrides"), [("basic", ["hydra/sweeper=fair", "hydra.sweeper.max_batch_size=2"])]
)
class TestFairSweeperInBatches(BatchedSweeperTestSuite):
    pass


@pytest.mark.parametrize(
    ("task_launcher_cfg", "extra_flags"),
    [({"defaults": [{"override hydra/sweeper": "fair"}, {"override hydra/launcher": "basic"}]}, ["-m"])],
)
class TestFairSweeperInAnApplication(IntegrationTestSuite):
    pass
