"""Page-table entries that faults write: their bits, from the area's rights, and who must hear of them.

Linux: arch/x86/mm/pgprot.c (vm_get_page_prot), mm/mmap.c (vma_wants_writenotify), mm/memory.c (maybe_mkwrite).
"""

from typing import TYPE_CHECKING

from node.counters import Current, Knob
from node.hw.pte import Pte
from node.joints import note_view_change
from node.vm.vma import VmFlag
from shared.jit import kernel
from shared.views import View

if TYPE_CHECKING:
    from node.state import State

MAPPED_BITS = Pte.PRESENT | Pte.USER | Pte.ACCESSED


@kernel
def mapped_bits(state: "State", vma_index: int) -> int:
    """Return the bits of a read-only entry of an area (vm_page_prot)."""
    if state.vma[vma_index].vm_flags & VmFlag.EXEC:
        return MAPPED_BITS
    return MAPPED_BITS | state.knob[Knob.NX_BIT]


@kernel
def set_user_pte(state: "State", mm_index: int, position: int, vaddr: int, pte: int) -> None:
    """Write a present entry, and tell a guest whose memory this is."""
    state.pt_word[position] = pte
    if state.knob[Knob.IS_HOST]:
        note_view_change(state, mm_index, vaddr, View.WRITABLE if pte & Pte.WRITE else View.READ_ONLY)


@kernel
def write_bits(state: "State", vma_index: int) -> int:
    """Return the bits of an entry that has been written: writable if the area is (maybe_mkwrite)."""
    return Pte.DIRTY | Pte.WRITE if state.vma[vma_index].vm_flags & VmFlag.WRITE else Pte.DIRTY


@kernel
def count_fault(state: "State", major: int) -> None:
    """Count for the current task: one fault, or that the fault just counted was a major one."""
    current = state.current[Current.MM]
    if current == 0:
        return
    mm = state.mm[current]
    if major:
        mm.majflt += 1
        mm.minflt -= 1
    else:
        mm.minflt += 1
