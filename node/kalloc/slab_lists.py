"""SLAB: a node's slabs of one cache, on three lists by how many of their objects are out.

    partial   some are out: served first, from the head; a slab that gets an object back goes to the tail
    free      none is out: served when no partial slab is left; the last are given back beyond free_limit
    full      all are out

         make_slab --> [partial] <--> [full]
                        |    ^
                        v    |
         end_slab <--- [free] tail

"Out" is out of the slab: in use, or in an array of node/kalloc/slab_array.py. Serving partial slabs first and
letting a slab wait at the tail after a free gives its other objects time to come back too, so that whole slabs
become free.

Linux: mm/slab.c (struct kmem_cache_node, get_first_slab, fixup_slab_list, free_block, drain_freelist).
"""

from enum import IntEnum
from typing import TYPE_CHECKING, Final

import numpy as np

from node.counters import Current, Knob
from node.hw.cost import Cost
from node.kalloc.slab_frames import end_slab, get_object, give_up_free_list, make_slab, put_object, slab_of
from node.kalloc.slab_nodes import nid_of
from shared.constants import NIL
from shared.jit import cold_kernel, kernel

if TYPE_CHECKING:
    from node.state import State

SLAB_NODE = np.dtype(
    [
        ("next_reap_ps", np.int64),  # when cache_reap looks at the slabs again
        ("free_objects", np.int64),  # in partial and free slabs
        ("free_limit", np.int64),  # of them; beyond it free slabs are given back
        ("total_slabs", np.int32),
        ("colour_next", np.int32),  # of the slab that was made last
        ("free_touched", np.int32),  # 1: the free list was needed since cache_reap looked
        ("spare", np.int32),
    ],
    align=True,
)
SLAB_LIST = np.dtype(
    [
        ("first", np.int32),  # frame, or NIL
        ("last", np.int32),
        ("nr_slabs", np.int32),
        ("spare", np.int32),
    ],
    align=True,
)


class SlabList(IntEnum):
    """A node's lists of slabs."""

    FULL = 0
    PARTIAL = 1
    FREE = 2


NR_SLAB_LISTS: Final = len(SlabList)


@kernel
def slab_node_index(state: "State", cache: int, nid: int) -> int:
    """Return the index in ``state.slab_node`` of a cache's slabs on a NUMA node."""
    return cache * state.knob[Knob.NR_NODES] + nid


@kernel
def node_of_slab(state: "State", slab: int) -> int:
    """Return the index in ``state.slab_node`` of the lists that a slab belongs to."""
    return slab_node_index(state, state.page[slab].mapping, nid_of(state, slab))


# --- the lists ------------------------------------------------------------------------------------------


@kernel
def list_index(state: "State", slab: int) -> int:
    """Return the index in ``state.slab_list`` of the list where a slab belongs now."""
    page = state.page[slab]
    which = SlabList.PARTIAL
    if page.word == 0:
        which = SlabList.FREE
    elif page.word == state.kmem_cache[page.mapping].objects_per_slab:
        which = SlabList.FULL
    return node_of_slab(state, slab) * NR_SLAB_LISTS + which


@kernel
def _add_head(state: "State", index: int, slab: int) -> None:
    chain = state.slab_list[index]
    page = state.page[slab]
    page.prev = NIL
    page.next = chain.first
    if chain.first == NIL:
        chain.last = slab
    else:
        state.page[chain.first].prev = slab
    chain.first = slab
    chain.nr_slabs += 1


@kernel
def _add_tail(state: "State", index: int, slab: int) -> None:
    chain = state.slab_list[index]
    page = state.page[slab]
    page.next = NIL
    page.prev = chain.last
    if chain.last == NIL:
        chain.first = slab
    else:
        state.page[chain.last].next = slab
    chain.last = slab
    chain.nr_slabs += 1


@kernel
def _take_off(state: "State", index: int, slab: int) -> None:
    chain = state.slab_list[index]
    page = state.page[slab]
    if page.prev == NIL:
        chain.first = page.next
    else:
        state.page[page.prev].next = page.next
    if page.next == NIL:
        chain.last = page.prev
    else:
        state.page[page.next].prev = page.prev
    chain.nr_slabs -= 1


# --- out of slabs ---------------------------------------------------------------------------------------


