"""Recorded guest memory: one ``.npz`` file a guest, with hashes and page types, never page contents.

    snapshot s, guest page p
        ids[s, p] ---------> content number c --> content_hash64[c], content_jhash2[c]
        page_class[s, p]     what the guest used the page for (PageClass)
        host_state[s, p]     what the recording host knew of it (HostState)

Content number 0 is the page of zeroes. Numbers are a file's own; equal bytes are told across files by
``content_ids``, the hash. On disk the numbers are delta coded: row 0 along the pages, other rows against the
row before. scenarios/data/README.md has the whole format.

A recording begins some seconds after its guest was *ready* (booted, data loaded); times here count from
that moment, which is time 0 of a replay.

``check_image`` is what runs before the first epoch. It and ``load_image`` raise ``ValueError`` with one line
that names the file, the column and what is wrong. Types and shapes are read before anything is unpacked;
nothing is ever unpickled.
"""

from dataclasses import dataclass
from enum import IntEnum
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from shared.columns import check_range, read_columns
from shared.constants import NS_PER_S

MAX_PAGES: Final = 1 << 24  # 64 GiB of guest
MAX_SNAPSHOTS: Final = 255
MAX_CONTENTS: Final = 1 << 30
MAX_FLAG_WORDS: Final = 256  # flag_idx is a byte
MAX_TIME_S: Final = 24 * 3600  # what the fixed-point rates of a replay are made for
FIRST_SNAPSHOT_S: Final = 5.0  # after the guest was ready, where a recording does not say
META_TIMES: Final = "snapshots_at_s_after_ready"

# Column: element type, and what its axes count (S snapshots, N pages, U contents, K flag words).
_COLUMNS: Final = {
    "content_hash64": ("uint64", "U"),
    "content_jhash2": ("uint32", "U"),
    "content_lz4": ("uint16", "U"),
    "content_zstd3": ("uint16", "U"),
    "content_lzo": ("uint16", "U"),
    "content_same8": ("uint8", "U"),
    "ids_delta": ("int32", "SN"),
    "flag_values": ("uint64", "K"),
    "flag_class": ("uint8", "K"),
    "flag_idx": ("uint8", "SN"),
    "host_state": ("uint8", "SN"),
    "t_start": ("float64", "S"),
}
_LIMIT_OF_AXIS: Final = {"S": MAX_SNAPSHOTS, "N": MAX_PAGES, "U": MAX_CONTENTS, "K": MAX_FLAG_WORDS}


class PageClass(IntEnum):
    """What the guest used a page for."""

    NOPAGE = 0
    FREE = 1
    RESERVED = 2  # kernel image, memmap, firmware
    SLAB = 3
    PGTABLE = 4
    ANON = 5
    ANON_THP = 6
    FILE = 7
    SHMEM = 8
    KERNEL_OTHER = 9  # stacks, per-CPU areas, vmalloc, virtio rings
    ZERO_PAGE = 10


class HostState(IntEnum):
    """What the recording host had for a guest page."""

    ABSENT = 0  # never touched
    SMALL = 1
    THP = 2  # part of a transparent huge page
    ZERO_PAGE = 3  # the host's shared page of zeroes
    KSM = 4
    SWAPPED = 5


@dataclass(frozen=True, slots=True)
class Image:
    """A recorded guest. S snapshots of N pages with U distinct contents."""

    ids: npt.NDArray[np.int64]  # [S, N] content number
    page_class: npt.NDArray[np.uint8]  # [S, N] PageClass
    host_state: npt.NDArray[np.uint8]  # [S, N] HostState
    content_ids: npt.NDArray[np.int64]  # [U] content id: the xxHash64 read as signed; 0 for zeroes
    content_jhash2: npt.NDArray[np.uint32]  # [U]
    time_ns: npt.NDArray[np.int64]  # [S] since the guest was ready
    meta: dict[str, Any]  # what the recording says of itself

    @property
    def nr_pages(self) -> int:
        """How many pages the guest has."""
        return int(self.ids.shape[1])

    @property
    def nr_snapshots(self) -> int:
        """How often the guest was recorded."""
        return int(self.ids.shape[0])

    def contents(self, snapshot: int) -> npt.NDArray[np.int64]:
        """Return the content id of every page in a snapshot."""
        contents: npt.NDArray[np.int64] = self.content_ids[self.ids[snapshot]]
        return contents


