"""Replaying an allocation trace: the kernel allocates and frees what a recorded or generated stream says.

    trace   0+a  0+b  1-a  0+c  1-c  0-b              CPU, + allocates, - frees
    CPU 0   +a   +b        +c        -b               state.alloc_event, each CPU's events in a row
    CPU 1             -a        -c
                      |
                      v
            alloc_object[a]  address, bytes taken     EMPTY until it is allocated and after it is freed

Each CPU of a trace is a workload of its own: it makes its events in their order, at its own pace, as the
kernel's own work (of no process). Two things order the CPUs. What is not there yet cannot be freed; and nobody
is more than LEAD events of the trace ahead of the slowest, so that what lives at a time is about what lived when it was
recorded. A CPU that has to wait spins until its turn of the scheduler ends. In the order of the trace nobody has
to wait, so somebody can always go on.

An allocation that fails is counted, and its object is FAILED: the free that belongs to it is left out. A
trace that is replayed again allocates an object again when it has been freed.

What the allocator takes on the current clock, waiting for memory included, is counted as its time. Besides,
each event costs its caller a memory access, and the workload's ``think_ps``.

# Differs from Linux: the callers' work between their allocations is ``think_ps`` alone, and a CPU that waits
# for another spins.
"""

from enum import IntEnum
from typing import TYPE_CHECKING, Final

import numpy as np

from node.counters import Current, Knob
from node.hw.cost import Cost
from node.joints import alloc_frames, free_frames, vfree, vmalloc
from node.kalloc.kmem_cache import kfree, kmalloc, kmem_cache_alloc, kmem_cache_free, ksize
from node.kalloc.vmap_area import VmapCaller
from node.kthread import Kthread
from node.phys.page import PageFlag
from shared.alloc_kind import AllocKind, AllocOp
from shared.constants import INT64_MAX, NIL, PAGE_OFFSET_MASK, PAGE_SHIFT, PAGE_SIZE
from shared.jit import cold_kernel, entry, kernel

if TYPE_CHECKING:
    from node.state import State

ALLOC_EVENT = np.dtype(
    [
        ("position", np.int32),  # of the event in its trace, all CPUs together
        ("number", np.int32),  # of the object, from its trace's first
        ("bytes_or_order", np.int32),
        ("gfp", np.int32),  # Gfp bits
        ("op", np.int8),  # AllocOp
        ("kind", np.int8),  # AllocKind
        ("cache", np.int16),  # of an OBJECT
    ],
    align=True,
)

ALLOC_OBJECT = np.dtype(
    [
        ("address", np.int64),  # physical; of frames the first's number, of vmalloc linear; EMPTY, or FAILED
        ("taken", np.int64),  # bytes
    ],
    align=True,
)
EMPTY: Final = 0  # no object has this address, and frame 0 is reserved
FAILED: Final = NIL
NR_FAILED_ORDERS: Final = 11
# Events of the trace that a CPU may be ahead of the slowest: about what is done in a quantum, 10 us at 60 cycles each.
LEAD: Final = 512


class AllocStat(IntEnum):
    """Counters of all allocation traces of a machine, in ``state.alloc_stat``."""

    ALLOCATED = 0
    FREED = 1
    FAILED = 2  # allocations
    FREE_SKIPPED = 3  # frees of what could not be allocated
    FREE_REFUSED = 4  # frees that the allocator found wrong
    ASKED_BYTES = 5  # of the objects alive
    TAKEN_BYTES = 6  # that those objects may use: what they were rounded up to
    FRAMES = 7  # held by objects that are frames
    VMALLOC_FRAMES = 8  # held by objects of vmalloc
    ALLOC_PS = 9  # spent in allocations
    FREE_PS = 10
    WAIT_PS = 11  # spent waiting for objects of other CPUs
    FAILED_ORDER = 12  # and the following: failed allocations by the order of the block that they would fill
    NR = FAILED_ORDER + NR_FAILED_ORDERS


@kernel
def asked_bytes(kind: int, bytes_or_order: int) -> int:
    """Return how many bytes an event asks for."""
    return PAGE_SIZE << bytes_or_order if kind == AllocKind.FRAMES else bytes_or_order


@kernel
def _pages(nr_bytes: int) -> int:
    return (nr_bytes + PAGE_OFFSET_MASK) >> PAGE_SHIFT


@cold_kernel
def _count_failure(state: "State", at: int) -> None:
    event = state.alloc_event[at]
    order = 0  # vmalloc takes its frames one by one
    if event.kind != AllocKind.VMALLOC:
        while PAGE_SIZE << order < asked_bytes(event.kind, event.bytes_or_order):
            order += 1
    state.alloc_stat[AllocStat.FAILED] += 1
    state.alloc_stat[AllocStat.FAILED_ORDER + order] += 1


@kernel
def _take_frames(state: "State", order: int, gfp: int) -> int:
    """Allocate a block for the kernel; return its first frame, or NIL."""
    pfn = alloc_frames(state, order, gfp)
    if pfn != NIL:
        page = state.page[pfn]
        page.page_flags |= PageFlag.KERNEL | PageFlag.COMPOUND
        page.order = order
        state.alloc_stat[AllocStat.FRAMES] += 1 << order
    return pfn


@kernel
def _take(state: "State", at: int) -> int:
    """Allocate what event ``at`` asks for; return its address, or NIL."""
    event = state.alloc_event[at]
    if event.kind == AllocKind.KMALLOC:
        return kmalloc(state, event.bytes_or_order, event.gfp)
    if event.kind == AllocKind.OBJECT:
        return kmem_cache_alloc(state, event.cache, event.gfp)
    if event.kind == AllocKind.FRAMES:
        return _take_frames(state, event.bytes_or_order, event.gfp)
    vaddr = vmalloc(state, event.bytes_or_order, event.gfp, VmapCaller.UNKNOWN)
    if vaddr != NIL:
        state.alloc_stat[AllocStat.VMALLOC_FRAMES] += _pages(event.bytes_or_order)
    return vaddr


