"""``pagefleet check``: run a real kernel's recording on a simulated machine and compare every watched counter.

A recording (tests/golden/*.json) has the machine, the workload program, and what the counters were at each
snapshot in three runs: a bare number was the same in all of them and has to be equal; ``[min, median, max]``
varied, and is met within that range widened by its own width or by 2 % of the median. Names that end in
" (delta)" are changes since the previous snapshot. Of some recordings only a part is compared
(node/check_partial.py). Where buddy lists are watched, the machine starts with the recording's free blocks.
"""

import gzip
import json as json_format
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from node.check_partial import PartialCase, partial_case
from node.golden_harness import harness_figures
from node.golden_layout import LayoutError, recorded_start
from node.machine import Machine
from node.program import NotModelled, Program
from node.program_text import ProgramError
from node.spec import MachineSpec, SwapSpec
from shared.units import parse_size

DELTA: Final = " (delta)"
MEDIAN_SHARE: Final = 50  # a fiftieth: 2 %
MAX_GOLDEN_BYTES: Final = 1 << 28
DEFAULT_MEMORY: Final = "512M"


class GoldenError(ValueError):
    """A recording that is missing or wrong, in one line."""


class Verdict(StrEnum):
    """How one counter of one snapshot compares."""

    EXACT = "exact"
    IN_RANGE = "in range"
    WRONG = "WRONG"
    OUT_OF_RANGE = "OUT OF RANGE"
    MISSING = "MISSING"
    KNOWN_OFF = "off, as listed"


GOOD: Final = frozenset({Verdict.EXACT, Verdict.IN_RANGE})


@dataclass(frozen=True, slots=True)
class Row:
    """One watched counter at one snapshot."""

    snapshot: str
    counter: str
    kernel: int | list[int]
    ours: int | None
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class CaseResult:
    """A recording's rows, or why it was not run."""

    case: str
    rows: tuple[Row, ...]
    not_modelled: str = ""
    partial: str = ""  # why only a part was compared, and which commands were passed over

    @property
    def passed(self) -> bool:
        """Whether every counter is as recorded; a case that is not modelled did not pass."""
        return not self.not_modelled and all(row.verdict in (*GOOD, Verdict.KNOWN_OFF) for row in self.rows)

    def summary(self) -> str:
        """Return ``exact E/E' (of them non-zero N/N'), in range R/R'``."""
        return summarise(self.rows)


def summarise(rows: "tuple[Row, ...] | list[Row]") -> str:
    """Return the counts of exact and in-range counters over ``rows``."""
    bare = [row for row in rows if isinstance(row.kernel, int)]
    non_zero = [row for row in bare if row.kernel]
    ranges = [row for row in rows if not isinstance(row.kernel, int)]

    def good(some: list[Row]) -> str:
        return f"{sum(row.verdict in GOOD for row in some)}/{len(some)}"

    return f"exact {good(bare)} (of them non-zero {good(non_zero)}), in range {good(ranges)}"


def load_golden(path: Path) -> dict[str, Any]:
    """Return a recording. Raises ``GoldenError`` if it cannot be read or lacks what a check needs."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_GOLDEN_BYTES)
        text = gzip.decompress(data) if path.suffix == ".gz" else data
        golden = json_format.loads(text)
    except OSError as error:
        raise GoldenError(f"{path}: {error.strerror or error}") from None
    except (EOFError, ValueError) as error:
        raise GoldenError(f"{path}: not a recording: {error}") from None
    if not isinstance(golden, dict) or not isinstance(golden.get("workload"), list):
        raise GoldenError(f"{path}: not a recording: it has no workload")
    if not isinstance(golden.get("snapshots"), list):
        raise GoldenError(f"{path}: not a recording: it has no snapshots")
    return golden


def machine_of(golden: dict[str, Any]) -> MachineSpec:
    """Return the machine that a recording describes."""
    header = golden.get("header", {})
    sysctl = golden.get("machine", {}).get("sysctl_vm", {})
    swap = header.get("swap", "none")
    if swap.startswith("zram"):
        raise NotModelled(f"swap: {swap} is not modelled yet")
    device = "hdd" if golden.get("machine", {}).get("swap_rotational", "1") != "0" else "ssd"
    for key, off in (("zswap", "off"), ("thp", "never")):
        if header.get(key, off) != off:
            raise NotModelled(f"{key}: {header[key]} is not modelled yet")
    return MachineSpec(
        memory_bytes=parse_size(header.get("mem", DEFAULT_MEMORY).replace("M", "MiB").replace("G", "GiB")),
        cpus=int(header.get("smp", "1")),
        min_free_kbytes=int(sysctl["min_free_kbytes"]) if "min_free_kbytes" in sysctl else None,
        watermark_scale_factor=int(sysctl.get("watermark_scale_factor", "10")),
        swappiness=int(sysctl.get("swappiness", "60")),
        page_cluster=int(sysctl.get("page-cluster", "3")),
        swap=None if swap == "none" else SwapSpec(parse_size(swap.split(":")[1] + "iB"), device),
    )


def check_golden(path: Path) -> CaseResult:
    """Run one recording's workload and compare. Raises ``GoldenError`` if the recording itself is wrong."""
    golden = load_golden(path)
    case = str(golden.get("name", path.stem))
    try:
        partial = partial_case(path, case)
        machine = Machine(machine_of(golden))
        program = Program("\n".join(golden["workload"]), in_part=partial is not None)
        figures = harness_figures(golden)
        result = program.run(machine.state, as_recorded=True, start=recorded_start(golden), figures=figures)
    except NotModelled as error:
        return CaseResult(case, (), str(error))
    except (ProgramError, LayoutError, KeyError, ValueError) as error:
        raise GoldenError(f"{path}: {error}") from None
    names = [snapshot.get("name") for snapshot in golden["snapshots"]]
    if names != [name for name, _ in result.snapshots]:
        raise GoldenError(f"{path}: its snapshots are not those of its workload")
    rows = tuple(_compare(golden["snapshots"], result.snapshots, partial))
    if partial is None:
        return CaseResult(case, rows)
    skipped = f"; without {', '.join(program.skipped)}" if program.skipped else ""
    return CaseResult(case, rows, partial=f"{partial.reason}{skipped}")


