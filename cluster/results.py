"""The run directory: what a run leaves behind, and what it says while it is not over.

    runs/consolidation-1-001/
        manifest.json     what ran, with which versions, how it ended, and its digest
        metrics.parquet   time_ns, machine, counter, value: every counter at every sampling time
        proc.parquet      the files of /proc at those times, and
        memory.parquet    pictures of physical memory (cluster/looks.py)
        events.jsonl      one event a line: a guest finished, a guest was killed
        summary.json      the answer in figures
        snapshots/        the members' last states; while the run goes, its checkpoints

The folder appears under its name with a manifest in it, never empty, and each file appears whole. The
manifest is born with ``status: interrupted``, so that a driver that is killed has already said so; only the
very last write says ``finished``. ``read_manifest`` tells a run whose driver is still alive (``running``)
from one that really was interrupted, by the driver's pid, when that pid was started, and in which boot.

The digest hashes the final states and all samples, so equal digests mean equal results.
"""

import hashlib
import json
import os
import shutil
import sys
import time
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any, Final

from cluster.checkpoints import SNAPSHOTS, CheckpointStore, write_atomically
from cluster.coordinator import FleetResult
from cluster.errors import InputError, one_line
from cluster.looks import write_looks
from cluster.plan import Plan

FORMAT: Final = 1
MANIFEST: Final = "manifest.json"
METRICS: Final = "metrics.parquet"
EVENTS: Final = "events.jsonl"
SUMMARY: Final = "summary.json"
INTERRUPTED: Final = "interrupted"
FINISHED: Final = "finished"
FAILED: Final = "failed"
RUNNING: Final = "running"
_PACKAGES: Final = ("pagefleet", "numpy", "numba", "llvmlite", "ray", "pyarrow", "pydantic", "zstandard")
_HASH_BYTES: Final = 32
_START_TIME_FIELD: Final = 19  # of /proc/PID/stat, counted after the command's closing bracket


class RunDirectory:
    """One run directory that this process writes."""

    def __init__(self, path: Path, manifest: dict[str, Any]) -> None:
        self.path = path
        self.manifest = manifest
        self.checkpoints = CheckpointStore(path / SNAPSHOTS)

    @classmethod
    def create(cls, path: Path, manifest: dict[str, Any]) -> "RunDirectory":
        """Make a new run directory. Raises ``InputError`` if the folder is in use or cannot be written."""
        temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
        blocker = next((parent for parent in path.parents if parent.exists() and not parent.is_dir()), None)
        if blocker is not None:
            raise InputError(f"--out {path}: {blocker} is not a folder")
        try:
            if path.exists() and (not path.is_dir() or any(path.iterdir())):
                raise InputError(f"--out {path}: exists and is not an empty folder")
            path.parent.mkdir(parents=True, exist_ok=True)
            (temporary / SNAPSHOTS).mkdir(parents=True)
            _write_json(temporary / MANIFEST, manifest)
            os.rename(temporary, path)
        except OSError as error:
            shutil.rmtree(temporary, ignore_errors=True)
            raise InputError(
                f"--out {path}: cannot be written: {error.strerror or one_line(error)}"
            ) from None
        return cls(path, manifest)

    @classmethod
    def create_numbered(cls, folder: Path, stem: str, manifest: dict[str, Any]) -> "RunDirectory":
        """Make ``folder``/``stem``-001, or the first number after the highest in use."""
        while True:
            path = folder / f"{stem}-{_highest_number(folder, stem) + 1:03d}"
            try:
                return cls.create(path, manifest)
            except InputError:
                if not path.exists():  # else another run took the number in between
                    raise

    @classmethod
    def resume(cls, path: Path, manifest: dict[str, Any]) -> "RunDirectory":
        """Take over an interrupted run of the same scenario. Raises ``InputError`` if it is not one."""
        before = read_manifest(path)
        if before["status"] == RUNNING:
            raise InputError(f"--resume {path}: process {before['driver']['pid']} is writing this run")
        if before.get("scenario") != manifest["scenario"]:
            raise InputError(f"--resume {path}: holds a run of another scenario, setting or seed")
        if before["status"] == FINISHED:
            return cls(path, before)
        manifest = manifest | {
            "started_at": before["started_at"],
            "resumed": before.get("resumed", 0) + 1,
            "wall_seconds": before.get("wall_seconds", 0.0),
            "cpu_seconds": before.get("cpu_seconds", 0.0),
            "restorations": before.get("restorations", 0),
        }
        run = cls(path, manifest)
        run.write_manifest()
        return run

    def write_manifest(self, **news: object) -> None:
        """Write the manifest with ``news`` in it."""
        self.manifest |= news
        _write_json(self.path / MANIFEST, self.manifest)

    def add_cost(self, wall_seconds: float, cpu_seconds: float) -> None:
        """Add to the time that this run has taken, over all its resumptions."""
        self.manifest["wall_seconds"] = round(self.manifest.get("wall_seconds", 0.0) + wall_seconds, 3)
        self.manifest["cpu_seconds"] = round(self.manifest.get("cpu_seconds", 0.0) + cpu_seconds, 3)

    def finish(self, plan: Plan, result: FleetResult, summary: dict[str, Any]) -> None:
        """Write the results, then the manifest that says so, then remove the checkpoints."""
        names = [spec["id"] for spec in plan.specs]
        for name, snapshot in zip(names, result.snapshots, strict=True):
            write_atomically(self.path / SNAPSHOTS / f"{name}.snapshot", snapshot)
        _write_metrics(self.path / METRICS, names, result)
        write_looks(self.path, names, result.looks)
        write_atomically(self.path / EVENTS, "".join(_event_lines(names, result)).encode())
        _write_json(self.path / SUMMARY, summary)
        self.write_manifest(
            status=FINISHED, digest=digest_of(names, result), end_ns=result.end_ns, finished_at=utc_now()
        )
        self.checkpoints.clear()

    def remove(self) -> None:
        """Remove the directory: the run never began."""
        shutil.rmtree(self.path, ignore_errors=True)


