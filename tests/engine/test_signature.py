"""The rule behind a signature: stock Dora's for coerced values, and right where stock fails."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from dora.conf import DoraConfig
from hypothesis import given, settings
from hypothesis import strategies as st
from project import ROOT

from dora_train.engine.config.compose import Composer
from dora_train.engine.config.quoting import quoted
from dora_train.engine.config.values import flatten, merged, split, unflatten
from dora_train.engine.errors import UserError
from dora_train.engine.experiment.xp import XP

STOCK = """
import json, sys
from dora.hydra import HydraMain
def main(cfg): pass
main.__module__ = "dora_train.stock"
class Stock(HydraMain):
    pass
import importlib.util, dora.hydra
dora.hydra.find_spec = lambda name: importlib.util.spec_from_file_location(name, sys.argv[1] + "/dora_train/train.py")
stock = Stock(main, config_name="config", config_path="../conf", version_base="1.3")
for line in sys.stdin:
    print(stock.get_xp(json.loads(line)).sig, flush=True)
"""


@pytest.fixture(scope="module")
def stock() -> Iterator:
    """Stock Dora's signature of an argv, from a process of its own."""
    process = subprocess.Popen(
        [sys.executable, "-c", STOCK, str(ROOT)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin and process.stdout

    def sig(argv: list[str]) -> str:
        process.stdin.write(json.dumps(argv) + "\n")  # type: ignore[union-attr]
        process.stdin.flush()  # type: ignore[union-attr]
        return process.stdout.readline().strip()  # type: ignore[union-attr]

    yield sig
    process.stdin.close()
    process.wait(timeout=30)


@pytest.fixture(scope="module")
def composer() -> Composer:
    return Composer(ROOT / "conf", "config", "1.3")


def dora_config() -> DoraConfig:
    config = DoraConfig()
    config.exclude = ["threads", "logger", "code", "job.*", "dora.*", "slurm.*"]
    return config


def sig(composer: Composer, argv: list[str]) -> str:
    composed = composer.compose(argv)
    return XP(dora_config(), composed.values, composed.argv, composed.delta).sig


number = st.floats(1e-6, 1e3, allow_nan=False).map(lambda value: float(f"{value:.4g}"))
one_override = st.one_of(
    number.map(lambda value: f"optim.lr={value!r}"),
    st.integers(-5, 10**6).map(lambda value: f"seed={value}"),
    st.sampled_from(
        [
            "optim.name=adam",
            "model=resnet18",
            "schedule.name=none",
            "trainer.deterministic=true",
            "debug=fast",
            "debug=overfit",
            "tag=word",
            "tag=null",
            "tag=[1,2]",
            "threads=7",
            "logger=[csv]",
            "+new.key=3",
            "+model_args.width=8",
            "optim={lr: 0.5, momentum: 0.1}",
            "slurm.gpus=3",
        ]
    ),
    st.text("abcxyz_0189", min_size=1, max_size=6)
    .filter(str.isidentifier)
    .map(lambda word: f"tag={word}"),
)


@pytest.mark.slow
@settings(max_examples=25)
@given(
    st.lists(one_override, max_size=4, unique_by=lambda text: text.partition("=")[0].lstrip("+"))
)
def test_signatures_are_stock_doras(stock, composer: Composer, argv: list[str]):
    assert sig(composer, argv) == stock(argv)


def test_values_are_coerced_to_the_type_of_the_default(composer: Composer):
    assert len({sig(composer, [f"optim.lr={text}"]) for text in ("1", "1.0", "1e0", "+1")}) == 1
    assert sig(composer, ["optim.lr=${trainer.max_epochs}"]) == sig(composer, ["optim.lr=20.0"])
    assert sig(composer, ["trainer.max_epochs=1e2"]) == sig(composer, ["trainer.max_epochs=100"])
    assert composer.compose(["model=123"]).delta == [("model", "123")]
    assert composer.compose(["trainer.limit_train_batches=10"]).delta == [
        ("trainer.limit_train_batches", 10)
    ]


def test_the_order_of_overrides_does_not_matter(composer: Composer):
    argv = ["optim.lr=0.3", "seed=2", "debug=fast", "+a.b=1"]
    assert sig(composer, argv) == sig(composer, argv[::-1])


def test_naming_a_default_changes_nothing(composer: Composer):
    default = sig(composer, [])
    for argv in (
        ["data=digits"],
        ["optim.lr=0.05"],
        ["seed=0"],
        ["tag=null"],
        ["data=digits", "optim.name=sgd"],
    ):
        assert sig(composer, argv) == default, argv


@pytest.mark.parametrize("group", ["debug", "experiment"])
def test_a_group_of_nothing(composer: Composer, group: str):
    """Beside another task, the direction of `best.metric` is looked for in all files."""
    assert sig(composer, ["task=text", f"{group}=null"]) == sig(composer, ["task=text"])
    layers = composer.layers(["task=text", f"{group}=null"])
    assert layers == composer.layers(["task=text"])
    for nothing in ("false", "0", "[]"):  # a grid: for debug in [False, "fast"]
        assert sig(composer, [f"{group}={nothing}"]) == sig(composer, [])


def test_the_last_of_a_key_counts(composer: Composer):
    assert sig(composer, ["seed=1", "seed=2"]) == sig(composer, ["seed=2"])


def test_an_alias_is_no_difference_of_its_own(tmp_path: Path):
    (tmp_path / "config.yaml").write_text("a: 1\nb:\n  c: 2.0\n")
    before = Composer(tmp_path, "config", "1.3").compose(["a=5"]).delta
    (tmp_path / "config.yaml").write_text("a: 1\nb:\n  c: 2.0\nalias: ${a}\n")
    assert Composer(tmp_path, "config", "1.3").compose(["a=5"]).delta == before == [("a", 5)]


def test_a_key_taken_away_counts(composer: Composer):
    assert composer.compose(["~tag"]).delta == [("~tag", None)]


def test_what_stock_trips_over_has_a_signature(composer: Composer):
    def delta(*argv: str):
        return composer.compose(list(argv)).delta

    assert delta("tag=???") == [("tag", "???")]
    assert delta("tag=${hydra:runtime.choices.data}") == [("tag", "digits")]
    assert delta("debug=fast", "tag=${hydra:runtime.choices.debug}") == [
        ("debug", "fast"),
        ("tag", "fast"),
    ]
    assert delta("model_args=null") == [("model_args", None)] and delta("optim=null") == [
        ("optim", None)
    ]
    assert delta("~optim.lr") == [("~optim.lr", None)] and delta("debug=null") == []
    for text in ("é", "a\tb", "a\\b", "a'b", 'a"b', "a, b = {c}"):
        assert delta(f"tag={quoted(text)}") == [("tag", text)], text
    with pytest.raises(UserError, match="data=null: one is needed"):
        delta("data=null")


def test_a_failed_override_changes_no_later_one(composer: Composer):
    before = sig(composer, ["optim.lr=0.3"])
    for wrong in (
        ["optim.lr=abc"],
        ["optim={lx: 3}"],
        ["nonsense=1"],
        ["optim.lr=${nowhere}"],
        ["debug=nonsense"],
    ):
        with pytest.raises(UserError):
            composer.compose(wrong)
    assert sig(composer, ["optim.lr=0.3"]) == before


@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers(-(2**53), 2**53)
        | st.floats(allow_nan=False)
        | st.text(max_size=12),
        lambda inner: st.lists(inner, max_size=3),
        max_leaves=5,
    )
)
@settings(max_examples=200)
def test_a_grids_value_arrives_as_it_is(value):
    from hydra.core.override_parser.overrides_parser import OverridesParser

    assert OverridesParser.create().parse_override(f"key={quoted(value)}").value() == value


