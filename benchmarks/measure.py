"""Running a benchmark: ours and C in turn, so that a disturbance hits both, and the median of each."""

import time
from dataclasses import dataclass
from statistics import median
from typing import Final

import numpy as np

from benchmarks.registry import Benchmark
from benchmarks.twin import Twins
from node.phys.page import PageFlag
from node.state import State

REPETITIONS: Final = 7
TARGET_RATIO: Final = 0.8
NS_PER_S: Final = 1e9


class TwinDiffersError(Exception):
    """A twin computed something else than the kernel: they are not the same algorithm."""


@dataclass(frozen=True)
class Result:
    """Operations per second of CPU time, medians over the repetitions."""

    name: str
    ours_per_s: float
    c_per_s: float
    target_per_s: float

    @property
    def ratio(self) -> float:
        """Ours over C."""
        return self.ours_per_s / self.c_per_s

    @property
    def reached(self) -> bool:
        """Whether both the rate and the ratio are as good as they have to be."""
        return self.ours_per_s >= self.target_per_s and self.ratio >= TARGET_RATIO


def measure(benchmark: Benchmark, twins: Twins) -> Result:
    """Run a benchmark. Raises TwinDiffersError if the states or results of kernel and twin are not equal."""
    ours, c = benchmark.prepare(), benchmark.prepare()
    name = benchmark.entry.__name__
    rates: tuple[list[float], list[float]] = ([], [])
    for repetition in range(1 + REPETITIONS):
        results = []
        for state, rate, is_c in ((ours, rates[0], False), (c, rates[1], True)):
            benchmark.before(state)
            arguments = benchmark.arguments(state)
            begin = time.thread_time_ns()
            result = twins.call(name, state, *arguments) if is_c else benchmark.entry(state, *arguments)
            spent_ns = time.thread_time_ns() - begin
            benchmark.after(state)
            results.append(result)
            if repetition:  # the first one commits memory and compiles
                rate.append(benchmark.operations * NS_PER_S / spent_ns)
        if results[0] != results[1]:
            raise TwinDiffersError(f"{benchmark.name}: returns {results[0]}, its twin {results[1]}")
    _compare(benchmark.name, ours, c)
    return Result(benchmark.name, median(rates[0]), median(rates[1]), benchmark.target_per_s)


def _compare(name: str, ours: State, c: State) -> None:
    tables_of_c = dict(c.tables())
    in_use = np.flatnonzero(np.asarray(ours.page)["page_flags"] & PageFlag.PAGE_TABLE)
    for table, left in ours.tables():
        pair = (left, tables_of_c[table])
        if table == "pt_word":  # one word in hundreds is used
            pair = (
                pair[0].reshape(len(ours.page), -1)[in_use],
                pair[1].reshape(len(ours.page), -1)[in_use],
            )
        if pair[0].tobytes() != pair[1].tobytes():
            raise TwinDiffersError(f"{name}: table {table} is not as its twin leaves it")
