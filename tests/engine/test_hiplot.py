"""HiPlot: our static page, and Dora's server on our experiments."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import browser
import pytest
from experiments import experiment, sweep
from project import ROOT, Project

from dora_train.engine.errors import UserError
from dora_train.engine.experiment.records import State
from dora_train.report.hiplot import page
from dora_train.report.report import Report

SCRIPT = "<script>alert(1)</script>"
LOAD = """
import json, sys
import dora.hiplot
loaded = dora.hiplot.load(sys.argv[1])  # as `python -m hiplot dora.hiplot.load` calls it
loaded.validate()
print(json.dumps([point.values for point in loaded.datapoints], allow_nan=False))
"""


@pytest.fixture
def hiplot():
    return pytest.importorskip("hiplot", reason="pip install -r requirements-extra.txt")


@pytest.mark.slow
def test_the_static_page_opens_and_text_stays_text(tmp_path: Path, hiplot):
    if browser.missing():
        pytest.skip(browser.missing())
    sweep(tmp_path)
    experiment(tmp_path, {"tag": SCRIPT}, float("nan"), State.COMPLETED, grid="sweep")
    file = tmp_path / "hiplot.html"
    file.write_text(page(Report(tmp_path, ["sweep"])), encoding="utf-8")
    with browser.opened() as tab:
        opened = tab.open(file)
        opened.wait_for_selector("text=test.acc")
        assert not [line for line in tab.trouble if "dialog" in line or "SyntaxError" in line]
        assert opened.locator("text=‹script›alert(1)").count()


def test_without_hiplot_it_says_how_to_get_it(tmp_path: Path, monkeypatch):
    sweep(tmp_path)
    monkeypatch.setitem(sys.modules, "hiplot", None)
    with pytest.raises(UserError, match="requirements-extra.txt"):
        page(Report(tmp_path, ["sweep"]))


@pytest.mark.slow
def test_doras_server_loads_our_experiments(tmp_path: Path, hiplot):
    project = Project(tmp_path / "outputs")
    sweep(project.out)
    odd = experiment(
        project.out, {"~loss.label_smoothing": None, "optim.lr": 0.5}, float("nan"), grid="sweep"
    )
    experiment(project.out, {"data.batch_size": 32}, epochs=0, state=State.RUNNING, grid="sweep")
    for query, points in (("sweep", 50), (f"sweep {odd.sig} explorer=LastEpoch", 10)):
        done = subprocess.run(
            [sys.executable, "-c", LOAD, query],
            cwd=ROOT,
            capture_output=True,
            text=True,
            env={**os.environ, **project.env, "PYTHONPATH": str(ROOT)},
        )
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout)
        assert len(found) == points
        assert {point["sig"] for point in found} >= {odd.sig} and all(
            "valid.acc" in point for point in found
        )
