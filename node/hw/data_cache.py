"""The data cache: each CPU's first level in front of memory, and how it meets the translation of addresses.

A line is found by an *index* (its set) and a *tag*. Either may come from the virtual address, which the
program gives, or from the physical one, for which it has to wait.

    serial        vaddr --TLB--> paddr --cache--> data            index and tag physical, one after the other
    extra_stage   vaddr --TLB--|--cache--> data                   the same, as two stages of a pipeline
    overlapped    vaddr --+--TLB-----+--compare--> data           index from bits that translation leaves alone
                          +--cache---+
    virtual       vaddr --cache--> data, and only on a miss: --TLB--> memory

``overlapped`` looks into the set while the TLB finds the tag, so the index must lie within the page offset:
sets times line bytes are at most 4096. Caches grow beyond that in ways, or as one of the other modes.

A ``virtual`` cache is indexed and tagged by virtual address and PCID. It knows nothing of physical memory while
it hits, so each line remembers what its user may do (as a TLB entry does, and dropped with it), and one
physical line may sit in it under several virtual names, *synonyms*:

    page 7 of PCID 1 --+                           set 3   [ 7.3 of PCID 1 | physical 90.3 | modified ]
                       +--> frame 90               ...
    page 4 of PCID 2 --+                           set 35  [ 4.3 of PCID 2 | physical 90.3 | modified ]

They are found when the second one is filled, counted, and every write goes to all of them. All copies of a
physical line stand in sets whose index agrees within the page offset: one set for each *colour*, each value
of the index bits above it.

CPUs keep their caches coherent by invalidation, states M, S and I: a modified line is in one cache only; who
reads it makes its holder write it back and share it; who writes drops all other caches' copies.

    I --read--> S --write--> M          another CPU reads: M -> S, written back; writes: M, S -> I

A line counts its writes since memory last held it as it is here: what stands for its content. Copies in one
cache agree in that; data_cache_check.py says what else must hold.

Sources: Hennessy and Patterson, *Computer Architecture*, appendix B (hit time and address translation;
virtual caches, synonyms) and chapter 5 (MSI); Cekleov and Dubois, "Virtual-Address Caches", IEEE Micro 17(5),
1997; Intel *Optimization Reference Manual* (Skylake: 32 KiB, 8 ways, 64-byte lines).
# Differs from Linux: only data that programs access is cached: neither walks, fetches, the kernel's own
# accesses nor devices use the caches.
# Differs from Linux: there is one level, behind it is memory; write-backs wait in buffers and cost a CPU
# nothing, nor does a flush.
# Differs from Linux: replacement is true LRU; processors approximate it.
"""

from typing import TYPE_CHECKING, Final

from node.counters import Current, HwEvent, Knob, Panic
from node.hw.cache_lines import (
    CacheMode,
    LineRight,
    LineState,
    copy_at,
    drop_elsewhere,
    drop_line,
    find_line,
    first_copy,
    nr_places,
    physical_line,
    set_of_line,
    share_elsewhere,
)
from node.hw.cost import Cost
from node.hw.tlb import PCID_MASK
from shared.constants import NIL, PAGE_SIZE
from shared.jit import bug_on, kernel

if TYPE_CHECKING:
    from node.spec import DataCacheSpec
    from node.state import State

MIN_LINE_BYTES: Final = 8  # a word
MAX_LINES: Final = 1 << 16  # of one CPU: 4 MiB of lines of 64 bytes
USER_MODE: Final = 3


# --- access ---------------------------------------------------------------------------------------------


@kernel
def _use(state: "State", first: int, index: int) -> None:
    """Make a line the most recently used of the set that begins at ``first``."""
    newest = 0
    for other in range(first, first + state.knob[Knob.DCACHE_WAYS]):
        newest = max(newest, state.cache_line[other].stamp)
    line = state.cache_line[index]
    if line.stamp == 0 or line.stamp < newest:
        line.stamp = newest + 1


@kernel
def _victim(state: "State", first: int) -> int:
    """Return the way of a set that goes: an invalid one, else the least recently used."""
    victim = first
    oldest = state.cache_line[first].stamp
    for index in range(first + 1, first + state.knob[Knob.DCACHE_WAYS]):
        stamp = state.cache_line[index].stamp
        if stamp < oldest:
            oldest = stamp
            victim = index
    return victim


