"""Hydra's entry point with the errors of a good command-line tool: one line, and an exit status."""

import os
import sys
from collections.abc import Callable
from typing import Any, NoReturn

import hydra
from hydra.errors import HydraException, MissingConfigException
from omegaconf import DictConfig
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

from fairsweep.config import ROOT, ConfigError, nearest


def explain(error: BaseException) -> str:
    """One line for the user out of an error of Hydra's, of OmegaConf's or of ours."""
    cause = error.__cause__
    if isinstance(cause, ConfigKeyError | ConfigAttributeError):
        known = list(cause.parent_node.keys()) if isinstance(cause.parent_node, DictConfig) else []
        key = str(cause.full_key)
        return (
            f"{key}: unknown key{nearest(key.rsplit('.')[-1], map(str, known))}"
            f" (allowed: {', '.join(sorted(map(str, known)))})"
        )
    if isinstance(error, MissingConfigException) and error.options:
        group, _, choice = str(error.missing_cfg_file).rpartition("/")
        options = sorted(option for option in error.options if not option.startswith("_"))
        return f"{group}={choice}: no such choice{nearest(choice, options)} (allowed: {', '.join(options)})"
    return " ".join(str(error).split())


def entry_point(config_name: str) -> Callable[[Callable[[DictConfig], Any]], Callable[[], None]]:
    """Compose `conf/<config_name>.yaml` and the command line, call the task, and tell errors in one line.

    Exit status: 2 for a mistake in the configuration, else what the task says by `sys.exit`.
    HYDRA_FULL_ERROR=1 shows tracebacks.
    """

    def decorate(task: Callable[[DictConfig], Any]) -> Callable[[], None]:
        def job(cfg: DictConfig) -> Any:
            try:
                return task(cfg)
            except ConfigError as error:
                fail(error)

        def main() -> None:
            # With this, Hydra hands its errors on instead of printing them its own way.
            os.environ["HYDRA_FULL_ERROR"] = "1"
            try:
                hydra.main(version_base="1.3", config_path=str(ROOT / "conf"), config_name=config_name)(job)()
            except (HydraException, OmegaConfBaseException) as error:
                fail(error)

        return main

    wants_traceback = os.environ.get("HYDRA_FULL_ERROR") == "1"

    def fail(error: Exception) -> NoReturn:
        if wants_traceback:
            raise error
        print(f"error: {explain(error)}", file=sys.stderr)
        sys.exit(2)

    return decorate
