"""Allocation traces on machines: what they leave, count and cost, on every allocator, and that they go on exactly."""

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from node.alloc_trace import EMPTY, LEAD, AllocStat
from node.alloc_trace_check import check_alloc_traces, objects_alive
from node.machine import Machine
from node.phys.page import PageFlag
from node.spec import MachineSpec, WorkSpec
from scenarios.alloc_events import Demand, Draws
from scenarios.alloc_patterns import PATTERNS, generate
from shared.alloc_kind import AllocKind, AllocOp
from shared.alloc_traces import AllocTrace
from shared.constants import MIB, PAGE_SIZE
from shared.gfp_flags import GFP_ATOMIC, GFP_KERNEL
from tests.models.allocation_trace import AllocationModel, Row, rows_of_traces, trace_of_rows

pytestmark = pytest.mark.three_ways

ALLOCATORS = ("slub", "slab", "slob")
LONG_NS = 10**9
EXAMPLES = 10  # each builds a machine
ALLOC, FREE = int(AllocOp.ALLOC), int(AllocOp.FREE)
KMALLOC, OBJECT, FRAMES, VMALLOC = (int(kind) for kind in AllocKind)


def machine(*traces: AllocTrace, loops: int = 1, think_ns: int = 0, **fields: Any) -> Machine:
    works = tuple(WorkSpec(allocations=trace, loops=loops, think_ns=think_ns) for trace in traces)
    spec: dict[str, Any] = {"memory_bytes": 72 * MIB, "cpus": 2, "works": works} | fields
    return Machine(MachineSpec(**spec))


def run(of: Machine, ns: int = LONG_NS) -> dict[str, int]:
    of.run_until(ns)
    of.audit([])
    return of.counters()


@pytest.mark.parametrize("allocator", ALLOCATORS)
@settings(max_examples=EXAMPLES)
@given(rows=rows_of_traces())
def test_what_lives_at_the_end_is_what_the_trace_left(allocator: str, rows: list[Row]) -> None:
    replayed = machine(trace_of_rows(rows), allocator=allocator)
    counters = run(replayed)
    model = AllocationModel()
    model.replay(rows)
    assert replayed.finished
    assert counters["alloc_failures"] == counters["alloc_free_refused"] == 0
    assert (counters["alloc_count"], counters["alloc_free_count"]) == (model.nr_allocated, model.nr_freed)
    assert counters["operations"] == len(rows)
    assert counters["alloc_asked_bytes"] == model.asked_bytes <= counters["alloc_taken_bytes"]
    alive = objects_alive(replayed.state)
    assert sorted(zip(alive.kind.tolist(), alive.size.tolist(), strict=True)) == sorted(model.alive.values())
    spans = sorted(
        (address << 12 if kind == FRAMES else address, taken)
        for address, taken, kind in zip(
            alive.address.tolist(), alive.taken.tolist(), alive.kind.tolist(), strict=True
        )
    )
    for (start, taken), (following, _) in itertools.pairwise(spans):
        assert start + taken <= following  # no byte is given twice


@pytest.mark.parametrize("allocator", ALLOCATORS)
@settings(max_examples=EXAMPLES)
@given(rows=rows_of_traces())
def test_a_trace_that_is_replayed_again_frees_all_and_leaves_nothing(allocator: str, rows: list[Row]) -> None:
    trace = trace_of_rows(rows)
    counters = run(machine(trace, allocator=allocator, loops=3))
    assert counters["alloc_count"] == counters["alloc_free_count"] == 3 * trace.nr_allocations
    assert counters["alloc_asked_bytes"] == counters["alloc_taken_bytes"] == 0


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("allocator", ALLOCATORS)
def test_every_pattern_runs_on_every_allocator(pattern: str, allocator: str) -> None:
    trace = generate(pattern, Demand(1500, (0, 1), 200), Draws(1, 0, 0))
    counters = run(machine(trace, allocator=allocator))
    assert counters["alloc_count"] + counters["alloc_free_count"] == 1500
    assert counters["alloc_failures"] == 0
    on_objects = np.count_nonzero((trace.kind == KMALLOC) | (trace.kind == OBJECT))
    ways = sum(value for name, value in counters.items() if name.split("_path_")[0] in {"alloc", "free"})
    assert ways == on_objects
    assert counters["alloc_cycles"] > 0 or pattern in {"fragmenting", "checkerboard"}  # frames cost nothing
    assert counters["alloc_held_bytes"] >= counters["alloc_taken_bytes"]


