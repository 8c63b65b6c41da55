"""Page tables that go to swap: when they leave, what an access then costs, and that nothing is lost on the way."""

import random
import re

import numpy as np
import pytest

from node.build import build_state
from node.checkpoint import digest, restore, snapshot
from node.counters import Current, Request, VmEvent, VmStat
from node.fault.kinds import VmFault
from node.invariants import violations
from node.phys.page import PageFlag
from node.reclaim.oom import OOM_SCORE_ADJ_MIN
from node.spec import MachineSpec
from node.swap.slots import nr_free_slots
from node.vm.fork import fork_mm
from node.vm.page_tables import pte_alloc
from node.vm.table_swap import hold_table, release_table, swap_out_table
from shared.constants import GIB, MIB, NIL, PAGE_SHIFT, PAGE_SIZE
from tests.models.table_machine import FIRST, PAGES_OF_REGION, REGION, TableMachine, table_spec

pytestmark = pytest.mark.three_ways


@pytest.fixture
def machine() -> TableMachine:
    return TableMachine()


def swapped_out(machine: TableMachine, nr_pages: int = 5, nr_regions: int = 1) -> int:
    """Return a process with ``nr_pages`` written in each region, all on the device, their tables too."""
    mm = machine.process(nr_regions)
    for region in range(nr_regions):
        machine.write(mm, FIRST + region * REGION, nr_pages)
    machine.swap_everything_out()
    return mm


# --- out ------------------------------------------------------------------------------------------------


def test_a_table_goes_out_with_the_last_page_that_it_maps(machine: TableMachine) -> None:
    state = machine.state
    free_at_start = machine.nr_free()
    mm = machine.process(2)
    machine.write(mm, FIRST, 5)
    machine.write(mm, FIRST + REGION, 3)
    assert state.mm[mm].nr_page_tables == state.vm_stat[VmStat.NR_PAGE_TABLE_PAGES] == 2
    machine.swap_everything_out()
    assert machine.table_slot(mm, FIRST) is not None
    assert machine.table_slot(mm, FIRST + REGION) is not None
    assert state.mm[mm].nr_page_tables == state.vm_stat[VmStat.NR_PAGE_TABLE_PAGES] == 0
    assert (machine.nr_out(), machine.nr_in()) == (2, 0)
    assert machine.event(VmEvent.PSWPOUT) == machine.nr_slots() == 5 + 3 + 2
    assert machine.nr_free() == free_at_start - 1  # the top table stays
    machine.check()


def test_a_table_stays_while_it_maps_a_page(machine: TableMachine) -> None:
    mm = machine.process(1)
    machine.write(mm, FIRST, 3)
    machine.read(mm, FIRST + 9 * PAGE_SIZE)  # the page of zeroes, which reclaim leaves alone
    machine.swap_everything_out()
    assert machine.table_slot(mm, FIRST) is None
    assert machine.nr_out() == 0
    machine.check()


def test_tables_stay_in_memory_unless_the_machine_swaps_them() -> None:
    machine = TableMachine(MachineSpec(64 * MIB, swap=table_spec().swap).with_hw(paging="32bit"))
    mm = swapped_out(machine)
    assert machine.table_slot(mm, FIRST) is None
    assert machine.state.mm[mm].nr_page_tables == 1
    assert len(machine.state.slot_word) == 0
    machine.check()


def test_a_table_stays_while_it_is_held(machine: TableMachine) -> None:
    state = machine.state
    mm = machine.process(1)
    machine.write(mm, FIRST, 3)
    table = hold_table(state, mm, FIRST)
    machine.swap_everything_out()
    assert machine.table_slot(mm, FIRST) is None
    release_table(state, table)
    assert swap_out_table(state, mm, FIRST) == 1
    assert hold_table(state, mm, FIRST) == NIL
    machine.check()


def test_a_table_stays_if_swap_is_full() -> None:
    machine = TableMachine(table_spec(swap_bytes=6 * PAGE_SIZE))  # the header and five slots
    mm = machine.process(1)
    machine.write(mm, FIRST, 5)
    while machine.state.mm[mm].nr_anon:
        machine.reclaim_once()
    assert nr_free_slots(machine.state) == 0
    assert machine.table_slot(mm, FIRST) is None
    machine.check()
    assert machine.read(mm, FIRST) == machine.held[mm, FIRST]


