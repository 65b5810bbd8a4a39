"""The part of a code that can change the numbers of a run, and its short name: `tag=code@1a2b3c4d5e`.

Counted are the Python modules that a run imports and the files beside them. Comments, docstrings
and formatting do not count. Of the engine, only the folders in `ENGINE_COUNTS` count: the others
name, store, submit and show runs. `conf/` counts for a tag, without its recipes and without keys
that do not count in a signature: a recipe counts by its values.

It is pure: it reads no file. todays_code.py calls it.
"""

import ast
import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import yaml

from ..config.compose import PRESET
from ..config.values import flatten, is_excluded
from .project import PYTHON
from .snapshot import Files

CODE = "@code"  # what a user writes: `tag=@code`
PREFIX = "code@"  # what it becomes
DIGITS = 10  # hexadecimal: two of 1,000 codes share a name with a chance of one in two million
ENGINE = "dora_train/engine/"
ENGINE_COUNTS = (f"{ENGINE}run/", f"{ENGINE}upstream/")
PACKAGE_LINE = re.compile(r"^#\s*@package\s+(\S+)", re.MULTILINE)  # Hydra's: a comment that counts

_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast, if it is there


def is_tag(tag: object) -> bool:
    """Whether a tag names a code."""
    return isinstance(tag, str) and tag.startswith(PREFIX)


def tag_of(parts: Mapping[str, str]) -> str:
    """The tag of the code with these parts, as `python_parts` and `conf_parts` give them."""
    text = json.dumps(sorted(parts.items()))
    return PREFIX + hashlib.sha256(text.encode()).hexdigest()[:DIGITS]


# --- Python ---


def python_parts(files: Files, main: str, values: Mapping[str, Any]) -> dict[str, str]:
    """A hash of the meaning of each file that counts, by path.

    Args:
        files: of the project.
        main: the path of the module that a run starts in. All Python counts if it is not there.
        values: the configuration. It may name further modules: `task: text`, `_target_: my.Loss`.
    """
    imported = _imported(files, main, frozenset(texts(values)))
    parts = {}
    for path in imported:
        parts[path] = _read(path, files[path][0]).digest
    folders = {path.rpartition("/")[0] for path in imported} - {""}
    for path, (content, _) in files.items():
        beside = path.rpartition("/")[0] in folders and not path.endswith(PYTHON)
        if beside and _counts(path):
            parts[path] = _hash(content)
    return parts


def _counts(path: str) -> bool:
    return not path.startswith(ENGINE) or path.startswith(ENGINE_COUNTS)


def _imported(files: Files, main: str, texts: Iterable[str]) -> set[str]:
    """The paths of the modules that a run may import."""
    modules = _modules(files)
    if main not in files:
        return {path for path in modules.values() if _counts(path)}
    found: set[str] = set()
    entered = {main}
    while entered:
        found |= entered
        names: set[str] = set()
        folders = {""}  # those whose modules a value may name
        for path in found:
            module = _read(path, files[path][0])
            names |= module.imports
            if module.by_name:
                folders.add(module.package)
        for text in texts:
            names.update(f"{folder}.{text}".lstrip(".") for folder in folders)
        entered = set(_paths(names, modules)) - found
    return found | _parents(files, modules, found)


def _paths(names: Iterable[str], modules: Mapping[str, str]) -> Iterator[str]:
    """The paths of the modules that these names stand for, if they count.

    `a.b.Name` is in the module `a.b`, if it is no module itself.
    """
    for name in names:
        path = modules.get(name) or modules.get(name.rpartition(".")[0])
        if path and _counts(path):
            yield path


def _parents(files: Files, modules: Mapping[str, str], found: Iterable[str]) -> set[str]:
    """The packages around modules, and what they import when they are themselves imported."""
    parents: set[str] = set()
    left = [path.removesuffix("/__init__.py") for path in found]
    while left:
        folder = left.pop().rpartition("/")[0]
        path = modules.get(folder.replace("/", "."), "")
        if not path or path in parents or not _counts(path):
            continue
        parents.add(path)
        left.append(folder)
        for imported in _paths(_read(path, files[path][0]).at_import, modules):
            parents.add(imported)
            left.append(imported)
    return parents


def _modules(files: Files) -> dict[str, str]:
    """The path of each module, by its dotted name."""
    found = {}
    for path in files:
        if path.endswith(PYTHON):
            folder, _, name = path.rpartition("/")
            # the name of a compiled module goes on: `fast.cpython-311-x86_64-linux-gnu.so`
            name = name.partition(".")[0]
            dotted = f"{folder.replace('/', '.')}.{name}".lstrip(".")
            found[dotted.removesuffix(".__init__")] = path
    return found


