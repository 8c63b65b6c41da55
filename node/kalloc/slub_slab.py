"""SLUB's slabs: a block of frames taken and cut into objects, the links within those, and the block given back.

    descriptor.index --> | free object |  | in use |  | free object |
                              link -----------------------> link --> NO_OBJECT

A link is the address of the next free object, in the middle of a free one, where a write that runs over the end
of a neighbour does not reach at once. Each link is looked at before it is followed: one that leads out of its
slab (somebody wrote there after the free) is reported, and what was behind it is lost.

Linux: mm/slub.c (allocate_slab, __free_slab, get_freepointer, virt_to_slab), include/linux/slub_def.h.
# Differs from Linux: without SLAB_CONSISTENCY_CHECKS it follows a broken link, and most likely stops there.
"""

from typing import TYPE_CHECKING, Final

from node.counters import Current, Knob, VmStat
from node.hw.cost import Cost
from node.joints import alloc_frames, free_frames
from node.kalloc.kmem_cache import NO_OBJECT, WORD_SHIFT, SlabError, SlabFlag
from node.kalloc.slab_bytes import clear_frames
from node.kalloc.slab_report import report
from node.kalloc.slub_debug import check_whole_slab, setup_slab_debug
from node.kalloc.slub_records import COUNT_MASK, FROZEN, OBJECTS_SHIFT, SlubStat
from node.phys.migrate_type import zone_of
from node.phys.page import PageFlag
from shared.constants import NIL, PAGE_SHIFT
from shared.gfp_flags import RECLAIM, Gfp
from shared.jit import cold_kernel, kernel

if TYPE_CHECKING:
    from node.state import State

# What a cache's user may say of the request for a slab (GFP_RECLAIM_MASK, GFP_CONSTRAINT_MASK).
PASSED_ON: Final = (
    RECLAIM
    | Gfp.HIGH
    | Gfp.IO
    | Gfp.FS
    | Gfp.NOWARN
    | Gfp.RETRY_MAYFAIL
    | Gfp.NOFAIL
    | Gfp.NORETRY
    | Gfp.MEMALLOC
    | Gfp.NOMEMALLOC
    | Gfp.ATOMIC
    | Gfp.THISNODE
)


@kernel
def count(state: "State", cache: int, item: int) -> None:
    """Count one SlubStat of a cache."""
    state.slub_stat[cache * SlubStat.NR + item] += 1


@kernel
def charge(state: "State", cost: int) -> None:
    """Let the current CPU spend a Cost."""
    state.current[Current.CLOCK_PS] += state.cost[cost]


@kernel
def slab_of(state: "State", paddr: int) -> int:
    """Return the first frame of the slab that an address is in, or NIL; any address may be asked for."""
    pfn = paddr >> PAGE_SHIFT
    if pfn < 0 or pfn >= len(state.page) or not state.page[pfn].page_flags & PageFlag.SLAB:
        return NIL
    return state.page[pfn].word


@kernel
def nr_inuse(state: "State", slab: int) -> int:
    """Return how many of a slab's objects are not on its own freelist."""
    return state.page[slab].private & COUNT_MASK


@kernel
def nr_in_slab(state: "State", slab: int) -> int:
    """Return how many objects a slab has."""
    return (state.page[slab].private >> OBJECTS_SHIFT) & COUNT_MASK


@kernel
def is_frozen(state: "State", slab: int) -> int:
    """Return whether a slab is a CPU's: not 0 if it is."""
    return state.page[slab].private & FROZEN


@kernel
def starts_object(state: "State", cache: int, slab: int, paddr: int) -> int:
    """Return whether an object of the slab begins at ``paddr`` (check_valid_pointer)."""
    offset = paddr - state.slub_cache[cache].red_left - (slab << PAGE_SHIFT)
    stride = state.kmem_cache[cache].stride
    return 1 if 0 <= offset < nr_in_slab(state, slab) * stride and offset % stride == 0 else 0


@kernel
def set_link(state: "State", cache: int, paddr: int, following: int) -> None:
    """Let a free object lead to the next (set_freepointer)."""
    state.slab_word[(paddr + state.slub_cache[cache].link_offset) >> WORD_SHIFT] = following


@cold_kernel
def broken_link(state: "State", cache: int, paddr: int) -> int:
    """Report that the free object at ``paddr`` leads out of its slab; return NO_OBJECT, to which it now leads."""
    report(state, SlabError.FREELIST, cache, paddr, NIL)
    set_link(state, cache, paddr, NO_OBJECT)
    return NO_OBJECT


