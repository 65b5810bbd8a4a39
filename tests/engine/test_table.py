"""The table of a grid: what it shows, and that nothing an explorer does costs it."""

import io
import math
from types import SimpleNamespace

import pytest
import treetable as tt
from dora import Explorer
from experiments import experiment
from rich.console import Console

from dora_train.engine.experiment.folder import Experiment
from dora_train.engine.experiment.records import Birth, RunState, State
from dora_train.engine.grid.names import names
from dora_train.engine.grid.sheep import Sheep
from dora_train.engine.grid.table import GridTable
from dora_train.engine.watch.best import Better
from dora_train.engine.watch.board import (
    META,
    PIPE_WIDTH,
    Board,
    Column,
    Line,
    epochs,
    seconds_left,
)
from dora_train.engine.watch.progress import duration
from dora_train.engine.watch.status import Status
from dora_train.explorers import MainMetrics
from dora_train.report.marks import Marks


class Digits(Explorer):
    def get_grid_metrics(self):
        return [
            tt.group("train", [tt.leaf("loss", ".3f")]),
            tt.group("valid", [tt.leaf("acc", ".1%")]),
        ]

    def process_history(self, history):
        return dict(history[-1]) if history else {}


class XP:
    def __init__(self, sig):
        self.sig, self.argv = sig, []


class Main:
    """What the table asks of the project's main."""

    def __init__(self):
        self.marks = Marks().of

    def get_name_parts(self, xp):
        if xp.argv:
            return dict(word.split("=") for word in xp.argv)
        at = int(xp.sig[-1], 16) + 1
        return {"seed": 1, "lr": f"0.{at}", "word": f"a_rather_long_name_of_experiment_{at}"}

    def short_name_part(self, key, value):
        return f"{key}={value}"


def sheep(tmp_path, states, histories) -> list[Sheep]:
    made = []
    for number, (state, history) in enumerate(zip(states, histories, strict=True)):
        experiment = Experiment(tmp_path / f"{number:08x}")
        experiment.write_history(history)
        experiment.write_state(
            RunState(state, epoch=len(history), epochs=3, started=1.0, speed=10.0, batches=100)
        )
        experiment.write_birth(told("valid.acc", "max"))
        one = Sheep(XP(experiment.sig), experiment)
        one.status = Status(state, "out of memory" if state == State.FAILED else "")
        made.append(one)
    return made


ENTRY = {"train": {"loss": 0.5}, "valid": {"acc": 0.25}}


def drawn(flock, explorer, width=None, **trim) -> list[str]:
    table = GridTable("mysweep", explorer, Main(), flock)
    file = io.StringIO()
    console = Console(file=file, width=width or PIPE_WIDTH, color_system=None)
    console.print(table.draw(table.rows(**trim)))
    return [line.rstrip() for line in file.getvalue().splitlines()]


def test_one_line_each_with_state_cause_and_metrics(tmp_path):
    flock = sheep(tmp_path, [State.RUNNING, State.FAILED, State.NEW], [[ENTRY], [ENTRY, ENTRY], []])
    header, base, titles, *rows = drawn(flock, Digits(lambda launcher: None))
    assert header.startswith("mysweep   3 XPs   1 new   1 running   1 failed   ")
    assert base == "all: seed=1"
    assert titles.split() == [
        "#",
        "sig",
        "name",
        "state",
        "epoch",
        "it/s",
        "left",
        "train",
        "loss",
        "valid",
        "acc",
    ]
    assert rows[0].split() == [
        "0",
        "00000000",
        "lr=0.1",
        "word=a_rather_long_name_of_experiment_1",
        "running",
        "1/3",
        "10",
        "20",
        "s",
        "0.500",
        "25.0%",
    ]
    assert "out of memory" in rows[1] and "2/3" in rows[1]
    assert "new" in rows[2]


