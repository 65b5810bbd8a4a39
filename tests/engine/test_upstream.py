"""What engine/upstream assumes of Dora, Hydra, submitit and Lightning: fails the day one of them
changes it."""

from __future__ import annotations

import inspect

import dora.grid
import dora.info
import dora.launch
import dora.run
import dora.share
import pytest
from dora.__main__ import get_parser
from dora.hydra import HydraMain as Stock
from dora.main import DecoratedMain
from project import ROOT


def test_stock_still_composes_at_import():
    """If not, our HydraMain can call its __init__ again."""
    assert "_get_config" in inspect.getsource(Stock.__init__)


@pytest.mark.parametrize(
    "module, function, names",
    [
        (
            dora.run,
            "run_action",
            [
                "main.get_xp(args.argv)",
                "check_job_and_clear(",
                "start_ddp_workers(",
                "git_save.get_new_clone(main)",
            ],
        ),
        (
            dora.grid,
            "grid_action",
            [
                "_get_explore(args, main)",
                "run_grid(main, explorer, args.grid, rules, slurm, grid_args)",
            ],
        ),
        (dora.info, "info_action", ["shepherd = Shepherd(main)"]),
        (dora.launch, "launch_action", ["shepherd = Shepherd(main, log=log)"]),
        (dora.share, "export_action", ["main.get_xp_from_sig(sig)", "dump(all_argv)"]),
        (dora.share, "import_action", ["load(", "main.init_xp(xp)"]),
    ],
)
def test_actions_look_these_names_up_when_called(module, function: str, names: list[str]):
    source = inspect.getsource(getattr(module, function))
    assert [name for name in names if name not in source] == []


def test_the_command_calls_get_argv_from_sig_and_adds_to_it():
    from dora.__main__ import main

    source = inspect.getsource(main)
    assert (
        "main.get_argv_from_sig(args.from_sig)" in source
        and "args.argv = argv + args.argv" in source
    )


def test_decorated_main_takes_main_and_config():
    assert list(inspect.signature(DecoratedMain.__init__).parameters) == ["self", "main", "dora"]
    assert {"package", "main_module", "name", "_full_name"} <= set(
        DecoratedMain(test_stock_still_composes_at_import, None).__dict__
    )  # type: ignore[arg-type]


def test_the_flags_of_the_command_are_known():
    assert get_parser().parse_args(["run", "--clear", "-f", "abcd", "a=1"]).from_sig == "abcd"


def test_submitit_reads_node_lists():
    from dora_train.engine.upstream.submitit import hosts_of

    assert hosts_of("n[1-2],login") == ["n1", "n2", "login"]


def test_lightning_still_installs_handlers_through_its_connector():
    from pytorch_lightning import Trainer
    from pytorch_lightning.trainer.connectors.signal_connector import _SignalConnector

    assert hasattr(_SignalConnector, "register_signal_handlers")
    assert "_signal_connector" in inspect.getsource(Trainer.__init__)


def test_lightning_says_whether_it_goes_on_where_we_read_it():
    from pytorch_lightning.loops.fit_loop import _FitLoop
    from pytorch_lightning.loops.training_epoch_loop import _TrainingEpochLoop

    assert "_can_stop_early" in inspect.getsource(_FitLoop.done.fget)  # type: ignore[attr-defined]
    assert "self._should_check_val_fx(data_fetcher)" in inspect.getsource(
        _TrainingEpochLoop.on_advance_end
    )
    assert "self.epoch_loop.run(self._data_fetcher)" in inspect.getsource(_FitLoop.advance)


def test_lightning_keeps_its_place_where_we_read_it():
    from pytorch_lightning import Trainer

    from dora_train.engine.upstream.lightning import position

    trainer = Trainer(
        logger=False, enable_checkpointing=False, accelerator="cpu", enable_progress_bar=False
    )
    assert position(trainer) == (0, 0)


def test_lightning_still_resumes_otherwise_where_steps_are_limited():
    from pytorch_lightning.loops.fit_loop import _FitLoop

    assert "or self._iteration_based_training()" in inspect.getsource(_FitLoop.restarting.fset)


def test_grid_action_still_does_no_more_than_ours():
    source = inspect.getsource(dora.grid.grid_action)
    assert len(source.splitlines()) == 10 and source.count("update_from_args(") == 3


def test_the_listener_of_hydras_parser_still_drops_the_column():
    """If not, its error says where, and `column_of` can go."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    from dora_train.engine.upstream.hydra import column_of

    with pytest.raises(HydraException) as error:
        OverridesParser.create().parse_override("tag=a)b")
    assert column_of(error.value) == 5 and "5" not in str(error.value)


def test_groups_are_those_that_hydras_public_methods_list():
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    from dora_train.engine.upstream.hydra import groups_of

    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        hydra = GlobalHydra.instance().hydra
        assert hydra is not None
        listed = {
            group: list(hydra.config_loader.get_group_options(group))
            for group in hydra.list_all_config_groups()
            if not group.startswith("hydra")
        }
        assert groups_of() == listed and "data" in listed
