"""Dora's documented API, name by name: each does here what its documentation says, or is refused by
name.

The names are those of Dora's README and of the docstrings it points to (dora-search 0.1.13).
`TABLE` says where each is tested; what a run sees is checked from inside `main`, the rest in a
Python of its own, as in a notebook.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import dora
import dora.conf
import dora.distrib
import dora.explore
import dora.git_save
import dora.grid
import dora.log
import dora.main
import dora.shep
import dora.xp
import pytest
from forked import Run
from grid_project import Machine
from project import QUICK, ROOT, Project

from dora_train.engine.dora.main import TrainMain

RUN, NOTEBOOK, REFUSED, ELSEWHERE = "inside a run", "in a notebook", "refused by name", "elsewhere"
TABLE = {
    (dora, "get_xp"): RUN,
    (dora, "is_xp"): RUN,
    (dora, "Link"): RUN,
    (dora, "to_absolute_path"): RUN,
    (dora, "hydra_main"): ELSEWHERE,  # ours has its name: every test of `dora run`
    (dora, "argparse_main"): ELSEWHERE,  # for projects without Hydra
    (dora, "Explorer"): NOTEBOOK,
    (dora, "Launcher"): NOTEBOOK,
    (dora, "Sheep"): NOTEBOOK,
    (dora, "XP"): RUN,
    (dora.xp.XP, "folder"): RUN,
    (dora.xp.XP, "code_folder"): RUN,
    (dora.xp.XP, "history"): RUN,
    (dora.xp.XP, "submitit"): RUN,
    (dora.xp.XP, "rendezvous_file"): RUN,
    (dora.xp.XP, "enter"): NOTEBOOK,
    (dora.Link, "load"): RUN,
    (dora.Link, "push_metrics"): REFUSED,
    (dora.Link, "update_history"): REFUSED,
    **{
        (dora.distrib, name): RUN
        for name in (
            "get_distrib_spec",
            "set_distrib_env",
            "init",
            "is_master",
            "rank",
            "world_size",
        )
    },
    **{
        (TrainMain, name): NOTEBOOK
        for name in (
            "get_xp",
            "get_xp_from_sig",
            "get_xp_from_argv",
            "get_argv_from_sig",
            "get_xp_history",
            "get_name",
            "get_names",
            "get_name_parts",
            "short_name_part",
            "value_to_argv",
            "get_slurm_config",
            "init_xp",
        )
    },
    **{
        (dora.Launcher, name): ELSEWHERE
        for name in ("bind", "bind_", "slurm", "slurm_", "job_array")
    },
    **{
        (dora.Explorer, name): ELSEWHERE
        for name in (  # test_table.py
            "get_grid_metrics",
            "get_grid_meta",
            "get_colors",
            "process_sheep",
            "process_history",
        )
    },
    (dora.grid, "run_grid"): NOTEBOOK,
    (dora.grid, "RunGridArgs"): NOTEBOOK,
    (dora.grid, "monitor"): NOTEBOOK,
    (dora.conf, "SubmitRules"): NOTEBOOK,
    (dora.conf, "SlurmConfig"): NOTEBOOK,
    (dora.conf, "DoraConfig"): ELSEWHERE,  # its keys: test_errors.py
    **{(dora.Sheep, name): NOTEBOOK for name in ("state", "is_done", "log", "current_job_id")},
    **{
        (dora.shep.Shepherd, name): NOTEBOOK
        for name in (
            "get_sheep_from_argv",
            "get_sheep_from_sig",
            "get_sheep_from_job_id",
            "update",
            "job_array",
            "maybe_submit_lazy",
            "cancel_lazy",
            "commit",
        )
    },
    (dora.shep, "register_preemption_callaback"): REFUSED,
    **{(dora.log, name): RUN for name in ("LogProgress", "bold", "red", "simple_log")},
}


def public(owner: object) -> set[str]:
    """What a class of Dora offers."""
    return {name for name, value in vars(owner).items() if not name.startswith("_")}


def test_every_documented_name_is_in_the_table():
    for owner in (dora.Explorer, dora.Launcher, dora.Sheep, dora.shep.Shepherd, dora.Link):
        known = {name for one, name in TABLE if one is owner}
        assert public(owner) <= known, owner
    assert {
        name
        for name in vars(dora.distrib)
        if callable(vars(dora.distrib)[name]) and not name.startswith("_")
    } - {"namedtuple", "DistribSpec", "get_xp"} == {
        name for one, name in TABLE if one is dora.distrib
    }
    for owner, name in TABLE:
        assert hasattr(owner, name), (owner, name)


# --- inside a run ---

INSIDE = """
import logging
import os
from pathlib import Path

