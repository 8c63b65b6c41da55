"""``python -m benchmarks.allocators``: three object allocators on the same allocation traces.

Each pattern of scenarios/alloc_patterns.py that asks for objects runs on machines that differ in their allocator
alone. Memory is the mean over the second half of the run, when the trace has got going; the rest is of the whole run.

    held/asked   bytes of the frames that the objects are in, for each byte asked for
    cycles       mean of an allocation and a free, in cycles of the simulated machine
    fast ... grow  which way allocations and frees went, in percent (node/alloc_paths.py)
    locked       operations that took a lock or turned interrupts off, in percent
    M/s          events that were simulated a second of CPU time
"""

import argparse
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from node.alloc_paths import ALLOC_WAYS
from node.kalloc.choice import ALLOCATORS
from node.machine import Machine
from node.spec import MachineSpec, WorkSpec
from scenarios.alloc_events import Demand, Draws
from scenarios.alloc_patterns import DEFAULT_LIVE, generate
from shared.alloc_traces import AllocTrace
from shared.constants import MIB, NS_PER_MS
from shared.units import parse_count

PATTERNS: Final = (
    "short-lived",
    "producer-consumer",
    "network",
    "page-tables",
)  # fragmenting asks for frames alone
CPUS: Final = (0, 1)
MEMORY_BYTES: Final = 256 * MIB
SEED: Final = 1
OPERATIONS: Final = "1M"
SAMPLE_NS: Final = NS_PER_MS
LONG_NS: Final = 1000 * 1000 * SAMPLE_NS
PER_MILLION: Final = 1e6
PERCENT: Final = 100


@dataclass(frozen=True)
class Comparison:
    """One allocator on one trace."""

    pattern: str
    allocator: str
    held_per_asked: float
    cycles: float  # of an operation
    ways: dict[str, float]  # share of the operations on objects, by way
    locked: float  # share that took a lock or turned interrupts off
    failed: int
    events_per_s: float

    @property
    def slow(self) -> float:
        """Share of the operations that took a lock which CPUs share."""
        return self.ways["shared"] + self.ways["grow"]

    def line(self) -> str:
        """Return the row of the table."""
        ways = "".join(f"{self.ways[way] * PERCENT:8.2f}" for way in ALLOC_WAYS)
        return (
            f"{self.pattern:18}{self.allocator:10}{self.held_per_asked:11.3f}{self.cycles:8.0f}{ways}"
            f"{self.locked * PERCENT:8.2f}{self.events_per_s / PER_MILLION:7.1f}"
        )


HEAD: Final = (
    f"{'pattern':18}{'allocator':10}{'held/asked':>11}{'cycles':>8}"
    + "".join(f"{way:>8}" for way in ALLOC_WAYS)
    + f"{'locked':>8}{'M/s':>7}"
)


def trace_of(pattern: str, operations: int) -> AllocTrace:
    """Return the trace of a pattern on two CPUs."""
    return generate(pattern, Demand(operations, CPUS, DEFAULT_LIVE[pattern]), Draws(SEED, 0, 0))


def compare(trace: AllocTrace, allocator: str, sample_ns: int = SAMPLE_NS) -> Comparison:
    """Run a trace on a machine with an allocator, and look at its memory every ``sample_ns``."""
    machine = Machine(
        MachineSpec(MEMORY_BYTES, cpus=len(CPUS), allocator=allocator, works=(WorkSpec(allocations=trace),))
    )
    samples = []
    spent_s = 0.0
    end_ns = 0
    while not machine.finished and end_ns < LONG_NS:
        end_ns += sample_ns
        begin = time.thread_time()
        machine.run_until(end_ns)
        spent_s += time.thread_time() - begin
        counters = machine.counters()
        samples.append((counters["alloc_held_bytes"], counters["alloc_asked_bytes"]))
    half = samples[len(samples) // 2 :]
    ways = {way: counters[f"alloc_path_{way}"] + counters.get(f"free_path_{way}", 0) for way in ALLOC_WAYS}
    on_objects = max(sum(ways.values()), 1)
    lockless = counters["alloc_lockless"] + counters["free_lockless"]
    nr_operations = counters["alloc_count"] + counters["alloc_free_count"]
    return Comparison(
        trace.meta["pattern"],
        allocator,
        sum(held for held, _ in half) / max(sum(asked for _, asked in half), 1),
        (counters["alloc_cycles"] + counters["alloc_free_cycles"]) / nr_operations,
        {way: count / on_objects for way, count in ways.items()},
        1 - lockless / on_objects,
        counters["alloc_failures"],
        trace.nr_events / max(spent_s, 1 / PER_MILLION),
    )


def comparisons(operations: int) -> Iterator[Comparison]:
    """Yield every pattern with every allocator."""
    for pattern in PATTERNS:
        trace = trace_of(pattern, operations)
        yield from (compare(trace, allocator) for allocator in ALLOCATORS)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.allocators", description="Three object allocators on the same traces."
    )
    parser.add_argument(
        "--operations", default=OPERATIONS, metavar="N", help="events of a trace (default: 1M)"
    )
    operations = parse_count(parser.parse_args().operations)
    for allocator in ALLOCATORS:  # compiles
        compare(trace_of(PATTERNS[-1], len(CPUS) * MIB // 1024), allocator)
    print(HEAD)
    for one in comparisons(operations):
        print(one.line(), flush=True)


if __name__ == "__main__":
    main()
