"""Recordings of which only a part can be replayed yet: which snapshots and counters of each, and why.

``partial.json`` lies beside the recordings and names each such case once:

    {"buddy_big": {"reason": "...", "snapshots": ["start", ...],
                   "counters": {"buddy.DMA32.order[0-8]": 2, "vmstat.nr_anon_pages": null}}}

Counters are patterns as of a shell; the first that matches counts. The number is by how much a counter may lie
outside what was recorded; null is the check's usual rule. Commands of such a case that are not modelled are
passed over. ``off`` names counters of snapshots that are known to lie outside, and why: they are shown, and do not
count as met, but are no failure.
"""

import json
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final

PARTIAL_FILE: Final = "partial.json"


@dataclass(frozen=True, slots=True)
class PartialCase:
    """What of a case is compared."""

    reason: str
    snapshots: tuple[str, ...]
    counters: dict[str, int | None]
    off: dict[str, tuple[str, ...]]  # by snapshot: counters that are known to be off

    def is_known_off(self, snapshot: str, counter: str) -> bool:
        """Return whether a counter of a snapshot is known not to be met."""
        return counter in self.off.get(snapshot, ())

    def slack(self, snapshot: str, counter: str) -> tuple[bool, int | None]:
        """Return whether a counter is compared, and by how much it may be off (None: the usual rule)."""
        if snapshot in self.snapshots:
            for pattern, slack in self.counters.items():
                if fnmatchcase(counter, pattern):
                    return True, slack
        return False, None


def partial_case(golden: Path, case: str) -> PartialCase | None:
    """Return what the file beside a recording says of a case, or None: all of it is compared.

    Raises ValueError, in one line, if the file is not as described.
    """
    path = golden.parent / PARTIAL_FILE
    if not path.exists():
        return None
    try:
        entry = json.loads(path.read_text()).get(case)
        if entry is None:
            return None
        off = entry.get("off", {})
        return PartialCase(
            str(entry["reason"]),
            tuple(entry["snapshots"]),
            dict(entry["counters"]),
            {name: tuple(counters) for name, counters in off.get("counters", {}).items()},
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: {case}: is no list of snapshots and counters: {error!r}") from None
