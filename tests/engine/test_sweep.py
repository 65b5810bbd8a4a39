"""A grid from one line of shell: what it says, the file it writes, and that it never writes over a
person's."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace

import pytest
from grid_project import Machine
from hypothesis import given
from hypothesis import strategies as st
from project import ROOT, Project

from dora_train import sweep
from dora_train.engine.config.compose import Composer
from dora_train.engine.config.gridfile import (
    Axis,
    Design,
    grid_text,
    is_untouched,
    literal,
    variables,
)
from dora_train.engine.errors import UserError

TRAIN = SimpleNamespace(composer=Composer(ROOT / "conf", "config", "1.3"))


class Recorder:
    """What a grid file does with its launcher, as a list of overrides an experiment."""

    def __init__(self) -> None:
        self.shared: list = []
        self.calls: list = []

    def bind_(self, *args) -> None:
        self.shared += args

    def __call__(self, *args) -> None:
        self.calls.append(merged([*self.shared, *args]))


def merged(parts: list) -> tuple[list, dict]:
    texts = [part for part in parts if isinstance(part, str)]
    return texts, {
        key: value for part in parts if isinstance(part, dict) for key, value in part.items()
    }


def named(text: str) -> list:
    """Every experiment that a grid file's text names."""
    recorder = Recorder()
    sweep.loaded(text, ROOT / "grids" / "q.py").explorer.explore(recorder)
    return recorder.calls


def read(*overrides: str, file: Path | None = None) -> Design:
    return sweep.read(overrides, file, TRAIN)  # type: ignore[arg-type]


def refused(*overrides: str, file: Path | None = None) -> str:
    with pytest.raises(UserError) as error:
        read(*overrides, file=file)
    assert len(str(error.value).splitlines()) <= 4
    return str(error.value)


def test_the_file_is_one_that_a_person_would_have_written():
    design = read(
        "optim.lr=0.1,0.01,1e-3",
        "model=resnet18,mobilenet_v2",
        "seed=range(3)",
        "trainer.max_epochs=5",
    )
    text = grid_text(design)
    assert text.startswith('''"""What does it change to vary optim.lr, model and seed? 3 x 2 x 3 = 18 experiments."""

from dora_train.explorers import MainMetrics


@MainMetrics
def explorer(launcher):
    launcher.bind_({"trainer.max_epochs": 5})
    for lr in [0.1, 0.01, 0.001]:
        for model in ["resnet18", "mobilenet_v2"]:
            for seed in range(3):
                launcher({"optim.lr": lr, "model": model, "seed": seed})
''')
    assert len(named(text)) == 18


@pytest.mark.parametrize(
    "text, values",
    [
        ("seed=1,2", [1, 2]),
        ("optim.lr=0.1,1,1e-3", [0.1, 1, 0.001]),
        ("tag=a,'1',null,true", ["a", "1", None, True]),
        ("""tag='a, b',"c'd\"""", ["a, b", "c'd"]),
        ("logger=[csv],[tensorboard,csv],[]", [["csv"], ["tensorboard", "csv"], []]),
        ("model_args={width:8},{width:16}", [{"width": 8}, {"width": 16}]),
        ("seed=range(3)", [0, 1, 2]),
        ("seed=range(5,1,-2)", [5, 3]),
        ("optim.momentum=range(0,1,0.25)", [0.0, 0.25, 0.5, 0.75]),
        ("seed=choice(3,1,2)", [3, 1, 2]),
        ("seed=sort(3,1,2)", [1, 2, 3]),
        ("tag=str(choice(1,2))", ["1", "2"]),
        ("data=glob(*mnist)", ["fashion_mnist", "mnist"]),
        ("data=glob([*],exclude=[*mnist,image*])", ["cifar10", "digits"]),
    ],
)
def test_values_keep_their_types(text: str, values: list):
    [axis] = read(text).axes
    assert [(type(value), value) for value in axis.values] == [
        (type(value), value) for value in values
    ]


@pytest.mark.parametrize(
    "text, words",
    [
        ("optim.lr=interval(0,1)", ["an interval has no list of values", "Search"]),
        ("optim.lr=0.1,", ["at letter 14"]),
        ("optim.lr=choice(1,2", ["at letter 20"]),
        ("tag=a)b,c", ["at letter 6", "mismatched input ')'"]),
        ("tag=é,b", ["at letter 5"]),
        ("optim.lr", ["at letter 9"]),
        ("seed=range(0)", ["names no value"]),
        ("tag=glob(*)", ["the options of a group", "data"]),
        ("data=glob(x*)", ["fits none of data", "digits"]),
    ],
)
def test_a_mistake_has_its_place_and_reason(text: str, words: list[str]):
    message = refused(text)
    assert all(word in message for word in words), message


