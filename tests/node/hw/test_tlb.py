"""The TLBs: replacement, sharing, tags and sizes, against lists and against libcachesim."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import libcachesim
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from node.counters import HwEvent, Knob, VmEvent
from node.hw.paging import AccessKind, PageSize
from node.hw.pte import Pte
from node.hw.tlb import Replacement, TlbArray
from node.kmap.asid import NR_ASIDS
from node.kmap.tlb_check import forbidden_entries
from shared.constants import MIB, PAGE_SHIFT
from shared.streams import Purpose, Stream
from shared.views import View
from tests.models.tlb import ArrayModel, Key, TlbModel, keys_of
from tests.node.hw.entries import do_access, do_drop_all, do_flush_lowered_view, do_invlpg
from tests.node.hw.small_machine import (
    DATA_HITS,
    FETCH_HITS,
    NO_ARRAY,
    NO_WALK_CACHES,
    SMALL_TLB,
    USER_RW,
    SmallMachine,
    TlbShape,
)

pytestmark = pytest.mark.three_ways

SIZE_NAMES = ("4K", "2M", "1G")
SIDES = {"data": TlbArray.D1_4K, "instruction": TlbArray.I1_4K, "second": TlbArray.L2_4K}
Shapes = dict[str, dict[str, dict[str, Any]]]  # as the hw.tlb key has them; an empty size is left out


def page(vpn: int) -> int:
    return vpn << PAGE_SHIFT


def array(entries: int, ways: int, replacement: str = "lru", wired: int = 0) -> dict[str, Any]:
    return {"entries": entries, "ways": ways, "replacement": replacement, "wired": wired}


def machine_of(shapes: Shapes, **keys: Any) -> SmallMachine:
    """Return a machine with these arrays and no others."""
    every: Shapes = {side: dict.fromkeys(SIZE_NAMES, NO_ARRAY) for side in SIDES}
    for side, arrays in shapes.items():
        for one in ("data", "instruction") if side == "unified" else (side,):
            for sizes in arrays:
                for size in sizes.split("+"):
                    every[one].pop(size)
            every[one] |= {} if side == "unified" else arrays
    tlb = every | ({"unified": shapes["unified"]} if "unified" in shapes else {})
    return SmallMachine(nr_mms=3, hw={"tlb": tlb}, **keys)


def model_of(machine: SmallMachine) -> TlbModel:
    """Return the lists that stand for the machine's arrays, shared as they are."""
    made: dict[int, ArrayModel] = {}
    roles = {}
    for side, first in SIDES.items():
        for size in range(PageSize.NR):
            place = machine.tlb_spec.roles[first + size]
            if place is None:
                continue
            spec = machine.tlb_spec.arrays[place]
            made.setdefault(place, ArrayModel(spec.nr_sets, spec.ways, spec.replacement, spec.wired))
            roles[side, size] = made[place]
    return TlbModel(roles)


SHAPES: dict[str, Shapes] = {
    "lru": {"data": {"4K": array(4, 2)}, "instruction": {"4K": array(3, 3)}, "second": {"4K": array(12, 3)}},
    "fifo in odd numbers of sets": {
        "data": {"4K": array(6, 2, "fifo"), "2M": array(3, 1, "fifo"), "1G": array(2, 2, "fifo")},
        "instruction": {"4K": array(5, 5, "fifo")},
        "second": {"4K+2M": array(15, 3, "fifo")},
    },
    "plru": {
        "data": {"4K": array(8, 4, "plru"), "2M": array(2, 2, "plru")},
        "instruction": {"4K+2M": array(4, 2, "plru")},
        "second": {"4K+2M": array(24, 8, "plru"), "1G": array(2, 1, "plru")},
    },
    "one array for everything": {"unified": {"4K+2M+1G": array(9, 9)}},
    "one array a side, shared by sizes": {
        "data": {"4K+2M+1G": array(6, 6)},
        "instruction": {"4K+2M+1G": array(5, 5)},
        "second": {"4K+2M": array(14, 2), "1G": array(2, 2)},
    },
    "direct mapped": {
        "data": {"4K": array(5, 1)},
        "instruction": {"4K+2M+1G": array(4, 1)},
        "second": {"4K+2M+1G": array(11, 1)},
    },
    "second level alone": {"second": {"4K+2M+1G": array(12, 4)}},
    "wired": {
        "data": {"4K+2M": array(8, 4, "lru", 2)},
        "instruction": {"4K+2M": array(8, 4, "fifo", 1)},
        "second": {"4K+2M+1G": array(16, 8, "plru", 3)},
    },
}

