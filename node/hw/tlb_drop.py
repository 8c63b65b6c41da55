"""Dropping what the TLBs and the paging-structure caches of a CPU hold: a page, an address space, or everything.

    drop_translation   a page of one PCID, of any size              what a page fault does
    drop_page          that, and all walk caches of the PCID        INVLPG, INVPCID 0
    drop_pcid          all of one PCID but global entries           INVPCID 1, a write of CR3
    drop_private       all but global entries                       INVPCID 3, a write of CR3 without PCIDs
    drop_all           everything                                   INVPCID 2, CR4.PGE
    flush_lowered_view what a guest's view no longer grants         INVEPT by the host

A page's flush, the commonest, mostly finds nothing in the paging-structure caches: the fault before it has dropped what
led there. ``state.cached_paths`` knows, for each group of PCIDs, how many entries there are at most, and at 0 spares
the look at all of them.

A virtually tagged data cache (node/hw/cache_lines.py) loses its lines with the translations that they came by.

Source: Intel SDM volume 3, 4.10.4.
"""

from typing import TYPE_CHECKING

from node.counters import Knob, VmEvent
from node.hw.cache_lines import CacheMode, drop_page_lines, drop_pcid_lines
from node.hw.paging import PageSize
from node.hw.pte import PFN_MASK
from node.hw.tlb import (
    FETCH_SEEN,
    FRAME_SHIFT,
    KEY_GLOBAL,
    KEY_VALID,
    NR_VARIANTS,
    PCID_MASK,
    PRIVATE_VARIANTS,
    USER_GROUPS_SHIFT,
    TlbArray,
    TlbRight,
    find_variant,
    key_of,
    paths_place,
    pcid_group,
    variants_of,
)
from shared.constants import NIL
from shared.jit import cold_kernel, hot_kernel, kernel
from shared.views import View

if TYPE_CHECKING:
    from node.state import State


@kernel
def invalidate(state: "State", index: int) -> None:
    """Drop one entry."""
    entry = state.tlb[index]
    entry.key = 0
    entry.stamp = 0


@hot_kernel
def _drop_variant(state: "State", cpu: int, variant: int, key: int) -> None:
    size = variant % PageSize.NR
    for level in range(TlbArray.D1_4K, TlbArray.WALK_PD, PageSize.NR):
        if level == TlbArray.I1_4K and key >= 0 and not state.cpu[cpu].tlb_variants & FETCH_SEEN:
            continue
        index = find_variant(state, cpu, level + size, key)
        if index != NIL:
            invalidate(state, index)


@kernel
def _drop_variants(state: "State", cpu: int, vaddr: int, pcid: int, variants: int) -> None:
    """Drop a CPU's entries for ``vaddr`` of these variants."""
    variant = 0
    while variants:
        if variants & 1:
            _drop_variant(state, cpu, variant, key_of(state, vaddr, variant, KEY_VALID | pcid))
        variants >>= 1
        variant += 1


@cold_kernel
def _drop_lines(state: "State", cpu: int, vaddr: int, pcid: int, variants: int) -> None:
    """Drop the lines of a virtually tagged cache for ``vaddr``, in a page of the largest size that there may be."""
    largest = 0
    for variant in range(NR_VARIANTS):
        if variants >> variant & 1:
            largest = max(largest, variant % PageSize.NR)
    drop_page_lines(state, cpu, vaddr, pcid, state.tlb_array[TlbArray.D1_4K + largest].shift)


@hot_kernel
def drop_translation(state: "State", cpu: int, vaddr: int, pcid: int, with_global: int) -> None:
    """Drop a CPU's TLB entries for ``vaddr``, of any size, for one PCID, and global ones if asked for."""
    variants = variants_of(state, cpu, vaddr)
    if not with_global:
        variants &= PRIVATE_VARIANTS
    if state.knob[Knob.DCACHE_MODE] == CacheMode.VIRTUAL:
        _drop_lines(state, cpu, vaddr, NIL if with_global else pcid, variants)
    if vaddr >= 0 and not state.cpu[cpu].tlb_variants >> (USER_GROUPS_SHIFT + pcid_group(pcid)) & 1:
        variants &= ~PRIVATE_VARIANTS
    if variants:
        _drop_variants(state, cpu, vaddr, pcid, variants)


