"""Compaction: blocks come of it, contents do not change, what cannot move stays, and failures are remembered."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from node.counters import Current, VmEvent, VmStat
from node.joints import drain_all_pages
from node.kthread import ASLEEP, Kthread, run_kthreads
from node.phys.buddy import NR_ORDERS
from node.phys.compact_control import CompactPriority, CompactResult
from node.phys.compact_defer import COMPACT_MAX_DEFER_SHIFT
from node.phys.compaction import compact_memory, compact_node, try_to_compact_pages
from node.phys.fragmentation import fragmentation_index, zone_fragmentation_index
from node.phys.kcompactd import kcompactd_slice, wakeup_kcompactd
from node.phys.page import PageFlag
from node.phys.page_alloc import alloc_pages, get_page
from node.phys.zone import ZoneId
from shared.constants import INT64_MAX, NIL
from shared.gfp_flags import GFP_HIGHUSER_MOVABLE, GFP_KERNEL, Gfp
from tests.models.fragmented_machine import HUGE_ORDER, WITHOUT_COMPACTION, FragmentedMachine

pytestmark = pytest.mark.three_ways

NR_PAGES = 2000


def fragmented(**kinds: bool) -> tuple[FragmentedMachine, int]:
    """Return a machine of whose pages every third is held, and none of whose free blocks is large."""
    machine = FragmentedMachine(**kinds)
    mm = machine.process()
    nr_pages = machine.fill(mm, leave_free=150)
    machine.keep_every(mm, 3, nr_pages)
    return machine, mm


def test_a_huge_block_is_there_only_after_compaction() -> None:
    machine, _ = fragmented()
    assert machine.largest_block() < HUGE_ORDER
    assert machine.take_block(HUGE_ORDER, WITHOUT_COMPACTION) == NIL
    pfn = machine.take_block(HUGE_ORDER, GFP_HIGHUSER_MOVABLE)
    assert pfn != NIL
    assert machine.event(VmEvent.COMPACT_STALL) == machine.event(VmEvent.COMPACT_SUCCESS) == 1
    assert machine.event(VmEvent.COMPACT_FAIL) == 0
    assert machine.state.current[Current.STALL_PS] > 0
    machine.check()
    machine.read_all()


def test_a_small_block_for_the_kernel_is_made_without_calling_the_oom_killer() -> None:
    machine, _ = fragmented()
    taken = 0
    while machine.take_block(3, GFP_KERNEL) != NIL:
        taken += 1
        assert taken < NR_PAGES
        if machine.event(VmEvent.COMPACT_SUCCESS) > 2:
            break
    assert machine.event(VmEvent.COMPACT_SUCCESS) > 2
    assert machine.event(VmEvent.OOM_KILL) == 0
    machine.check()


def test_compacting_all_memory_leaves_few_small_blocks_and_every_content() -> None:
    machine, _ = fragmented()
    nr_free = machine.nr_free()
    small_before = sum(machine.free_blocks()[:4])
    compact_memory(machine.state)
    machine.check()
    drain_all_pages(machine.state)
    machine.check()
    machine.read_all()
    assert machine.nr_free() == nr_free
    assert sum(machine.free_blocks()[:4]) < small_before // 2
    assert machine.largest_block() >= HUGE_ORDER


def test_counters_of_a_whole_compaction_add_up() -> None:
    machine, _ = fragmented()
    before = machine.frames()
    freed = machine.event(VmEvent.PGFREE)
    allocated = [machine.event(VmEvent(VmEvent.PGALLOC_DMA + kind)) for kind in ZoneId]
    compact_memory(machine.state)
    moved = machine.event(VmEvent.PGMIGRATE_SUCCESS)
    assert moved == len(before - machine.frames()) > 0
    assert machine.event(VmEvent.PGMIGRATE_FAIL) <= 1  # the last page, when the scanners met
    isolated_free = machine.event(VmEvent.PGFREE) - freed  # old frames, and free ones that were not needed
    assert machine.event(VmEvent.COMPACT_ISOLATED) >= moved + isolated_free
    assert machine.event(VmEvent.COMPACT_MIGRATE_SCANNED) >= moved
    assert machine.event(VmEvent.COMPACT_FREE_SCANNED) >= isolated_free
    assert [machine.event(VmEvent(VmEvent.PGALLOC_DMA + kind)) for kind in ZoneId] == allocated
    assert machine.event(VmEvent.COMPACT_STALL) == machine.event(VmEvent.COMPACT_DAEMON_WAKE) == 0


def test_time_passes_with_what_is_scanned_and_copied() -> None:
    machine, _ = fragmented()
    begin = machine.state.current[Current.CLOCK_PS]
    compact_node(machine.state, 0)
    assert machine.state.current[Current.CLOCK_PS] > begin


def test_pages_move_up_and_free_frames_gather_below() -> None:
    machine, _ = fragmented()
    before = np.mean(sorted(machine.frames()))
    compact_memory(machine.state)
    assert np.mean(sorted(machine.frames())) > before


def test_frames_that_cannot_move_block_every_huge_block() -> None:
    machine = FragmentedMachine()
    mm = machine.process()
    nr_pages = machine.fill(mm, leave_free=150)
    pinned = [page for page in range(nr_pages) if page % 97 == 0]
    for page in pinned:
        get_page(machine.state, machine.frame(mm, machine.vaddr(mm, page)))
    where = {page: machine.frame(mm, machine.vaddr(mm, page)) for page in pinned}
    machine.drop(mm, (page for page in range(nr_pages) if page % 3 and page % 97))
    drain_all_pages(machine.state)
    assert machine.take_block(HUGE_ORDER, GFP_HIGHUSER_MOVABLE) == NIL
    assert machine.event(VmEvent.COMPACT_FAIL) > 0
    assert machine.event(VmEvent.COMPACT_SUCCESS) == 0
    assert {page: machine.frame(mm, machine.vaddr(mm, page)) for page in pinned} == where
    for page in pinned:
        machine.state.page[where[page]].refcount -= 1
    machine.check()


def test_the_scanners_meet_and_the_next_compaction_starts_anew() -> None:
    machine, _ = fragmented()
    compact_memory(machine.state)
    zone = machine.state.zone[ZoneId.DMA32]
    assert zone.compact_migrate_pfn == zone.compact_migrate_pfn_sync == zone.start_pfn
    assert zone.compact_free_pfn > zone.start_pfn
    moved = machine.event(VmEvent.PGMIGRATE_SUCCESS)
    drain_all_pages(machine.state)
    compact_memory(machine.state)
    assert machine.event(VmEvent.PGMIGRATE_SUCCESS) - moved <= moved // 4
    machine.check()


def test_failures_let_ever_more_attempts_be_passed_over() -> None:
    machine = FragmentedMachine()
    mm = machine.process()
    nr_pages = machine.fill(mm, leave_free=150)
    for page in range(0, nr_pages, 61):
        get_page(machine.state, machine.frame(mm, machine.vaddr(mm, page)))
    machine.drop(mm, (page for page in range(nr_pages) if page % 3 and page % 61))
    drain_all_pages(machine.state)
    zone = machine.state.zone[ZoneId.DMA32]
    results = []
    gaps = []
    for _ in range(400):
        results.append(
            try_to_compact_pages(
                machine.state, HUGE_ORDER, GFP_HIGHUSER_MOVABLE, 0, CompactPriority.SYNC_LIGHT
            )
        )
        if results[-1] > CompactResult.DEFERRED:
            gaps.append(len(results))
    assert CompactResult.SUCCESS not in results
    distances = np.diff(gaps).tolist()
    assert distances[:6] == [2, 4, 8, 16, 32, 64]
    assert set(distances[6:]) == {1 << COMPACT_MAX_DEFER_SHIFT}
    assert zone.compact_defer_shift == COMPACT_MAX_DEFER_SHIFT
    smaller = try_to_compact_pages(machine.state, HUGE_ORDER, GFP_KERNEL, 0, CompactPriority.SYNC_FULL)
    assert smaller != CompactResult.DEFERRED  # the hardest attempt is never passed over


def test_success_ends_the_deferral() -> None:
    machine, _ = fragmented()
    zone = machine.state.zone[ZoneId.DMA32]
    zone.compact_defer_shift = 3
    zone.compact_considered = 7
    assert machine.take_block(HUGE_ORDER, GFP_HIGHUSER_MOVABLE) != NIL
    assert (zone.compact_defer_shift, zone.compact_considered) == (0, 0)
    assert zone.compact_order_failed == HUGE_ORDER + 1


def test_nothing_is_compacted_where_memory_is_short_rather_than_in_pieces() -> None:
    machine = FragmentedMachine()
    mm = machine.process()
    machine.fill(mm, leave_free=600)
    drain_all_pages(machine.state)
    result = try_to_compact_pages(
        machine.state, HUGE_ORDER, GFP_HIGHUSER_MOVABLE, 0, CompactPriority.SYNC_LIGHT
    )
    assert result == CompactResult.SKIPPED
    assert machine.event(VmEvent.COMPACT_MIGRATE_SCANNED) == 0


def test_a_request_without_io_does_not_compact() -> None:
    machine, _ = fragmented()
    gfp = int(GFP_KERNEL & ~Gfp.IO)
    result = try_to_compact_pages(machine.state, HUGE_ORDER, gfp, 0, CompactPriority.ASYNC)
    assert result == CompactResult.SKIPPED


def test_kcompactd_works_in_slices_and_holds_frames_between_them() -> None:
    machine, _ = fragmented()
    state = machine.state
    wakeup_kcompactd(state, HUGE_ORDER)
    thread = state.kthread[Kthread.KCOMPACTD]
    assert thread.clock_ps != ASLEEP
    slices = 0
    held_free_frames = False
    while thread.clock_ps != ASLEEP:
        kcompactd_slice(state, state.current[Current.CLOCK_PS] + 1)
        held_free_frames |= bool((state.page["page_flags"] & PageFlag.ISOLATED).any())
        machine.check()
        slices += 1
        assert slices < 1000
    assert slices > 3
    assert held_free_frames
    assert not (state.page["page_flags"] & PageFlag.ISOLATED).any()
    assert state.vm_stat[VmStat.NR_ISOLATED] == 0
    assert machine.event(VmEvent.COMPACT_DAEMON_WAKE) == 1
    for daemon, all_of_them in (
        (VmEvent.COMPACT_DAEMON_MIGRATE_SCANNED, VmEvent.COMPACT_MIGRATE_SCANNED),
        (VmEvent.COMPACT_DAEMON_FREE_SCANNED, VmEvent.COMPACT_FREE_SCANNED),
    ):
        assert machine.event(daemon) == machine.event(all_of_them) > 0
    assert alloc_pages(state, HUGE_ORDER, WITHOUT_COMPACTION) != NIL


def test_one_long_slice_of_kcompactd_ends_as_many_short_ones() -> None:
    outcomes = []
    for slice_ps in (1, INT64_MAX // 2):
        machine, _ = fragmented()
        state = machine.state
        wakeup_kcompactd(state, HUGE_ORDER)
        while state.kthread[Kthread.KCOMPACTD].clock_ps != ASLEEP:
            kcompactd_slice(state, state.current[Current.CLOCK_PS] + slice_ps)
        outcomes.append((machine.free_blocks(), state.vm_event.tolist(), state.current[Current.CLOCK_PS]))
    assert outcomes[0] == outcomes[1]


def test_kcompactd_sleeps_where_blocks_are_free_or_memory_is_short() -> None:
    machine = FragmentedMachine()
    wakeup_kcompactd(machine.state, HUGE_ORDER)
    assert machine.state.kthread[Kthread.KCOMPACTD].clock_ps == ASLEEP
    machine.fill(machine.process(), leave_free=300)
    wakeup_kcompactd(machine.state, HUGE_ORDER)
    assert machine.state.kthread[Kthread.KCOMPACTD].clock_ps == ASLEEP


def test_a_large_request_that_cannot_wait_leaves_the_work_to_kcompactd() -> None:
    machine, _ = fragmented()
    gfp = int(Gfp.HIGHMEM | Gfp.MOVABLE | Gfp.KSWAPD_RECLAIM)
    machine.state.kthread[Kthread.KSWAPD].failures = 16  # it has found that it cannot help
    assert alloc_pages(machine.state, HUGE_ORDER, gfp) == NIL
    run_kthreads(machine.state, machine.state.current[Current.CLOCK_PS] + 10**12)
    assert machine.event(VmEvent.COMPACT_DAEMON_WAKE) >= 1
    assert machine.take_block(HUGE_ORDER, gfp) != NIL
    machine.check()


@settings(max_examples=4)
@given(seed=st.integers(0, 1 << 16), steps=st.lists(st.integers(0, 5), min_size=3, max_size=8))
def test_whatever_is_compacted_every_process_reads_what_it_wrote(seed: int, steps: list[int]) -> None:
    machine = FragmentedMachine(cpus=2)
    mm = machine.scatter(seed, NR_PAGES // 2)
    child = machine.child(mm)
    for at, step in enumerate(steps):
        machine.state.current[Current.CPU] = at % 2
        if step == 0:
            compact_memory(machine.state)
        elif step == 1:
            machine.take_block(HUGE_ORDER, GFP_HIGHUSER_MOVABLE)
        elif step == 2:
            machine.take_block(2, GFP_KERNEL)
        elif step == 3:
            for page in sorted(page for owner, page in machine.held if owner == child)[at::7]:
                machine.store(child, page)
        elif step == 4:
            machine.drop(mm, sorted(page for owner, page in machine.held if owner == mm)[at::5])
        else:
            wakeup_kcompactd(machine.state, 4)
            kcompactd_slice(machine.state, machine.state.current[Current.CLOCK_PS] + 1)
        machine.check()
    machine.read_all()


def test_the_index_that_compaction_decides_by_is_the_one_that_is_reported() -> None:
    machine, _ = fragmented()
    area = np.asarray(machine.state.free_area["nr_free"]).reshape(-1, NR_ORDERS)
    for order in range(NR_ORDERS):
        for zone in range(len(machine.state.zone)):
            blocks = area[zone].tolist()
            assert zone_fragmentation_index(machine.state, zone, order) == fragmentation_index(blocks, order)