# What may be accessed: address, size, global. Pages of one kind lie so that they meet in sets; those of the
# kernel's half are the same in all address spaces, others only by their numbers.
KERNEL = -(1 << 47)
PAGES = [
    *((page(vpn), PageSize.SMALL, False) for vpn in range(1, 25)),
    *(((16 + number) * 2 * MIB, PageSize.LARGE, False) for number in range(6)),
    *(((1 + number) << 30, PageSize.GIGANTIC, False) for number in range(4)),
    *((KERNEL + page(vpn), PageSize.SMALL, True) for vpn in range(3, 9)),
    *((KERNEL + (3 + number) * 2 * MIB, PageSize.LARGE, True) for number in range(3)),
    *((KERNEL + (number << 30), PageSize.GIGANTIC, True) for number in (1, 2)),
]
FRAME_OF_SIZE = (0, 1 << 9, 1 << 18)


def with_pages(machine: SmallMachine) -> SmallMachine:
    for mm in (1, 2, 3):
        for number, (vaddr, size, is_global) in enumerate(PAGES):
            bits = USER_RW | (Pte.GLOBAL if is_global else 0)
            machine.map(mm, vaddr, (number + 1) * (FRAME_OF_SIZE[size] or 1), bits, size)
    return machine


class Pair:
    """A machine and lists, taken through the same accesses. Address space n has ASID n and tag n + 1."""

    def __init__(self, shapes: Shapes) -> None:
        self.machine = with_pages(machine_of(shapes))
        self.model = model_of(self.machine)
        self.dirty: set[tuple[int, int]] = set()

    def access(self, mm: int, which: int, kind: AccessKind) -> None:
        vaddr, size, is_global = PAGES[which]
        # Within a large page, anywhere.
        vaddr += which * 3 % FRAME_OF_SIZE[size] << PAGE_SHIFT if size else 0
        shift = (12, 21, 30)[size]
        owner = 0 if is_global else mm
        needed = 2 if kind == AccessKind.WRITE else 0
        tag = self.tag_of(mm)

        def walk() -> tuple[Key, int]:
            if kind == AccessKind.WRITE:
                self.dirty.add((owner, which))
            return Key(vaddr >> shift, size, None if is_global else tag), 2 if (
                owner,
                which,
            ) in self.dirty else 0

        side = "instruction" if kind == AccessKind.EXECUTE else "data"
        self.model.access(side, keys_of(vaddr, tag), needed, walk)
        pfn = (which + 1) * (FRAME_OF_SIZE[size] or 1)
        if size:
            pfn = (pfn >> (shift - 12) << (shift - 12)) + (vaddr >> PAGE_SHIFT) % FRAME_OF_SIZE[size]
        assert do_access(self.machine.state, mm, vaddr, kind) == pfn

    def tag_of(self, mm: int) -> int:
        contexts = np.asarray(self.machine.state.tlb_context)["ctx_id"].tolist()
        if mm in contexts:
            return int(contexts.index(mm)) + 1
        return int(self.machine.state.cpu[0].next_asid) % NR_ASIDS + 1

    def drop(self, mm: int, which: int) -> None:
        """Drop a page as INVLPG does for the address space that runs."""
        vaddr = PAGES[which][0]
        do_access(self.machine.state, mm, page(1), AccessKind.READ)
        self.model.access(
            "data", keys_of(page(1), self.tag_of(mm)), 0, lambda: (Key(1, 0, self.tag_of(mm)), self.dirt(mm))
        )
        do_invlpg(self.machine.state, vaddr)
        gone = keys_of(vaddr, self.tag_of(mm))
        self.model.drop(lambda key: key in gone)

    def dirt(self, mm: int) -> int:
        return 2 if (mm, 0) in self.dirty else 0

    def compare(self) -> None:
        """Compare every way of every set, and what served how many accesses."""
        for (side, size), lists in self.model.arrays.items():
            held = self.machine.ways(TlbArray(SIDES[side] + size))
            assert [[self._key(one) for one in ways] for ways in held] == [one.ways for one in lists.sets]
        assert self.machine.events(*DATA_HITS) == self.model.served["data"]
        assert self.machine.events(*FETCH_HITS) == self.model.served["instruction"]

    @staticmethod
    def _key(entry: Any) -> Key | None:
        if entry is None:
            return None
        tag = None if entry.is_global else entry.pcid
        return Key(entry.vaddr >> (12, 21, 30)[entry.size], entry.size, tag)


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["access"] * 9 + ["drop"]),
        st.integers(1, 3),
        st.integers(0, len(PAGES) - 1),
        st.sampled_from(list(AccessKind)),
    ),
    max_size=150,
)