# --- in -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("device", ["ssd", "hdd"])
def test_an_access_through_a_table_on_the_device_costs_two_reads(device: str) -> None:
    machine = TableMachine(table_spec(device=device))
    mm = swapped_out(machine)
    state = machine.state
    disk = state.disk[0]
    read_ps = disk.read_latency_ps + disk.page_read_ps
    before = [machine.event(event) for event in (VmEvent.PGFAULT, VmEvent.PGMAJFAULT, VmEvent.PSWPIN)]
    major, minor = state.mm[mm].majflt, state.mm[mm].minflt
    costs = []
    for page in (1, 3):  # not behind each other on the device
        disk.next_page = 0
        state.current[Current.STALL_PS] = 0
        begin_ps, nr_reads = state.current[Current.CLOCK_PS], disk.nr_reads
        assert machine.read(mm, FIRST + page * PAGE_SIZE) == machine.held[mm, FIRST + page * PAGE_SIZE]
        assert state.current[Current.CLOCK_PS] - begin_ps > state.current[Current.STALL_PS]
        costs.append((disk.nr_reads - nr_reads, state.current[Current.STALL_PS]))
    assert costs == [(2, 2 * read_ps), (1, read_ps)]
    after = [machine.event(event) for event in (VmEvent.PGFAULT, VmEvent.PGMAJFAULT, VmEvent.PSWPIN)]
    assert [now - then for now, then in zip(after, before, strict=True)] == [3, 3, 3]
    assert (state.mm[mm].majflt - major, state.mm[mm].minflt - minor) == (3, 0)
    assert machine.nr_in() == 1
    machine.check()


def test_a_table_that_comes_back_gives_up_its_slot(machine: TableMachine) -> None:
    mm = swapped_out(machine)
    slot = machine.table_slot(mm, FIRST)
    assert slot is not None
    machine.write(mm, FIRST + 7 * PAGE_SIZE)
    state = machine.state
    assert machine.table_slot(mm, FIRST) is None
    assert (state.swap_slot[slot].nr_users, state.swap_slot[slot].is_table) == (0, 0)
    assert state.mm[mm].nr_page_tables == state.vm_stat[VmStat.NR_PAGE_TABLE_PAGES] == 1
    machine.check()


def test_a_table_that_is_still_being_written_is_waited_for_and_not_read(machine: TableMachine) -> None:
    state = machine.state
    mm = machine.process(1)
    machine.write(mm, FIRST)
    while machine.nr_out() == 0:
        machine.reclaim_once()
    slot = machine.table_slot(mm, FIRST)
    assert slot is not None
    table = state.swap_slot[slot].cached_pfn
    assert state.page[table].page_flags & PageFlag.WRITEBACK
    done_ps = state.writeback[np.flatnonzero(state.writeback["pfn"] == table)[0]].done_ps
    assert machine.read(mm, FIRST) == machine.held[mm, FIRST]
    assert machine.pgd_entry(mm, FIRST) >> PAGE_SHIFT == table
    assert state.disk[0].nr_reads == 0
    assert state.current[Current.CLOCK_PS] >= done_ps
    assert (state.mm[mm].majflt, machine.event(VmEvent.PGMAJFAULT)) == (0, 0)
    machine.check()


def test_whoever_needs_an_entry_gets_the_table_back(machine: TableMachine) -> None:
    mm = swapped_out(machine)
    position = pte_alloc(machine.state, mm, FIRST)
    assert machine.table_slot(mm, FIRST) is None
    assert machine.state.pt_word[position] == machine.pte(mm, FIRST) != 0
    machine.check()


def test_other_processes_tables_are_their_own(machine: TableMachine) -> None:
    first, second = swapped_out(machine), swapped_out(machine)
    assert machine.read(first, FIRST) == machine.held[first, FIRST]
    assert machine.table_slot(first, FIRST) is None
    assert machine.table_slot(second, FIRST) is not None
    machine.check()


# --- unmapping, fork, exit ------------------------------------------------------------------------------


def test_unmapping_reads_the_table_and_frees_what_it_names(machine: TableMachine) -> None:
    mm = swapped_out(machine, nr_pages=6)
    state = machine.state
    stall_ps, nr_reads, free = state.current[Current.STALL_PS], state.disk[0].nr_reads, machine.nr_free()
    assert machine.unmap(mm, FIRST, PAGES_OF_REGION) == 6
    assert state.disk[0].nr_reads == nr_reads + 1
    assert state.current[Current.STALL_PS] > stall_ps
    assert machine.nr_free() == free
    assert (machine.nr_slots(), machine.pgd_entry(mm, FIRST)) == (0, 0)
    machine.check()


