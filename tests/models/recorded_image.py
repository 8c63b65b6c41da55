"""Small recorded images for tests: written as the recorder writes them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from shared.images import HostState, PageClass


def columns_of(
    ids: npt.ArrayLike,
    *,
    classes: npt.ArrayLike = PageClass.ANON,
    host_state: npt.ArrayLike = HostState.THP,
    times_s: tuple[float, ...] = (5, 10, 20, 40, 80, 140),
) -> dict[str, Any]:
    """Return the columns of an image whose page p holds content number ids[s, p] in snapshot s.

    The hash of content number c is c * 1000 + 7. Absent pages must be zero.
    """
    numbers = np.asarray(ids, np.int64)
    nr_contents = int(numbers.max()) + 1
    delta = np.diff(numbers, axis=0, prepend=0)
    delta[0] = np.diff(numbers[0], prepend=0)
    hashes = np.arange(nr_contents, dtype=np.uint64) * np.uint64(1000) + np.uint64(7)
    hashes[0] = 0
    meta = {"name": "test", "snapshots_at_s_after_ready": list(times_s[: len(numbers)])}
    return {
        "content_hash64": hashes,
        "content_jhash2": np.arange(nr_contents, dtype=np.uint32),
        "content_lz4": np.full(nr_contents, 2000, np.uint16),
        "content_zstd3": np.full(nr_contents, 1500, np.uint16),
        "content_lzo": np.full(nr_contents, 2000, np.uint16),
        "content_same8": np.zeros(nr_contents, np.uint8),
        "ids_delta": delta.astype(np.int32),
        "flag_values": np.arange(len(PageClass), dtype=np.uint64),
        "flag_class": np.arange(len(PageClass), dtype=np.uint8),
        "flag_idx": np.broadcast_to(np.asarray(classes, np.uint8), numbers.shape).copy(),
        "host_state": np.broadcast_to(np.asarray(host_state, np.uint8), numbers.shape).copy(),
        "t_start": np.array(times_s[: len(numbers)], np.float64) + 100,
        "meta": np.array(json.dumps(meta)),
    }


def write_image(path: Path, columns: dict[str, Any]) -> Path:
    """Write the columns to ``path`` and return it."""
    np.savez_compressed(path, **columns)
    return path
