"""A request to `compare`: which runs, and how to judge them. Checked without pandas or MLflow."""

from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from fairsweep.config import (
    NOT_NEGATIVE,
    RULES,
    TEXT,
    ConfigError,
    Rule,
    check_values,
    either,
    leaves,
    list_of,
    metric_key,
    number,
    or_null,
    resolved,
    unknown,
    without_credentials,
)  # fmt: skip
from fairsweep.runs import markers, store
from fairsweep.sweeps import folder
from fairsweep.sweeps.folder import SweepFolder

OWN = {
    "which": either(TEXT, list_of(TEXT)),
    "experiment": or_null(TEXT),
    "filter": or_null(TEXT),
    "judge": or_null(metric_key("test")),
    "relevant": or_null(NOT_NEGATIVE),
    "target": or_null(number("a number")),
    "ui": or_null(Rule("an address, http://... or https://...", lambda v: str(v).startswith(("http://", "https://")))),
    "output": TEXT,
}  # fmt: skip


def check(cfg: DictConfig) -> None:
    """Check every value.

    Raises:
        ConfigError: the first that is not allowed; or runs are requested in two ways.
    """
    for key in leaves(resolved(cfg)):
        if key not in OWN and key not in RULES:
            raise ConfigError(unknown(key, [*OWN, "record.dir", "tracking.uri"]))
    check_values(cfg, OWN, {"which": "sweep"})
    if cfg.which == []:
        raise ConfigError("sweep=[]: names no sweep; must be an id or a list of ids")
    store.check(cfg.tracking.uri)
    if cfg.which != "latest" and (cfg.experiment or cfg.filter):
        raise ConfigError("sweep: excludes experiment and filter; give one or the other")


def ids(cfg: DictConfig) -> list[str]:
    """The requested sweeps; none for the newest, or for runs by experiment or filter."""
    return [] if cfg.which == "latest" else [cfg.which] if isinstance(cfg.which, str) else list(cfg.which)


def begun_here(cfg: DictConfig) -> list[SweepFolder]:
    """The folders of the requested sweeps, if all were started here; otherwise MLflow is asked.

    Raises:
        ConfigError: they were not, and there is no tracking store.
    """
    why = no_store(cfg)
    if cfg.experiment or cfg.filter or (cfg.which == "latest" and is_elsewhere(cfg)):
        if why:
            raise ConfigError(why)
        return []
    try:
        return [folder.find(Path(cfg.record.dir).absolute(), which) for which in ids(cfg) or ["latest"]]
    except ConfigError:
        if why:
            raise
        return []


def is_elsewhere(cfg: DictConfig) -> bool:
    """Whether the command line names another tracking store than the one of the sweeps begun here."""
    given = [word for word in HydraConfig.get().overrides.task if word.startswith("tracking.uri=")]
    return bool(given) and cfg.tracking.uri is not None and not is_used_here(cfg)


def is_used_here(cfg: DictConfig) -> bool:
    """Whether the newest sweep begun here was uploaded to this tracking store."""
    try:
        newest = folder.find(Path(cfg.record.dir).absolute(), "latest")
    except ConfigError:
        return False
    return bool(markers.read_state(newest.path, cfg.tracking.uri))


def no_store(cfg: DictConfig) -> str | None:
    """Why there is no tracking store to read from; a server is not contacted."""
    uri = cfg.tracking.uri
    if uri is None:
        return "tracking.uri=null: runs by experiment or filter are MLflow's; omit tracking=none"
    file = store.database_file(uri)
    if file is not None and not file.exists():
        return f"tracking.uri={without_credentials(uri)}: no report; there is no such database"
    return None
