"""The lines of the data caches: where they stand, who else has them, and how they are dropped.

A line's *number* is its address divided by the line's bytes. Its low bits choose the set, so the numbers of sets
are powers of two. ``state.cache_line`` has CPU 0's sets one after the other, then CPU 1's.

    number (virtual or physical)   ... | colour | index within the page |        one set of each colour may hold
                                       |<------ index of the set ------>|        a physical line under some name

data_cache.py tells the whole; the flushes of TLBs, which it builds on, reach the lines here.

Source: Cekleov and Dubois, "Virtual-Address Caches", IEEE Micro 17(5), 1997.
"""

from enum import IntEnum
from typing import TYPE_CHECKING

import numpy as np

from node.counters import Current, HwEvent, Knob
from shared.constants import NIL, PAGE_OFFSET_MASK, PAGE_SHIFT
from shared.jit import kernel

if TYPE_CHECKING:
    from node.state import State

CACHE_LINE = np.dtype(
    [
        ("tag", np.int64),  # the line's number: virtual in mode virtual, else physical
        ("physical", np.int64),  # number of the line in memory
        ("stamp", np.int64),  # rank of its last use in its set, the newest highest; 0: invalid
        ("nr_writes", np.int64),  # since memory held the line as it is here
        ("pcid", np.int32),  # of the address space, in mode virtual
        ("line_state", np.int16),  # LineState
        ("rights", np.int16),  # LineRight bits, in mode virtual
    ],
    align=True,
)


class CacheMode(IntEnum):
    """Values of Knob.DCACHE_MODE; scenarios have them in lower case."""

    OFF = 0
    SERIAL = 1
    OVERLAPPED = 2
    EXTRA_STAGE = 3
    VIRTUAL = 4


class LineState(IntEnum):
    """Whose a line is."""

    INVALID = 0
    SHARED = 1  # as memory holds it; other caches may have it too
    MODIFIED = 2  # newer than memory; no other cache has it


class LineRight(IntEnum):
    """What user programs were found to be allowed when the line was last accessed by way of a translation."""

    READ = 1 << 0
    WRITE = 1 << 1


# --- places ---------------------------------------------------------------------------------------------


@kernel
def physical_line(state: "State", vaddr: int, pfn: int) -> int:
    """Return the number of the physical line that holds ``vaddr`` of a page in frame ``pfn``."""
    shift = state.knob[Knob.DCACHE_LINE_SHIFT]
    return (pfn << (PAGE_SHIFT - shift)) | ((vaddr & PAGE_OFFSET_MASK) >> shift)


@kernel
def line_pfn(state: "State", index: int) -> int:
    """Return the frame that a valid line is part of."""
    return state.cache_line[index].physical >> (PAGE_SHIFT - state.knob[Knob.DCACHE_LINE_SHIFT])


@kernel
def set_of_line(state: "State", cpu: int, number: int) -> int:
    """Return the place of the first way of the set that a line's number chooses."""
    sets = state.knob[Knob.DCACHE_SETS]
    return (cpu * sets + (number & (sets - 1))) * state.knob[Knob.DCACHE_WAYS]


@kernel
def find_line(state: "State", first: int, tag: int, pcid: int) -> int:
    """Return the place of the valid line with this tag in the set that begins at ``first``, or NIL."""
    for index in range(first, first + state.knob[Knob.DCACHE_WAYS]):
        line = state.cache_line[index]
        if line.tag == tag and line.pcid == pcid and line.stamp:
            return index
    return NIL


@kernel
def nr_places(state: "State") -> int:
    """Return in how many places of one cache a physical line may be: the ways of a set of each colour."""
    ways = state.knob[Knob.DCACHE_WAYS]
    if state.knob[Knob.DCACHE_MODE] != CacheMode.VIRTUAL:
        return ways
    colours = (state.knob[Knob.DCACHE_SETS] << state.knob[Knob.DCACHE_LINE_SHIFT]) >> PAGE_SHIFT
    return ways * (colours if colours > 1 else 1)