@hot_kernel
def drop_page(state: "State", cpu: int, vaddr: int, pcid: int, with_global: int) -> None:
    """Drop what ``drop_translation`` does, and all that the paging-structure caches hold for the PCID.

    As INVLPG does, whatever the addresses (SDM 4.10.4.1).
    """
    drop_translation(state, cpu, vaddr, pcid, with_global)
    drop_walk_caches(state, cpu, pcid)


@hot_kernel
def drop_walk_caches(state: "State", cpu: int, pcid: int) -> None:
    """Drop what a CPU's paging-structure caches hold for one PCID."""
    place = paths_place(cpu, pcid)
    if state.cached_paths[place]:
        state.cached_paths[place] = _drop_paths(state, cpu, pcid)


@cold_kernel
def _drop_paths(state: "State", cpu: int, pcid: int) -> int:
    """Do that, entry by entry; return how many other PCIDs of its group have."""
    nr_left = 0
    for array_index in range(TlbArray.WALK_PD, TlbArray.EPT_PD):
        array = state.tlb_array[array_index]
        first = cpu * state.knob[Knob.TLB_ENTRIES] + array.first
        for index in range(first, first + array.nr_sets * array.nr_ways):
            key = state.tlb[index].key
            if key & PCID_MASK == pcid:
                invalidate(state, index)
            elif key and paths_place(cpu, key & PCID_MASK) == paths_place(cpu, pcid):
                nr_left += 1
    return nr_left


@kernel
def drop_pcid(state: "State", cpu: int, pcid: int) -> None:
    """Drop all that a CPU has cached for one PCID; global entries stay."""
    drop_pcid_lines(state, cpu, pcid)
    first = cpu * state.knob[Knob.TLB_ENTRIES]
    for index in range(first, first + state.knob[Knob.TLB_ENTRIES]):
        if state.tlb[index].key & (KEY_GLOBAL | PCID_MASK) == pcid:
            invalidate(state, index)


@kernel
def drop_private(state: "State", cpu: int) -> None:
    """Drop all that a CPU has cached but global entries."""
    drop_pcid_lines(state, cpu, NIL)
    first = cpu * state.knob[Knob.TLB_ENTRIES]
    for index in range(first, first + state.knob[Knob.TLB_ENTRIES]):
        if not state.tlb[index].key & KEY_GLOBAL:
            invalidate(state, index)


@kernel
def drop_all(state: "State", cpu: int) -> None:
    """Drop everything that a CPU has cached."""
    drop_pcid_lines(state, cpu, NIL)
    first = cpu * state.knob[Knob.TLB_ENTRIES]
    for index in range(first, first + state.knob[Knob.TLB_ENTRIES]):
        invalidate(state, index)
    state.cpu[cpu].tlb_variants = 0


@kernel
def _first_walk_cache(state: "State") -> int:
    """Return the place of the first entry that a paging-structure cache has; behind all entries if there is none."""
    first = state.knob[Knob.TLB_ENTRIES]
    for array_index in range(TlbArray.WALK_PD, TlbArray.NR):
        if state.tlb_array[array_index].nr_ways:
            first = min(first, state.tlb_array[array_index].first)
    return first


@kernel
def flush_lowered_view(state: "State") -> int:
    """On a guest: drop every translation that grants more than the EPT view now does; return how many.

    The host's INVEPT after it took pages away: one scan of all CPUs, whatever the number of pages. Each CPU
    that lost something counts as one remote flush. A walk writes the tables that it passes, so what leads
    past some goes with the first table that lost its view.
    """
    nr_entries = state.knob[Knob.TLB_ENTRIES]
    nr_dropped = 0
    for cpu in range(state.knob[Knob.NR_CPUS]):
        dropped_before = nr_dropped
        first = cpu * nr_entries
        first_of_tables = first + _first_walk_cache(state)
        for index in range(first, first + nr_entries):
            entry = state.tlb[index]
            if entry.key == 0:
                continue
            if index >= first_of_tables:
                invalidate(state, index)
                continue
            needed = View.WRITABLE if entry.word & TlbRight.EPT_WRITE else View.READ_ONLY
            if state.ept_view[(entry.word >> FRAME_SHIFT) & PFN_MASK] < needed:
                invalidate(state, index)
                nr_dropped += 1
        if nr_dropped > dropped_before:
            drop_pcid_lines(state, cpu, NIL)
            state.vm_event[VmEvent.NR_TLB_REMOTE_FLUSH_RECEIVED] += 1
    return nr_dropped
