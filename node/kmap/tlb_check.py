"""What must hold of the TLBs at any time: no entry that can be used allows what tables or a view forbid.

This is the invariant that real kernels break when they forget a flush. An entry may allow less than the
tables do: the processor walks again before it faults. The paging-structure caches are held to it too: what they
lead past must lead to the same table, with no more rights.

An entry can be used if a look-up can find it: its PCID is one under which an address space runs, or will run
again without a flush. That is so for the ASIDs of a CPU whose generation is their address space's, and for the
one that is loaded unless the CPU is lazy, when it catches up before it goes on. Entries of PCIDs whose flush is
left to the return to user mode cannot be used either. What vmalloc has unmapped may stay cached until its areas are
flushed together: nobody may use those addresses meanwhile.

Written apart from the kernels: it reads the tables level by level, in Python.
"""

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

import numpy as np

from node.counters import Knob
from node.hw.paging import PageSize, PagingMode
from node.hw.pte import PFN_MASK, Pte
from node.hw.tlb import (
    FRAME_SHIFT,
    GROUP_ASID_MASK,
    GROUP_USER_BIT,
    KEY_GLOBAL,
    KEY_PAGE_SHIFT,
    KEY_SIZE_SHIFT,
    PCID_GROUPS,
    PCID_MASK,
    SIZE_MASK,
    TlbArray,
    TlbRight,
)
from node.kalloc.vmap_check import unpurged_ranges
from node.kmap.asid import NR_ASIDS, USER_PCID_BIT
from node.pool import Pool
from shared.constants import PAGE_SHIFT
from shared.views import View

if TYPE_CHECKING:
    from node.state import State

CHECKED_RIGHTS: Final = (
    TlbRight.WRITE
    | TlbRight.USER
    | TlbRight.EXECUTE
    | TlbRight.DIRTY
    | TlbRight.EPT_WRITE
    | TlbRight.ACCESSED
)


def forbidden_entries(state: "State") -> list[str]:
    """Return one line for each TLB or walk-cache entry that allows what tables or view forbid."""
    wrong = []
    unpurged = unpurged_ranges(state)
    for cpu in range(len(state.cpu)):
        wrong += _uncounted_paths(state, cpu)
        roots = _usable_roots(state, cpu)
        for role, index in _entries_of(state, cpu):
            entry = state.tlb[index]
            if entry.key & KEY_GLOBAL:
                root: int | None = int(state.knob[Knob.SWAPPER_PGD])
            else:
                root = roots.get(entry.key & PCID_MASK)
            if root is None:
                continue
            if role >= TlbArray.WALK_PD:
                found = _check_walk_entry(state, role, int(entry.key), int(entry.word), root)
            else:
                found = _check_page(state, int(entry.key), int(entry.word), root)
            if found and not _waits_for_flush(state, int(entry.key), unpurged):
                wrong.append(f"tlb[{index}] of CPU {cpu}, {TlbArray(role).name}: {found}")
    return wrong


def _group(pcid: int) -> int:
    """Return which of the groups that ``cached_paths`` counts by a PCID belongs to: by process, and by half."""
    return pcid & GROUP_ASID_MASK | (GROUP_USER_BIT if pcid & USER_PCID_BIT else 0)


def _uncounted_paths(state: "State", cpu: int) -> list[str]:
    """Return one line for each group of PCIDs that has more entries in the walk caches than are counted."""
    pcids = [
        int(state.tlb[index].key) & PCID_MASK
        for role, index in _entries_of(state, cpu)
        if role >= TlbArray.WALK_PD
    ]
    held = Counter(cpu * PCID_GROUPS + _group(pcid) for pcid in pcids)
    return [
        f"cached_paths[{place}]: {int(state.cached_paths[place])}, but the walk caches have {count} entries"
        for place, count in held.items()
        if count > state.cached_paths[place]
    ]


def _waits_for_flush(state: "State", key: int, unpurged: list[tuple[int, int]]) -> bool:
    """Return whether an entry's page is in a vmalloc area that is unmapped, and not flushed yet."""
    size = key >> KEY_SIZE_SHIFT & SIZE_MASK
    linear = (1 << int(state.knob[Knob.LINEAR_BITS])) - 1
    vaddr = key >> KEY_PAGE_SHIFT << int(state.tlb_array[TlbArray.D1_4K + size].shift) & linear
    return any(0 <= vaddr - (start & linear) < end - start for start, end in unpurged)


def _usable_roots(state: "State", cpu: int) -> dict[int, int]:
    """Return the top table by PCID, of the PCIDs whose entries the CPU may find."""
    record = state.cpu[cpu]
    contexts = np.asarray(state.tlb_context)[cpu * NR_ASIDS : (cpu + 1) * NR_ASIDS]
    if not state.knob[Knob.PCID]:
        is_behind = int(contexts[record.asid]["tlb_gen"]) != int(state.mm[record.mm].tlb_gen)
        return {} if record.lazy and is_behind else {0: (int(record.cr3) >> PAGE_SHIFT) & PFN_MASK}
    mark = int(state.pool[Pool.MM].mark)
    mms = {
        int(state.mm[index].ctx_id): index
        for index in np.flatnonzero(np.asarray(state.mm)[:mark]["alive"]).tolist()
    }
    roots = {}
    for asid, context in enumerate(contexts):
        mm_index = mms.get(int(context["ctx_id"]))
        if mm_index is None:
            continue
        runs = record.mm == mm_index and record.asid == asid and not record.lazy
        if not runs and int(context["tlb_gen"]) != int(state.mm[mm_index].tlb_gen):
            continue
        pgd = int(state.mm[mm_index].pgd_pfn)
        roots[asid + 1] = pgd
        flush_is_due = int(record.user_flush_mask) >> asid & 1
        if state.knob[Knob.PTI] and (not flush_is_due or (runs and record.cpl)):
            roots[(asid + 1) | USER_PCID_BIT] = pgd + 1
    return roots