@kernel
def _fill(state: "State", tag: int, pcid: int, physical: int) -> int:
    """Put a line into the current CPU's cache, from a synonym there or from memory; return its place."""
    cpu = state.current[Current.CPU]
    # Only a virtual cache can miss a line that it holds.
    if first_copy(state, cpu, physical) != NIL:
        state.hw_event[HwEvent.DCACHE_SYNONYM] += 1
    index = _victim(state, set_of_line(state, cpu, tag))
    line = state.cache_line[index]
    if line.stamp:
        drop_line(state, cpu, index)  # perhaps the synonym itself
    line_state: int = LineState.SHARED
    nr_writes = 0
    copy = first_copy(state, cpu, physical)
    if copy != NIL:
        line_state = state.cache_line[copy].line_state
        nr_writes = state.cache_line[copy].nr_writes
    line.tag = tag
    line.pcid = pcid
    line.physical = physical
    line.line_state = line_state
    line.nr_writes = nr_writes
    return index


@kernel
def _write(state: "State", index: int) -> int:
    """Write a line and its synonyms in the current CPU's cache; return how many synonyms there were."""
    cpu = state.current[Current.CPU]
    line = state.cache_line[index]
    nr_writes = line.nr_writes + 1
    line.nr_writes = nr_writes
    line.line_state = LineState.MODIFIED
    if state.knob[Knob.DCACHE_MODE] != CacheMode.VIRTUAL:
        return 0
    nr_synonyms = 0
    for place in range(nr_places(state)):
        copy = copy_at(state, cpu, line.physical, place)
        if copy not in (NIL, index):
            state.cache_line[copy].nr_writes = nr_writes
            state.cache_line[copy].line_state = LineState.MODIFIED
            nr_synonyms += 1
    return nr_synonyms


@kernel
def use_line(state: "State", index: int, write: int) -> int:
    """Read or write a line that the current CPU's cache holds: a hit. Return its cost in ps.

    The first write to a shared line costs a message if other caches have it too; each synonym of a written
    line costs as much as a hit.
    """
    line = state.cache_line[index]
    state.hw_event[HwEvent.DCACHE_HIT] += 1
    _use(state, set_of_line(state, state.current[Current.CPU], line.tag), index)
    cost = state.cost[Cost.CACHE_HIT]
    if write:
        if line.line_state != LineState.MODIFIED and drop_elsewhere(state, line.physical):
            cost += state.cost[Cost.CACHE_TRANSFER]
        cost += _write(state, index) * state.cost[Cost.CACHE_HIT]
    return cost


@kernel
def cache_access(state: "State", vaddr: int, pfn: int, write: int) -> int:
    """Read or write the line of ``vaddr``, which translates to frame ``pfn``, on the current CPU.

    Returns what that takes in ps, without the translation. A miss costs the look-up and the fetch: from another
    cache that has the line modified, else from memory, also where a synonym of it is here: that shows only when
    the line arrives. A write sends its invalidations with the fetch. In mode virtual, an access by a user program
    leaves it the right to do the same by ``find_virtual_line``, without a translation.
    """
    cpu = state.current[Current.CPU]
    is_virtual = state.knob[Knob.DCACHE_MODE] == CacheMode.VIRTUAL
    physical = physical_line(state, vaddr, pfn)
    tag = physical
    pcid = 0
    if is_virtual:
        tag = vaddr >> state.knob[Knob.DCACHE_LINE_SHIFT]
        pcid = state.cpu[cpu].tlb_tag & PCID_MASK
    first = set_of_line(state, cpu, tag)
    index = find_line(state, first, tag, pcid)
    if index != NIL:
        # The page behind a virtual line was changed without a flush.
        bug_on(state, state.cache_line[index].physical != physical, Panic.DATA_CACHE, index)
        cost = use_line(state, index, write)
    else:
        state.hw_event[HwEvent.DCACHE_MISS] += 1
        was_modified = share_elsewhere(state, physical)
        cost = state.cost[Cost.CACHE_HIT]
        cost += state.cost[Cost.CACHE_TRANSFER] if was_modified else state.cost[Cost.CACHE_MISS]
        index = _fill(state, tag, pcid, physical)
        _use(state, first, index)
        if write:
            drop_elsewhere(state, physical)
            cost += _write(state, index) * state.cost[Cost.CACHE_HIT]
    if is_virtual and state.cpu[cpu].cpl == USER_MODE:
        state.cache_line[index].rights |= LineRight.WRITE if write else LineRight.READ
    return cost