@pytest.mark.parametrize("name", SHAPES)
@settings(max_examples=15)
@given(steps=STEPS)
def test_arrays_hold_and_serve_what_lists_do(
    name: str, steps: list[tuple[str, int, int, AccessKind]]
) -> None:
    pair = Pair(SHAPES[name])
    for what, mm, which, kind in steps:
        if what == "access":
            pair.access(mm, which, kind)
        else:
            pair.drop(mm, which)
    pair.compare()
    assert forbidden_entries(pair.machine.state) == []


@pytest.mark.parametrize("name", SHAPES)
def test_a_long_run_of_skewed_accesses_is_served_as_by_lists(name: str) -> None:
    pair = Pair(SHAPES[name])
    stream = Stream(5, 0, Purpose.TEST)
    for _ in range(1500):
        which = stream.below(1 + stream.below(len(PAGES)))
        pair.access(1 + stream.below(2), which, AccessKind(stream.below(3)))
    pair.compare()
    *hits, walks = pair.machine.events(*DATA_HITS)
    assert sum(hits) > 100
    assert walks > 100


# --- random replacement ---------------------------------------------------------------------------------


def random_machine(entries: int, wired: int) -> SmallMachine:
    return with_pages(machine_of({"unified": {"4K": array(entries, entries, "random", wired)}}))


@pytest.mark.parametrize("wired", [0, 3])
def test_random_replacement_fills_what_is_empty_and_then_takes_one_way_at_a_time(wired: int) -> None:
    machine = random_machine(8, wired)
    before = machine.ways(TlbArray.D1_4K)[0]
    for number in range(200):
        do_access(machine.state, 1, page(1 + number % 24), AccessKind.READ)
        after = machine.ways(TlbArray.D1_4K)[0]
        changed = [way for way in range(8) if before[way] != after[way]]
        assert len(changed) <= 1
        assert all(way >= wired for way in changed)
        if changed and None in before[wired:]:
            assert before[changed[0]] is None
        assert page(1 + number % 24) in {entry.vaddr for entry in after if entry}
        before = after


def test_random_replacement_takes_every_way_about_as_often() -> None:
    machine = random_machine(8, 2)
    taken: Counter[int] = Counter()
    before = machine.ways(TlbArray.D1_4K)[0]
    for number in range(1200):
        do_access(machine.state, 1, page(1 + number % 24), AccessKind.READ)
        after = machine.ways(TlbArray.D1_4K)[0]
        taken.update(way for way in range(8) if before[way] != after[way])
        before = after
    assert sorted(taken) == [2, 3, 4, 5, 6, 7]
    # Mean 150 or so of 900; six standard deviations are 67.
    assert max(taken.values()) - min(taken.values()) < 80