import dora
import dora.distrib
import dora.log
from dora import get_xp, is_xp, to_absolute_path
from dora.distrib import get_distrib_spec, init, is_master, rank, set_distrib_env, world_size
from dora.shep import register_preemption_callaback

from dora_train.engine.errors import UserError


def refused(call, *args):
    try:
        call(*args)
    except UserError as error:
        return str(error)
    raise AssertionError(f"{call} is not refused")


def before(cfg):
    xp = get_xp()
    assert is_xp() and isinstance(xp, dora.XP) and xp.cfg.seed == cfg.seed and len(xp.sig) == 8
    assert xp.folder == Path(os.environ["DORA_DIR"]) / "xps" / xp.sig and xp.folder.is_dir()
    assert xp.history == xp.folder / "history.json" and xp.submitit.parent == xp.folder
    assert xp.rendezvous_file.parent == xp.folder and Path(xp.code_folder, "dora_train").is_dir()
    assert "debug=fast" in xp.argv and ("debug", "fast") in map(tuple, xp.delta)
    xp.link.load()
    assert isinstance(xp.link, dora.Link)
    assert "push_metrics" in refused(xp.link.push_metrics, {"loss": 1.0})
    assert "self.log" in refused(xp.link.update_history, [])
    assert "on_exception" in refused(register_preemption_callaback, print)
    assert to_absolute_path("some/file") == str(Path.cwd() / "some/file")
    loader = dora.log.LogProgress(logging.getLogger("dora_train"), range(3), updates=1)
    assert [step for step in loader] == [0, 1, 2] and "x" in dora.log.bold("x") + dora.log.red("y")
    ranks = int(os.environ.get("WORLD_SIZE", 1))
    assert (world_size(), rank(), is_master()) == (ranks, int(os.environ.get("RANK", 0)), rank() == 0)
    spec = get_distrib_spec()
    assert (spec.rank, spec.world_size, spec.local_rank, spec.num_nodes) == (rank(), ranks, rank(), 1)
    set_distrib_env()
    init()
    dora.distrib.init(backend="gloo")
    return len(xp.link.history)


def after():
    history = get_xp().link.history
    assert len(history) == 2 and all({"train", "valid"} == set(entry) for entry in history)
