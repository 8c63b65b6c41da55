"""New address spaces: empty, with a top table and the limits of a root shell.

Linux: kernel/fork.c (mm_init), include/asm-generic/resource.h (INIT_RLIMITS), arch/x86/mm/mmap.c (mmap_base).
"""

from typing import TYPE_CHECKING, Final

from node.counters import Current, Knob
from node.pool import Pool, pool_alloc, pool_free
from node.tree_nodes import mm_root
from node.vm.page_tables import alloc_pgd
from shared.constants import INT64_MAX, MIB, NIL
from shared.jit import entry, kernel

if TYPE_CHECKING:
    from node.state import State

STACK_GAP_BYTES: Final = 128 * MIB  # MIN_GAP: what mmap_base leaves for the stack
STACK_LIMIT: Final = 8 * MIB  # _STK_LIM
BRK_START: Final = 0x600000


@kernel
def _init_mm(state: "State", index: int) -> None:
    mm = state.mm[index]
    mm.brk_start = BRK_START
    mm.brk = BRK_START
    mm.mmap_top = state.knob[Knob.TASK_SIZE] - STACK_GAP_BYTES
    mm.minflt = 0
    mm.majflt = 0
    mm.stall_ps = 0
    state.current[Current.LAST_CTX_ID] += 1
    mm.ctx_id = state.current[Current.LAST_CTX_ID]
    mm.tlb_gen = 0
    mm.total_vm = 0
    mm.data_vm = 0
    mm.exec_vm = 0
    mm.stack_vm = 0
    mm.locked_vm = 0
    mm.peak_vm = 0
    mm.peak_rss = 0
    mm.stack_limit = STACK_LIMIT
    mm.as_limit = INT64_MAX
    mm.data_limit = INT64_MAX
    mm.memlock_limit = INT64_MAX
    mm.start_stack = 0
    mm.start_code = 0
    mm.end_code = 0
    mm.start_data = 0
    mm.end_data = 0
    state.rb_root[mm_root(index)] = NIL
    mm.first_vma = NIL
    mm.last_found = NIL
    mm.nr_vmas = 0
    mm.nr_anon = 0
    mm.nr_swap = 0
    mm.nr_zero = 0
    mm.nr_file = 0
    mm.nr_shmem = 0
    mm.late_rss = 0
    mm.rss_events = 0
    mm.def_flags = 0
    mm.nr_page_tables = 0
    mm.alive = 0  # not before it has a top table: the OOM killer, called for one, must not pick it
    mm.mergeable = 0
    mm.ksm_rmap_list = NIL
    mm.ksm_rmap_items = 0
    mm.ksm_merging_pages = 0
    mm.ksm_zero_pages = 0
    mm.oom_score_adj = 0
    mm.oom_victim = 0
    mm.reaped = 0
    mm.hugepage = 0
    mm.guest = NIL


@kernel
def new_mm_record(state: "State") -> int:
    """Return a new, empty address space, or NIL if there is no memory for its PGD."""
    index = pool_alloc(state, Pool.MM)
    if index == NIL:
        return NIL
    _init_mm(state, index)
    if alloc_pgd(state, index) == NIL:
        pool_free(state, Pool.MM, index)
        return NIL
    state.mm[index].alive = 1
    return index


@entry
def new_mm(state: "State") -> int:
    """Return a new, empty address space, or NIL if there is no memory for its PGD."""
    return new_mm_record(state)
