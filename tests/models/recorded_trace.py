"""Small recorded traces for tests, and what replaying one must come to."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from shared.trace_kind import TraceKind
from shared.traces import Trace, Window, save_trace

Run = tuple[int, int, TraceKind]  # page number, accesses, kind


def trace_of(first: list[Run], steady: list[Run] | None = None) -> Trace:
    """Return a trace with these runs in window 0, and in window 1 (the same, if left out)."""
    windows = (first, first if steady is None else steady)
    pages = np.unique([page for runs in windows for page, _, _ in runs])
    return Trace(pages, (_window(windows[0], pages), _window(windows[1], pages)), {"name": "test"})


def _window(runs: list[Run], pages: np.ndarray) -> Window:
    page, count, kind = (np.array(column) for column in zip(*runs, strict=True))
    return Window(np.searchsorted(pages, page), count, kind.astype(np.uint8))


def write_trace(path: Path, first: list[Run], steady: list[Run] | None = None) -> str:
    """Write such a trace to ``path`` and return it as a process's spec names it."""
    save_trace(path, trace_of(first, steady))
    return str(path)


@dataclass
class ReplayModel:
    """One process, access by access: anonymous memory, and a fully associative first-level TLB of data."""

    nr_ways: int
    anonymous: dict[int, bool] = field(default_factory=dict)  # page -> has a frame of its own
    cached: dict[int, bool] = field(default_factory=dict)  # page -> may be written; least recently used first
    nr_faults: int = 0
    nr_hits: int = 0
    nr_accesses: int = 0

    def replay(self, runs: list[Run]) -> None:
        """Make all accesses of the runs."""
        for page, count, kind in runs:
            for _ in range(count):
                self._access(page, kind in {TraceKind.STORE, TraceKind.MODIFY})

    def _access(self, page: int, write: bool) -> None:
        self.nr_accesses += 1
        writable = self.cached.pop(page, None)
        if writable is not None and (writable or not write):
            self.nr_hits += 1
        elif page not in self.anonymous or (write and not self.anonymous[page]):
            self.nr_faults += 1
            self.anonymous[page] = write
        if len(self.cached) == self.nr_ways:
            del self.cached[next(iter(self.cached))]
        self.cached[page] = self.anonymous[page]
