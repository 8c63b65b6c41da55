"""``python -m benchmarks.traces``: recorded programs on one processor, with pages of 4 KiB and of 2 MiB.

Each window of each trace runs twice on a machine of its own. The first time every page is faulted in; it
gives the rate of accesses. The second time nothing faults and the TLBs are warm; it gives the misses, the
kernel's own at the switch to the process included.

    L1 miss   accesses that the first level does not serve, in thousandths, of data and of instructions
    walk      accesses that no level serves, in millionths
"""

import argparse
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.program import Figure
from node.counters import HwEvent
from node.hw.processors import DEFAULT_PROCESSOR, PROCESSORS
from node.machine import Machine
from node.spec import MachineSpec, WorkSpec
from shared.constants import MIB

TRACES: Final = Path(__file__).resolve().parent.parent / "scenarios" / "data" / "traces"
PAGE_SIZES: Final = {"none": "4 KiB", "2M": "2 MiB"}
WINDOWS: Final = ((0,), (1,))
BOTH_WINDOWS: Final = (0, 1)
MEMORY_BYTES: Final = 256 * MIB
LONG_NS: Final = 10**12  # more simulated time than any window takes
MAX_NS_PER_ACCESS: Final = 50.0  # 20 M accesses a second
REPETITIONS: Final = 3
PER_THOUSAND: Final = 1e3
PER_MILLION: Final = 1e6
DATA: Final = (HwEvent.TLB_L1_HIT, HwEvent.TLB_L2_HIT, HwEvent.TLB_WALK)
INSTRUCTIONS: Final = (HwEvent.ITLB_L1_HIT, HwEvent.ITLB_L2_HIT, HwEvent.ITLB_WALK)


@dataclass(frozen=True)
class Replay:
    """One window of a trace, with pages of one size."""

    trace: str  # its file's name
    windows: tuple[int, ...]
    page_size: str
    accesses: int
    accesses_per_s: float  # of CPU time, faults included
    data: tuple[int, int, int]  # data accesses that the first level served, the second, and a walk; warm
    instructions: tuple[int, int, int]

    def line(self) -> str:
        """Return the row of the table."""
        window = "+".join(str(window) for window in self.windows)
        rates = "".join(
            f"{_share(served[1:], served) * PER_THOUSAND:10.2f}{_share(served[2:], served) * PER_MILLION:9.1f}"
            for served in (self.data, self.instructions)
        )
        speed = self.accesses_per_s / PER_MILLION
        return f"{self.trace:10}{window:>6}{self.page_size:>8}{self.accesses:11,}{speed:8.1f}{rates}"


HEAD: Final = (
    f"{'':35}{'M acc./s':>8}{'data':>10}{'':9}{'instr.':>10}\n"
    f"{'trace':10}{'window':>6}{'pages':>8}{'accesses':>11}{'':8}"
    f"{'L1 miss':>10}{'walk':>9}{'L1 miss':>10}{'walk':>9}"
)


def _share(part: tuple[int, ...], of: tuple[int, ...]) -> float:
    return sum(part) / max(sum(of), 1)


def replay(
    path: Path, windows: tuple[int, ...], huge_pages: str = "none", processor: str = DEFAULT_PROCESSOR.name
) -> Replay:
    """Run windows of a trace, twice."""
    work = WorkSpec(trace=str(path), windows=windows, huge_pages=huge_pages)
    machine = Machine(MachineSpec(MEMORY_BYTES, works=(work,)).with_hw(processor=processor))
    begin = time.thread_time()
    machine.run_until(LONG_NS)
    spent_s = time.thread_time() - begin
    cold = _served(machine)
    accesses = int(machine.state.work[0].counter)
    machine.state.work[0].operations = 2 * accesses
    machine.run_until(2 * LONG_NS)
    data, instructions = (
        (after[0] - before[0], after[1] - before[1], after[2] - before[2])
        for before, after in zip(cold, _served(machine), strict=True)
    )
    return Replay(
        path.stem, windows, PAGE_SIZES[huge_pages], accesses, accesses / spent_s, data, instructions
    )


def _served(machine: Machine) -> list[list[int]]:
    return [[int(machine.state.hw_event[event]) for event in events] for events in (DATA, INSTRUCTIONS)]


def replays(processor: str) -> Iterator[Replay]:
    """Yield every window of every trace, with both sizes of page."""
    yield from (
        replay(path, windows, huge_pages, processor)
        for path in sorted(TRACES.glob("*.npz"))
        for windows in WINDOWS
        for huge_pages in PAGE_SIZES
    )


def trace_figures() -> list[Figure]:
    """Return what an access costs over both windows of a trace, 4 million accesses, the best of a few runs."""
    found = []
    for path in sorted(TRACES.glob("*.npz")):
        rate = max(replay(path, BOTH_WINDOWS).accesses_per_s for _ in range(REPETITIONS))
        found.append(Figure(f"replaying {path.stem}", 1e9 / rate, MAX_NS_PER_ACCESS, "ns an access"))
    return found


def main() -> None:
    """Print the table, and how fast traces are replayed."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.traces", description="TLB misses of recorded programs, by size of page."
    )
    parser.add_argument(
        "--processor",
        choices=[name for name in PROCESSORS if name != "r3000"],
        default=DEFAULT_PROCESSOR.name,
    )
    processor = parser.parse_args().processor
    replay(TRACES / "sort.npz", WINDOWS[0])  # compiles
    print(HEAD)
    for one in replays(processor):
        print(one.line(), flush=True)
    for figure in trace_figures():
        mark = "" if figure.reached else "  <- missed"
        print(f"{figure.name:24}{figure.value:8.1f} of {figure.limit:8.1f} {figure.unit}{mark}")


if __name__ == "__main__":
    main()
