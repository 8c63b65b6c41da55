"""SLUB's debugging: what is written around objects, and what a check of it finds and says."""

import pytest

from node.counters import Current
from node.kalloc.cache_list import kmem_cache_destroy, kmem_cache_shrink
from node.kalloc.calls import kmem_cache_free, write_slab_bytes
from node.kalloc.kmem_cache import SLAB_DEBUG_FLAGS, SlabError, SlabFlag
from node.kalloc.slab_report import nr_reports, slab_reports
from shared.constants import PAGE_SHIFT
from tests.node.kalloc.slub_machine import SlubMachine

pytestmark = pytest.mark.three_ways

SIZE = 20  # object 20, right red zone 4, link 8, marks 64, a word, left red zone 8: stride 112


@pytest.fixture
def machine() -> SlubMachine:
    return SlubMachine()


@pytest.fixture
def cache(machine: SlubMachine) -> int:
    return machine.create(SIZE, SLAB_DEBUG_FLAGS)


def read(machine: SlubMachine, paddr: int, nr_bytes: int) -> bytes:
    first = paddr >> 3
    words = machine.state.slab_word[first : (paddr + nr_bytes + 7) >> 3]
    return bytes(words.tobytes()[paddr - (first << 3) :][:nr_bytes])


def last_report(machine: SlubMachine) -> str:
    return slab_reports(machine.state)[-1]


def test_a_free_object_is_poisoned_between_red_zones(machine: SlubMachine, cache: int) -> None:
    paddr = machine.alloc(cache)
    assert machine.state.kmem_cache[cache].stride == 112
    following = paddr + 112
    assert read(machine, following - 8, 8) == b"\xbb" * 8
    assert read(machine, following, SIZE) == b"\x6b" * 19 + b"\xa5"
    assert read(machine, following + SIZE, 4) == b"\xbb" * 4
    assert read(machine, following + 32, 64) == bytes(64)
    assert read(machine, following + 96, 8) == b"\x5a" * 8


def test_an_object_in_use_has_active_red_zones_and_the_mark_of_its_user(
    machine: SlubMachine, cache: int
) -> None:
    machine.on(1)
    machine.state.current[Current.CLOCK_PS] = 10**9
    paddr = machine.alloc(cache)
    assert read(machine, paddr - 8, 8) == b"\xcc" * 8
    assert read(machine, paddr + SIZE, 4) == b"\xcc" * 4
    cpu = int.from_bytes(read(machine, paddr + 32 + 12, 4), "little")
    when = int.from_bytes(read(machine, paddr + 32 + 24, 8), "little")
    assert cpu == 1
    assert 10**9 < when <= machine.state.current[Current.CLOCK_PS]


def test_all_goes_the_slow_way(machine: SlubMachine, cache: int) -> None:
    objects = machine.take(cache, 50)
    machine.free(cache, *objects[:20])
    stats = machine.stats(cache)
    assert stats["alloc_slowpath"] == 50
    assert stats["free_slowpath"] == 20
    assert "alloc_fastpath" not in stats
    assert "free_fastpath" not in stats
    assert "cpu_partial_free" not in stats
    machine.check()
    machine.free(cache, *objects[20:])
    machine.check()
    assert nr_reports(machine.state) == 0


def test_a_double_free_is_found_and_says_who_freed_it(machine: SlubMachine, cache: int) -> None:
    a, b = machine.take(cache, 2)
    machine.on(1)
    machine.free(cache, a, b)
    machine.on(0)
    assert kmem_cache_free(machine.state, cache, a) == SlabError.DOUBLE_FREE
    assert last_report(machine).startswith(f"test: object 0x{a:x}: freed twice (allocated by CPU 0 at ")
    assert ", freed by CPU 1 at " in last_report(machine)
    machine.check()


@pytest.mark.parametrize(
    ("offset", "error", "words"),
    [
        (-1, SlabError.LEFT_RED_ZONE, "left red zone overwritten"),
        (SIZE, SlabError.RIGHT_RED_ZONE, "right red zone overwritten"),
    ],
)
def test_a_write_past_either_end_is_found_at_the_free(
    machine: SlubMachine, cache: int, offset: int, error: int, words: str
) -> None:
    paddr = machine.alloc(cache)
    assert write_slab_bytes(machine.state, paddr + offset, 1, 0) == 1
    assert kmem_cache_free(machine.state, cache, paddr) == error
    assert last_report(machine).startswith(f"test: object 0x{paddr:x}: {words} (allocated by CPU 0 at ")
    machine.check()
    machine.free(cache, paddr)  # the bytes were put right


def test_a_write_within_the_object_is_its_users_affair(machine: SlubMachine, cache: int) -> None:
    paddr = machine.alloc(cache)
    assert write_slab_bytes(machine.state, paddr, SIZE, 0xFF) == SIZE
    machine.free(cache, paddr)
    assert nr_reports(machine.state) == 0


