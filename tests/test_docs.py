"""The README and its pages are short and linked, and their commands work."""

import os
import re
import shlex
from functools import partial
from pathlib import Path

import pytest
from commands import Command
from hydra import compose
from PIL import Image
from test_sweep import ARMS, QUICK, Outputs, empty_store, outputs
from test_sweep_request import begun, in_conf

from fairsweep.cli import arguments

__all__ = ["empty_store", "in_conf", "outputs"]  # fixtures

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_relative_link_and_picture_exists(page: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text())
    broken = [link for link in links if "://" not in link and not (page.parent / link).exists()]
    assert not broken


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_page_is_longer_than_a_reader_has_time_for(page: Path) -> None:
    prose = re.sub(r"```(python|yaml).*?```", "", page.read_text(), flags=re.DOTALL)
    assert len(prose.splitlines()) <= (170 if page.name == "README.md" else 150)


def test_the_readme_links_to_every_page() -> None:
    text = PAGES[0].read_text()
    assert [page.name for page in PAGES[1:] if f"](docs/{page.name})" not in text] == []


def commands(page: Path) -> list[tuple[str, list[str]]]:
    """The script and the words of each command of ours in a page's blocks."""
    blocks = re.findall(r"```console\n(.*?)```", page.read_text(), re.DOTALL)
    lines = [line.rpartition("&& ")[2] for block in blocks for line in block.splitlines()]
    found = [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("python src/")]
    return [(script, words) for script, *words in found]


# The examples of this page are tried as they are.
YOUR_OWN = ROOT / "docs" / "your-own.md"
ALL = [(page.name, *command) for page in PAGES if page != YOUR_OWN for command in commands(page)]
SHORT = {"sweep": "which", "data": "dataset"}


@pytest.mark.parametrize(("page", "script", "words"), ALL, ids=lambda value: str(value)[:40])
def test_every_documented_command_has_keys_and_values_that_exist(
    page: str, script: str, words: list[str]
) -> None:
    words = [word for word in words if not word.startswith("from=")]
    if "-m" in words:
        asked, *_ = begun(*arguments.rewritten(words, {}, (), True)[1:])
        assert asked.arms
    else:
        short = SHORT if script != "src/train.py" and script != "src/show.py" else {}
        compose(Path(script).stem, arguments.rewritten(words, short, ["clean"], False))


def test_the_commands_of_the_page_on_runs_work_one_after_the_other(outputs: Outputs) -> None:
    outputs.sweep(*QUICK, ARMS, "trials=2", "confirm=1")
    outputs.start(*QUICK, "seed=9", single=True).wait()
    (single,) = [signature for signature, run in outputs.runs.items() if not run.sweeps()]
    Image.new("L", (28, 28)).save(outputs.path / "digit.png")
    names = {"s574034e": outputs.definition["id"], "3f2a": single, "digit.png": f"{outputs.path}/digit.png"}
    listed = commands(ROOT / "docs" / "runs.md")
    assert len(listed) > 7
    for script, words in listed:
        for name, own in names.items():
            words = [word.replace(name, own) for word in words]
        answer = outputs.start(*words, script=script, single=True).wait()
        assert answer.status == 0, (script, words, answer)


def test_the_examples_of_your_own_parts_work_in_a_folder_that_has_only_their_files(tmp_path: Path) -> None:
    folder = tmp_path / "user"
    for name, content in re.findall(r"`([\w/.]+)`:\n\n```\w+\n(.*?)```", YOUR_OWN.read_text(), re.DOTALL):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    quick = (
        "tracking=none",
        "record.dir=outputs",
        "data.limit=100",
        "trainer.epochs=1",
        "record.pictures=none",
    )
    for script, words in commands(YOUR_OWN):
        here = partial(os.chdir, folder)
        answer = Command(folder, (*words, *quick), here, str(ROOT / script)).wait()
        assert answer.status == 0, (script, words, answer)
    assert len(list((folder / "outputs" / "runs").iterdir())) >= 8
