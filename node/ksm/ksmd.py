"""ksmd: wakes, scans a batch of pages, sleeps; and the switch ``run``.

    every sleep_millisecs, pages_to_scan pages, from where the last batch ended (node/ksm/scan.py)

The sleep ends with a tick of the kernel's clock, so a batch that takes less than a tick is followed by the
next one 24 ms later, not 20: the fifth tick from the one that just began.

Linux: mm/ksm.c (ksm_scan_thread, run_store, unmerge_and_remove_all_rmap_items), kernel/time/timer.c
(calc_index rounds up), CONFIG_HZ of Debian's kernels.
"""

from typing import TYPE_CHECKING, Final

from node.counters import Current, Knob, KsmRun, Request
from node.joints import break_range, ksm_scan_until
from node.ksm.registry import HEAD, next_mm, remove_mm
from node.ksm.rmap_items import remove_trailing_items
from node.ksm.stable_tree import remove_all_stable_nodes
from node.kthread import ASLEEP, Kthread
from node.vm.vma import VmFlag
from shared.constants import INT64_MAX, NIL, PS_PER_MS, PS_PER_S
from shared.jit import entry, kernel

if TYPE_CHECKING:
    from node.state import State

HZ: Final = 250
TICK_PS: Final = PS_PER_S // HZ


@kernel
def _sleep_until(state: "State") -> int:
    """Return when a sleep of sleep_millisecs that begins now ends."""
    ticks = (state.knob[Knob.KSM_SLEEP_MILLISECS] * PS_PER_MS + TICK_PS - 1) // TICK_PS
    return (state.current[Current.CLOCK_PS] // TICK_PS + ticks + 1) * TICK_PS


@entry
def ksmd_slice(state: "State", limit_ps: int) -> int:
    """Run ksmd from Current.CLOCK_PS until its clock passes ``limit_ps`` or it sleeps; return 0.

    Leaves in its kthread record the time at which it runs next.
    """
    thread = state.kthread[Kthread.KSMD]
    scan = state.ksm_scan[0]
    if state.knob[Knob.KSM_RUN] != KsmRun.MERGE or scan.first_mm == NIL:
        thread.clock_ps = ASLEEP
        return 0
    if scan.batch_left == 0:
        scan.batch_left = state.knob[Knob.KSM_PAGES_TO_SCAN]
    scan.batch_left -= ksm_scan_until(state, scan.batch_left, limit_ps)
    if state.request[Request.R0]:
        scan.batch_left = 0
    if scan.batch_left > 0:
        thread.clock_ps = state.current[Current.CLOCK_PS]
        return 0
    thread.clock_ps = _sleep_until(state)
    return 0


@entry
def ksm_do_scan(state: "State", nr_pages: int) -> int:
    """Scan one batch at once; return how many pages were scanned (fewer at the end of a full scan)."""
    return ksm_scan_until(state, nr_pages, INT64_MAX)


@kernel
def _unmerge_mm(state: "State", mm_index: int) -> int:
    vma_index = state.mm[mm_index].first_vma
    while vma_index != NIL:
        vma = state.vma[vma_index]
        if (
            vma.vm_flags & VmFlag.MERGEABLE
            and vma.anon_vma != 0
            and break_range(state, mm_index, vma.start, vma.end) == NIL
        ):
            return NIL
        vma_index = vma.next
    return 0


@kernel
def _unmerge_and_remove_all_items(state: "State") -> int:
    """Undo all merges everywhere and forget all items; return 0, or NIL without memory for the copies."""
    scan = state.ksm_scan[0]
    scan.mm = next_mm(state, HEAD)
    while scan.mm != HEAD:
        mm_index = scan.mm
        if state.mm[mm_index].alive and _unmerge_mm(state, mm_index) == NIL:
            scan.mm = HEAD
            return NIL
        remove_trailing_items(state, mm_index, NIL)
        scan.mm = next_mm(state, mm_index)
        if not state.mm[mm_index].alive:
            remove_mm(state, mm_index)
    remove_all_stable_nodes(state)
    scan.seqnr = 0
    scan.batch_left = 0
    return 0


@entry
def ksm_set_run(state: "State", run: int) -> int:
    """Write ``run`` (KsmRun) as to /sys/kernel/mm/ksm/run; return 0, or NIL if unmerging ran out of memory."""
    if run == state.knob[Knob.KSM_RUN]:
        return 0
    state.knob[Knob.KSM_RUN] = run
    if run == KsmRun.MERGE:
        state.kthread[Kthread.KSMD].clock_ps = state.current[Current.CLOCK_PS]
    if run == KsmRun.UNMERGE and _unmerge_and_remove_all_items(state) == NIL:
        state.knob[Knob.KSM_RUN] = KsmRun.STOP
        return NIL
    return 0