def test_the_last_of_two_words_for_a_key_counts():
    assert read("seed=1,2", "seed=3") == Design({"seed": 3}, [], [], [])
    assert read("seed=3", "seed=1,2") == Design({}, [], [], [Axis("seed", [1, 2])])


# --- JSON ---


def stored(folder: Path, content: str) -> Path:
    file = folder / "cases.json"
    file.write_text(content, "utf-8")
    return file


def test_json_is_a_list_of_dicts_or_a_dict_of_lists(tmp_path: Path):
    cases = [{"optim.lr": 0.1, "model": "small"}, {"optim": {"lr": 1e-3, "name": "adam"}}]
    design = read("seed=range(2)", file=stored(tmp_path, json.dumps(cases)))
    assert [point for _, point in named(grid_text(design))] == [
        {"optim.lr": 0.1, "model": "small", "seed": 0},
        {"optim.lr": 0.1, "model": "small", "seed": 1},
        {"optim.lr": 1e-3, "optim.name": "adam", "seed": 0},
        {"optim.lr": 1e-3, "optim.name": "adam", "seed": 1},
    ]
    design = read(
        file=stored(tmp_path, '{"optim": {"lr": [0.1, 1]}, "tag": "x", "logger": [["csv"], []]}')
    )
    assert (design.shared, len(named(grid_text(design)))) == ({"tag": "x"}, 4)


def test_the_line_wins_over_the_file(tmp_path: Path):
    cases = [{"optim.lr": 0.1, "seed": 1}, {"optim.lr": 0.2}]
    design = read("optim.lr=0.5", file=stored(tmp_path, json.dumps(cases)))
    points = [point for _, point in named(grid_text(design))]
    assert [point["optim.lr"] for point in points] == [0.5, 0.5]
    text = json.dumps({"optim.lr": [0.1, 0.2]})
    assert read("optim.lr=0.5", file=stored(tmp_path, text)).shared == {"optim.lr": 0.5}


def test_words_may_come_after_an_option():
    args, flags = sweep.arguments(["seed=1,2", "--name", "q", "trainer.max_epochs=5", "--retry"])
    assert args.overrides == ["seed=1,2", "trainer.max_epochs=5"] and flags == ["--retry"]


@pytest.mark.parametrize(
    "content, words",
    [
        ('[{"seed" 1}]', "cases.json:1:10: "),
        ('[\n{"seed": 1}, 3]', "entry 2 of the list is no dict"),
        ('{"seed": [1], "seed": [2]}', '"seed" stands there twice'),
        ('{"seed": []}', '"seed" names no value'),
        ("[]", "is empty"),
        ("3", "a list of dicts"),
        ("{}", "a dict of lists"),
        ("", "cases.json:1:1"),
    ],
)
def test_a_mistake_in_json_has_its_place(tmp_path: Path, content: str, words: str):
    assert words in refused(file=stored(tmp_path, content))


def test_a_file_that_is_not_there(tmp_path: Path):
    assert "cannot read" in refused(file=tmp_path / "none.json")


# --- the text ---

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
)


def same(one, other) -> bool:
    if isinstance(one, float) and math.isnan(one):
        return isinstance(other, float) and math.isnan(other)
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and one == other


@given(VALUES)
def test_a_literal_gives_its_value_back(value):
    assert same(eval(literal(value)), value)


KEYS = st.sampled_from(
    [
        "seed",
        "optim.lr",
        "optim.name",
        "schedule.name",
        "a.class",
        "a.1",
        "x.range",
        "launcher",
        "+trainer.x",
        "a-b",
        "é",
        'o"dd\\',
        '"""',
    ]
)
AXES = st.lists(
    st.builds(
        Axis, KEYS, st.lists(VALUES, min_size=1, max_size=3) | st.builds(range, st.integers(1, 3))
    ),
    max_size=4,
    unique_by=lambda axis: axis.key,
)
CASES = st.lists(st.dictionaries(KEYS, VALUES, min_size=1, max_size=2), max_size=3)