def test_two_cpus_draw_different_victims() -> None:
    machine = with_pages(machine_of({"unified": {"4K": array(8, 8, "random")}}, nr_cpus=2))
    for cpu in (0, 1):
        machine.run_on(cpu)
        for number in range(60):
            do_access(machine.state, 1, page(1 + number % 24), AccessKind.READ)
    vaddrs = [[entry and entry.vaddr for entry in machine.ways(TlbArray.D1_4K, cpu)[0]] for cpu in (0, 1)]
    assert vaddrs[0] != vaddrs[1]


# --- libcachesim ----------------------------------------------------------------------------------------


def skewed_page(stream: Stream, nr_pages: int) -> int:
    """Draw a page, from 1 on; low ones more often."""
    return 1 + stream.below(1 + stream.below(nr_pages))


@pytest.mark.parametrize(
    ("rule", "make"), [("lru", libcachesim.LRU), ("fifo", libcachesim.FIFO)], ids=["lru", "fifo"]
)
@pytest.mark.parametrize(("sets", "ways"), [(1, 4), (4, 2), (8, 1), (3, 4), (5, 6)])
@pytest.mark.parametrize("level", ["data", "second"])
def test_misses_of_one_array_equal_libcachesims(
    sets: int, ways: int, level: str, rule: str, make: Callable[..., Any]
) -> None:
    caches = [make(cache_size=ways) for _ in range(sets)]
    machine = machine_of({level: {"4K": array(sets * ways, ways, rule)}})
    for vpn in range(1, 61):
        machine.map(1, page(vpn), vpn)
    stream = Stream(11, 0, Purpose.TEST)
    request = libcachesim.Request()
    request.obj_size = 1
    misses = 0
    for _ in range(600):
        vpn = skewed_page(stream, 60)
        do_access(machine.state, 1, page(vpn), AccessKind.READ)
        request.obj_id = vpn
        misses += not caches[vpn % sets].get(request)
    assert machine.events(HwEvent.TLB_WALK) == [misses]
    assert 0 < misses < 600


# --- tags, levels, sides --------------------------------------------------------------------------------


def with_small_pages(nr_pages: int, machine: SmallMachine, mms: tuple[int, ...] = (1,)) -> SmallMachine:
    for mm in mms:
        for vpn in range(1, nr_pages + 1):
            machine.map(mm, page(vpn), vpn)
    return machine


def test_equal_addresses_of_two_address_spaces_are_two_entries() -> None:
    machine = SmallMachine()
    machine.map(1, page(5), 10)
    machine.map(2, page(5), 11)
    assert [do_access(machine.state, mm, page(5), 0) for mm in (1, 2, 1, 2)] == [10, 11, 10, 11]
    assert machine.events(*DATA_HITS) == [2, 0, 2]


def test_a_page_pushed_out_of_the_first_level_is_found_in_the_second() -> None:
    machine = with_small_pages(10, SmallMachine(tlb=(1, 2, 1, 8)))
    for vpn in (1, 2, 3, 1):
        do_access(machine.state, 1, page(vpn), 0)
    assert machine.events(*DATA_HITS) == [0, 1, 3]
    do_access(machine.state, 1, page(1), 0)
    assert machine.events(*DATA_HITS) == [1, 1, 3]


def test_a_hit_in_the_second_level_stays_there_and_is_copied_to_the_first() -> None:
    machine = with_small_pages(10, SmallMachine(tlb=(1, 1, 1, 8)))
    for vpn in (1, 2, 1):
        do_access(machine.state, 1, page(vpn), 0)
    first = {entry.vaddr for entry in machine.cached() if entry.role == TlbArray.D1_4K}
    second = {entry.vaddr for entry in machine.cached() if entry.role == TlbArray.L2_4K}
    assert first == {page(1)}
    assert second == {page(1), page(2)}


