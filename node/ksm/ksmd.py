"""ksmd: wakes, scans a batch of pages, sleeps.

    every sleep_millisecs, pages_to_scan pages, from where the last batch ended:
    address space -> its mergeable areas -> its mapped anonymous pages -> cmp_and_merge_page

The end of the list is the end of a full scan and of the batch: the unstable tree is dropped, and addresses
start anew with the next batch. The sleep ends with a tick of the kernel's clock, so a batch that takes less
than a tick is followed by the next one 24 ms later, not 20: the fifth tick from the one that just began.

Linux: mm/ksm.c (ksm_scan_thread, ksm_do_scan, scan_get_next_rmap_item, should_skip_rmap_item of 6.18),
kernel/time/timer.c (calc_index rounds up), CONFIG_HZ of Debian's kernels.
"""

from typing import TYPE_CHECKING, Final

from node.counters import Current, Knob, KsmStat
from node.hw.cost import Cost
from node.hw.page_table import pte_position
from node.hw.pte import Pte, pte_pfn
from node.joints import break_range
from node.ksm.merge import cmp_and_merge_page
from node.ksm.records import KsmModel, KsmRun
from node.ksm.registry import HEAD, next_mm, remove_mm
from node.ksm.rmap_items import item_at, remove_from_tree, remove_trailing_items
from node.ksm.stable_tree import remove_all_stable_nodes
from node.kthread import ASLEEP, Kthread
from node.phys.page import PageFlag
from node.rbtree import Tree
from node.vm.vma import VmFlag, find_vma
from shared.constants import HUGE_PAGE_SIZE, NIL, PAGE_SIZE, PS_PER_MS, PS_PER_S
from shared.jit import entry, hot_kernel, kernel

if TYPE_CHECKING:
    from node.state import State

HZ: Final = 250
TICK_PS: Final = PS_PER_S // HZ
AGE_MAX: Final = 127  # where an age stops growing; 255 in Linux, and no step lies between
AGE_NEVER_SKIPPED: Final = 3
SKIP_STEPS: Final = ((3, 1), (5, 2), (8, 4))  # up to this age, skip so many scans (skip_age of 6.18)
SKIP_MAX: Final = 8


# --- finding the next page ------------------------------------------------------------------------------