@pytest.mark.parametrize("width", [60, 80, 100])
def test_fits_the_width_it_has_and_cuts_no_name(tmp_path, width):
    flock = sheep(tmp_path, [State.RUNNING] * 2, [[ENTRY]] * 2)
    lines = drawn(flock, Digits(lambda launcher: None), width)
    _, _, above, titles, row, *_ = lines
    narrow = "too narrow for: it/s, left, train loss"
    assert (lines[-1] == narrow) == (width == 60)
    assert above.split() == (["valid"] if width == 60 else ["train", "valid"]) and titles.endswith(
        "acc"
    )
    assert max(map(len, lines)) <= width
    # what shrinks is the name, and it goes on in the next line
    assert "00000000  lr=0.1" in row and "running" in row and "25.0%" in row
    letters = "".join("".join(lines).split())
    assert "…" not in letters and letters.count("a_rather_") == 2


def test_where_it_is_narrow_the_metric_to_compare_by_stays_and_causes_are_cut_before_names():
    columns = [
        *META,
        *(
            Column((split, name), f"{split} {name}", ".3f")
            for split, name in [
                ("train", "loss"),
                ("train", "acc"),
                ("valid", "loss"),
                ("valid", "best"),
                ("valid", "gap"),
            ]
        ),
    ]
    metrics = {
        "train": {"loss": 0.5, "acc": 0.5},
        "valid": {"loss": 0.5, "best": 0.75, "gap": 0.25},
    }
    ours = {
        "index": 0,
        "sig": "00000000",
        "name": "lr=0.1 momentum=0.9 seed=0",
        "epoch": "2/3",
        "state": "torch.OutOfMemoryError: CUDA out of memory",
    }
    line = Line(Status(State.FAILED), {**metrics, "Meta": ours})
    screens = {}
    for width in (100, 70, 60):
        screen = Console(file=io.StringIO(), width=width)
        screen.print(Board("mysweep", "", columns, [line], Better({"best": "max"})))
        screens[width] = [text.rstrip() for text in screen.file.getvalue().splitlines()]
    assert "lr=0.1 momentum=0.9 seed=0  torch.OutOfM" in screens[100][3] and len(screens[100]) == 4
    assert screens[70][-1] == "too narrow for: train loss, train acc, valid loss"
    assert screens[60][2].split()[-1] == "best"
    assert screens[60][3:5] == [
        "0  00000000  lr=0.1 momentum=0.9   torch.OutO…    2/3  0.750",
        "             seed=0",
    ]


def test_the_best_of_each_column_is_marked(tmp_path):
    histories = [
        [{"train": {"loss": loss}, "valid": {"acc": acc}}]
        for loss, acc in [(0.5, 0.25), (float("nan"), 0.75), (0.1, 0.75)]
    ]
    *_, first, second, third = drawn(
        sheep(tmp_path, [State.COMPLETED] * 3, histories), Digits(lambda launcher: None)
    )
    assert "*" not in first and "nan" in second
    assert second.endswith(" 75.0%*") and third.split()[-2:] == ["0.100*", "75.0%*"]


def test_runs_of_the_best_and_of_worse_settings_are_marked(tmp_path):
    flock = []
    for lr, best in [(0.1, 0.9), (0.2, 0.8)]:
        for seed in range(3):
            made = experiment(tmp_path, {"optim.lr": lr, "seed": seed}, best + 0.01 * seed)
            flock.append(Sheep(XP(made.sig), made))
            flock[-1].status = Status(State.COMPLETED)
    running = experiment(tmp_path, {"optim.lr": 0.2, "seed": 4}, 0.9, State.RUNNING)
    flock.append(Sheep(XP(running.sig), running))
    flock[-1].status = Status(State.RUNNING)
    _, _, titles, *rows = drawn(flock, Digits(lambda launcher: None))
    at = titles.index("verdict")
    assert [row[at : at + 7].strip() for row in rows] == ["best"] * 3 + ["worse"] * 3 + [""]
    flock[0].status = Status(State.RUNNING)
    assert "verdict" in drawn(flock, Digits(lambda launcher: None))[2]
    for one in flock[3:]:
        one.status = Status(State.FAILED)
    assert "verdict" not in drawn(flock, Digits(lambda launcher: None))[2]