# --- time and order -------------------------------------------------------------------------------------


def test_a_cpu_waits_for_what_another_allocates() -> None:
    slow = [(0, ALLOC, KMALLOC, 64, GFP_KERNEL, number) for number in range(50)]
    rows = [*slow, (1, FREE, 0, 0, 0, 49)]
    replayed = machine(trace_of_rows(rows), think_ns=10_000)
    replayed.run_until(400_000)
    assert replayed.state.alloc_stat[AllocStat.FREED] == 0
    counters = run(replayed)
    assert counters["alloc_free_count"] == 1
    assert counters["alloc_wait_ns"] > 400_000


def test_no_cpu_runs_far_ahead_of_another() -> None:
    trace = generate("producer-consumer", Demand(6000, (0, 1), 100), Draws(1, 0, 0))
    replayed = machine(trace, think_ns=100)
    most = 0
    for step in range(1, 60):
        replayed.run_until(step * 10_000)
        stat = replayed.state.alloc_stat
        most = max(most, int(stat[AllocStat.ALLOCATED] - stat[AllocStat.FREED]))
    assert 0 < most <= 100 + LEAD + 16


def test_the_callers_time_is_not_the_allocators() -> None:
    rows = [(0, ALLOC, FRAMES, 0, GFP_KERNEL, number) for number in range(20)]
    fast, slow = (machine(trace_of_rows(rows), think_ns=think_ns) for think_ns in (0, 1000))
    assert run(fast)["alloc_cycles"] == run(slow)["alloc_cycles"]
    replayed = machine(trace_of_rows(rows), think_ns=1000)
    replayed.run_until(10_500)
    assert 9 <= replayed.state.work[0].counter <= 11


def test_traces_and_processes_share_a_machine() -> None:
    trace = generate("short-lived", Demand(2000, (0, 1), 100), Draws(1, 0, 0))
    toucher = WorkSpec(workload="sequential", memory_bytes=MIB, operations=2000, write_percent=100)
    works = (toucher, WorkSpec(allocations=trace), toucher, WorkSpec(allocations=trace, loops=2))
    both = machine(works=works)
    counters = run(both)
    assert both.finished
    assert [int(work["counter"]) for work in np.asarray(both.state.work)[[0, 2]]] == [2000, 2000]
    assert len(both.state.work) == 6
    assert counters["alloc_count"] == 3 * trace.nr_allocations
    assert both.state.mm[1].nr_anon == MIB // PAGE_SIZE


# --- failures -------------------------------------------------------------------------------------------


def test_an_allocation_that_fails_is_counted_and_not_freed() -> None:
    rows = [(0, ALLOC, FRAMES, 10, GFP_ATOMIC, number) for number in range(30)]
    rows += [(0, FREE, 0, 0, 0, number) for number in range(30)]
    replayed = machine(trace_of_rows(rows))
    counters = run(replayed)
    failed = counters["alloc_failures"]
    assert 0 < failed < 30
    assert counters["alloc_failed_order_10"] == counters["alloc_free_skipped"] == failed
    assert counters["alloc_free_count"] == 30 - failed
    assert counters["alloc_asked_bytes"] == counters["alloc_held_bytes"] == 0
    assert (np.asarray(replayed.state.alloc_object)["address"] == EMPTY).all()


@pytest.mark.parametrize("allocator", ALLOCATORS)
@pytest.mark.parametrize("kind", [KMALLOC, OBJECT, VMALLOC])
def test_a_machine_that_runs_out_of_memory_goes_on(kind: int, allocator: str) -> None:
    # Large blocks take most of it; what is left is asked for in pieces.
    rows = [(0, ALLOC, FRAMES, 9, GFP_ATOMIC, number) for number in range(30)]
    size = 30 * PAGE_SIZE if kind == VMALLOC else 4000
    rows += [(number % 2, ALLOC, kind, size, GFP_ATOMIC, number) for number in range(30, 1500)]
    replayed = machine(trace_of_rows(rows), allocator=allocator)
    counters = run(replayed)
    assert replayed.finished
    assert counters["alloc_failed_order_9"] > 0
    assert counters["alloc_failed_order_0"] > 0


