"""What Python calls in tests of the translation hardware: kernels of one call each, as entries."""

from node.hw.mmu import access, load_mm, touch
from node.hw.tlb import flush_all, flush_lowered_view, flush_tlb_mm, flush_tlb_page, flush_tlb_range
from node.state import State
from shared.jit import entry


@entry
def do_access(state: State, mm: int, vaddr: int, write: int) -> int:
    return access(state, mm, vaddr, write)


@entry
def do_touch(state: State, mm: int, vaddr: int, write: int) -> int:
    return touch(state, mm, vaddr, write)


@entry
def do_load_mm(state: State, mm: int) -> None:
    load_mm(state, mm)


@entry
def do_flush_page(state: State, mm: int, vaddr: int) -> None:
    flush_tlb_page(state, mm, vaddr)


@entry
def do_flush_range(state: State, mm: int, start: int, end: int) -> None:
    flush_tlb_range(state, mm, start, end)


@entry
def do_flush_mm(state: State, mm: int) -> None:
    flush_tlb_mm(state, mm)


@entry
def do_flush_all(state: State, cpu: int) -> None:
    flush_all(state, cpu)


@entry
def do_flush_lowered_view(state: State) -> int:
    return flush_lowered_view(state)
