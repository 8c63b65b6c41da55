"""The TLBs: each CPU's two levels of cached translations, set-associative and tagged with PCIDs.

                            set 0          set 1               a set: the least recently used of its ways goes
    CPU 0   first level   [ . . . . ]    [ . . . . ]  ...
            second level  [ . . . . . . . . . . . . ]  ...
    CPU 1   first level   ...

    table:  CPU 0's first level, its second level, CPU 1's first level, ...

A page's set is given by the low bits of its virtual page number, so the numbers of sets are powers of two;
one set is a fully associative level, one way a direct-mapped one. An entry keeps what the walk found: the
frame, the rights of all levels together, whether the leaf's D bit is set, and on a guest whether the EPT
lets it be written. An access that wants more than that walks again, as the processor does, so rights that
grow need no flush. Rights that shrink do.

A walk fills both levels. A hit in the second copies the entry to the first and keeps it; an entry leaves
either level alone. So no level includes the other and none excludes it: what Skylake does.

A page of any address space may be in the TLB of any CPU that has ever run it, thanks to PCIDs. A flush takes
it out of all of them at once, but only CPUs that have that address space loaded are interrupted: on others
Linux's generation count does the same work when they load it again.

Sources: Intel, *64 and IA-32 Architectures Optimization Reference Manual*, table "TLB Parameters of the
Skylake Client Microarchitecture" (data TLB: 64 entries, 4 ways; shared second level: 1536 entries, 12 ways);
Intel SDM volume 3, 4.10; Tatar et al., "TLB;DR", USENIX Security 2022 (neither inclusive nor exclusive).
Linux: arch/x86/mm/tlb.c (flush_tlb_mm_range, tlb_single_page_flush_ceiling).
# Differs from Linux: no translation of the kernel's own addresses is cached, and there is no instruction TLB.
# Differs from Linux: reclaim's flushes are not batched (arch_tlbbatch_flush); each page pays its own.
# Differs from Linux: replacement is true LRU; processors approximate it with trees of bits.
"""

from enum import IntEnum
from typing import TYPE_CHECKING, Final

import numpy as np

from node.counters import Current, HwEvent, Knob
from node.hw.cost import Cost
from shared.constants import NIL, PAGE_OFFSET_MASK, PAGE_SHIFT, PAGE_SIZE
from shared.jit import kernel
from shared.views import View

if TYPE_CHECKING:
    from node.state import State

TLB_ENTRY = np.dtype(
    [
        ("key", np.int64),  # virtual page address and, in its low bits, PCID; 0: invalid
        ("stamp", np.int64),  # cpu.tlb_tick at its last use; 0: invalid
        ("pfn", np.int32),
        ("rights", np.int32),  # TlbRight bits
    ],
    align=True,
)

SKYLAKE_L1_SETS: Final = 16
SKYLAKE_L1_WAYS: Final = 4
SKYLAKE_L2_SETS: Final = 128
SKYLAKE_L2_WAYS: Final = 12
PCID_MASK: Final = PAGE_OFFSET_MASK  # a PCID has 12 bits, as many as a page offset leaves free
SINGLE_PAGE_FLUSH_CEILING: Final = 33  # pages; above it all of the address space is flushed


class TlbRight(IntEnum):
    """Bits of ``rights``."""

    WRITE = 1 << 0  # every level's R/W
    USER = 1 << 1  # every level's U/S
    DIRTY = 1 << 2  # the leaf's D is set, so a write need not walk to set it
    EPT_WRITE = 1 << 3  # the host lets the frame be written; always set where there is no host


# --- looking up and filling -----------------------------------------------------------------------------


@kernel
def tlb_key(vaddr: int, pcid: int) -> int:
    """Return the key of a page in the address space with that PCID; 0 only for page 0 of PCID 0."""
    return (vaddr & ~PAGE_OFFSET_MASK) | pcid


@kernel
def _first_level_set(state: "State", cpu: int, key: int) -> int:
    sets = state.knob[Knob.TLB_L1_SETS]
    return (
        cpu * state.knob[Knob.TLB_ENTRIES] + ((key >> PAGE_SHIFT) & (sets - 1)) * state.knob[Knob.TLB_L1_WAYS]
    )


