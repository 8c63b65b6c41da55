"""Handing out kernel addresses, and taking them back lazily.

    get_area --> the lowest free area that fits; what is left of it on either side stays free
                   | none: purge once, try again
    put_area --> waiting, still in the TLBs of all CPUs --> more than lazy_max_pages() wait?
                                                               | then one flush for all of them
                                                            free again

An address must not be handed out while a CPU may still translate it as before, and asking every CPU to forget it
costs an interrupt each. So unmapped areas wait until fls(CPUs) * 32 MiB of them have come together, and one
flush of the kernel's range from the first to the last serves all. An access through an address that waits is an
error that may go unnoticed, as in Linux.

Behind each area lies a guard page that is never mapped, so running over the end of one faults. (VM_NO_GUARD
exists in Linux, but vmap refuses it.)

Linux: mm/vmalloc.c (alloc_vmap_area, adjust_va_to_fit_type, free_vmap_area_noflush, __purge_vmap_area_lazy,
vm_unmap_aliases); include/linux/vmalloc.h.
# Differs from Linux: the purge runs at once in the task that passed the limit, not a little later in a kworker; there
is no per-CPU cache of small mappings (vm_map_ram, vmap_block).
"""

from enum import IntEnum
from typing import TYPE_CHECKING, Any, Final

from node.counters import Current, Knob
from node.hw.cost import Cost
from node.hw.paging import MIN_LEVELS_64
from node.joints import flush_tlb_kernel_range
from node.kalloc.vmap_area import (
    VmapStat,
    area_of,
    erase_area,
    insert_area,
    merge_or_add_area,
    move_border,
    outermost_area,
)
from node.pool import Pool, pool_alloc, pool_free
from node.rb_max import largest_below
from node.rbtree import Side, Tree
from shared.constants import MIB, NIL, PAGE_SHIFT, PAGE_SIZE
from shared.jit import entry, kernel

if TYPE_CHECKING:
    from node.state import State

LAZY_PAGES_PER_STEP: Final = 32 * MIB // PAGE_SIZE  # lazy_max_pages
GUARD_BYTES: Final = PAGE_SIZE


class VmapRange(IntEnum):
    """Which part of the memory map an area is to lie in."""

    VMALLOC = 0
    MODULES = 1


@kernel
def range_start(state: "State", which: int) -> int:
    """Return the first address of a VmapRange."""
    return state.knob[Knob.MODULES_START if which == VmapRange.MODULES else Knob.VMALLOC_START]


@kernel
def range_end(state: "State", which: int) -> int:
    """Return the address behind a VmapRange."""
    return state.knob[Knob.MODULES_LAST if which == VmapRange.MODULES else Knob.VMALLOC_LAST] + 1


@kernel
def lazy_max_pages(state: "State") -> int:
    """Return how many pages may wait for a flush: 32 MiB for each binary digit of the number of CPUs."""
    nr_cpus = state.knob[Knob.NR_CPUS]
    digits = 0
    while nr_cpus:
        nr_cpus >>= 1
        digits += 1
    return digits * LAZY_PAGES_PER_STEP


# --- finding --------------------------------------------------------------------------------------------


@kernel
def _place_in(state: "State", node: int, size: int, align: int, lowest: int) -> int:
    """Return where ``size`` bytes, aligned and not below ``lowest``, begin in a free area; NIL if they do not fit."""
    area = state.vmap_area[area_of(state, node)]
    start = (max(area.start, lowest) + align - 1) & -align
    return start if start + size <= area.end else NIL


@kernel
def _lowest_match(state: "State", size: int, align: int, lowest: int) -> int:
    """Return the node of the lowest free area with room, or NIL (find_vmap_lowest_match).

    Subtrees are entered only if their largest area has room wherever it begins. So an area that fits only because
    it happens to be aligned is passed over, if it is not on the way.
    """
    length = size + align - 1 if align > PAGE_SIZE else size
    node = state.rb_root[Tree.FREE_VMAP]
    while node != NIL:
        links = state.rb_node[node]
        if largest_below(state, links.left) >= length and lowest < links.key:
            node = links.left
            continue
        if _place_in(state, node, size, align, lowest) != NIL:
            return node
        if largest_below(state, links.right) >= length:
            node = links.right
            continue
        # The subtree promised room, but below ``lowest`` or misaligned: on to the next one further up.
        node = links.parent
        while node != NIL:
            if _place_in(state, node, size, align, lowest) != NIL:
                return node
            upper = state.rb_node[node]
            if largest_below(state, upper.right) >= length and lowest <= upper.key:
                lowest = upper.key + 1  # all up to here has been looked at
                node = upper.right
                break
            node = upper.parent
    return NIL


