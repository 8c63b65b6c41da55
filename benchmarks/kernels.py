"""What the benchmarks run: batches of one operation, as entries. benchmarks/c/twins.c has the same in C."""

from typing import TYPE_CHECKING

from node.vm.access import touch
from node.vm.unmap import unmap_area
from node.vm.vma import find_vma
from shared.constants import NIL, PAGE_SHIFT
from shared.jit import entry
from shared.rng import below, splitmix64_word

if TYPE_CHECKING:
    from node.state import State


@entry
def touch_in_order(state: "State", mm: int, vaddr: int, nr_pages: int, count: int) -> int:
    """Read ``count`` pages, in order of ``nr_pages``, again and again; return the sum of their frames."""
    page = 0
    total = 0
    for _ in range(count):
        total += touch(state, mm, vaddr + (page << PAGE_SHIFT), 0)
        page += 1
        if page == nr_pages:
            page = 0
    return total


@entry
def touch_at_random(state: "State", mm: int, vaddr: int, nr_pages: int, count: int) -> int:
    """Read ``count`` pages, each drawn from ``nr_pages``; return the sum of their frames."""
    total = 0
    for i in range(count):
        page = below(splitmix64_word(0, i), nr_pages)
        total += touch(state, mm, vaddr + (page << PAGE_SHIFT), 0)
    return total


@entry
def first_touch(state: "State", mm: int, vaddr: int, nr_pages: int) -> int:
    """Write each of ``nr_pages`` once; return how many could be."""
    for page in range(nr_pages):
        if touch(state, mm, vaddr + (page << PAGE_SHIFT), 1) == NIL:
            return page
    return nr_pages


@entry
def unmap_whole_area(state: "State", mm: int, vaddr: int) -> int:
    """Unmap the area at ``vaddr``; return how many pages it had."""
    return unmap_area(state, find_vma(state, mm, vaddr))
