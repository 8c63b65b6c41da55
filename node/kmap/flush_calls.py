"""What the rest of the kernel calls to flush: the common cases of ``flush_tlb_range`` (node/kmap/tlb_flush.py)."""

from typing import TYPE_CHECKING, Final

from node.joints import flush_tlb_range
from shared.constants import PAGE_SIZE
from shared.jit import kernel

if TYPE_CHECKING:
    from node.state import State

FLUSH_ALL: Final = -1  # as end of a range


@kernel
def flush_tlb_page(state: "State", mm_index: int, vaddr: int) -> None:
    """Flush one page of an address space."""
    flush_tlb_range(state, mm_index, vaddr, vaddr + PAGE_SIZE, 0)


@kernel
def flush_tlb_mm(state: "State", mm_index: int) -> None:
    """Flush all of an address space, none of whose tables were freed."""
    flush_tlb_range(state, mm_index, 0, FLUSH_ALL, 0)
