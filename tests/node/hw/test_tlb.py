"""The TLBs: replacement, tags and flushes, against lists and against libcachesim."""

import libcachesim
import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.counters import Current, HwEvent
from node.hw.cost import Cost
from node.hw.pte import Pte
from node.hw.tlb import SINGLE_PAGE_FLUSH_CEILING
from node.hw.tlb_check import forbidden_entries
from shared.constants import PAGE_SHIFT
from shared.streams import Purpose, Stream
from shared.views import View
from tests.models.tlb import LevelModel, TlbModel
from tests.node.hw.entries import (
    do_access,
    do_flush_all,
    do_flush_lowered_view,
    do_flush_mm,
    do_flush_page,
    do_flush_range,
    do_load_mm,
)
from tests.node.hw.small_machine import SMALL_TLB, USER_RO, USER_RW, SmallMachine, TlbShape

pytestmark = pytest.mark.three_ways

SERVED = (HwEvent.TLB_L1_HIT, HwEvent.TLB_L2_HIT, HwEvent.TLB_WALK)
SHAPES: list[TlbShape] = [SMALL_TLB, (1, 4, 1, 8), (4, 1, 16, 1), (16, 4, 128, 12)]


def page(vpn: int) -> int:
    return vpn << PAGE_SHIFT


def skewed_page(stream: Stream) -> int:
    """Draw one of pages 1..60, low ones more often."""
    return 1 + stream.below(1 + stream.below(60))


def with_pages(nr_pages: int, machine: SmallMachine, mms: tuple[int, ...] = (1,)) -> SmallMachine:
    for mm in mms:
        for vpn in range(1, nr_pages + 1):
            machine.map(mm, page(vpn), vpn)
    return machine


@pytest.mark.parametrize("shape", SHAPES)
def test_hits_and_walks_equal_those_of_a_list_model(shape: TlbShape) -> None:
    machine = with_pages(60, SmallMachine(tlb=shape), mms=(1, 2))
    model = TlbModel(LevelModel(shape[0], shape[1]), LevelModel(shape[2], shape[3]))
    stream = Stream(5, 0, Purpose.TEST)
    for _ in range(600):
        mm, vpn = 1 + stream.below(2), skewed_page(stream)
        assert do_access(machine.state, mm, page(vpn), 0) == vpn
        model.access((mm, vpn), 0, lambda: 1)
    assert machine.events(*SERVED) == model.served


@pytest.mark.parametrize("shape", [(1, 4), (4, 2), (8, 1)])
def test_hits_of_one_level_equal_libcachesims(shape: tuple[int, int]) -> None:
    sets, ways = shape
    caches = [libcachesim.LRU(cache_size=ways) for _ in range(sets)]
    machine = with_pages(60, SmallMachine(tlb=(sets, ways, sets, ways)))
    stream = Stream(11, 0, Purpose.TEST)
    request = libcachesim.Request()
    request.obj_size = 1
    hits = 0
    for _ in range(600):
        vpn = skewed_page(stream)
        do_access(machine.state, 1, page(vpn), 0)
        request.obj_id = vpn
        hits += caches[vpn % sets].get(request)
    assert machine.events(HwEvent.TLB_L1_HIT) == [hits]
    assert 0 < hits < 600


def test_equal_addresses_of_two_address_spaces_are_two_entries() -> None:
    machine = SmallMachine()
    machine.map(1, page(5), 10)
    machine.map(2, page(5), 11)
    assert [do_access(machine.state, mm, page(5), 0) for mm in (1, 2, 1, 2)] == [10, 11, 10, 11]
    assert machine.events(*SERVED) == [2, 0, 2]


def test_a_page_pushed_out_of_the_first_level_is_found_in_the_second() -> None:
    machine = with_pages(10, SmallMachine(tlb=(1, 2, 1, 8)))
    for vpn in (1, 2, 3, 1):
        do_access(machine.state, 1, page(vpn), 0)
    assert machine.events(*SERVED) == [0, 1, 3]
    do_access(machine.state, 1, page(1), 0)
    assert machine.events(*SERVED) == [1, 1, 3]


def test_a_page_in_use_in_the_first_level_may_leave_the_second() -> None:
    # The second level does not see the uses that the first serves.
    machine = with_pages(10, SmallMachine(tlb=(1, 8, 1, 2)))
    for vpn in (1, 2, 1, 3, 1):
        do_access(machine.state, 1, page(vpn), 0)
    assert machine.events(*SERVED) == [2, 0, 3]


def test_a_page_flush_leaves_every_other_page() -> None:
    machine = with_pages(2, SmallMachine(nr_cpus=2), mms=(1, 2))
    for cpu in (0, 1):
        machine.run_on(cpu)
        for mm in (1, 2):
            for vpn in (1, 2):
                do_access(machine.state, mm, page(vpn), 0)
    do_flush_page(machine.state, 1, page(2))
    walks = []
    for cpu in (0, 1):
        machine.run_on(cpu)
        for mm in (1, 2):
            for vpn in (1, 2):
                before = machine.events(HwEvent.TLB_WALK)
                do_access(machine.state, mm, page(vpn), 0)
                walks += [(cpu, mm, vpn)] if machine.events(HwEvent.TLB_WALK) != before else []
    assert walks == [(0, 1, 2), (1, 1, 2)]