def test_numpy_scalars_and_inf_in_grids():
    assert (
        quoted(np.float32(0.5)) == "0.5"
        and quoted(np.int64(3)) == "3"
        and quoted(np.bool_(True)) == "true"
    )
    assert float(quoted(math.inf)) == math.inf
    with pytest.raises(UserError, match="cannot hold"):
        quoted(object())


def test_flatten_and_back():
    config = {"a": {"b": 1, "c": {}}, "d": [1, {"e": 2}]}
    assert unflatten(list(flatten(config))) == config
    assert merged({"a": {"b": 1, "c": 2}}, {"a": {"b": 3}}) == {"a": {"b": 3, "c": 2}}
    assert split({"a": 1, "slurm": {"gpus": 1}, "b": {"c": 2}}, ["slurm.*", "a"]) == (
        {"b": {"c": 2}},
        {"a": 1, "slurm": {"gpus": 1}},
    )


def test_a_configuration_is_made_of_values_when_it_is_asked_for(composer: Composer):
    composed = composer.compose(["optim.lr=1", "tag=${seed}"])
    xp = XP(dora_config(), composed.values, composed.argv, composed.delta)
    assert xp.values["optim"]["lr"] == 1.0 and xp.values["tag"] == 0
    assert xp.cfg.optim.lr == 1.0 and xp.cfg is xp.cfg
    xp.values = {"optim": {"lr": 2.0}}
    assert xp.cfg.optim.lr == 2.0


def test_what_follows_an_override_sees_it(composer: Composer):
    assert composer.compose(["optim=null", "+optim.lr=3"]).values["optim"] == {"lr": 3}
    with pytest.raises(UserError, match='unknown key "optim.lr"'):
        composer.compose(["optim=null", "optim.lr=3"])
    assert composer.compose(["+a={b: 1}", "a.b=2"]).values["a"] == {"b": 2}
