"""An address space: a page table, its VMAs, and what Linux counts for each process (struct mm_struct)."""

from enum import IntEnum
from typing import TYPE_CHECKING, Final

import numpy as np

from node.pool import Pool, pool_free
from shared.jit import entry, kernel

if TYPE_CHECKING:
    from node.state import State

MM = np.dtype(
    [
        ("brk_start", np.int64),
        ("brk", np.int64),  # end of the heap
        ("mmap_top", np.int64),  # mappings are laid below this, downwards
        ("minflt", np.int64),
        ("majflt", np.int64),
        ("stall_ps", np.int64),
        ("ctx_id", np.int64),  # by which CPUs know whose translations they hold; never used twice
        ("tlb_gen", np.int64),  # flushes so far
        ("pgd_pfn", np.int32),
        ("spare_link", np.int32),
        ("total_vm", np.int64),  # pages of all areas
        ("data_vm", np.int64),  # of them: private and writable, no stack
        ("exec_vm", np.int64),  # executable, not writable
        ("stack_vm", np.int64),
        ("locked_vm", np.int64),  # pages of locked areas
        ("stack_limit", np.int64),  # RLIMIT_STACK and the others, in bytes; INT64_MAX: none
        ("as_limit", np.int64),
        ("data_limit", np.int64),
        ("memlock_limit", np.int64),
        ("peak_vm", np.int64),  # the most that total_vm and the resident pages have been
        ("peak_rss", np.int64),
        ("start_stack", np.int64),  # addresses that exec sets
        ("start_code", np.int64),
        ("end_code", np.int64),
        ("start_data", np.int64),
        ("end_data", np.int64),
        ("first_vma", np.int32),  # VMAs in order of address, or NIL
        ("last_found", np.int32),  # the VMA that the last look-up found, or NIL
        ("nr_vmas", np.int32),
        ("nr_anon", np.int32),  # pages mapped, by kind (rss)
        ("nr_swap", np.int32),  # pages swapped out
        ("nr_zero", np.int32),  # zero page mappings
        ("nr_file", np.int32),  # pages of files mapped
        ("nr_shmem", np.int32),  # pages of shared memory mapped
        ("late_rss", np.int32),  # of these three: not in the counters yet (node/vm/rss.py)
        ("rss_events", np.int32),  # faults since they were brought up to date
        ("def_flags", np.int32),  # VmFlag bits of areas to come (mlockall)
        ("nr_page_tables", np.int32),
        ("alive", np.int8),  # 0 once exit has begun (mm_users == 0)
        ("mergeable", np.int8),  # MMF_VM_MERGEABLE: on ksmd's list
        (
            "oom_victim",
            np.int8,
        ),  # chosen by the OOM killer while its own fault was being served: it ends next
        ("hugepage", np.int8),  # MMF_VM_HUGEPAGE: khugepaged scans it
        ("reaped", np.int8),  # MMF_OOM_SKIP: the OOM killer has nothing more to get here
        ("ksm_next", np.int32),  # ksmd's list of address spaces, by mm
        ("ksm_prev", np.int32),
        ("ksm_rmap_list", np.int32),  # its rmap_items by ascending address, or NIL
        ("ksm_rmap_items", np.int32),
        ("ksm_merging_pages", np.int32),
        ("ksm_zero_pages", np.int32),
        ("oom_score_adj", np.int32),
        ("guest", np.int32),  # on a host: number of the guest whose RAM this is, or NIL
    ],
    align=True,
)


@kernel
def drop_mm(state: "State", index: int) -> None:
    """Give the record back once the process has ended and ksmd has forgotten it (mmdrop)."""
    mm = state.mm[index]
    if not mm.alive and not mm.mergeable:
        pool_free(state, Pool.MM, index)


# --- limits ---------------------------------------------------------------------------------------------


class Limit(IntEnum):
    """Resource limits of an address space, with Linux's numbers (RLIMIT_...)."""

    DATA = 2
    STACK = 3
    MEMLOCK = 8
    AS = 9


MM_LIMITS: Final = {
    Limit.DATA: "data_limit",
    Limit.STACK: "stack_limit",
    Limit.MEMLOCK: "memlock_limit",
    Limit.AS: "as_limit",
}


@entry
def setrlimit(state: "State", mm_index: int, limit: int, size: int) -> int:
    """Limit an address space to ``size`` bytes of a kind, INT64_MAX: not at all; what it has stays; return 0.

    # Differs from Linux: hard and soft limit are one, and an address space's, not a process's.
    """
    mm = state.mm[mm_index]
    if limit == Limit.DATA:
        mm.data_limit = size
    elif limit == Limit.STACK:
        mm.stack_limit = size
    elif limit == Limit.MEMLOCK:
        mm.memlock_limit = size
    else:
        mm.as_limit = size
    return 0
