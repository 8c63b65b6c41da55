"""Slabs as arrays: which block each frame of a slab belongs to, and which slabs have no object out.

    frames   | slab of order 1 | slab of order 0 |
    head        f        f           f+2              the frame whose descriptor is the slab's

Read between two calls, for /proc and for counts of frames; nothing is changed.

Linux: mm/slab.h (virt_to_slab, struct slab), mm/slub.c (slab->inuse), mm/slab.c (slab->active).
"""

from typing import TYPE_CHECKING

import numpy as np

from node.counters import Knob
from node.findings import Ints
from node.kalloc.kmem_cache import Allocator
from node.kalloc.slub_records import COUNT_MASK, FROZEN

if TYPE_CHECKING:
    from node.state import State


def slab_heads(state: "State", pfn: Ints) -> Ints:
    """Return the first frame of the slab of each of these frames, all of them flagged SLAB."""
    pages = np.asarray(state.page)
    pfn = pfn.astype(np.int64)
    match state.knob[Knob.ALLOCATOR]:
        case Allocator.SLUB:
            pfn = pages["word"][pfn].astype(np.int64)
        case Allocator.SLAB:
            orders = np.asarray(state.kmem_cache)["order"][pages["mapping"][pfn]].astype(np.int64)
            pfn = pfn >> orders << orders
    return pfn


def slab_is_unused(state: "State", heads: Ints) -> Ints:
    """Return of which of these slabs no object is in use, nor kept by a CPU for its own next allocations."""
    pages = np.asarray(state.page)[heads]
    unused = np.zeros(len(heads), bool)  # SLOB gives a page back with its last object
    match state.knob[Knob.ALLOCATOR]:
        case Allocator.SLUB:
            unused = pages["private"] & (COUNT_MASK | FROZEN) == 0
        case Allocator.SLAB:
            unused = pages["word"] == 0
    return unused
