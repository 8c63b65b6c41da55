"""What ``pagefleet check`` tells: every recording's verdict as text or JSON, and our counters written beside.

ksm_cow: exact 184/184 (of them non-zero 105/105), in range 0/0
mlock: partial (the rest needs reclaim): exact 160/161 (of them non-zero 120/121), in range 0/0
  up to file_mlocked
  without cg.*: memory cgroups come with reclaim
  map_locked       vmstat.nr_mlock                      kernel                 4534  ours       4022  WRONG
zswap: not modelled yet: zswap enabled=1, madvise pageout
in all: exact 344/345 (of them non-zero 265/266), in range 0/0; 1 case not modelled, not counted
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from node.check import GOOD, Case, CaseResult, Row, prepare, run_case, summarise
from node.golden_file import GoldenError, save_golden


@dataclass(frozen=True, slots=True)
class Telling:
    """How verdicts are told, and where our counters go."""

    json: bool = False
    verbose: bool = False  # every counter, not only those that are off
    folder: Path | None = None  # for our counters, as recordings


def check_files(paths: Sequence[Path], write: Callable[[str], object], telling: Telling) -> int:
    """Check recordings and write the verdicts; return 0 if all modelled ones passed, 1 if any is off or none was.

    Raises ``GoldenError`` before anything is written if a recording or the folder cannot be used.
    """
    cases = [prepare(path) for path in paths]
    places = _places(cases, telling.folder)
    results = []
    for case, place in zip(cases, places, strict=True):
        result, ours = run_case(case)
        results.append(result)
        if place is not None and ours:
            save_golden(place, ours)
        if not telling.json:
            write(report_of(result, verbose=telling.verbose))
    rows = [row for result in results for row in result.rows]
    if telling.json:
        write(as_json(results) + "\n")
    else:
        write(f"in all: {summarise(rows)}{_not_counted(results)}\n")
    off = any(not result.passed and not result.not_modelled for result in results)
    return 1 if off or not rows else 0


def _not_counted(results: list[CaseResult]) -> str:
    number = sum(bool(result.not_modelled) for result in results)
    return f"; {number} case{'s' * (number > 1)} not modelled, not counted" if number else ""


def _places(cases: list[Case], folder: Path | None) -> list[Path | None]:
    """Return where each case's counters go; make the folder."""
    if folder is None:
        return [None] * len(cases)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise GoldenError(f"{folder}: {error.strerror or error}") from None
    places: list[Path | None] = []
    for case in cases:
        place = folder / f"{case.path.name.removesuffix('.gz').removesuffix('.json')}.json"
        if place in places:
            raise GoldenError(f"{place}: two recordings of this name")
        if any(place.resolve() == other.path.resolve() for other in cases):
            raise GoldenError(f"{place}: is itself checked, and would be written over")
        places.append(place)
    return places


def as_json(results: list[CaseResult]) -> str:
    """Return verdicts as JSON: one object a case."""
    return json.dumps([asdict(result) | {"passed": result.passed} for result in results], indent=1)


def report_of(result: CaseResult, *, verbose: bool = False) -> str:
    """Return a case's verdict as text: a line, and one for each counter that is off, or with ``verbose`` for each."""
    if result.not_modelled:
        return f"{result.case}: not modelled yet: {', '.join(result.not_modelled)}\n"
    part = f"partial ({result.partial.reason}): " if result.partial else ""
    lines = [f"{result.case}: {part}{result.summary()}"]
    lines += [f"  {detail}" for detail in (result.partial.details() if result.partial else ())]
    lines += [f"  warning: {warning}" for warning in result.warnings]
    lines += [_line(row) for row in result.rows if verbose or row.verdict not in GOOD]
    return "\n".join(lines) + "\n"


def _line(row: Row) -> str:
    ours = "-" if row.ours is None else row.ours
    return f"  {row.snapshot:<16} {row.counter:<36} kernel {_shown(row.kernel):>20}  ours {ours:>10}  {row.verdict}"


def _shown(kernel: int | list[int]) -> str:
    return str(kernel) if isinstance(kernel, int) else "..".join(map(str, kernel))
