"""The report: its verdict on the terminal, and its page, pictures and tables in a folder."""

import json
import math
import re
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from importlib.resources import files
from pathlib import Path
from typing import Any

from markupsafe import Markup
from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table as Grid
from rich.text import Text

from fairsweep.compare import analysis, folder_source, interactive, mlflow_tables, request, static, tables
from fairsweep.compare.figures import GREY, Figure, figures, styles
from fairsweep.compare.findings import Findings, ReportSettings
from fairsweep.compare.load import Tables
from fairsweep.compare.tables import Table
from fairsweep.config import ConfigError
from fairsweep.files import write_atomically
from fairsweep.runs import life, tracking, uploader
from fairsweep.sweeps.folder import SweepFolder

# The files of a report; a later report replaces all of them.
NAMES = (
    "verdict", "sensitivity", "curves", "target", "budget", "tuning", "parallel",
    "arms", "comparisons", "trials", "runs",
)  # fmt: skip


def make(cfg: DictConfig, sweeps: Sequence[SweepFolder], console: Console) -> None:
    """Read the requested runs, write the report to `output`, and show its verdict on the terminal.

    Args:
        sweeps: the folders of those that were begun here; none: MLflow is asked.

    Raises:
        ConfigError: there is nothing to show, MLflow does not answer, or the folder cannot be written.
    """

    def note(text: str) -> None:
        console.print(text, highlight=False, markup=False, style="yellow", soft_wrap=True)

    uri = cfg.tracking.uri
    if sweeps:
        given = folder_source.load(sweeps, uri, cfg.judge)
    else:
        with uploader.running(note):
            life.flush(cfg)
        ids = request.ids(cfg)
        given = mlflow_tables.load(uri, cfg.record.dir, ids, cfg.experiment, cfg.filter, cfg.judge)
    folder = Path(cfg.output).expanduser().absolute()
    found = write(given, ReportSettings(cfg.relevant, cfg.target, cfg.ui), folder)
    tell(found, console)
    rows = {"report": str(folder / "report.html")}
    rows |= {"compare": tracking.ui_command(uri)} if uri is not None else {}
    rows |= {"missing": given.missing} if given.missing else {}
    for name, text in rows.items():
        console.print(f"{name:<10} {text}", soft_wrap=True, highlight=False, markup=False)


def write(given: Tables, settings: ReportSettings, folder: Path) -> Findings:
    """Find what the tables show, and write `report.html`, `report.json`, `verdict.md`, `figures/`, `tables/`.

    Args:
        folder: made if it is not there; an earlier report in it is replaced.

    Raises:
        ConfigError: there is nothing to show, or the folder cannot be written.
    """
    found = analysis.find(given, settings)
    drawn = figures(found)
    content = {"report.html": page(found, drawn).encode(), "report.json": as_json(found).encode()}
    content["verdict.md"] = as_markdown(found).encode()
    for name, frame in tables.frames(found).items():
        content[f"tables/{name}.csv"] = frame.to_csv(index=False).encode()
    for figure in drawn:
        for ending, picture in static.pictures(figure).items():
            content[f"figures/{figure.name}.{ending}"] = picture
    try:
        for part, endings in (("figures", ("png", "svg")), ("tables", ("csv",))):
            (folder / part).mkdir(parents=True, exist_ok=True)
            for name in (f"{part}/{name}.{ending}" for name in NAMES for ending in endings):
                if name not in content:
                    (folder / name).unlink(missing_ok=True)
        for name, data in content.items():
            write_atomically(folder / name, data)
    except OSError as error:
        raise ConfigError(f"output={folder}: cannot be written: {error.strerror}") from error
    return found


def tell(found: Findings, console: Console) -> None:
    """The verdict, what the reader has to know, and a line for each arm."""
    console.print(found.verdict, style="bold", highlight=False, markup=False)
    for remark in found.remarks:
        console.print(f"! {remark}", style="yellow", highlight=False, markup=False)
    table = tables.arms(found)
    grid = Grid(box=None, padding=(0, 2, 0, 0))
    for head, is_number in table.columns():
        wraps = head == "runs" or (is_number and " " in head)
        grid.add_column(
            Text(head), justify="right" if is_number else "left", no_wrap=not wraps, overflow="fold"
        )
    for row in table.rows:
        # The values of a trial stand below each other, so that a narrow terminal does not cut them in two.
        grid.add_row(*(Text(re.sub(r" (?=\w+=)", "\n", cell.text)) for cell in row))
    console.print()
    console.print(grid)
    console.print()


