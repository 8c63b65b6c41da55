"""Files of recorded counters: reading one, with everything checked that a check relies on, and writing one.

    {"name": "ksm_batch", "format": ..., "header": {"mem": "512M", ...}, "workload": ["spawn A", ...],
     "machine": {"sysctl_vm": {...}, "zones": [...], ...},
     "snapshots": [{"name": "boot", ...}, {"name": "start", "key": {"ksm.pages_shared": 0,
                                                                    "vmstat.pgfault (delta)": [2, 3, 3]}, ...}]}

Plain or compressed by gzip. A bare number was the same in all of the recorded runs, ``[min, median, max]`` varied. The
file's ``format`` says just that, in words; any other sentence, or a number, is of a format that came later.
"""

import gzip
import json
import os
import zlib
from pathlib import Path
from typing import Any, Final

FORMAT: Final = "a bare number = identical in all runs; [min, median, max] = it varied"
MAX_GOLDEN_BYTES: Final = 1 << 28
GZIP_MAGIC: Final = b"\x1f\x8b"
NR_OF_RANGE: Final = 3  # min, median, max
ZONE_NUMBERS: Final = ("managed", "min", "low", "high")
_PARTS: Final = {"workload": list, "snapshots": list, "header": dict, "machine": dict}
_REQUIRED: Final = ("workload", "snapshots")

Golden = dict[str, Any]


class GoldenError(ValueError):
    """A recording that is missing or wrong, in one line."""


def load_golden(path: Path) -> Golden:
    """Return a recording. Raises ``GoldenError`` if it cannot be read or lacks what a check needs."""
    try:
        with path.open("rb") as raw:
            packed = raw.read(len(GZIP_MAGIC)) == GZIP_MAGIC
            raw.seek(0)
            with gzip.GzipFile(fileobj=raw) if packed else raw as file:
                data = file.read(MAX_GOLDEN_BYTES + 1)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise GoldenError(f"{path}: not a recording: {error}") from None
    except OSError as error:
        raise GoldenError(f"{path}: {error.strerror or error}") from None
    if len(data) > MAX_GOLDEN_BYTES:
        raise GoldenError(f"{path}: above the limit of {MAX_GOLDEN_BYTES} bytes")
    try:
        golden = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise GoldenError(f"{path}: not a recording: {error}") from None
    complaint = _complaint(golden)
    if complaint:
        raise GoldenError(f"{path}: {complaint}")
    found: Golden = golden
    return found


def _complaint(golden: object) -> str:
    """Return what is wrong with a recording, or ""."""
    if not isinstance(golden, dict):
        return "not a recording: it has no workload"
    if golden.get("format", FORMAT) != FORMAT:
        return f"its format is {golden['format']!r}: a newer one than this program reads, which is {FORMAT!r}"
    for part, kind in _PARTS.items():
        if part in _REQUIRED and part not in golden:
            return f"not a recording: it has no {part}"
        if not isinstance(golden.get(part, kind()), kind):
            return f"not a recording: its {part} is no {'list' if kind is list else 'object'}"
    if not all(isinstance(line, str) for line in golden["workload"]):
        return "not a recording: a line of its workload is no text"
    if not _are_zones(golden.get("machine", {}).get("zones", [])):
        return "not a recording: its machine.zones is no list of zones and their pages"
    return _complaint_of(golden["snapshots"])


def _are_zones(zones: object) -> bool:
    return isinstance(zones, list) and all(
        isinstance(zone, dict)
        and isinstance(zone.get("zone"), str)
        and all(_is_number(zone.get(name, 0)) for name in ZONE_NUMBERS)
        for zone in zones
    )


def _complaint_of(snapshots: list[Any]) -> str:
    for index, snapshot in enumerate(snapshots):
        if not isinstance(snapshot, dict) or not isinstance(snapshot.get("name"), str):
            return f"not a recording: snapshots[{index}] has no name"
        key = snapshot.get("key", {})
        if not isinstance(key, dict):
            return f"not a recording: key of snapshot {snapshot['name']} is no object"
        for counter, value in key.items():
            if not _is_value(value):
                return (
                    f"{counter} of snapshot {snapshot['name']} is {value!r}: expected a number or"
                    " [min, median, max]"
                )
    return ""


def _is_value(value: object) -> bool:
    if isinstance(value, list):
        return len(value) == NR_OF_RANGE and all(map(_is_number, value)) and value == sorted(value)
    return _is_number(value)


def _is_number(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def save_golden(path: Path, golden: Golden) -> None:
    """Write a recording to a temporary name and rename it. Raises ``GoldenError`` if that cannot be done."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(json.dumps(golden, indent=1) + "\n", encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise GoldenError(f"{path}: {error.strerror or error}") from None
