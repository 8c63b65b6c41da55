"""Workloads: processes that read and write their memory in a pattern, one page an operation.

    sequential   0 1 2 3 ... and again from 0
    uniform      every page as likely
    zipf         the page of rank r with weight r**-exponent
    syscall      as sequential, and before each access a system call that does nothing
    dma          no accesses: transfers between a device and memory (node/dma_work.py)
    trace        what a real program did (node/trace.py)
    allocations  what the kernel allocates and frees, for no process (node/alloc_trace.py)

Operation n of a workload is a function of its seed and n: one splitmix64 word says which page, whether it is
written, and what. So a workload's whole state is its counter. What is written depends on seed and n too, so
that pages of different workloads, and of one, are hardly ever equal.

Zipf draws come from a table that is built with the machine, of decimal arithmetic (every operation correctly
rounded, so the same everywhere) and bounded in size: the first ranks stand alone, further ones in
buckets that are 1/512 of their first rank wide, within which every rank is as likely.

    header   [buckets | multiplier | offset]   a rank's page is (rank * multiplier + offset) % pages
    guide    [4096]                            where a draw, by its upper 12 bits, begins its search
    buckets  [end of its share of 0..2**62 | its first rank] ...

The multiplier is near the golden ratio of the number of pages, and coprime to it, so hot pages lie spread
over the memory and no two ranks share a page.
"""

import functools
from decimal import MAX_EMAX, MIN_EMIN, Context, Decimal, InvalidOperation, localcontext
from enum import IntEnum
from math import gcd
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from node.content import write_word
from node.counters import Current, Knob
from node.fault.access import touch
from node.joints import dma_step, exit_mmap, run_allocations, system_call
from node.kthread import Kthread
from node.trace import replay_run
from shared.constants import NIL, PAGE_SHIFT
from shared.jit import kernel
from shared.rng import below, mix64, splitmix64_word
from shared.streams import SPLITMIX_GAMMA, splitmix64
from shared.wrap64 import shift_right64

if TYPE_CHECKING:
    from node.state import State

WORK = np.dtype(
    [
        ("seed", np.int64),  # of its stream of random numbers
        ("counter", np.int64),  # operations done; of a trace its accesses or allocations and frees
        ("operations", np.int64),  # to do; 0: without end
        ("vaddr", np.int64),  # of its memory
        ("nr_pages", np.int64),
        ("zipf_base", np.int64),
        ("think_ps", np.int64),  # CPU time of its own after each operation
        ("horizon", np.int64),  # of an allocation trace: how far it may go before it looks at the others
        ("lap_begin", np.int64),  # position at which its present time through the trace began
        ("lap_events", np.int64),  # of the whole trace, on all CPUs
        ("first_run", np.int32),  # of its trace in state.trace_run, or of its events in state.alloc_event
        ("nr_runs", np.int32),
        ("run", np.int32),  # the next, from 0
        ("first_page", np.int32),  # of its trace in state.trace_page, or of its objects in state.alloc_object
        ("write_percent", np.int32),
        ("kind", np.int32),
        ("mm", np.int32),  # 0: the kernel's own work
        ("cpu", np.int32),
    ],
    align=True,
)


class WorkKind(IntEnum):
    """The pattern of a workload's accesses."""

    NONE = 0
    SEQUENTIAL = 1
    UNIFORM = 2
    ZIPF = 3
    TRACE = 4  # recorded: node/trace.py
    SYSCALL = 5
    DMA = 6
    ALLOCATIONS = 7  # of an allocation trace
    ENDED = 8  # the kernel ended the process: an access that it could not serve


PERCENT: Final = 100
# Which bits of an operation's random word say what; the page is said by the highest.
WRITE_BITS: Final = 16
WRITE_MASK: Final = (1 << WRITE_BITS) - 1
WORD_MASK: Final = (1 << 31) - 1

SHARE_BITS: Final = 62
GUIDE_BITS: Final = 12
GUIDE_SHIFT: Final = SHARE_BITS - GUIDE_BITS
HEADER_BUCKETS: Final = 0
HEADER_MULTIPLIER: Final = 1
HEADER_OFFSET: Final = 2
GUIDE_AT: Final = 3
BUCKETS_AT: Final = GUIDE_AT + (1 << GUIDE_BITS)
BUCKET_WORDS: Final = 2
SINGLE_RANKS: Final = 1024
BUCKET_WIDTH_SHIFT: Final = 9
MAX_PAGES: Final = 1 << 31
MAX_ZIPF_WORDS: Final = 22_000  # of the largest table
MAX_EXPONENT: Final = 8
DECIMAL_DIGITS: Final = 40


# --- building a Zipf table (Python) ---------------------------------------------------------------------


