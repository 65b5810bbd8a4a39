"""The text of a grid file as a person would write it, for `dora_train.sweep` and the report.

Its last line holds a checksum of the text above it. So `dora_train.sweep` overwrites a file of its
own, but not one that was edited since.
"""

import hashlib
import itertools
import keyword
import math
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

WIDTH, INDENT = 120, " " * 4
SEAL = "# Written by python -m dora_train.sweep, which writes it anew until you edit it ({}).\n"
RESERVED = {"launcher", "explorer", "case", "range", "float"}  # names that the text itself uses


@dataclass(frozen=True)
class Axis:
    """One key, and the values it takes in turn."""

    key: str
    values: Sequence[Any]  # a range is written as `range(...)`


@dataclass(frozen=True)
class Design:
    """What a grid varies: every case with every combination of the axes.

    All experiments have the shared overrides.
    """

    shared: Mapping[str, Any] = field(default_factory=dict)
    removed: Sequence[str] = ()  # overrides without a value: "~optim.momentum"
    cases: Sequence[Mapping[str, Any]] = ()  # empty: one case without overrides
    axes: Sequence[Axis] = ()

    def points(self) -> Iterator[list[Any]]:
        """The overrides of each experiment, as a launcher takes them, in the order of the grid
        file."""
        keys = [axis.key for axis in self.axes]
        for case in self.cases or [{}]:
            for values in itertools.product(*(axis.values for axis in self.axes)):
                yield [*self.removed, dict(self.shared), dict(case), dict(zip(keys, values))]

    @property
    def size(self) -> str:
        """`3 x 2 = 6 experiments`."""
        sizes = [len(axis.values) for axis in self.axes]
        if self.cases:
            sizes.insert(0, len(self.cases))
        total = math.prod(sizes)
        text = "1 experiment" if total == 1 else f"{total} experiments"
        if len(sizes) < 2:
            return text
        return f"{' x '.join(map(str, sizes))} = {text}"


def grid_text(design: Design) -> str:
    """The text of the whole grid file."""
    lines = [
        f'"""{_question(design)}"""',
        "",
        "from dora_train.explorers import MainMetrics",
        "",
        "",
        "@MainMetrics",
        "def explorer(launcher):",
        *_body(design),
    ]
    text = "\n".join(lines) + "\n"
    return f"{text}\n\n{SEAL.format(_checksum(text))}"


def is_untouched(text: str) -> bool:
    """Whether a file is as `grid_text` made it, also by an earlier version."""
    body, _, seal = text.rpartition("\n\n\n")
    return seal == SEAL.format(_checksum(body + "\n"))


def _checksum(text: str) -> str:
    # Undecoded bytes of a command are lone surrogates, which utf-8 refuses by itself.
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:8]


def _question(design: Design) -> str:
    """The docstring of the file: which keys it varies, in how many experiments."""
    keys = list(
        dict.fromkeys([*itertools.chain(*design.cases), *(axis.key for axis in design.axes)])
    )
    if not keys:
        return "A single experiment."
    *others, last = keys
    named = f"{', '.join(others)} and {last}" if others else last
    text = f"What does it change to vary {named}? {design.size}."
    text = text.replace("\\", "\\\\").replace('"', '\\"')
    return "\n".join(textwrap.wrap(text, WIDTH - 6, break_long_words=False, break_on_hyphens=False))


def _body(design: Design) -> list[str]:
    """The lines of the function `explorer`."""
    lines, arguments, items, margin = [], [], [], INDENT
    shared = list(map(literal, design.removed))
    if design.shared:
        shared.append(literal(design.shared))
    if shared:
        lines += _wrapped(f"{margin}launcher.bind_(", shared, ")")
    if design.cases:
        cases = [f"{margin}{INDENT}{literal(case)}," for case in design.cases]
        lines += [f"{margin}for case in [", *cases, f"{margin}]:"]
        margin += INDENT
        arguments.append("case")
    names = variables([axis.key for axis in design.axes])
    for name, axis in zip(names, design.axes):
        lines += _loop(f"{margin}for {name} in ", axis.values)
        margin += INDENT
        items.append(f"{literal(axis.key)}: {name}")
    if items:
        arguments.append("{" + ", ".join(items) + "}")
    return [*lines, *_wrapped(f"{margin}launcher(", arguments, ")")]


def _loop(start: str, values: Sequence[Any]) -> list[str]:
    """The head of a `for` loop."""
    if isinstance(values, range):
        return [f"{start}{_range(values)}:"]
    return _wrapped(f"{start}[", list(map(literal, values)), "]:")


def _range(values: range) -> str:
    if values.step != 1:
        return f"range({values.start}, {values.stop}, {values.step})"
    if values.start:
        return f"range({values.start}, {values.stop})"
    return f"range({values.stop})"


def _wrapped(start: str, parts: Sequence[str], end: str) -> list[str]:
    """The parts between `start` and `end`: on one line if that is short enough, else a line each."""
    line = start + ", ".join(parts) + end
    if len(line) <= WIDTH:
        return [line]
    margin = " " * (len(start) - len(start.lstrip()))
    return [start, *(f"{margin}    {part}," for part in parts), f"{margin}{end}"]


def variables(keys: Sequence[str]) -> list[str]:
    """A Python name for each key, no two alike.

    It is the key's last part, if that is a name and no other key has it.

    >>> variables(["optim.lr", "model", "schedule.name", "optim.name"])
    ['lr', 'model', 'schedule_name', 'optim_name']
    """
    short = [_identifier(key.rpartition(".")[2]) for key in keys]
    wanted = list(short)
    for place, key in enumerate(keys):
        if short.count(wanted[place]) > 1:
            wanted[place] = _identifier(key)
    names: list[str] = []
    for place, name in enumerate(wanted):
        taken = {*names, *wanted[:place], *wanted[place + 1 :]}
        names.append(_free_name(name, place, taken))
    return names


def _free_name(name: str, number: int, taken: set[str]) -> str:
    """`name` itself if it is free, else `name_N` with the first N from `number` on that is free."""
    free = name
    while free in taken:
        free = f"{name}_{number}"
        number += 1
    return free


def _identifier(text: str) -> str:
    """A Python name that is like `text`."""
    name = re.sub(r"\W", "_", text, flags=re.ASCII).strip("_") or "value"
    if name[0].isdigit() or keyword.iskeyword(name) or name in RESERVED:
        return f"value_{name}"
    return name


def literal(value: object) -> str:
    """Python that gives `value` back, with text in double quotes.

    >>> literal({"optim.lr": 0.1, "logger": ["csv"], "tag": None})
    '{"optim.lr": 0.1, "logger": ["csv"], "tag": None}'
    """
    if isinstance(value, Mapping):
        items = [f"{literal(key)}: {literal(inner)}" for key, inner in value.items()]
        return "{" + ", ".join(items) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(literal, value)) + "]"
    if isinstance(value, float) and not math.isfinite(value):
        return f'float("{value}")'
    text = repr(value)
    if isinstance(value, str) and text[0] == "'" and '"' not in text:
        return f'"{text[1:-1]}"'
    return text