class DoraReadme(Explorer):
    """The example of Dora's own README, in short: a column `best` that is a loss."""

    def get_grid_metrics(self):
        return [tt.group("valid", [tt.leaf("best", ".3f")])]

    def process_history(self, history):
        return {"valid": {"best": min(entry["train"]["loss"] for entry in history)}}


def test_a_column_has_a_best_value_only_if_its_direction_is_known(tmp_path):
    histories = [[{"train": {"loss": loss}, "valid": {"acc": 0.5}}] for loss in (0.5, 0.1)]
    flock = sheep(tmp_path, [State.COMPLETED] * 2, histories)
    assert "*" not in "".join(drawn(flock, DoraReadme(lambda launcher: None)))
    known = type("Known", (DoraReadme,), {"better": {"valid.best": "min"}})
    *_, first, second = drawn(flock, known(lambda launcher: None))
    assert "*" not in first and second.endswith("0.100*")


def test_nothing_is_the_best_where_all_are_equal_or_there_is_one(tmp_path):
    assert "*" not in "".join(
        drawn(sheep(tmp_path, [State.COMPLETED] * 2, [[ENTRY]] * 2), Digits(lambda _: None))
    )
    assert "*" not in "".join(
        drawn(sheep(tmp_path, [State.COMPLETED], [[ENTRY]]), Digits(lambda _: None))
    )


@pytest.mark.parametrize(
    "metric, mode",
    [
        ("valid.loss", "min"),
        ("train.my_Loss", "min"),
        ("valid.acc", ""),
        ("test.top1", ""),
        ("error_rate", ""),
        ("valid.best", ""),
        ("epoch", ""),
        ("lr", ""),
    ],
)
def test_a_name_tells_no_direction_but_that_of_a_loss(metric, mode):
    assert Better().mode(metric) == mode


def told(metric, mode):
    return Birth("00000000", [], [], {"best": {"metric": metric, "mode": mode}}, 1, 1, {}, {}, 0.0)


def test_which_direction_is_better_as_the_experiments_were_told():
    better = Better.of([told("valid.gloss", "max"), None], {"valid.best": "min"})
    assert better.mode("train.gloss") == "max" and better.mode("valid.best") == "min"
    assert better.mode("valid.loss") == "min" and better.mode("train.best") == ""
    contrary = Better.of([told("valid.acc", "max"), told("valid.acc", "min")])
    assert contrary.mode("valid.acc") == "" and contrary.best("valid.acc", [1, 2]) == set()


@pytest.mark.parametrize("name", ["f1/macro", "acc/dataloader_idx_0", "top 5", "a.b"])
def test_a_metric_may_have_any_name(name):
    better = Better.of([told(f"valid.{name}", "max")])
    assert better.mode(f"valid.{name}") == better.mode(f"best.{name}") == "max"
    assert better.best(f"best.{name}", [1, 2]) == {1}
    assert Better().mode("valid.loss/dataloader_idx_1") == "min"


def test_a_blank_value_is_not_a_missing_one():
    """`launcher()` and then `launcher({"trainer.precision": None})`."""
    naming = SimpleNamespace(
        get_name_parts=lambda parts: parts, short_name_part=lambda key, value: f"{key}={value}"
    )
    found, base = names(naming, [{"lr": 1}, {"lr": 1, "precision": None}])
    assert (found, base) == (["", "precision=None"], "lr=1")
    found, base = names(naming, [{"precision": None}, {}])
    assert (found, base) == (["precision=None", ""], "")


def test_nan_is_never_the_best():
    explorer = MainMetrics(lambda launcher: None)
    explorer.metric, explorer.mode = "valid.r", "max"
    history = [{"valid": {"r": value}} for value in (math.nan, 0.7, 0.5)]
    assert explorer.process_history(history)["valid"]["best"] == 0.7
    assert "best" not in explorer.process_history(history[:1])["valid"]


