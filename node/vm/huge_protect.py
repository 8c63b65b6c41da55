"""mprotect of a huge entry that lies in the area whole: one entry changes its rights for 512 pages.

It loses the right to write; where it may be written, the next write's fault gives it back.

Linux: mm/huge_memory.c (change_huge_pmd).
# Differs from Linux: where nobody may use the memory any more, the entry is split, and the small ones say so.
"""

from typing import TYPE_CHECKING

from node.counters import Knob
from node.hw.pte import Pte
from node.vm.huge_pmd import huge_position, note_huge_view
from node.vm.huge_split import split_huge_pmd
from node.vm.vma import VmFlag
from shared.constants import NIL
from shared.jit import entry
from shared.views import View

if TYPE_CHECKING:
    from node.state import State


@entry
def change_huge_pmd(state: "State", vma_index: int, vaddr: int) -> int:
    """Give the huge entry at ``vaddr``, if there is one, its area's rights; return whether it lost some.

    After it, entries of the last level may be there instead.
    """
    vma = state.vma[vma_index]
    position = huge_position(state, vma.mm, vaddr)
    if position == NIL:
        return 0
    if not vma.vm_flags & (VmFlag.READ | VmFlag.WRITE | VmFlag.EXEC):
        split_huge_pmd(state, vma.mm, position, vaddr)
        return 0
    word = state.pt_word[position]
    nx = 0 if vma.vm_flags & VmFlag.EXEC else state.knob[Knob.NX_BIT]
    changed = (word & ~(Pte.WRITE | state.knob[Knob.NX_BIT])) | nx
    state.pt_word[position] = changed
    if word & Pte.WRITE:
        note_huge_view(state, vma.mm, vaddr, View.READ_ONLY)
    return 1 if word & ~changed & Pte.WRITE or changed & ~word & state.knob[Knob.NX_BIT] else 0