@given(
    st.builds(
        Design,
        st.dictionaries(KEYS, VALUES, max_size=2),
        st.lists(st.just("~optim.momentum"), max_size=1),
        CASES,
        AXES,
    )
)
def test_the_file_names_what_the_line_said(design: Design):
    text = grid_text(design)
    assert same(
        [list(call) for call in named(text)], [list(merged(point)) for point in design.points()]
    )
    assert is_untouched(text) and not is_untouched(text.replace("launcher(", "launcher (", 1))
    assert not is_untouched(text + "# more\n")


def test_each_key_has_a_name_of_its_own():
    assert variables(["optim.lr", "model", "schedule.name", "optim.name"]) == [
        "lr",
        "model",
        "schedule_name",
        "optim_name",
    ]
    assert variables(["a.class", "range", "3"]) == ["value_class", "value_range", "value_3"]
    assert len(set(variables(["a.b", "a_b", "c.b"]))) == 3


@given(
    st.lists(
        st.sampled_from(
            ["a.1", "1", '"""', "é", "value", "value_1", "value.1", "value_2", "b.value"]
        ),
        unique=True,
    )
)
def test_no_two_keys_share_a_name(keys: list[str]):
    """Also if a name that is made for one key is what another key is called."""
    names = variables(keys)
    assert len(set(names)) == len(keys) and all(name.isidentifier() for name in names)


# --- the command ---


@pytest.fixture
def here(copy: Project, machine: Machine) -> Project:
    copy.env |= machine.env
    return copy


def sweeps(project: Project, *args: str, code: int = 0) -> str:
    output = project.run("python", "-m", "dora_train.sweep", *args, code=code)
    assert "Traceback" not in output
    return output


@pytest.mark.slow
def test_a_dry_run_shows_file_and_plan_and_leaves_nothing(here: Project):
    before = sorted(here.root.rglob("*.py"))
    output = sweeps(here, "seed=range(2)", "--name", "two", "--dry_run")
    assert "for seed in range(2):" in output and "two: + 2 new" in output
    assert sorted(here.root.rglob("*.py")) == before and not (here.out / "xps").exists()
    assert 'unknown key "optim.lrr": did you mean optim.lr?' in sweeps(
        here, "optim.lrr=1,2", "--name", "q", code=1
    )
    assert 'unknown model "resnet1"' in sweeps(here, "model=small,resnet1", "--name", "q", code=1)
    cases = stored(here.root, '[{"optim.lr": 0.1}, {"optim.lr": 0.2}, {"optim.lrr": 0.2}]')
    output = sweeps(here, "--json", str(cases), "seed=1,2", "--name", "q", code=1)
    assert 'entry 3 of the list: unknown key "optim.lrr": did you mean optim.lr?' in output
    assert "a word of letters" in sweeps(here, "seed=1,2", "--name", "../q", code=1)
    assert "unrecognized arguments: --nonsense" in sweeps(
        here, "seed=1,2", "--name", "q", "--nonsense", code=2
    )
    assert sorted(here.root.rglob("*.py")) == before


@pytest.mark.slow
def test_it_does_what_dora_grid_does(here: Project):
    line = ["optim.lr=0.1,1e30", "debug=fast", "threads=1", "--name", "rates"]
    output = sweeps(here, *line, code=1)
    assert "wrote grids/rates.py: 2 experiments" in output and "rates: + 2 new" in output
    assert "1 completed" in output and "1 failed" in output, "its exit code is passed on"
    assert "wrote" not in sweeps(here, *line, "--no_monitoring", code=1), "equal: nothing to write"
    output = here.dora("grid", "rates", "--no_monitoring", code=1)
    assert "rates: = 2 kept" in output and "diverged" in output, (
        "it is a grid like any other, and these have run"
    )
    assert "wrote" in sweeps(here, "seed=1,2", "--name", "rates", "--cancel"), (
        "its own, unedited, is replaced"
    )
    here.edit("grids/rates.py", "seed", "seed")
    here.edit("grids/rates.py", "for seed in [1, 2]", "for seed in [1, 2, 3]")
    edited = (here.root / "grids" / "rates.py").read_text()
    assert "edited by hand" in sweeps(here, *line, code=1)
    assert "edited by hand" in sweeps(here, *line, "--dry_run", code=1)
    assert (here.root / "grids" / "rates.py").read_text() == edited
    assert "edited by hand" in sweeps(here, "seed=1,2", "--name", "mysweep", code=1)
