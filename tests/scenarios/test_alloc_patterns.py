"""Generated allocation traces: a function of their key, as long as asked for, with the lives that their file says."""

import numpy as np
import pytest

from scenarios.alloc_events import Demand, Draws
from scenarios.alloc_page_tables import MEAN_OBJECTS
from scenarios.alloc_patterns import DEFAULT_LIVE, PATTERNS, generate
from shared.alloc_kind import AllocKind, AllocOp
from shared.alloc_traces import AllocTrace
from shared.gfp_flags import GFP_ATOMIC, GFP_HIGHUSER_MOVABLE
from shared.streams import Purpose, Stream

CPUS = (0, 2, 5)
NR_EVENTS = 40_000
LIVE = 1500


def made(pattern: str, seed: int = 1, machine: int = 0, process: int = 0) -> AllocTrace:
    return generate(pattern, Demand(NR_EVENTS, CPUS, LIVE), Draws(seed, machine, process))


def alive(trace: AllocTrace) -> np.ndarray:
    return np.cumsum(np.where(trace.op == AllocOp.ALLOC, 1, -1))


def same(one: AllocTrace, other: AllocTrace) -> bool:
    return all(
        np.array_equal(getattr(one, name), getattr(other, name))
        for name in ("cpu", "op", "kind", "size", "gfp", "number")
    )


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_trace_is_a_function_of_its_key(pattern: str) -> None:
    trace = made(pattern)
    assert same(trace, made(pattern))
    others = [made(pattern, seed=2), made(pattern, machine=1), made(pattern, process=1)]
    assert not any(same(trace, other) for other in others)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_trace_is_as_long_as_asked_for_and_on_its_cpus(pattern: str) -> None:
    trace = made(pattern)
    assert trace.nr_events == NR_EVENTS
    assert trace.cpus == list(CPUS)
    assert set(DEFAULT_LIVE) == set(PATTERNS)
    for nr_events in (1, 2, 17):
        short = generate(pattern, Demand(nr_events, CPUS, LIVE), Draws(1, 0, 0))
        assert short.nr_events == nr_events


@pytest.mark.parametrize("pattern", PATTERNS)
def test_as_many_objects_live_as_asked_for(pattern: str) -> None:
    # What lives longest, fifty times as long as the rest, takes so long to get going.
    trace = generate(pattern, Demand(400 * LIVE, CPUS, LIVE), Draws(1, 0, 0))
    settled = alive(trace)[200 * LIVE :]
    assert settled.mean() == pytest.approx(LIVE, rel=0.15)
    assert alive(trace).min() >= 0


def test_draws_are_those_of_the_projects_generator() -> None:
    stream = Stream(3, 4, Purpose.ALLOCATION)
    assert Draws(3, 4, 0).below(1000, 9).tolist() == [(stream.word() >> 32) * 1000 >> 32 for _ in range(9)]


def test_lifetimes_have_their_mean_and_a_tail() -> None:
    lifetimes = Draws(1, 0, 0).lifetimes(1000, 100_000)
    assert lifetimes.mean() == pytest.approx(1000, rel=0.02)
    assert np.median(lifetimes) == pytest.approx(693, rel=0.03)
    assert lifetimes.max() > 5000


def test_short_lived_objects_stay_on_their_cpu() -> None:
    trace = made("short-lived")
    cpus = trace.cpu[np.argsort(trace.number, kind="stable")]
    numbers = np.sort(trace.number, kind="stable")
    assert (cpus[1:] == cpus[:-1])[numbers[1:] == numbers[:-1]].all()


def test_producers_allocate_and_consumers_free() -> None:
    trace = made("producer-consumer")
    is_free = trace.op == AllocOp.FREE
    assert set(trace.cpu[~is_free].tolist()) == {0}
    assert set(trace.cpu[is_free].tolist()) == {2, 5}
    assert trace.number[is_free].tolist() == sorted(trace.number[is_free].tolist())
    with pytest.raises(ValueError, match=r"^cpus: \[3\]: producers and consumers need two$"):
        generate("producer-consumer", Demand(100, (3,), 10), Draws(1, 0, 0))


def test_packets_come_in_bursts_of_a_head_and_data() -> None:
    trace = made("network")
    is_alloc = trace.op == AllocOp.ALLOC
    assert (trace.gfp & GFP_ATOMIC == GFP_ATOMIC).all()
    heads = np.count_nonzero(is_alloc & (trace.kind == AllocKind.OBJECT))
    data = np.count_nonzero(is_alloc & (trace.kind == AllocKind.KMALLOC))
    blocks = np.count_nonzero(is_alloc & (trace.kind == AllocKind.FRAMES))
    assert heads == pytest.approx(data, abs=64)
    assert heads / blocks == pytest.approx(16, rel=0.05)
    assert set(trace.size[trace.kind == AllocKind.FRAMES].tolist()) == {3}


def test_a_process_takes_and_gives_back_all_it_needs_at_once() -> None:
    trace = made("page-tables")
    switches = np.count_nonzero(np.diff(trace.op))
    assert NR_EVENTS / (switches + 1) > MEAN_OBJECTS / 2
    assert set(np.unique(trace.kind).tolist()) == {AllocKind.OBJECT, AllocKind.FRAMES, AllocKind.VMALLOC}
    tasks = np.count_nonzero(trace.size[trace.op == AllocOp.ALLOC] == 9536)
    assert trace.nr_allocations / tasks == pytest.approx(MEAN_OBJECTS, rel=0.1)


def test_what_cannot_move_lives_longest() -> None:
    trace = made("fragmenting")
    born = np.flatnonzero(trace.op == AllocOp.ALLOC)
    died = np.full(trace.nr_allocations, NR_EVENTS)
    died[trace.number[trace.op == AllocOp.FREE]] = np.flatnonzero(trace.op == AllocOp.FREE)
    life = died - born
    movable = trace.gfp[born] & GFP_HIGHUSER_MOVABLE == GFP_HIGHUSER_MOVABLE
    early = born < NR_EVENTS // 2
    assert life[~movable & early].mean() > 4 * life[movable & early].mean()
    assert np.count_nonzero(~movable) / len(born) == pytest.approx(1 / 32, rel=0.1)
