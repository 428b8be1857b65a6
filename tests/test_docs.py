"""The README is short, and its pages are linked and complete."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_relative_link_and_picture_exists(page: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text())
    broken = [link for link in links if "://" not in link and not (page.parent / link).exists()]
    assert not broken


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_page_is_longer_than_a_reader_has_time_for(page: Path) -> None:
    assert len(page.read_text().splitlines()) <= (170 if page.name == "README.md" else 150)


def test_the_readme_links_to_every_page() -> None:
    text = PAGES[0].read_text()
    assert [page.name for page in PAGES[1:] if f"](docs/{page.name})" not in text] == []
