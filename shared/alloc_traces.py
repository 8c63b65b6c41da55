"""Allocation traces: who allocated what on which CPU, and who freed it where, in one order.

    cpu  op     kind     size  gfp         id
     0   alloc  kmalloc   512  GFP_ATOMIC   7     CPU 0 takes 512 bytes; they are object 7
     1   alloc  frames      3  GFP_KERNEL   8     CPU 1 takes a block of 2**3 frames
     1   free                               7     CPU 1 gives back what CPU 0 took: its lifetime ends
     0   alloc  kmalloc    64  GFP_KERNEL   7     another object; a number may be used again

An object lives from its ``alloc`` to the ``free`` of the same id, or to the end of the trace. In memory every
allocation has a number of its own, in the order of the trace, and a ``free`` says what its ``alloc`` said of
kind and size; a file may leave that out. docs/alloc-traces.md has both forms of file: an ``.npz`` of columns,
as here, and text (shared/alloc_csv.py).

Everything is checked before anything runs: ``load_alloc_trace`` raises ``ValueError`` with one line that names
the file, the event and the limit.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from shared.alloc_csv import read_csv
from shared.alloc_kind import (
    MAX_ALLOC_ORDER,
    MAX_EVENTS,
    MAX_OBJECT_BYTES,
    MAX_VMALLOC_BYTES,
    AllocKind,
    AllocOp,
)
from shared.columns import read_columns
from shared.gfp_flags import MAX_GFP

VERSION: Final = 1
MAX_CPUS: Final = 64
MAX_ID: Final = (1 << 32) - 1
LARGEST: Final = {
    AllocKind.KMALLOC: MAX_OBJECT_BYTES,
    AllocKind.OBJECT: MAX_OBJECT_BYTES,
    AllocKind.FRAMES: MAX_ALLOC_ORDER,
    AllocKind.VMALLOC: MAX_VMALLOC_BYTES,
}
_COLUMNS: Final = {
    "version": ("int32", "V"),
    "cpu": ("uint8", "E"),
    "op": ("uint8", "E"),
    "kind": ("uint8", "E"),
    "size": ("uint32", "E"),
    "gfp": ("uint32", "E"),
    "id": ("uint32", "E"),
}
_LIMIT_OF_AXIS: Final = {"V": 1, "E": MAX_EVENTS}

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class AllocTrace:
    """A checked trace of E events, in order, with its allocations numbered from 0."""

    cpu: Ints  # [E]
    op: Ints  # [E] AllocOp
    kind: Ints  # [E] AllocKind; of a free, that of what it frees, like size and gfp
    size: Ints  # [E] bytes, or the order of frames
    gfp: Ints  # [E] Linux's bits
    number: Ints  # [E] of the allocation
    meta: dict[str, Any] = field(default_factory=dict)  # what the trace says of itself

    @property
    def nr_events(self) -> int:
        """How many events there are."""
        return len(self.cpu)

    @property
    def nr_allocations(self) -> int:
        """How many objects are allocated."""
        return int(np.count_nonzero(self.op == AllocOp.ALLOC))

    @property
    def cpus(self) -> list[int]:
        """The CPUs that have events, ascending."""
        return [int(cpu) for cpu in np.unique(self.cpu)]

    def closed(self) -> "AllocTrace":
        """Return the trace with a free, on the CPU that allocated it, of each object that it leaves."""
        freed = np.zeros(self.nr_allocations, bool)
        freed[self.number[self.op == AllocOp.FREE]] = True
        left = np.flatnonzero((self.op == AllocOp.ALLOC) & ~freed[self.number])
        order = np.concatenate([np.arange(self.nr_events), left])
        op = self.op[order]
        op[self.nr_events :] = AllocOp.FREE
        return AllocTrace(
            self.cpu[order],
            op,
            self.kind[order],
            self.size[order],
            self.gfp[order],
            self.number[order],
            self.meta,
        )


def make_trace(
    where: str, columns: Mapping[str, npt.NDArray[Any]], meta: dict[str, Any] | None = None
) -> AllocTrace:
    """Return the trace of columns cpu, op, kind, size, gfp and id, [E] each.

    Raises ``ValueError``, one line that begins with ``where``, for what cannot have been recorded.
    """
    cpu, op, kind, size, gfp, name = (
        np.asarray(columns[column]).astype(np.int64) for column in ("cpu", "op", "kind", "size", "gfp", "id")
    )
    if not len(cpu):
        raise ValueError(f"{where}: has no events")
    if len(cpu) > MAX_EVENTS:
        raise ValueError(f"{where}: {len(cpu)} events are above the limit of {MAX_EVENTS}")
    _refuse(
        where, (op < 0) | (op >= len(AllocOp)), lambda at: f"op {op[at]} is neither 0 (alloc) nor 1 (free)"
    )
    _refuse(where, (cpu < 0) | (cpu >= MAX_CPUS), lambda at: f"CPU {cpu[at]} is outside 0..{MAX_CPUS - 1}")
    _refuse(where, (name < 0) | (name > MAX_ID), lambda at: f"id {name[at]} is outside 0..{MAX_ID}")
    before = _event_before(name)
    _check_pairs(where, op, name, before)
    source = np.where(op == AllocOp.FREE, before, np.arange(len(op)))
    kind, size, gfp = kind[source], size[source], gfp[source]
    _check_sizes(where, kind, size, gfp)
    rank = np.cumsum(op == AllocOp.ALLOC) - 1
    return AllocTrace(cpu, op, kind, size, gfp, rank[source], meta or {})


def load_alloc_trace(path: Path) -> AllocTrace:
    """Read and check a trace: text if its name ends with ``.csv``, columns otherwise.

    Raises ``ValueError``, one line, for a file that is missing, cut short, of another format or version, or wrong.
    """
    path = Path(path)
    if path.suffix == ".csv":
        return make_trace(str(path), read_csv(path))
    columns, meta = read_columns(path, "an allocation trace", _COLUMNS, _LIMIT_OF_AXIS)
    version = int(columns["version"][0])
    if version != VERSION:
        raise ValueError(f"{path}: column version: is {version}, and this program reads {VERSION}")
    return make_trace(str(path), columns, meta)


def save_alloc_trace(path: Path, trace: AllocTrace) -> None:
    """Write a trace's columns to ``path``, whole or not at all. Raises OSError if it cannot be written."""
    columns = {
        name: values.astype(_COLUMNS[name][0])
        for name, values in (
            ("version", np.array([VERSION])),
            ("cpu", trace.cpu),
            ("op", trace.op),
            ("kind", trace.kind),
            ("size", trace.size),
            ("gfp", trace.gfp),
            ("id", trace.number),
        )
    }
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as file:
            np.savez_compressed(file, **columns, meta=np.array(json.dumps(trace.meta)))  # type: ignore[arg-type]
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def check_cpus(where: str, trace: AllocTrace, nr_cpus: int) -> None:
    """Raise ``ValueError``, in one line, if the trace uses a CPU that a machine of ``nr_cpus`` lacks."""
    _refuse(
        where, trace.cpu >= nr_cpus, lambda at: f"CPU {trace.cpu[at]}, but the machine has {nr_cpus} CPUs"
    )


