"""`python -m dora_train.report`: what differs, mean and spread over seeds, every format; from
stored files alone."""

from __future__ import annotations

import contextlib
import csv
import fcntl
import io
import json
import os
import pty
import re
import statistics
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest
from experiments import experiment, sweep
from project import ROOT

import dora_train.report
from dora_train.engine.errors import UserError
from dora_train.engine.experiment.folder import Experiment
from dora_train.engine.experiment.records import Job, RunState, State
from dora_train.engine.jobs.executor import JobInfo, Phase
from dora_train.engine.watch.live import Monitor
from dora_train.report.__main__ import main
from dora_train.report.report import Report
from dora_train.report.watch import watch


def report(out: Path, *args: str, code: int = 0, **env: str) -> str:
    """What the command prints, with the error where it fails."""
    done = subprocess.run(
        [sys.executable, "-m", "dora_train.report", *args],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, "DORA_DIR": str(out), "DORA_QUEUE": f"{out}.queue", **env},
        timeout=60,
    )
    assert done.returncode == code and "Traceback" not in done.stderr, done.stdout + done.stderr
    return done.stdout + done.stderr


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


# --- which experiments ---


def test_grids_and_signatures_mixed_each_once(tmp_path):
    made = sweep(tmp_path)
    other = experiment(tmp_path, {"tag": "other"})
    names = ["sweep", made[0].sig[:5], other.sig[:5]]
    assert len(Report(tmp_path, names).runs) == 10
    assert {run.sig for run in Report(tmp_path).runs} == {one.sig for one in [*made, other]}
    assert {tuple(run.grids) for run in Report(tmp_path).runs} == {("sweep",), ()}


def test_an_unknown_name_says_what_is_near(tmp_path):
    sweep(tmp_path)
    assert '"swep" is neither a grid nor a signature: did you mean sweep?' in report(
        tmp_path, "swep", code=1
    )
    assert 'there is no experiment "ffffffff"' in report(tmp_path, "ffffffff", code=1)
    assert "no experiment" in report(tmp_path / "empty", code=1)


def test_only_what_differs_is_a_column(tmp_path):
    sweep(tmp_path)
    [titles] = [line for line in report(tmp_path, "sweep").splitlines() if line.startswith("sig")]
    wanted = (
        "sig  best acc  test acc  when  took  lr  seed  epoch  best loss  best epoch  test loss"
    )
    assert re.split(r"\s{2,}", titles) == wanted.split("  ")
    assert "all: seed=0" in report(tmp_path, "sweep", "--where", "seed=0")


def test_what_a_choice_brings_along_is_no_column_and_an_edited_default_is(tmp_path):
    one = {"more": {"data.name": "cifar10", "data.batch_size": 128}}
    runs = [
        experiment(tmp_path, {"experiment": "cifar", "seed": 1}, **one),
        experiment(tmp_path, {"seed": 1}),
    ]
    assert list(Report(tmp_path, [run.sig for run in runs]).records()[0]["parameters"]) == [
        "experiment"
    ]
    edited = experiment(tmp_path, {"seed": 2}, more={"optim.lr": 0.3})
    names = [edited.sig, runs[1].sig]
    assert list(Report(tmp_path, names).records()[0]["parameters"]) == ["seed", "optim.lr"]


def test_one_and_one_point_zero_are_the_same_value(tmp_path):
    runs = [
        experiment(tmp_path, {"optim.lr": 1, "seed": 1}),
        experiment(tmp_path, {"optim.lr": 1.0, "seed": 2}),
    ]
    assert list(Report(tmp_path, [run.sig for run in runs]).records()[0]["parameters"]) == ["seed"]


@pytest.mark.parametrize(
    "conditions, left",
    [
        (["lr=0.01"], 3),
        (["optim.lr=0.01,0.02"], 6),
        (["lr>=0.02", "seed!=0"], 4),
        (["test.acc>0.89"], 3),
        (["state=completed"], 9),
        (["model=sm*"], 9),
        (["seed!=0,1"], 3),
        (["tag="], 9),
    ],
)
def test_where(tmp_path, conditions, left):
    sweep(tmp_path)
    assert len(Report(tmp_path, ["sweep"], conditions).runs) == left


