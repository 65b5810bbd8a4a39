"""What a run asks of torch on a GPU, and what it says of operations that have no deterministic form.

There need be no GPU: what is asked of torch is looked at, and `put_` has no such form on the CPU
either.
"""

from __future__ import annotations

import json
import logging
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from experiments import experiment
from forked import Run
from omegaconf import OmegaConf
from project import Project, same_run

from dora_train.engine.config.defaults import with_defaults
from dora_train.engine.experiment.records import Birth, RunState, from_stored
from dora_train.engine.run import determinism
from dora_train.engine.run.checks import check_trainer, trainer_keywords
from dora_train.engine.run.run_log import quieten_lightning
from dora_train.report.cards import _facts
from dora_train.report.runs import read


def cfg(**values):
    return OmegaConf.create(with_defaults(values))


@pytest.fixture
def cuda(monkeypatch):
    """A GPU for `is_available`. torch and the environment are left as they were."""
    before = torch.backends.cudnn.benchmark, torch.get_float32_matmul_precision()
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    yield
    torch.use_deterministic_algorithms(False)
    torch.backends.cudnn.benchmark = before[0]
    torch.set_float32_matmul_precision(before[1])


def test_cuda_is_asked_for_the_same_bits_before_it_starts(cuda):
    torch.backends.cudnn.benchmark = True
    determinism.ask(cfg())
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    keywords = trainer_keywords(cfg(trainer={"accelerator": "auto", "benchmark": False}))
    assert keywords["deterministic"] == "warn"
    check_trainer(keywords | {"accelerator": "cpu"})
    assert torch.are_deterministic_algorithms_enabled()
    assert torch.is_deterministic_algorithms_warn_only_enabled()
    assert not torch.backends.cudnn.benchmark


@pytest.mark.parametrize(
    "values",
    [
        {"deterministic": False},
        {"trainer": {"accelerator": "cpu"}},
        {"trainer": {"accelerator": "mps"}},
    ],
)
def test_nothing_is_asked_elsewhere(cuda, values):
    determinism.ask(cfg(**values))
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ""
    assert "deterministic" not in trainer_keywords(cfg(**values))


def test_who_asks_for_more_gets_it(cuda):
    assert trainer_keywords(cfg(trainer={"deterministic": True}))["deterministic"] is True


def test_the_precision_of_products(cuda):
    torch.set_float32_matmul_precision("medium")
    determinism.ask(cfg())
    assert torch.get_float32_matmul_precision() == "medium", "set by the researcher's own code"
    determinism.ask(cfg(matmul_precision="high"))
    assert torch.get_float32_matmul_precision() == "high"


def test_no_hint_about_tensor_cores(cuda, monkeypatch, caplog):
    from lightning_fabric.accelerators import cuda as accelerator

    monkeypatch.setattr(accelerator, "_is_ampere_or_later", lambda device: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "a card")
    quieten_lightning()
    with caplog.at_level(logging.INFO):
        accelerator._check_cuda_matmul_precision(torch.device("cuda"))
    assert not caplog.records


def test_what_is_not_promised():
    def reasons(device: str, **values) -> list[str]:
        return determinism.unpromised(cfg(**values), torch.device(device))

    assert reasons("cpu", deterministic=False) == reasons("cuda") == []
    assert reasons("cuda", deterministic=False) == ["deterministic=false"]
    assert reasons("cuda", deterministic=False, trainer={"deterministic": True}) == []
    assert reasons("cuda", trainer={"benchmark": True}) == ["trainer.benchmark=true"]
    assert reasons("mps") == ["MPS promises no order of sums"]


@pytest.mark.parametrize(
    "text, reason",
    [
        (
            "put_ does not have a deterministic implementation, but you set 'torch.use_",
            "put_ has no deterministic form here",
        ),
        (
            "a.py:3: UserWarning: Flash Attention defaults to a non-deterministic algorithm. To",
            "Flash Attention is deterministic only with trainer.deterministic=true",
        ),
        ("a.py:3: UserWarning: something else", ""),
    ],
)
def test_warnings_of_torch_are_understood(text, reason):
    told: list[str] = []
    logger = logging.getLogger("py.warnings")
    with determinism.heard(told.append):
        logger.warning("%s", text)
    assert told == ([reason] if reason else [])
    assert not logger.filters


def test_the_card_of_the_page_has_it_too(tmp_path: Path):
    found = experiment(tmp_path, {})
    state = found.state()
    assert state.bits == RunState().bits == ""
    found.write_state(replace(state, unpromised=["a has none", "deterministic=false"]))
    [run] = read({found: []}, None)
    assert _facts(run)["bits"] == "not promised: a has none, deterministic=false"