"""


@pytest.fixture
def inside(tmp_path: Path) -> Project:
    """A project whose `main` calls all of it, before the training and after it."""
    project = Project.copy(tmp_path)
    (project.root / "inside.py").write_text(INSIDE)
    project.edit(
        "dora_train/train.py",
        '    seed_all("weights", cfg.seed)\n',
        '    import inside\n\n    print("entries:", inside.before(cfg))\n'
        '    seed_all("weights", cfg.seed)\n',
    )
    project.edit(
        "dora_train/train.py",
        "    return train(module, data, cfg)",
        "    result = train(module, data, cfg)\n    inside.after()\n    return result",
    )
    return project


def said(project: Project, *args: str, code: int = 0) -> str:
    run = Run(project, *args)
    assert run.wait() == code, run.text
    return run.text


@pytest.mark.slow
def test_inside_a_run(inside: Project):
    assert "entries: 0" in said(inside, "run", *QUICK)
    history = inside.xp.history()
    (inside.xp.folder / "state.json").unlink()  # as if it had been killed in its test
    assert "entries: 2" in said(inside, "run", *QUICK), "the history so far"
    assert inside.xp.history() == history


@pytest.mark.slow
def test_inside_two_ranks(inside: Project):
    output = inside.dora("run", "-d", "--ddp_workers", "2", *QUICK, "trainer.accelerator=cpu")
    assert "2 ranks" in output and len(inside.xp.history()) == 2
    assert "entries: 0" in inside.xp.worker_log(1).read_text()


def test_what_pushes_metrics_fails_with_what_to_do_instead(inside: Project):
    inside.edit(
        "dora_train/train.py",
        "    inside.after()\n",
        '    from dora import get_xp\n\n    get_xp().link.push_metrics({"late": 1})\n',
    )
    output = said(inside, "run", *QUICK, code=1)
    assert "xp.link.push_metrics() is not supported" in output and "Traceback" not in output
    assert (
        len(inside.xp.history()) == 2
        and "late" not in (inside.xp.folder / "history.json").read_text()
    )


# --- in a notebook ---

NOTEBOOK_CELL = """
import inspect, json, sys, time
from dora.conf import SlurmConfig, SubmitRules
from dora.grid import RunGridArgs, monitor, run_grid
from dora.shep import Sheep, Shepherd
import dora.main
from dora import Explorer, get_xp
signature = str(inspect.signature(run_grid))

from dora_train.train import main  # after Dora, as in many notebooks

@Explorer
def explorer(launcher):
    launcher.slurm_(setup=["sleep 3000"])
    launcher.bind({"debug": "fast"})(seed=1)
    launcher(debug="fast", seed=2)

assert str(inspect.signature(run_grid)) == signature
args = RunGridArgs(monitor=False, silent=True)
sheep = run_grid(main, explorer, grid_name="jupy", args=args)
assert len(run_grid(main, explorer, "jupy", SubmitRules(retry=True), args=args)) == 2
jobs = sorted((main.dora.dir / "xps").glob("*/jobs/*.id.json"))
assert len(jobs) == 2, "each is submitted once"
assert (main.dora.dir / "grids" / ".jupy.json").exists(), "this project's run_grid, not stock Dora's"

first = sheep[0]
assert not first.is_done() and first.state() in ("PENDING", "RUNNING") and first.state("cache")
assert first.job.job_id == first.job_id == first.current_job_id and "Sheep(" in repr(first)
assert first.log is None or first.log.exists()
lines = []
assert not monitor(args, main, explorer, sheep, lambda *words: lines.append(words)) and lines

made = Sheep(main.get_xp(["debug=fast", "seed=1"]))
assert made.xp.sig == first.xp.sig and made.job_id == first.job_id and not made.is_done()
said = []
shepherd = Shepherd(main, log=said.append)
assert shepherd.get_sheep_from_sig(first.xp.sig[:6]).xp.sig == first.xp.sig
assert shepherd.get_sheep_from_job_id(first.job_id).xp.sig == first.xp.sig
assert shepherd.get_sheep_from_sig("00000000") is None and shepherd.get_sheep_from_job_id("0") is None
again = shepherd.get_sheep_from_argv(["debug=fast", "seed=1"])
slurm = main.get_slurm_config()
slurm.setup = ["sleep 3000"]
shepherd.maybe_submit_lazy(again, slurm, SubmitRules())
with shepherd.job_array(slurm):
    for seed in (3, 4):
        shepherd.maybe_submit_lazy(shepherd.get_sheep_from_argv(["debug=fast", f"seed={seed}"]), slurm, SubmitRules())
shepherd.commit()
jobs = sorted((main.dora.dir / "xps").glob("*/jobs/*.id.json"))
ids = {json.loads(job.read_text())["job_id"].partition("_")[0] for job in jobs}
assert len(jobs) == 4 and len(ids) == 3, "what is there is not submitted again; two are an array"
shepherd.cancel_lazy(sheep=again)
shepherd.cancel_lazy(job=again.job)
shepherd.commit()
shepherd.update()
assert any("cancelled job" in line for line in said), said
end = time.monotonic() + 60
while not first.is_done():
    assert time.monotonic() < end
    time.sleep(0.2)