def check_image(path: Path) -> int:
    """Check a whole image and return its number of pages. Raises ``ValueError`` as ``load_image`` does."""
    return load_image(path).nr_pages


def load_image(path: Path) -> Image:
    """Read and check an image.

    Raises ``ValueError``, one line: the file is missing or cut short, a column is missing, of the wrong type
    or shape, or holds what cannot be.
    """
    path = Path(path)
    columns, meta = read_columns(path, "an image", _COLUMNS, _LIMIT_OF_AXIS)
    ids = columns["ids_delta"].astype(np.int64)
    ids[0] = np.cumsum(ids[0])
    ids = np.cumsum(ids, axis=0)
    check_range(path, "ids_delta", ids, len(columns["content_hash64"]))
    check_range(path, "flag_idx", columns["flag_idx"], len(columns["flag_values"]))
    check_range(path, "flag_class", columns["flag_class"], len(PageClass))
    check_range(path, "host_state", columns["host_state"], len(HostState))
    absent = (columns["host_state"] == HostState.ABSENT) & (ids != 0)
    if absent.any():
        snapshot, page = np.argwhere(absent)[0]
        raise ValueError(
            f"{path}: column host_state: page {page} of snapshot {snapshot} is absent but not zero"
        )
    return Image(
        ids=ids,
        page_class=columns["flag_class"][columns["flag_idx"]],
        host_state=columns["host_state"],
        content_ids=_content_ids(path, columns["content_hash64"]),
        content_jhash2=columns["content_jhash2"],
        time_ns=_times(path, columns["t_start"], meta),
        meta=meta,
    )


def _content_ids(path: Path, hashes: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
    """Return the content id of each content number. Two numbers of one content would hide a sharing."""
    ids = hashes.view(np.int64).copy()
    ids[0] = 0
    ascending = np.sort(ids)
    twice = ascending[1:][ascending[1:] == ascending[:-1]]
    if len(twice):
        raise ValueError(f"{path}: column content_hash64: {int(twice[0]):#x} stands for two contents")
    return ids


def _times(path: Path, starts: npt.NDArray[np.float64], meta: dict[str, Any]) -> npt.NDArray[np.int64]:
    """Return when each snapshot was taken, in ns after the guest was ready.

    The times that the recorder aimed at, if it says so: it met them within half a second. Otherwise the
    first snapshot stands at FIRST_SNAPSHOT_S and the others where the clock of the recording host puts them.
    """
    if not np.all(np.isfinite(starts)) or np.any(np.diff(starts) <= 0):
        raise ValueError(f"{path}: column t_start: the times of the snapshots do not rise")
    said = meta.get(META_TIMES)
    if said is None:
        times = [FIRST_SNAPSHOT_S + float(start - starts[0]) for start in starts]
    elif (
        isinstance(said, list)
        and len(said) == len(starts)
        and all(type(time_s) in {int, float} and 0 <= time_s <= MAX_TIME_S for time_s in said)
        and all(before < after for before, after in pairwise(said))
    ):
        times = [float(time_s) for time_s in said]
    else:
        raise ValueError(f"{path}: column meta: {META_TIMES} is not {len(starts)} rising times in seconds")
    if times[-1] > MAX_TIME_S:
        raise ValueError(f"{path}: column t_start: {times[-1]:.0f} s is above the limit of {MAX_TIME_S} s")
    return np.array([round(time_s * NS_PER_S) for time_s in times], np.int64)
