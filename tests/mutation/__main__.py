"""``python -m tests.mutation``: are the project's checks able to fail? Seeds faults, one at a time, and runs what
must see them.

    every killer on the source as it is       must be green
    every fault, in a scratch copy            its killer must turn red: killed; else: SURVIVED

Kernels run as plain Python: nothing is compiled for a line that lives a few seconds.

Exit status: 0 all killed; 1 some survived; 2 wrong usage, a line of the list that is not in the source exactly once,
or a killer that is red without a fault or gives no verdict; 130 SIGINT.
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from cluster.summary import print_tables
from tests.mutation.fault import Fault, StaleFaultError, seeded
from tests.mutation.faults import FAULTS
from tests.mutation.scratch import Outcome, Verdict, copy_tree, run_killer, run_seeded

ROOT: Final = Path(__file__).resolve().parent.parent.parent
SURVIVED: Final = 1
REFUSED: Final = 2
INTERRUPTED: Final = 130
SHOWN: Final = {Verdict.RED: "killed", Verdict.GREEN: "SURVIVED", Verdict.BROKEN: "BROKEN"}


def main(arguments: Sequence[str] | None = None, faults: Sequence[Fault] = FAULTS, root: Path = ROOT) -> int:
    """Run what the command line asks for on the tree at ``root``; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.mutation", description="Seeded faults, each of which must turn a check red."
    )
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help="only faults whose name contains one of these"
    )
    parser.add_argument("--jobs", type=int, default=2, metavar="N", help="killers at a time (default: 2)")
    parser.add_argument(
        "--green",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="first run every killer without a fault",
    )
    parser.add_argument("-v", "--verbose", action="store_true", help="show what every killer said last")
    options = parser.parse_args(arguments)
    chosen = [
        fault for fault in faults if not options.names or any(name in fault.name for name in options.names)
    ]
    if not chosen:
        return _refuse(f"no name contains {' or '.join(options.names)}")
    if options.jobs < 1:
        return _refuse(f"--jobs: {options.jobs} is below 1")
    try:
        for fault in chosen:
            seeded(fault, root)
    except StaleFaultError as error:
        return _refuse(f"the list is stale: {error}")
    with tempfile.TemporaryDirectory(prefix="pagefleet-mutation-") as scratch:
        original = Path(scratch, "original")
        copy_tree(root, original)
        with ThreadPoolExecutor(options.jobs) as pool:
            run = _Run(pool, verbose=options.verbose)
            try:
                if options.green and not run.all_green(chosen, original):
                    return REFUSED
                return run.judge(chosen, original)
            except KeyboardInterrupt:
                pool.shutdown(cancel_futures=True)
                return INTERRUPTED


class _Run:
    """Runs killers side by side, and tells what they say."""

    def __init__(self, pool: ThreadPoolExecutor, *, verbose: bool) -> None:
        self._pool = pool
        self._verbose = verbose

    def all_green(self, faults: Sequence[Fault], original: Path) -> bool:
        """Run every killer once on the source as it is; return whether all were green."""
        killers = list(dict.fromkeys(fault.killer for fault in faults))
        outcomes = self._pool.map(lambda killer: run_killer(killer, original), killers)
        good = True
        for killer, outcome in zip(killers, outcomes, strict=True):
            green = outcome.verdict == Verdict.GREEN
            self._tell(f"without a fault: {killer.shown}", outcome.verdict.value, outcome, expected=green)
            good &= green
        return good

    def judge(self, faults: Sequence[Fault], original: Path) -> int:
        """Seed every fault and run its killer; print the table, and return the exit status."""
        trees = [original.parent / f"fault{number}" for number in range(len(faults))]
        outcomes = self._pool.map(run_seeded, faults, [original] * len(faults), trees)
        rows = [["fault", "file", "seen by", "verdict", "s"]]
        verdicts = []
        for fault, outcome in zip(faults, outcomes, strict=True):
            shown = SHOWN[outcome.verdict]
            self._tell(fault.name, shown, outcome, expected=outcome.verdict == Verdict.RED)
            rows.append([fault.name, fault.file, fault.killer.shown, shown, f"{outcome.seconds:.1f}"])
            verdicts.append(outcome.verdict)
        print_tables([("Seeded faults", rows)], {"killed": f"{verdicts.count(Verdict.RED)} of {len(faults)}"})
        if Verdict.BROKEN in verdicts:
            return REFUSED
        return SURVIVED if Verdict.GREEN in verdicts else 0

    def _tell(self, what: str, verdict: str, outcome: Outcome, *, expected: bool) -> None:
        sys.stderr.write(f"{what}: {verdict} ({outcome.seconds:.1f} s)\n")
        if self._verbose or not expected:
            sys.stderr.write("".join(f"    {line}\n" for line in outcome.output.splitlines()))


def _refuse(why: str) -> int:
    sys.stderr.write(f"mutation: {why}\n")
    return REFUSED


if __name__ == "__main__":
    sys.exit(main())
