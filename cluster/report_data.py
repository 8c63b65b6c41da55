"""What a report is made of: a run directory read back as one table of samples a member.

    metrics.parquet      time, machine, counter, value --> a History a machine: times[n], counter -> values[n]
    snapshots/*.samples  of a run without end: the samples up to its last checkpoint, in the same form
    memory.parquet       pictures of memory, read for the members that are drawn

Everything the report says is computed from these samples and the manifest, so it holds for a run that was
interrupted as far as that run came. Nothing is estimated between samples.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from cluster.checkpoints import SNAPSHOTS, CheckpointStore
from cluster.errors import InputError, one_line
from cluster.looks import read_pictures
from cluster.results import EVENTS, MANIFEST, METRICS, read_manifest
from shared.constants import NS_PER_S
from shared.look import MemoryPicture

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Row = tuple[int, str, dict[str, int]]  # time in ns, member, counters
_COLUMNS: Final = ("time_ns", "machine", "counter", "value")


@dataclass(frozen=True, slots=True)
class History:
    """The samples of one member, by time. A counter that it does not have reads as zeroes."""

    times_ns: Ints  # [n], ascending
    values: dict[str, Ints] = field(default_factory=dict)  # [n] each, by counter

    def level(self, counter: str) -> Ints:
        """Return a counter at every sample."""
        found = self.values.get(counter)
        return np.zeros(len(self.times_ns), np.int64) if found is None else found

    def last(self, counter: str) -> int:
        """Return a counter at the last sample, 0 where there is none."""
        found = self.level(counter)
        return int(found[-1]) if len(found) else 0

    def rises(self, counter: str) -> Ints:
        """Return how much a counter rose since the sample before; since 0 at time 0 for the first."""
        return np.diff(self.level(counter), prepend=0)

    def rate(self, counter: str) -> Floats:
        """Return a counter's mean rise a second over the span that ends with each sample."""
        seconds = np.diff(self.times_ns, prepend=0) / NS_PER_S
        rates: Floats = self.rises(counter) / np.maximum(seconds, 1 / NS_PER_S)
        return rates

    def family(self, prefix: str) -> list[str]:
        """Return what follows ``prefix`` in the names of counters that begin with it, sorted."""
        return sorted(name.removeprefix(prefix) for name in self.values if name.startswith(prefix))

    def at(self, times_ns: Ints) -> "History":
        """Return what holds at ``times_ns``: a sample until the next one; zeroes before the first."""
        position = np.searchsorted(self.times_ns, times_ns, side="right")
        return History(
            times_ns,
            {name: np.concatenate([[0], column])[position] for name, column in self.values.items()},
        )

    def thinned(self, most: int) -> "History":
        """Return at most ``most`` of the samples, evenly spread, the last one included."""
        nr_samples = len(self.times_ns)
        if nr_samples <= most:
            return self
        kept = np.unique(np.linspace(0, nr_samples - 1, most).astype(np.int64))
        return History(self.times_ns[kept], {name: column[kept] for name, column in self.values.items()})


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to a member."""

    time_ns: int
    member: str
    what: str


@dataclass(frozen=True, slots=True)
class RunData:
    """One run, read back."""

    path: Path
    manifest: dict[str, Any]
    members: list[dict[str, Any]]  # name, kind, host (name or None), in the order of the plan
    histories: dict[str, History]  # by member
    events: list[Event]

    @property
    def end_ns(self) -> int:
        """The time of the last sample, 0 if there is none."""
        ends = [int(history.times_ns[-1]) for history in self.histories.values() if len(history.times_ns)]
        return max(ends, default=0)

    def history(self, member: str) -> History:
        """Return a member's samples."""
        return self.histories.get(member) or History(np.zeros(0, np.int64))

    def of_kind(self, kind: str) -> list[str]:
        """Return the names of the members of a kind."""
        return [member["name"] for member in self.members if member["kind"] == kind]

    def pictures(self, member: str) -> dict[int, MemoryPicture]:
        """Read the pictures of a member's memory, by time in ns. Raises ``InputError`` if they are damaged."""
        return read_pictures(self.path, [each["name"] for each in self.members], member)

    def guests_of(self, host: str) -> list[str]:
        """Return the names of a host's guests, by their index there."""
        return [member["name"] for member in self.members if member["host"] == host]


