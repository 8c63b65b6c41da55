"""What Python calls in tests of the translation hardware: kernels of one call each, as entries."""

from node.counters import Current
from node.fault.access import touch
from node.hw.mmu import access
from node.hw.registers import invlpg, invpcid, write_cr0, write_cr3, write_cr4, write_pkru
from node.hw.tlb_drop import drop_all, flush_lowered_view
from node.joints import access_as, run_in_user_mode
from node.state import State
from shared.jit import entry


@entry
def do_access(state: State, mm: int, vaddr: int, kind: int) -> int:
    """Access as process ``mm``, which is switched to if another is loaded."""
    run_in_user_mode(state, mm)
    return access(state, vaddr, kind)


@entry
def do_access_here(state: State, vaddr: int, kind: int) -> int:
    """Access through whatever table is loaded, at the CPU's privilege level."""
    return access_as(state, vaddr, kind)


@entry
def do_touch(state: State, mm: int, vaddr: int, kind: int) -> int:
    run_in_user_mode(state, mm)
    return touch(state, mm, vaddr, kind)


@entry
def do_write_cr0(state: State, value: int) -> int:
    return write_cr0(state, value)


@entry
def do_write_cr3(state: State, value: int) -> int:
    return write_cr3(state, value)


@entry
def do_write_cr4(state: State, value: int) -> int:
    return write_cr4(state, value)


@entry
def do_write_pkru(state: State, value: int) -> None:
    write_pkru(state, value)


@entry
def do_invlpg(state: State, vaddr: int) -> None:
    invlpg(state, vaddr)


@entry
def do_invpcid(state: State, kind: int, pcid: int, vaddr: int) -> None:
    invpcid(state, kind, pcid, vaddr)


@entry
def do_drop_all(state: State) -> None:
    drop_all(state, state.current[Current.CPU])


@entry
def do_flush_lowered_view(state: State) -> int:
    return flush_lowered_view(state)