@kernel
def _second_level_set(state: "State", cpu: int, key: int) -> int:
    level = cpu * state.knob[Knob.TLB_ENTRIES] + state.knob[Knob.TLB_L1_SETS] * state.knob[Knob.TLB_L1_WAYS]
    return level + ((key >> PAGE_SHIFT) & (state.knob[Knob.TLB_L2_SETS] - 1)) * state.knob[Knob.TLB_L2_WAYS]


@kernel
def _find(state: "State", first: int, ways: int, key: int) -> int:
    for index in range(first, first + ways):
        if state.tlb[index].key == key:
            return index
    return NIL


@kernel
def _victim(state: "State", first: int, ways: int) -> int:
    """Return the entry of a set that goes: an invalid one, else the least recently used."""
    victim = first
    oldest = state.tlb[first].stamp
    for index in range(first + 1, first + ways):
        stamp = state.tlb[index].stamp
        if stamp < oldest:
            oldest = stamp
            victim = index
    return victim


@kernel
def _use(state: "State", cpu: int, index: int) -> None:
    """Make the entry the most recently used."""
    record = state.cpu[cpu]
    tick = record.tlb_tick + 1
    record.tlb_tick = tick
    state.tlb[index].stamp = tick


@kernel
def find_first_level(state: "State", cpu: int, key: int) -> int:
    """Return the index of the CPU's first-level entry for ``key``, now the most recently used; or NIL."""
    index = _find(state, _first_level_set(state, cpu, key), state.knob[Knob.TLB_L1_WAYS], key)
    if index != NIL:
        _use(state, cpu, index)
    return index


@kernel
def find_second_level(state: "State", cpu: int, key: int) -> int:
    """Return the index of the CPU's second-level entry for ``key``, now the most recently used; or NIL."""
    index = _find(state, _second_level_set(state, cpu, key), state.knob[Knob.TLB_L2_WAYS], key)
    if index != NIL:
        _use(state, cpu, index)
    return index


@kernel
def _put(state: "State", index: int, key: int, pfn: int, rights: int) -> None:
    entry = state.tlb[index]
    entry.key = key
    entry.pfn = pfn
    entry.rights = rights


@kernel
def fill_first_level(state: "State", key: int, pfn: int, rights: int) -> None:
    """Put a translation into the current CPU's first level, over what it holds for ``key``."""
    cpu = state.current[Current.CPU]
    first = _first_level_set(state, cpu, key)
    index = _find(state, first, state.knob[Knob.TLB_L1_WAYS], key)
    if index == NIL:
        index = _victim(state, first, state.knob[Knob.TLB_L1_WAYS])
    _put(state, index, key, pfn, rights)
    _use(state, cpu, index)


@kernel
def fill_second_level(state: "State", key: int, pfn: int, rights: int) -> None:
    """Put a translation into the current CPU's second level, over what it holds for ``key``."""
    cpu = state.current[Current.CPU]
    first = _second_level_set(state, cpu, key)
    index = _find(state, first, state.knob[Knob.TLB_L2_WAYS], key)
    if index == NIL:
        index = _victim(state, first, state.knob[Knob.TLB_L2_WAYS])
    _put(state, index, key, pfn, rights)
    _use(state, cpu, index)


# --- one CPU's flushes ----------------------------------------------------------------------------------


@kernel
def _invalidate(state: "State", index: int) -> None:
    entry = state.tlb[index]
    entry.key = 0
    entry.stamp = 0


@kernel
def flush_one(state: "State", cpu: int, key: int) -> None:
    """Drop one page's translation from both levels of a CPU (INVLPG, INVPCID type 0)."""
    index = _find(state, _first_level_set(state, cpu, key), state.knob[Knob.TLB_L1_WAYS], key)
    if index != NIL:
        _invalidate(state, index)
    index = _find(state, _second_level_set(state, cpu, key), state.knob[Knob.TLB_L2_WAYS], key)
    if index != NIL:
        _invalidate(state, index)


