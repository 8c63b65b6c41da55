"""/proc/kpageflags and kpagecount: beside a model that looks at each frame by itself."""

import numpy as np

from node.counters import Knob
from node.phys.page import PageFlag
from node.proc.kpageflags import Kpf, kpagecount, kpageflags
from node.state import State
from shared.constants import PAGE_SIZE
from tests.node.proc.process_machine import ProcessMachine
from tests.node.vm_machine import VmMachine


def names_of(word: int) -> set[str]:
    return {bit.name for bit in Kpf if word >> bit & 1}


def flags(state: State, pfn: int) -> set[str]:
    return names_of(int(np.frombuffer(kpageflags(state, pfn, 1), "<i8")[0]))


def count(state: State, pfn: int) -> int:
    return int(np.frombuffer(kpagecount(state, pfn, 1), "<i8")[0])


def test_an_anonymous_page_has_the_flags_of_linux_s() -> None:
    machine = VmMachine()
    mm = machine.spawn()
    pfn = machine.write(mm, machine.map(mm, 1), 1)
    assert flags(machine.state, pfn) == {"UPTODATE", "LRU", "MMAP", "ANON", "SWAPBACKED", "MAPPEDTODISK"}
    machine.fork(mm)
    assert "MAPPEDTODISK" not in flags(machine.state, pfn)  # where Linux keeps PG_anon_exclusive
    assert count(machine.state, pfn) == 2


def test_the_page_of_zeroes_is_mapped_by_nobody() -> None:
    machine = VmMachine()
    mm = machine.spawn()
    machine.read(mm, machine.map(mm, 1))
    zero = int(machine.state.knob[Knob.ZERO_PFN])
    assert "ZERO_PAGE" in flags(machine.state, zero)
    assert "MMAP" not in flags(machine.state, zero)
    assert count(machine.state, zero) == 0


def test_shared_memory_is_swapbacked_and_a_file_s_page_is_not() -> None:
    machine = ProcessMachine()
    mm = machine.spawn()
    shared = machine.write(mm, machine.map_shared(mm, 1), 1)
    of_file = machine.write(mm, machine.map_shared(mm, 1, machine.file(1)), 1)
    assert {"LRU", "MMAP", "SWAPBACKED", "UPTODATE"} <= flags(machine.state, shared)
    assert {"LRU", "MMAP", "DIRTY", "UPTODATE"} <= flags(machine.state, of_file)
    assert not flags(machine.state, of_file) & {"SWAPBACKED", "ANON"}


def test_every_frame_of_a_free_block_is_free() -> None:
    state = VmMachine().state
    expected: set[int] = set()
    for pfn in range(len(state.page)):
        if state.page[pfn].page_flags & PageFlag.BUDDY:
            expected |= set(range(pfn, pfn + (1 << state.page[pfn].order)))
    words = np.frombuffer(kpageflags(state, 0, len(state.page)), "<i8")
    assert set(np.flatnonzero(words >> Kpf.BUDDY & 1).tolist()) == expected
    assert len(expected) == state.zone["nr_free"].sum()


def test_of_a_huge_page_the_first_frame_has_what_belongs_to_the_whole() -> None:
    machine = ProcessMachine()
    mm = machine.spawn()
    first = machine.map_huge_page(mm)
    of_all = {"MMAP", "ANON", "THP"}
    assert flags(machine.state, first) == of_all | {"COMPOUND_HEAD", "LRU", "SWAPBACKED", "UPTODATE"}
    assert flags(machine.state, first + 511) == of_all | {"COMPOUND_TAIL"}
    assert count(machine.state, first + 511) == 1


def test_a_huge_page_mapped_in_both_ways_counts_each_once() -> None:
    machine = ProcessMachine()
    whole, parts = machine.spawn(), machine.spawn()
    first = machine.map_huge_page(whole)
    machine.map_by_small_entries(parts, first)
    assert {count(machine.state, pfn) for pfn in range(first, first + 512)} == {2}


def test_slabs_and_page_tables_have_no_count_of_mappings() -> None:
    machine = VmMachine()
    mm = machine.spawn()
    machine.write(mm, machine.map(mm, 1), 1)
    table = int(machine.state.mm[mm].pgd_pfn)
    assert "PGTABLE" in flags(machine.state, table)
    machine.state.page[table].mapcount = 7
    assert count(machine.state, table) == 0


def test_files_end_with_the_memory_and_parts_are_parts_of_the_whole() -> None:
    state = VmMachine().state
    whole = kpageflags(state, 0, len(state.page) + 5)
    assert len(whole) == 8 * len(state.page)
    for first in (1, 511, 1025, 9000):
        assert kpageflags(state, first, 600) == whole[8 * first : 8 * (first + 600)]
    assert kpagecount(state, len(state.page), 4) == b""
    assert PAGE_SIZE * len(state.page) == 72 << 20