# --- counters -------------------------------------------------------------------------------------------


def test_machines_without_such_traces_report_nothing_of_them() -> None:
    counters = Machine(MachineSpec(72 * MIB)).counters()
    assert not [name for name in counters if name.startswith(("alloc_c", "alloc_path", "buddy_", "slub."))]


def test_blocks_and_indices_are_reported_by_order() -> None:
    rows = [(0, ALLOC, FRAMES, 0, GFP_KERNEL, number) for number in range(100)]
    replayed = machine(trace_of_rows(rows))
    counters = run(replayed)
    free = sum(counters[f"buddy_order_{order}"] << order for order in range(11))
    assert free == int(replayed.state.zone["nr_free"].sum())
    for order in range(1, 11):
        assert 0 <= counters[f"unusable_order_{order}"] <= 1000
        assert -1000 <= counters[f"extfrag_order_{order}"] <= 1000


# --- going on -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("allocator", ALLOCATORS)
def test_a_machine_restored_in_the_middle_ends_as_one_that_went_on(allocator: str) -> None:
    traces = [generate(pattern, Demand(1200, (0, 1), 100), Draws(1, 0, 0)) for pattern in PATTERNS]
    fields: dict[str, Any] = {"allocator": allocator, "loops": 2}
    unbroken, broken = machine(*traces, **fields), machine(*traces, **fields)
    for until_ns in (30_000, 70_000, 110_000):
        unbroken.run_until(until_ns)
        broken.run_until(until_ns)
        assert not broken.finished
        kept = broken.snapshot()
        broken = machine(traces[0])
        broken.restore(kept)
    run(unbroken)
    run(broken)
    assert unbroken.finished
    assert broken.finished
    assert broken.digest() == unbroken.digest()


def test_epochs_change_nothing() -> None:
    trace = generate("network", Demand(3000, (0, 1), 200), Draws(1, 0, 0))
    whole, cut = machine(trace), machine(trace)
    whole.run_until(LONG_NS)
    for step in range(1, 11):
        cut.run_until(step * LONG_NS // 10)
    same = ("alloc_count", "alloc_free_count", "alloc_asked_bytes", "alloc_taken_bytes", "operations")
    one, other = whole.counters(), cut.counters()
    assert [one[name] for name in same] == [other[name] for name in same]


# --- what is refused, and what the check finds ------------------------------------------------------------


def test_a_trace_of_more_cpus_than_the_machine_has_is_refused() -> None:
    rows: list[Row] = [(2, ALLOC, KMALLOC, 64, GFP_KERNEL, 0)]
    with pytest.raises(
        ValueError, match=r"^processes\.0\.allocations: event 0: CPU 2, but the machine has 2 CPUs$"
    ):
        machine(trace_of_rows(rows))


def test_more_caches_than_there_is_room_for_are_refused() -> None:
    rows = [(0, ALLOC, OBJECT, 8 + 16 * number, GFP_KERNEL, number) for number in range(600)]
    with pytest.raises(
        ValueError, match=r"^processes\.0\.allocations: the machine has no room for a cache of "
    ):
        machine(trace_of_rows(rows))


@given(st.sampled_from([AllocStat.ASKED_BYTES, AllocStat.TAKEN_BYTES, AllocStat.FRAMES, AllocStat.FREED]))
@settings(max_examples=4)
def test_the_check_finds_a_wrong_count(which: AllocStat) -> None:
    replayed = machine(trace_of_rows([(0, ALLOC, FRAMES, 1, GFP_KERNEL, 0), (0, ALLOC, KMALLOC, 9, 0, 1)]))
    run(replayed)
    replayed.state.alloc_stat[which] += 1
    assert len(check_alloc_traces(replayed.state)) == 1


def test_the_check_finds_a_block_that_is_not_the_kernels() -> None:
    replayed = machine(trace_of_rows([(0, ALLOC, FRAMES, 1, GFP_KERNEL, 0)]))
    run(replayed)
    pfn = int(replayed.state.alloc_object[0].address)
    replayed.state.page[pfn].page_flags &= ~PageFlag.KERNEL
    assert check_alloc_traces(replayed.state) == [
        f"frame {pfn}: is held by an allocation trace, and not the kernel's"
    ]
