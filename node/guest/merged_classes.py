"""What the merged pages of image guests are: page cache, anonymous memory, slab, free pages and so on.

The recording says of each page in each snapshot what the guest used it for; ksmd's rmap_items say which pages
share a merged frame (as of ksmd's last look, like ksm_merging_pages of Linux). A page of a guest without a
recording is of class ``unknown``.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from node.ksm.records import ItemPlace
from node.pool import Pool
from shared.constants import PAGE_SHIFT
from shared.images import PageClass, load_image

if TYPE_CHECKING:
    from node.state import State

UNKNOWN: Final = "unknown"


class MergedClasses:
    """Counts merged pages by class. Images are read when the first count is asked for."""

    def __init__(self, guests: Sequence[Mapping[str, Any]]) -> None:
        self._guests = guests

    @cached_property
    def _recordings(self) -> list[tuple[npt.NDArray[np.int64], npt.NDArray[np.uint8]] | None]:
        """For each guest, when its snapshots were taken (ns of the run) and [S, N] page classes; or None."""
        images = {
            path: load_image(Path(path))
            for path in {guest["image"] for guest in self._guests if "image" in guest}
        }
        found: list[tuple[npt.NDArray[np.int64], npt.NDArray[np.uint8]] | None] = []
        for guest in self._guests:
            if "image" not in guest:
                found.append(None)
                continue
            image = images[guest["image"]]
            found.append((image.time_ns + guest.get("start_offset_ns", 0), image.page_class))
        return found

    def count(self, state: "State", now_ns: int) -> dict[str, int]:
        """Return ``merged_class.<class>``: guest pages that share a merged frame, by class at ``now_ns``."""
        items = np.asarray(state.rmap_item)[: state.pool[Pool.RMAP_ITEM].mark]
        shared = items[items["where"] == ItemPlace.STABLE_NODE]
        counts = {f"merged_class.{name.name.lower()}": 0 for name in PageClass} | {
            f"merged_class.{UNKNOWN}": 0
        }
        for index, recording in enumerate(self._recordings):
            guest = state.guest[index]
            gfn = (shared["vaddr"][shared["mm"] == guest.mm] - guest.ram_vaddr) >> PAGE_SHIFT
            if guest.killed:
                continue
            if recording is None:
                counts[f"merged_class.{UNKNOWN}"] += len(gfn)
                continue
            times, classes = recording
            row = max(int(np.searchsorted(times, now_ns, side="right")) - 1, 0)
            of_class = np.bincount(classes[row][gfn], minlength=len(PageClass))
            for name in PageClass:
                counts[f"merged_class.{name.name.lower()}"] += int(of_class[name])
        return counts