@kernel
def flush_pcid(state: "State", cpu: int, pcid: int) -> None:
    """Drop all translations of one address space from a CPU (INVPCID type 1, CR3 without bit 63)."""
    first = cpu * state.knob[Knob.TLB_ENTRIES]
    for index in range(first, first + state.knob[Knob.TLB_ENTRIES]):
        if state.tlb[index].key & PCID_MASK == pcid:
            _invalidate(state, index)


@kernel
def flush_all(state: "State", cpu: int) -> None:
    """Drop everything that a CPU has cached (INVPCID type 2)."""
    first = cpu * state.knob[Knob.TLB_ENTRIES]
    for index in range(first, first + state.knob[Knob.TLB_ENTRIES]):
        _invalidate(state, index)


# --- shootdowns: all CPUs -------------------------------------------------------------------------------


@kernel
def _charge_flush(state: "State", mm_index: int, event: int, price: int) -> None:
    """Count and charge a flush: here, on each CPU that has the address space loaded, and for their IPI."""
    here = state.current[Current.CPU]
    nr_remote = 0
    for cpu in range(state.knob[Knob.NR_CPUS]):
        record = state.cpu[cpu]
        if record.mm != mm_index:
            continue
        state.hw_event[event] += 1
        if cpu == here:
            state.current[Current.CLOCK_PS] += state.cost[price]
        else:
            nr_remote += 1
            record.clock_ps += state.cost[Cost.IPI_HANDLER] + state.cost[price]
    if nr_remote:
        state.hw_event[HwEvent.TLB_REMOTE_FLUSH] += nr_remote
        state.current[Current.CLOCK_PS] += state.cost[Cost.IPI]


@kernel
def flush_tlb_page(state: "State", mm_index: int, vaddr: int) -> None:
    """Drop the translation of one page of an address space from every CPU, after its entry lost rights.

    Costs one look at one set of each level of each CPU that has ever translated anything.
    """
    key = tlb_key(vaddr, state.mm[mm_index].pcid)
    for cpu in range(state.knob[Knob.NR_CPUS]):
        if state.cpu[cpu].tlb_tick:
            flush_one(state, cpu, key)
    _charge_flush(state, mm_index, HwEvent.TLB_FLUSH_ONE, Cost.TLB_FLUSH_ONE)


@kernel
def flush_tlb_mm(state: "State", mm_index: int) -> None:
    """Drop all translations of an address space from every CPU."""
    pcid = state.mm[mm_index].pcid
    for cpu in range(state.knob[Knob.NR_CPUS]):
        if state.cpu[cpu].tlb_tick:
            flush_pcid(state, cpu, pcid)
    _charge_flush(state, mm_index, HwEvent.TLB_FLUSH_ALL, Cost.TLB_FLUSH_ALL)


@kernel
def flush_tlb_range(state: "State", mm_index: int, start: int, end: int) -> None:
    """Drop the translations of [start, end) from every CPU: page by page up to 33 pages, else everything."""
    if (end - start) >> PAGE_SHIFT > SINGLE_PAGE_FLUSH_CEILING:
        flush_tlb_mm(state, mm_index)
        return
    for vaddr in range(start, end, PAGE_SIZE):
        flush_tlb_page(state, mm_index, vaddr)


@kernel
def flush_lowered_view(state: "State") -> int:
    """On a guest: drop every translation that grants more than the EPT view now does; return how many.

    The host's INVEPT after it took pages away: one scan of all TLBs, whatever the number of pages. Each CPU
    that lost something counts as one remote flush.
    """
    nr_entries = state.knob[Knob.TLB_ENTRIES]
    nr_dropped = 0
    for cpu in range(state.knob[Knob.NR_CPUS]):
        dropped_before = nr_dropped
        for index in range(cpu * nr_entries, (cpu + 1) * nr_entries):
            entry = state.tlb[index]
            if entry.stamp == 0:
                continue
            needed = View.WRITABLE if entry.rights & TlbRight.EPT_WRITE else View.READ_ONLY
            if state.ept_view[entry.pfn] < needed:
                _invalidate(state, index)
                nr_dropped += 1
        if nr_dropped > dropped_before:
            state.hw_event[HwEvent.TLB_REMOTE_FLUSH] += 1
    return nr_dropped
