"""``ImageGuest``: a recorded guest as a member of a fleet. ``node/guest/replay.py`` has what it does.

Clones of one image share what real clones share, the files and the kernel that they were made of, and have
processes of their own. So in a clone (``variant`` other than 0) a content that the recording shows in
anonymous or shared memory, or in nothing but free pages, is a content of the clone's own. Whether a content
is its own is decided once for all its pages and snapshots: what looked equal inside the recording looks
equal inside the clone, and a page that is freed keeps its stale content.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from node.guest.replay import ImageState, Replay, ReplayMode, end_epoch, run_replay, start_replay
from node.hw.cost import DEFAULT_CYCLES, PS_PER_CYCLE_AT_1_GHZ, REFERENCE_GHZ, Cost
from shared.constants import NIL, NS_PER_S, PS_PER_NS
from shared.images import HostState, Image, PageClass, load_image
from shared.messages import GuestReport, HostAnswer, HostPhase, RunUntil, decode_as, encode
from shared.snapshot import Table, pack_snapshot, tables_digest, unpack_snapshot
from shared.streams import (
    SPLITMIX_GAMMA,
    SPLITMIX_MULTIPLIER_0,
    SPLITMIX_MULTIPLIER_1,
    Purpose,
    Stream,
    splitmix64,
)
from shared.views import View

DEFAULT_HOT_PERIOD_NS: Final = NS_PER_S
VIOLATION_PS: Final = int(DEFAULT_CYCLES[Cost.EPT_VIOLATION] * PS_PER_CYCLE_AT_1_GHZ / REFERENCE_GHZ)
_TO_SIGNED: Final = 1 << 63
_TWO_TO_64: Final = 1 << 64
SHARED_CLASSES: Final = (
    PageClass.NOPAGE,
    PageClass.RESERVED,
    PageClass.SLAB,
    PageClass.PGTABLE,
    PageClass.FILE,
    PageClass.KERNEL_OTHER,
    PageClass.ZERO_PAGE,
)


class ImageGuest:
    """A guest that replays a recorded memory image.

    ``spec`` has image (path), seed, machine (number, which with the seed keys its draws), guest (index on its
    host), and optionally start_offset_ns, variant, presence ("thp" or "nonzero"), replay ("rate", "once", or
    "frozen": snapshot number ``snapshot`` is all there ever is), boot_ns (the span of the first touches; the
    time of the first snapshot, 0 if frozen) and hot_period_ns (1 s).

    Raises ``ValueError`` for a wrong image or a key's wrong value.
    """

    kind = "image"

    def __init__(self, spec: Mapping[str, Any]) -> None:
        self.guest = int(spec["guest"])
        self.finished = False
        self.killed = False
        image = load_image(Path(spec["image"]))
        frozen = spec.get("replay", "rate") == "frozen"
        present = _presence(image, spec.get("presence", "thp"))
        contents = _variant(image, int(spec.get("variant", 0)))
        recorded, times = image.ids, image.time_ns
        if frozen:
            snapshot = _choose_snapshot(image, int(spec.get("snapshot", 0)))
            recorded, present, times = recorded[[snapshot]], present[[snapshot]], times[:1]
        self.state = _new_state(recorded, contents)
        _fill(self.state, recorded, contents, times)
        _plan(self.state, present)
        _set_variables(self.state, spec, 0 if frozen else int(times[0]))
        start_replay(self.state)
        fixed = [(name, table) for name, table in self.state.tables() if _used(name) == "fixed"]
        settings = np.asarray(self.state.var)[: Replay.GUEST_PS]
        self._identity = f"image {tables_digest([*fixed, ('settings', settings)])}"

    def run_epoch(self, order: RunUntil) -> bytes:
        """Replay the span of ``order``; return an encoded ``GuestReport``."""
        var = self.state.var
        if order.answer:
            self._apply(decode_as(HostAnswer, order.answer))
        if not self.killed:
            var[Replay.END_PS] = order.end_ns * PS_PER_NS
            run_replay(self.state)
        report = self._report(order.epoch)
        end_epoch(self.state)
        return report

    def host_phase(self, order: HostPhase) -> list[bytes]:
        """Refuse: an image guest is no host."""
        raise TypeError(f"an image guest has no host phase (epoch {order.epoch})")

    def counters(self) -> dict[str, int]:
        """Return events and levels, cumulative since the start."""
        var = self.state.var
        return {
            "run_ns": var[Replay.GUEST_PS] // PS_PER_NS,
            "stall_ns": (var[Replay.LAG_PS] - var[Replay.OFFSET_PS]) // PS_PER_NS,
            "touched_pages": var[Replay.TOUCHED_PAGES],
            "changes": var[Replay.CHANGES],
            "ept_violation": var[Replay.EPT_VIOLATIONS],
        }

    def look(self) -> bytes:
        """Return b"": a replay has no kernel whose files could be read."""
        return b""

    def contents(self) -> npt.NDArray[np.int64]:
        """Return the content id of every frame, by gfn."""
        return np.asarray(self.state.page)["content"].copy()

    def audit(self, _contents: Sequence[bytes]) -> bytes:
        """Return ``contents()`` as bytes; a replay has no invariants of its own."""
        return self.contents().tobytes()

    def snapshot(self) -> bytes:
        """Return the complete state."""
        return pack_snapshot(self._identity, self._tables())

    def restore(self, data: bytes) -> None:
        """Take over the state of ``snapshot``. Raises ``ValueError`` if ``data`` is anything else."""
        saved = unpack_snapshot(self._identity, data)
        for name, table in self._tables():
            if name not in saved or saved[name].nbytes != table.nbytes:
                raise ValueError(f"snapshot: table {name} is missing or of another length")
            table.view(np.uint8)[:] = np.frombuffer(saved[name], np.uint8)
        self.killed = bool(np.asarray(self.state.var)[Replay.KILLED])

    def digest(self) -> str:
        """Return the hash of the state, as hexadecimal digits."""
        return tables_digest(self._tables())

    def _tables(self) -> list[tuple[str, Table]]:
        """Return what changes while the guest runs and outlives an epoch."""
        return [(name, table) for name, table in self.state.tables() if _used(name) == "all"]

    def _apply(self, answer: HostAnswer) -> None:
        state = self.state
        if len(answer.view_gfn):
            _check_gfns(answer.view_gfn, len(state.ept_view))
            np.asarray(state.ept_view)[answer.view_gfn] = answer.view_level
        if len(answer.stall_ps):
            state.var[Replay.OWED_PS] += int(answer.stall_ps[0])
        state.var[Replay.ESTIMATE_PS] = answer.estimate_ns * PS_PER_NS
        if answer.killed:
            self.killed = True
            state.var[Replay.KILLED] = 1

    def _report(self, epoch: int) -> bytes:
        state = self.state
        violations = np.asarray(state.violation)[: state.var[Replay.NR_VIOLATIONS]]
        changed = np.asarray(state.changed)[: state.var[Replay.NR_CHANGED]]
        return encode(
            GuestReport(
                epoch=epoch,
                guest=self.guest,
                counters=self.counters(),
                violation_time_ps=violations["time_ps"].copy(),
                violation_gfn=violations["gfn"].copy(),
                violation_vcpu=violations["vcpu"].copy(),
                violation_kind=violations["kind"].copy(),
                changed_gfn=changed.copy(),
                changed_content=np.asarray(state.page)["content"][changed],
                changed_word=np.zeros(len(changed), np.int32),
                accessed_gfn=np.asarray(state.accessed)[: state.var[Replay.NR_ACCESSED]].copy(),
                finished=self.killed,
            )
        )


# --- building -----------------------------------------------------------------------------------------


def _used(name: str) -> str:
    return ImageState.LAYOUT[name].used


def _new_state(recorded: npt.NDArray[np.int64], contents: npt.NDArray[np.int64]) -> ImageState:
    nr_snapshots, nr_pages = recorded.shape
    return ImageState(
        panic=4,
        var=Replay.NR,
        page=nr_pages,
        ept_view=nr_pages,
        heap=nr_pages,
        violation=nr_pages,
        changed=nr_pages,
        accessed=nr_pages,
        plan=nr_pages,
        recorded=nr_snapshots * nr_pages,
        content_id=len(contents),
        time_ns=nr_snapshots,
    )


def _fill(
    state: ImageState,
    recorded: npt.NDArray[np.int64],
    contents: npt.NDArray[np.int64],
    times: npt.NDArray[np.int64],
) -> None:
    np.asarray(state.recorded)[:] = recorded.ravel()
    np.asarray(state.content_id)[:] = contents
    np.asarray(state.time_ns)[:] = times
    np.asarray(state.ept_view)[:] = View.UNTOUCHED


def _plan(state: ImageState, present: npt.NDArray[np.bool_]) -> None:
    first = np.where(present.any(axis=0), present.argmax(axis=0), NIL)
    np.asarray(state.plan)["first_snapshot"] = first


def _set_variables(state: ImageState, spec: Mapping[str, Any], default_boot_ns: int) -> None:
    replay = spec.get("replay", "rate")
    if replay not in {"rate", "once", "frozen"}:
        raise ValueError(f"replay: {replay!r} is none of rate, once, frozen")
    hot_period_ns = int(spec.get("hot_period_ns", DEFAULT_HOT_PERIOD_NS))
    if hot_period_ns < 1:
        raise ValueError(f"hot_period_ns: {hot_period_ns} is below 1")
    seed, machine = int(spec["seed"]), int(spec["machine"])
    var = state.var
    var[Replay.NR_PAGES] = len(state.page)
    var[Replay.NR_SNAPSHOTS] = len(state.time_ns)
    var[Replay.MODE] = ReplayMode.ONCE if replay == "once" else ReplayMode.RATE
    var[Replay.DRAW_KEY] = _signed(Stream(seed, machine, Purpose.REPLAY).word())
    var[Replay.CONTENT_KEY] = _signed(Stream(seed, machine, Purpose.CONTENT).word())
    var[Replay.HOT_PERIOD_NS] = hot_period_ns
    var[Replay.BOOT_NS] = int(spec.get("boot_ns", default_boot_ns))
    var[Replay.VIOLATION_PS] = VIOLATION_PS
    var[Replay.OFFSET_PS] = int(spec.get("start_offset_ns", 0)) * PS_PER_NS


def _presence(image: Image, presence: str) -> npt.NDArray[np.bool_]:
    """Return [S, N] whether the guest has touched a page by a snapshot.

    The recordings know it at the grain of a huge page, 2 MiB ("thp"). "nonzero" leaves out the pages that are
    zero in every snapshot, and so may never have been touched themselves.
    """
    touched: npt.NDArray[np.bool_] = image.host_state != HostState.ABSENT
    if presence == "thp":
        return touched
    if presence == "nonzero":
        touched &= (image.ids != 0).any(axis=0)
        return touched
    raise ValueError(f"presence: {presence!r} is none of thp, nonzero")


def _choose_snapshot(image: Image, snapshot: int) -> int:
    if not 0 <= snapshot < image.nr_snapshots:
        raise ValueError(f"snapshot: {snapshot} is outside 0..{image.nr_snapshots - 1}")
    return snapshot


def _variant(image: Image, variant: int) -> npt.NDArray[np.int64]:
    """Return the content id of each content number, in a clone with contents of its own where it has such."""
    if variant == 0:
        return image.content_ids
    is_shared = np.zeros(len(image.content_ids), bool)
    is_shared[0] = True
    is_shared[image.ids[np.isin(image.page_class, SHARED_CLASSES)]] = True
    key = np.uint64(splitmix64(variant, 0))
    own = _mix64(image.content_ids.view(np.uint64) ^ key).view(np.int64)
    return np.where(is_shared, image.content_ids, own)


def _mix64(words: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Scramble each word one-to-one: the first word of the splitmix64 generator that it seeds."""
    words = words + np.uint64(SPLITMIX_GAMMA)
    words = (words ^ words >> np.uint64(30)) * np.uint64(SPLITMIX_MULTIPLIER_0)
    words = (words ^ words >> np.uint64(27)) * np.uint64(SPLITMIX_MULTIPLIER_1)
    return words ^ words >> np.uint64(31)


def _signed(word: int) -> int:
    return word - _TWO_TO_64 if word >= _TO_SIGNED else word


def _check_gfns(gfns: npt.NDArray[np.int32], nr_pages: int) -> None:
    if gfns.min() < 0 or gfns.max() >= nr_pages:
        raise ValueError(f"view_gfn: {gfns.min()}..{gfns.max()} is outside 0..{nr_pages - 1}")