def read_run(path: Path) -> RunData:
    """Read a run directory. Raises ``InputError`` if it is none, or if something in it is damaged."""
    manifest = read_manifest(path)
    members = manifest.get("members")
    if not isinstance(members, list) or not isinstance(manifest.get("scenario"), dict):
        raise InputError(f"{path / MANIFEST}: does not say what ran")
    names = [member["name"] for member in members]
    if (path / METRICS).is_file():
        histories = _read_metrics(path / METRICS)
        events = _read_events(path / EVENTS)
    else:
        histories, events = _read_checkpoints(path / SNAPSHOTS, names)
    return RunData(path, manifest, members, histories, events)


def _read_metrics(path: Path) -> dict[str, History]:
    import pyarrow as pa
    from pyarrow import parquet

    try:
        table = parquet.read_table(path, columns=list(_COLUMNS))
        times = table["time_ns"].to_numpy().astype(np.int64, copy=False)
        values = table["value"].to_numpy().astype(np.int64, copy=False)
        member_codes, member_names = _codes(table["machine"])
        counter_codes, counter_names = _codes(table["counter"])
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        raise InputError(f"{path}: damaged: {one_line(error)}") from None
    histories = {}
    order = np.argsort(member_codes, kind="stable")
    borders = np.searchsorted(member_codes[order], np.arange(len(member_names) + 1))
    for code, name in enumerate(member_names):
        rows = order[borders[code] : borders[code + 1]]
        member_times, at = np.unique(times[rows], return_inverse=True)
        columns = np.zeros((len(counter_names), len(member_times)), np.int64)
        columns[counter_codes[rows], at] = values[rows]
        present = np.unique(counter_codes[rows])
        histories[name] = History(member_times, {counter_names[code]: columns[code] for code in present})
    return histories


def _codes(column: Any) -> tuple[Ints, list[str]]:  # a chunked array of pyarrow, which ships no types
    encoded = column.combine_chunks()
    if not hasattr(encoded, "indices"):
        encoded = encoded.dictionary_encode()
    return encoded.indices.to_numpy().astype(np.int64), encoded.dictionary.to_pylist()


def _read_events(path: Path) -> list[Event]:
    try:
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        return [Event(line["time_ns"], line["machine"], line["event"]) for line in lines]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: damaged: {one_line(error)}") from None


def _read_checkpoints(folder: Path, names: list[str]) -> tuple[dict[str, History], list[Event]]:
    store = CheckpointStore(folder)
    rows: dict[str, list[Row]] = {}
    events = []
    for cell in store.cells():
        checkpoint = store.load(cell)
        if checkpoint is None:  # the run is alive, and has just ended
            continue
        if any(not 0 <= number < len(names) for _, number, _ in checkpoint.samples + checkpoint.events):
            raise InputError(f"{folder}: cell-{cell}: the checkpoint is of another fleet")
        for time_ns, number, counters in checkpoint.samples:
            rows.setdefault(names[number], []).append((time_ns, names[number], counters))
        events += [Event(time_ns, names[number], what) for time_ns, number, what in checkpoint.events]
    return {name: _history(of_member) for name, of_member in rows.items()}, events


def _history(rows: Iterable[Row]) -> History:
    ordered = sorted(rows, key=lambda row: row[0])
    counters = sorted({counter for _, _, sampled in ordered for counter in sampled})
    times = np.array([time_ns for time_ns, _, _ in ordered], np.int64)
    columns = {
        name: np.array([sampled.get(name, 0) for _, _, sampled in ordered], np.int64) for name in counters
    }
    return History(times, columns)
