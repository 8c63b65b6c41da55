"""The swap cache and readahead: what one swap-in brings, who waits, and what fork and exit leave."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.counters import Current, Knob, KsmRun, Request, VmEvent, VmStat
from node.hw.pte import PFN_MASK
from node.joints import direct_reclaim, exit_mmap, run_kthreads, swap_in
from node.kthread import Kthread
from node.phys.page import PageFlag
from node.swap.readahead import RA_HITS_MASK
from node.vm.fork import fork_mm
from node.vm.madvise import madvise_mergeable
from shared.constants import PAGE_SHIFT, PS_PER_S
from shared.gfp_flags import GFP_HIGHUSER_MOVABLE, Gfp
from tests.models.swapped_machine import SwappedMachine, do_touch
from tests.node.swap.readahead_entries import do_readahead_pages
from tests.node.swap.small_swap import swap_machine

pytestmark = pytest.mark.three_ways

NR_PAGES = 300
NR_MERGED = 30


def swapped_out(device: str = "ssd", nr_pages: int = NR_PAGES) -> tuple[SwappedMachine, int]:
    """Return a machine with one process, all of whose written pages are on the device."""
    machine = SwappedMachine(device=device)
    mm = machine.process(nr_pages)
    for page in range(nr_pages):
        assert machine.write(mm, page)
    machine.swap_everything_out()
    return machine, mm


def in_cache(machine: SwappedMachine, mm: int) -> list[int]:
    """Return the pages of a process that are in the swap cache, not mapped."""
    slots = {page: machine.slot(mm, page) for _, page in machine.held}
    return sorted(page for page, slot in slots.items() if slot and machine.state.swap_slot[slot].cached_pfn)


@given(
    adjacent=st.integers(0, 1),
    hits=st.integers(0, RA_HITS_MASK),
    order=st.integers(1, 5),
    last=st.integers(0, 32),
)
def test_the_window_follows_linuxs_formula(adjacent: int, hits: int, order: int, last: int) -> None:
    wanted = next(size for size in (4, 8, 16, 32, 64, 128) if size >= hits + 2) if hits else 1 + adjacent
    expected = max(min(wanted, 1 << order), last // 2)
    state = swap_machine(2, 1)
    assert do_readahead_pages(state, adjacent, hits, ((1 << order) << 8) + last) == expected


def test_flash_reads_the_pages_around_the_fault_in_its_area() -> None:
    machine, mm = swapped_out()
    assert machine.read(mm, 100) == machine.held[mm, 100]
    assert in_cache(machine, mm) == [97, 98, 99, 101, 102, 103, 104]
    assert machine.event(VmEvent.PSWPIN) == 8
    assert machine.event(VmEvent.SWAP_RA) == 7
    assert machine.event(VmEvent.PGMAJFAULT) == 1
    machine.check()


def test_flash_readahead_stops_at_the_border_of_the_area() -> None:
    machine, mm = swapped_out()
    machine.read(mm, 0)
    assert in_cache(machine, mm) == [1, 2, 3, 4]
    machine.read(mm, NR_PAGES - 1)
    # A fault far away and without hits reads half of the last window of 8; half of that lies behind the area.
    assert machine.event(VmEvent.PSWPIN) == 5 + 2


def test_flash_readahead_follows_the_direction_of_the_faults() -> None:
    machine, mm = swapped_out()
    for page in range(200):
        assert machine.read(mm, page) == machine.held[mm, page]
    assert machine.event(VmEvent.PGMAJFAULT) <= 200 / 8 + 3
    assert machine.event(VmEvent.SWAP_RA_HIT) + machine.event(VmEvent.PGMAJFAULT) == 200
    machine.check()


def test_a_disk_reads_the_aligned_block_of_slots() -> None:
    machine, mm = swapped_out("hdd")
    slot = machine.slot(mm, 100)
    assert slot is not None
    machine.read(mm, 100)
    slots = {page: machine.slot(mm, page) for page in in_cache(machine, mm)}
    assert {at // 8 for at in slots.values() if at} == {slot // 8}
    assert len(slots) == 7
    page = next(iter(slots))
    machine.read(mm, page)
    assert machine.event(VmEvent.SWAP_RA_HIT) == machine.state.swap_area[0].ra_hits == 1
    machine.check()


@pytest.mark.parametrize("device", ["ssd", "hdd"])
def test_without_page_cluster_one_page_is_read(device: str) -> None:
    machine, mm = swapped_out(device)
    machine.state.knob[Knob.PAGE_CLUSTER] = 0
    machine.read(mm, 100)
    assert machine.event(VmEvent.PSWPIN) == 1
    assert machine.event(VmEvent.SWAP_RA) == 0


def test_a_fault_waits_for_its_page_only_and_the_wait_is_stall() -> None:
    machine, mm = swapped_out()
    state = machine.state
    before = state.current[Current.STALL_PS]
    machine.read(mm, 100)
    waited = state.current[Current.STALL_PS] - before
    disk = state.disk[0]
    # Pages 97, 98 and 99 came over the bus first; what is behind it did not matter.
    assert waited == disk.read_latency_ps + 4 * disk.page_read_ps


def test_a_page_still_being_read_is_waited_for_without_a_major_fault() -> None:
    machine, mm = swapped_out()
    state = machine.state
    machine.read(mm, 100)
    slot = machine.slot(mm, 104)
    assert slot is not None
    ready = state.swap_slot[slot].ready_ps
    assert ready > state.current[Current.CLOCK_PS]
    machine.read(mm, 104)
    assert state.current[Current.CLOCK_PS] >= ready
    assert machine.event(VmEvent.PGMAJFAULT) == 1


def test_swap_in_says_whether_the_device_was_read() -> None:
    machine, mm = swapped_out()
    state = machine.state
    vaddr = machine.base[mm] + (50 << PAGE_SHIFT)
    pfn = swap_in(state, mm, vaddr, machine.pte(mm, 50))
    assert state.request[Request.R0] == 1
    assert state.page[pfn].refcount == 2
    assert swap_in(state, mm, vaddr, machine.pte(mm, 50)) == pfn
    assert state.request[Request.R0] == 0
    assert state.page[pfn].refcount == 3


def test_a_page_read_back_unchanged_leaves_without_another_write() -> None:
    machine, mm = swapped_out()
    for page in range(NR_PAGES):
        machine.read(mm, page)
    assert machine.state.vm_stat[VmStat.NR_SWAPCACHED] == NR_PAGES
    written = machine.state.disk[0].nr_writes
    machine.swap_everything_out()
    assert machine.state.disk[0].nr_writes == written
    machine.check()


def test_a_page_changed_in_the_cache_is_written_again() -> None:
    machine, mm = swapped_out()
    assert machine.read(mm, 7) == machine.held[mm, 7]
    machine.write(mm, 7)
    machine.swap_everything_out()
    assert machine.content(mm, 7) == machine.held[mm, 7]
    assert machine.state.disk[0].nr_writes == NR_PAGES + 1
    machine.check()


def test_forked_processes_share_slots_and_the_last_exit_frees_all() -> None:
    machine, mm = swapped_out()
    child = fork_mm(machine.state, mm)
    machine.base[child] = machine.base[mm]
    machine.held |= {(child, page): content for (_, page), content in machine.held.items()}
    slot = machine.slot(child, 20)
    assert slot == machine.slot(mm, 20)
    assert machine.state.swap_slot[slot].nr_users == 2
    for page in range(0, NR_PAGES, 3):
        machine.write(child, page)
        assert machine.read(mm, page) == machine.held[mm, page]
    machine.check()
    machine.swap_everything_out()
    machine.check()
    exit_mmap(machine.state, mm)
    machine.held = {key: content for key, content in machine.held.items() if key[0] != mm}
    machine.check()
    exit_mmap(machine.state, child)
    machine.held.clear()
    machine.check()
    assert machine.state.vm_stat[VmStat.NR_SWAP_USED] == 0


def test_the_slots_of_mapped_pages_go_with_their_process() -> None:
    machine, mm = swapped_out()
    for page in range(NR_PAGES):
        machine.read(mm, page)
    state = machine.state
    state.current[Current.CLOCK_PS] += PS_PER_S
    assert state.vm_stat[VmStat.NR_SWAPCACHED] == NR_PAGES
    exit_mmap(state, mm)
    machine.held.clear()
    machine.check()
    assert state.vm_stat[VmStat.NR_SWAPCACHED] == state.vm_stat[VmStat.NR_SWAP_USED] == 0


def test_pages_of_an_ended_process_that_were_being_written_go_with_the_next_reclaim() -> None:
    machine = SwappedMachine(device="hdd")
    state = machine.state
    mm = machine.process(NR_PAGES)
    for page in range(NR_PAGES):
        machine.write(mm, page)
    while state.vm_stat[VmStat.NR_WRITEBACK] == 0:
        direct_reclaim(state, 0, GFP_HIGHUSER_MOVABLE | Gfp.NORETRY)
    assert state.vm_stat[VmStat.NR_WRITEBACK] > 0
    exit_mmap(state, mm)
    machine.held.clear()
    machine.check()
    left = state.vm_stat[VmStat.NR_SWAPCACHED]
    assert left == state.vm_stat[VmStat.NR_SWAP_USED] == state.vm_stat[VmStat.NR_WRITEBACK] > 0
    machine.swap_everything_out()
    assert state.vm_stat[VmStat.NR_SWAPCACHED] == state.vm_stat[VmStat.NR_SWAP_USED] == 0
    machine.check()


def test_a_readahead_page_nobody_asked_for_is_the_first_to_go_again() -> None:
    machine, mm = swapped_out()
    machine.read(mm, 100)
    flags = machine.state.page["page_flags"]
    assert (flags & PageFlag.READAHEAD != 0).sum() == 7
    machine.state.current[Current.CLOCK_PS] += PS_PER_S
    machine.swap_everything_out()
    assert in_cache(machine, mm) == []
    assert do_touch(machine.state, mm, machine.base[mm] + (101 << PAGE_SHIFT), 0) > 0
    machine.check()


def test_a_merged_page_takes_one_slot_and_comes_back_as_ordinary_pages() -> None:
    machine = SwappedMachine()
    state = machine.state
    processes = [machine.process(NR_MERGED), machine.process(NR_MERGED)]
    for mm in processes:
        for page in range(NR_MERGED):
            machine.write(mm, page)
            state.page[(machine.pte(mm, page) >> PAGE_SHIFT) & PFN_MASK].content = -page - 1
            machine.held[mm, page] = -page - 1
        madvise_mergeable(state, mm, machine.base[mm], machine.base[mm] + (NR_MERGED << PAGE_SHIFT))
    state.knob[Knob.KSM_RUN] = KsmRun.MERGE
    state.kthread[Kthread.KSMD].clock_ps = state.current[Current.CLOCK_PS]
    state.current[Current.CLOCK_PS] += PS_PER_S
    run_kthreads(state, state.current[Current.CLOCK_PS])
    state.knob[Knob.KSM_RUN] = KsmRun.STOP
    assert state.vm_stat[VmStat.NR_ANON_PAGES] == NR_MERGED
    machine.swap_everything_out()
    machine.check()
    assert state.vm_stat[VmStat.NR_SWAP_USED] == NR_MERGED
    assert {machine.slot(processes[0], page) for page in range(NR_MERGED)} == {
        machine.slot(processes[1], page) for page in range(NR_MERGED)
    }
    for mm in processes:
        for page in range(NR_MERGED):
            assert machine.read(mm, page) == machine.held[mm, page]
    assert machine.event(VmEvent.PSWPIN) == NR_MERGED
    assert machine.event(VmEvent.KSM_SWPIN_COPY) == NR_MERGED
    assert state.vm_stat[VmStat.NR_ANON_PAGES] == 2 * NR_MERGED
    assert not (state.page["page_flags"] & PageFlag.KSM).any()
    machine.check()
