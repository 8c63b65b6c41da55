"""The live real-host study: four running guests on a simulated host, its ksmd's counters beside the real one's.

Run it to see the table:  python -m tests.study.live_study

What is recorded: the guests' memory at the start and at the end, 190 s later, and ksmd's counters every second.
What is not: when which page changed in between. That is drawn, from guests of the same kind whose memory
was recorded six times (scenarios/data):

    a page that is the same at the start and at the end    never changes
    any other page, of a class (free, anonymous, ...)      draws how often pages of this class changed in those
                                                           guests, and changes at that rate; what it holds
                                                           after the last change is recorded, before: unique

Guests live in recorded time and ksmd in its own, so after each of ksmd's batches the guests go on to when the real
one had scanned as many pages.

The recorded host had huge pages. The study runs in three ways, to tell what they change: on a host that has them
(``thp``), on one without, and on one without to whose pages of zeroes is done what splitting huge pages does
(tests/study/huge_pages.py).
"""

import csv
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from node.counters import VmStat
from node.guest.host import HostMachine
from shared.constants import NS_PER_S, PS_PER_NS
from shared.images import HostState, Image, PageClass, load_image
from shared.messages import GuestReport, HostAnswer, HostPhase, decode_as, encode
from shared.views import View
from tests.study.huge_pages import drop_pages
from tests.study.ksm_study import EPOCH_NS, FOLDER, Counts, Process, at, build_host, counts_of

LIVE: Final = "live4-p1000-s0"
DATA: Final = Path(__file__).resolve().parents[2] / "scenarios" / "data"
KIN: Final = {
    "idle": ("idle-a", "idle-b"),
    "nginx": ("nginx-a", "nginx-b"),
    "python": ("python-a", "python-b"),
}
HUGE: Final = 512
START, END = 0, 1
HOT_PERIOD_S: Final = 1.0  # as node/guest/image.py has it
SHOWN: Final = ("pages_shared", "pages_sharing", "pages_unshared", "pages_volatile")
MAX_EPOCHS: Final = 100_000
WAYS: Final[dict[str, dict[str, Any]]] = {
    "a host with huge pages": {"huge_pages": False, "thp": "always"},
    "a host without, its pages of zeroes split from outside": {"huge_pages": True},
    "a host without": {"huge_pages": False},
}


@dataclass(frozen=True, slots=True)
class Moves:
    """What a guest does, in the order of time."""

    time_s: npt.NDArray[np.float64]
    gfn: npt.NDArray[np.int32]
    content: npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Rates:
    """How often pages changed in guests of one kind, class by class."""

    changes: npt.NDArray[np.int64]  # [PageClass, k] pages that changed in k of the spans
    span_s: float

    def weights(self, page_class: int, seconds: float) -> npt.NDArray[np.float64]:
        """Return how likely a page of the class that did change in ``seconds`` has each k."""
        counts = self.changes[page_class].astype(float)
        counts[0] = 0
        if not counts.any():  # none of this class changed in those guests: any class will do
            counts = self.changes.sum(axis=0).astype(float)
            counts[0] = 0
        counts *= -np.expm1(-self.rate() * seconds)
        weights: npt.NDArray[np.float64] = counts / counts.sum()
        return weights

    def rate(self) -> npt.NDArray[np.float64]:
        """Return the changes in a second of a page with each k; infinite for the last, a hot page."""
        nr_spans = self.changes.shape[1] - 1
        with np.errstate(divide="ignore"):
            rates: npt.NDArray[np.float64] = -np.log(1 - np.arange(nr_spans + 1) / nr_spans) / self.span_s
        return rates