def test_a_page_in_use_in_the_first_level_may_leave_the_second() -> None:
    # The second level does not see the uses that the first serves.
    machine = with_small_pages(10, SmallMachine(tlb=(1, 8, 1, 2)))
    for vpn in (1, 2, 1, 3, 1):
        do_access(machine.state, 1, page(vpn), 0)
    assert machine.events(*DATA_HITS) == [2, 0, 3]


def test_instructions_and_data_meet_in_the_second_level_only() -> None:
    shapes = {side: {"4K": array(4, 4)} for side in SIDES}
    machine = with_small_pages(1, machine_of(shapes))
    for kind in (AccessKind.READ, AccessKind.EXECUTE, AccessKind.READ, AccessKind.EXECUTE):
        do_access(machine.state, 1, page(1), kind)
    assert machine.events(*DATA_HITS) == [1, 0, 1]
    assert machine.events(*FETCH_HITS) == [1, 1, 0]


def test_a_unified_first_level_serves_both() -> None:
    machine = with_small_pages(1, machine_of({"unified": {"4K": array(4, 4)}}))
    for kind in (AccessKind.READ, AccessKind.EXECUTE):
        do_access(machine.state, 1, page(1), kind)
    assert machine.events(*DATA_HITS, *FETCH_HITS) == [0, 0, 1, 1, 0, 0]