def new_manifest(scenario: dict[str, Any], file: Path, executor: str) -> dict[str, Any]:
    """Return the manifest of a run that this process is about to begin."""
    return {
        "format": FORMAT,
        "name": scenario["name"],
        "status": INTERRUPTED,
        "scenario": scenario,
        "scenario_file": str(file),
        "seed": scenario["seed"],
        "executor": executor,
        "versions": _versions(),
        "driver": {"pid": os.getpid(), **_process_identity(os.getpid())},
        "started_at": utc_now(),
    }


def read_manifest(path: Path) -> dict[str, Any]:
    """Return a run's manifest, with the status that holds now. Raises ``InputError`` if it is no run."""
    if not (path / MANIFEST).is_file():
        raise InputError(f"{path}: not a run directory: there is no {MANIFEST} in it")
    manifest = read_json(path / MANIFEST)
    if manifest.get("format") != FORMAT:
        raise InputError(f"{path / MANIFEST}: format {manifest.get('format')} is not {FORMAT}")
    driver = manifest.get("driver", {})
    identity = {key: driver.get(key) for key in ("boot_id", "start_time")}
    if manifest["status"] == INTERRUPTED and identity == _process_identity(driver.get("pid", 0)):
        manifest["status"] = RUNNING
    return manifest


def read_json(path: Path) -> dict[str, Any]:
    """Return a mapping from a file of a run directory. Raises ``InputError`` if there is none."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None
    except ValueError as error:
        raise InputError(f"{path}: damaged: {one_line(error)}") from None
    if not isinstance(value, dict):
        raise InputError(f"{path}: damaged: not a mapping")
    return value


def find_interrupted(folder: Path, stem: str, scenario: dict[str, Any]) -> Path:
    """Return the newest interrupted run of a scenario. Raises ``InputError`` if there is none."""
    for number in range(_highest_number(folder, stem), 0, -1):
        path = folder / f"{stem}-{number:03d}"
        if (path / MANIFEST).is_file():
            manifest = read_manifest(path)
            if manifest["status"] in (INTERRUPTED, FAILED) and manifest.get("scenario") == scenario:
                return path
    raise InputError(
        f"--resume: no interrupted run of this scenario and seed in {folder}; name one with --out"
    )


def digest_of(names: list[str], result: FleetResult) -> str:
    """Hash every member's final state and every sampled counter, in the order of the plan and of time."""
    digest = hashlib.blake2b(digest_size=_HASH_BYTES)
    for name, of_state in zip(names, result.digests, strict=True):
        digest.update(f"{name} {of_state}\n".encode())
    for time_ns, member, counters in result.samples:
        for counter, value in sorted(counters.items()):
            digest.update(f"{time_ns} {names[member]} {counter} {value}\n".encode())
    return digest.hexdigest()


def utc_now() -> str:
    """Return the time of day, to the second."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def _write_metrics(path: Path, names: list[str], result: FleetResult) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    times, machines, counters, values = [], [], [], []
    for time_ns, member, sampled in result.samples:
        for counter, value in sorted(sampled.items()):
            times.append(time_ns)
            machines.append(names[member])
            counters.append(counter)
            values.append(value)
    text = pa.dictionary(pa.int32(), pa.string())
    table = pa.table(
        {
            "time_ns": pa.array(times, pa.int64()),
            "machine": pa.array(machines, pa.string()).cast(text),
            "counter": pa.array(counters, pa.string()).cast(text),
            "value": pa.array(values, pa.int64()),
        }
    )
    temporary = path.with_name(f".{path.name}.partial")
    parquet.write_table(table, temporary, compression="zstd")
    os.replace(temporary, path)


def _event_lines(names: list[str], result: FleetResult) -> Iterator[str]:
    for time_ns, member, what in result.events:
        yield json.dumps({"time_ns": time_ns, "machine": names[member], "event": what}) + "\n"


def _write_json(path: Path, value: object) -> None:
    write_atomically(path, (json.dumps(value, indent=2) + "\n").encode())


def _highest_number(folder: Path, stem: str) -> int:
    suffixes = [path.name.removeprefix(f"{stem}-") for path in folder.glob(f"{stem}-*")]
    return max((int(suffix) for suffix in suffixes if suffix.isascii() and suffix.isdigit()), default=0)


def _versions() -> dict[str, str]:
    found = {"python": ".".join(map(str, sys.version_info[:3]))}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def _process_identity(pid: int) -> dict[str, str | None]:
    """Return what no other process shares: the boot, and when the process with this pid was started."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return {"boot_id": None, "start_time": None}
    return {"boot_id": boot, "start_time": stat.rpartition(")")[2].split()[_START_TIME_FIELD]}
