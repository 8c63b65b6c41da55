"""What this machine's own kernel takes for what the simulated one does, and by which factor ours takes less.

A small C program (c/own_kernel.c), compiled on the spot, touches, forks, writes after the fork and unmaps 1 GiB of
anonymous memory in 4 KiB pages. Of its runs the first is thrown away: in a virtual machine, the host finds memory
then. Of the rest the median counts, in CPU time, as in the benchmarks beside it.

The two do not do the same work: the kernel clears and copies pages, and enters itself by a real fault, while ours
keeps counters, TLBs and a clock. The factor says how much longer a run of the real thing would take.
"""

import os
import subprocess
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Final

from benchmarks.measure import NS_PER_S, Result
from benchmarks.registry import Benchmark
from benchmarks.twin import SOURCES, find_gcc
from shared.constants import KIB, MIB

TARGET_FACTOR: Final = 5.0
NR_PAGES: Final = 1 << 18
NR_RUNS: Final = 5
SIDES: Final = 2  # after the fork, the parent's copies are a second time as much
MEMINFO: Final = Path("/proc/meminfo")


class OwnKernelError(Exception):
    """The program could not do its work."""


@dataclass(frozen=True)
class Comparison:
    """Pages per second of CPU time: simulated, and by this machine's own kernel."""

    name: str
    ours_per_s: float
    kernel_per_s: float

    @property
    def factor(self) -> float:
        """By how much longer this machine's kernel takes."""
        return self.ours_per_s / self.kernel_per_s

    @property
    def reached(self) -> bool:
        """Whether it takes so much longer as it should."""
        return self.factor >= TARGET_FACTOR


def compare_with_own_kernel(benchmarks: Sequence[Benchmark], results: Sequence[Result]) -> list[Comparison]:
    """Compare those results whose benchmark says what the kernel calls it; time nothing if there is none.

    If there are several, the last comparison is of a page that goes through all of them, one after another.
    """
    wanted = [
        (benchmark.own_kernel, result)
        for benchmark, result in zip(benchmarks, results, strict=True)
        if benchmark.own_kernel
    ]
    if not wanted:
        return []
    rates = own_kernel_rates(NR_PAGES, NR_RUNS)
    compared = [Comparison(result.name, result.ours_per_s, rates[operation]) for operation, result in wanted]
    return [*compared, in_a_row(compared)] if len(compared) > 1 else compared


def in_a_row(compared: Sequence[Comparison]) -> Comparison:
    """Return how many pages a second go through all of the operations: their times add up."""
    ours_s = sum(1 / each.ours_per_s for each in compared)
    kernel_s = sum(1 / each.kernel_per_s for each in compared)
    return Comparison("these, one after another", 1 / ours_s, 1 / kernel_s)


def own_kernel_rates(nr_pages: int, nr_runs: int) -> dict[str, float]:
    """Return how many pages a second of CPU time each operation of c/own_kernel.c does: medians over the runs.

    Raises NoCompilerError without gcc, OwnKernelError if there is too little memory.
    """
    needed = SIDES * nr_pages * os.sysconf("SC_PAGE_SIZE")
    available = available_bytes()
    if available < needed:
        raise OwnKernelError(
            f"it takes {needed // MIB:,} MiB of memory, and {available // MIB:,} are available"
        )
    runs = defaultdict(list)
    for line in _run(nr_pages, 1 + nr_runs).splitlines():
        name, pages, spent_ns = line.split()
        runs[name].append(int(pages) * NS_PER_S / int(spent_ns))
    return {name: median(rates[1:]) for name, rates in runs.items()}


def available_bytes() -> int:
    """Return how much memory a process can get without swapping."""
    lines = MEMINFO.read_text().splitlines()
    return next(int(line.split()[1]) * KIB for line in lines if line.startswith("MemAvailable:"))


def _run(nr_pages: int, nr_runs: int) -> str:
    with tempfile.TemporaryDirectory(prefix="pagefleet-own-kernel-") as folder:
        program = Path(folder) / "own_kernel"
        subprocess.run(
            [find_gcc(), "-O2", "-Wall", "-Wextra", str(SOURCES / "own_kernel.c"), "-o", str(program)],
            check=True,
        )
        done = subprocess.run(
            [str(program), str(nr_pages), str(nr_runs)], capture_output=True, text=True, check=False
        )
    if done.returncode:
        raise OwnKernelError(done.stderr.strip() or f"it ended with status {done.returncode}")
    return done.stdout
