"""A signature names one experiment: what happens where it would name two, and where the
configuration has moved on."""

from __future__ import annotations

import signal

import pytest
from project import QUICK, Project, sig_of

TWINS = ("seed=74759", "seed=77789")  # by chance both are 3eb933f3
GRID = (
    '"""Two of one name?"""\nfrom ._explorers import ClassifierExplorer\n\n\n@ClassifierExplorer\n'
    'def explorer(launcher):\n    launcher("seed=74759")\n    launcher("seed=77789")\n'
)


@pytest.mark.slow
def test_two_experiments_of_one_signature_are_not_mixed(copy: Project):
    copy.killed("run", TWINS[0], epoch=1, signum=signal.SIGTERM)
    before = copy.xp.history()
    output = copy.dora("run", TWINS[1], code=1)
    assert output.startswith("XP 3eb933f3 is the name of another experiment already: seed=74759.")
    assert "tag=WORD" in output and copy.xp.history() == before
    (copy.root / "grids" / "twins.py").write_text(GRID)
    output = copy.dora("grid", "twins", "--dry_run", code=1)
    assert output.startswith(
        "grids/twins.py:8: XP 3eb933f3 is the name of another experiment already: seed=74759."
    )


@pytest.mark.slow
def test_a_key_that_came_since_is_a_line_and_no_stop(copy: Project):
    argv = ["data.batch_size=16", "trainer.max_epochs=3", "threads=1"]
    copy.killed("run", *argv, epoch=1, signum=signal.SIGTERM)
    copy.edit("conf/engine.yaml", "stop_on_nan: true", "novelty: 3\nstop_on_nan: true")
    output = copy.dora("run", *argv)
    assert (
        "new config keys since this experiment was created (using their defaults): novelty=3\n"
        in output
    )
    assert "resumes at epoch" in output and "finished" in output
    copy.edit("conf/engine.yaml", "novelty: 3", "novelty: 4")
    assert "was made when novelty was 3; it is 4 now" in copy.dora("run", *argv, code=1), (
        "it has run with 3 by now"
    )


@pytest.mark.slow
def test_a_key_that_is_gone_is_another_meaning(copy: Project):
    sig = sig_of(copy.dora("run", *QUICK))
    copy.edit("conf/engine.yaml", "channels_last: false ", "#")
    output = copy.dora("run", *QUICK, code=1)
    assert output.startswith(
        f"XP {sig} was made when channels_last was False; it is gone: not the same experiment."
    )


@pytest.mark.slow
def test_a_grid_marks_what_would_mean_something_else_and_goes_on_with_the_rest(copy: Project):
    copy.env |= {"DORA_CLUSTER": "local", "OMP_NUM_THREADS": "1"}
    grid = copy.root / "grids" / "old.py"
    grid.write_text(
        GRID.replace("74759", "1")
        .replace("77789", "2")
        .replace("launcher(", 'launcher("debug=fast", ')
    )
    sig = sig_of(copy.dora("run", "debug=fast", "seed=1"))
    copy.edit("conf/task/images.yaml", "momentum: 0.9 ", "momentum: 0.95 ")
    output = copy.dora("grid", "old", code=1)
    assert f"= {sig}" in output and "drifted: optim.momentum was 0.9; it is 0.95 now" in output
    assert len(copy.experiments()) == 2 and "2 completed" in output
    copy.env["DORA_DRIFT"] = "old"
    assert "drifted" not in copy.dora("grid", "old")