@pytest.mark.parametrize("offset", [0, 7, SIZE - 1])
def test_a_write_after_the_free_is_found_when_the_object_is_next_handed_out(
    machine: SlubMachine, cache: int, offset: int
) -> None:
    kept, paddr = machine.take(cache, 2)
    machine.free(cache, paddr)
    write_slab_bytes(machine.state, paddr + offset, 1, 0x11)
    found = machine.alloc(cache)
    assert found >> PAGE_SHIFT != paddr >> PAGE_SHIFT  # the slab is used no more
    assert last_report(machine).startswith(f"test: object 0x{paddr:x}: written to after it was freed")
    assert kmem_cache_free(machine.state, cache, kept) == SlabError.SLAB_DISABLED
    machine.check()


def test_a_write_to_the_padding_is_found_but_the_object_is_freed(machine: SlubMachine, cache: int) -> None:
    paddr = machine.alloc(cache)
    write_slab_bytes(machine.state, paddr + 96, 1, 0)
    machine.free(cache, paddr)
    assert last_report(machine).startswith(f"test: object 0x{paddr:x}: padding overwritten")


def test_a_write_behind_the_last_object_of_a_slab_is_found(machine: SlubMachine, cache: int) -> None:
    paddr = machine.alloc(cache)
    slab = paddr >> PAGE_SHIFT
    nr_objects = 4096 // 112
    write_slab_bytes(machine.state, (slab << PAGE_SHIFT) + nr_objects * 112, 1, 0)
    machine.free(cache, paddr)
    assert "padding overwritten" in last_report(machine)


def test_an_overwritten_link_loses_what_was_behind_it_and_is_reported_once(
    machine: SlubMachine, cache: int
) -> None:
    objects = machine.take(cache, 5)
    machine.free(cache, *objects[:4])
    write_slab_bytes(machine.state, objects[2] + 24, 8, 0x6B)
    machine.free(cache, objects[4])
    assert nr_reports(machine.state) == 1
    assert last_report(machine).startswith(
        f"test: object 0x{objects[2]:x}: link to the next free object overwritten"
    )
    machine.check()
    assert machine.take(cache, 3) == [objects[4], objects[3], objects[2]]
    machine.check()


def test_foreign_wrong_and_inner_addresses_are_named(machine: SlubMachine, cache: int) -> None:
    other = machine.create(64, name="other")
    assert kmem_cache_free(machine.state, cache, machine.alloc(other)) == SlabError.WRONG_CACHE
    assert kmem_cache_free(machine.state, cache, machine.alloc(cache) + 1) == SlabError.NOT_OBJECT_START
    assert kmem_cache_free(machine.state, cache, 0x1000) == SlabError.FOREIGN_ADDRESS
    machine.check()


def test_the_knob_debugs_every_cache(machine: SlubMachine) -> None:
    debugged = SlubMachine(debug=SlabFlag.RED_ZONE | SlabFlag.CONSISTENCY_CHECKS)
    paddr = debugged.kmalloc(60)
    write_slab_bytes(debugged.state, paddr + 64, 4, 0)
    assert debugged.kfree(paddr) == SlabError.RIGHT_RED_ZONE
    assert slab_reports(debugged.state)[0].startswith(f"kmalloc-64: object 0x{paddr:x}: right red zone")
    debugged.check()


def test_only_the_last_reports_are_kept(machine: SlubMachine, cache: int) -> None:
    for number in range(20):
        kmem_cache_free(machine.state, cache, number << PAGE_SHIFT)
    assert nr_reports(machine.state) == 20
    assert [line.split(":")[1] for line in slab_reports(machine.state)] == [
        f" object 0x{number << PAGE_SHIFT:x}" for number in range(4, 20)
    ]


def test_shrink_and_destroy_look_at_every_object(machine: SlubMachine, cache: int) -> None:
    objects = machine.take(cache, 3)
    machine.free(cache, *objects)
    write_slab_bytes(machine.state, objects[1], 4, 0x41)
    assert kmem_cache_shrink(machine.state, cache) == 1
    assert last_report(machine).startswith(f"test: object 0x{objects[1]:x}: written to after it was freed")
    assert kmem_cache_destroy(machine.state, cache) == 0
    assert last_report(machine).startswith(f"no cache: object 0x{objects[1]:x}")
    machine.check()


def test_bytes_are_written_up_to_the_end_of_the_slabs(machine: SlubMachine, cache: int) -> None:
    paddr = machine.alloc(cache)
    rest = 4096 - (paddr & 4095)
    assert write_slab_bytes(machine.state, paddr, 1 << 20, 0) == rest
    assert write_slab_bytes(machine.state, -8, 8, 0) == 0