@pytest.mark.parametrize(
    "conditions, said",
    [
        (["lr=7"], "optim.lr is 0.01, 0.02, 0.03"),
        (["lrr=1"], "did you mean lr?"),
        (["lr"], "a condition is KEY=VALUE"),
        (["loss=1"], '"loss" is train.loss or valid.loss'),
    ],
)
def test_where_that_means_nothing(tmp_path, conditions, said):
    sweep(tmp_path)
    with pytest.raises(UserError) as caught:
        Report(tmp_path, ["sweep"], conditions).runs  # noqa: B018
    assert said in str(caught.value)


def test_the_best_comes_first_and_what_is_not_finished_last(tmp_path):
    sweep(tmp_path)
    experiment(tmp_path, {"tag": "running"}, 0.999, State.INTERRUPTED, epochs=3, grid="sweep")
    runs = Report(tmp_path, ["sweep"]).runs
    best = [run.metrics["best.acc"] for run in runs[:-1]]
    assert best == sorted(best, reverse=True) and not runs[-1].finished
    assert [
        run.value("optim.lr") for run in Report(tmp_path, ["sweep"], sort="lr", reverse=True).runs
    ][:3] == [0.05, 0.03, 0.03]
    losses = [
        run.metrics["test.loss"] for run in Report(tmp_path, ["sweep"], sort="test.loss").runs[:-1]
    ]
    assert losses == sorted(losses)


def test_only_a_finished_run_can_be_the_best(tmp_path):
    sweep(tmp_path)
    running = experiment(tmp_path, {"tag": "running"}, 0.999, State.INTERRUPTED, grid="sweep")
    lines = {
        line[:8]: line for line in report(tmp_path, "sweep", "--metrics", "best.acc").splitlines()
    }
    assert "0.9790 " in lines[running.sig]
    assert sum("*" in line for line in lines.values()) == 1


# --- over seeds ---


def test_mean_spread_and_interval_over_seeds(tmp_path):
    sweep(tmp_path)
    for row in rows(report(tmp_path, "sweep", "--over", "seed", "--format", "csv")):
        found = [
            run.metrics["test.acc"]
            for run in Report(tmp_path, ["sweep"], [f"lr={row['optim.lr']}"]).runs
        ]
        mean, std = statistics.fmean(found), statistics.stdev(found)
        half = 4.302652729911275 * std / 3**0.5  # t(0.975, 2), as tables have it
        assert float(row["test.acc.mean"]) == pytest.approx(mean) and float(
            row["test.acc.std"]
        ) == pytest.approx(std)
        assert float(row["test.acc.low"]) == pytest.approx(mean - half)
        assert float(row["test.acc.high"]) == pytest.approx(mean + half)
        assert row["n"] == row["test.acc.n"] == "3" and row["unfinished"] == ""


def test_unfinished_runs_are_counted_and_marked_and_in_no_mean(tmp_path):
    made = sweep(tmp_path)
    state = made[0].state()
    state.state = State.INTERRUPTED
    made[0].write_state(state)
    experiment(
        tmp_path, {"optim.lr": 0.01, "seed": 9}, 0.1, State.FAILED, 2, "sweep", "out of memory"
    )
    [row] = [
        row
        for row in rows(report(tmp_path, "sweep", "--over", "seed", "--format", "csv"))
        if row["optim.lr"] == "0.01"
    ]
    assert row["n"] == "2" and row["unfinished"] == "1 interrupted, 1 failed"
    left = [made[at].result()["test"]["acc"] for at in (1, 2)]
    assert float(row["test.acc.mean"]) == pytest.approx(statistics.fmean(left))
    text = report(tmp_path, "sweep", "--over", "seed")
    assert (
        "1 interrupted, 1 failed" in text
        and "2 unfinished runs are not included in any mean" in text
    )


