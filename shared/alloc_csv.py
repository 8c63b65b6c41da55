"""Allocation traces as text, for those that a script or a hand writes.

    cpu,op,kind,size,gfp,id             the first line, as it stands here
    0,alloc,kmalloc,512,GFP_ATOMIC,7
    1,alloc,frames,3,GFP_KERNEL|__GFP_ZERO,8
    # a comment; empty lines may be there too
    1,free,,,,7                         what a free frees is said by its id alone

Wrong text is a ``ValueError`` of one line that names the file and the line; what the events say of one another
is checked by shared/alloc_traces.py.
"""

import csv
from array import array
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from shared.alloc_kind import MAX_EVENTS, AllocKind, AllocOp
from shared.gfp_flags import format_gfp, parse_gfp

if TYPE_CHECKING:
    from shared.alloc_traces import AllocTrace

COLUMNS: Final = ("cpu", "op", "kind", "size", "gfp", "id")
_OPS: Final = {op.name.lower(): int(op) for op in AllocOp}
_KINDS: Final = {kind.name.lower(): int(kind) for kind in AllocKind}
_LONGEST_SHOWN: Final = 40
_MAX_NUMBER: Final = (1 << 32) - 1


def read_csv(path: Path) -> dict[str, npt.NDArray[np.int64]]:
    """Return the columns of a text, [E] each. Raises ``ValueError``, one line, for what is none."""
    columns = {name: array("q") for name in COLUMNS}
    known: dict[str, int] = {}  # flags that were read before
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = _rows(path, file)
            head = next(rows, (1, []))[1]
            if tuple(cell.strip() for cell in head) != COLUMNS:
                raise ValueError(f"{path}: the first line is not {','.join(COLUMNS)}")
            for line, row in rows:
                try:
                    _add(columns, row, known)
                except ValueError as error:
                    raise ValueError(f"{path}: line {line}: {error}") from None
                if len(columns["id"]) > MAX_EVENTS:
                    raise ValueError(f"{path}: line {line}: more than {MAX_EVENTS} events")
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror or error}") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path}: not text ({error})") from None
    return {name: np.array(column, np.int64) for name, column in columns.items()}


def write_csv(trace: "AllocTrace") -> Iterator[str]:
    """Yield the lines of a trace's text, each with its end."""
    yield ",".join(COLUMNS) + "\n"
    ops, kinds = list(_OPS), list(_KINDS)
    rows = zip(
        *(
            column.tolist()
            for column in (trace.cpu, trace.op, trace.kind, trace.size, trace.gfp, trace.number)
        ),
        strict=True,
    )
    for cpu, op, kind, size, gfp, number in rows:
        said = ",," if op == AllocOp.FREE else f"{kinds[kind]},{size},{format_gfp(gfp)}"
        yield f"{cpu},{ops[op]},{said},{number}\n"


def _rows(path: Path, lines: Iterable[str]) -> Iterator[tuple[int, list[str]]]:
    """Yield the number and the cells of each line that says something."""
    reader = csv.reader(lines)
    for row in reader:
        if row and row != [""] and not row[0].lstrip().startswith("#"):
            if len(row) != len(COLUMNS):
                raise ValueError(
                    f"{path}: line {reader.line_num}: {len(row)} cells instead of {len(COLUMNS)}"
                    f" ({','.join(COLUMNS)})"
                )
            yield reader.line_num, row


def _add(columns: dict[str, Any], row: list[str], known: dict[str, int]) -> None:
    cpu, op, kind, size, gfp, name = (cell.strip() for cell in row)
    is_free = _one_of("op", op, _OPS) == AllocOp.FREE
    if gfp not in known:
        known[gfp] = 0 if is_free and not gfp else parse_gfp(gfp)
    values = (
        _number("cpu", cpu),
        _OPS[op],
        0 if is_free and not kind else _one_of("kind", kind, _KINDS),
        _unless_free(is_free, size, lambda text: _number("size", text)),
        known[gfp],
        _number("id", name),
    )
    for column, value in zip(columns.values(), values, strict=True):
        column.append(value)


def _unless_free(is_free: bool, text: str, read: Callable[[str], int]) -> int:
    return 0 if is_free and not text else read(text)


def _one_of(what: str, text: str, values: dict[str, int]) -> int:
    if text not in values:
        raise ValueError(f"{what} {_short(text)} is none of {', '.join(values)}")
    return values[text]


def _number(what: str, text: str) -> int:
    if not (text.isascii() and text.isdigit()) or int(text[:_LONGEST_SHOWN]) > _MAX_NUMBER:
        raise ValueError(f"{what} {_short(text)} is no number of 0..{_MAX_NUMBER}")
    return int(text)


def _short(text: str) -> str:
    return repr(text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}...")
