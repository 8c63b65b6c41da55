"""The four kinds of frames in a report: what reclaim would have to do for each part of a machine's memory.

A row a kind and use, as sizes, at the last sample; then pages of processes and files by how they are mapped.
"""

from typing import Final

from cluster.report_chart import Table
from cluster.report_data import History
from cluster.report_numbers import as_percent, as_size
from cluster.report_page import Page, folded, table

_PREFIX: Final = "frames."
# Kind, use (a counter), words.
_USES: Final = (
    ("unreclaimable", "free", "free"),
    ("unreclaimable", "reserved", "reserved"),
    ("unreclaimable", "kernel", "the kernel's own"),
    ("unreclaimable", "locked", "held by a driver, or being moved"),
    ("unreclaimable", "mlocked", "locked in memory"),
    ("swappable", "anon", "anonymous pages"),
    ("swappable", "tmpfs", "shared memory"),
    ("syncable", "mapped_file", "mapped pages of files"),
    ("syncable", "page_cache", "page cache, not mapped"),
    ("discardable", "unused_slab", "unused slabs"),
)
_MAPPINGS: Final = (("unmapped", "not mapped"), ("mapped", "mapped once"), ("shared", "mapped by several"))


def add_frame_kinds(page: Page, machine: str, history: History) -> None:
    """Add the kinds of a machine's frames to a report; nothing if the run did not count them."""
    total = sum(history.last(f"{_PREFIX}use.{use}") for _, use, _ in _USES)
    if not total:
        return
    rows = []
    for kind, use, words in _USES:
        frames = history.last(f"{_PREFIX}use.{use}")
        rows.append([kind, words, as_size(frames), as_percent(frames / total)])
    for kind, whose in (("swappable", "anonymous"), ("swappable", "file"), ("syncable", "file")):
        for mapping, words in _MAPPINGS:
            frames = history.last(f"{_PREFIX}{kind}.{whose}.{mapping}")
            if frames:
                owner = "anonymous" if whose == "anonymous" else "of an object or a file"
                rows.append([f"of {kind}", f"{owner}, {words}", as_size(frames), as_percent(frames / total)])
    content = table(
        Table(["kind", "frames", "size", "share"], rows), label=f"Kinds of frames of {machine}", words=True
    )
    page.add(folded("Its frames as reclaim sees them", content))