def test_one_seed_has_no_spread(tmp_path):
    sweep(tmp_path, seeds=1)
    [first, *_] = Report(tmp_path, ["sweep"], over=["seed"]).records()
    test = first["metrics"]["test.acc"]
    assert (first["n"], test["n"], test["std"], test["low"], test["high"]) == (
        1,
        1,
        None,
        None,
        None,
    )


def test_over_a_key_that_is_not_there(tmp_path):
    sweep(tmp_path)
    assert 'unknown key "sede": did you mean seed?' in report(
        tmp_path, "sweep", "--over", "sede", code=1
    )


# --- formats ---


def test_json_is_strict(tmp_path):
    experiment(tmp_path, {"seed": 1}, float("nan"))

    def refuse(word: str) -> None:
        raise AssertionError(word)

    [record] = json.loads(report(tmp_path, "--format", "json"), parse_constant=refuse)
    assert record["metrics"]["test.acc"] is None and record["parameters"] == {"seed": 1}


HOSTILE = "a|b & c_d%é $x$ {y} \\ <script>\n#"


def test_markdown_and_latex_escape(tmp_path):
    for tag in (HOSTILE, "plain"):
        experiment(tmp_path, {"tag": tag})
    markdown, latex = (
        report(tmp_path, "--format", "markdown"),
        report(tmp_path, "--format", "latex"),
    )
    assert "a\\|b & c\\_d%é $x$ {y} \\\\ \\<script\\> #" in markdown
    assert (
        r"a|b \& c\_d\%é \$x\$ \{y\} \textbackslash{} \textless{}script\textgreater{} \#" in latex
    )
    assert latex.count("\\\\\n") == 3 and "\\toprule" in latex and "\\bottomrule" in latex
    [row] = [row for row in rows(report(tmp_path, "--format", "csv")) if row["tag"] != "plain"]
    assert row["tag"] == HOSTILE


def test_the_best_is_bold_in_markdown_and_latex(tmp_path):
    sweep(tmp_path)
    assert report(tmp_path, "sweep", "--over", "seed", "--format", "markdown").count("**0.") == 2
    assert (
        report(tmp_path, "sweep", "--over", "seed", "--format", "latex").count(r"\textbf{0.") == 2
    )


def test_a_data_frame(tmp_path, monkeypatch):
    pandas = pytest.importorskip("pandas", reason="pip install pandas")
    sweep(tmp_path)
    monkeypatch.setenv("DORA_DIR", str(tmp_path))
    frame = dora_train.report.frame("sweep")
    assert isinstance(frame, pandas.DataFrame) and len(frame) == 9
    assert frame.groupby("optim.lr")["test.acc"].mean().idxmax() == 0.02
    assert list(dora_train.report.frame("sweep", over=["seed"])["n"]) == [3, 3, 3]


def test_a_data_frame_without_pandas(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(UserError, match="pip install -r requirements-extra.txt"):
        dora_train.report.frame()


def test_no_colour_in_a_pipe_and_no_line_is_cut(tmp_path):
    sweep(tmp_path)
    text = report(tmp_path, "sweep", FORCE_COLOR="1", COLUMNS="40")
    assert "\x1b" not in text and "0.9091*" in text


def test_a_reader_that_leaves_is_no_error(tmp_path):
    sweep(tmp_path, rates=100)
    command = f"{sys.executable} -m dora_train.report sweep --format json | head -1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, "DORA_DIR": str(tmp_path)},
    )
    assert done.stdout.splitlines() == ["[", "0"] and done.stderr == ""


def test_help_shows_examples():
    assert "python -m dora_train.report mysweep --over seed" in report(Path("unused"), "--help")
    assert "invalid choice" in report(Path("unused"), "--format", "xml", code=2)


# --- while they run, damaged, copied ---


