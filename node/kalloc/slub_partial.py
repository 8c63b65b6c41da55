"""SLUB's lists of slabs with free objects: a node's, a CPU's, and the ways between them.

               CPU's slab                 CPU's partial list                 node's partial list
    taken -->  [ frozen ]  <-- next --    [ frozen ]-[ frozen ]  <-- several  [ ]<->[ ]<->[ ]
                   |                          ^    | full: all of them              ^     |
                   | deactivate               |    +------------------ unfreeze ----+     | empty, and the
                   +--------------------------|-------------------------------------+     | node has enough
                          a full slab of which an object is freed is put here             v
                                                                                     the page allocator

A slab on a CPU's side is frozen: whoever frees one of its objects only puts it on the slab's freelist, without
any list to lock. When a CPU's partial list has ``cpu_partial_slabs`` slabs, all of them go to the node's.

Linux: mm/slub.c (put_cpu_partial, __unfreeze_partials, get_partial_node).
# Differs from Linux: slabs that reserves were used for are no different from others (pfmemalloc); a search on
other nodes goes by their numbers, always.
"""

from typing import TYPE_CHECKING

from node.counters import Current, Knob
from node.hw.cost import Cost
from node.kalloc.slub_records import FROZEN, SlubStat
from node.kalloc.slub_slab import (
    charge,
    count,
    discard_slab,
    node_index,
    node_of_frame,
    nr_inuse,
)
from shared.constants import NIL
from shared.jit import cold_kernel, kernel

if TYPE_CHECKING:
    from node.state import State


@kernel
def cpu_index(state: "State", cache: int) -> int:
    """Return the place of the current CPU's record of a cache in ``state.kmem_cache_cpu``."""
    return cache * state.knob[Knob.NR_CPUS] + state.current[Current.CPU]


# --- a node's list --------------------------------------------------------------------------------------


@kernel
def add_partial(state: "State", cache: int, slab: int, to_tail: int) -> None:
    """Put an unfrozen slab on its node's list."""
    node = state.kmem_cache_node[node_index(state, cache, node_of_frame(state, slab))]
    page = state.page[slab]
    if node.nr_partial == 0:
        page.next = NIL
        page.prev = NIL
        node.first = slab
        node.last = slab
    elif to_tail:
        page.next = NIL
        page.prev = node.last
        state.page[node.last].next = slab
        node.last = slab
    else:
        page.prev = NIL
        page.next = node.first
        state.page[node.first].prev = slab
        node.first = slab
    node.nr_partial += 1


@kernel
def remove_partial(state: "State", cache: int, slab: int) -> None:
    """Take a slab off its node's list."""
    node = state.kmem_cache_node[node_index(state, cache, node_of_frame(state, slab))]
    page = state.page[slab]
    if page.prev == NIL:
        node.first = page.next
    else:
        state.page[page.prev].next = page.next
    if page.next == NIL:
        node.last = page.prev
    else:
        state.page[page.next].prev = page.prev
    page.next = NIL
    page.prev = NIL
    node.nr_partial -= 1


@kernel
def node_has_enough(state: "State", cache: int, slab: int) -> int:
    """Return whether an empty slab need not be kept for its node's list."""
    node = state.kmem_cache_node[node_index(state, cache, node_of_frame(state, slab))]
    return 1 if node.nr_partial >= state.slub_cache[cache].min_partial else 0


@kernel
def _get_partial_node(state: "State", cache: int, nid: int) -> int:
    """Take the first slab of a node's list, frozen, and put more of them by on the CPU's; return it, or NIL."""
    node = state.kmem_cache_node[node_index(state, cache, nid)]
    if node.nr_partial == 0:
        return NIL
    charge(state, Cost.SLUB_NODE_LIST)
    taken = node.first
    remove_partial(state, cache, taken)
    state.page[taken].private |= FROZEN
    count(state, cache, SlubStat.ALLOC_FROM_PARTIAL)
    for _ in range(state.slub_cache[cache].cpu_partial_slabs // 2 + 1):
        if node.nr_partial == 0:
            break
        more = node.first
        remove_partial(state, cache, more)
        state.page[more].private |= FROZEN
        put_cpu_partial(state, cache, more, 0)
        count(state, cache, SlubStat.CPU_PARTIAL_NODE)
    return taken


@kernel
def get_partial(state: "State", cache: int) -> int:
    """Return a frozen slab with free objects from a node's list, the nearest node's first, or NIL."""
    home = state.cpu[state.current[Current.CPU]].nid
    taken = _get_partial_node(state, cache, home)
    if taken != NIL:
        return taken
    for nid in range(state.knob[Knob.NR_NODES]):
        node = state.kmem_cache_node[node_index(state, cache, nid)]
        if nid != home and node.nr_partial > state.slub_cache[cache].min_partial:
            return _get_partial_node(state, cache, nid)
    return NIL


# --- a CPU's list ---------------------------------------------------------------------------------------


@cold_kernel
def unfreeze_partials(state: "State", cache: int, slab: int) -> None:
    """Move a CPU's partial list, from ``slab``, to the nodes'; give back those that are empty and not needed."""
    charge(state, Cost.SLUB_NODE_LIST)
    discarded = NIL
    while slab != NIL:
        page = state.page[slab]
        following = page.next
        page.private &= ~FROZEN
        if nr_inuse(state, slab) == 0 and node_has_enough(state, cache, slab):
            page.next = discarded
            discarded = slab
        else:
            add_partial(state, cache, slab, 1)
            count(state, cache, SlubStat.FREE_ADD_PARTIAL)
        slab = following
    while discarded != NIL:
        following = state.page[discarded].next
        count(state, cache, SlubStat.DEACTIVATE_EMPTY)
        discard_slab(state, cache, discarded)
        discarded = following


@kernel
def put_cpu_partial(state: "State", cache: int, slab: int, drain: int) -> None:
    """Put a slab that has just been frozen on the CPU's list; if that is full, and ``drain``, empty it first."""
    cpu = state.kmem_cache_cpu[cpu_index(state, cache)]
    page = state.page[slab]
    before = cpu.partial
    drained = NIL
    nr_slabs = 0
    if before != NIL:
        nr_slabs = state.page[before].prev
        if drain and nr_slabs >= state.slub_cache[cache].cpu_partial_slabs:
            drained = before
            before = NIL
            nr_slabs = 0
    page.prev = nr_slabs + 1
    page.next = before
    cpu.partial = slab
    if drained != NIL:
        unfreeze_partials(state, cache, drained)
        count(state, cache, SlubStat.CPU_PARTIAL_DRAIN)