def test_five_hundred_rows_on_a_small_screen_show_what_moves_what_failed_and_the_best(tmp_path):
    states = (
        [State.WAITING] * 200 + [State.COMPLETED] * 280 + [State.FAILED] * 10 + [State.RUNNING] * 10
    )
    lines = [
        Line(Status(state), {"Meta": {"index": at, "state": str(state)}, "acc": at % 97})
        for at, state in enumerate(states)
    ]
    board = Board(
        "mysweep",
        "seed=1",
        [*META, Column(("acc",), "acc")],
        lines,
        Better({"acc": "max"}),
        most=40,
    )
    shown = [states[at] for at in board.chosen(100)]
    assert len(shown) == 33 and shown.count(State.RUNNING) == 10
    assert shown.count(State.FAILED) == 8 and State.WAITING not in shown
    assert {
        lines[at].values["acc"] for at in board.chosen(100) if states[at] == State.COMPLETED
    } >= {
        96,
        95,
        94,
    }
    screen = Console(file=io.StringIO(), width=100, height=40)
    screen.print(board)
    text = screen.file.getvalue().splitlines()
    assert len(text) < 40 and "and 200 waiting · 265 completed · 2 failed" in text[-1]


def test_trimmed_to_one_or_to_the_shortest(tmp_path):
    other = {"train": {"loss": 0.1}, "valid": {"acc": 0.75}}
    flock = sheep(tmp_path, [State.RUNNING] * 2, [[ENTRY], [ENTRY, other]])
    explorer = Digits(lambda launcher: None)
    assert "75.0%" in drawn(flock, explorer)[4] and "75.0%" in drawn(flock, explorer, trim=1)[4]
    assert (
        "25.0%" in drawn(flock, explorer, trim=0)[4]
        and "25.0%" in drawn(flock, explorer, trim_last=True)[4]
    )


def test_an_explorer_that_fails_costs_its_cells_only_and_is_named_once(tmp_path, capsys):
    class Fragile(Digits):
        def process_history(self, history):
            return history[0]["missing"]

    lines = drawn(
        sheep(tmp_path, [State.RUNNING] * 2, [[ENTRY], [ENTRY]]), Fragile(lambda launcher: None)
    )
    assert lines[3].split()[-2:] == ["?", "?"]
    assert capsys.readouterr().err.count("KeyError") == 1


@pytest.mark.parametrize(
    "history", [[{"train": 3, "valid": None}], [{"valid": {"acc": "high"}}], [{}], [{"odd": [1]}]]
)
def test_odd_histories(tmp_path, history):
    assert (
        len(drawn(sheep(tmp_path, [State.RUNNING], [history]), Digits(lambda launcher: None))) == 4
    )


def test_process_sheep_comes_before_process_history(tmp_path):
    class WithSheep(Digits):
        def process_sheep(self, sheep, history):
            assert sheep.state() == "RUNNING" and not sheep.is_done()
            return {"valid": {"acc": 1.0}}

    assert (
        "100.0%"
        in drawn(sheep(tmp_path, [State.RUNNING], [[ENTRY]]), WithSheep(lambda launcher: None))[3]
    )


def test_an_explorers_own_meta(tmp_path):
    class OwnMeta(Digits):
        def get_grid_meta(self):
            return [tt.leaf("sig"), tt.leaf("state", align=">")]

    titles = drawn(sheep(tmp_path, [State.RUNNING], [[ENTRY]]), OwnMeta(lambda launcher: None))[2]
    assert titles.split() == ["sig", "state", "train", "loss", "valid", "acc"]


def test_an_explorers_own_colours_take_turns(tmp_path):
    class Coloured(Digits):
        def get_colors(self):
            return ["0", "38;5;245"]

    flock = sheep(tmp_path, [State.RUNNING] * 2, [[ENTRY]] * 2)
    table = GridTable("mysweep", Coloured(lambda launcher: None), Main(), flock)
    screen = Console(file=io.StringIO(), width=200, color_system="256", force_terminal=True)
    screen.print(table.draw(table.rows()))
    first, second = screen.file.getvalue().splitlines()[3:5]
    assert "38;5;245" in second and "38;5;245" not in first


def test_doras_own_explorer_works(tmp_path):
    assert (
        "running"
        in drawn(sheep(tmp_path, [State.RUNNING], [[ENTRY]]), Explorer(lambda launcher: None))[3]
    )