@pytest.mark.parametrize(
    "name", ["birth.json", "state.json", "history.json", "result.json", ".argv.json"]
)
@pytest.mark.parametrize(
    "content", ["", "{", "[1]", "null", '{"best": 3, "test": [], "state": "odd", "delta": 1}']
)
def test_damaged_files_cost_their_cells_only(tmp_path, monkeypatch, capsys, name, content):
    made = sweep(tmp_path)
    (made[4].folder / name).write_text(content)
    monkeypatch.setenv("DORA_DIR", str(tmp_path))
    for options in ([], ["--over", "seed"]):
        main(["sweep", *options])
        assert len(capsys.readouterr().out.splitlines()) > 4
    main(["sweep", "--format", "csv"])
    assert made[4].sig in capsys.readouterr().out


def test_a_copy_on_another_machine(tmp_path):
    sweep(tmp_path / "here")
    (tmp_path / "here").rename(tmp_path / "there")
    assert len(rows(report(tmp_path / "there", "sweep", "--format", "csv"))) == 9


def test_an_experiment_of_stock_dora(tmp_path):
    folder = tmp_path / "xps" / "0a0b0c0d"
    folder.mkdir(parents=True)
    (folder / ".argv.json").write_text('["optim.lr=0.1", "model=big"]')
    (folder / "history.json").write_text('[{"loss": 0.5}, {"loss": 0.25}]')
    [record] = Report(tmp_path).records()
    assert record["parameters"] == {"optim.lr": 0.1, "model": "big"} and record["metrics"] == {
        "loss": 0.25
    }


def test_nothing_is_written(tmp_path):
    sweep(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    for options in ([], ["--over", "seed"], ["--format", "latex"], ["--watch"]):
        report(tmp_path, "sweep", *options)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
    assert not Path(f"{tmp_path}.queue").exists()


# --- two side by side ---


def test_what_differs_between_two(tmp_path):
    one, other = (
        experiment(tmp_path, {"optim.lr": 0.1}, 0.9),
        experiment(tmp_path, {"optim.lr": 0.3}, 0.8),
    )
    birth = json.loads((other.folder / "birth.json").read_text())
    birth["versions"]["torch"], birth["code"]["commit"] = "2.16.0", "fedcba9876543210"
    (other.folder / "birth.json").write_text(json.dumps(birth))
    lines = report(tmp_path, "--diff", other.sig[:6], one.sig[:6]).splitlines()
    # in the order of the command
    assert lines[0].startswith(other.sig) and lines[1].startswith(one.sig)
    assert [line.split() for line in lines if "->" in line][:3] == [
        ["optim.lr", "0.3", "->", "0.1"],
        ["commit", "fedcba987", "->", "012345678"],
        ["torch", "2.16.0", "->", "2.15.0"],
    ]
    assert any("test.acc" in line and "(+0.1)" in line for line in lines)
    assert "takes two signatures" in report(tmp_path, "--diff", one.sig, code=1)


# --- watching ---


def test_watching_says_what_changes_and_ends_with_the_table(tmp_path):
    sweep(tmp_path)
    moving = experiment(tmp_path, {"tag": "moving"}, 0.5, State.RUNNING, 2, "sweep")
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            f"""
import time
from pathlib import Path
from dora_train.engine.experiment import claims
from dora_train.engine.experiment.folder import Experiment
claims.claim(Experiment(Path({str(moving.folder)!r})))
print("claimed", flush=True)
time.sleep(60)
""",
        ],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout is not None and holder.stdout.readline() == "claimed\n"
    moving.write_state(RunState(State.RUNNING, attempt=2, epoch=2, epochs=5, started=1.0))
    process = subprocess.Popen(
        [sys.executable, "-m", "dora_train.report", "sweep", "--watch"],
        cwd=ROOT,
        text=True,
        stdout=subprocess.PIPE,
        env={**os.environ, "DORA_DIR": str(tmp_path)},
    )
    time.sleep(3)
    assert process.poll() is None
    holder.kill()
    holder.wait()
    output = process.communicate(timeout=30)[0]
    assert f"{moving.sig}  interrupted: its process is gone" in output
    assert output.count("10 XPs") == 1 and "\x1b" not in output