def test_unmapping_a_part_leaves_the_rest_on_the_device(machine: TableMachine) -> None:
    mm = swapped_out(machine, nr_pages=6)
    written = machine.event(VmEvent.PSWPOUT)
    assert machine.unmap(mm, FIRST, 4) == 4
    assert machine.event(VmEvent.PSWPOUT) == written + 1
    assert machine.nr_slots() == 2 + 1
    machine.check()
    assert machine.read(mm, FIRST) == NIL
    assert machine.read(mm, FIRST + 5 * PAGE_SIZE) == machine.held[mm, FIRST + 5 * PAGE_SIZE]
    machine.check()


def test_a_changed_table_in_the_swap_cache_is_written_again(machine: TableMachine) -> None:
    state = machine.state
    mm = machine.process(1)
    machine.write(mm, FIRST, 6)
    while machine.nr_out() == 0:
        machine.reclaim_once()
    slot = machine.table_slot(mm, FIRST)
    assert slot is not None
    table = state.swap_slot[slot].cached_pfn
    assert table != 0
    assert machine.unmap(mm, FIRST, 4) == 4
    assert state.page[table].page_flags & PageFlag.DIRTY
    machine.check()
    machine.swap_everything_out()
    assert state.swap_slot[slot].cached_pfn == 0
    machine.check()
    assert machine.read(mm, FIRST + 4 * PAGE_SIZE) == machine.held[mm, FIRST + 4 * PAGE_SIZE]


def test_a_child_gets_what_its_parents_tables_on_the_device_say(machine: TableMachine) -> None:
    parent = swapped_out(machine, nr_regions=3)
    child = machine.fork(parent)
    assert machine.nr_in() == 3
    machine.check()
    machine.swap_everything_out()
    for mm in (child, parent):
        for region in range(3):
            vaddr = FIRST + region * REGION
            assert machine.read(mm, vaddr) == machine.held[mm, vaddr]
    machine.write(child, FIRST)
    assert machine.read(parent, FIRST) != machine.read(child, FIRST)
    machine.check()


def test_fork_works_where_not_even_the_tables_of_both_fit(machine: TableMachine) -> None:
    nr_regions = 400
    free_at_start = machine.nr_free()
    parent = machine.process(nr_regions)
    for region in range(nr_regions):
        machine.write(parent, FIRST + region * REGION, 3)
    assert machine.nr_out() > 0
    child = machine.fork(parent)
    machine.check()
    machine.write(parent, FIRST, 1)
    for region in range(0, nr_regions, 7):
        vaddr = FIRST + region * REGION + 2 * PAGE_SIZE
        assert machine.read(child, vaddr) == machine.held[parent, vaddr]
    machine.exit(parent)
    machine.check()
    machine.exit(child)
    machine.swap_everything_out()
    machine.check()
    assert (machine.nr_free(), machine.nr_slots()) == (free_at_start, 0)


def test_when_all_have_ended_every_frame_and_slot_is_free_again(machine: TableMachine) -> None:
    free_at_start = machine.nr_free()
    one, other = swapped_out(machine, nr_regions=3), machine.process(2)
    machine.write(other, FIRST, 30)
    machine.read(one, FIRST + REGION)
    for mm in (one, other):
        machine.exit(mm)
        machine.check()
    machine.swap_everything_out()
    assert (machine.nr_free(), machine.nr_slots()) == (free_at_start, 0)
    machine.check()


# --- no memory ------------------------------------------------------------------------------------------


def fill_up(machine: TableMachine, mm: int) -> None:
    """Write until the kernel has no more memory and swap for the process."""
    vaddr = FIRST
    while machine.try_write(mm, vaddr):
        vaddr += PAGE_SIZE
    assert machine.state.request[Request.R0] == VmFault.OOM
    machine.check()


def test_without_memory_for_a_table_the_access_fails_and_loses_nothing() -> None:
    machine = TableMachine(table_spec(swap_bytes=2 * MIB))
    mm = swapped_out(machine)
    hog = machine.process(8)
    for each in (mm, hog):
        machine.state.mm[each].oom_score_adj = OOM_SCORE_ADJ_MIN
    fill_up(machine, hog)
    assert machine.read(mm, FIRST) == NIL
    assert machine.state.request[Request.R0] == VmFault.OOM
    assert machine.table_slot(mm, FIRST) is not None
    machine.state.current[Current.MM] = mm
    assert fork_mm(machine.state, mm) == NIL
    machine.check()
    machine.exit(hog)
    assert machine.read(mm, FIRST) == machine.held[mm, FIRST]
    machine.check()


