"""Batches of accesses by one process: what the commands of a workload program do.

All take their arguments in ``state.request``, since each command has more than a kernel's four, run as the
current task, and return how many pages they touched; fewer than asked for means that the kernel refused one,
and Request.R0 then says why (VmFault).

    A0 first address   A1 number of pages   A2 stride in bytes   A3 Access   A4 byte written
"""

from enum import IntEnum
from typing import TYPE_CHECKING, Final

from node.content import (
    PATTERN_HALF,
    PATTERN_TEXT,
    PATTERN_UNIQUE,
    generated,
    same_filled,
    set_content,
    write_first_byte,
)
from node.counters import Current, Request
from node.fault.access import touch
from node.fault.kinds import Access
from node.joints import run_in_user_mode
from shared.constants import NIL, PAGE_SHIFT
from shared.jit import entry, kernel
from shared.wrap64 import add64, mul64, shift_right64

if TYPE_CHECKING:
    from node.state import State

# The generator of the workload language: x = x * A + C modulo 2**64, the value is its upper 31 bits.
LCG_MULTIPLIER: Final = 6364136223846793005
LCG_INCREMENT: Final = 1442695040888963407
LCG_SHIFT: Final = 33


class Fill(IntEnum):
    """What ``fill`` writes over whole pages."""

    SAME = 0  # the 8-byte value A5, plus A6 a page
    UNIQUE = 1  # distinct by (seed A5, page), A7 pages before they repeat (0: never)
    HALF = 2
    TEXT = 3


@entry
def become(state: "State", mm_index: int) -> None:
    """Let the current CPU run the task whose address space this is."""
    state.current[Current.MM] = mm_index
    run_in_user_mode(state, mm_index)


@entry
def access_pages(state: "State", mm_index: int) -> int:
    """Read, or write one byte of, A1 pages from A0 on, A2 bytes apart."""
    vaddr = state.request[Request.A0]
    stride = state.request[Request.A2]
    write = state.request[Request.A3]
    value = state.request[Request.A4]
    nr_pages = state.request[Request.A1]
    for done in range(nr_pages):
        pfn = touch(state, mm_index, vaddr, write)
        if pfn == NIL:
            return done
        if write == Access.WRITE:
            write_first_byte(state, pfn, value)
        vaddr += stride
    return nr_pages


@entry
def access_random_pages(state: "State", mm_index: int, count: int, seed: int) -> int:
    """Read, or write one byte of, ``count`` pages drawn from the A1 pages at A0 by the language's generator."""
    first = state.request[Request.A0]
    nr_pages = state.request[Request.A1]
    write = state.request[Request.A3]
    value = state.request[Request.A4]
    word = seed
    for done in range(count):
        word = add64(mul64(word, LCG_MULTIPLIER), LCG_INCREMENT)
        page = shift_right64(word, LCG_SHIFT) % nr_pages
        pfn = touch(state, mm_index, first + (page << PAGE_SHIFT), write)
        if pfn == NIL:
            return done
        if write == Access.WRITE:
            write_first_byte(state, pfn, value)
    return count


@kernel
def _fill_content(state: "State", kind: int, index: int) -> int:
    seed = state.request[Request.A5]
    if kind == Fill.SAME:
        return same_filled(add64(seed, mul64(index, state.request[Request.A6])))
    repeat = state.request[Request.A7]
    if kind == Fill.UNIQUE:
        return generated(PATTERN_UNIQUE, seed, index % repeat if repeat else index)
    return generated(PATTERN_HALF if kind == Fill.HALF else PATTERN_TEXT, seed, index)


@entry
def fill_pages(state: "State", mm_index: int, kind: int, first_index: int) -> int:
    """Write A1 whole pages from A0 on; page ``first_index`` of the mapping is the first."""
    vaddr = state.request[Request.A0]
    nr_pages = state.request[Request.A1]
    for done in range(nr_pages):
        pfn = touch(state, mm_index, vaddr + (done << PAGE_SHIFT), Access.WRITE)
        if pfn == NIL:
            return done
        set_content(state, pfn, _fill_content(state, kind, first_index + done))
    return nr_pages


@entry
def touch_anew(state: "State", mm_index: int, vaddr: int, nr_pages: int) -> int:
    """Touch ``nr_pages`` pages from ``vaddr`` on as by a write, leaving ``state.request`` alone; return how many."""
    for done in range(nr_pages):
        pfn = touch(state, mm_index, vaddr + (done << PAGE_SHIFT), Access.WRITE)
        if pfn == NIL:
            return done
    return nr_pages