def rates_of(workload: str) -> Rates:
    """Count changes in the recorded guests of a kind."""
    images = [load_image(DATA / f"{name}.npz") for name in KIN[workload]]
    nr_spans = images[0].nr_snapshots - 1
    changes = np.zeros((len(PageClass), nr_spans + 1), np.int64)
    for image in images:
        present = image.host_state[0] != HostState.ABSENT
        nr_changes = (image.ids[1:] != image.ids[:-1]).sum(axis=0)
        np.add.at(changes, (image.page_class[0][present], nr_changes[present]), 1)
    times = images[0].time_ns
    return Rates(changes, float(times[-1] - times[0]) / nr_spans / NS_PER_S)


def change_times(rate: float, seconds: float, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Draw the moments at which a page that changes in [0, ``seconds``) does so."""
    if np.isinf(rate):
        return np.arange(rng.random() * HOT_PERIOD_S, seconds, HOT_PERIOD_S)
    now = -np.log1p(rng.random() * np.expm1(-rate * seconds)) / rate
    times = []
    while now < seconds:
        times.append(now)
        now += rng.exponential(1 / rate)
    return np.array(times)


def moves_of(image: Image, rates: Rates, seconds: float, rng: np.random.Generator) -> Moves:
    """Draw what becomes of a guest's pages between its two snapshots."""
    start, end = image.contents(START), image.contents(END)
    present = image.host_state != HostState.ABSENT
    arrival = np.zeros(image.nr_pages)
    times, gfns, contents = [], [], []
    for huge in range(0, image.nr_pages, HUGE):
        if present[END, huge] and not present[START, huge]:
            moment = rng.random() * seconds
            arrival[huge : huge + HUGE] = moment
            times.append(np.full(HUGE, moment))
            gfns.append(np.arange(huge, huge + HUGE))
            contents.append(np.zeros(HUGE, np.int64))
    rate = rates.rate()
    weights = [rates.weights(page_class, seconds) for page_class in range(len(PageClass))]
    for gfn in np.flatnonzero(start != end):
        k = rng.choice(len(rate), p=weights[image.page_class[START, gfn]])
        left = seconds - arrival[gfn]
        moments = arrival[gfn] + change_times(rate[k], left, rng)
        held = rng.integers(1, 1 << 62, len(moments))
        held[-1:] = end[gfn]
        times.append(moments)
        gfns.append(np.full(len(moments), gfn))
        contents.append(held)
    time_s = np.concatenate(times)
    order = np.argsort(time_s, kind="stable")
    return Moves(time_s[order], np.concatenate(gfns)[order].astype(np.int32), np.concatenate(contents)[order])


def small_areas(guest: str) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """Return contents and presence of QEMU's areas behind a guest's RAM: that of 2 MiB, then the others.

    What was present at the end is recorded; the rest, all of it zeroes, was there at the start.
    """
    areas = [
        area
        for area in json.loads((FOLDER / f"{LIVE}.extra_vmas.json").read_text())
        if area["guest"] == guest
    ]
    contents = np.zeros(2 * HUGE, np.int64)
    present = np.zeros(2 * HUGE, bool)
    behind = HUGE
    for area in areas:
        hashes = np.array(area["hash64_present"], np.uint64).view(np.int64)
        if area["pages"] == HUGE:
            contents[: len(hashes)] = hashes
            present[:HUGE] = True
        else:
            contents[behind : behind + len(hashes)] = hashes
            present[behind : behind + len(hashes)] = True
            behind += len(hashes)
    return contents, present


class LiveGuest:
    """A running guest: its pages now, and what it is still going to do."""

    def __init__(self, index: int, name: str, moves: Moves) -> None:
        image = load_image(FOLDER / f"{LIVE}.{name}.npz")
        contents, present = small_areas(name)
        self.index = index
        self.moves = moves
        self.next_move = 0
        self.content = np.concatenate([image.contents(START), contents])
        self.present = np.concatenate([image.host_state[START] != HostState.ABSENT, present])
        self.view = np.full(len(self.content), View.UNTOUCHED, np.int8)
        self.whole = np.ones(len(self.content) // HUGE, bool)  # [huge page] not split
        ever = np.concatenate([(image.host_state != HostState.ABSENT).any(axis=0), present])
        self.process = Process(name, self.content, ever)

    def start(self, epoch: int, now_ns: int) -> bytes:
        """Return the report of a guest that writes all of its present pages."""
        return self._report(epoch, now_ns, np.flatnonzero(self.present).astype(np.int32))

    def run(self, epoch: int, now_ns: int, until_s: float) -> bytes:
        """Go on to ``until_s`` of recorded time; return the report of it, b"" if nothing changed."""
        begin = self.next_move
        self.next_move = int(np.searchsorted(self.moves.time_s, until_s))
        if self.next_move == begin:
            return b""
        gfns = self.moves.gfn[begin : self.next_move]
        self.content[gfns] = self.moves.content[begin : self.next_move]  # of several, the last stays
        changed = np.unique(gfns)
        self.present[changed] = True
        return self._report(epoch, now_ns, changed)

    def _report(self, epoch: int, now_ns: int, changed: npt.NDArray[np.int32]) -> bytes:
        asked = changed[self.view[changed] != View.WRITABLE]
        self.view[changed] = View.WRITABLE
        return encode(
            GuestReport(
                epoch=epoch,
                guest=self.index,
                counters={},
                violation_time_ps=np.full(len(asked), now_ns * PS_PER_NS, np.int64),
                violation_gfn=asked,
                violation_vcpu=np.zeros(len(asked), np.int16),
                violation_kind=np.ones(len(asked), np.int8),
                changed_gfn=changed,
                changed_content=self.content[changed],
                changed_word=np.zeros(len(changed), np.int32),
                accessed_gfn=changed,
            )
        )

    def take(self, answer: HostAnswer) -> npt.NDArray[np.int32]:
        """Take the host's answer; return the pages of zeroes of huge pages in which ksmd has merged."""
        self.view[answer.view_gfn] = answer.view_level
        merged = answer.view_gfn[answer.view_level == View.READ_ONLY]
        split = np.unique(merged // HUGE)
        split = split[self.whole[split]]
        self.whole[split] = False
        gfns = (split[:, None] * HUGE + np.arange(HUGE)).ravel()
        zeroes: npt.NDArray[np.int32] = gfns[self.present[gfns] & (self.content[gfns] == 0)].astype(np.int32)
        return zeroes

    def forget(self, gfns: npt.NDArray[np.int32]) -> None:
        """Know that the host has nothing any more behind these pages."""
        self.present[gfns] = False
        self.view[gfns] = View.UNTOUCHED


class RecordedTime:
    """When the real ksmd had scanned how many pages."""

    def __init__(self) -> None:
        with (FOLDER / f"{LIVE}.csv").open() as file:
            rows = [(int(row["pages_scanned"]), float(row["t"])) for row in csv.DictReader(file)]
        latest = dict(rows)  # while it did not get on, the guests did
        self.pages_scanned = np.array(list(latest))
        self.time_s = np.array(list(latest.values()))
        self.seconds = float(self.time_s[-1])

    def at(self, pages_scanned: int) -> float:
        """Return the recorded time in s."""
        return float(np.interp(pages_scanned, self.pages_scanned, self.time_s))


def build_guests(seconds: float, seed: int) -> list[LiveGuest]:
    """Return the four guests with their futures drawn from ``seed``."""
    settings = json.loads((FOLDER / f"{LIVE}.json").read_text())
    guests = []
    for index, guest in enumerate(settings["guests"]):
        image = load_image(FOLDER / f"{LIVE}.{guest['name']}.npz")
        rng = np.random.default_rng([seed, index])
        moves = moves_of(image, rates_of(guest["workload"]), seconds, rng)
        guests.append(LiveGuest(index, guest["name"], moves))
    return guests


def split_huge_pages(host: HostMachine, guests: Sequence[LiveGuest], answers: Sequence[bytes]) -> None:
    """Do to the guests' pages of zeroes what splitting their huge pages does."""
    for guest, answer in zip(guests, answers, strict=True):
        zeroes = guest.take(decode_as(HostAnswer, answer))
        if len(zeroes):
            np.asarray(host.state.incoming)[: len(zeroes)] = zeroes
            drop_pages(host.state, guest.index, len(zeroes))
            guest.forget(zeroes)


@dataclass(frozen=True, slots=True)
class Study:
    """A run: ksmd's counts whenever they changed, and what was left in the end."""

    samples: list[Counts]
    sharing_zero: int  # pages of zeroes that ksmd merged, in pages_sharing
    whole_huge_pages: int


def run_live(*, huge_pages: bool, thp: str = "never", seed: int = 1) -> Study:
    """Run the study up to where the recorded one ended; ``thp`` is the host's, ``huge_pages`` acts in place of it."""
    clock = RecordedTime()
    guests = build_guests(clock.seconds, seed)
    host = build_host([guest.process for guest in guests], {"model": "6.18", "pages_to_scan": 1000}, thp)
    samples: list[Counts] = []
    until_s = 0.0
    for epoch in range(MAX_EPOCHS):
        begin, end = epoch * EPOCH_NS, (epoch + 1) * EPOCH_NS
        if epoch == 0:
            reports = tuple(guest.start(epoch, begin) for guest in guests)
        else:
            reports = tuple(guest.run(epoch, begin, until_s) for guest in guests)
        answers = host.host_phase(HostPhase(epoch, begin, end, reports))
        if huge_pages:
            split_huge_pages(host, guests, answers)
        else:
            for guest, answer in zip(guests, answers, strict=True):
                guest.take(decode_as(HostAnswer, answer))
        counts = counts_of(host)
        if not samples or counts != samples[-1]:
            samples.append(counts)
        until_s = clock.at(counts.pages_scanned)
        if counts.pages_scanned >= clock.pages_scanned[-1]:
            break
    whole = sum(int((guest.whole & guest.present.reshape(-1, HUGE).any(axis=1)).sum()) for guest in guests)
    if thp != "never":
        whole = int(host.state.vm_stat[VmStat.NR_ANON_TRANSPARENT_HUGEPAGES])
    return Study(samples, host.machine.counters()["ksm.sharing_zero"], whole)


def recorded_rows() -> list[Counts]:
    """Return what was recorded while no other guests ran, from the first batch on.

    Pages of guests that are gone count as volatile until ksmd comes by. They are left out: every page of the
    four is one of theirs, in ``ksm_stat`` of their processes.
    """
    guests = [guest["name"] for guest in json.loads((FOLDER / f"{LIVE}.json").read_text())["guests"]]
    with (FOLDER / f"{LIVE}.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["foreign_rmap_items"] == "0"]
    found = []
    for row in rows:
        numbers = {name: int(row[name]) for name in Counts.__slots__}
        pages = sum(int(row[f"{guest}_ksm_rmap_items"]) for guest in guests)
        placed = sum(numbers[name] for name in ("pages_shared", "pages_sharing", "pages_unshared"))
        found.append(Counts(**numbers | {"pages_volatile": pages - placed}))
    return [row for row in found if row.pages_scanned > 0]


def table(study: Study) -> str:
    """Lay recorded and simulated counters side by side at equal ``pages_scanned``."""
    names = ("full_scans", *SHOWN)
    lines = [f"{'pages_scanned':>14}" + "".join(f"{name:>17}" for name in names)]
    for row in recorded_rows():
        here = at(study.samples, row.pages_scanned)
        pairs = [f"{getattr(row, name)} / {getattr(here, name)}" for name in names]
        lines.append(f"{row.pages_scanned:>14}" + "".join(f"{pair:>17}" for pair in pairs))
    lines.append(
        f"merged pages of zeroes {study.sharing_zero}, huge pages left whole {study.whole_huge_pages}"
    )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    for title, arguments in WAYS.items():
        sys.stdout.write(f"recorded / simulated, {title}\n")
        sys.stdout.write(table(run_live(**arguments)))
