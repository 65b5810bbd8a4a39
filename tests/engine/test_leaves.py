"""Single values that are put into plain Python give what Hydra's own composing gives."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from project import ROOT

from dora_train.engine.config import overrides as parsing
from dora_train.engine.config.compose import Composed, Composer
from dora_train.engine.config.leaves import Leaves
from dora_train.engine.config.quoting import quoted
from dora_train.engine.errors import UserError

FOLLOWS = """
follows: ${optim.lr}
follows_all: ${optim}
home: ${oc.env:A_HOME,nowhere}
"""
# Each key with values of its type, as somebody types them.
FITTING = {
    "optim.lr": st.floats(1e-6, 10).map(repr),
    "optim.momentum": st.sampled_from(["0.5", "1e-3", "0.0"]),
    "seed": st.integers(0, 2**40).map(str),
    "trainer.max_epochs": st.integers(1, 99).map(str),
    "data.batch_size": st.sampled_from(["16", "64"]),
    "schedule.name": st.sampled_from(["cosine", "constant"]),
    "compile": st.sampled_from(["true", "False"]),
    "early_stopping.patience": st.sampled_from(["null", "3"]),
    "tag": st.text("ab é,'\"\\", max_size=5).map(quoted),
    "model": st.just("small"),
}
GROUPS = {
    "data": st.sampled_from(["digits", "mnist", "cifar10"]),
    "debug": st.sampled_from(["fast", "overfit", "null"]),
    "experiment": st.sampled_from(["digits_accurate", "null"]),
    "task": st.sampled_from(["images", "text"]),
}
# What may also be typed, and does not fit, or depends on something.
ODD = st.sampled_from(
    [
        "1",
        "1.0",
        "-2",
        "abc",
        "null",
        "true",
        "???",
        "[1,2]",
        "{a: 1}",
        "${optim.lr}",
        "''",
        "1e400",
    ]
    + ["${oc.env:A_HOME,x}", "${hydra:runtime.choices.data}", "007", "1_0", "+1", ".5", "'${seed}'"]
)
KEYS = st.sampled_from(
    [*FITTING, "optim", "follows", "follows_all.lr", "home", "dora.dir", "optim.none", "callbacks"]
)


def overrides_of(*named: dict[str, st.SearchStrategy[str]]) -> st.SearchStrategy[list[str]]:
    """Some of the keys, each once, with a value."""
    words = [
        st.tuples(st.just(key), value).map("=".join) for one in named for key, value in one.items()
    ]
    return st.lists(st.one_of(words), max_size=6, unique_by=lambda text: text.partition("=")[0])


ODDLY = st.tuples(st.sampled_from(["", "", "", "+", "++", "~"]), KEYS, ODD).map(
    lambda parts: f"{parts[0]}{parts[1]}={parts[2]}"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project's configuration, with a few keys that follow others."""
    folder = tmp_path_factory.mktemp("leaves") / "conf"
    shutil.copytree(ROOT / "conf", folder)
    with open(folder / "config.yaml", "a") as file:
        file.write(FOLLOWS)
    return folder


@pytest.fixture(scope="module")
def composer(folder: Path) -> Composer:
    return Composer(folder, "config", "1.3")


@pytest.fixture(scope="module")
def plain() -> Iterator[Composer]:
    """The project's own configuration, in which no key follows another."""
    yield Composer(ROOT / "conf", "config", "1.3")


def outcome(composer: Composer, argv: list[str]) -> Composed | str:
    try:
        return composer.compose(argv)
    except UserError as error:
        # `optim=${optim.lr}`: where Python gives up depends on the depth of the caller
        return str(error).partition("recursion")[0]


def by_omegaconf(composer: Composer, argv: list[str]) -> Composed | str:
    """As `outcome`, with no value put in by the short way."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Leaves, "replaced", lambda *_: None)
        return outcome(composer, argv)


@settings(max_examples=80)
@given(overrides_of(FITTING, GROUPS), st.lists(ODDLY, max_size=2))
def test_the_short_way_gives_what_omegaconf_gives(
    composer: Composer, fitting: list[str], odd: list[str]
):
    argv = [*fitting, *odd]
    # as text as well: for Python, 1 is 1.0 and true
    assert repr(outcome(composer, argv)) == repr(by_omegaconf(composer, argv))


@settings(max_examples=8)
@given(overrides_of(FITTING, {"data": GROUPS["data"]}))
def test_the_values_are_those_of_hydras_full_compose(
    folder: Path, composer: Composer, argv: list[str]
):
    with initialize_config_dir(str(folder), job_name="train", version_base="1.3"):
        whole = compose("config", [parsing._quoted_if_foreign(text) for text in argv])
    assert composer.compose(argv).values == OmegaConf.to_container(whole, resolve=True)


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["optim.lr=0.3", "seed=1"],
        ["data=mnist", "optim.lr=1", "tag=a", "model=small", "compile=true", "tag=null"],
        ["debug=fast", "trainer.max_epochs=2"],
        ["experiment=digits_accurate", "optim.lr=0.3"],
    ],
)
def test_the_overrides_of_a_usual_grid_take_the_short_way(
    plain: Composer, argv: list[str], monkeypatch: pytest.MonkeyPatch
):
    expected = by_omegaconf(plain, argv)

    def fails(*_: object) -> None:
        raise AssertionError("it took OmegaConf")

    monkeypatch.setattr(Composer, "_of_any", fails)
    assert plain.compose(argv) == expected


def test_a_variable_of_the_environment_is_that_of_the_moment(
    composer: Composer, monkeypatch: pytest.MonkeyPatch
):
    for home in ("one", "two"):
        monkeypatch.setenv("A_HOME", home)
        assert composer.compose(["seed=1"]).values["home"] == home
    monkeypatch.delenv("A_HOME")
    assert composer.compose(["seed=1"]).values["home"] == "nowhere"


def test_experiments_share_no_values(plain: Composer):
    plain.compose(["seed=1"]).values["optim"]["lr"] = "another"
    plain.compose([]).values["callbacks"].append("another")
    again = plain.compose(["seed=1"]).values
    assert again["optim"]["lr"] == 0.05 and again["callbacks"] == []


@settings(max_examples=100)
@given(
    st.one_of(
        st.from_regex(parsing.NUMBER, fullmatch=True, alphabet=st.characters(codec="ascii")),
        st.floats(allow_nan=False, allow_infinity=False).map(lambda value: f"optim.lr={value!r}"),
    )
)
def test_a_plain_number_is_read_as_hydra_reads_it(text: str):
    assert parsing.NUMBER.fullmatch(text) or "e+" in text
    read, expected = parsing._read(text), OverridesParser.create().parse_override(text)
    assert read == expected and repr(read) == repr(expected)