def _entries_of(state: "State", cpu: int) -> Iterator[tuple[int, int]]:
    """Yield the role and the place of every valid entry; of a shared array, its first role."""
    nr_entries = int(state.knob[Knob.TLB_ENTRIES])
    keys = np.asarray(state.tlb)["key"]
    seen: set[int] = set()
    for role in range(TlbArray.EPT_PD):
        array = state.tlb_array[role]
        first = cpu * nr_entries + array.first
        if array.nr_ways == 0 or first in seen:
            continue
        seen.add(first)
        valid = np.flatnonzero(keys[first : first + array.nr_sets * array.nr_ways])
        for index in (first + valid).tolist():
            yield role, index


def _check_page(state: "State", key: int, word: int, root: int) -> str:
    size = key >> KEY_SIZE_SHIFT & SIZE_MASK
    vaddr = key >> KEY_PAGE_SHIFT << int(state.tlb_array[TlbArray.D1_4K + size].shift)
    pfn = word >> FRAME_SHIFT & PFN_MASK
    allowed = _allowed(state, root, vaddr, pfn, size)
    if word & CHECKED_RIGHTS & ~allowed or not allowed:
        return (
            f"page {vaddr:#x} to frame {pfn} with rights {word & CHECKED_RIGHTS:#x},"
            f" but tables and view allow {allowed:#x}"
        )
    return ""


def _steps(state: "State", root: int, vaddr: int) -> Iterator[tuple[int, int, int]]:
    """Yield level, entry and the rights so far, down to the entry that maps ``vaddr`` or is not present."""
    table = root
    common: int = TlbRight.WRITE | TlbRight.USER
    execute: int = TlbRight.EXECUTE
    nr_levels = int(state.knob[Knob.NR_LEVELS])
    for level in range(nr_levels):
        here = state.paging_level[level]
        index = vaddr >> int(here.shift) & int(here.index_mask)
        word = int(state.pt_word[(table << int(state.knob[Knob.TABLE_SHIFT])) + index])
        if not word & Pte.PRESENT:
            return
        common &= word
        execute = 0 if word < 0 else execute
        yield level, word, common | execute
        if level == nr_levels - 1 or (word & Pte.HUGE and here.leaf):
            return
        table = (word >> PAGE_SHIFT) & PFN_MASK


def _allowed(state: "State", root: int, vaddr: int, pfn: int, size: int) -> int:
    """Return the rights that an entry for ``vaddr`` may have; 0 if it may not map ``pfn``."""
    steps = list(_steps(state, root, vaddr))
    if not steps:
        return 0
    level, word, rights = steps[-1]
    here = state.paging_level[level]
    if level < int(state.knob[Knob.NR_LEVELS]) - 1 and not (word & Pte.HUGE and here.leaf):
        return 0
    is_guest = bool(state.knob[Knob.IS_GUEST])
    shift = int(here.shift)
    mapped = (word >> shift << shift >> PAGE_SHIFT) & PFN_MASK
    if state.knob[Knob.PAGING_MODE] == PagingMode.BITS_32 and here.page_size != PageSize.SMALL:
        mapped &= (1 << 20) - 1  # memory ends below 4 GiB there
    if is_guest:
        mapped += (vaddr & ((1 << shift) - 1)) >> PAGE_SHIFT  # cached for 4 KiB each
    elif size != here.page_size:
        return 0
    view = int(state.ept_view[pfn]) if is_guest else View.WRITABLE
    if mapped != pfn or view < View.READ_ONLY:
        return 0
    rights |= word & (Pte.ACCESSED | Pte.DIRTY)
    # Reclaim clears A without a flush, as on x86.
    rights |= TlbRight.ACCESSED
    return rights | (TlbRight.EPT_WRITE if view == View.WRITABLE else 0)


def _check_walk_entry(state: "State", role: int, key: int, path: int, root: int) -> str:
    last = int(state.knob[Knob.NR_LEVELS]) - 1
    level = last - 1 - (role - TlbArray.WALK_PD)
    vaddr = key >> KEY_PAGE_SHIFT << int(state.paging_level[level].shift)
    table = path >> FRAME_SHIFT & PFN_MASK
    rights = path & (TlbRight.WRITE | TlbRight.USER | TlbRight.EXECUTE)
    for at, word, allowed in _steps(state, root, vaddr):
        if at == level:
            leads_to = (word >> PAGE_SHIFT) & PFN_MASK
            if leads_to == table and not rights & ~allowed:
                return ""
            return (
                f"{vaddr:#x} to table {table} with rights {rights:#x}, but it is {leads_to} with {allowed:#x}"
            )
    return f"{vaddr:#x} to table {table}, but no table is there"
