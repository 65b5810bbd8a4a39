"""The lessons: each page shows the grid that ships, and each grid can be run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from project import ROOT, Project

PAGES = sorted((ROOT / "docs" / "lessons").glob("*.md"))
GRIDS = ROOT / "grids" / "lessons"


def test_there_is_a_page_for_each_grid():
    names = [path.stem for path in GRIDS.glob("*.py") if path.stem != "__init__"]
    assert [page.stem for page in PAGES] == sorted(names) and len(names) == 5


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_is_short_and_shows_its_grid(page: Path):
    text = page.read_text(encoding="utf-8")
    grid = (GRIDS / f"{page.stem}.py").read_text(encoding="utf-8")
    assert f"```python\n{grid}```\n" in text, "python docs/lessons/make.py writes it"
    assert len(text.splitlines()) <= 60 and len(grid.splitlines()) <= 20
    assert page.with_suffix(".png").exists() and f"]({page.stem}.png)" in text
    assert re.search(r"It took \d+\.\d minutes", text)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_grid_can_be_run_again(page: Path, project: Project):
    plan = project.dora("grid", f"lessons.{page.stem}", "--dry_run")
    assert int(re.search(r"\+ (\d+) new", plan)[1]) >= 60, plan