def zipf_table(nr_pages: int, exponent: str, seed: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Return the words of a Zipf workload's table over ``nr_pages`` pages, as ``state.zipf`` holds them.

    ``exponent`` is a decimal number such as "0.99". ``seed`` says on which page the first rank lies. There
    are at most MAX_ZIPF_WORDS words, whatever the number of pages. Raises ValueError for an exponent that is
    no number of 0..8, or a number of pages outside 1..2**31.
    """
    if not 1 <= nr_pages <= MAX_PAGES:
        raise ValueError(f"zipf: {nr_pages} pages is outside 1..{MAX_PAGES}")
    try:
        power = Decimal(exponent)
    except InvalidOperation:
        raise ValueError(f"zipf: exponent {exponent!r} is not a number such as 0.99") from None
    if not (power.is_finite() and 0 <= power <= MAX_EXPONENT):
        raise ValueError(f"zipf: exponent {exponent} is outside 0..{MAX_EXPONENT}")
    first_ranks, ends = _shares(nr_pages, power)
    guide = np.searchsorted(
        np.array(ends), np.arange(1 << GUIDE_BITS, dtype=np.int64) << GUIDE_SHIFT, "right"
    )
    multiplier = max(nr_pages * SPLITMIX_GAMMA >> 64, 1)
    while gcd(multiplier, nr_pages) != 1:
        multiplier += 1
    header = [len(ends), multiplier, splitmix64(seed, 0) % nr_pages]
    buckets = [word for pair in zip(ends, first_ranks, strict=False) for word in pair]
    # The ranks' end stands where the next bucket's first rank would, so that a width is a difference.
    return np.array([*header, *guide.tolist(), *buckets, 1 << SHARE_BITS, nr_pages], np.int64)


@functools.lru_cache(maxsize=8)
def _shares(nr_pages: int, power: Decimal) -> tuple[list[int], list[int]]:
    """Return the first rank of each bucket (from 0), and where its share of 0..2**62 ends."""
    first_ranks = list(range(min(SINGLE_RANKS, nr_pages)))
    while (following := first_ranks[-1] + max(first_ranks[-1] >> BUCKET_WIDTH_SHIFT, 1)) < nr_pages:
        first_ranks.append(following)
    with localcontext(Context(prec=DECIMAL_DIGITS, Emax=MAX_EMAX, Emin=MIN_EMIN)):
        sums = []
        total = Decimal(0)
        for first, behind in zip(first_ranks, [*first_ranks[1:], nr_pages], strict=True):
            # A bucket's weight is its width times the mean of its first and last rank's.
            weight = (_weight(first + 1, power) + _weight(behind, power)) / 2
            total += weight * (behind - first)
            sums.append(total)
        ends = [int(part * (1 << SHARE_BITS) / total) for part in sums]
    ends[-1] = 1 << SHARE_BITS
    return first_ranks, ends


@functools.lru_cache(maxsize=1)  # the first and last rank of most buckets are one
def _weight(rank: int, power: Decimal) -> Decimal:
    return (-power * Decimal(rank).ln()).exp()


# --- one operation --------------------------------------------------------------------------------------


@kernel
def zipf_page(state: "State", base: int, nr_pages: int, draw: int) -> int:
    """Return the page, 0..nr_pages-1, that the random word ``draw`` stands for in the table at ``base``."""
    share = shift_right64(draw, 64 - SHARE_BITS)
    bucket = base + BUCKETS_AT + BUCKET_WORDS * state.zipf[base + GUIDE_AT + (share >> GUIDE_SHIFT)]
    while state.zipf[bucket] <= share:
        bucket += BUCKET_WORDS
    rank = state.zipf[bucket + 1]
    width = state.zipf[bucket + BUCKET_WORDS + 1] - rank
    if width > 1:
        rank += below(mix64(draw), width)
    return (rank * state.zipf[base + HEADER_MULTIPLIER] + state.zipf[base + HEADER_OFFSET]) % nr_pages


@kernel
def _page_of(state: "State", index: int, draw: int) -> int:
    work = state.work[index]
    if work.kind == WorkKind.UNIFORM:
        return below(draw, work.nr_pages)
    if work.kind == WorkKind.ZIPF:
        return zipf_page(state, work.zipf_base, work.nr_pages, draw)
    return work.counter % work.nr_pages


@kernel
def _touch_one(state: "State", index: int) -> int:
    """Read or write the workload's next page; return its frame, or NIL: a signal, and nothing is done."""
    work = state.work[index]
    draw = splitmix64_word(work.seed, work.counter)
    write = 1 if ((draw & WRITE_MASK) * PERCENT) >> WRITE_BITS < work.write_percent else 0
    pfn = touch(state, work.mm, work.vaddr + (_page_of(state, index, draw) << PAGE_SHIFT), write)
    if pfn == NIL:
        return NIL
    if write:
        write_word(state, pfn, (draw >> WRITE_BITS) & WORD_MASK)
    work.counter += 1
    state.current[Current.CLOCK_PS] += work.think_ps
    return pfn


@kernel
def _operate(state: "State", index: int) -> None:
    """Do the workload's next operation, or end its process if the kernel cannot serve it."""
    work = state.work[index]
    if work.kind == WorkKind.DMA:
        dma_step(state, index)
        return
    if work.kind == WorkKind.SYSCALL:
        system_call(state, 1)
    pfn = replay_run(state, index) if work.kind == WorkKind.TRACE else _touch_one(state, index)
    if pfn == NIL:
        work.kind = WorkKind.ENDED
        if state.mm[work.mm].alive:
            exit_mmap(state, work.mm)


# --- many ------------------------------------------------------------------------------------------------


@kernel
def is_runnable(state: "State", index: int) -> int:
    """Return whether the workload has operations left and a process to do them."""
    work = state.work[index]
    if not WorkKind.NONE < work.kind < WorkKind.ENDED:
        return 0
    if work.mm and not state.mm[work.mm].alive:
        return 0
    return 1 if work.operations == 0 or work.counter < work.operations else 0


@kernel
def run_work(state: "State", index: int, limit_ps: int) -> None:
    """Run the workload on the current CPU until its clock passes ``limit_ps``, or kswapd's by the quantum.

    kswapd counts because an allocation may wake it at any time; ksmd's time is part of the limit.
    """
    if state.work[index].kind == WorkKind.ALLOCATIONS:
        run_allocations(state, index, limit_ps)
        return
    quantum_ps = state.knob[Knob.QUANTUM_PS]
    kswapd = state.kthread[Kthread.KSWAPD]
    while state.current[Current.CLOCK_PS] < limit_ps and is_runnable(state, index):
        if state.current[Current.CLOCK_PS] - quantum_ps >= kswapd.clock_ps:
            break
        _operate(state, index)