def _refuse(where: str, wrong: npt.NDArray[np.bool_], what: Any) -> None:
    found = np.flatnonzero(wrong)
    if len(found):
        raise ValueError(f"{where}: event {int(found[0])}: {what(int(found[0]))}")


def _event_before(name: Ints) -> Ints:
    """Return for each event the last one before it of the same id, or -1."""
    order = np.argsort(name, kind="stable")
    before = np.full(len(name), -1, np.int64)
    same = name[order][1:] == name[order][:-1]
    before[order[1:][same]] = order[:-1][same]
    return before


def _check_pairs(where: str, op: Ints, name: Ints, before: Ints) -> None:
    free = op == AllocOp.FREE
    op_before = np.where(before >= 0, op[before], AllocOp.FREE)
    _refuse(where, free & (before < 0), lambda at: f"frees id {name[at]}, which was never allocated")
    _refuse(
        where,
        free & (op_before == AllocOp.FREE),
        lambda at: f"frees id {name[at]}, which event {before[at]} has freed already",
    )
    _refuse(
        where,
        ~free & (op_before == AllocOp.ALLOC),
        lambda at: f"allocates id {name[at]}, which is in use since event {before[at]}",
    )


def _check_sizes(where: str, kind: Ints, size: Ints, gfp: Ints) -> None:
    _refuse(
        where,
        (kind < 0) | (kind >= len(AllocKind)),
        lambda at: (
            f"kind {kind[at]} is none of {', '.join(f'{one.value} ({one.name.lower()})' for one in AllocKind)}"
        ),
    )
    is_order = kind == AllocKind.FRAMES
    _refuse(
        where,
        is_order & ((size < 0) | (size > MAX_ALLOC_ORDER)),
        lambda at: f"order {size[at]} is outside 0..{MAX_ALLOC_ORDER}",
    )
    limit = np.array([LARGEST[one] for one in AllocKind])[kind]
    _refuse(
        where,
        ~is_order & ((size < 1) | (size > limit)),
        lambda at: (
            f"size {size[at]} is outside 1..{limit[at]} bytes ({AllocKind(int(kind[at])).name.lower()})"
        ),
    )
    _refuse(where, (gfp < 0) | (gfp > MAX_GFP), lambda at: f"gfp {gfp[at]:#x} is outside 0..{MAX_GFP:#x}")
