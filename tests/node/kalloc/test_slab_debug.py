"""Poison, red zones and last users: what misuse of an object SLAB reports."""

import pytest

from node.counters import Current, Era
from node.joints import slab_cache_shrink
from node.kalloc.kmem_cache import SlabError, SlabFlag
from node.kalloc.slab_check import check_slab
from node.kalloc.slab_debug import POISON_IN_USE_WORD, RED_ACTIVE, RED_INACTIVE, poison_word
from node.kalloc.slab_numbers import slab_stats
from node.kalloc.slab_report import nr_reports, slab_reports
from node.state import State
from shared.constants import PS_PER_NS
from shared.jit import entry
from shared.wrap64 import to_unsigned
from tests.models.slab_machine import alloc_on, create_cache, free_on, slab_machine

pytestmark = pytest.mark.three_ways

ALL = SlabFlag.POISON | SlabFlag.RED_ZONE | SlabFlag.STORE_USER
SIZE = 101


@entry
def poison_at(state: State, nr_bytes: int, poison: int) -> int:
    return poison_word(nr_bytes, poison)


def debugged(flags: int = ALL, era: Era = Era.LINUX_6_1) -> tuple[State, int]:
    state = slab_machine(cpus=2, era=era)
    return state, create_cache(state, "debugged", SIZE, slab_flags=flags | SlabFlag.NO_MERGE)


def bytes_at(state: State, paddr: int, count: int) -> bytes:
    return bytes(state.slab_word.view("u1")[paddr : paddr + count].tobytes())


def poke(state: State, paddr: int, value: int) -> None:
    state.slab_word.view("u1")[paddr] = value


@pytest.mark.parametrize("era", Era)
def test_an_objects_bytes_say_whether_it_is_in_use(era: Era) -> None:
    state, cache = debugged(era=era)
    paddr = alloc_on(state, 0, cache)
    assert bytes_at(state, paddr, SIZE) == b"\x5a" * (SIZE - 1) + b"\xa5"
    assert state.slab_word[(paddr - 8) >> 3] == state.slab_word[(paddr + 104) >> 3] == RED_ACTIVE
    assert free_on(state, 0, cache, paddr) == 0
    assert bytes_at(state, paddr, SIZE) == b"\x6b" * (SIZE - 1) + b"\xa5"
    assert state.slab_word[(paddr - 8) >> 3] == state.slab_word[(paddr + 104) >> 3] == RED_INACTIVE
    assert nr_reports(state) == 0


@pytest.mark.parametrize(
    ("nr_bytes", "expected"), [(9, "5a" * 8), (8, "a5" + "5a" * 7), (3, "a55a5a"), (1, "a5")]
)
def test_the_last_byte_is_poisoned_otherwise(nr_bytes: int, expected: str) -> None:
    state = slab_machine()
    assert to_unsigned(poison_at(state, nr_bytes, POISON_IN_USE_WORD)) == int(expected, 16)


@pytest.mark.parametrize("flags", [ALL, SlabFlag.RED_ZONE, SlabFlag.POISON, SlabFlag.CONSISTENCY_CHECKS])
def test_a_double_free_is_reported_wherever_the_object_is(flags: int) -> None:
    state, cache = debugged(flags)
    paddrs = [alloc_on(state, 0, cache) for _ in range(3)]
    for paddr in paddrs:
        assert free_on(state, 0, cache, paddr) == 0
    for cpu in range(2):  # the object is in CPU 0's array, not on its top
        assert free_on(state, cpu, cache, paddrs[0]) == SlabError.DOUBLE_FREE
    held = alloc_on(state, 0, cache)
    slab_cache_shrink(state, cache)  # now it is in its slab
    assert free_on(state, 0, cache, paddrs[0]) == SlabError.DOUBLE_FREE
    assert slab_stats(state, cache).errors == nr_reports(state) == 3
    assert free_on(state, 0, cache, held) == 0
    assert check_slab(state) == []


def test_a_write_past_the_end_is_reported_with_cache_object_and_last_user() -> None:
    state, cache = debugged()
    state.current[Current.CLOCK_PS] = 5000 * PS_PER_NS
    paddr = alloc_on(state, 1, cache)
    poke(state, paddr + 104, 1)
    state.current[Current.CLOCK_PS] = 7000 * PS_PER_NS
    assert free_on(state, 0, cache, paddr) == SlabError.RIGHT_RED_ZONE
    (line,) = slab_reports(state)
    assert line.startswith(
        f"debugged: object 0x{paddr:x}: right red zone overwritten (allocated by CPU 1 at 5"
    )
    poke(state, paddr - 1, 7)  # in the free object: found when it is handed out
    assert alloc_on(state, 0, cache) == paddr
    assert "left red zone overwritten (freed by CPU 0 at 7" in slab_reports(state)[1]
    assert state.kmem_cache[cache].nr_objects == 1
    assert check_slab(state) == []


def test_a_write_after_free_is_found_at_the_next_allocation_or_when_the_slab_goes() -> None:
    state, cache = debugged(SlabFlag.POISON)
    paddrs = [alloc_on(state, 0, cache) for _ in range(2)]
    for paddr in paddrs:
        free_on(state, 0, cache, paddr)
        poke(state, paddr + 50, 0)
    assert alloc_on(state, 0, cache) == paddrs[1]
    assert nr_reports(state) == 1
    free_on(state, 0, cache, paddrs[1])
    slab_cache_shrink(state, cache)
    assert nr_reports(state) == 2
    assert state.slab_report[2].error == SlabError.POISON
    assert state.slab_report[2].paddr == paddrs[0]


@pytest.mark.parametrize("era", Era)
def test_debugging_finds_nothing_where_nothing_is_wrong(era: Era) -> None:
    for size in (16, 60, 64, 700, 5000):
        state = slab_machine(cpus=2, era=era)
        cache = create_cache(state, "calm", size, slab_flags=ALL | SlabFlag.HWCACHE_ALIGN)
        for _ in range(3):
            held = [alloc_on(state, turn % 2, cache) for turn in range(150)]
            line = min(64, 1 << (size - 1).bit_length())
            assert not [paddr for paddr in held if paddr % line]
            for turn, paddr in enumerate(held):
                assert free_on(state, (turn + 1) % 2, cache, paddr) == 0
        slab_cache_shrink(state, cache)
        assert nr_reports(state) == 0
        assert check_slab(state) == []
