"""The values that the engine's own keys take, beyond the type of their default.

They are checked before a folder is made: when overrides come in (`experiment/lookup.py`), when an
experiment is made (`experiment/early_checks.py`), and at each start (`run/checks.py`). The
researcher's keys (data, model, optim, schedule, loss) have checks of their own, see train.py.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from ..errors import UserError
from .keys import MISSING, at, unknown
from .quoting import unquoted
from .values import is_number


class Rule(NamedTuple):
    """One condition on a value."""

    words: str  # the message for a value that does not fit
    fits: Callable[[Any], bool]


def _is_whole(value: object) -> bool:
    return is_number(value) and isinstance(value, int)


def _is_time(value: object) -> bool:
    """Whether Lightning's Timer may take it.

    Any text passes: of one in another format, Lightning's own error is clear.
    """
    if isinstance(value, Mapping):
        return bool(value) and all(is_number(part) and part >= 0 for part in value.values())
    return isinstance(value, str)


def _is_longer_than_none(time: str | Mapping[str, float]) -> bool:
    if isinstance(time, str):
        return bool(time.strip("0:"))
    return any(time.values())


def _is_list_of_text(value: object) -> bool:
    if isinstance(value, str) or not isinstance(value, Sequence):
        return False
    return all(isinstance(one, str) for one in value)


def _is_metric(value: object) -> bool:
    split, _, name = str(value).partition(".")
    return split in ("train", "valid") and bool(name)


def at_least(least: int) -> Rule:
    return Rule(f"it takes {least} or more.", lambda value: value >= least)


def at_most(most: int) -> Rule:
    return Rule(f"it takes no more than {most:,}.", lambda value: value <= most)


def one_of(*words: str) -> Rule:
    return Rule(f"it is {', '.join(words[:-1])} or {words[-1]}.", lambda value: value in words)


def blank_or(*rules: Rule) -> tuple[Rule, ...]:
    """The same rules for a key that may be blank."""
    return tuple(Rule(rule.words, _blank_or(rule.fits)) for rule in rules)


def _blank_or(fits: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or fits(value)


def _joined(value: object) -> str:
    """`2,3` for [2, 3]. A space after a comma means nothing."""
    parts = value if isinstance(value, Sequence) and not isinstance(value, str) else [value]
    return ",".join(map(str, parts)).replace(", ", ",")


TEXT = Rule("it takes text.", lambda value: isinstance(value, (str, int, float)))
SWITCH = Rule("it takes true or false.", lambda value: isinstance(value, bool))
NUMBER = Rule("it takes a number, 0 or more.", lambda value: is_number(value) and value >= 0)
WHOLE = Rule("it takes a whole number.", _is_whole)
ABOVE_0 = Rule("it takes more than 0.", lambda value: value > 0)
SOMETHING = Rule("nothing would be trained.", lambda value: value != 0)
SHARE = Rule(
    "it takes a fraction of an epoch, at most 1.0, or a whole number of batches.",
    lambda value: value <= 1 or float(value).is_integer(),
)
TIME = Rule("it takes DD:HH:MM:SS, e.g. 00:01:30:00 for an hour and a half.", _is_time)
SOME_TIME = Rule("nothing would be trained.", _is_longer_than_none)
METRIC = Rule("it is a metric of history.json, e.g. valid.acc or train.loss.", _is_metric)
EPOCHS = Rule(
    "it takes a whole number of epochs, or null for none.",
    lambda value: _is_whole(value) and value >= 1,
)
DECAY = Rule(
    "it takes a number between 0 and 1, e.g. 0.999, or null for none.",
    lambda value: isinstance(value, float) and 0 < value < 1,
)
CODE = Rule(
    "a job runs a snapshot, or the live files: code=snapshot or code=live.",
    lambda value: value in ("snapshot", "live"),
)
MODULES = Rule(
    "it takes a list of modules, e.g. local.preload=[transformers].",
    _is_list_of_text,
)
GPUS = Rule(
    "it takes GPUs as CUDA names them, e.g. local.gpus=2,3.",
    lambda value: bool(re.fullmatch(r"[\w/-]+(,[\w/-]+)*", _joined(value))),
)
CHANNELS = Rule(
    "it takes an address of apprise (ntfy://topic), a line of shell, or a list of them.",
    lambda value: isinstance(value, str) or _is_list_of_text(value),
)
A_JOB = "a job needs at least 0 GPUs and 1 node."
MANY = at_most(1_000_000)  # with larger numbers, the arithmetic of a library or SLURM overflows
THREADS = at_most(1024)  # the system ends a process that asks for too many, without a message


def _keys(section: str, names: str) -> list[str]:
    return [f"{section}.{name}" for name in names.split()]


TAKES: dict[str, tuple[Rule, ...]] = {
    "threads": (WHOLE, at_least(1), THREADS),
    "deterministic": (SWITCH,),
    "matmul_precision": (one_of("highest", "high", "medium"),),
    "best.metric": (METRIC,),
    "best.mode": (one_of("max", "min"),),
    "early_stopping.patience": blank_or(EPOCHS),
    "ema.decay": blank_or(DECAY),
    "checkpoint.keep": (one_of("all", "last", "best"),),
    "checkpoint.every_epochs": (WHOLE, at_least(1)),
    "checkpoint.every_minutes": (NUMBER,),
    "cluster": (one_of("auto", "slurm", "local"),),
    "code": (CODE,),
    "local.jobs": blank_or(WHOLE, at_least(1)),
    "local.per_gpu": (WHOLE, at_least(1), MANY),
    "local.warm": (SWITCH,),
    "local.preload": (MODULES,),
    "local.gpus": blank_or(GPUS),
    "notify": blank_or(CHANNELS),
    "retry.oom": (WHOLE, at_least(0), at_most(20)),
    "retry.gpu": blank_or(TEXT),
    "job.nodes": (WHOLE, Rule(A_JOB, lambda value: value >= 1), MANY),
    "job.tasks_per_node": blank_or(WHOLE, at_least(1), MANY),
    "job.pack": (WHOLE, at_least(1), MANY),
    "job.at_once": (WHOLE, at_least(1), at_most(1000)),
    "slurm.gpus": (WHOLE, Rule(A_JOB, lambda value: value >= 0), MANY),
    "slurm.cpus_per_gpu": (WHOLE, at_least(1), MANY),
    "slurm.cpus_per_task": blank_or(WHOLE, at_least(1), MANY),
    "slurm.mem_per_gpu": (NUMBER, MANY),
    "slurm.time": (WHOLE, at_least(1), at_most(10_000_000)),
    **dict.fromkeys(_keys("slurm", "partition account qos constraint comment"), blank_or(TEXT)),
    # Lightning's Trainer. Values that it refuses with a clear message are left to it
    # (run/checks.py).
    **dict.fromkeys(_keys("trainer", "max_epochs max_steps"), blank_or(SOMETHING)),
    **dict.fromkeys(
        _keys("trainer", "min_epochs min_steps log_every_n_steps"), blank_or(WHOLE, at_least(0))
    ),
    "trainer.max_time": blank_or(TIME, SOME_TIME),
    **dict.fromkeys(
        _keys("trainer", "limit_train_batches val_check_interval"),
        blank_or(NUMBER, SHARE, ABOVE_0),
    ),
    **dict.fromkeys(
        _keys("trainer", "limit_val_batches limit_test_batches overfit_batches"),
        blank_or(NUMBER, SHARE),
    ),
    "trainer.check_val_every_n_epoch": blank_or(WHOLE, ABOVE_0),
    "trainer.accumulate_grad_batches": blank_or(WHOLE, ABOVE_0, MANY),
    "trainer.gradient_clip_val": blank_or(NUMBER),
    "trainer.gradient_clip_algorithm": blank_or(one_of("norm", "value")),
    "trainer.num_sanity_val_steps": blank_or(WHOLE, at_least(-1)),
    **dict.fromkeys(
        _keys("trainer", "inference_mode detect_anomaly sync_batchnorm enable_autolog_hparams"),
        blank_or(SWITCH),
    ),
}
TRAINER_TAKES = [key.removeprefix("trainer.") for key in TAKES if key.startswith("trainer.")]
OWN = ("best", "early_stopping", "ema", "checkpoint", "local", "job")  # read by the engine alone


def check_values(values: Mapping[str, Any]) -> None:
    """Check the engine's own keys of a configuration. A key that is not there is left out.

    Raises:
        UserError: a value that no run takes.
    """
    for key, rules in TAKES.items():
        value = at(values, key)
        for rule in rules:
            if value is not MISSING and not rule.fits(value):
                raise UserError(f"{key}={unquoted(value)}: {rule.words}")


def check_changes(delta: Iterable[Sequence[Any]], defaults: Mapping[str, Any]) -> None:
    """Check that overrides remove no key that a run reads, and add none that nothing reads.

    Args:
        delta: the keys that they changed, with their values. `~KEY` is a key that they removed.
        defaults: the configuration without overrides.

    Raises:
        UserError: they do one of the two.
    """
    for key, value in delta:
        if key.startswith("~"):
            raise UserError(
                f"{key}: a key of the configuration cannot be removed, only its value can change."
            )
        default = at(defaults, key)
        if value is None and isinstance(default, Mapping) and default:
            raise UserError(f"{key}=null: its settings are needed.")
        if key.partition(".")[0] in OWN and default is MISSING:
            raise unknown(key, defaults)