def test_a_flush_of_everything_empties_one_cpu() -> None:
    machine = with_pages(2, SmallMachine(nr_cpus=2))
    for cpu in (0, 1):
        machine.run_on(cpu)
        do_access(machine.state, 1, page(1), 0)
    do_flush_all(machine.state, 0)
    for cpu in (0, 1):
        machine.run_on(cpu)
        do_access(machine.state, 1, page(1), 0)
    assert machine.events(*SERVED) == [1, 0, 3]


def test_only_cpus_that_have_the_address_space_loaded_are_interrupted() -> None:
    machine = with_pages(1, SmallMachine(nr_cpus=4))
    for cpu, mm in enumerate((1, 1, 2, 1)):
        machine.run_on(cpu)
        do_load_mm(machine.state, mm)
    machine.run_on(0)
    machine.state.current[Current.CLOCK_PS] = 0
    do_flush_page(machine.state, 1, page(1))
    assert machine.events(HwEvent.TLB_FLUSH_ONE, HwEvent.TLB_REMOTE_FLUSH) == [3, 2]
    cost = machine.state.cost
    assert machine.state.current[Current.CLOCK_PS] == cost[Cost.TLB_FLUSH_ONE] + cost[Cost.IPI]
    interrupted = cost[Cost.TLB_FLUSH_ONE] + cost[Cost.IPI_HANDLER]
    assert [machine.state.cpu[cpu].clock_ps for cpu in range(4)] == [0, interrupted, 0, interrupted]


@pytest.mark.parametrize(("nr_pages", "flushes"), [(SINGLE_PAGE_FLUSH_CEILING, [33, 0]), (34, [0, 1])])
def test_a_range_beyond_the_ceiling_flushes_the_whole_address_space(
    nr_pages: int, flushes: list[int]
) -> None:
    machine = SmallMachine()
    do_load_mm(machine.state, 1)
    do_flush_range(machine.state, 1, page(1), page(1 + nr_pages))
    assert machine.events(HwEvent.TLB_FLUSH_ONE, HwEvent.TLB_FLUSH_ALL) == flushes


def test_a_lowered_view_takes_exactly_its_frames_out_of_all_tlbs() -> None:
    machine = with_pages(4, SmallMachine(nr_cpus=2, guest=True, tlb=(1, 8, 1, 8)))
    for cpu in (0, 1):
        machine.run_on(cpu)
        for vpn in (1, 2, 3, 4):
            do_access(machine.state, 1, page(vpn), 1 if cpu else 0)
    machine.state.ept_view[2] = View.READ_ONLY
    machine.state.ept_view[3] = View.SWAPPED
    # Two CPUs, two levels, two frames; a view of writable makes every entry one that allows writes.
    assert do_flush_lowered_view(machine.state) == 8
    assert machine.events(HwEvent.TLB_REMOTE_FLUSH) == [2]
    assert forbidden_entries(machine.state) == []
    assert do_flush_lowered_view(machine.state) == 0


MAPPINGS = (USER_RW, USER_RO, USER_RW | Pte.DIRTY, Pte.PRESENT | Pte.WRITE, 0)
OPERATIONS = st.lists(
    st.tuples(
        st.sampled_from(("access", "access", "access", "map", "flush_mm", "lower")),
        st.integers(1, 2),  # address space
        st.integers(1, 12),  # page
        st.integers(0, 2),  # CPU, mapping or view
        st.booleans(),  # write
    ),
    max_size=60,
)


@given(OPERATIONS, st.booleans())
def test_no_entry_ever_allows_what_tables_or_view_forbid(
    operations: list[tuple[str, int, int, int, bool]], guest: bool
) -> None:
    machine = with_pages(12, SmallMachine(nr_cpus=3, guest=guest), mms=(1, 2))
    for what, mm, vpn, choice, write in operations:
        if what == "access":
            machine.run_on(choice)
            pte = machine.pte(mm, page(vpn))
            allowed = pte & USER_RO == USER_RO and (not write or pte & Pte.WRITE)
            assert (do_access(machine.state, mm, page(vpn), int(write)) == vpn) == bool(allowed)
            if allowed:
                assert machine.pte(mm, page(vpn)) & Pte.ACCESSED
                assert not write or machine.pte(mm, page(vpn)) & Pte.DIRTY
        elif what == "map":
            machine.map(mm, page(vpn), vpn, MAPPINGS[choice + 2 * write])
            do_flush_page(machine.state, mm, page(vpn))
        elif what == "flush_mm":
            do_flush_mm(machine.state, mm)
        elif guest:
            machine.state.ept_view[vpn] = (View.UNTOUCHED, View.SWAPPED, View.READ_ONLY)[choice]
            do_flush_lowered_view(machine.state)
        assert forbidden_entries(machine.state) == []
