"""Starting the processes that replay traces: their tables of runs and pages, and their address spaces.

    pages used      0x400 0x401 | 0x402 | 0x404 0x405      (a page that neither window uses is left out)
    rights           R X   R X  |  R W  |  R     R
    areas           [0x400000     )[    )  [         )     adjacent pages with equal rights are one

Rights are what the recording shows: pages that were fetched from may be executed, pages that were stored to
may be written, all may be read. They come from both windows, whichever is replayed, so that the address space
is the program's and not the window's.

With ``huge_pages: 2M`` areas are made of whole 2 MiB regions, those that hold a page used, with the rights of
all its pages; each is mapped by one entry from the start (node/vm/hugetlb.py).

Processes that replay the same windows of the same file share its runs in ``state.trace_run``.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from node.counters import Knob
from node.hw.paging import PAGING_MODES, PagingMode
from node.spec import WorkSpec
from node.trace import KIND_BITS, MAX_RUN, TRACE_RUN
from node.vm.commit import vm_stat_account
from node.vm.hugetlb import map_huge
from node.vm.vma import VmFlag, insert_vma
from shared.constants import HUGE_PAGE_SHIFT, HUGE_PAGE_SIZE, NIL, PAGE_SHIFT
from shared.jit import entry
from shared.trace_kind import TraceKind
from shared.traces import load_trace

if TYPE_CHECKING:
    from node.state import State

HUGE_PAGES: Final = {"none": PAGE_SHIFT, "2M": HUGE_PAGE_SHIFT}
RIGHTS: Final = {
    TraceKind.FETCH: VmFlag.READ | VmFlag.EXEC,
    TraceKind.LOAD: VmFlag.READ,
    TraceKind.STORE: VmFlag.READ | VmFlag.WRITE,
    TraceKind.MODIFY: VmFlag.READ | VmFlag.WRITE,
}
_KEPT_IN_MEMORY: Final = 4  # files whose runs stay unpacked, for the next machine that replays them

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Packed:
    """What a machine needs of one file's windows."""

    runs: npt.NDArray[Any]  # [runs] TRACE_RUN
    pages: Ints  # [pages of the file] page number
    used: Ints  # [pages used] page number, ascending
    rights: Ints  # [pages used] VmFlag bits
    nr_accesses: int  # of all runs


@dataclass(frozen=True, slots=True)
class Place:
    """Where a process's trace lies in the machine's tables."""

    packed: Packed
    first_run: int
    first_page: int


# --- the tables -----------------------------------------------------------------------------------------


def trace_lengths(works: Sequence[WorkSpec]) -> dict[str, int]:
    """Return the lengths of the tables that hold all traces of a machine's processes.

    Raises ``ValueError``, in one line, for a trace that cannot be read.
    """
    packed = [place.packed for place in _distinct(trace_places(works))]
    return {
        "trace_run": max(sum(len(one.runs) for one in packed), 1),
        "trace_page": max(sum(len(one.pages) for one in packed), 1),
    }


def fill_traces(state: "State", places: Sequence[Place | None]) -> None:
    """Write the runs and pages of all traces into the machine's tables."""
    for place in _distinct(places):
        state.trace_run[place.first_run : place.first_run + len(place.packed.runs)] = place.packed.runs
        state.trace_page[place.first_page : place.first_page + len(place.packed.pages)] = place.packed.pages


def _distinct(places: Sequence[Place | None]) -> list[Place]:
    return list({place.first_run: place for place in places if place is not None}.values())


def trace_places(works: Sequence[WorkSpec]) -> list[Place | None]:
    """Return for each process where its trace is, or None if it replays none. Raises as ``trace_lengths`` does."""
    known: dict[tuple[str, tuple[int, ...]], Place] = {}
    places: list[Place | None] = []
    nr_runs = nr_pages = 0
    for index, work in enumerate(works):
        if not work.trace:
            places.append(None)
            continue
        key = (work.trace, tuple(work.windows))
        if key not in known:
            try:
                packed = pack(*key)
            except ValueError as error:
                raise ValueError(f"processes.{index}.trace: {error}") from None
            known[key] = Place(packed, nr_runs, nr_pages)
            nr_runs += len(packed.runs)
            nr_pages += len(packed.pages)
        places.append(known[key])
    return places


def pack(path: str, windows: tuple[int, ...]) -> Packed:
    """Return a trace's windows, one after the other, as the machine's tables hold them; runs end at MAX_RUN.

    Raises ``ValueError`` as ``load_trace`` does.
    """
    try:
        said = Path(path).stat()
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror or error}") from None
    return _pack(path, windows, said.st_mtime_ns, said.st_size)