def page(found: Findings, drawn: Sequence[Figure]) -> str:
    """The HTML file, which needs no other."""
    from jinja2 import Environment

    given = found.tables
    unique = given.runs.drop_duplicates("run")
    places = {run: place for place, run in enumerate(unique["run"])}
    content = {
        "urls": [found.run_url(*pair) for pair in zip(unique["experiment"], unique["run"], strict=True)],
        "plots": {figure.name: interactive.plot(figure, places) for figure in drawn},
    }
    fixed = analysis.fixed(given)
    held = [fixed[key] for key in ("data.name", "model.name") if key in fixed]
    started = given.runs["started"].min()
    begun = [] if math.isnan(started) else [f"begun {datetime.fromtimestamp(started):%Y-%m-%d %H:%M}"]
    names = [str(sweep["name"]) for sweep in given.sweeps if "name" in sweep] or [" vs ".join(found.arms)]
    template = Path(__file__).with_name("report.html.j2").read_text()
    return (
        Environment(autoescape=True, trim_blocks=True)
        .from_string(template)
        .render(
            title=", ".join(names),
            subtitle=", ".join(
                [*held, f"selected by {given.objective}", f"{len(unique)} runs", given.what, *begun]
            ),
            command=" ; ".join(str(sweep["command"]) for sweep in given.sweeps if "command" in sweep),
            found=found,
            tone=styles(found)[found.best].color if found.best else GREY,
            ui_command=tracking.ui_command(given.uri) if given.uri and not found.is_served else None,
            sections=sections(found, drawn),
            held_fixed=tables.held_fixed(found),
            # Inside a script, nothing may look like its end.
            data=Markup(json.dumps(content, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")),
            plotly=Markup((files("plotly") / "package_data" / "plotly.min.js").read_text(encoding="utf-8")),
        )
    )


def sections(found: Findings, drawn: Sequence[Figure]) -> list[tuple[str, str, Figure | None, list[Markup]]]:
    """The sections below the verdict: name, heading, figure and tables."""
    of = {figure.name: figure for figure in drawn}
    below: dict[str, list[Table]] = {
        "sensitivity": [tables.flat_regions(found)] if found.flat else [],
        "curves": [],
        "target": [tables.times(found)] if found.reached else [],
        "budget": [],
        "tuning": [tables.tuning(found)],
    }
    arms = [tables.arms(found)]
    if found.comparisons:
        arms.append(tables.pairs(found))
    made = [("arms", "The arms and the verdict", of.get("verdict"), arms)]
    made += [(name, of[name].title, of[name], shown) for name, shown in below.items() if name in of]
    differing = tables.differing(found)
    fixed = [tables.given(found), *([differing] if differing.rows else []), tables.origins(found)]
    made.append(("held", "What each arm was given, and what was held fixed", None, fixed))
    html = [(name, title, figure, [table.html() for table in shown]) for name, title, figure, shown in made]
    return [*html, ("all", "All runs", of.get("parallel"), [tables.runs(found).html("runs")])]


def as_markdown(found: Findings) -> str:
    """The verdict, its remarks and the table of arms, as MLflow shows them on a sweep's page."""
    remarks = "".join(f"- {remark}\n" for remark in found.remarks)
    return f"**{found.verdict}**\n\n{remarks}\n{tables.arms(found).markdown()}"


def as_json(found: Findings) -> str:
    """The verdict and all tables but the curves; what is not finite is null."""
    frames = {name: frame for name, frame in tables.frames(found).items() if name != "curves"}
    content: dict[str, Any] = {
        "what": found.tables.what,
        "verdict": found.verdict,
        "best": found.best,
        "evidence": found.evidence,
        "remarks": found.remarks,
        "objective": found.tables.objective,
        "judge": found.tables.judge,
        "settings": asdict(found.settings),
        "target": found.target if math.isfinite(found.target) else None,
        "chosen": found.chosen,
        "sweeps": found.tables.sweeps,
        "fixed": analysis.fixed(found.tables),
        **{name: json.loads(frame.to_json(orient="records")) for name, frame in frames.items()},
    }
    return json.dumps(content, indent=1)
