"""The frozen real-host study: the same guests' pages on a simulated host, its ksmd beside the real one.

Run it to see the table:  python -m tests.study.ksm_study
"""

import csv
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from node.counters import KsmStat
from node.guest.host import HostMachine
from shared.constants import MIB, NS_PER_MS, PAGE_SIZE
from shared.images import HostState, load_image
from shared.messages import GuestReport, HostPhase, encode

FOLDER = Path(__file__).resolve().parents[1] / "golden" / "ksm-study"
FROZEN = "frozen4-p1000-s0"
FINAL = {"pages_shared": 20405, "pages_sharing": 67926, "pages_unshared": 89052, "pages_volatile": 0}
EPOCH_NS = 4 * NS_PER_MS  # a tick of the host: no epoch holds two batches
MAX_EPOCHS = 100_000


@dataclass(frozen=True, slots=True)
class Counts:
    """Files of /sys/kernel/mm/ksm at one moment."""

    pages_scanned: int
    full_scans: int
    pages_shared: int
    pages_sharing: int
    pages_unshared: int
    pages_volatile: int


@dataclass(frozen=True, slots=True)
class Process:
    """A guest's process: the contents of its mergeable memory in scan order, and which pages are present."""

    name: str
    contents: npt.NDArray[np.int64]
    present: npt.NDArray[np.bool_]


def processes(tag: str = FROZEN) -> list[Process]:
    """Read the guests in scan order: RAM, then the present pages of the small areas behind it."""
    settings = json.loads((FOLDER / f"{tag}.json").read_text())
    areas = json.loads((FOLDER / f"{tag}.extra_vmas.json").read_text())
    found = []
    for guest in settings["guests"]:
        image = load_image(FOLDER / f"{tag}.{guest['name']}.npz")
        state = image.host_state[-1]
        hashes = [word for area in areas if area["guest"] == guest["name"] for word in area["hash64_present"]]
        extra = np.array(hashes, np.uint64).view(np.int64)
        ram = (state != HostState.ABSENT) & (state != HostState.ZERO_PAGE)
        found.append(
            Process(
                guest["name"],
                np.concatenate([image.contents(image.nr_snapshots - 1), extra]),
                np.concatenate([ram, np.ones(len(extra), bool)]),
            )
        )
    return found


def recorded(tag: str = FROZEN) -> list[Counts]:
    """Return the recorded rows without other guests' pages in the counts."""
    with (FOLDER / f"{tag}.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["foreign_rmap_items"] == "0"]
    return [Counts(**{name: int(row[name]) for name in Counts.__slots__}) for row in rows]


def perfect(contents: Sequence[npt.NDArray[np.int64]], max_page_sharing: int) -> dict[str, int]:
    """Compute what perfect merging of these pages gives: one frame for each 256 pages of equal content."""
    counts = np.unique(np.concatenate(contents), return_counts=True)[1]
    merged = counts[counts > 1]
    frames = -(-merged // max_page_sharing)
    return {
        "pages_shared": int(frames.sum()),
        "pages_sharing": int((merged - frames).sum()),
        "pages_unshared": int((counts == 1).sum()),
    }


def first_report(guest: int, process: Process) -> bytes:
    """Return the report of a guest that writes all of its present pages at once, by address."""
    gfns = np.flatnonzero(process.present).astype(np.int32)
    contents = process.contents[gfns]
    return encode(
        GuestReport(
            epoch=0,
            guest=guest,
            counters={},
            violation_time_ps=np.zeros(len(gfns), np.int64),
            violation_gfn=gfns,
            violation_vcpu=np.zeros(len(gfns), np.int16),
            violation_kind=np.ones(len(gfns), np.int8),
            changed_gfn=gfns,
            changed_content=contents,
            changed_word=np.zeros(len(gfns), np.int32),
            accessed_gfn=gfns,
        )
    )


def build_host(found: Sequence[Process], ksm: dict[str, Any], thp: str = "never") -> HostMachine:
    """Return a host with one process for each guest, its memory a quarter larger than what they use.

    ``thp`` says whether they are mapped by huge pages: "always", or "never".
    """
    pages = sum(int(process.present.sum()) for process in found)
    memory = (pages * PAGE_SIZE * 5 // 4 // MIB + 256) * MIB
    guests = [{"kind": "image", "memory_bytes": len(process.contents) * PAGE_SIZE} for process in found]
    return HostMachine(
        {
            "kind": "host",
            "memory_bytes": memory,
            "guests": guests,
            "ksm": {"run": 1} | ksm,
            "thp": {"enabled": thp},
        }
    )


def run_host(host: HostMachine, found: Sequence[Process], epoch_ns: int) -> Iterator[Counts]:
    """Let the guests write their pages, then ksmd run over them; yield its counts after every epoch."""
    reports = tuple(first_report(guest, process) for guest, process in enumerate(found))
    for epoch in range(MAX_EPOCHS):
        host.host_phase(HostPhase(epoch, epoch * epoch_ns, (epoch + 1) * epoch_ns, reports))
        reports = (b"",) * len(found)
        yield counts_of(host)


def counts_of(host: HostMachine) -> Counts:
    """Read ksmd's counters."""
    stat = {one: int(host.state.ksm_stat[one]) for one in KsmStat if one is not KsmStat.NR}
    merged = stat[KsmStat.PAGES_SHARED] + stat[KsmStat.PAGES_SHARING]
    return Counts(
        pages_scanned=stat[KsmStat.PAGES_SCANNED],
        full_scans=int(host.state.ksm_scan[0].seqnr),
        pages_shared=stat[KsmStat.PAGES_SHARED],
        pages_sharing=stat[KsmStat.PAGES_SHARING],
        pages_unshared=stat[KsmStat.PAGES_UNSHARED],
        pages_volatile=stat[KsmStat.RMAP_ITEMS] - merged - stat[KsmStat.PAGES_UNSHARED],
    )


def run_frozen(pages_scanned: int) -> list[Counts]:
    """Run the frozen study until ksmd has scanned so many pages; return its counts whenever they changed."""
    found = processes()
    host = build_host(found, {"model": "6.18", "pages_to_scan": 1000})
    samples: list[Counts] = []
    for counts in run_host(host, found, EPOCH_NS):
        if not samples or counts != samples[-1]:
            samples.append(counts)
        if counts.pages_scanned >= pages_scanned:
            break
    return samples


def at(samples: Sequence[Counts], pages_scanned: int) -> Counts:
    """Return the last sample with at most so many pages scanned."""
    return [sample for sample in samples if sample.pages_scanned <= pages_scanned][-1]


def table() -> str:
    """Run the study; lay recorded and simulated counters side by side at equal ``pages_scanned``."""
    rows = recorded()
    samples = run_frozen(rows[-1].pages_scanned)
    names = ("full_scans", "pages_shared", "pages_sharing", "pages_unshared", "pages_volatile")
    lines = ["recorded / simulated", f"{'pages_scanned':>14}" + "".join(f"{name:>17}" for name in names)]
    for row in rows:
        here = at(samples, row.pages_scanned)
        pairs = [f"{getattr(row, name)} / {getattr(here, name)}" for name in names]
        lines.append(f"{row.pages_scanned:>14}" + "".join(f"{pair:>17}" for pair in pairs))
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(table())
