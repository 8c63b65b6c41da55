"""``pagefleet explain faults``: the tree of docs/faults.md with how often each branch ran on a machine of a run.

    RUN MACHINE  -->  metrics.parquet, or what the checkpoints of an unfinished run hold  -->  a line a branch

A question counts what its answers do.
"""

import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from cluster.errors import InputError
from cluster.report_data import read_run
from cluster.report_faults import branches

Said = dict[str, Any]

_INDENT: Final = "    "
_WIDTH: Final = 12  # of a count


def explain_faults(run: Path, machine: str) -> Said:
    """Return how a machine's faults ended, a line a branch of the tree.

    Raises ``InputError`` for a run or a machine that is not, or that kept no such counts.
    """
    data = read_run(run)
    names = [member["name"] for member in data.members]
    if machine not in names:
        raise InputError(f"{run}: has no machine {machine!r}; there are {', '.join(names[:8])}")
    history = data.history(machine)
    found = branches(history)
    if not any(branch.counter in history.values for branch in found):
        raise InputError(f"{run}: {machine}: this run kept no counts of how faults ended")
    return {
        "run": str(run),
        "machine": machine,
        "time_ns": int(history.times_ns[-1]),
        "branches": [asdict(branch) for branch in found],
    }


def lines_of(said: Said) -> Iterator[str]:
    """Yield the tree as people read it; a branch that never ran has no number."""
    for branch in said["branches"]:
        count = f"{branch['times']:,}" if branch["times"] else ""
        yield f"{count:>{_WIDTH}}  {_INDENT * branch['depth']}{branch['words']}"


def print_faults(said: Said) -> None:
    """Print ``lines_of`` to stdout."""
    sys.stdout.write("".join(f"{line}\n" for line in lines_of(said)))
