"""A machine that is nothing but memory with the kernel's page table, and a plain walk through its tables."""

from dataclasses import dataclass

import numpy as np

from node.counters import Current, Knob, Request
from node.hw.paging import MAX_LEVELS, PAGING_MODES, Mode, PagingMode, setup_paging
from node.hw.pte import NX, PFN_MASK, Pte
from node.kmap.kernel_tables import KernelLayout, KernelTables, build_kernel_tables
from node.state import State
from shared.constants import MIB, PAGE_SHIFT, PAGE_SIZE

FRAMES_512_MIB = 512 * MIB // PAGE_SIZE
KIB_4 = 12
MIB_2 = 21
MIB_4 = 22
GIB_1 = 30
ENTRY_BYTES_32BIT = 4


def kernel_machine(layout: KernelLayout) -> tuple[State, KernelTables]:
    """Return a state with the tables of ``layout``; nothing else of it is set up."""
    table_shift = PAGING_MODES[layout.mode].table_shift
    lengths = {
        "knob": Knob.NR,
        "current": Current.NR,
        "request": Request.NR,
        "page": layout.nr_frames,
        "pt_word": layout.nr_frames << table_shift,
        "paging_level": MAX_LEVELS,
    }
    state = State(**{name: lengths.get(name, 4) for name in State.LAYOUT})
    setup_paging(state, layout.mode, PAGING_MODES[layout.mode].max_physical_bits, gigantic=layout.gigantic)
    return state, build_kernel_tables(state, layout)


@dataclass(frozen=True)
class Found:
    """What a walk ends at: a frame, the page's size as a power of two, and the rights of the whole path."""

    pfn: int
    shift: int
    write: bool
    user: bool
    execute: bool
    is_global: bool


def walk(state: State, root: int, vaddr: int) -> Found | None:
    """Translate an unsigned address through the tables from ``root`` on; None if nothing is mapped."""
    mode = PAGING_MODES[PagingMode(state.knob[Knob.PAGING_MODE])]
    write = user = execute = True
    table = root
    for number, level in enumerate(mode.levels):
        index = (vaddr >> level.shift) % (1 << mode.table_shift)
        word = int(state.pt_word[(table << mode.table_shift) + index])
        if not word & Pte.PRESENT:
            return None
        write = write and bool(word & Pte.WRITE)
        user = user and bool(word & Pte.USER)
        execute = execute and not word & NX
        table = word >> PAGE_SHIFT & PFN_MASK
        is_last = number == len(mode.levels) - 1
        if is_last or word & Pte.HUGE:
            assert is_last or level.page_name is not None
            first = table & -(1 << (level.shift - PAGE_SHIFT))
            inside = (vaddr % (1 << level.shift)) >> PAGE_SHIFT
            return Found(first + inside, level.shift, write, user, execute, bool(word & Pte.GLOBAL))
    raise AssertionError("not reached")


@dataclass(frozen=True)
class Leaf:
    """An entry that maps a page: its unsigned address, first frame, size as a power of two, and word."""

    vaddr: int
    pfn: int
    shift: int
    word: int


def leaves(state: State, root: int) -> list[Leaf]:
    """Return all pages that the tables from ``root`` on map, by ascending address."""
    mode = PAGING_MODES[PagingMode(state.knob[Knob.PAGING_MODE])]
    words = np.asarray(state.pt_word)
    found: list[Leaf] = []

    def descend(table: int, number: int, base: int) -> None:
        level = mode.levels[number]
        first = table << mode.table_shift
        row = words[first : first + (1 << mode.table_shift)]
        for index in np.flatnonzero(row & Pte.PRESENT).tolist():
            vaddr = base + (index << level.shift)
            word = int(row[index])
            if number < len(mode.levels) - 1 and not word & Pte.HUGE:
                descend(word >> PAGE_SHIFT & PFN_MASK, number + 1, vaddr)
            else:
                found.append(Leaf(canonical(vaddr, mode), word >> PAGE_SHIFT & PFN_MASK, level.shift, word))

    descend(root, 0, 0)
    return found


def canonical(vaddr: int, mode: Mode) -> int:
    """Return the unsigned 64-bit address that has ``vaddr`` in the bits that the mode translates."""
    is_upper_half = mode.entry_bytes > ENTRY_BYTES_32BIT and vaddr >> (mode.linear_bits - 1)
    return vaddr | (1 << 64) - (1 << mode.linear_bits) if is_upper_half else vaddr
