"""The report at the end of a sweep, which costs the sweep nothing whatever goes wrong."""

import gc
import json

from omegaconf import DictConfig, OmegaConf

from fairsweep.config import ROOT, ConfigError, without_credentials
from fairsweep.record import read_json
from fairsweep.sweeps.folder import SweepFolder


def known(sweep: SweepFolder) -> str:
    """The verdict of the report that is there, if that is of the runs that the sweep has now."""
    try:
        content = read_json(sweep.report.with_suffix(".json"))
        shown = {(run["signature"], run["phase"]) for run in content["runs"]}
        return str(content["verdict"]) if shown == {(r.signature, r.phase) for r in sweep.rows()} else ""
    except (OSError, json.JSONDecodeError, KeyError):
        return ""


def write(sweep: SweepFolder, cfg: DictConfig) -> tuple[str, str]:
    """The report of a sweep that has ended, in its folder, judged as conf/compare.yaml says.

    Returns:
        The verdict, or nothing; and where the report is, or why there is none.
    """
    gc.disable()  # see src/compare.py
    try:
        from fairsweep.compare import report
        from fairsweep.compare.findings import Settings
        from fairsweep.compare.load import load

        judging = OmegaConf.load(ROOT / "conf" / "compare.yaml")
        given = load(cfg.tracking.uri, cfg.record.dir, [sweep.read()["id"]])
        settings = Settings(judging.relevant, judging.target, judging.ui)
        return report.write(given, settings, sweep.report.parent).verdict, str(sweep.report)
    except Exception as error:  # its runs are done and recorded
        what = str(error) if isinstance(error, ConfigError) else f"{type(error).__name__}: {error}"
        return "", f"none: {' '.join(without_credentials(what).split())[:300]}"
    finally:
        gc.enable()