@kernel
def find_virtual_line(state: "State", vaddr: int, write: int) -> int:
    """Return the place of a line that serves an access of the current CPU without a translation, or NIL.

    That is a line of a virtual cache, for a user program that has done the like before. ``use_line`` then does
    the access, and ``line_pfn`` says its frame. NIL in all other modes.
    """
    cpu = state.current[Current.CPU]
    record = state.cpu[cpu]
    if state.knob[Knob.DCACHE_MODE] != CacheMode.VIRTUAL or record.cpl != USER_MODE:
        return NIL
    tag = vaddr >> state.knob[Knob.DCACHE_LINE_SHIFT]
    index = find_line(state, set_of_line(state, cpu, tag), tag, record.tlb_tag & PCID_MASK)
    if index == NIL:
        return NIL
    needed = LineRight.WRITE if write else LineRight.READ
    return index if state.cache_line[index].rights & needed else NIL


@kernel
def translation_hidden_ps(state: "State", translation_ps: int) -> int:
    """Return how much of a translation that took ``translation_ps`` the cache's mode hides behind its own work.

    Overlapped, the longer of translation and look-up counts. In a pipeline with a stage for translation, the
    look-up in the first-level TLB costs that stage, however long it takes: the result is negative if it would
    take less; misses of that level stall. Nothing is hidden in the other modes.
    """
    mode = state.knob[Knob.DCACHE_MODE]
    if mode == CacheMode.OVERLAPPED:
        return min(translation_ps, state.cost[Cost.CACHE_HIT])
    if mode == CacheMode.EXTRA_STAGE:
        return min(translation_ps, state.cost[Cost.TLB_L1_HIT]) - state.cost[Cost.TRANSLATION_STAGE]
    return 0


# --- building -------------------------------------------------------------------------------------------


def _check_power(name: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high or value & (value - 1):
        raise ValueError(f"data_cache.{name}: {value} is not a power of two in {low}..{high}")


def check_data_cache_spec(spec: "DataCacheSpec") -> None:
    """Raise ValueError, in one line that names the value and its limit, for a cache that cannot be built."""
    modes = [mode.name.lower() for mode in CacheMode]
    if spec.mode not in modes:
        raise ValueError(f"data_cache.mode: {spec.mode!r} is none of {', '.join(modes)}")
    if spec.mode == CacheMode.OFF.name.lower():
        return
    _check_power("line_bytes", spec.line_bytes, MIN_LINE_BYTES, PAGE_SIZE)
    _check_power("sets", spec.sets, 1, MAX_LINES)
    if not 1 <= spec.ways <= MAX_LINES // spec.sets:
        raise ValueError(
            f"data_cache.ways: {spec.ways} is outside 1..{MAX_LINES // spec.sets} ({spec.sets} sets)"
        )
    indexed_bytes = spec.sets * spec.line_bytes
    if spec.mode == CacheMode.OVERLAPPED.name.lower() and indexed_bytes > PAGE_SIZE:
        raise ValueError(
            f"data_cache.sets: {spec.sets} sets of {spec.line_bytes} bytes are {indexed_bytes} bytes, above the"
            f" {PAGE_SIZE} of a page: overlapped, the index must lie within the page offset"
        )


def nr_cache_lines(spec: "DataCacheSpec") -> int:
    """Return the lines of one CPU's cache; 0 if it is off."""
    return 0 if spec.mode == CacheMode.OFF.name.lower() else spec.sets * spec.ways


def setup_data_cache(state: "State", spec: "DataCacheSpec") -> None:
    """Give every CPU an empty cache of this shape; ``state.cost`` must be set.

    Raises ValueError if a hit would take no time: an epoch with endless workloads would never end.
    """
    check_data_cache_spec(spec)
    mode = CacheMode[spec.mode.upper()]
    state.knob[Knob.DCACHE_MODE] = mode
    if mode == CacheMode.OFF:
        return
    state.knob[Knob.DCACHE_SETS] = spec.sets
    state.knob[Knob.DCACHE_WAYS] = spec.ways
    state.knob[Knob.DCACHE_LINE_SHIFT] = spec.line_bytes.bit_length() - 1
    if state.cost[Cost.CACHE_HIT] == 0:
        raise ValueError("cost.cache_hit: 0 ps; time would stand still")


__all__ = [
    "CacheMode",
    "cache_access",
    "check_data_cache_spec",
    "find_virtual_line",
    "nr_cache_lines",
    "setup_data_cache",
    "translation_hidden_ps",
    "use_line",
]
