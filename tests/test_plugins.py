"""Our plugins keep what Hydra expects of plugins: its own test suites, run on them."""

import pytest
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from hydra.test_utils.launcher_common_tests import (
    BatchedSweeperTestSuite,
    IntegrationTestSuite,
    LauncherTestSuite,
)
from hydra_plugins.fairsweep.fair_sweeper import FairSweeper


def test_hydra_finds_the_sweeper() -> None:
    assert FairSweeper.__name__ in [kind.__name__ for kind in Plugins.instance().discover(Sweeper)]


@pytest.mark.parametrize("launcher_name, overrides", [("basic", ["hydra/sweeper=fair"])])
class TestFairSweeper(LauncherTestSuite):
    pass


@pytest.mark.parametrize(
    "launcher_name, overrides", [("basic", ["hydra/sweeper=fair", "hydra.sweeper.max_batch_size=2"])]
)
class TestFairSweeperInBatches(BatchedSweeperTestSuite):
    pass


@pytest.mark.parametrize(
    "task_launcher_cfg, extra_flags",
    [({"defaults": [{"override hydra/sweeper": "fair"}, {"override hydra/launcher": "basic"}]}, ["-m"])],
)
class TestFairSweeperInAnApplication(IntegrationTestSuite):
    pass