def texts(value: object) -> Iterator[str]:
    """All texts in a configuration."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from texts(inner)


def counted_texts(
    values: Mapping[str, Any], exclude: Sequence[str], prefix: str = ""
) -> Iterator[str]:
    """The texts of the part of a configuration that counts in the signature."""
    for key, value in values.items():
        if isinstance(value, dict):
            yield from counted_texts(value, exclude, f"{prefix}{key}.")
        elif isinstance(value, (str, list)) and not is_excluded(f"{prefix}{key}", exclude):
            yield from texts(value)


@dataclass(frozen=True)
class _Module:
    """The meaning of one file."""

    digest: str
    package: str = ""  # the dotted name of its folder
    imports: frozenset[str] = frozenset()  # names that may be modules, also those in functions
    at_import: frozenset[str] = frozenset()  # those of them outside of functions
    by_name: bool = False  # it imports a module whose name is not in the file


@lru_cache(maxsize=20_000)
def _read(path: str, content: bytes) -> _Module:
    """Read a Python file. A file that is no Python counts by its bytes."""
    package = path.rpartition("/")[0].replace("/", ".")
    try:
        tree = ast.parse(content)
    except (SyntaxError, ValueError):
        return _Module(_hash(content), package)
    nodes = list(_walk(tree, functions=True))
    by_name = any(_imports_by_name(node) for node in nodes)
    imports = frozenset(_names(nodes, package))
    at_import = frozenset(_names(_walk(tree, functions=False), package))
    _remove_docstrings(nodes)
    return _Module(_hash(ast.unparse(tree).encode()), package, imports, at_import, by_name)


def _walk(tree: ast.AST, functions: bool) -> Iterator[ast.AST]:
    """The nodes of a tree, without imports for types alone.

    Args:
        functions: enter functions, too.
    """
    left = [tree]
    while left:
        node = left.pop()
        yield node
        for inner in ast.iter_child_nodes(node):
            if isinstance(inner, ast.If) and _is_for_types(inner.test):
                continue
            if functions or not isinstance(inner, (ast.FunctionDef, ast.AsyncFunctionDef)):
                left.append(inner)


def _is_for_types(test: ast.expr) -> bool:
    return _last_name(test) == "TYPE_CHECKING"


def _last_name(node: ast.expr) -> str:
    """`b` of the expressions `b` and `a.b`. Empty for all others."""
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def _names(nodes: Iterable[ast.AST], package: str) -> Iterator[str]:
    """The names that import statements may import as modules."""
    for node in nodes:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = package.split(".")
                base = ".".join([*parts[: len(parts) - node.level + 1], *filter(None, [base])])
            for alias in node.names:
                yield f"{base}.{alias.name}"


def _imports_by_name(node: ast.AST) -> bool:
    """Whether a node calls `import_module` or `__import__`."""
    if not isinstance(node, ast.Call):
        return False
    return _last_name(node.func) in ("import_module", "__import__")


def _remove_docstrings(nodes: Iterable[ast.AST]) -> None:
    for node in nodes:
        if not isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        if ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:] or [ast.Pass()]


# --- the configuration ---


def conf_parts(files: Files, folder: str, exclude: Sequence[str]) -> dict[str, str]:
    """A hash of the values in each file of the configuration, by path.

    Args:
        folder: of the configuration, e.g. "conf".
        exclude: patterns of the keys that do not count.
    """
    parts = {}
    for path, (content, _) in files.items():
        name = path.removeprefix(f"{folder}/")
        if name != path and not name.startswith(f"{PRESET}/"):
            parts[path] = _hash_of_values(name, content, exclude)
    return parts


def _hash_of_values(name: str, content: bytes, exclude: Sequence[str]) -> str:
    """The hash of a file's values that count. A file that is no YAML counts by its bytes."""
    text = content.decode(errors="replace")
    try:
        values = yaml.load(text, _Loader)  # a safe loader, see above
    except yaml.YAMLError:
        return _hash(content)
    if not isinstance(values, Mapping):
        return _hash(json.dumps(values, default=str).encode())
    package = name.rpartition("/")[0].replace("/", ".")
    if line := PACKAGE_LINE.search(text):
        package = line[1]
    prefix = f"{package}."
    if package in ("", "_global_"):
        prefix = ""
    keys = _with_text_keys(values)
    counted = [pair for pair in flatten(keys, prefix) if not is_excluded(pair[0], exclude)]
    return _hash(json.dumps(sorted(counted, key=str), default=str).encode())


def _with_text_keys(value: Mapping[Any, Any]) -> dict[str, Any]:
    """The same values with keys that are text: YAML has others, too."""
    found: dict[str, Any] = {}
    for key, inner in value.items():
        found[str(key)] = _with_text_keys(inner) if isinstance(inner, Mapping) else inner
    return found


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
