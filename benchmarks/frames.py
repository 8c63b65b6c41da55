"""Benchmarks of the page allocator: single frames through a CPU's lists, and straight through the zone.

The pairs through the zone are the dearest there are: where everything is free, each allocation splits a block of
1024 frames ten times, and each free merges it again. So a mixture is measured beside them: one of some thousand
frames, drawn, is given back and another taken, and the buddy system is as split as it then becomes.
"""

import functools
from typing import Final

from benchmarks.kernels import frame_pairs, frames_mixed, zone_pairs
from benchmarks.registry import Benchmark
from node.build import build_state
from node.phys.zone import ZoneId
from node.spec import MachineSpec
from node.state import State
from shared.constants import MIB

MEMORY_BYTES: Final = 512 * MIB
PAIRS: Final = 8_000_000
ZONE_PAIRS: Final = 1_000_000
NR_LIVE: Final = 8192  # frames held at a time, a power of two


def booted() -> State:
    """Return a machine that has just booted."""
    return build_state(MachineSpec(memory_bytes=MEMORY_BYTES))


def _pairs(count: int, _state: State) -> tuple[int, ...]:
    return (count,)


def _zone_pairs(count: int, _state: State) -> tuple[int, ...]:
    return ZoneId.DMA32, count


def _mixed(nr_live: int, count: int, _state: State) -> tuple[int, ...]:
    return nr_live, count


def suite(*, pairs: int, through_zone: int, nr_live: int) -> tuple[Benchmark, ...]:
    """Return the benchmarks with these numbers of pairs of an allocation and a free, and of frames held."""
    return (
        Benchmark(
            name="frames through a CPU's lists",
            operations=pairs,
            target_per_s=40e6,
            prepare=booted,
            entry=frame_pairs,
            arguments=functools.partial(_pairs, pairs),
        ),
        Benchmark(
            name="frames through the zone, 10 splits",
            operations=through_zone,
            target_per_s=12e6,
            prepare=booted,
            entry=zone_pairs,
            arguments=functools.partial(_zone_pairs, through_zone),
        ),
        Benchmark(
            name="frames through the zone, mixed",
            operations=through_zone,
            target_per_s=12e6,
            prepare=booted,
            entry=frames_mixed,
            arguments=functools.partial(_mixed, nr_live, through_zone),
        ),
    )


BENCHMARKS: Final = suite(pairs=PAIRS, through_zone=ZONE_PAIRS, nr_live=NR_LIVE)
