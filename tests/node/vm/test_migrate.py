"""Migration of one page: everybody who used the old frame uses the new one, and notices nothing."""

import pytest

from node import invariants
from node.counters import Current, Knob, KsmRun, VmEvent, VmStat
from node.hw.ept_view import GfnMark
from node.hw.pte import Pte
from node.joints import isolate_lru_page, migrate_page, putback_lru_page
from node.ksm.ksmd import ksm_do_scan, ksm_set_run
from node.phys.compact_control import MigrateMode
from node.phys.page import PageFlag
from node.phys.page_alloc import alloc_pages, free_pages, page_is_free
from node.reclaim.lru import LruList
from node.vm.madvise import madvise_mergeable
from shared.constants import PAGE_SIZE
from shared.gfp_flags import Gfp
from tests.models.fragmented_machine import FragmentedMachine
from tests.models.lru import pages_on

pytestmark = pytest.mark.three_ways

SWAP_BYTES = 4 * 1024 * 1024


class Mover(FragmentedMachine):
    """A machine on which tests move pages themselves."""

    def move(self, pfn: int, mode: int = MigrateMode.SYNC_LIGHT) -> int:
        """Move the page in a frame to a new one; return the frame that it is in then."""
        to = alloc_pages(self.state, 0, int(Gfp.MEMALLOC))
        self.state.page[to].page_flags = PageFlag.ISOLATED
        isolate_lru_page(self.state, pfn)
        assert self.state.vm_stat[VmStat.NR_ISOLATED] == 1
        if migrate_page(self.state, pfn, to, mode):
            return to
        putback_lru_page(self.state, pfn)
        assert self.state.page[to].refcount == 1
        free_pages(self.state, to, 0)
        return pfn


def test_a_page_moves_with_its_content_rights_and_place_on_the_lru() -> None:
    machine = Mover()
    mm = machine.process()
    old = machine.store(mm, 3)
    machine.store(mm, 4)
    pte = machine.pte(mm, machine.vaddr(mm, 3))
    new = machine.move(old)
    assert new != old
    assert machine.frame(mm, machine.vaddr(mm, 3)) == new
    bits = Pte.PRESENT | Pte.WRITE | Pte.USER | Pte.ACCESSED | Pte.DIRTY
    assert machine.pte(mm, machine.vaddr(mm, 3)) & bits == pte & bits
    assert page_is_free(machine.state, old)
    assert pages_on(machine.state, LruList.INACTIVE_ANON)[0] == new
    assert machine.event(VmEvent.PGMIGRATE_SUCCESS) == 1
    machine.check()
    machine.read_all()
    machine.store(mm, 3)
    assert machine.frame(mm, machine.vaddr(mm, 3)) == new
    machine.check()


def test_an_active_page_stays_active() -> None:
    machine = Mover()
    mm = machine.process()
    old = machine.store(mm, 0)
    isolate_lru_page(machine.state, old)
    machine.state.page[old].page_flags |= PageFlag.ACTIVE
    putback_lru_page(machine.state, old)
    new = machine.move(old)
    assert pages_on(machine.state, LruList.ACTIVE_ANON) == [new]
    machine.check()


def test_a_page_of_parent_and_child_moves_for_both_and_is_copied_on_the_next_write() -> None:
    machine = Mover(cpus=2)
    mm = machine.process()
    old = machine.store(mm, 0)
    child = machine.child(mm)
    machine.state.current[Current.CPU] = 1
    machine.read(child, machine.vaddr(child, 0))
    machine.state.current[Current.CPU] = 0
    new = machine.move(old)
    assert {machine.frame(who, machine.vaddr(who, 0)) for who in (mm, child)} == {new}
    assert machine.state.page[new].mapcount == 2
    machine.check()
    machine.store(child, 0)
    machine.read_all()
    machine.check()


def test_a_merged_page_moves_with_its_stable_node() -> None:
    machine = Mover()
    mm = machine.process()
    state = machine.state
    for page in range(3):
        pfn = machine.store(mm, page)
        state.page[pfn].content = machine.held[mm, page] = 77
    madvise_mergeable(state, mm, machine.vaddr(mm, 0), machine.vaddr(mm, 0) + 3 * PAGE_SIZE)
    state.knob[Knob.KSM_PAGES_TO_SCAN] = 100
    ksm_set_run(state, KsmRun.MERGE)
    state.current[Current.MM] = 0
    for _ in range(4):
        ksm_do_scan(state, 100)
    merged = machine.frame(mm, machine.vaddr(mm, 0))
    assert state.page[merged].page_flags & PageFlag.KSM
    new = machine.move(merged)
    node = int(state.page[new].mapping)
    assert (new != merged, state.stable_node[node].pfn, state.page[new].mapcount) == (True, new, 3)
    machine.check()
    state.current[Current.MM] = 0
    ksm_do_scan(state, 100)
    machine.store(mm, 1)
    machine.check()
    machine.read_all()


@pytest.mark.parametrize("extra", [1, 3])
def test_a_pinned_page_stays(extra: int) -> None:
    machine = Mover()
    mm = machine.process()
    old = machine.store(mm, 0)
    machine.state.page[old].refcount += extra
    assert machine.move(old) == old
    assert machine.event(VmEvent.PGMIGRATE_FAIL) == 1
    assert machine.event(VmEvent.PGMIGRATE_SUCCESS) == 0
    machine.state.page[old].refcount -= extra
    machine.check()


def swapping(machine: Mover) -> int:
    """Let a process need more than there is; return its address space."""
    machine.take_unmovable(machine.nr_left() - 300)
    mm = machine.process()
    for page in range(350):
        machine.store(mm, page)
    return mm


def test_a_page_that_is_being_written_stays_unless_migration_may_wait() -> None:
    machine = Mover(swap_bytes=SWAP_BYTES)
    swapping(machine)
    pages = machine.state.page
    written = [pfn for pfn in pages_on(machine.state, 0) if pages[pfn].page_flags & PageFlag.WRITEBACK]
    assert written
    assert machine.move(written[0]) == written[0]
    begin = machine.state.current[Current.CLOCK_PS]
    assert machine.move(written[-1], MigrateMode.SYNC) != written[-1]
    assert machine.state.current[Current.CLOCK_PS] > begin
    invariants.check(machine.state)
    machine.check()


def test_a_page_of_the_swap_cache_takes_its_slot_along() -> None:
    machine = Mover(swap_bytes=SWAP_BYTES)
    mm = swapping(machine)
    machine.state.current[Current.CLOCK_PS] += 10**12
    machine.read(mm, machine.vaddr(mm, 0))
    pages = machine.state.page
    wanted = PageFlag.SWAPCACHE | PageFlag.LRU
    machine.state.current[Current.CLOCK_PS] += 10**12
    cached = next(
        pfn
        for pfn in pages_on(machine.state, 0)
        if pages[pfn].page_flags & (wanted | PageFlag.WRITEBACK) == wanted
    )
    slot = int(pages[cached].private)
    new = machine.move(cached)
    assert new != cached
    assert (machine.state.swap_slot[slot].cached_pfn, pages[new].private) == (new, slot)
    machine.check()


def test_on_a_guest_the_host_hears_of_the_frame_that_was_read_and_of_the_one_that_was_written() -> None:
    machine = Mover(is_guest=True)
    mm = machine.process()
    old = machine.store(mm, 0)
    machine.state.ept_mark[:] = 0
    new = machine.move(old)
    assert machine.state.ept_mark[old] == GfnMark.ACCESSED
    assert machine.state.ept_mark[new] == GfnMark.ACCESSED | GfnMark.CHANGED
    machine.check()