@kernel
def _taken_bytes(state: "State", at: int, address: int) -> int:
    event = state.alloc_event[at]
    if event.kind == AllocKind.KMALLOC:
        return ksize(state, address)
    if event.kind == AllocKind.OBJECT:
        return state.kmem_cache[event.cache].stride
    if event.kind == AllocKind.FRAMES:
        return PAGE_SIZE << event.bytes_or_order
    return _pages(event.bytes_or_order) << PAGE_SHIFT


@kernel
def _allocate(state: "State", at: int, slot: int) -> None:
    event = state.alloc_event[at]
    taken = state.alloc_object[slot]
    begin_ps = state.current[Current.CLOCK_PS]
    address = _take(state, at)
    state.alloc_stat[AllocStat.ALLOC_PS] += state.current[Current.CLOCK_PS] - begin_ps
    state.alloc_stat[AllocStat.ALLOCATED] += 1
    taken.address = address
    if address == NIL:
        _count_failure(state, at)
        return
    taken.taken = _taken_bytes(state, at, address)
    state.alloc_stat[AllocStat.ASKED_BYTES] += asked_bytes(event.kind, event.bytes_or_order)
    state.alloc_stat[AllocStat.TAKEN_BYTES] += taken.taken


@kernel
def _give_back(state: "State", at: int, address: int) -> int:
    """Free what event ``at`` frees; return 0, or what the allocator found wrong."""
    event = state.alloc_event[at]
    if event.kind == AllocKind.KMALLOC:
        return kfree(state, address)
    if event.kind == AllocKind.OBJECT:
        return kmem_cache_free(state, event.cache, address)
    if event.kind == AllocKind.FRAMES:
        state.alloc_stat[AllocStat.FRAMES] -= 1 << event.bytes_or_order
        return free_frames(state, address, event.bytes_or_order)
    state.alloc_stat[AllocStat.VMALLOC_FRAMES] -= _pages(event.bytes_or_order)
    return vfree(state, address)


@kernel
def _free(state: "State", at: int, slot: int) -> None:
    event = state.alloc_event[at]
    given = state.alloc_object[slot]
    address = given.address
    given.address = EMPTY
    if address == FAILED:
        state.alloc_stat[AllocStat.FREE_SKIPPED] += 1
        return
    begin_ps = state.current[Current.CLOCK_PS]
    if _give_back(state, at, address):
        state.alloc_stat[AllocStat.FREE_REFUSED] += 1
    state.alloc_stat[AllocStat.FREE_PS] += state.current[Current.CLOCK_PS] - begin_ps
    state.alloc_stat[AllocStat.FREED] += 1
    state.alloc_stat[AllocStat.ASKED_BYTES] -= asked_bytes(event.kind, event.bytes_or_order)
    state.alloc_stat[AllocStat.TAKEN_BYTES] -= given.taken
    given.taken = 0


@cold_kernel
def _look_at_others(state: "State", index: int) -> None:
    """Note how far the workload may go: LEAD events beyond the slowest other CPU of its trace."""
    work = state.work[index]
    work.horizon = INT64_MAX
    for other_index in range(state.knob[Knob.NR_WORKS]):
        other = state.work[other_index]
        if other.kind != work.kind or other.first_page != work.first_page or other_index == index:
            continue
        if other.operations == 0 or other.counter < other.operations:
            reached = other.lap_begin + state.alloc_event[other.first_run + other.run].position
            work.horizon = min(work.horizon, reached + LEAD)


@kernel
def _is_too_far(state: "State", index: int, position: int) -> int:
    work = state.work[index]
    if work.lap_begin + position <= work.horizon:
        return 0
    _look_at_others(state, index)
    return 1 if work.lap_begin + position > work.horizon else 0


@kernel
def _run_event(state: "State", index: int) -> int:
    """Make the workload's next event; return 0, with nothing done, if it has to wait."""
    work = state.work[index]
    at = work.first_run + work.run
    event = state.alloc_event[at]
    if _is_too_far(state, index, event.position):
        return 0
    slot = work.first_page + event.number
    is_there = state.alloc_object[slot].address != EMPTY
    if event.op == AllocOp.ALLOC:
        if is_there:
            return 0
        _allocate(state, at, slot)
    else:
        if not is_there:
            return 0
        _free(state, at, slot)
    state.current[Current.CLOCK_PS] += state.cost[Cost.MEMORY_ACCESS] + work.think_ps
    work.counter += 1
    work.run += 1
    if work.run == work.nr_runs:
        work.run = 0
        work.lap_begin += work.lap_events
    return 1


@entry
def run_allocations(state: "State", index: int, limit_ps: int) -> int:
    """Make the events of workload ``index`` on the current CPU until its clock passes ``limit_ps``; return 0.

    It ends before if the clock is ahead of kswapd's by the quantum, or if there is no event left. A CPU that
    has to wait for another does so until ``limit_ps``.
    """
    work = state.work[index]
    quantum_ps = state.knob[Knob.QUANTUM_PS]
    kswapd = state.kthread[Kthread.KSWAPD]
    while state.current[Current.CLOCK_PS] < limit_ps:
        if work.operations and work.counter >= work.operations:
            break
        if state.current[Current.CLOCK_PS] - quantum_ps >= kswapd.clock_ps:
            break
        if not _run_event(state, index):
            state.alloc_stat[AllocStat.WAIT_PS] += limit_ps - state.current[Current.CLOCK_PS]
            state.current[Current.CLOCK_PS] = limit_ps
    return 0
