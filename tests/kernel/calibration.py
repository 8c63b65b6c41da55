"""What the driver itself costs, measured on the kernel that a case is recorded on.

A workload that does nothing but spawn and fork; its counters are the driver's alone. The names are those of
``HarnessFigures`` in node/golden_harness.py.
"""

from collections.abc import Mapping
from typing import Final

from shared.constants import HUGE_PAGE_SIZE, PAGE_SIZE
from tests.kernel.errors import BootError
from tests.kernel.recording import Run

# Both last words of each process make it take one more command, for whatever a command costs after a fork.
WORKLOAD: Final = """\
spawn A
snapshot spawned
spawn B
snapshot spawned_again
A: mmap h 1P
snapshot did_one
A: vfork_exec
snapshot executed
A: fork C
snapshot forked
A: munmap h
snapshot parent_did_one
C: munmap h
snapshot child_did_one
"""
# The mappings of a simulated process begin at a boundary of 2 MiB; the real one's lie just below one.
PAGES_OF_A_TABLE: Final = HUGE_PAGE_SIZE // PAGE_SIZE
UPPER_TABLES: Final = 2  # one for the lower, one for the upper part of the address space
TOUCHED_STACK_PAGES: Final = 24  # STACK_TOUCHED of tests/kernel/driver/memory.h
TOP_PAGES: Final = (
    6 + 32
)  # below mmap_base: vvar's 4, vdso's 2, and the NR_SLOTS of tests/kernel/driver/slot.h


def lone_pages(anon_pages: int, page_tables: int) -> int:
    """Return how many of the pages must lie alone, each with a table, for there to be as many tables."""
    for lone in range(anon_pages):
        packed = anon_pages - lone
        if -(-packed // PAGES_OF_A_TABLE) + lone + UPPER_TABLES == page_tables:
            return lone
    raise BootError(f"{anon_pages} pages of the driver's do not make {page_tables} page tables")


def harness_figures(run: Run) -> dict[str, int]:
    """Return what the driver costs, from a run of ``WORKLOAD``."""
    boot, spawned, again, did, executed, forked, parent, child = (
        snapshot.values for snapshot in run.snapshots
    )

    def change(name: str, after: Mapping[str, int], before: Mapping[str, int]) -> int:
        return after.get(name, 0) - before.get(name, 0)

    pages, tables = "vmstat.nr_anon_pages", "vmstat.nr_page_table_pages"
    faults, reuses = "vmstat.pgfault", "vmstat.pgreuse"
    spawn_pages = change(pages, spawned, boot)
    spawn_faults = change(faults, spawned, boot)
    if (change(pages, again, spawned), change(faults, again, spawned)) != (spawn_pages, spawn_faults):
        raise BootError("a second process of the driver's costs other than the first")
    if change(faults, did, again) or change(faults, parent, forked) or change(faults, child, parent):
        raise BootError("a command that touches nothing causes faults")
    parent_copies = change("proc.A.minflt", forked, executed)
    return {
        "controller_anon_pages": boot[pages],
        "controller_lone_pages": lone_pages(boot[pages], boot[tables]),
        "spawn_anon_pages": spawn_pages,
        "spawn_lone_pages": lone_pages(spawn_pages, change(tables, spawned, boot)),
        "spawn_stack_pages": TOUCHED_STACK_PAGES,
        "spawn_top_pages": TOP_PAGES,
        "spawn_faults": spawn_faults,
        "fork_parent_copies": parent_copies,
        "fork_child_faults": forked["proc.C.minflt"],
        "fork_child_reuses": change(reuses, forked, executed),
        "fork_child_copies": change(pages, forked, executed) - parent_copies,
        "parent_reuses": 0,
        "program_faults": change(faults, executed, did),
        "program_parent_faults": change("proc.A.minflt", executed, did),
        "program_reuses": change(reuses, executed, did),
        "program_allocated": change("vmstat.pgalloc_dma32", executed, did),
        "program_freed": change("vmstat.pgfree", executed, did),
    }
