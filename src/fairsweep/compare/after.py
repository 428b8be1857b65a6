"""The report at the end of a sweep, which costs the sweep nothing whatever goes wrong."""

from omegaconf import DictConfig, OmegaConf

from fairsweep.config import ROOT, ConfigError, without_credentials
from fairsweep.garbage import uncollected
from fairsweep.runs.schema import Damaged, read_json
from fairsweep.sweeps.folder import ReportSummary, SweepFolder


def known(sweep: SweepFolder) -> ReportSummary | None:
    """The report that is there, if it is of the runs that the sweep has now."""
    try:
        content = read_json(sweep.report.with_suffix(".json"))
        reported = {(run["signature"], run["phase"], run["status"]) for run in content["runs"]}
        found = ReportSummary(str(sweep.report), content["verdict"], content["remarks"], content["best"])
    except (OSError, Damaged, KeyError, TypeError):  # none, or one that was cut short
        return None
    now = {(row.signature, row.phase, sweep.run(row.signature).status().name) for row in sweep.rows()}
    return found if reported == now else None


def write(sweep: SweepFolder, cfg: DictConfig) -> ReportSummary:
    """The report of a sweep that has ended, in its folder, judged as conf/compare.yaml says."""
    try:
        with uncollected():  # see src/compare.py
            from fairsweep.compare import folder_source, report
            from fairsweep.compare.findings import ReportSettings

            judging = OmegaConf.load(ROOT / "conf" / "compare.yaml")
            given = folder_source.load([sweep], cfg.tracking.uri)
            settings = ReportSettings(judging.relevant, judging.target, judging.ui)
            found = report.write(given, settings, sweep.report.parent)
            return ReportSummary(str(sweep.report), found.verdict, found.remarks, found.best)
    except Exception as error:  # its runs are done and recorded
        what = str(error) if isinstance(error, ConfigError) else f"{type(error).__name__}: {error}"
        return ReportSummary(f"none: {' '.join(without_credentials(what).split())[:300]}")