@functools.lru_cache(maxsize=_KEPT_IN_MEMORY)
def _pack(path: str, windows: tuple[int, ...], _mtime_ns: int, _size: int) -> Packed:
    trace = load_trace(Path(path))
    chosen = [trace.windows[window] for window in windows]
    rights = np.zeros(len(trace.pages), np.int64)
    for window in trace.windows:
        for kind, bits in RIGHTS.items():
            rights[np.unique(window.page[window.kind == kind])] |= bits
    runs = np.concatenate([_runs(window.page, window.count, window.kind) for window in chosen])
    runs.flags.writeable = False
    used = np.flatnonzero(rights)
    nr_accesses = sum(window.nr_accesses for window in chosen)
    return Packed(runs, trace.pages, trace.pages[used], rights[used], nr_accesses)


def _runs(page: npt.NDArray[Any], count: npt.NDArray[Any], kind: npt.NDArray[np.uint8]) -> npt.NDArray[Any]:
    counts = count.astype(np.int64)
    pieces = -(-counts // MAX_RUN)
    which = np.repeat(np.arange(len(page)), pieces)
    last = np.cumsum(pieces) - 1
    runs = np.empty(len(which), TRACE_RUN)
    runs["page"] = page[which]
    lengths = np.full(len(which), MAX_RUN, np.int64)
    lengths[last] = counts - (pieces - 1) * MAX_RUN
    runs["word"] = (lengths << KIND_BITS) | kind[which]
    return runs


# --- the processes --------------------------------------------------------------------------------------


def start_trace(state: "State", index: int, work: WorkSpec, place: Place) -> None:
    """Give process ``index``, whose address space is empty, the areas of its trace, and its work.

    Raises ValueError, in one line, if the machine's paging mode or user space does not have the recorded
    addresses, there are too many areas, or no block of memory for a huge page.
    """
    record = state.work[index]
    mode = PAGING_MODES[PagingMode(state.knob[Knob.PAGING_MODE])]
    if not mode.levels:
        raise ValueError(
            f"processes.{index}.trace: {work.trace} needs its own addresses, and paging mode {mode.name} gives none"
        )
    end = (int(place.packed.used[-1]) + 1) << PAGE_SHIFT
    if end > state.knob[Knob.TASK_SIZE]:
        raise ValueError(
            f"processes.{index}.trace: {work.trace} uses addresses up to {end:#x}, but user space ends at"
            f" {state.knob[Knob.TASK_SIZE]:#x}"
        )
    shift = HUGE_PAGES[work.huge_pages]
    if shift != PAGE_SHIFT and "2MiB" not in [level.page_name for level in mode.levels]:
        raise ValueError(f"processes.{index}.huge_pages: {work.huge_pages}: paging mode {mode.name} has none")
    for start, behind, vm_flags in areas(place.packed, shift):
        if map_area(state, record.mm, start, behind, vm_flags) == NIL:
            raise ValueError(
                f"processes.{index}.trace: {work.trace} has more areas than the machine has left"
            )
        if shift == HUGE_PAGE_SHIFT:
            _populate(state, f"processes.{index}.huge_pages", record.mm, (start, behind))
    record.first_run = place.first_run
    record.nr_runs = len(place.packed.runs)
    record.first_page = place.first_page
    record.nr_pages = len(place.packed.used)
    record.operations = work.loops * place.packed.nr_accesses


def areas(packed: Packed, page_shift: int) -> list[tuple[int, int, int]]:
    """Return the areas of an address space whose pages have ``1 << page_shift`` bytes.

    Of each its start, the first address behind it, and VmFlag bits, in order of address.
    """
    first_of_unit, rights = _units(packed, page_shift - PAGE_SHIFT)
    breaks = np.flatnonzero((np.diff(first_of_unit) != 1) | (np.diff(rights) != 0)) + 1
    firsts = np.concatenate([[0], breaks])
    lasts = np.concatenate([breaks, [len(first_of_unit)]]) - 1
    return [
        (int(first_of_unit[a]) << page_shift, (int(first_of_unit[b]) + 1) << page_shift, int(rights[a]))
        for a, b in zip(firsts, lasts, strict=True)
    ]


def _units(packed: Packed, order: int) -> tuple[Ints, Ints]:
    """Return the aligned blocks of ``2**order`` pages that hold a page used, and the rights of each."""
    units, unit_of = np.unique(packed.used >> order, return_inverse=True)
    rights = np.zeros(len(units), np.int64)
    np.bitwise_or.at(rights, unit_of, packed.rights)
    return units, rights


@entry
def map_area(state: "State", mm_index: int, start: int, end: int, vm_flags: int) -> int:
    """Map [start, end), which is free, with ``vm_flags``; return the VMA, or NIL if there are too many."""
    index = insert_vma(state, mm_index, start, end, vm_flags)
    if index != NIL:
        vm_stat_account(state, mm_index, vm_flags, (end - start) >> PAGE_SHIFT)
    return index


def _populate(state: "State", where: str, mm_index: int, area: tuple[int, int]) -> None:
    for vaddr in range(*area, HUGE_PAGE_SIZE):
        if map_huge(state, mm_index, vaddr) == NIL:
            raise ValueError(f"{where}: the machine has no free 2 MiB block for {vaddr:#x}")
