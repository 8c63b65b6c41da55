"""``pagefleet sweep``: every combination of some settings, a run each.

    --grid hosts.0.ksm.pages_to_scan=100,1000 --grid hosts.0.memory=1GiB,2GiB     four points

A point is a ``pagefleet run --executor inline`` in a process of its own; as many run at once as CPUs and
memory allow. Its folder is named by a hash of the resolved scenario, so a sweep that is started again, with
the same or a larger grid, keeps the points that have finished and goes on with those that were interrupted.
All points are checked before the first one runs.
"""

import hashlib
import itertools
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from cluster.errors import InputError
from cluster.machine_server import NODE_BUILDER
from cluster.plan import real_bytes_needed
from cluster.progress import say
from cluster.results import FINISHED, MANIFEST, SUMMARY, read_json, read_manifest
from cluster.run import RUNS, available_bytes, prepare
from cluster.warming import warming_kernels

TABLE: Final = "sweep.parquet"
MAX_POINTS: Final = 10_000
_POLL_SECONDS: Final = 0.05
_NAME_BYTES: Final = 8
_FIGURES: Final = (
    "needed_without_merging_pages",
    "needed_with_merging_pages",
    "saved_pages",
    "nr_swap_used",
    "pswpin",
    "pswpout",
    "oom_kill",
)


@dataclass(frozen=True, slots=True)
class SweepRequest:
    """What the user asked for."""

    scenario: Path
    settings: tuple[str, ...] = ()
    seed: int | None = None
    grid: tuple[str, ...] = ()
    out: Path | None = None
    builder: str = NODE_BUILDER
    command: tuple[str, ...] = (sys.executable, "-m", "cluster")


@dataclass(frozen=True, slots=True)
class SweepOutcome:
    """All points, in the order of the grid."""

    path: Path
    keys: tuple[str, ...]
    rows: list[dict[str, Any]]

    @property
    def nr_failed(self) -> int:
        """How many points have no result."""
        return sum(row["status"] != FINISHED for row in self.rows)


@dataclass(slots=True)
class _Point:
    values: dict[str, str]
    settings: tuple[str, ...]
    resolved: dict[str, Any]
    path: Path
    error: str = ""


