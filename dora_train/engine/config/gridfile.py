"""The text of a grid file, as a person would have written it: what `dora_train.sweep` leaves in
grids/.

Pure: from what is to be varied to Python. The last line holds a checksum of all above it, so that a
file that nobody has edited since can be told from one that is somebody's work.
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

WIDTH = 120
SEAL = "# Written by python -m dora_train.sweep, which writes it anew until you edit it ({}).\n"
TAKEN = {"launcher", "explorer", "case", "range", "float"}  # names that the text itself uses


@dataclass(frozen=True)
class Axis:
    """One key, and the values it takes in turn."""

    key: str
    values: Sequence[Any]  # a range stays one


@dataclass(frozen=True)
class Design:
    """What a grid varies: every case with every combination of the axes, all with the shared
    overrides."""

    shared: Mapping[str, Any] = field(default_factory=dict)
    removed: Sequence[str] = ()  # overrides without a value: "~optim.momentum"
    cases: Sequence[Mapping[str, Any]] = ()  # empty: one, that changes nothing
    axes: Sequence[Axis] = ()

    def points(self) -> Iterator[list[Any]]:
        """The overrides of each experiment, as a launcher takes them, in the order of the grid
        file."""
        for case in self.cases or [{}]:
            for values in itertools.product(*(axis.values for axis in self.axes)):
                own = dict(zip((axis.key for axis in self.axes), values))
                yield [*self.removed, dict(self.shared), dict(case), own]

    @property
    def size(self) -> str:
        """`3 x 2 = 6 experiments`."""
        sizes = [len(self.cases)] * bool(self.cases) + [len(axis.values) for axis in self.axes]
        total = math.prod(sizes)
        product = f"{' x '.join(map(str, sizes))} = " if len(sizes) > 1 else ""
        return f"{product}{total} experiment{'s' * (total != 1)}"


def grid_text(design: Design) -> str:
    """The whole file."""
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
    """Whether a file is as `grid_text` made it, today or before."""
    body, _, seal = text.rpartition("\n\n\n")
    return seal == SEAL.format(_checksum(body + "\n"))


def _checksum(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:8]


def _question(design: Design) -> str:
    keys = list(
        dict.fromkeys(
            [key for case in design.cases for key in case] + [axis.key for axis in design.axes]
        )
    )
    if not keys:
        return "A single experiment."
    named = ", ".join(keys[:-1]) + " and " * (len(keys) > 1) + keys[-1]
    text = f"What does it change to vary {named}? {design.size}."
    text = text.replace("\\", "\\\\").replace('"', '\\"')
    return "\n".join(textwrap.wrap(text, WIDTH - 6, break_long_words=False, break_on_hyphens=False))


def _body(design: Design) -> list[str]:
    lines = []
    shared = [literal(text) for text in design.removed] + (
        [literal(design.shared)] if design.shared else []
    )
    if shared:
        lines += _wrapped("    launcher.bind_(", shared, ")")
    depth = 1
    if design.cases:
        lines += [
            "    for case in [",
            *(f"        {literal(case)}," for case in design.cases),
            "    ]:",
        ]
        depth += 1
    names = variables([axis.key for axis in design.axes])
    for name, axis in zip(names, design.axes):
        lines += _loop("    " * depth + f"for {name} in ", axis.values)
        depth += 1
    own = ", ".join(f"{literal(axis.key)}: {name}" for name, axis in zip(names, design.axes))
    arguments = ["case"] * bool(design.cases) + [f"{{{own}}}"] * bool(own)
    return [*lines, *_wrapped("    " * depth + "launcher(", arguments, ")")]


def _loop(start: str, values: Sequence[Any]) -> list[str]:
    if isinstance(values, range):
        return [f"{start}{_range(values)}:"]
    return _wrapped(f"{start}[", [literal(value) for value in values], "]:")


def _range(values: range) -> str:
    if values.step != 1:
        return f"range({values.start}, {values.stop}, {values.step})"
    return f"range({values.start}, {values.stop})" if values.start else f"range({values.stop})"


def _wrapped(start: str, parts: Sequence[str], end: str) -> list[str]:
    """On one line where that is short enough, else a part a line."""
    line = start + ", ".join(parts) + end
    if len(line) <= WIDTH:
        return [line]
    margin = " " * (len(start) - len(start.lstrip()))
    return [start, *(f"{margin}    {part}," for part in parts), f"{margin}{end}"]


def variables(keys: Sequence[str]) -> list[str]:
    """A Python name for each key, no two alike: the key's last part, if that is a name and no other
    key has it.

    >>> variables(["optim.lr", "model", "schedule.name", "optim.name"])
    ['lr', 'model', 'schedule_name', 'optim_name']
    """
    short = [_identifier(key.rpartition(".")[2]) for key in keys]
    wanted = [
        name if short.count(name) == 1 else _identifier(key) for key, name in zip(keys, short)
    ]
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
    name = re.sub(r"\W", "_", text, flags=re.ASCII).strip("_") or "value"
    return (
        f"value_{name}" if name[0].isdigit() or keyword.iskeyword(name) or name in TAKEN else name
    )


def literal(value: Any) -> str:
    """Python that gives `value` back, text in double quotes.

    >>> literal({"optim.lr": 0.1, "logger": ["csv"], "tag": None})
    '{"optim.lr": 0.1, "logger": ["csv"], "tag": None}'
    """
    if isinstance(value, Mapping):
        return (
            "{"
            + ", ".join(f"{literal(key)}: {literal(inner)}" for key, inner in value.items())
            + "}"
        )
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(literal, value)) + "]"
    if isinstance(value, float) and not math.isfinite(value):
        return f'float("{value}")'
    text = repr(value)
    return (
        f'"{text[1:-1]}"' if isinstance(value, str) and text[0] == "'" and '"' not in text else text
    )