assert first.state() == "CANCELLED" and made.is_done("force")
assert not sheep[1].is_done()

xp = main.get_xp_from_sig(first.xp.sig)
other = main.get_xp_from_argv(xp.argv + ["seed=5"])
assert other.sig != xp.sig and main.get_argv_from_sig(xp.sig) == xp.argv
assert "seed=5" in main.get_name(other) and main.get_xp_history(xp) == []
names, base = main.get_names([one.xp for one in sheep])
assert names == ["seed=1", "seed=2"] and base == "debug=fast"
assert main.short_name_part("optim.lr", 0.1) == "opt.lr=0.1" and dict(main.get_name_parts(xp))["seed"] == 1
assert main.value_to_argv([{"optim.lr": 0.1}, "a=1"]) == ["optim.lr=0.1", "a=1"]
assert isinstance(main.get_slurm_config(), SlurmConfig)
with other.enter():
    assert get_xp() is other
assert main.init_xp(other) is other and other.folder.is_dir()
print("all of it")
"""


@pytest.mark.slow
def test_in_a_notebook_that_imports_dora_first(tmp_path: Path, machine: Machine):
    env = {
        **os.environ,
        **machine.env,
        "DORA_DIR": str(tmp_path / "outputs"),
        "PYTHONPATH": str(ROOT),
    }
    done = subprocess.run(
        [sys.executable, "-c", NOTEBOOK_CELL],
        cwd=ROOT,
        env=env,
        text=True,
        capture_output=True,
        timeout=240,
    )
    assert done.stdout.endswith("all of it\n"), done.stdout + done.stderr


OTHERS = """
import argparse, json
from dora import Explorer, argparse_main
from dora.distrib import get_distrib_spec, rank, world_size
from dora.grid import RunGridArgs, run_grid
from dora.shep import Shepherd
import dora_train.train  # both in one process

@argparse_main(parser=argparse.ArgumentParser(), dir="{folder}")
def main():
    pass

shepherd = Shepherd(main)
sheep = shepherd.get_sheep_from_argv([])
assert type(shepherd) is Shepherd and type(sheep).__module__ == "dora.shep"
assert get_distrib_spec().source in ("env", "empty") and (rank(), world_size()) == (0, 1)
assert run_grid(main, Explorer(lambda launcher: None), "empty", args=RunGridArgs(silent=True)) == []
main.init_xp(sheep.xp)
sheep.xp.link.push_metrics({{"loss": 1}})
print(sheep.xp.link.history)
"""


@pytest.mark.slow
def test_another_project_in_the_same_process_keeps_stock_dora(tmp_path: Path):
    done = subprocess.run(
        [sys.executable, "-c", OTHERS.format(folder=tmp_path)],
        cwd=ROOT,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "DORA_DIR": str(tmp_path / "ours")},
        capture_output=True,
    )
    assert done.stdout == "[{'loss': 1}]\n", done.stderr


def test_an_experiment_of_stock_dora_has_a_name_and_values(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    from dora_train.train import main

    monkeypatch.setattr(main.dora, "dir", tmp_path)
    for sig, argv in (("0123abcd", ["optim.lr=0.3"]), ("0123abce", ["gone.key=1"])):
        folder = tmp_path / "xps" / sig
        folder.mkdir(parents=True)
        (folder / ".argv.json").write_text(json.dumps(argv))
    known, unknown = (main.get_xp_from_sig(sig) for sig in ("0123abcd", "0123abce"))
    assert (
        known.sig == "0123abcd"
        and known.cfg.optim.lr == 0.3
        and main.get_name(known) == "opt.lr=0.3"
    )
    assert unknown.values == {} and main.get_name(unknown) == "gon.key=1"
