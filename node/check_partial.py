"""Recordings of which only a part can be replayed yet: which snapshots, counters and commands of each, and why.

``partial.json`` lies beside the recordings and names each such case once. Only ``reason`` has to be there:

    {"buddy_big": {"reason": "the snapshots between and after need the page cache",
                   "snapshots": ["start", ...], "up_to": "populated96M",
                   "counters": {"buddy.DMA32.order[0-8]": 2, "*": null},
                   "without": {"mincore.*": "needs the page cache"},
                   "passed_over": {"fread": "no page of the mapping depends on it"},
                   "off": {"reason": "...", "counters": {"freed96M": ["buddy.DMA32.order2"]}}}}

The program ends behind the snapshot ``up_to``. Of its snapshots those in ``snapshots`` are compared, or all.
Counters are patterns as of a shell; the first of ``counters`` that matches says by how much one may lie outside what
was recorded (null: the check's usual rule), and one that none matches is not compared, nor is one that ``without``
matches. What is not modelled and has its name in ``passed_over`` (node/program/words.py; also a pattern) is left out
of the program. ``off`` names counters of snapshots that are known to lie outside, and why: they are shown, and do not
count as met, but are no failure.
"""

import json
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Final

PARTIAL_FILE: Final = "partial.json"
KEYS: Final = frozenset({"reason", "snapshots", "up_to", "counters", "without", "passed_over", "off"})


@dataclass(frozen=True, slots=True)
class PartialCase:
    """What of a case is compared."""

    reason: str
    snapshots: tuple[str, ...] = ()  # none: all of them
    up_to: str = ""  # the last snapshot that is run; "": the program's last
    counters: dict[str, int | None] = field(default_factory=lambda: {"*": None})
    without: dict[str, str] = field(default_factory=dict)  # counters that are left out, and why
    passed_over: dict[str, str] = field(default_factory=dict)  # what of the program is left out, and why
    off: dict[str, tuple[str, ...]] = field(default_factory=dict)  # by snapshot: counters known to be off
    off_reason: str = ""

    def is_known_off(self, snapshot: str, counter: str) -> bool:
        """Return whether a counter of a snapshot is known not to be met."""
        return counter in self.off.get(snapshot, ())

    def slack(self, snapshot: str, counter: str) -> tuple[bool, int | None]:
        """Return whether a counter is compared, and by how much it may be off (None: the usual rule)."""
        if self.snapshots and snapshot not in self.snapshots:
            return False, None
        if not any(fnmatchcase(counter, pattern) for pattern in self.without):
            for pattern, slack in self.counters.items():
                if fnmatchcase(counter, pattern):
                    return True, slack
        return False, None

    def details(self) -> list[str]:
        """Return line by line what is not compared, and why."""
        lines = [f"up to {self.up_to}"] if self.up_to else []
        if self.snapshots:
            lines.append(f"only at {', '.join(self.snapshots)}")
        lines += [f"without {pattern}: {why}" for pattern, why in self.without.items()]
        lines += [f"passing over {name}: {why}" for name, why in self.passed_over.items()]
        return lines


def partial_case(golden: Path, case: str, snapshots: list[str]) -> PartialCase | None:
    """Return what the file beside a recording says of a case, or None: all of it is compared.

    ``snapshots`` are those of the recording. Raises ValueError, in one line, if the file is not as described.
    """
    path = golden.parent / PARTIAL_FILE
    if not path.exists():
        return None
    try:
        entry = json.loads(path.read_text(encoding="utf-8")).get(case)
        if entry is None:
            return None
        partial = _read(entry)
    except (AttributeError, KeyError, OSError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: {case}: is no list of snapshots and counters: {error!r}") from None
    named = (*partial.snapshots, *([partial.up_to] if partial.up_to else []), *partial.off)
    for name in named:
        if name not in snapshots:
            raise ValueError(f"{path}: {case}: the recording has no snapshot {name!r}")
    return partial


def _read(entry: dict[str, Any]) -> PartialCase:
    if unknown := entry.keys() - KEYS:
        raise KeyError(f"{unknown.pop()} is none of {', '.join(sorted(KEYS))}")
    off = entry.get("off", {})
    return PartialCase(
        str(entry["reason"]),
        tuple(entry.get("snapshots", ())),
        str(entry.get("up_to", "")),
        dict(entry.get("counters", {"*": None})),
        dict(entry.get("without", {})),
        dict(entry.get("passed_over", {})),
        {name: tuple(counters) for name, counters in off.get("counters", {}).items()},
        str(off.get("reason", "")),
    )
