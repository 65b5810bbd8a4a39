"""Which columns of a table fit into the width of a terminal. board.py asks, and draws them."""

from collections.abc import Callable, Iterable, Mapping, Sequence

from .columns import Column

GAP = 2  # columns of the terminal between two of the table
# to how many characters each may shrink: the state shrinks before the others
SHRINKABLE: dict[tuple[str, ...], int] = {
    ("Meta", "state"): 11,
    ("Meta", "name"): 18,
    ("Meta", "what"): 24,
}
FOLDED = (("Meta", "name"), ("Meta", "what"))  # they go on in the next line, and are never cut
# Left out one by one, from the first, if cutting is not enough: these, then metrics, then the last.
SPARE = [("Meta", "code"), ("Meta", "speed"), ("Meta", "left"), ("Meta", "sid")]
LAST_SPARE = [("Meta", "mark"), ("Meta", "interval"), ("Meta", "behind")]

LIST = [("Meta", "what")]  # a list of values, which is folded before titles are stacked

Widest = Callable[[Column], int]  # the width that a column needs to be shown whole


def fitting(
    columns: list[Column], compared: Column | None, widest: Widest, width: int
) -> tuple[list[Column], list[Column]]:
    """The columns that fit into `width`, and those that do not.

    First, titles are stacked. Next, states are cut and names are folded. Then columns are left
    out.

    Args:
        compared: the metric that experiments are compared by, which is never left out.
    """
    whole = _whole(columns, widest)
    for column in _at_paths(LIST, columns):
        whole[column] = min(whole[column], SHRINKABLE[column.path])
    if _total(whole, columns) > width:
        columns = [column.stacked() for column in columns]
    narrowest = _whole(columns, widest)
    for column in _at_paths(list(SHRINKABLE), columns):
        narrowest[column] = min(narrowest[column], SHRINKABLE[column.path])
    shown, hidden = list(columns), []
    for column in _dispensable(columns, compared):
        if _total(narrowest, shown) <= width:
            break
        shown.remove(column)
        hidden.append(column)
    return shown, hidden


def _dispensable(columns: Sequence[Column], compared: Column | None) -> list[Column]:
    """The columns that may be left out, in the order in which they go."""
    kept = compared.path if compared else ()
    metrics = [column for column in columns if not column.ours and column.path != kept]
    metrics.sort(key=lambda column: column.path[0] != "train")  # those of training go first
    return [*_at_paths(SPARE, columns), *metrics, *_at_paths(LAST_SPARE, columns)]


def widths(columns: Sequence[Column], widest: Widest, width: int) -> dict[Column, int]:
    """How wide each column may be, so that all of them fit into `width` if possible."""
    found = _whole(columns, widest)
    for column in _at_paths(list(SHRINKABLE), columns):
        over = _total(found, columns) - width
        found[column] -= max(0, min(over, found[column] - SHRINKABLE[column.path]))
    return found


def _whole(columns: Sequence[Column], widest: Widest) -> dict[Column, int]:
    return {column: widest(column) for column in columns}


def _total(widths: Mapping[Column, int], columns: Sequence[Column]) -> int:
    """The width of a table with these columns."""
    return sum(widths[column] for column in columns) + GAP * (len(columns) - 1)


def _at_paths(paths: Sequence[tuple[str, ...]], columns: Iterable[Column]) -> list[Column]:
    """The columns at these paths, in the order of the paths."""
    found = [column for column in columns if column.path in paths]
    return sorted(found, key=lambda column: paths.index(column.path))


def named(columns: Iterable[Column]) -> str:
    """The titles of columns, each in one line."""
    return ", ".join(" ".join(column.title.split()) for column in columns)
