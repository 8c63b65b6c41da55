"""Small allocation traces for tests, and what replaying one must come to."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from hypothesis import strategies as st

from shared.alloc_kind import AllocKind, AllocOp
from shared.alloc_traces import AllocTrace, make_trace
from shared.constants import PAGE_SIZE
from shared.gfp_flags import GFP_ATOMIC, GFP_KERNEL

COLUMNS = ("cpu", "op", "kind", "size", "gfp", "id")
Row = tuple[int, int, int, int, int, int]  # as COLUMNS


def columns_of(rows: list[Row]) -> dict[str, Any]:
    return {name: np.array(column) for name, column in zip(COLUMNS, zip(*rows, strict=True), strict=True)}


def trace_of_rows(rows: list[Row]) -> AllocTrace:
    return make_trace("test", columns_of(rows))


@st.composite
def rows_of_traces(
    draw: st.DrawFn, nr_cpus: int = 2, kinds: tuple[AllocKind, ...] = tuple(AllocKind)
) -> list[Row]:
    """Draw a valid trace in which ids are used again."""
    rows: list[Row] = []
    in_use: dict[int, None] = {}
    for _ in range(draw(st.integers(1, 60))):
        cpu = draw(st.integers(0, nr_cpus - 1))
        wants_free = draw(st.booleans())
        if in_use and wants_free:
            name = draw(st.sampled_from(list(in_use)))
            del in_use[name]
            rows.append((cpu, AllocOp.FREE, 0, 0, 0, name))
            continue
        name = draw(st.sampled_from([name for name in range(100) if name not in in_use]))
        in_use[name] = None
        kind = draw(st.sampled_from(kinds))
        size = draw(st.integers(0, 3) if kind == AllocKind.FRAMES else st.integers(1, 3 * PAGE_SIZE))
        rows.append((cpu, AllocOp.ALLOC, kind, size, draw(st.sampled_from((GFP_KERNEL, GFP_ATOMIC))), name))
    return rows


@dataclass
class AllocationModel:
    """What is alive after a trace, if nothing fails."""

    alive: dict[int, tuple[int, int]] = field(default_factory=dict)  # id -> kind, size
    nr_allocated: int = 0
    nr_freed: int = 0

    def replay(self, rows: list[Row]) -> None:
        for _, op, kind, size, _, name in rows:
            if op == AllocOp.ALLOC:
                assert name not in self.alive
                self.alive[name] = (kind, size)
                self.nr_allocated += 1
            else:
                del self.alive[name]
                self.nr_freed += 1

    @property
    def asked_bytes(self) -> int:
        return sum(
            PAGE_SIZE << size if kind == AllocKind.FRAMES else size for kind, size in self.alive.values()
        )
