"""The report, and what it links to, in a real browser. Screenshots stay in the test's folder."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright
from servers import free_port, serving
from studies import study
from test_cli import environment

from fairsweep.compare import report
from fairsweep.compare.findings import ReportSettings
from fairsweep.config import ROOT

PATIENCE = 90_000  # milliseconds


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """The system's Chromium."""
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("no Chromium on this system; on Debian: apt-get install chromium")
    expect.set_options(timeout=PATIENCE)
    with sync_playwright() as playwright:
        # The sandbox refuses root, as which tests run in containers.
        started = playwright.chromium.launch(executable_path=program, chromium_sandbox=os.geteuid() != 0)
        yield started
        started.close()


@pytest.fixture
def screenshots(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    with capsys.disabled():
        print(f"\nscreenshots: {tmp_path}")
    return tmp_path


def in_view(page: Page, selector: str) -> tuple[float, float]:
    """The middle of an element, scrolled to."""
    element = page.locator(selector).first
    element.scroll_into_view_if_needed()
    box = element.bounding_box()
    assert box is not None
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def column(page: Page, name: str) -> list[str]:
    """The cells of a column of the table of runs."""
    heads = page.locator("#runs th").all_inner_texts()
    place = next(i for i, head in enumerate(heads) if head.split()[0] == name)
    cells = page.locator(f"#runs tbody tr:visible td:nth-child({place + 1})")
    return cells.all_inner_texts()


def are_stacked(page: Page) -> bool:
    """Whether the panels of the verdict's figure begin at about the same distance from the left."""
    page.wait_for_timeout(500)  # the figures are drawn again one after the other
    backs = page.locator("#plot-verdict .bglayer rect")
    places = [backs.nth(place).bounding_box() for place in range(backs.count())]
    left = [box["x"] for box in places if box is not None]
    assert len(left) > 1
    return max(left) - min(left) < 150


def test_the_report_works_from_disk_without_a_network(
    browser: Browser, screenshots: Path, kept: Path
) -> None:
    found = report.write(study(), ReportSettings(), screenshots / "report")
    context = browser.new_context(offline=True, viewport={"width": 1240, "height": 900})
    context.set_default_timeout(PATIENCE)
    page, asked, errors = context.new_page(), list[str](), list[str]()
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.goto((screenshots / "report" / "report.html").as_uri())

    expect(page.locator("#verdict")).to_have_text(f"{found.verdict} The runs behind it")
    for name in ("verdict", "sensitivity", "curves", "target", "budget", "tuning"):
        expect(page.locator(f"#plot-{name} .trace").first).to_be_attached()
    expect(page.locator("#plot-parallel .parcoords")).to_be_attached()
    page.screenshot(path=screenshots / "report.png", full_page=True)

    page.mouse.move(*in_view(page, "#plot-verdict .trace .points path"))
    label = page.locator("#plot-verdict .hoverlayer .hovertext")
    expect(label).to_contain_text(re.compile(r"adam.*confirm, trial 3, seed 10\d", re.DOTALL))
    page.screenshot(path=screenshots / "pointed_at.png")

    head = page.locator("#runs th", has_text="seed")
    for order in (1, -1):
        head.click()
        seeds = [int(seed) for seed in column(page, "seed")]
        assert seeds == sorted(seeds, reverse=order < 0)
    assert len(seeds) == len(found.tables.runs)
    page.screenshot(path=screenshots / "sorted.png")

    # What is picked on an axis is what the table holds: drag around the arm's lower end.
    x, middle = in_view(page, "#plot-parallel .axis-brush")
    box = page.locator("#plot-parallel .axis-brush").first.bounding_box()
    assert box is not None
    page.mouse.move(x, middle + 0.48 * box["height"])
    page.mouse.down()
    page.mouse.move(x, middle + 0.2 * box["height"], steps=8)
    page.mouse.up()
    search = found.tables.runs[found.tables.runs["phase"] == "search"]
    picked = page.locator("#runs tbody tr:visible")
    expect(picked).to_have_count(int((search["arm"] == "adam").sum()))
    assert set(column(page, "arm")) == {"adam"}
    page.screenshot(path=screenshots / "picked.png")

    page.set_viewport_size({"width": 1300, "height": 900})
    page.screenshot(path=kept / "report_1300.png", full_page=True)
    assert not are_stacked(page)
    page.set_viewport_size({"width": 420, "height": 900})
    page.wait_for_function("document.documentElement.scrollWidth <= 420")
    assert are_stacked(page)
    page.screenshot(path=kept / "report_420.png", full_page=True)

    assert errors == []
    assert {url.partition(":")[0] for url in asked} <= {"file", "data", "blob"}


def command(*words: str) -> str:
    """What a command of ours prints."""
    done = subprocess.run(
        [sys.executable, *words], cwd=ROOT, env=environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_mlflows_own_pages_show_the_sweep_and_compare_its_runs(
    browser: Browser, screenshots: Path, kept: Path
) -> None:
    port = free_port()
    address = f"127.0.0.1:{port}"
    where = f"record.dir={screenshots}/outputs"
    quick = ("model=mlp", "model.widths=[16]", "data.limit=200", "trainer.epochs=1", "trials=2", "confirm=2")
    said = command("src/train.py", "-m", "+sweep=adam_vs_sgd", where, *quick)
    command("src/compare.py", where, f"ui=http://{address}")
    names = re.findall(r"confirm (.* seed=\d+): finished", said)
    assert len(names) == 4
    (ui,) = re.findall(r"^compare +(.*)$", said, re.MULTILINE)
    with serving(shlex.split(ui), port, screenshots / "ui.log"):
        page = browser.new_page(viewport={"width": 1500, "height": 950})
        page.set_default_timeout(PATIENCE)
        training = f"http://{address}/#/experiments/1/runs?workflowType=machine_learning"
        page.goto(training)
        parent = page.get_by_role("row").filter(has_text="adam vs sgd · digits · mlp")
        expect(parent).to_be_visible()
        expect(page.get_by_text(names[0])).to_have_count(0)
        parent.get_by_role("button").first.click()
        for name in names:
            expect(page.get_by_text(name).first).to_be_visible()
        page.screenshot(path=kept / "mlflow_experiment.png")
        parent.get_by_role("link", name="adam vs sgd").click()
        expect(page.get_by_text("mean test accuracy").first).to_be_visible()
        expect(page.get_by_role("table").filter(has_text="best trial")).to_be_visible()
        page.screenshot(path=kept / "mlflow_parent.png", full_page=True)
        page.goto(training)
        page.get_by_text(names[0]).first.click()
        page.get_by_text("Model metrics").first.click()
        for group in ("test", "time", "train", "val"):
            expect(page.get_by_text(re.compile(rf"^{group}")).first).to_be_attached()
        page.screenshot(path=kept / "mlflow_child.png", full_page=True)

        report_page = browser.new_page()
        report_page.goto((screenshots / "outputs" / "report" / "report.html").as_uri())
        link = report_page.get_by_role("link", name="runs that decide").get_attribute("href")
        page.goto(str(link))
        expect(page.get_by_text("Comparing 4 Runs").first).to_be_visible()
        for name in names:
            expect(page.get_by_text(name).first).to_be_attached()
        page.screenshot(path=screenshots / "mlflow_comparison.png")