@hot_kernel
def _next_mapped_anon(state: "State", mm_index: int, vaddr: int, end: int) -> int:
    """Return the first address in [vaddr, end) at which an anonymous page is mapped, or NIL."""
    pgd = state.mm[mm_index].pgd_pfn
    while vaddr < end:
        position = pte_position(state, pgd, vaddr)
        border = min(end, (vaddr // HUGE_PAGE_SIZE + 1) * HUGE_PAGE_SIZE)
        if position == NIL:
            vaddr = border
            continue
        while vaddr < border:
            pte = state.pt_word[position]
            if pte & Pte.PRESENT and state.page[pte_pfn(pte)].page_flags & PageFlag.ANON:
                return vaddr
            position += 1
            vaddr += PAGE_SIZE
    return NIL


@kernel
def _skip_age(age: int) -> int:
    for limit, skips in SKIP_STEPS:
        if age <= limit:
            return skips
    return SKIP_MAX


@hot_kernel
def _should_skip(state: "State", item_index: int, vaddr: int) -> int:
    """Return whether smart_scan leaves the page out this time: the older and lonelier, the more often."""
    if not state.knob[Knob.KSM_SMART_SCAN] or state.knob[Knob.KSM_MODEL] != KsmModel.LINUX_6_18:
        return 0
    item = state.rmap_item[item_index]
    position = pte_position(state, state.mm[item.mm].pgd_pfn, vaddr)
    if state.page[pte_pfn(state.pt_word[position])].page_flags & PageFlag.KSM:
        return 0
    age = item.age
    if age < AGE_MAX:
        item.age = age + 1
    if age < AGE_NEVER_SKIPPED:
        return 0
    if item.remaining_skips == 0:
        item.remaining_skips = _skip_age(age)
        return 0
    item.remaining_skips -= 1
    state.ksm_stat[KsmStat.PAGES_SKIPPED] += 1
    remove_from_tree(state, item_index)
    return 1


@hot_kernel
def _next_in_area(state: "State", vma_index: int) -> int:
    """Return the item of the next page to scan in the area, from scan.address on, or NIL at its end."""
    scan = state.ksm_scan[0]
    vma = state.vma[vma_index]
    while scan.address < vma.end:
        found = _next_mapped_anon(state, vma.mm, scan.address, vma.end)
        if found == NIL:
            scan.address = vma.end
            return NIL
        item_index = item_at(state, vma.mm, scan.rmap_item, found)
        if item_index == NIL:  # no record left: the scan goes on behind the page, without it
            scan.address = found + PAGE_SIZE
            continue
        scan.rmap_item = item_index
        scan.address = found + PAGE_SIZE
        if not _should_skip(state, item_index, found):
            return item_index
    return NIL


@hot_kernel
def _next_in_mm(state: "State", mm_index: int) -> int:
    """Return the item of the next page to scan in the address space, or NIL at its end."""
    scan = state.ksm_scan[0]
    vma_index = find_vma(state, mm_index, scan.address)
    while vma_index != NIL:
        vma = state.vma[vma_index]
        if vma.vm_flags & VmFlag.MERGEABLE:
            scan.address = max(scan.address, vma.start)
            if vma.anon_vma == 0:
                scan.address = vma.end
            item_index = _next_in_area(state, vma_index)
            if item_index != NIL:
                return item_index
        vma_index = vma.next
    return NIL


@hot_kernel
def _next_item_to_scan(state: "State") -> int:
    """Return the item of the next page in the order of the scan, or NIL at the end of a full scan."""
    scan = state.ksm_scan[0]
    if scan.first_mm == NIL:
        return NIL
    if scan.mm == HEAD:
        state.rb_root[Tree.UNSTABLE] = NIL
        scan.mm = scan.first_mm
        scan.address = 0
        scan.rmap_item = NIL
    while scan.mm != HEAD:
        mm_index = scan.mm
        alive = state.mm[mm_index].alive
        if alive:
            item_index = _next_in_mm(state, mm_index)
            if item_index != NIL:
                return item_index
        else:
            scan.address = 0
            scan.rmap_item = NIL
        # Pages behind the last one given out have gone, or their areas are mergeable no more.
        remove_trailing_items(state, mm_index, scan.rmap_item)
        scan.mm = next_mm(state, mm_index)
        if scan.address == 0:
            remove_mm(state, mm_index)
        scan.address = 0
        scan.rmap_item = NIL
    scan.seqnr += 1
    return NIL


@hot_kernel
def _scan_one(state: "State") -> int:
    """Scan one page; return 0 at the end of a full scan."""
    item_index = _next_item_to_scan(state)
    if item_index == NIL:
        return 0
    item = state.rmap_item[item_index]
    state.current[Current.CLOCK_PS] += state.cost[Cost.KSM_SCAN_PAGE]
    position = pte_position(state, state.mm[item.mm].pgd_pfn, item.vaddr)
    cmp_and_merge_page(state, item_index, pte_pfn(state.pt_word[position]))
    state.ksm_stat[KsmStat.PAGES_SCANNED] += 1
    return 1


# --- the thread -----------------------------------------------------------------------------------------


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
    while scan.batch_left > 0:
        if state.current[Current.CLOCK_PS] >= limit_ps:
            thread.clock_ps = state.current[Current.CLOCK_PS]
            return 0
        scan.batch_left -= 1
        if not _scan_one(state):
            scan.batch_left = 0
    thread.clock_ps = _sleep_until(state)
    return 0


@entry
def ksm_do_scan(state: "State", nr_pages: int) -> int:
    """Scan one batch at once; return how many pages were scanned (fewer at the end of a full scan)."""
    for done in range(nr_pages):
        if not _scan_one(state):
            return done
    return nr_pages


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
