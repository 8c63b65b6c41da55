"""Shared memory under pressure: it is not swapped yet, so reclaim must leave it as it is."""

import pytest

from node.invariants import check
from node.phys.page import PageFlag
from shared.constants import MIB, PAGE_SIZE
from tests.node.fault.test_file import BASE, map_at
from tests.node.vm_machine import VmMachine

pytestmark = pytest.mark.three_ways


def test_reclaim_takes_others_pages_and_leaves_shared_memory() -> None:
    machine = VmMachine(swap_bytes=32 * MIB)
    keeper, eater = machine.spawn(), machine.spawn()
    map_at(machine, keeper, BASE, 8, shared=True)
    frames = [machine.write(keeper, BASE + page * PAGE_SIZE, page + 1) for page in range(8)]
    nr_pages = machine.nr_free() + 500
    vaddr = machine.map(eater, nr_pages)
    for page in range(nr_pages):
        machine.write(eater, vaddr + page * PAGE_SIZE, 1)
    assert machine.state.mm[eater].nr_swap > 0
    for page, pfn in enumerate(frames):
        assert machine.frame(keeper, BASE + page * PAGE_SIZE) == pfn
        assert not machine.state.page[pfn].page_flags & PageFlag.SWAPCACHE
    check(machine.state)
