"""TensorBoard shows each run once, continuous and with its values, through its own reader; wandb
goes on in place."""

from __future__ import annotations

import os
import signal
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from project import QUICK, Project

from dora_train.engine.run.loggers import in_order, lightning_loggers

RUN = ["trainer.max_epochs=30", "threads=1", "trainer.accelerator=cpu"]


def multiplexer(folder: Path):
    from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer

    found = EventMultiplexer()
    found.AddRunsFromDirectory(str(folder))
    found.Reload()
    return found


def hparams_tab(folder: Path) -> list[tuple[dict, dict]]:
    """What TensorBoard's HPARAMS tab lists: (values, metrics) of each run."""
    from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
    from tensorboard.context import RequestContext
    from tensorboard.plugins.base_plugin import TBContext
    from tensorboard.plugins.hparams import (
        api_pb2,
        backend_context,
        get_experiment,
        list_session_groups,
    )

    provider = MultiplexerDataProvider(multiplexer(folder), str(folder))
    context = backend_context.Context(TBContext(data_provider=provider))
    request, experiment = RequestContext(), ""
    info = get_experiment.Handler(
        request, context, experiment, api_pb2.GetExperimentRequest()
    ).run()
    columns = [
        api_pb2.ColParams(hparam=one.name, include_in_result=True) for one in info.hparam_infos
    ]
    columns += [
        api_pb2.ColParams(metric=one.name, include_in_result=True) for one in info.metric_infos
    ]
    asked = api_pb2.ListSessionGroupsRequest(
        col_params=columns,
        start_index=0,
        slice_size=100,
        allowed_statuses=[
            api_pb2.STATUS_UNKNOWN,
            api_pb2.STATUS_SUCCESS,
            api_pb2.STATUS_FAILURE,
            api_pb2.STATUS_RUNNING,
        ],
    )
    groups = list_session_groups.Handler(request, context, experiment, asked).run().session_groups
    return [
        (
            {key: getattr(value, value.WhichOneof("kind")) for key, value in group.hparams.items()},
            {
                f"{one.name.group}/{one.name.tag}".strip("/"): one.value
                for one in group.metric_values
            },
        )
        for group in groups
    ]


@pytest.mark.slow
def test_each_run_once_continuous_over_a_resume_and_with_its_values(project: Project):
    project.killed("run", "optim.lr=0.2", *RUN, epoch=3, signum=signal.SIGKILL)
    project.dora("run", "optim.lr=0.2", *RUN)
    project.dora("run", "optim.lr=0.1", *QUICK)
    grid = project.out / "grids" / "mine"
    grid.mkdir(parents=True)
    for xp in project.experiments():
        (grid / xp.sig).symlink_to(os.path.join("..", "..", "xps", xp.sig))
    for folder in (project.out / "xps", grid):
        found = multiplexer(folder)
        assert sorted(found.Runs()) == [xp.sig for xp in project.experiments()]
        for xp in project.experiments():
            steps = [event.step for event in found.Tensors(xp.sig, "valid/acc")]
            assert len(steps) == len(xp.history()) and steps == sorted(set(steps))
    tab = {round(values["optim.lr"], 3): (values, metrics) for values, metrics in hparams_tab(grid)}
    assert sorted(tab) == [0.1, 0.2]
    values, metrics = tab[0.2]
    assert (
        values["model"] == "small"
        and values["trainer.max_epochs"] == 30
        and values["tag"] == "None"
    )
    [long] = [xp for xp in project.experiments() if len(xp.history()) == 30]
    assert metrics["valid/acc"] == pytest.approx(long.history()[-1]["valid"]["acc"])


def test_no_file_of_hyper_parameters_if_a_module_saved_none(tmp_path: Path):
    [logger] = lightning_loggers(["tensorboard"], tmp_path, 0)
    logger.log_metrics({"loss": 1.0}, step=1)
    logger.save()
    logger.finalize("success")
    [events] = tmp_path.iterdir()
    assert events.name.startswith("events.out.tfevents.") and events.stat().st_size
    logger.log_hyperparams({"width": 3})
    logger.save()
    assert (tmp_path / "hparams.yaml").read_text() == "width: 3\n"


def test_wandb_that_is_not_installed(monkeypatch):
    from dora_train.engine.errors import UserError
    from dora_train.engine.run.loggers import check_loggers

    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match="requirements-extra.txt"):
        check_loggers(["csv", "wandb"])


@pytest.mark.slow
def test_wandb_offline_loses_nothing_to_a_kill_and_goes_on_under_the_signature(project: Project):
    pytest.importorskip("wandb", reason="pip install -r requirements-extra.txt")
    project.env |= {"WANDB_MODE": "offline", "WANDB_SILENT": "true", "WANDB_DIR": str(project.out)}
    run = ["run", "logger=[csv,wandb]", *RUN]
    project.killed(*run, epoch=3, signum=signal.SIGKILL)
    project.dora(*run)
    _, file = sorted((project.xp.folder / "wandb").glob(f"offline-run-*-{project.xp.sig}/*.wandb"))
    assert epochs_in(file) == list(range(1, 31))
    assert sorted(path.name for path in project.out.iterdir()) == ["xps"]


def epochs_in(file: Path) -> list[int]:
    """The epochs that a file of wandb's holds."""
    from wandb.proto import wandb_internal_pb2

    found = []
    for data in records(file.read_bytes()):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        found += [
            int(float(item.value_json))
            for item in record.history.item
            if "epoch" in (item.key, *item.nested_key)
        ]
    return found


def records(content: bytes, block: int = 32768) -> Iterator[bytes]:
    """LevelDB's log format after 7 bytes of wandb's own: chunks of crc (4), length (2), kind (1) in
    blocks of 32 KB."""
    at, data = 7, b""
    while at + 7 <= len(content):
        if block - at % block < 7:  # no header fits: the rest of the block is empty
            at += block - at % block
            continue
        length, kind = struct.unpack_from("<HB", content, at + 4)
        data += content[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or its last part
            yield data
            data = b""


def test_event_files_of_others_are_left_alone(tmp_path: Path):
    others = [
        "events.out.tfevents.backup",
        "events.out.tfevents.1x.host.1.0",
        "events.out.tfevents.17",
    ]
    for name in (*others, "events.out.tfevents.9999999999.my.host.1.0"):
        (tmp_path / name).touch()
    in_order(tmp_path)
    *_, second, rest = next(tmp_path.glob("*.my.host.1.0")).name.split(".", 4)
    assert int(second) < time.time() and rest == "my.host.1.0"
    assert {path.name for path in tmp_path.iterdir()} > set(others)
