"""Recorded memory access traces: one ``.npz`` file a program, at page granularity.

    w0_page   w0_count   w0_kind          a run: accesses of one kind to one page, nothing in between
      17  ---+    3       FETCH           17 17 17
       2     |    1       LOAD             2
      17     |    5       FETCH           17 17 17 17 17
             +--> pages[17] = 0x401       page 17 of the recording is at 0x401000

Two windows of each program are kept: window 0 is its start, window 1 a stretch of its steady state. Runs stand
in program order; ``pages`` has the page numbers that occur, ascending, each once. Contents, and addresses
inside pages, are not recorded. docs/traces.md has the whole format and how to record one.

``load_trace`` raises ``ValueError`` with one line that names the file, the column and what is wrong.
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from shared.columns import check_range, read_columns
from shared.constants import PAGE_SHIFT
from shared.trace_kind import TraceKind

WINDOWS: Final = (0, 1)
MAX_PAGES: Final = 1 << 24  # 64 GiB touched
MAX_RUNS: Final = 1 << 24  # of a window: 128 MiB in a machine
MAX_ACCESSES: Final = 1 << 31  # of a window
FIRST_PAGE: Final = 16  # Linux maps nothing below 64 KiB (vm.mmap_min_addr)
END_PAGE: Final = (1 << 35) - 1  # end of user space with four levels, its last page left out (TASK_SIZE_MAX)
INDEX_TYPES: Final = (np.uint16, np.uint32)  # of w0_page and the like, the narrowest that fits

# Column: element types, and what its axis counts (P pages, R runs of window 0, S runs of window 1).
_COLUMNS: Final = {"pages": ("uint64", "P")} | {
    f"w{window}_{column}": (types, "RS"[window])
    for window in WINDOWS
    for column, types in (("page", "uint16 uint32"), ("count", "uint16 uint32"), ("kind", "uint8"))
}
_LIMIT_OF_AXIS: Final = {"P": MAX_PAGES, "R": MAX_RUNS, "S": MAX_RUNS}


@dataclass(frozen=True, slots=True)
class Window:
    """A stretch of a trace. R runs, in program order."""

    page: npt.NDArray[Any]  # [R] index into the trace's pages
    count: npt.NDArray[Any]  # [R] accesses of the run, at least 1
    kind: npt.NDArray[np.uint8]  # [R] TraceKind

    @property
    def nr_accesses(self) -> int:
        """How many accesses the window has."""
        return int(self.count.sum(dtype=np.int64))


@dataclass(frozen=True, slots=True)
class Trace:
    """A recorded program. P pages occur."""

    pages: npt.NDArray[np.int64]  # [P] page number, ascending
    windows: tuple[Window, Window]  # the start, the steady state
    meta: dict[str, Any]  # what the recording says of itself


def load_trace(path: Path) -> Trace:
    """Read and check a trace.

    Raises ``ValueError``, one line: the file is missing or cut short, a column is missing, empty, of the wrong
    type or length, or holds what cannot be.
    """
    path = Path(path)
    columns, meta = read_columns(path, "a trace", _COLUMNS, _LIMIT_OF_AXIS)
    pages = _checked_pages(path, columns["pages"])
    windows = []
    for name in (f"w{window}" for window in WINDOWS):
        window = Window(*(columns[f"{name}_{column}"] for column in ("page", "count", "kind")))
        check_range(path, f"{name}_page", window.page, len(pages))
        check_range(path, f"{name}_kind", window.kind, len(TraceKind))
        _check_counts(path, f"{name}_count", window)
        windows.append(window)
    return Trace(pages, (windows[0], windows[1]), meta)


def save_trace(path: Path, trace: Trace) -> None:
    """Write a trace to ``path``, whole or not at all. Raises OSError if it cannot be written."""
    columns: dict[str, Any] = {"pages": trace.pages.astype(np.uint64)}
    for number, window in enumerate(trace.windows):
        columns[f"w{number}_page"] = _narrow(window.page)
        columns[f"w{number}_count"] = _narrow(window.count)
        columns[f"w{number}_kind"] = window.kind.astype(np.uint8)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as file:
            np.savez_compressed(file, **columns, meta=np.array(json.dumps(trace.meta)))
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _narrow(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    narrow, wide = INDEX_TYPES
    return values.astype(narrow if values.max() <= np.iinfo(narrow).max else wide)


def _checked_pages(path: Path, pages: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
    low, high = int(pages.min()), int(pages.max())
    for page in (low, high):
        if not FIRST_PAGE <= page < END_PAGE:
            limits = f"{FIRST_PAGE << PAGE_SHIFT:#x}..{(END_PAGE << PAGE_SHIFT) - 1:#x}"
            raise ValueError(
                f"{path}: column pages: page {page:#x}, address {page << PAGE_SHIFT:#x}, is outside {limits}"
            )
    wrong = np.flatnonzero(pages[1:] <= pages[:-1])
    if len(wrong):
        at = int(wrong[0]) + 1
        raise ValueError(
            f"{path}: column pages: page {int(pages[at]):#x} at {at} does not rise above the one before it"
        )
    return pages.astype(np.int64)


def _check_counts(path: Path, name: str, window: Window) -> None:
    empty = np.flatnonzero(window.count == 0)
    if len(empty):
        raise ValueError(f"{path}: column {name}: run {int(empty[0])} has 0 accesses")
    if window.nr_accesses > MAX_ACCESSES:
        raise ValueError(
            f"{path}: column {name}: {window.nr_accesses} accesses are above the limit of {MAX_ACCESSES}"
        )
