"""``pagefleet check``: run a real kernel's recording on a simulated machine and compare every watched counter.

A recording (tests/golden/*.json.gz) has the machine, the workload program, and what the counters were at each snapshot
in three runs: a bare number was the same in all of them and has to be equal; ``[min, median, max]`` varied, and is met
within that range widened by its own width or by 2 % of the median, whichever is more. Names that end in " (delta)" are
changes since the previous snapshot.

    load       node/golden_file.py      the file
    prepare    node/golden_machine.py   the machine; node/program/program.py: the program. What is missing, by name
    run        node/golden_harness.py   what the recording's own processes cost; golden_layout.py: its free blocks
    compare    here; node/check_partial.py: of which cases only a part
    tell       node/check_report.py     text or JSON; node/golden_write.py: our counters as a recording

Everything that can be wrong with the input is found for all recordings before the first is run.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from node.check_partial import PartialCase, partial_case
from node.golden_file import Golden, GoldenError, load_golden
from node.golden_harness import recorded_in
from node.golden_layout import LayoutError
from node.golden_machine import machine_of, unmodelled_settings, warnings_of
from node.golden_write import value_of, workload_of, written_golden
from node.machine import Machine
from node.program.program import Program
from node.program.run import NotModelled
from node.program.text import ProgramError
from node.spec import MachineSpec

MEDIAN_SHARE: Final = 50  # a fiftieth: 2 %


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
    not_modelled: tuple[str, ...] = ()  # names of all that is missing
    partial: PartialCase | None = None  # if only a part was compared
    warnings: tuple[str, ...] = ()  # in what the machines differ

    @property
    def passed(self) -> bool:
        """Whether every counter is as recorded; a case that is not modelled did not pass."""
        return not self.not_modelled and all(row.verdict in (*GOOD, Verdict.KNOWN_OFF) for row in self.rows)

    def summary(self) -> str:
        """Return ``exact E/E' (of them non-zero N/N'), in range R/R'``."""
        return summarise(self.rows)


def summarise(rows: Sequence[Row]) -> str:
    """Return the counts of exact and in-range counters over ``rows``."""
    bare = [row for row in rows if isinstance(row.kernel, int)]
    non_zero = [row for row in bare if row.kernel]
    ranges = [row for row in rows if not isinstance(row.kernel, int)]

    def good(some: list[Row]) -> str:
        return f"{sum(row.verdict in GOOD for row in some)}/{len(some)}"

    return f"exact {good(bare)} (of them non-zero {good(non_zero)}), in range {good(ranges)}"


@dataclass(frozen=True, slots=True)
class Case:
    """A recording, read and found right: what runs it."""

    path: Path
    name: str
    golden: Golden
    partial: PartialCase | None
    spec: MachineSpec
    program: Program | None  # None: not modelled
    not_modelled: tuple[str, ...]


def prepare(path: Path) -> Case:
    """Read a recording, its machine and its program. Raises ``GoldenError``, in one line, for what is wrong."""
    golden = load_golden(path)
    name = str(golden.get("name", path.name.removesuffix(".gz").removesuffix(".json")))
    try:
        partial = partial_case(path, name, [snapshot["name"] for snapshot in golden["snapshots"]])
        passed_over, up_to = (partial.passed_over, partial.up_to) if partial else ((), "")
        spec = machine_of(golden)
        missing = unmodelled_settings(golden)
        program = None
        try:
            program = Program("\n".join(golden["workload"]), pass_over=tuple(passed_over), up_to=up_to)
        except NotModelled as error:
            missing += error.names
    except (AttributeError, TypeError) as error:
        raise GoldenError(f"{path}: not a recording: {error}") from None
    except ValueError as error:  # a ProgramError too
        raise GoldenError(f"{path}: {error}") from None
    return Case(path, name, golden, partial, spec, None if missing else program, tuple(missing))


def run_case(case: Case) -> tuple[CaseResult, Golden]:
    """Run a prepared case; return how it compares, and our counters as a recording.

    Raises ``GoldenError`` if the workload turns out to be wrong, or does not fit into the machine.
    """
    if case.program is None:
        return CaseResult(case.name, (), case.not_modelled), {}
    golden = case.golden
    try:
        machine = Machine(case.spec)
        warnings = warnings_of(golden, machine.state)
        result = case.program.run(machine.state, recorded_in(golden))
    except NotModelled as error:
        return CaseResult(case.name, (), error.names), {}
    except KeyError as error:
        raise GoldenError(f"{case.path}: not a recording: it lacks {error}") from None
    except (ProgramError, LayoutError, ValueError) as error:
        raise GoldenError(f"{case.path}: {error}") from None
    ours = [name for name, _ in result.snapshots]
    recorded = [snapshot["name"] for snapshot in golden["snapshots"]]
    if ours != (recorded[: len(ours)] if case.partial and case.partial.up_to else recorded):
        raise GoldenError(f"{case.path}: its snapshots are not those of its workload")
    rows = tuple(_compare(golden["snapshots"][: len(ours)], result.snapshots, case.partial))
    written = written_golden(golden, machine.state, result.snapshots)
    if case.partial:
        written["workload"] = workload_of(case.program.commands())
    return CaseResult(case.name, rows, (), case.partial, tuple(warnings)), written


def check_golden(path: Path) -> CaseResult:
    """Run one recording's workload and compare. Raises ``GoldenError`` if the recording itself is wrong."""
    return run_case(prepare(path))[0]


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
                value = value_of(counter, values, previous)
                verdict = verdict_of(kernel, value, slack)
                if verdict not in GOOD and partial is not None and partial.is_known_off(name, counter):
                    verdict = Verdict.KNOWN_OFF
                yield Row(name, counter, kernel, value, verdict)
        previous = values


def verdict_of(kernel: int | list[int], ours: int | None, slack: int | None = None) -> Verdict:
    """Return how our value compares with a recorded number or range; ``slack``: by how much it may be off."""
    if ours is None:
        return Verdict.MISSING
    if isinstance(kernel, int):
        if ours == kernel or not slack:
            return Verdict.EXACT if ours == kernel else Verdict.WRONG
        return Verdict.IN_RANGE if abs(ours - kernel) <= slack else Verdict.OUT_OF_RANGE
    low, median, high = kernel
    if slack is None:
        slack = max(high - low, abs(median) // MEDIAN_SHARE)
    return Verdict.IN_RANGE if low - slack <= ours <= high + slack else Verdict.OUT_OF_RANGE


__all__ = [
    "GOOD",
    "Case",
    "CaseResult",
    "GoldenError",
    "Row",
    "Verdict",
    "check_golden",
    "load_golden",
    "prepare",
    "run_case",
    "summarise",
    "verdict_of",
]
