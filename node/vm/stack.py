"""Stacks: areas that grow downwards when the page below them is used, up to a limit, with a gap that keeps others away.

    [ area ]  <-- stack_guard_gap, 256 pages -->  [ stack  growing down <- ]  0x7ffffffff000

Linux: mm/mmap.c (expand_downwards, acct_stack_growth), fs/exec.c (setup_arg_pages).
"""

from typing import TYPE_CHECKING

from node.counters import Knob
from node.vm.anon_vma import anon_vma_prepare
from node.vm.commit import may_expand_vm, mlock_future_ok, vm_enough_memory, vm_stat_account
from node.vm.vma import VmFlag
from node.vm.vma_adjust import resize_vma
from shared.constants import NIL, PAGE_SHIFT, PAGE_SIZE
from shared.jit import kernel

if TYPE_CHECKING:
    from node.state import State


@kernel
def _keeps_its_distance(state: "State", index: int, vaddr: int) -> int:
    """Return whether a stack that begins at ``vaddr`` leaves its guard gap free."""
    below = state.vma[index].prev
    if below == NIL:
        return 1
    neighbour = state.vma[below]
    accessible = neighbour.vm_flags & (VmFlag.READ | VmFlag.WRITE | VmFlag.EXEC)
    if neighbour.vm_flags & VmFlag.GROWSDOWN or not accessible:
        return 1 if vaddr >= neighbour.end else 0
    return 1 if vaddr - neighbour.end >= state.knob[Knob.STACK_GUARD_PAGES] << PAGE_SHIFT else 0


@kernel
def expand_stack(state: "State", index: int, vaddr: int) -> int:
    """Let a stack begin with the page of ``vaddr``, below it; return whether it may."""
    vma = state.vma[index]
    start = vaddr & -PAGE_SIZE
    if not vma.vm_flags & VmFlag.GROWSDOWN or start < state.knob[Knob.MMAP_MIN_ADDR]:
        return 0
    if not _keeps_its_distance(state, index, start):
        return 0
    nr_pages = (vma.start - start) >> PAGE_SHIFT
    mm = state.mm[vma.mm]
    if vma.end - start > mm.stack_limit or not may_expand_vm(state, vma.mm, vma.vm_flags, nr_pages):
        return 0
    if not mlock_future_ok(state, vma.mm, vma.vm_flags, nr_pages):
        return 0
    if anon_vma_prepare(state, index) == NIL or vm_enough_memory(state, vma.mm, nr_pages) == NIL:
        return 0
    vm_stat_account(state, vma.mm, vma.vm_flags, nr_pages)
    if vma.vm_flags & VmFlag.LOCKED:
        mm.locked_vm += nr_pages
    resize_vma(state, index, start, vma.end)
    return 1