def _compare(
    recorded: list[dict[str, Any]],
    ours: list[tuple[str, dict[str, int]]],
    partial: PartialCase | None = None,
) -> Iterator[Row]:
    previous: dict[str, int] = {}
    for snapshot, (name, values) in zip(recorded, ours, strict=True):
        for counter, kernel in snapshot.get("key", {}).items():
            compared, slack = (True, None) if partial is None else partial.slack(name, counter)
            if compared:
                value = _value(counter, values, previous)
                verdict = _verdict(kernel, value, slack)
                if verdict not in GOOD and partial is not None and partial.is_known_off(name, counter):
                    verdict = Verdict.KNOWN_OFF
                yield Row(name, counter, kernel, value, verdict)
        previous = values


def _value(counter: str, values: dict[str, int], previous: dict[str, int]) -> int | None:
    if not counter.endswith(DELTA):
        return values.get(counter)
    name = counter.removesuffix(DELTA)
    # A process that was just made had no counters before.
    return values[name] - previous.get(name, 0) if name in values else None


def _verdict(kernel: int | list[int], ours: int | None, slack: int | None = None) -> Verdict:
    if ours is None:
        return Verdict.MISSING
    if isinstance(kernel, int):
        if ours == kernel or not slack:
            return Verdict.EXACT if ours == kernel else Verdict.WRONG
        return Verdict.IN_RANGE if abs(ours - kernel) <= slack else Verdict.OUT_OF_RANGE
    low, median, high = kernel
    if slack is None:
        slack = max(high - low, -(-abs(median) // MEDIAN_SHARE))
    return Verdict.IN_RANGE if low - slack <= ours <= high + slack else Verdict.OUT_OF_RANGE


def as_json(results: list[CaseResult]) -> str:
    """Return verdicts as JSON: one object a case."""
    return json_format.dumps([asdict(result) | {"passed": result.passed} for result in results], indent=1)


def check_files(paths: list[Path], write: Callable[[str], object], *, json: bool) -> int:
    """Check recordings and write the verdicts; return 0 if all passed, 1 if any is off or none was modelled.

    Raises ``GoldenError`` before anything is written if a recording cannot be read.
    """
    for path in paths:
        load_golden(path)
    results = []
    for path in paths:
        result = check_golden(path)
        results.append(result)
        if not json:
            write(_report(result))
    rows = [row for result in results for row in result.rows]
    if json:
        write(as_json(results) + "\n")
    else:
        write(f"in all: {summarise(rows)}\n")
    off = any(not result.passed and not result.not_modelled for result in results)
    return 1 if off or not rows else 0


def _report(result: CaseResult) -> str:
    if result.not_modelled:
        return f"{result.case}: not modelled yet: {result.not_modelled}\n"
    part = f"partial ({result.partial}): " if result.partial else ""
    lines = [f"{result.case}: {part}{result.summary()}"]
    lines += [
        f"  {row.snapshot:<16} {row.counter:<36} kernel {_shown(row.kernel):>20}  ours {row.ours!s:>10}  {row.verdict}"
        for row in result.rows
        if row.verdict not in GOOD
    ]
    return "\n".join(lines) + "\n"


def _shown(kernel: int | list[int]) -> str:
    return str(kernel) if isinstance(kernel, int) else "..".join(map(str, kernel))