def test_the_oom_killer_ends_a_process_whose_tables_are_on_the_device() -> None:
    machine = TableMachine(table_spec(swap_bytes=4 * MIB))
    victim = swapped_out(machine, nr_pages=180, nr_regions=4)
    hog = machine.process(8)
    machine.state.mm[hog].oom_score_adj = OOM_SCORE_ADJ_MIN
    vaddr = FIRST
    while machine.state.mm[victim].alive:
        assert machine.try_write(hog, vaddr)
        vaddr += PAGE_SIZE
    assert machine.event(VmEvent.OOM_KILL) == 1
    machine.forget(victim)
    machine.check()


# --- all of it ------------------------------------------------------------------------------------------

NR_REGIONS = 6
WINDOW = 300  # pages of a turn


def random_steps(machine: TableMachine, mm: int, seed: int, nr_steps: int) -> None:
    """Let a process work on one region after the other, more than fits, and check after each turn."""
    choices = random.Random(seed)  # noqa: S311 # the same in every run, no secret
    for _ in range(nr_steps):
        region = FIRST + choices.randrange(NR_REGIONS) * REGION
        first = choices.randrange(PAGES_OF_REGION - WINDOW)
        for page in range(first, first + WINDOW):
            vaddr = region + page * PAGE_SIZE
            if (mm, vaddr) not in machine.held or choices.random() < 0.3:
                assert machine.try_write(mm, vaddr)
            else:
                assert machine.read(mm, vaddr) == machine.held[mm, vaddr]
        machine.check()
        if choices.random() < 0.3:
            machine.unmap(mm, region + first * PAGE_SIZE, 100)
            machine.check()
            machine.map(mm, region + first * PAGE_SIZE, 100)


def test_a_process_larger_than_memory_keeps_its_contents_and_a_checkpoint_goes_on_alike() -> None:
    machine = TableMachine()
    free_at_start = machine.nr_free()
    mm = machine.process(NR_REGIONS)
    random_steps(machine, mm, 1, 14)
    assert machine.nr_out() > 0
    assert machine.state.swap_slot["is_table"].any() or machine.nr_in() > 0
    kept = snapshot(machine.state, {})
    copy = TableMachine()
    copy.state, _ = restore(kept)
    copy.held, copy.serial = dict(machine.held), machine.serial
    assert digest(copy.state) == digest(machine.state)
    copy.check()
    for each in (machine, copy):
        random_steps(each, mm, 2, 7)
    assert digest(copy.state) == digest(machine.state)
    assert machine.nr_in() > 0
    machine.exit(mm)
    machine.swap_everything_out()
    machine.check()
    assert (machine.nr_free(), machine.nr_slots()) == (free_at_start, 0)


def test_a_checkpoint_keeps_tables_on_the_device(machine: TableMachine) -> None:
    mm = swapped_out(machine, nr_regions=2)
    state, _ = restore(snapshot(machine.state, {}))
    assert digest(state) == digest(machine.state)
    machine.state = state
    machine.check()
    assert machine.read(mm, FIRST) == machine.held[mm, FIRST]


# --- damage and bad specs -------------------------------------------------------------------------------


def test_the_invariants_find_a_damaged_table_on_the_device(machine: TableMachine) -> None:
    mm = swapped_out(machine)
    state = machine.state
    slot = machine.table_slot(mm, FIRST)
    assert slot is not None
    state.swap_slot[slot].is_table = 0
    assert violations(state) == [f"slot {slot}.is_table: is 0, but upper entries that name it: 1"]
    state.swap_slot[slot].is_table = 1
    word = int(state.slot_word[slot << 10])
    state.slot_word[slot << 10] = 0
    assert any("nr_swap" in line for line in violations(state))
    state.slot_word[slot << 10] = word
    machine.check()


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (
            table_spec().with_hw(paging="4level"),
            "vm.pageable_tables: true needs hw.paging 32bit, not 4level",
        ),
        (
            MachineSpec(64 * MIB, pageable_tables=True).with_hw(paging="32bit"),
            "vm.pageable_tables: true needs swap, and there is none",
        ),
        (table_spec(swap_bytes=33 * GIB), "vm.pageable_tables: true reaches 32 GiB of swap, not 33 GiB"),
    ],
)
def test_what_cannot_swap_tables_is_refused(spec: MachineSpec, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        build_state(spec)