def run_sweep(request: SweepRequest) -> SweepOutcome:
    """Run the points that have not finished and return the figures of all. Raises ``InputError``."""
    grid = [parse_grid(text) for text in request.grid]
    if not grid:
        raise InputError("sweep: give at least one --grid KEY=V1,V2")
    folder = request.out or RUNS / f"sweep-{request.scenario.stem}"
    points, needed = _plan_points(request, grid, folder)
    _make_folder(folder)
    waiting = [point for point in points if not _is_finished(point)]
    say(f"{len(points)} points, {len(points) - len(waiting)} finished already")
    if waiting:
        with warming_kernels(request.builder):
            pass  # every point would otherwise compile for itself
        at_once = max(1, min(len(os.sched_getaffinity(0)), available_bytes() // max(1, needed)))
        _run_points(request, waiting, at_once)
    outcome = SweepOutcome(folder, tuple(key for key, _ in grid), [_row(point) for point in points])
    _write_table(folder / TABLE, outcome.rows)
    return outcome


def parse_grid(text: str) -> tuple[str, list[str]]:
    """Return key and values of ``key=v1,v2``. Raises ``InputError``."""
    key, equals, values = text.partition("=")
    listed = [value.strip() for value in values.split(",")]
    if not equals or not key or not all(listed):
        raise InputError(f"--grid {text}: write it as dotted.key=value,value")
    if len(set(listed)) != len(listed):
        raise InputError(f"--grid {text}: a value is given twice")
    return key, listed


def _plan_points(
    request: SweepRequest, grid: list[tuple[str, list[str]]], folder: Path
) -> tuple[list[_Point], int]:
    """Return every combination, checked, and the real memory that the largest needs."""
    count = 1
    for _, listed in grid:
        count *= len(listed)
    if count > MAX_POINTS:
        raise InputError(f"--grid: {count} points are more than {MAX_POINTS}")
    points, needed = [], 0
    keys = [key for key, _ in grid]
    for combination in itertools.product(*(listed for _, listed in grid)):
        values = dict(zip(keys, combination, strict=True))
        settings = (*request.settings, *(f"{key}={value}" for key, value in values.items()))
        scenario, plan = prepare(request.scenario, settings, request.seed)
        resolved = scenario.model_dump(mode="json")
        name = hashlib.blake2b(json.dumps(resolved).encode(), digest_size=_NAME_BYTES).hexdigest()
        points.append(_Point(values, settings, resolved, folder / f"point-{name}"))
        needed = max(needed, real_bytes_needed(plan))
    return points, needed


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".{os.getpid()}.partial"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise InputError(f"--out {folder}: cannot be written: {error.strerror}") from None


def _is_finished(point: _Point) -> bool:
    if not (point.path / MANIFEST).is_file():
        return False
    manifest = read_manifest(point.path)
    return manifest["status"] == FINISHED and manifest["scenario"] == point.resolved


def _run_points(request: SweepRequest, waiting: list[_Point], at_once: int) -> None:
    """Run points, ``at_once`` at a time; end those under way if this process is stopped."""
    left = list(waiting)
    under_way: dict[subprocess.Popen[str], _Point] = {}
    try:
        while left or under_way:
            while left and len(under_way) < at_once:
                point = left.pop(0)
                under_way[_start(request, point)] = point
            for process in [process for process in under_way if process.poll() is not None]:
                point = under_way.pop(process)
                _, errors = process.communicate()
                if process.returncode != 0:
                    point.error = " ".join(errors.split()).removeprefix("pagefleet: ")
                done = len(waiting) - len(left) - len(under_way)
                say(f"{done} of {len(waiting)}: {_describe(point)}: {point.error or FINISHED}")
            time.sleep(_POLL_SECONDS)
    finally:
        for process in under_way:
            process.terminate()
        for process in under_way:
            process.wait()


def _start(request: SweepRequest, point: _Point) -> "subprocess.Popen[str]":
    command = [
        *request.command,
        "run",
        str(request.scenario),
        "--executor",
        "inline",
        "--json",
        "--no-report",
    ]
    command += ["--out", str(point.path)]
    command += [part for setting in point.settings for part in ("--set", setting)]
    command += [] if request.seed is None else ["--seed", str(request.seed)]
    command += ["--resume"] if (point.path / MANIFEST).is_file() else []
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def _describe(point: _Point) -> str:
    return " ".join(f"{key}={value}" for key, value in point.values.items())


def _row(point: _Point) -> dict[str, Any]:
    """Return a point's settings and figures, summed over its hosts; null where it has no result."""
    row: dict[str, Any] = {**point.values, "run": str(point.path), "status": "failed", "error": point.error}
    row |= dict.fromkeys((*_FIGURES, "slowdown", "digest"))
    if point.error or not _is_finished(point):
        return row
    hosts = read_json(point.path / SUMMARY)["hosts"]
    row |= {name: sum(host[name] for host in hosts) for name in _FIGURES}
    run_ns, stall_ns = (sum(host[name] for host in hosts) for name in ("run_ns", "stall_ns"))
    row["slowdown"] = (run_ns + stall_ns) / run_ns if run_ns else None
    return row | {"status": FINISHED, "digest": read_manifest(point.path)["digest"]}


def _write_table(path: Path, rows: list[dict[str, Any]]) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    temporary = path.with_name(f".{path.name}.partial")
    parquet.write_table(pa.Table.from_pylist(rows), temporary)
    os.replace(temporary, path)


def print_sweep(outcome: SweepOutcome) -> None:
    """Print the table of all points to stdout."""
    from cluster.summary import format_pages, format_ratio, print_tables

    rows = [[*outcome.keys, "without merging", "with merging", "swapped out", "killed", "slowdown", "status"]]
    for row in outcome.rows:
        cells = [row[key] for key in outcome.keys]
        if row["status"] == FINISHED:
            cells += [format_pages(row["needed_without_merging_pages"])]
            cells += [format_pages(row["needed_with_merging_pages"])]
            cells += [f"{row['pswpout']:,}", f"{row['oom_kill']:,}", format_ratio(row["slowdown"])]
        else:
            cells += ["-"] * 5
        rows.append([*cells, row["status"]])
    print_tables([("Sweep", rows)], {"table": str(outcome.path / TABLE)})
