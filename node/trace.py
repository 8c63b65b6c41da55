"""Replaying a recorded trace: a process makes the accesses that a real program made, in its order.

    work.first_run --> [page 17, 3 fetches] [page 2, 1 load] [page 17, 5 fetches] ...   state.trace_run
    work.run = 2 ---------------------------------------------^
    work.first_page + 17 --> 0x401                                                      state.trace_page

A record is a *run*: accesses of one kind to one page with no other access between them. The first two go
through the MMU as any access does; the first faults as often as it must. If the second hits the first-level
TLB, the others are counted and charged like it, not made. That is exact: the entry that it found holds the
page with the rights that its kind needs, and is the one used last of its set, so a further access of that kind
finds it too and changes nothing but counters and the clock. Nothing can take it away in between, since a run is
one operation of its CPU: other CPUs, the kernel's threads and the host's answers have their turn between
operations; ``MAX_RUN`` keeps one short. Where the second access is no such hit (paging is off, a processor has
no first level for the size of page) or a data cache looks at every access, all are made.

A modify (a load and a store by one instruction) is one access that needs the right to write from the start.
A store changes the content of its page, to what depends on the process's seed and its number of accesses.

Where a process is in its trace is in its WORK record, so a machine that is kept and restored goes on exactly.

# Differs from Linux: text and data come from no file: a page that is only read or fetched from is the shared
# page of zeroes, until it is written.
"""

from typing import TYPE_CHECKING, Final

import numpy as np

from node.content import write_word
from node.counters import Current, HwEvent, Knob
from node.fault.access import touch
from node.hw.data_cache import CacheMode
from node.hw.paging import AccessKind
from shared.constants import NIL, PAGE_SHIFT
from shared.jit import kernel
from shared.rng import splitmix64_word
from shared.trace_kind import TraceKind

if TYPE_CHECKING:
    from node.state import State

TRACE_RUN = np.dtype(
    [
        ("page", np.int32),  # index into its trace's pages
        ("word", np.int32),  # accesses, and in the lowest bits their TraceKind
    ],
    align=True,
)
KIND_BITS: Final = 2
KIND_MASK: Final = (1 << KIND_BITS) - 1
MAX_RUN: Final = 1024  # accesses; at 5 cycles each 2 us, a fifth of a quantum. The longest recorded are 289.
# A page's content is its pattern changed by a word of this many bits.
STORED_MASK: Final = (1 << 31) - 1


@kernel
def access_kind_of(kind: int) -> int:
    """Return the AccessKind of a recorded access."""
    if kind >= TraceKind.STORE:
        return AccessKind.WRITE
    return AccessKind.EXECUTE if kind == TraceKind.FETCH else AccessKind.READ


@kernel
def _touch_again(state: "State", mm_index: int, vaddr: int, access_kind: int) -> int:
    """Make an access, as ``touch``, in the machine code once."""
    return touch(state, mm_index, vaddr, access_kind)


@kernel
def _repeat(state: "State", index: int, vaddr: int, access_kind: int, count: int) -> None:
    """Make, or count, ``count`` more accesses of the current CPU like its last, which was served."""
    mm_index = state.work[index].mm
    event = HwEvent.ITLB_L1_HIT if access_kind == AccessKind.EXECUTE else HwEvent.TLB_L1_HIT
    hits = state.hw_event[event]
    begin_ps = state.current[Current.CLOCK_PS]
    _touch_again(state, mm_index, vaddr, access_kind)
    left = count - 1
    if state.hw_event[event] > hits and state.knob[Knob.DCACHE_MODE] == CacheMode.OFF:
        spent_ps = state.current[Current.CLOCK_PS] - begin_ps
        state.hw_event[event] += left
        state.hw_event[HwEvent.MEMORY_ACCESS] += left
        state.current[Current.CLOCK_PS] += left * spent_ps
    else:
        for _ in range(left):
            _touch_again(state, mm_index, vaddr, access_kind)


@kernel
def replay_run(state: "State", index: int) -> int:
    """Make the accesses of the workload's next run; return their frame, or NIL: a signal, and nothing is done."""
    work = state.work[index]
    run = state.trace_run[work.first_run + work.run]
    vaddr = state.trace_page[work.first_page + run.page] << PAGE_SHIFT
    kind = run.word & KIND_MASK
    access_kind = access_kind_of(kind)
    pfn = touch(state, work.mm, vaddr, access_kind)
    if pfn == NIL:
        return NIL
    count = run.word >> KIND_BITS
    if count > 1:
        _repeat(state, index, vaddr, access_kind, count - 1)
    work.counter += count
    if kind >= TraceKind.STORE:
        write_word(state, pfn, splitmix64_word(work.seed, work.counter) & STORED_MASK)
    following = work.run + 1
    work.run = 0 if following == work.nr_runs else following
    return pfn
