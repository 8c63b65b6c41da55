"""The data caches: modes, synonyms and coherence, against lists that hold values, and against libcachesim."""

from dataclasses import dataclass
from fractions import Fraction

import libcachesim
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.counters import Current, HwEvent, Knob, Request
from node.hw.cache_lines import CacheMode, LineState
from node.hw.cost import Cost, cost_table_ps
from node.hw.data_cache import (
    MAX_LINES,
    USER_MODE,
    check_data_cache_spec,
    nr_cache_lines,
    setup_data_cache,
)
from node.hw.data_cache_check import check_data_cache
from node.hw.tlb import KEY_VALID
from node.spec import DataCacheSpec
from node.state import State
from shared.constants import HUGE_PAGE_SHIFT, NIL, PAGE_SHIFT
from shared.panic import KernelPanic
from shared.streams import Purpose, Stream
from tests.models.data_cache import DataCacheModel
from tests.node.hw.data_cache_entries import (
    do_cache_access,
    do_drop_page_lines,
    do_drop_pcid_lines,
    do_find_virtual_line,
    do_line_pfn,
    do_translation_hidden_ps,
    do_use_line,
)

pytestmark = pytest.mark.three_ways

NR_FRAMES = 64
COUNTED = (
    HwEvent.DCACHE_HIT,
    HwEvent.DCACHE_MISS,
    HwEvent.DCACHE_SYNONYM,
    HwEvent.DCACHE_WRITEBACK,
    HwEvent.DCACHE_INVALIDATION,
)
PHYSICAL_MODES = ("serial", "overlapped", "extra_stage")
PRICES = {"hit": Cost.CACHE_HIT, "miss": Cost.CACHE_MISS, "transfer": Cost.CACHE_TRANSFER}
# Sets of 64-byte lines: 256 of them index two bits above the page offset, so a page has four colours.
FOUR_COLOURS = 256


class CachedMachine:
    """A State that has data caches, and registers that say who accesses them."""

    def __init__(self, spec: DataCacheSpec, *, nr_cpus: int = 1, cost: dict[str, int] | None = None) -> None:
        lengths = dict.fromkeys(State.LAYOUT, 1) | {
            "panic": 4,
            "current": Current.NR,
            "request": Request.NR,
            "knob": Knob.NR,
            "cost": Cost.NR,
            "hw_event": HwEvent.NR,
            "cpu": nr_cpus,
            "cache_line": nr_cpus * nr_cache_lines(spec) or 1,
        }
        self.state = State(**lengths)
        self.state.knob[Knob.NR_CPUS] = nr_cpus
        self.state.knob[Knob.NR_FRAMES] = NR_FRAMES
        np.asarray(self.state.cost)[:] = cost_table_ps(Fraction(1), cost or {})
        setup_data_cache(self.state, spec)
        for cpu in range(nr_cpus):
            self.run(cpu)
        self.run(0)

    def run(self, cpu: int, pcid: int = 0) -> None:
        """Let ``cpu`` make the accesses from here on, in user mode of an address space."""
        self.state.current[Current.CPU] = cpu
        record = self.state.cpu[cpu]
        record.cpl = USER_MODE
        record.tlb_tag = KEY_VALID | pcid

    def counters(self) -> list[int]:
        return [int(self.state.hw_event[event]) for event in COUNTED]

    def price(self, paid: list[str]) -> int:
        return sum(int(self.state.cost[PRICES[what]]) for what in paid)


def at(page: int, offset: int = 0) -> int:
    return (page << PAGE_SHIFT) + offset


def virtual(sets: int, ways: int) -> DataCacheSpec:
    return DataCacheSpec("virtual", sets, ways, 64)


# --- one CPU --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", PHYSICAL_MODES)
@pytest.mark.parametrize(("sets", "ways", "line_bytes"), [(1, 4, 64), (8, 1, 32), (16, 3, 128), (64, 2, 64)])
def test_misses_of_a_physical_cache_equal_libcachesims(
    mode: str, sets: int, ways: int, line_bytes: int
) -> None:
    machine = CachedMachine(DataCacheSpec(mode, sets, ways, line_bytes))
    caches = [libcachesim.LRU(cache_size=ways) for _ in range(sets)]
    request = libcachesim.Request()
    request.obj_size = 1
    stream = Stream(3, 0, Purpose.TEST)
    misses = 0
    for _ in range(1500):
        paddr = stream.below(1 + stream.below(6 << PAGE_SHIFT))
        do_cache_access(machine.state, paddr, paddr >> PAGE_SHIFT, stream.below(2))
        request.obj_id = paddr // line_bytes
        misses += not caches[request.obj_id % sets].get(request)
    assert machine.counters()[:2] == [1500 - misses, misses]
    assert 0 < misses < 1500


