"""Three allocators on the same traces: what is known to be so is so."""

import pytest

from benchmarks.allocators import HEAD, Comparison, compare, trace_of
from node.alloc_paths import ALLOC_WAYS
from shared.constants import NS_PER_US

NR_EVENTS = 6000
SAMPLE_NS = 50 * NS_PER_US
SMALL_OBJECTS = ("short-lived", "producer-consumer")


@pytest.fixture(scope="module")
def compared() -> dict[tuple[str, str], Comparison]:
    found = {}
    for pattern in SMALL_OBJECTS:
        trace = trace_of(pattern, NR_EVENTS)
        for allocator in ("slub", "slab", "slob"):
            found[pattern, allocator] = compare(trace, allocator, SAMPLE_NS)
    return found


@pytest.mark.parametrize("pattern", SMALL_OBJECTS)
def test_slob_needs_the_least_memory(compared: dict[tuple[str, str], Comparison], pattern: str) -> None:
    held = {name: compared[pattern, name].held_per_asked for name in ("slub", "slab", "slob")}
    assert 1 < held["slob"] < min(held["slub"], held["slab"])


@pytest.mark.parametrize("pattern", SMALL_OBJECTS)
def test_slub_has_the_fewest_operations_with_a_lock_or_without_interrupts(
    compared: dict[tuple[str, str], Comparison], pattern: str
) -> None:
    locked = {name: compared[pattern, name].locked for name in ("slub", "slab", "slob")}
    assert locked["slub"] < 0.5
    assert locked["slab"] == locked["slob"] == 1


@pytest.mark.parametrize("pattern", SMALL_OBJECTS)
def test_only_slob_always_takes_a_lock_that_cpus_share(
    compared: dict[tuple[str, str], Comparison], pattern: str
) -> None:
    slow = {name: compared[pattern, name].slow for name in ("slub", "slab", "slob")}
    assert slow["slob"] == 1
    assert max(slow["slub"], slow["slab"]) < 0.1
    assert compared[pattern, "slob"].cycles > max(compared[pattern, name].cycles for name in ("slub", "slab"))


def test_the_ways_of_an_allocator_are_all_its_operations(
    compared: dict[tuple[str, str], Comparison],
) -> None:
    for one in compared.values():
        assert sum(one.ways.values()) == pytest.approx(1)
        assert set(one.ways) == set(ALLOC_WAYS)
        assert one.failed == 0
        assert len(one.line()) == len(HEAD)