@kernel
def take_first_slab(state: "State", node: int) -> int:
    """Take the slab that serves next off its list and return it, or NIL if no object is free (get_first_slab)."""
    index = node * NR_SLAB_LISTS + SlabList.PARTIAL
    if state.slab_list[index].first == NIL:
        state.slab_node[node].free_touched = 1
        index = node * NR_SLAB_LISTS + SlabList.FREE
    slab = state.slab_list[index].first
    if slab != NIL:
        _take_off(state, index, slab)
    return slab


@kernel
def put_on_list(state: "State", slab: int) -> None:
    """Put a slab that has served on the list where it now belongs, at the head (fixup_slab_list)."""
    index = list_index(state, slab)
    _add_head(state, index, slab)
    if index % NR_SLAB_LISTS == SlabList.FULL:
        give_up_free_list(state, slab)


@kernel
def object_from(state: "State", slab: int) -> int:
    """Take one object out of a slab that is on no list; return its address, debugging words included."""
    cache = state.page[slab].mapping
    slab_cache = state.slab_cache[cache]
    slab_cache.num_allocations += 1
    slab_cache.num_active += 1
    slab_cache.high_mark = max(slab_cache.high_mark, slab_cache.num_active)
    state.current[Current.CLOCK_PS] += state.cost[Cost.SLAB_OBJECT_MOVE]
    return get_object(state, slab)


@cold_kernel
def grow(state: "State", cache: int, nid: int, gfp: int) -> int:
    """Return a new slab that is counted, but on no list yet; NIL without memory.

    It has the next colour of node ``nid``, where it is expected to be.
    """
    slab_cache = state.slab_cache[cache]
    expected = state.slab_node[slab_node_index(state, cache, nid)]
    colour = expected.colour_next + 1
    if colour >= slab_cache.colours:
        colour = 0
    slab = make_slab(state, cache, gfp, colour * slab_cache.colour_bytes)
    if slab == NIL:
        slab_cache.grow_failed += 1
        return NIL
    expected.colour_next = colour
    node = state.slab_node[node_of_slab(state, slab)]
    node.total_slabs += 1
    node.free_objects += state.kmem_cache[cache].objects_per_slab
    slab_cache.grown += 1
    state.current[Current.CLOCK_PS] += state.cost[Cost.SLAB_GROW]
    return slab


# --- back into slabs ------------------------------------------------------------------------------------


@kernel
def object_back(state: "State", start: int) -> None:
    """Put an object that no array holds any more back into its slab (free_block, one object of it)."""
    slab = slab_of(state, start)
    _take_off(state, list_index(state, slab), slab)
    put_object(state, slab, start)
    state.slab_cache[state.page[slab].mapping].num_active -= 1
    state.slab_node[node_of_slab(state, slab)].free_objects += 1
    index = list_index(state, slab)
    if index % NR_SLAB_LISTS == SlabList.FREE:
        _add_head(state, index, slab)
    else:
        _add_tail(state, index, slab)
    state.current[Current.CLOCK_PS] += state.cost[Cost.SLAB_OBJECT_MOVE]


@cold_kernel
def give_back_slab(state: "State", node: int) -> int:
    """Give back the slab that is longest on a node's free list; return how many frames, 0 if the list is empty."""
    index = node * NR_SLAB_LISTS + SlabList.FREE
    slab = state.slab_list[index].last
    if slab == NIL:
        return 0
    record = state.kmem_cache[state.page[slab].mapping]
    _take_off(state, index, slab)
    state.slab_node[node].total_slabs -= 1
    state.slab_node[node].free_objects -= record.objects_per_slab
    end_slab(state, slab)
    return 1 << record.order


@kernel
def trim(state: "State", node: int) -> None:
    """Give back free slabs while a node has more free objects than its limit (end of free_block)."""
    record = state.slab_node[node]
    while record.free_objects > record.free_limit and give_back_slab(state, node):
        pass


@cold_kernel
def give_back_all(state: "State", node: int) -> int:
    """Give back all free slabs of a node; return how many frames those were (drain_freelist)."""
    nr_frames = 0
    freed = give_back_slab(state, node)
    while freed:
        nr_frames += freed
        freed = give_back_slab(state, node)
    return nr_frames