class Untouchable:
    """An executor that may be asked, and nothing else."""

    def answers_for(self, job):
        return True

    def jobs(self, job_ids, force=False):
        return {job_id: JobInfo(job_id, Phase.OVER, "COMPLETED") for job_id in job_ids}

    def __getattr__(self, name):
        raise AssertionError(f"{name} was called")


def test_watching_lets_no_job_start_and_ends_none(tmp_path, capsys):
    sweep(tmp_path)
    waiting = experiment(tmp_path, {"tag": "waiting"}, state=State.NEW, epochs=0, grid="sweep")
    waiting.intend_job(Job("token", "local", 1.0, number=1))
    waiting.record_job(1, "q1-1")
    runs = Report(tmp_path, ["sweep"]).runs
    assert [run.status.state for run in runs].count(State.WAITING) == 1
    watch("sweep", runs, Untouchable())
    assert (
        f"{waiting.sig}  interrupted: its job ended without reporting a result"
        in capsys.readouterr().out
    )


def test_the_command_that_watches_again(tmp_path, monkeypatch):
    sweep(tmp_path)
    seen = []
    monkeypatch.setattr(Monitor, "run", lambda monitor: seen.append(monitor.again))
    for names in ([], ["sweep"]):
        report = Report(tmp_path, names)
        watch(report.title, report.runs, None)
    assert [text.partition("-m ")[2] for text in seen] == [
        "dora_train.report --watch",
        "dora_train.report sweep --watch",
    ]


def on_terminal(out: Path, *args: str, term: str, lines: int = 24, columns: int = 90) -> str:
    """What the command writes to a terminal of that size."""
    control, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
    env = {
        key: value
        for key, value in os.environ.items()
        if key not in ("COLUMNS", "LINES", "NO_COLOR")
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "dora_train.report", *args],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=terminal,
        env={**env, "DORA_DIR": str(out), "TERM": term},
    )
    os.close(terminal)
    written = b""
    with contextlib.suppress(OSError):  # the terminal is gone with its process
        while piece := os.read(control, 65536):
            written += piece
    os.close(control)
    assert process.wait() == 0
    return written.decode()


def test_on_a_terminal_the_live_table_is_no_higher_than_it_and_all_comes_at_the_end(tmp_path):
    sweep(tmp_path, rates=20)
    text = on_terminal(tmp_path, "sweep", "--watch", term="xterm-256color")
    first = text.partition("\x1b[2K")[0]
    assert first.count("\n") < 24 and "and 43 completed" in first and "\x1b[1m" in first
    last = text.rpartition("60 XPs")[2]
    assert last.count("completed") == 61  # and once in the heading
    assert (
        max(
            len(re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", line).rstrip())
            for line in text.split("\r\n")[:20]
        )
        <= 90
    )


def test_where_it_is_narrow_the_verdict_stays_and_words_are_not_cut(tmp_path):
    sweep(tmp_path)
    text = on_terminal(tmp_path, "sweep", "--over", "seed", term="xterm-256color", columns=50)
    lines = [re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", line).rstrip() for line in text.split("\r\n")]
    words = [line.split()[-1] for line in lines if line.startswith("0.0")]
    assert words == ["best", "worse", "worse"]
    assert "too narrow for: best acc, 95%, behind" in lines and max(map(len, lines)) <= 50
    assert "lr=0.02 is better than both other settings." in lines


def test_a_dumb_terminal_gets_plain_lines(tmp_path):
    sweep(tmp_path, rates=20)
    text = on_terminal(tmp_path, "sweep", "--watch", term="dumb")
    assert "\x1b" not in text and text.count("60 XPs") == 1


def test_a_store_without_experiments_is_left_alone(tmp_path):
    assert not Experiment(tmp_path / "xps" / "00000000").exists()
    report(tmp_path, code=1)
    assert list(tmp_path.iterdir()) == []