@pytest.mark.parametrize("size", [PageSize.LARGE, PageSize.GIGANTIC])
def test_one_entry_serves_all_of_a_large_page(size: PageSize) -> None:
    machine = machine_of({"data": {SIZE_NAMES[size]: array(2, 2)}})
    first, pages = 7 << 30, FRAME_OF_SIZE[size]
    machine.map(1, first, 4 * pages, USER_RW, size)
    for number in (0, 1, pages // 2, pages - 1):
        assert do_access(machine.state, 1, first + page(number), AccessKind.READ) == 4 * pages + number
    assert machine.events(*DATA_HITS) == [3, 0, 1]


def test_a_size_without_an_array_is_walked_for_every_time() -> None:
    machine = machine_of({"data": {"4K": array(4, 4)}})
    machine.map(1, 7 << 30, 1 << 9, USER_RW, PageSize.LARGE)
    for _ in range(3):
        do_access(machine.state, 1, 7 << 30, AccessKind.READ)
    assert machine.events(*DATA_HITS) == [0, 0, 3]


def test_a_global_page_serves_every_address_space_by_one_entry() -> None:
    machine = SmallMachine()
    machine.map(0, KERNEL, 9, USER_RW | Pte.GLOBAL)
    for mm in (1, 2, 1):
        assert do_access(machine.state, mm, KERNEL, AccessKind.READ) == 9
    assert machine.events(*DATA_HITS) == [2, 0, 1]


def test_without_global_pages_the_bit_means_nothing() -> None:
    machine = SmallMachine(hw={"global_pages": False, "pcid": False})
    machine.map(0, KERNEL, 9, USER_RW | Pte.GLOBAL)
    for mm in (1, 2):
        do_access(machine.state, mm, KERNEL, AccessKind.READ)
    assert machine.events(*DATA_HITS) == [0, 0, 2]
    assert {entry.is_global for entry in machine.cached()} == {False}


def test_cpus_have_tlbs_of_their_own() -> None:
    machine = with_small_pages(1, SmallMachine(nr_cpus=2))
    for cpu in (0, 1, 0):
        machine.run_on(cpu)
        do_access(machine.state, 1, page(1), AccessKind.READ)
    assert machine.events(*DATA_HITS) == [1, 0, 2]
    machine.run_on(0)
    do_drop_all(machine.state)
    assert machine.cached(0) == set()
    assert machine.cached(1) != set()


def test_an_entry_of_a_wired_way_is_found_but_never_replaced() -> None:
    machine = with_small_pages(24, machine_of({"data": {"4K": array(4, 4, "lru", 2)}}))
    do_access(machine.state, 1, page(1), AccessKind.READ)
    # What a TLB-write instruction with an index does: the entry goes to way 0.
    entries = machine.state.tlb
    used = next(index for index in range(4) if entries[index].key)
    entries[0].key, entries[0].word = entries[used].key, entries[used].word
    entries[used].key = 0
    for vpn in range(2, 25):
        do_access(machine.state, 1, page(vpn), AccessKind.READ)
    do_access(machine.state, 1, page(1), AccessKind.READ)
    assert machine.events(*DATA_HITS) == [1, 0, 24]
    assert machine.ways(TlbArray.D1_4K)[0][1] is None


def test_a_set_is_a_page_number_modulo_their_number_in_the_kernels_half_too() -> None:
    machine = with_small_pages(1, machine_of({"data": {"4K": array(7, 1)}}))
    numbers = [0x7FFF_FFFF_0, 0x8000_0000_0, 0xFFFF_FFFF_1]
    for vpn in numbers:
        vaddr = page(vpn - (1 << 36) if vpn >> 35 else vpn)
        machine.map(1 if vaddr > 0 else 0, vaddr, 5)
        do_access(machine.state, 1, vaddr, AccessKind.READ)
    sets = machine.ways(TlbArray.D1_4K)
    for vpn in numbers:
        signed = vpn - (1 << 36) if vpn >> 35 else vpn
        assert [entry.vaddr for entry in sets[signed % (1 << 47) % 7] if entry] == [page(signed)]


# --- a guest --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("caches", [{}, {"pd": {"entries": 4}}, {"pdpt": {"entries": 4}}])
def test_a_lowered_view_takes_exactly_its_frames_out_of_all_tlbs(caches: dict[str, Any]) -> None:
    hw = {"walk_caches": NO_WALK_CACHES | caches}
    machine = with_small_pages(4, SmallMachine(nr_cpus=2, guest=True, tlb=(1, 8, 1, 8), hw=hw))
    for cpu in (0, 1):
        machine.run_on(cpu)
        for vpn in (1, 2, 3, 4):
            do_access(machine.state, 1, page(vpn), 1 if cpu else 0)
    machine.state.ept_view[2] = View.READ_ONLY
    machine.state.ept_view[3] = View.SWAPPED
    # Two CPUs, two levels, two frames; a view of writable makes every entry one that allows writes.
    assert do_flush_lowered_view(machine.state) == 8
    assert machine.vm_events(VmEvent.NR_TLB_REMOTE_FLUSH_RECEIVED) == [2]
    assert forbidden_entries(machine.state) == []
    assert {entry.vaddr for entry in machine.cached() if entry.role < TlbArray.WALK_PD} == {page(1), page(4)}
    assert do_flush_lowered_view(machine.state) == 0


def test_a_large_page_of_a_guest_is_cached_as_small_ones() -> None:
    hw = {"tlb": {"data": {"4K": array(8, 8), "2M": array(4, 4)}}}
    machine = SmallMachine(guest=True, nr_frames=1024, hw=hw)
    machine.map(1, 7 << 30, 0, USER_RW, PageSize.LARGE)
    assert [do_access(machine.state, 1, (7 << 30) + page(number), 0) for number in (3, 3, 4)] == [3, 3, 4]
    assert machine.events(*DATA_HITS) == [1, 0, 2]
    assert forbidden_entries(machine.state) == []


# --- shapes ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [SMALL_TLB, (1, 4, 1, 8), (4, 1, 16, 1), (16, 4, 128, 12)])
def test_the_arrays_of_a_cpu_lie_one_behind_the_other(shape: TlbShape) -> None:
    machine = SmallMachine(tlb=shape)
    state = machine.state
    assert state.knob[Knob.TLB_ENTRIES] == shape[0] * shape[1] + shape[2] * shape[3]
    first, second = state.tlb_array[TlbArray.D1_4K], state.tlb_array[TlbArray.L2_4K]
    assert (first.first, first.nr_sets, first.nr_ways, first.replacement) == (
        *(0, shape[0], shape[1]),
        Replacement.LRU,
    )
    assert (second.first, second.nr_sets, second.nr_ways) == (shape[0] * shape[1], shape[2], shape[3])
