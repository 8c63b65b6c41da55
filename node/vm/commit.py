"""Promises of memory: what areas may come to need, counted before they do (Committed_AS), and when that is too much.

    Overcommit.GUESS    0   refuses one request for more than all memory and swap
    Overcommit.ALWAYS   1   refuses nothing
    Overcommit.NEVER    2   refuses when the sum of promises passes swap + overcommit_ratio percent of memory,
                            less a 32nd of what the process has, so that there is a way back

Private writable areas are promises, and shared memory is, at its full size; files and read-only areas can be dropped
and read again.

Linux: mm/util.c (__vm_enough_memory, vm_commit_limit), mm/mmap.c (accountable_mapping, may_expand_vm, vm_stat_account).
"""

from enum import IntEnum
from typing import TYPE_CHECKING, Final

from node.counters import Knob, VmStat
from node.vm.vma import VmFlag
from shared.constants import INT64_MAX, KIB, MIB, NIL, PAGE_SHIFT, PAGE_SIZE
from shared.jit import kernel

if TYPE_CHECKING:
    from node.state import State

# vm.user_reserve_kbytes at boot: a 32nd of memory, at most this. Processes are root's, so that nothing is kept from
# them for root (vm.admin_reserve_kbytes).
# Differs from Linux: a 32nd of all memory, not of what was free at boot.
USER_RESERVE_PAGES: Final = 128 * MIB >> PAGE_SHIFT
SWAP_HEADER_PAGES: Final = 1  # of a swap area: mkswap's page
RESERVE_SHARE: Final = 32
KIB_PER_PAGE: Final = PAGE_SIZE // KIB


class Overcommit(IntEnum):
    """Values of vm.overcommit_memory."""

    GUESS = 0
    ALWAYS = 1
    NEVER = 2


# --- Committed_AS ---------------------------------------------------------------------------------------


@kernel
def total_ram_pages(state: "State") -> int:
    """Return the pages that the buddy system manages (totalram_pages)."""
    total = 0
    for zone in range(len(state.zone)):
        total += state.zone[zone].managed
    return total


@kernel
def total_swap_pages(state: "State") -> int:
    """Return the slots of the swap area that pages may have."""
    return max(state.swap_area[0].nr_slots - SWAP_HEADER_PAGES, 0)


@kernel
def vm_commit_limit(state: "State") -> int:
    """Return CommitLimit of /proc/meminfo, in pages."""
    kbytes = state.knob[Knob.OVERCOMMIT_KBYTES]
    if kbytes:
        return kbytes // KIB_PER_PAGE + total_swap_pages(state)
    percent = state.knob[Knob.OVERCOMMIT_RATIO]
    return total_ram_pages(state) * percent // 100 + total_swap_pages(state)


@kernel
def vm_enough_memory(state: "State", mm_index: int, nr_pages: int) -> int:
    """Promise ``nr_pages`` and return 0, or return NIL: then nothing is promised."""
    state.vm_stat[VmStat.NR_COMMITTED] += nr_pages
    mode = state.knob[Knob.OVERCOMMIT_MEMORY]
    if mode == Overcommit.ALWAYS:
        return 0
    if mode == Overcommit.GUESS:
        if nr_pages <= total_ram_pages(state) + total_swap_pages(state):
            return 0
    else:
        own = state.mm[mm_index].total_vm // RESERVE_SHARE
        reserve = min(own, total_ram_pages(state) // RESERVE_SHARE, USER_RESERVE_PAGES)
        if state.vm_stat[VmStat.NR_COMMITTED] < vm_commit_limit(state) - reserve:
            return 0
    state.vm_stat[VmStat.NR_COMMITTED] -= nr_pages
    return NIL


@kernel
def uncommit(state: "State", nr_pages: int) -> None:
    """Take back a promise (vm_unacct_memory)."""
    state.vm_stat[VmStat.NR_COMMITTED] -= nr_pages


@kernel
def is_accountable(vm_flags: int) -> int:
    """Return whether an area of these flags is a promise: private and writable, and not asked to be none."""
    wanted = vm_flags & (VmFlag.NORESERVE | VmFlag.SHARED | VmFlag.WRITE)
    return 1 if wanted == VmFlag.WRITE else 0


# --- the size of an address space -----------------------------------------------------------------------


@kernel
def is_data(vm_flags: int) -> int:
    """Return whether an area counts as data: private and writable, and no stack (is_data_mapping)."""
    wanted = vm_flags & (VmFlag.WRITE | VmFlag.SHARED | VmFlag.GROWSDOWN)
    return 1 if wanted == VmFlag.WRITE else 0


@kernel
def vm_stat_account(state: "State", mm_index: int, vm_flags: int, nr_pages: int) -> None:
    """Count pages of areas that come, or with a negative number go, in an address space's sizes."""
    mm = state.mm[mm_index]
    mm.total_vm += nr_pages
    mm.peak_vm = max(mm.peak_vm, mm.total_vm)
    if vm_flags & (VmFlag.EXEC | VmFlag.WRITE | VmFlag.GROWSDOWN) == VmFlag.EXEC:
        mm.exec_vm += nr_pages
    elif vm_flags & VmFlag.GROWSDOWN:
        mm.stack_vm += nr_pages
    elif is_data(vm_flags):
        mm.data_vm += nr_pages


@kernel
def may_expand_vm(state: "State", mm_index: int, vm_flags: int, nr_pages: int) -> int:
    """Return whether an address space may grow by ``nr_pages`` within RLIMIT_AS and RLIMIT_DATA."""
    mm = state.mm[mm_index]
    if mm.as_limit != INT64_MAX and mm.total_vm + nr_pages > mm.as_limit >> PAGE_SHIFT:
        return 0
    if is_data(vm_flags) and mm.data_limit != INT64_MAX:
        return 1 if mm.data_vm + nr_pages <= mm.data_limit >> PAGE_SHIFT else 0
    return 1


@kernel
def mlock_future_ok(state: "State", mm_index: int, vm_flags: int, nr_pages: int) -> int:
    """Return whether RLIMIT_MEMLOCK lets an area of these flags be locked (mlock_future_check)."""
    mm = state.mm[mm_index]
    if not vm_flags & VmFlag.LOCKED or mm.memlock_limit == INT64_MAX:
        return 1
    return 1 if mm.locked_vm + nr_pages <= mm.memlock_limit >> PAGE_SHIFT else 0