def test_what_a_run_writes_tells_the_time_that_is_left():
    from types import SimpleNamespace

    from dora_train.engine.run.progress import ShowProgress

    written = {}
    session = SimpleNamespace(report=lambda state, **what: written.update(what))
    progress = ShowProgress(session, SimpleNamespace(best={}))  # type: ignore[arg-type]
    progress._speed = 5.0
    trainer = SimpleNamespace(num_training_batches=100, global_step=75, max_steps=100)
    progress._beat(trainer, 1, 50)  # type: ignore[arg-type]  # two batches a step
    assert seconds_left(RunState(**written, epochs=2)) == 10
    assert seconds_left(RunState(**written, epochs=-1)) == 10
    assert seconds_left(RunState(**written | {"steps": None})) is None


def test_words_for_progress():
    assert epochs(RunState(epochs=30, epoch=12), 12) == "12/30"
    assert (
        epochs(RunState(), 0) == ""
        and epochs(RunState(), 3) == "3"
        and epochs(RunState(epochs=-1), 3) == "3"
    )
    assert seconds_left(RunState()) is None
    assert seconds_left(RunState(epochs=2, epoch=1, batches=100, batch=50, speed=5.0)) == 10
    assert [duration(seconds) for seconds in (None, 9, 100, 7200, 200_000)] == [
        "",
        "9 s",
        "2 min",
        "2 h 00",
        "2 d 7 h",
    ]


def test_a_best_value_is_the_best_of_the_experiments_on_the_same_data(tmp_path):
    flock = []
    for number, (data, acc) in enumerate(
        [("digits", 0.7), ("digits", 0.9), ("mnist", 0.95), ("mnist", 0.99)]
    ):
        made = experiment(tmp_path, {"data.name": data, "seed": number}, acc)
        flock.append(Sheep(XP(made.sig), made))
        flock[-1].status = Status(State.COMPLETED)
    rows = drawn(flock, Digits(lambda launcher: None))[3:]
    assert ["*" in row for row in rows] == [False, True, False, True]
    # another fingerprint of the data is another data set
    flock[3].experiment.write_contents({"train": ["train", 1, "aa"]})
    flock[2].experiment.write_contents({"train": ["train", 2, "bb"]})
    rows = drawn(flock, Digits(lambda launcher: None))[3:]
    assert ["*" in row for row in rows] == [False, True, False, False]


MANY = [
    [f"optim.lr={lr}", "data.batch_size=128", f"optim.name={name}", f"model={model}"]
    for model in ("small", "resnet18", "resnet50", "mobilenet_v2")
    for name in ("sgd", "adamw")
    for lr in ("0.05", "0.001")
]


def of_many_keys(tmp_path) -> list[Sheep]:
    flock = sheep(tmp_path, [State.RUNNING] * len(MANY), [[ENTRY]] * len(MANY))
    for one, argv in zip(flock, MANY):
        one.xp.argv = argv
    return flock


@pytest.mark.parametrize("width", [80, 110])
def test_names_of_many_keys_are_folded_and_what_tells_rows_apart_comes_first(tmp_path, width):
    lines = drawn(of_many_keys(tmp_path), Digits(lambda launcher: None), width)
    assert lines[1] == "all: data.batch_size=128" and max(map(len, lines)) <= width
    assert "…" not in "".join(lines)
    shown = " ".join(" ".join(lines).split())
    for argv in MANY:
        assert argv[-1] in shown
    [row] = [line for line in lines if "00000000" in line]
    assert "00000000  model=small" in row


def test_a_row_of_several_lines_counts_as_such(tmp_path):
    flock = of_many_keys(tmp_path)
    table = GridTable("mysweep", Digits(lambda launcher: None), Main(), flock)
    screen = Console(file=io.StringIO(), width=60, height=30)
    screen.print(table.draw(table.rows(), most=30))
    text = screen.file.getvalue().splitlines()
    assert 20 < len(text) < 30 and "and " in text[-2] + text[-1]
