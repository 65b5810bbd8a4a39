"""Thousands of records in columns, for a page of many runs: each key and each text is there once.

The script `compact.js` makes the same records of them.
"""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

SIG = "\0"  # stands for the signature of a record in its texts
Records = Sequence[Mapping[str, Any]]


class _Absent:
    """In the place of a key that a record does not have."""


ABSENT = _Absent()


def compact(records: Records, sigs: Sequence[str] = ()) -> dict[str, Any]:
    """`{"count": number of records, "columns": {key: column}}`. The keys keep their order.

    A column is one of these:

    - `{"same": value}`: all records have it
    - `{"each": [values]}`: one for each record
    - `{"of": [values], "at": [places]}`: for each record the place of its value, -1 if it has none
    - `{"rows": ...}`: the values are records themselves
    - `{"sig": column}`: of texts in which a zero character stands for the record's signature

    Args:
        sigs: the signature of each record. Empty: the records have none.
    """
    keys = dict.fromkeys(key for record in records for key in record)
    columns = {}
    for key in keys:
        columns[key] = _column([record.get(key, ABSENT) for record in records], sigs)
    return {"count": len(records), "columns": columns}


def _column(values: Sequence[Any], sigs: Sequence[str]) -> dict[str, Any]:
    kinds = set(map(type, values))
    if kinds == {dict}:
        return {"rows": compact(values, sigs)}
    if kinds == {str} and sigs and all(sig in value for sig, value in zip(sigs, values)):
        texts = [value.replace(sig, SIG) for sig, value in zip(sigs, values)]
        if texts[0] != SIG:  # the column of the signatures themselves
            return {"sig": _column(texts, ())}
    if kinds <= {str, int, float, bool, type(None), _Absent}:
        return _of_few(values)
    return {"each": [None if value is ABSENT else value for value in values]}


def _of_few(values: Sequence[Hashable]) -> dict[str, Any]:
    """The column of values that may repeat, or be absent."""
    places: dict[tuple[type, Hashable], int] = {}  # with the type: for Python, true is 1
    at = []
    for value in values:
        place = -1
        if value is not ABSENT:
            place = places.setdefault((type(value), value), len(places))
        at.append(place)
    known = [value for _, value in places]
    if -1 not in at:
        if len(known) == 1:
            return {"same": known[0]}
        if len(known) > len(values) // 2:
            return {"each": list(values)}
    return {"of": known, "at": at}
