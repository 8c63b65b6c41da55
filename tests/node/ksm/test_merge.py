"""Merging two pages: who may write then, and what the TLB remembers."""

import pytest

from node.counters import Current, KsmStat, VmStat
from node.hw.pte import Pte
from node.invariants import check
from node.joints import direct_reclaim
from node.ksm.ksmd import ksm_do_scan
from node.vm.madvise import madvise_mergeable
from shared.constants import MIB, PAGE_SIZE, PS_PER_S
from shared.gfp_flags import GFP_HIGHUSER_MOVABLE, Gfp
from tests.node.vm_machine import VmMachine

pytestmark = pytest.mark.three_ways

ENOUGH = 100  # pages of a batch, more than there are: it ends with the scan


def two_equal_pages(machine: VmMachine) -> tuple[int, int, int]:
    """Return a process and two places where it has written the same, which its TLB knows as writable."""
    mm = machine.spawn()
    vaddr = machine.map(mm, 2)
    madvise_mergeable(machine.state, mm, vaddr, vaddr + 2 * PAGE_SIZE)
    for page in range(2):
        machine.write(mm, vaddr + page * PAGE_SIZE, 7)
    return mm, vaddr, vaddr + PAGE_SIZE


def full_scans(machine: VmMachine, number: int) -> None:
    for _ in range(number):
        ksm_do_scan(machine.state, ENOUGH)


def swap_everything_out(machine: VmMachine) -> None:
    state = machine.state
    while state.vm_stat[VmStat.NR_INACTIVE_ANON] + state.vm_stat[VmStat.NR_ACTIVE_ANON]:
        direct_reclaim(state, 0, GFP_HIGHUSER_MOVABLE | Gfp.NORETRY)
        state.current[Current.CLOCK_PS] += PS_PER_S


def test_pages_that_stay_equal_from_one_scan_to_the_next_become_one() -> None:
    machine = VmMachine()
    mm, first, second = two_equal_pages(machine)
    full_scans(machine, 1)
    assert machine.frame(mm, first) != machine.frame(mm, second)
    full_scans(machine, 1)
    assert machine.frame(mm, first) == machine.frame(mm, second)
    assert machine.state.ksm_stat[KsmStat.PAGES_SHARING] == 1
    check(machine.state)


def test_a_merged_page_is_written_by_nobody_whatever_the_tlb_remembers() -> None:
    machine = VmMachine()
    mm, first, second = two_equal_pages(machine)
    before = machine.content(mm, first)
    full_scans(machine, 2)
    assert not (machine.pte(mm, first) | machine.pte(mm, second)) & Pte.WRITE
    check(machine.state)
    machine.write(mm, second, 8)
    assert machine.frame(mm, first) != machine.frame(mm, second)
    assert machine.content(mm, first) == before
    check(machine.state)


def test_the_last_one_that_maps_a_merged_page_gets_a_copy_too() -> None:
    machine = VmMachine()
    mm, first, second = two_equal_pages(machine)
    full_scans(machine, 2)
    merged = machine.frame(mm, first)
    machine.write(mm, second, 8)
    assert machine.state.page[merged].mapcount == 1
    assert machine.write(mm, first, 9) != merged
    check(machine.state)


def test_a_clean_page_known_to_the_tlb_as_read_only_is_forgotten_when_it_is_replaced() -> None:
    machine = VmMachine(swap_bytes=8 * MIB)
    mm, first, second = two_equal_pages(machine)
    swap_everything_out(machine)
    # A swap entry that fork has copied comes back as a page that is not the process's own: nothing of its entry
    # has to be taken away before it is merged.
    machine.exit(machine.fork(mm))
    for vaddr in (first, second):
        machine.read(mm, vaddr)
    assert not machine.pte(mm, first) & (Pte.WRITE | Pte.DIRTY)
    full_scans(machine, 2)
    assert machine.frame(mm, first) == machine.frame(mm, second)
    check(machine.state)