@kernel
def link_of(state: "State", cache: int, slab: int, paddr: int) -> int:
    """Return the free object that follows the one at ``paddr``, or NO_OBJECT (get_freepointer)."""
    offset = state.slub_cache[cache].link_offset
    following = state.slab_word[(paddr + offset) >> WORD_SHIFT]
    frame = ((following + offset) >> PAGE_SHIFT) - slab
    if following != NO_OBJECT and (frame < 0 or frame >= 1 << state.page[slab].order):
        return broken_link(state, cache, paddr)
    return following


@kernel
def node_of_frame(state: "State", pfn: int) -> int:
    """Return the NUMA node of a frame."""
    return state.zone[zone_of(state, pfn)].nid


@kernel
def node_index(state: "State", cache: int, nid: int) -> int:
    """Return the place of a cache's record of a node in ``state.kmem_cache_node``."""
    return cache * state.knob[Knob.NR_NODES] + nid


@kernel
def vm_stat_of(state: "State", cache: int) -> int:
    """Return the VmStat that the frames of a cache's slabs are counted in."""
    reclaimable = state.kmem_cache[cache].slab_flags & SlabFlag.RECLAIM_ACCOUNT
    return VmStat.NR_SLAB_RECLAIMABLE if reclaimable else VmStat.NR_SLAB_UNRECLAIMABLE


@kernel
def _take_block(state: "State", cache: int, gfp: int) -> int:
    """Return the first frame of a block for a slab, of the cache's order or of the least; NIL if there is none."""
    record = state.kmem_cache[cache]
    slub = state.slub_cache[cache]
    gfp = (gfp & PASSED_ON) | slub.gfp
    tried = (gfp | Gfp.NOWARN | Gfp.NORETRY) & ~Gfp.NOFAIL
    if tried & Gfp.DIRECT_RECLAIM and record.order > slub.min_order:
        # A smaller slab is better than reclaim for a larger one.
        tried = (tried | Gfp.NOMEMALLOC) & ~RECLAIM
    order = record.order
    slab = alloc_frames(state, order, tried)
    if slab == NIL:
        order = slub.min_order
        slab = alloc_frames(state, order, gfp)
        if slab == NIL:
            return NIL
        count(state, cache, SlubStat.ORDER_FALLBACK)
    state.page[slab].order = order
    return slab


@cold_kernel
def new_slab(state: "State", cache: int, gfp: int) -> int:
    """Return a new slab, all of its objects on its freelist in order, counted and on no list; NIL without memory."""
    slab = _take_block(state, cache, gfp)
    if slab == NIL:
        return NIL
    record = state.kmem_cache[cache]
    slub = state.slub_cache[cache]
    head = state.page[slab]
    order = head.order
    objects = record.objects_per_slab if order == record.order else slub.min_objects
    for pfn in range(slab, slab + (1 << order)):
        frame = state.page[pfn]
        frame.page_flags |= PageFlag.SLAB
        frame.word = slab
    clear_frames(state, slab, 1 << order)
    head.mapping = cache
    head.private = objects << OBJECTS_SHIFT
    head.next = NIL
    head.prev = NIL
    if slub.is_debug:
        setup_slab_debug(state, cache, slab)
    first = (slab << PAGE_SHIFT) + slub.red_left
    head.index = first
    behind = first + objects * record.stride
    step = record.stride
    link = (first + slub.link_offset) >> WORD_SHIFT
    while first + step < behind:
        first += step
        state.slab_word[link] = first
        link = (first + slub.link_offset) >> WORD_SHIFT
    state.slab_word[link] = NO_OBJECT
    record.nr_slabs += 1
    node = state.kmem_cache_node[node_index(state, cache, node_of_frame(state, slab))]
    node.nr_slabs += 1
    node.total_objects += objects
    state.vm_stat[vm_stat_of(state, cache)] += 1 << order
    state.current[Current.CLOCK_PS] += objects * state.cost[Cost.SLUB_NEW_OBJECT]
    return slab


@cold_kernel
def discard_slab(state: "State", cache: int, slab: int) -> None:
    """Give back a slab that has no object in use and is on no list."""
    head = state.page[slab]
    order = head.order
    if state.kmem_cache[cache].slab_flags & SlabFlag.CONSISTENCY_CHECKS:
        check_whole_slab(state, cache, slab)
    state.kmem_cache[cache].nr_slabs -= 1
    node = state.kmem_cache_node[node_index(state, cache, node_of_frame(state, slab))]
    node.nr_slabs -= 1
    node.total_objects -= nr_in_slab(state, slab)
    state.vm_stat[vm_stat_of(state, cache)] -= 1 << order
    for pfn in range(slab, slab + (1 << order)):
        frame = state.page[pfn]
        frame.page_flags &= ~PageFlag.SLAB
        frame.word = 0
    head.mapping = 0
    head.private = 0
    head.index = 0
    count(state, cache, SlubStat.FREE_SLAB)
    free_frames(state, slab, order)
