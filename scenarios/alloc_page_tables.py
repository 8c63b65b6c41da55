"""Page-table bursts: processes that come and go, and what the kernel needs for each of them.

    fork    task, stack, mm, PGD, areas, page tables ...    at once, on one CPU
    exit    all of it                                       at once, on the CPU where it ended

Page tables are unmovable frames that live as long as their process; each burst takes dozens of them between
other frames, and leaves dozens of holes.

Sources: Linux 6.1 kernel/fork.c (dup_task_struct, dup_mm; alloc_thread_stack_node: 16 KiB of vmalloc,
THREAD_SIZE), arch/x86/mm/pgtable.c and arch/x86/include/asm/pgalloc.h (PGD_ALLOCATION_ORDER 1 with page-table
isolation, GFP_PGTABLE_USER); sizes of objects as /proc/slabinfo of a Debian 6.1 has them, less alignment. M.
Gorman, A. Whitcroft, The What, the Why and the Where To of Anti-Fragmentation, OLS 2006 (page tables among
the unmovable allocations that matter). How many areas and tables a process has, 12 to 43 and 8 to 39, is a
guess at shells and their commands.
"""

from typing import Final

import numpy as np

from scenarios.alloc_events import Demand, Draws, Lives, What
from shared.alloc_kind import AllocKind
from shared.constants import PAGE_SIZE
from shared.gfp_flags import GFP_KERNEL, Gfp

GFP_PGTABLE: Final = GFP_KERNEL | Gfp.ZERO
TASK: Final = What(AllocKind.OBJECT, 9536, GFP_KERNEL)
STACK: Final = What(AllocKind.VMALLOC, 4 * PAGE_SIZE, GFP_KERNEL)
MM: Final = What(AllocKind.OBJECT, 1032, GFP_KERNEL)
PGD: Final = What(AllocKind.FRAMES, 1, GFP_PGTABLE)
SIGNAL: Final = What(AllocKind.OBJECT, 1096, GFP_KERNEL)
SIGHAND: Final = What(AllocKind.OBJECT, 2080, GFP_KERNEL)
FILES: Final = What(AllocKind.OBJECT, 704, GFP_KERNEL)
VMA: Final = What(AllocKind.OBJECT, 200, GFP_KERNEL)
ANON_VMA: Final = What(AllocKind.OBJECT, 80, GFP_KERNEL)
TABLE: Final = What(AllocKind.FRAMES, 0, GFP_PGTABLE)
EACH: Final = (TASK, STACK, MM, PGD, SIGNAL, SIGHAND, FILES)  # one for each process
MIN_AREAS: Final = 12
MORE_AREAS: Final = 32
MIN_TABLES: Final = 8
MORE_TABLES: Final = 32
MEAN_OBJECTS: Final = len(EACH) + 2 * (MIN_AREAS + MORE_AREAS // 2) + MIN_TABLES + MORE_TABLES // 2
FEWEST_OBJECTS: Final = len(EACH) + 2 * MIN_AREAS + MIN_TABLES


def lives(draws: Draws, demand: Demand) -> Lives:
    """Return at least as many objects as the trace has events."""
    nr_processes = demand.operations // FEWEST_OBJECTS + 1
    nr_areas = MIN_AREAS + draws.below(MORE_AREAS, nr_processes)
    nr_tables = MIN_TABLES + draws.below(MORE_TABLES, nr_processes)
    cpus = np.array(demand.cpus, np.int64)
    cpu = cpus[draws.below(len(cpus), nr_processes)]
    free_cpu = cpus[draws.below(len(cpus), nr_processes)]
    life = draws.lifetimes(demand.live // MEAN_OBJECTS, nr_processes)
    whats = [*EACH, VMA, ANON_VMA, TABLE]
    counts = np.ones((nr_processes, len(whats)), np.int64)
    counts[:, len(EACH)] = counts[:, len(EACH) + 1] = nr_areas
    counts[:, len(EACH) + 2] = nr_tables
    which = np.repeat(np.tile(np.arange(len(whats)), nr_processes), counts.ravel())
    process = np.repeat(np.arange(nr_processes), counts.sum(axis=1))
    kind, size, gfp = (
        np.array(column, np.int64)[which]
        for column in zip(*((what.kind, what.size, what.gfp) for what in whats), strict=True)
    )
    return Lives(process, life[process], cpu[process], free_cpu[process], kind, size, gfp)
