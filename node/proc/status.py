"""/proc/PID/status and statm: the sizes of a process.

    VmSize  all areas      VmRSS  mapped pages = RssAnon + RssFile + RssShmem      VmPTE  its page tables
    VmExe   from start_code to end_code, of the executable areas; VmLib the rest of those

Linux: fs/proc/array.c (proc_pid_status, proc_pid_statm), fs/proc/task_mmu.c (task_mem, task_statm),
mm/hugetlb.c (hugetlb_report_usage), include/linux/mm.h (mm_pgtables_bytes: tables of the PUD, the PMD and below).
# Differs from Linux: lines of status that nothing here stands for are not there (docs/proc.md lists them); counts of
mapped pages are exact, not put off by up to 64 faults.
"""

from typing import TYPE_CHECKING, Final

import numpy as np

from node.counters import Knob
from node.phys.page import PageFlag
from node.proc.areas import Names
from node.vm.huge_check import huge_entries
from node.vm.mappings import mappings_of
from shared.constants import HUGE_PAGE_SIZE, KIB, PAGE_KIB, PAGE_SHIFT, PAGE_SIZE

if TYPE_CHECKING:
    from node.state import State

COUNTED_LEVELS: Final = 3  # PUD, PMD, PTE
UNIT: Final = " kB"


def status(state: "State", mm_index: int, names: Names) -> str:
    """Return the text of /proc/PID/status."""
    name = names.of_process(mm_index)
    lines = [f"Name:\t{name}\n"] if name else []
    lines += [f"Tgid:\t{mm_index}\n", f"Pid:\t{mm_index}\n"]  # no process has threads
    lines += [f"{key}:\t{value:8}{UNIT}\n" for key, value in sizes(state, mm_index).items()]
    return "".join(lines)


def statm(state: "State", mm_index: int, _names: Names) -> str:
    """Return the text of /proc/PID/statm: size, resident, shared, text, 0, data, 0, in pages."""
    mm = state.mm[mm_index]
    shared = int(mm.nr_file + mm.nr_shmem)
    data = int(mm.data_vm + mm.stack_vm)
    text = _text_bytes(state, mm_index) >> PAGE_SHIFT
    return f"{int(mm.total_vm)} {int(mm.nr_anon) + shared} {shared} {text} 0 {data} 0\n"


def sizes(state: "State", mm_index: int) -> dict[str, int]:
    """Return the sizes in KiB, by the names and in the order of /proc/PID/status."""
    mm = state.mm[mm_index]
    exec_bytes = int(mm.exec_vm) << PAGE_SHIFT
    text = min(_text_bytes(state, mm_index), exec_bytes)
    pages = {
        "VmPeak": max(mm.peak_vm, mm.total_vm),
        "VmSize": mm.total_vm,
        "VmLck": mm.locked_vm,
        "VmRSS": mm.nr_anon + mm.nr_file + mm.nr_shmem,
        "RssAnon": mm.nr_anon,
        "RssFile": mm.nr_file,
        "RssShmem": mm.nr_shmem,
        "VmData": mm.data_vm,
        "VmStk": mm.stack_vm,
    }
    nr_tables, nr_huge = _tables_and_huge_pages(state, mm_index)
    return {name: int(value) * PAGE_KIB for name, value in pages.items()} | {
        "VmExe": text // KIB,
        "VmLib": (exec_bytes - text) // KIB,
        "VmPTE": nr_tables * PAGE_KIB,
        "VmSwap": int(mm.nr_swap) * PAGE_KIB,
        "HugetlbPages": nr_huge * HUGE_PAGE_SIZE // KIB,
    }


def _text_bytes(state: "State", mm_index: int) -> int:
    mm = state.mm[mm_index]
    return -(-int(mm.end_code) // PAGE_SIZE) * PAGE_SIZE - (int(mm.start_code) & -PAGE_SIZE)


def _tables_and_huge_pages(state: "State", mm_index: int) -> tuple[int, int]:
    """Return how many page tables count in VmPTE, and how many pages of hugetlbfs are mapped."""
    mappings = mappings_of(state, np.array([mm_index], np.int64), tables_only=True)
    first_counted = max(int(state.knob[Knob.NR_LEVELS]) - COUNTED_LEVELS, 1)
    flags = np.asarray(state.page)["page_flags"][mappings.huge_heads]
    nr_deposited = len(huge_entries(state, mappings).table_pfn)
    return (
        int(np.count_nonzero(mappings.table_level >= first_counted)) + nr_deposited,
        int(np.count_nonzero(flags & PageFlag.HUGETLB)),
    )