@kernel
def copy_at(state: "State", cpu: int, physical: int, place: int) -> int:
    """Return where the cache of ``cpu`` holds a copy of a physical line in a place 0..nr_places-1, or NIL."""
    ways = state.knob[Knob.DCACHE_WAYS]
    number = physical
    if state.knob[Knob.DCACHE_MODE] == CacheMode.VIRTUAL:
        index_bits = PAGE_SHIFT - state.knob[Knob.DCACHE_LINE_SHIFT]
        number = (physical & ((1 << index_bits) - 1)) | (place // ways << index_bits)
    index = set_of_line(state, cpu, number) + place % ways
    line = state.cache_line[index]
    return index if line.physical == physical and line.stamp else NIL


@kernel
def first_copy(state: "State", cpu: int, physical: int) -> int:
    """Return where the cache of ``cpu`` holds a physical line, or NIL."""
    for place in range(nr_places(state)):
        index = copy_at(state, cpu, physical, place)
        if index != NIL:
            return index
    return NIL


# --- dropping -------------------------------------------------------------------------------------------


@kernel
def drop_line(state: "State", cpu: int, index: int) -> None:
    """Drop a line from a CPU's cache; the last copy of a modified one is written back."""
    line = state.cache_line[index]
    was_modified = line.line_state == LineState.MODIFIED
    line.stamp = 0
    line.line_state = LineState.INVALID
    line.nr_writes = 0
    line.rights = 0
    if was_modified and first_copy(state, cpu, line.physical) == NIL:
        state.hw_event[HwEvent.DCACHE_WRITEBACK] += 1


@kernel
def drop_page_lines(state: "State", cpu: int, vaddr: int, pcid: int, page_shift: int) -> None:
    """Drop a page's lines from a CPU's virtual cache: what must follow when a translation is dropped.

    The page is that of 2**page_shift bytes around ``vaddr``. ``pcid`` NIL means those of every address space.
    Does nothing in other modes: a physical address does not change its meaning.
    """
    if state.knob[Knob.DCACHE_MODE] != CacheMode.VIRTUAL:
        return
    shift = page_shift - state.knob[Knob.DCACHE_LINE_SHIFT]
    nr_lines = state.knob[Knob.DCACHE_SETS] * state.knob[Knob.DCACHE_WAYS]
    for index in range(cpu * nr_lines, (cpu + 1) * nr_lines):
        line = state.cache_line[index]
        if line.stamp and line.tag >> shift == vaddr >> page_shift and pcid in (NIL, line.pcid):
            drop_line(state, cpu, index)


@kernel
def drop_pcid_lines(state: "State", cpu: int, pcid: int) -> None:
    """Drop the lines of an address space from a CPU's virtual cache, of all if ``pcid`` is NIL.

    Does nothing in other modes.
    """
    if state.knob[Knob.DCACHE_MODE] != CacheMode.VIRTUAL:
        return
    nr_lines = state.knob[Knob.DCACHE_SETS] * state.knob[Knob.DCACHE_WAYS]
    for index in range(cpu * nr_lines, (cpu + 1) * nr_lines):
        line = state.cache_line[index]
        if line.stamp and pcid in (NIL, line.pcid):
            drop_line(state, cpu, index)


# --- coherence ------------------------------------------------------------------------------------------


@kernel
def share_elsewhere(state: "State", physical: int) -> int:
    """Before the current CPU fetches a line: let a cache that has it modified write it back and share it.

    Returns 1 if there was one.
    """
    here = state.current[Current.CPU]
    found = 0
    for cpu in range(state.knob[Knob.NR_CPUS]):
        if cpu == here:
            continue
        for place in range(nr_places(state)):
            index = copy_at(state, cpu, physical, place)
            if index != NIL and state.cache_line[index].line_state == LineState.MODIFIED:
                state.cache_line[index].line_state = LineState.SHARED
                state.cache_line[index].nr_writes = 0
                found = 1
    if found:
        state.hw_event[HwEvent.DCACHE_WRITEBACK] += 1
    return found


@kernel
def drop_elsewhere(state: "State", physical: int) -> int:
    """Before the current CPU writes a line: drop every other cache's copies; return how many.

    None of them is modified: the line was fetched first, or is shared here.
    """
    here = state.current[Current.CPU]
    nr_dropped = 0
    for cpu in range(state.knob[Knob.NR_CPUS]):
        if cpu == here:
            continue
        for place in range(nr_places(state)):
            index = copy_at(state, cpu, physical, place)
            if index != NIL:
                drop_line(state, cpu, index)
                nr_dropped += 1
    state.hw_event[HwEvent.DCACHE_INVALIDATION] += nr_dropped
    return nr_dropped