def test_physical_modes_know_a_line_by_whatever_address_it_is_reached() -> None:
    for mode in PHYSICAL_MODES:
        machine = CachedMachine(DataCacheSpec(mode))
        for pcid, page in ((1, 5), (2, 9), (1, -3)):
            machine.run(0, pcid)
            do_cache_access(machine.state, at(page, 100), 7, 0)
        assert machine.counters() == [2, 1, 0, 0, 0]


def test_a_hit_costs_the_look_up_and_a_miss_memory_besides() -> None:
    for mode in (*PHYSICAL_MODES, "virtual"):
        machine = CachedMachine(DataCacheSpec(mode))
        assert do_cache_access(machine.state, at(1), 1, 0) == machine.price(["hit", "miss"])
        assert do_cache_access(machine.state, at(1, 63), 1, 0) == machine.price(["hit"])
        assert do_cache_access(machine.state, at(1, 64), 1, 0) == machine.price(["hit", "miss"])


@pytest.mark.parametrize(
    ("mode", "together"),
    # Look-up of 3 cycles in the TLB and of 4 in the cache; a second-level hit takes 7 cycles.
    [("serial", [7, 11]), ("overlapped", [4, 7]), ("extra_stage", [5, 9]), ("virtual", [7, 11])],
)
def test_each_mode_adds_its_share_of_the_translation_to_a_hit(mode: str, together: list[int]) -> None:
    machine = CachedMachine(DataCacheSpec(mode), cost={"tlb_l1_hit": 3})
    do_cache_access(machine.state, at(1), 1, 0)
    took = []
    for price in (Cost.TLB_L1_HIT, Cost.TLB_L2_HIT):
        translation = int(machine.state.cost[price])
        hidden = do_translation_hidden_ps(machine.state, translation)
        took.append((translation - hidden + do_cache_access(machine.state, at(1), 1, 0)) // 1000)
    assert took == together


def test_a_pipeline_stage_is_paid_where_the_tlb_would_be_faster() -> None:
    machine = CachedMachine(DataCacheSpec("extra_stage"), cost={"tlb_l1_hit": 0})
    assert do_translation_hidden_ps(machine.state, 0) == -machine.state.cost[Cost.TRANSLATION_STAGE]


# --- virtual caches -------------------------------------------------------------------------------------


def test_a_user_program_hits_a_virtual_cache_without_a_translation() -> None:
    machine = CachedMachine(virtual(64, 8))
    assert do_find_virtual_line(machine.state, at(1), 0) == NIL
    do_cache_access(machine.state, at(1), 9, 0)
    index = do_find_virtual_line(machine.state, at(1, 8), 0)
    assert index != NIL
    assert do_line_pfn(machine.state, index) == 9
    assert do_use_line(machine.state, index, 0) == machine.price(["hit"])
    assert machine.counters() == [1, 1, 0, 0, 0]


def test_what_a_virtual_line_was_not_accessed_for_needs_a_translation() -> None:
    machine = CachedMachine(virtual(64, 8))
    do_cache_access(machine.state, at(1), 9, 0)
    assert do_find_virtual_line(machine.state, at(1), 1) == NIL
    do_cache_access(machine.state, at(1), 9, 1)
    assert do_find_virtual_line(machine.state, at(1), 1) != NIL
    machine.run(0, pcid=5)
    assert do_find_virtual_line(machine.state, at(1), 0) == NIL
    machine.run(0)
    machine.state.cpu[0].cpl = 0
    assert do_find_virtual_line(machine.state, at(1), 0) == NIL


def test_what_the_kernel_accessed_is_not_open_to_programs() -> None:
    machine = CachedMachine(virtual(64, 8))
    machine.state.cpu[0].cpl = 0
    do_cache_access(machine.state, at(-5), 9, 1)
    machine.run(0)
    assert do_find_virtual_line(machine.state, at(-5), 0) == NIL


@pytest.mark.parametrize("mode", PHYSICAL_MODES)
def test_other_modes_always_translate(mode: str) -> None:
    machine = CachedMachine(DataCacheSpec(mode))
    do_cache_access(machine.state, at(1), 9, 1)
    assert do_find_virtual_line(machine.state, at(1), 1) == NIL


def test_two_names_of_one_line_are_found_and_a_write_reaches_both() -> None:
    machine = CachedMachine(virtual(FOUR_COLOURS, 2))
    for page, pcid in ((1, 1), (2, 1), (7, 2)):
        machine.run(0, pcid)
        do_cache_access(machine.state, at(page, 128), 9, 0)
    assert machine.counters() == [0, 3, 2, 0, 0]
    machine.run(0, 1)
    assert do_cache_access(machine.state, at(1, 128), 9, 1) == machine.price(["hit"] * 3)
    lines = [line for line in np.asarray(machine.state.cache_line) if line["stamp"]]
    assert [(line["line_state"], line["nr_writes"]) for line in lines] == [(LineState.MODIFIED, 1)] * 3
    assert check_data_cache(machine.state) == []


def test_the_last_name_of_a_modified_line_writes_it_back() -> None:
    machine = CachedMachine(virtual(FOUR_COLOURS, 2))
    do_cache_access(machine.state, at(1), 9, 1)
    do_cache_access(machine.state, at(2), 9, 0)
    do_drop_page_lines(machine.state, 0, at(1), 0, PAGE_SHIFT)
    assert machine.counters()[3] == 0
    do_drop_page_lines(machine.state, 0, at(2), 0, PAGE_SHIFT)
    assert machine.counters()[3] == 1


def test_a_synonym_that_makes_place_for_its_twin_is_counted_and_written_back() -> None:
    machine = CachedMachine(virtual(1, 1))
    do_cache_access(machine.state, at(1), 9, 1)
    do_cache_access(machine.state, at(2), 9, 0)
    assert machine.counters() == [0, 2, 1, 1, 0]
    assert machine.state.cache_line[0].line_state == LineState.SHARED


def test_a_page_takes_exactly_its_lines_with_it() -> None:
    machine = CachedMachine(virtual(64, 8), nr_cpus=2)
    for cpu in (0, 1):
        for pcid in (1, 2):
            machine.run(cpu, pcid)
            for page in (1, 2, -1):
                do_cache_access(machine.state, at(page, 64), 10 + page, 0)
    do_drop_page_lines(machine.state, 0, at(2), 1, PAGE_SHIFT)
    do_drop_page_lines(machine.state, 1, at(-1), NIL, PAGE_SHIFT)
    left = []
    for cpu in (0, 1):
        for pcid in (1, 2):
            machine.run(cpu, pcid)
            left += [
                (cpu, pcid, p) for p in (1, 2, -1) if do_find_virtual_line(machine.state, at(p, 64), 0) != NIL
            ]
    gone = {(0, 1, 2), (1, 1, -1), (1, 2, -1)}
    assert left == [(c, a, p) for c in (0, 1) for a in (1, 2) for p in (1, 2, -1) if (c, a, p) not in gone]


def test_a_huge_page_takes_the_lines_of_all_its_small_ones() -> None:
    machine = CachedMachine(virtual(64, 8))
    for page in (511, 512, 1023, 1024):
        do_cache_access(machine.state, at(page), page % 32, 0)
    do_drop_page_lines(machine.state, 0, at(700), 0, HUGE_PAGE_SHIFT)
    assert [do_find_virtual_line(machine.state, at(p), 0) == NIL for p in (511, 512, 1023, 1024)] == [
        *(False, True),
        *(True, False),
    ]


def test_an_address_space_takes_its_lines_with_it() -> None:
    machine = CachedMachine(virtual(64, 8))
    for pcid in (1, 2):
        machine.run(0, pcid)
        do_cache_access(machine.state, at(1), 9, 1)
    do_drop_pcid_lines(machine.state, 0, 1)
    assert do_find_virtual_line(machine.state, at(1), 1) != NIL
    do_drop_pcid_lines(machine.state, 0, NIL)
    assert not np.asarray(machine.state.cache_line)["stamp"].any()
    assert machine.counters()[3] == 1


@pytest.mark.parametrize("mode", PHYSICAL_MODES)
def test_a_physical_cache_keeps_its_lines_over_unmaps_and_switches(mode: str) -> None:
    machine = CachedMachine(DataCacheSpec(mode))
    do_cache_access(machine.state, at(1), 9, 1)
    do_drop_page_lines(machine.state, 0, at(1), NIL, PAGE_SHIFT)
    do_drop_pcid_lines(machine.state, 0, NIL)
    do_cache_access(machine.state, at(1), 9, 1)
    assert machine.counters() == [1, 1, 0, 0, 0]


def test_a_forgotten_flush_is_a_panic() -> None:
    machine = CachedMachine(virtual(64, 8))
    do_cache_access(machine.state, at(1), 9, 0)
    with pytest.raises(KernelPanic):
        do_cache_access(machine.state, at(1), 10, 0)


# --- several CPUs ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [*PHYSICAL_MODES, "virtual"])
def test_a_line_goes_through_the_states_of_msi(mode: str) -> None:
    machine = CachedMachine(DataCacheSpec(mode), nr_cpus=2)

    def access(cpu: int, write: int) -> tuple[int, list[int], list[int]]:
        machine.run(cpu)
        cost = do_cache_access(machine.state, at(1), 9, write)
        line = np.asarray(machine.state.cache_line)
        states = [int(half["line_state"].max()) for half in np.split(line, 2)]
        assert check_data_cache(machine.state) == []
        return cost, states, machine.counters()

    price = machine.price
    assert access(0, 0) == (price(["hit", "miss"]), [1, 0], [0, 1, 0, 0, 0])
    assert access(0, 1) == (price(["hit"]), [2, 0], [1, 1, 0, 0, 0])
    assert access(1, 0) == (price(["hit", "transfer"]), [1, 1], [1, 2, 0, 1, 0])
    assert access(1, 1) == (price(["hit", "transfer"]), [0, 2], [2, 2, 0, 1, 1])
    assert access(0, 1) == (price(["hit", "transfer"]), [2, 0], [2, 3, 0, 2, 2])


SHAPES = ((1, 2, 64), (4, 1, 64), (8, 2, 512), (FOUR_COLOURS, 1, 64), (64, 2, 256))


@dataclass(frozen=True)
class Step:
    what: str
    cpu: int
    page: int
    offset: int
    write: bool
    pcid: int


STEPS = st.lists(
    st.builds(
        Step,
        st.sampled_from(("access",) * 12 + ("unmap", "switch", "all")),
        st.integers(0, 2),
        st.integers(-2, 5),
        st.sampled_from((0, 64, 1024, 4095)),
        st.booleans(),
        st.integers(1, 2),
    ),
    max_size=60,
)


def frame_of(page: int, pcid: int) -> int:
    """Return the frame of a page: three frames behind sixteen names."""
    return 10 + (page + pcid) % 3


@given(STEPS, st.sampled_from(SHAPES), st.sampled_from(("serial", "virtual")))
def test_any_accesses_and_flushes_equal_those_of_caches_with_values(
    steps: list[Step], shape: tuple[int, int, int], mode: str
) -> None:
    sets, ways, line_bytes = shape
    machine = CachedMachine(DataCacheSpec(mode, *shape), nr_cpus=3)
    is_virtual = mode == "virtual"
    model = DataCacheModel(3, sets, ways, line_bytes, is_virtual)
    for step in steps:
        machine.run(step.cpu, step.pcid)
        vaddr = at(step.page, step.offset)
        if step.what == "access":
            pfn = frame_of(step.page, step.pcid)
            known = model.find(step.cpu, model.name_of(vaddr, pfn, step.pcid)[0])
            index = do_find_virtual_line(machine.state, vaddr, int(step.write))
            assert (index != NIL) == (is_virtual and known is not None and step.write in known.allowed)
            paid = model.access(step.cpu, vaddr, pfn, write=step.write, pcid=step.pcid)
            if index != NIL:
                assert do_line_pfn(machine.state, index) == pfn
                assert do_use_line(machine.state, index, int(step.write)) == machine.price(paid)
            else:
                assert do_cache_access(machine.state, vaddr, pfn, int(step.write)) == machine.price(paid)
        elif step.what == "unmap":
            do_drop_page_lines(machine.state, step.cpu, vaddr, step.pcid, PAGE_SHIFT)
            if is_virtual:
                model.drop_page(step.cpu, vaddr, step.pcid)
        else:
            pcid = step.pcid if step.what == "switch" else None
            do_drop_pcid_lines(machine.state, step.cpu, NIL if pcid is None else pcid)
            if is_virtual:
                model.drop_pcid(step.cpu, pcid)
        assert machine.counters() == model.counters()
        assert check_data_cache(machine.state) == []
    lines = [line for line in np.asarray(machine.state.cache_line) if line["stamp"]]
    assert sorted(
        (int(line["tag"]), int(line["pcid"]), line["line_state"] == LineState.MODIFIED) for line in lines
    ) == (
        sorted((*line.name, line.modified) for cache in model.caches for ways_of in cache for line in ways_of)
    )


# --- what is wrong is found -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "finding"),
    [
        ({"line_state": LineState.INVALID, "nr_writes": 0}, "is used and invalid"),
        ({"nr_writes": 0}, "modified without a write"),
        ({"tag": 3}, "does not choose"),
        ({"physical": NR_FRAMES << 6}, "frame that does not exist"),
        ({"physical": (9 << 6) + 1}, "another place in its page"),
        ({"nr_writes": 7}, "after 7"),
        ({"line_state": LineState.SHARED, "nr_writes": 0}, "in state"),
        ({"tag": 2 << 6}, "in the same set"),
    ],
)
def test_a_line_that_contradicts_another_is_found(changes: dict[str, int], finding: str) -> None:
    machine = CachedMachine(virtual(64, 8))
    do_cache_access(machine.state, at(1), 9, 1)
    do_cache_access(machine.state, at(2), 9, 1)
    assert check_data_cache(machine.state) == []
    for name, value in changes.items():
        setattr(machine.state.cache_line[0], name, value)
    assert finding in "\n".join(check_data_cache(machine.state))