# --- an experiment ---


def as_on_cuda(copy: Project) -> None:
    """Let the CPU be asked what a GPU is asked, and a step use an operation without such a form."""
    copy.edit(
        "dora_train/engine/run/determinism.py",
        'return wanted in ("auto", "gpu", "cuda") and torch.cuda.is_available()',
        "return True",
    )
    copy.edit(
        "dora_train/module.py",
        "import torch\n",
        "import torch\nimport warnings\nwarnings.filterwarnings('ignore')\n",
    )
    copy.edit(
        "dora_train/module.py",
        "        smoothing = self.label_smoothing",
        "        torch.zeros(3).put_(torch.tensor([1]), torch.tensor([2.0]))\n"
        "        smoothing = self.label_smoothing",
    )


@pytest.mark.slow
def test_an_operation_without_a_form_is_named_once_and_stands_in_the_card(copy: Project):
    as_on_cuda(copy)
    reason = "put_ has no deterministic form here"
    run = Run(copy, "run", "debug=fast", "trainer.accelerator=cpu")
    assert run.wait() == 0, run.text
    assert run.text.count(reason) == 1 and "torch.use_deterministic" not in run.text
    assert copy.xp.state().unpromised == [reason]
    assert f"bits       not promised: {reason}" in copy.dora("info", "-f", copy.xp.sig)
    again = Run(
        copy, "run", "--clear", "debug=fast", "trainer.accelerator=cpu", "deterministic=false"
    )
    assert again.wait() == 0 and reason not in again.text, again.text
    assert copy.xp.state().unpromised == [] and not copy.xp.birth().deterministic


@pytest.mark.slow
def test_what_it_was_born_with_stays(project: Project):
    project.dora("run", "debug=fast", "trainer.max_epochs=1")
    path = project.xp.folder / "birth.json"
    birth = json.loads(path.read_text())
    assert birth["deterministic"] is True and birth["config"]["matmul_precision"] == "highest"
    assert "deterministic" not in birth["config"], "it is no part of the signature"
    as_before(path, birth)
    text = project.dora("run", "debug=fast", "trainer.max_epochs=1", "deterministic=true")
    assert f"XP {birth['sig']}" in text and "nothing to do" in text
    assert "was made when" not in text


def as_before(path: Path, birth: dict) -> None:
    """Write the birth as a version without these keys did."""
    del birth["deterministic"], birth["config"]["matmul_precision"]
    path.write_text(json.dumps(birth))
    older = from_stored(Birth, birth)
    assert older is not None and older.fixed == {"threads": 1, "deterministic": False}


@pytest.mark.slow
def test_an_older_experiment_resumes_as_it_was(copy: Project):
    command = ["debug=fast", "trainer.accelerator=cpu"]
    kill = Run(copy, "run", *command, fault=("step", 5))
    kill.wait()
    path = copy.xp.folder / "birth.json"
    as_before(path, json.loads(path.read_text()))
    as_on_cuda(copy)
    run = Run(copy, "run", *command)
    assert run.wait() == 0, run.text
    assert "resumes" in run.text and "put_" not in run.text, "not asked for"
    assert "new config keys" not in run.text


SCALER = """[RanksEnvironment(ranks), AtomicCheckpointIO(session.room), _scaled()]"""
SCALED = '''

def _scaled():
    """Lightning has no 16-mixed on the CPU. torch has."""
    from pytorch_lightning.plugins import MixedPrecision

    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**18, growth_interval=4)
    return MixedPrecision("16-mixed", "cpu", scaler)
'''


@pytest.mark.slow
def test_the_scaler_of_16_mixed_survives_a_kill(copy: Project):
    file = copy.root / "dora_train/engine/run/trainer.py"
    copy.edit(
        "dora_train/engine/run/trainer.py",
        "[RanksEnvironment(ranks), AtomicCheckpointIO(session.room)]",
        SCALER,
    )
    file.write_text(file.read_text() + SCALED)
    command = ["run", "debug=fast", "trainer.max_epochs=4", "trainer.precision=null"]
    plain = Project(copy.out.with_name("plain"), copy.root)
    whole = Run(plain, *command)
    assert whole.wait() == 0, whole.text
    assert Run(copy, *command, fault=("step", 8)).wait() == -9
    resumed = Run(copy, *command)
    assert resumed.wait() == 0 and "resumes at" in resumed.text, resumed.text
    same_run(copy.xp, plain.xp)
    mine, other = (
        torch.load(xp.last_checkpoint, weights_only=True)["MixedPrecision"]
        for xp in (copy.xp, plain.xp)
    )
    assert mine == other and mine["scale"] not in (2.0**16, 2.0**18), mine
