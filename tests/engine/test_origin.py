"""`continue_from`: an experiment that begins with the weights of another, or of a file."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from forked import Run
from project import QUICK, Project, same_run, sig_of, stored, weights

from dora_train.engine.experiment.folder import Experiment

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project with one finished experiment."""
    project = Project(tmp_path_factory.mktemp("finished") / "outputs")
    project.dora("run", *QUICK)
    return project


@pytest.fixture(scope="module")
def source(finished: Project) -> Experiment:
    return finished.xp


def test_best_or_last_or_a_file_and_its_hash(finished: Project, source: Experiment, tmp_path: Path):
    sigs = set()
    for given, path in [
        (source.sig, source.best_checkpoint),
        (f"{source.sig}:last", source.last_checkpoint),
        (str(tmp_path / "weights of mine.pt"), tmp_path / "weights of mine.pt"),
    ]:
        if not path.exists():
            state = weights(source.best_checkpoint)
            torch.save({key.removeprefix("model."): value for key, value in state.items()}, path)
        output = finished.dora(
            "run", *QUICK, f"continue_from='{given}'", "optim.lr=0", "optim.weight_decay=0"
        )
        assert f"starts from {given}, {path.name}" in output
        sigs.add(sig_of(output))
        made = Experiment(source.folder.with_name(sig_of(output)))
        content = torch.load(path, weights_only=True)
        wanted = (
            content["state_dict"]["model.5.weight"]
            if "state_dict" in content
            else content["5.weight"]
        )
        assert weights(made.last_checkpoint)["model.5.weight"].equal(wanted)
        assert len(stored(made.folder / "birth.json")["origin"]["sha256"]) == 64
    assert len(sigs) == 3 and source.sig not in sigs, "what it starts from counts"


def test_a_head_that_does_not_fit_is_left_out(
    finished: Project, tmp_path: Path, source: Experiment
):
    state = weights(source.best_checkpoint)
    state["model.5.weight"], state["model.5.bias"] = torch.zeros(3, 64), torch.zeros(3)
    torch.save({"state_dict": state}, tmp_path / "other.ckpt")
    output = finished.dora("run", *QUICK, f"continue_from={tmp_path}/other.ckpt")
    assert "not taken, other shapes: model.5\n" in output


def test_what_cannot_be_started_from(finished: Project, source: Experiment, tmp_path: Path):
    (tmp_path / "text.ckpt").write_text("no weights")
    torch.save({"a": torch.zeros(1)}, tmp_path / "foreign.ckpt")
    process = Run(finished, "run", *QUICK, "tag=unfinished", fault=("train", 6))
    process.wait()
    unfinished = sig_of(process.text)
    for given, message in [
        (unfinished, f"continue_from={unfinished}: XP {unfinished} is not finished (running)."),
        (
            "nothing.ckpt",
            "continue_from=nothing.ckpt: there is no such file, and it is no signature.",
        ),
        (source.sig[:6], f"write all eight letters, as it becomes part of a name: {source.sig}"),
        (f"{tmp_path}/text.ckpt", "text.ckpt holds no weights that can be read"),
        (f"{tmp_path}/foreign.ckpt", "no weight in it fits this network"),
    ]:
        output = finished.dora("run", *QUICK, f"continue_from={given}", code=1)
        assert message in output and "Traceback" not in output, output


def test_other_weights_than_the_best_are_not_taken_for_them(tmp_path: Path):
    """Another epoch in `best.ckpt`, none at all, or one bit that is another: torch's reader would
    not see that."""
    from dora_train.engine.errors import UserError
    from dora_train.engine.experiment.origin import locate
    from dora_train.engine.experiment.records import RunState, State
    from dora_train.engine.run.start import read_weights, refuse_other_epoch

    xp = Experiment(tmp_path / "5f3a91c2")
    xp.write_state(RunState(State.COMPLETED))
    xp.write_result({"best": {"epoch": 5, "value": 0.5}, "test": {}, "epochs": 9})
    torch.save({"state_dict": {"w": torch.ones(1000)}, "epoch": 8}, xp.last_checkpoint)
    with pytest.raises(UserError, match="XP 5f3a91c2 has no best.ckpt any more"):
        locate(xp.sig, lambda sig: xp)
    assert locate(f"{xp.sig}:last", lambda sig: xp) == xp.last_checkpoint
    torch.save({"state_dict": {"w": torch.ones(1000)}, "epoch": 7}, xp.best_checkpoint)
    path = locate(xp.sig, lambda sig: xp)
    assert path == xp.best_checkpoint
    with pytest.raises(UserError, match="its best is epoch 5, but best.ckpt holds epoch 8"):
        refuse_other_epoch(xp.sig, path, lambda sig: xp)
    torch.save({"state_dict": {"w": torch.ones(1000)}, "epoch": 4}, path)
    refuse_other_epoch(xp.sig, path, lambda sig: xp)
    assert read_weights(path)["w"].sum() == 1000
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match="it is damaged"):
        read_weights(path)


def test_killed_before_its_first_checkpoint_it_is_the_same(
    finished: Project, source: Experiment, tmp_path: Path
):
    """Also that the file it began with is not needed once there is a checkpoint, and not replaced
    in silence before."""
    start = tmp_path / "start.ckpt"
    start.write_bytes(source.best_checkpoint.read_bytes())
    args = ["run", *QUICK, f"continue_from={start}"]
    killed, undisturbed = Project(tmp_path / "killed"), Project(tmp_path / "undisturbed")
    undisturbed.dora(*args)
    assert Run(killed, *args, fault=("train", 2)).wait() == -9
    start.write_bytes(source.last_checkpoint.read_bytes())
    assert "start.ckpt is another file than when" in killed.dora(*args, code=1)
    start.write_bytes(source.best_checkpoint.read_bytes())
    assert Run(killed, *args, fault=("train", 6)).wait() == -9
    killed.dora(*args)
    same_run(killed.xp, undisturbed.xp)
