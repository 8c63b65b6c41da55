"""What must hold of allocation traces at any time: their counts, and the frames that they hold.

Written apart from the kernels, with numpy over whole tables.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from node.alloc_trace import EMPTY, FAILED, AllocStat
from node.findings import Ints, differ, each
from node.phys.page import PageFlag
from node.work import WorkKind
from shared.alloc_kind import AllocKind, AllocOp
from shared.constants import PAGE_SHIFT

if TYPE_CHECKING:
    from node.state import State


@dataclass(frozen=True, slots=True)
class Alive:
    """The objects that are allocated now."""

    address: Ints
    taken: Ints
    kind: Ints  # AllocKind
    size: Ints  # bytes, or order

    def of_kind(self, kind: AllocKind) -> npt.NDArray[np.bool_]:
        """Return which of them are of a kind."""
        found: npt.NDArray[np.bool_] = self.kind == kind
        return found


def objects_alive(state: "State") -> Alive:
    """Return the objects that all traces of the machine hold."""
    objects = np.asarray(state.alloc_object)
    kind = np.zeros(len(objects), np.int64)
    size = np.zeros(len(objects), np.int64)
    events = np.asarray(state.alloc_event)
    works = np.asarray(state.work)
    for work in works[works["kind"] == WorkKind.ALLOCATIONS]:
        own = events[work["first_run"] : work["first_run"] + work["nr_runs"]]
        own = own[own["op"] == AllocOp.ALLOC]
        slot = own["number"].astype(np.int64) + int(work["first_page"])
        kind[slot] = own["kind"]
        size[slot] = own["bytes_or_order"]
    alive = (objects["address"] != EMPTY) & (objects["address"] != FAILED)
    return Alive(objects["address"][alive], objects["taken"][alive], kind[alive], size[alive])


def check_alloc_traces(state: "State") -> list[str]:
    """Return one line for each thing that is wrong with the allocation traces of the machine."""
    if not len(state.alloc_event):
        return []
    alive = objects_alive(state)
    stat = np.asarray(state.alloc_stat)
    blocks = alive.of_kind(AllocKind.FRAMES)
    areas = alive.of_kind(AllocKind.VMALLOC)
    sizes = alive.size.copy()
    sizes[blocks] = 1 << (PAGE_SHIFT + alive.size[blocks])
    wrong = differ(
        "alloc_stat.ASKED_BYTES", int(stat[AllocStat.ASKED_BYTES]), int(sizes.sum()), "bytes asked for"
    )
    wrong += differ(
        "alloc_stat.TAKEN_BYTES", int(stat[AllocStat.TAKEN_BYTES]), int(alive.taken.sum()), "bytes taken"
    )
    wrong += differ(
        "alloc_stat.FRAMES",
        int(stat[AllocStat.FRAMES]),
        int((1 << alive.size[blocks]).sum()),
        "frames of blocks",
    )
    wrong += differ(
        "alloc_stat.VMALLOC_FRAMES",
        int(stat[AllocStat.VMALLOC_FRAMES]),
        int(alive.taken[areas].sum()) >> PAGE_SHIFT,
        "frames of vmalloc",
    )
    nr_alive = int(stat[AllocStat.ALLOCATED] - stat[AllocStat.FAILED] - stat[AllocStat.FREED])
    wrong += differ(
        "alloc_stat.ALLOCATED less FAILED and FREED", nr_alive, len(alive.address), "objects alive"
    )
    short = np.flatnonzero(alive.taken < sizes)
    wrong += each(
        short, lambda at: f"object at {alive.address[at]:#x}: takes {alive.taken[at]} of {sizes[at]} bytes"
    )
    heads = alive.address[blocks]
    flags = np.asarray(state.page)["page_flags"][heads]
    unflagged = flags & PageFlag.KERNEL == 0
    return wrong + each(
        heads[unflagged], "frame {}: is held by an allocation trace, and not the kernel's".format
    )
