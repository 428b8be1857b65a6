"""Our plugins keep what Hydra expects of plugins: its own test suites, run on them."""

from collections.abc import Iterator

import pytest
from hydra import version
from hydra.core.plugins import Plugins
from hydra.core.singleton import Singleton
from hydra.plugins.launcher import Launcher
from hydra.plugins.plugin import Plugin
from hydra.plugins.sweeper import Sweeper
from hydra.test_utils.launcher_common_tests import (
    BatchedSweeperTestSuite,
    IntegrationTestSuite,
    LauncherTestSuite,
)

from hydra_plugins.fairsweep.fair_sweeper import FairSweeper
from hydra_plugins.fairsweep.fused_launcher import FusedLauncher


@pytest.fixture(autouse=True)
def hydra_as_its_tests_expect_it() -> Iterator[None]:
    """They count on a folder per job, which was the default once; other tests have said otherwise."""
    state = Singleton.get_state()
    version.setbase("1.1")
    yield
    Singleton.set_state(state)


@pytest.mark.parametrize(("kind", "plugin"), [(Sweeper, FairSweeper), (Launcher, FusedLauncher)])
def test_hydra_finds_our_plugins(kind: type[Plugin], plugin: type[Plugin]) -> None:
    assert plugin.__name__ in [found.__name__ for found in Plugins.instance().discover(kind)]


@pytest.mark.parametrize(("launcher_name", "overrides"), [("basic", ["hydra/sweeper=fair"])])
class TestFairSweeper(LauncherTestSuite):
    pass


@pytest.mark.parametrize(
    ("launcher_name", "overrides"),
    [("fused", []), ("fused", ["hydra/sweeper=fair", "hydra.launcher.lanes=2"])],
)
class TestFusedLauncher(LauncherTestSuite):
    pass


@pytest.mark.parametrize(
    ("task_launcher_cfg", "extra_flags"), [({"defaults": [{"override hydra/launcher": "fused"}]}, ["-m"])]
)
class TestFusedLauncherInAnApplication(IntegrationTestSuite):
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