@kernel
def _cut_out(state: "State", index: int, start: int, size: int) -> int:
    """Take [start, start + size) out of a free area; return 0, or NIL if that needs a record and there is none."""
    area = state.vmap_area[index]
    end = start + size
    if area.start == start and area.end == end:
        erase_area(state, index)
        pool_free(state, Pool.VMAP_AREA, index)
    elif area.start == start:
        move_border(state, index, end, area.end)
    elif area.end == end:
        move_border(state, index, area.start, start)
    else:
        left = pool_alloc(state, Pool.VMAP_AREA)
        if left == NIL:
            return NIL
        state.vmap_area[left].start = area.start
        state.vmap_area[left].end = start
        move_border(state, index, end, area.end)
        insert_area(state, Tree.FREE_VMAP, left)
    return 0


@kernel
def _find_and_cut(state: "State", size: int, align: int, which: int) -> int:
    """Return the address of ``size`` bytes that are now no longer free, or NIL."""
    lowest = range_start(state, which)
    node = _lowest_match(state, size, align, lowest)
    if node == NIL:
        return NIL
    start = _place_in(state, node, size, align, lowest)
    if start + size > range_end(state, which):
        return NIL
    if _cut_out(state, area_of(state, node), start, size) == NIL:
        return NIL
    return start


@kernel
def get_area(state: "State", size: int, align: int, which: int) -> int:
    """Return a new area of ``size`` bytes, guard page included, in a VmapRange; or NIL. Nothing is mapped yet.

    ``size`` and ``align`` are of whole pages, ``align`` a power of two.
    """
    state.current[Current.CLOCK_PS] += state.cost[Cost.VMAP_AREA]
    index = pool_alloc(state, Pool.VMAP_AREA)
    start = NIL
    if index != NIL:
        start = _find_and_cut(state, size, align, which)
        if start == NIL and purge_lazy_areas(state):
            start = _find_and_cut(state, size, align, which)
    if start == NIL:
        if index != NIL:
            pool_free(state, Pool.VMAP_AREA, index)
        state.vmap_stat[VmapStat.NO_SPACE] += 1
        return NIL
    area = state.vmap_area[index]
    area.start = start
    area.end = start + size
    area.paddr = 0
    area.nr_pages = 0
    area.vmap_flags = 0
    area.caller = 0
    insert_area(state, Tree.BUSY_VMAP, index)
    state.vmap_stat[VmapStat.AREAS] += 1
    return index


# --- taking back ----------------------------------------------------------------------------------------


@kernel
def put_area(state: "State", index: int) -> None:
    """Take back an area whose entries are cleared: it waits to be flushed with others."""
    area = state.vmap_area[index]
    state.vmap_stat[VmapStat.LAZY_PAGES] += (area.end - area.start) >> PAGE_SHIFT
    erase_area(state, index)
    merge_or_add_area(state, Tree.LAZY_VMAP, index)
    if state.vmap_stat[VmapStat.LAZY_PAGES] > lazy_max_pages(state):
        purge_lazy_areas(state)


@kernel
def purge_lazy_areas(state: "State") -> int:
    """Flush all areas that wait, together, and make them free; return how many they were."""
    first = outermost_area(state, Tree.LAZY_VMAP, Side.LEFT)
    if first == NIL:
        return 0
    last = outermost_area(state, Tree.LAZY_VMAP, Side.RIGHT)
    flush_tlb_kernel_range(state, state.vmap_area[first].start, state.vmap_area[last].end)
    nr_purged = 0
    while first != NIL:
        area = state.vmap_area[first]
        state.vmap_stat[VmapStat.LAZY_PAGES] -= (area.end - area.start) >> PAGE_SHIFT
        erase_area(state, first)
        merge_or_add_area(state, Tree.FREE_VMAP, first)
        nr_purged += 1
        first = outermost_area(state, Tree.LAZY_VMAP, Side.LEFT)
    state.vmap_stat[VmapStat.PURGES] += 1
    state.vmap_stat[VmapStat.AREAS_PURGED] += nr_purged
    return nr_purged


@entry
def vm_unmap_aliases(state: "State") -> int:
    """Flush what waits now, whatever its size; return how many areas it was."""
    return purge_lazy_areas(state)


# --- at boot --------------------------------------------------------------------------------------------


@entry
def add_free_range(state: "State", start: int, end: int) -> int:
    """Make [start, end) free at boot; return 0, or NIL if there is no record left."""
    index = pool_alloc(state, Pool.VMAP_AREA)
    if index == NIL:
        return NIL
    state.vmap_area[index].start = start
    state.vmap_area[index].end = end
    insert_area(state, Tree.FREE_VMAP, index)
    return 0


def setup_vmap_space(state: "State") -> None:
    """Make the regions of the memory map free (vmap_init_free_space). A machine without paging has none."""
    knob: Any = state.knob
    if knob[Knob.NR_LEVELS] == 0:
        return
    add_free_range(state, knob[Knob.VMALLOC_START], knob[Knob.VMALLOC_LAST] + 1)
    if knob[Knob.NR_LEVELS] >= MIN_LEVELS_64:
        add_free_range(state, knob[Knob.MODULES_START], knob[Knob.MODULES_LAST] + 1)