def test_a_line_modified_in_two_caches_is_found() -> None:
    machine = CachedMachine(DataCacheSpec("serial", 1, 1, 64), nr_cpus=2)
    do_cache_access(machine.state, at(1), 9, 1)
    np.asarray(machine.state.cache_line)[1] = np.asarray(machine.state.cache_line)[0]
    assert check_data_cache(machine.state) == [
        "cache_line[1]: physical line 0x240 in state 2 after 1 writes, in cache_line[0] 2 after 1"
    ]


# --- what cannot be built -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (
            DataCacheSpec("parallel"),
            r"data_cache\.mode: 'parallel' is none of off, serial, overlapped, extra_stage",
        ),
        (DataCacheSpec("serial", sets=48), r"data_cache\.sets: 48 is not a power of two in 1\.\.65536"),
        (DataCacheSpec("serial", sets=0), r"data_cache\.sets: 0 is not a power of two"),
        (
            DataCacheSpec("serial", line_bytes=4),
            r"data_cache\.line_bytes: 4 is not a power of two in 8\.\.4096",
        ),
        (DataCacheSpec("serial", line_bytes=8192), r"data_cache\.line_bytes: 8192 is not"),
        (DataCacheSpec("serial", ways=0), r"data_cache\.ways: 0 is outside 1\.\.1024 \(64 sets\)"),
        (DataCacheSpec("serial", ways=1 + MAX_LINES // 64), r"data_cache\.ways: 1025 is outside"),
        (
            DataCacheSpec("overlapped", sets=128),
            r"data_cache\.sets: 128 sets of 64 bytes are 8192 bytes, above the 4096 of a page: overlapped",
        ),
    ],
)
def test_a_cache_that_cannot_be_is_refused(spec: DataCacheSpec, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        check_data_cache_spec(spec)
    assert "\n" not in str(caught.value)


def test_the_same_cache_is_built_in_other_modes() -> None:
    for mode in ("serial", "extra_stage", "virtual"):
        check_data_cache_spec(DataCacheSpec(mode, sets=128))
    check_data_cache_spec(DataCacheSpec("overlapped", sets=64, ways=16))


def test_time_does_not_stand_still() -> None:
    with pytest.raises(ValueError, match=r"cost\.cache_hit: 0 ps; time would stand still"):
        CachedMachine(DataCacheSpec("serial"), cost={"cache_hit": 0})


def test_a_machine_without_caches_has_nothing_to_check() -> None:
    machine = CachedMachine(DataCacheSpec())
    assert machine.state.knob[Knob.DCACHE_MODE] == CacheMode.OFF
    assert nr_cache_lines(DataCacheSpec()) == 0
    assert check_data_cache(machine.state) == []
