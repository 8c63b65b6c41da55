"""Unmapping: pages are freed in batches whose frames are counted, and a file's page learns that it was used."""

import pytest

from node.counters import VmEvent
from node.invariants import check
from node.pagecache.inode import new_file
from node.phys.page import PageFlag
from node.reclaim.lru import LruList
from node.vm.madvise import Advice, madvise
from shared.constants import PAGE_SIZE
from tests.models.lru import pages_on
from tests.node.fault.test_file import BASE, map_at
from tests.node.vm_machine import VmMachine

pytestmark = pytest.mark.three_ways

NR_PAGES = 600  # of two page tables; 8 are gathered without a frame, the others need two frames of 510


@pytest.fixture
def machine() -> VmMachine:
    return VmMachine()


def batch_frames(machine: VmMachine, mm: int) -> int:
    """Unmap all from BASE on; return how many frames that took."""
    event = VmEvent.PGALLOC_DMA32
    before = [int(machine.state.vm_event[which]) for which in (event, VmEvent.PGALLOC_DMA)]
    machine.unmap(mm, BASE, NR_PAGES)
    check(machine.state)
    return sum(int(machine.state.vm_event[which]) for which in (event, VmEvent.PGALLOC_DMA)) - sum(before)


def use_all(machine: VmMachine, mm: int, *, write: bool) -> None:
    for page in range(NR_PAGES):
        vaddr = BASE + page * PAGE_SIZE
        if write:
            machine.write(mm, vaddr, 1)
        else:
            machine.read(mm, vaddr)


def test_pages_are_gathered_over_page_tables_and_freed_together(machine: VmMachine) -> None:
    mm = machine.spawn()
    map_at(machine, mm, BASE, NR_PAGES, shared=False)
    use_all(machine, mm, write=True)
    assert batch_frames(machine, mm) == 2


@pytest.mark.parametrize(("write", "nr_frames"), [(False, 2), (True, 1)])
def test_what_shared_memory_has_dirty_is_flushed_and_freed_table_by_table(
    machine: VmMachine, *, write: bool, nr_frames: int
) -> None:
    mm = machine.spawn()
    map_at(machine, mm, BASE, NR_PAGES, shared=True)
    use_all(machine, mm, write=write)
    assert batch_frames(machine, mm) == nr_frames


def test_a_page_used_by_two_that_go_becomes_active(machine: VmMachine) -> None:
    inode = new_file(machine.state, 1, 7)
    first, second, third = (machine.spawn() for _ in range(3))
    for mm in (first, second, third):
        map_at(machine, mm, BASE, 1, (inode, 0), shared=True)
    pfn = machine.read(first, BASE)
    assert pages_on(machine.state, LruList.INACTIVE_FILE) == [pfn]
    machine.read(second, BASE)
    machine.exit(third)  # it did not use the page
    assert not machine.state.page[pfn].page_flags & PageFlag.REFERENCED
    machine.exit(first)
    assert machine.state.page[pfn].page_flags & PageFlag.REFERENCED
    machine.exit(second)
    assert pages_on(machine.state, LruList.ACTIVE_FILE) == [pfn]
    assert not machine.state.page[pfn].page_flags & PageFlag.REFERENCED
    assert machine.state.vm_event[VmEvent.PGACTIVATE] == 1
    check(machine.state)


def test_what_is_read_from_start_to_end_is_not_kept_for_having_been_read(machine: VmMachine) -> None:
    inode = new_file(machine.state, 1, 7)
    mm = machine.spawn()
    map_at(machine, mm, BASE, 1, (inode, 0), shared=True)
    assert madvise(machine.state, mm, BASE, BASE + PAGE_SIZE, Advice.SEQUENTIAL) == 0
    pfn = machine.read(mm, BASE)
    machine.exit(mm)
    assert not machine.state.page[pfn].page_flags & PageFlag.REFERENCED
