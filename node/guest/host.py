"""``HostMachine``: a machine that runs guests, as a member. Its kernels: node/guest/host_guests.py.

The Python of this file sorts and copies arrays; what an epoch does to memory happens in the kernels.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from node.counters import Current, Knob, Request
from node.guest.host_guests import (
    next_estimate,
    serve_traffic,
    settle_views,
    take_contents,
    void_contents,
)
from node.guest.merged_classes import MergedClasses
from node.machine import Machine
from node.state import State
from node.vm.madvise import madvise_mergeable
from node.vm.mm_init import new_mm
from node.vm.mmap import MapFlag, do_mmap, mmap
from node.vm.thp import ThpMode
from node.vm.vma import VmFlag
from shared.constants import HUGE_PAGE_SIZE, NIL, PAGE_SIZE, PS_PER_NS
from shared.images import load_image
from shared.messages import GuestReport, HostAnswer, HostPhase, RunUntil, decode_as, encode


class HostMachine:
    """A host with the RAM of its guests mapped, one process each, in the order of ``spec["guests"]``.

    Raises ``ValueError`` if the host is too small for its own kernel and the guests' first page tables.
    """

    kind = "host"

    def __init__(self, spec: Mapping[str, Any]) -> None:
        self.machine = Machine(_with_recorded(spec))
        self._merged_classes = MergedClasses(spec["guests"])
        self._first_gfn = [0]  # position of each guest's gfn 0, and behind the last
        for index, guest in enumerate(spec["guests"]):
            self._add_guest(index, guest)

    @property
    def state(self) -> State:
        """The machine's state."""
        return self.machine.state

    def _add_guest(self, index: int, spec: Mapping[str, Any]) -> None:
        state = self.state
        mm = new_mm(state)
        if mm == NIL:
            raise ValueError(f"memory: the host has no page left for the process of guest {index}")
        nr_gfns = spec["memory_bytes"] // PAGE_SIZE
        start = self._map_ram(mm, spec["memory_bytes"])
        if start < 0:
            raise ValueError(f"memory: the RAM of guest {index} does not fit an address space of the host")
        madvise_mergeable(state, mm, start, start + spec["memory_bytes"])
        state.mm[mm].guest = index
        guest = state.guest[index]
        guest.mm = mm
        guest.ram_vaddr = start
        guest.nr_gfns = nr_gfns
        guest.view_base = self._first_gfn[index]
        guest.nr_vcpus = spec.get("cpus", 1)
        if index:
            before = state.guest[index - 1]
            guest.vcpu_base = before.vcpu_base + before.nr_vcpus
        self._first_gfn.append(self._first_gfn[index] + nr_gfns)

    def _map_ram(self, mm: int, nr_bytes: int) -> int:
        """Map a guest's RAM; return its address, or a negative number.

        Not reserved: a host may promise its guests more than it has. On a host with huge pages it begins at a border of
        one, as QEMU's does (qemu_ram_mmap).
        """
        state = self.state
        rights = VmFlag.READ | VmFlag.WRITE
        if state.knob[Knob.THP_ENABLED] == ThpMode.NEVER:
            return mmap(state, mm, nr_bytes, rights | VmFlag.NORESERVE)
        for place, value in enumerate((0, nr_bytes, rights, MapFlag.NORESERVE, 0, 0, HUGE_PAGE_SIZE)):
            state.request[Request.A0 + place] = value
        return do_mmap(state, mm)

    @property
    def nr_guests(self) -> int:
        """How many guests there are, killed ones included."""
        return len(self.state.guest)

    def run_epoch(self, order: RunUntil) -> bytes:
        """Refuse: a host follows its guests."""
        raise TypeError(f"a host runs in its host phase only (epoch {order.epoch})")

    def host_phase(self, order: HostPhase) -> list[bytes]:
        """Serve the guests' reports of one epoch; return an encoded ``HostAnswer`` for each guest.

        A guest that rests has b"" for its report. Raises ``ValueError`` for reports that do not fit the host.
        """
        state = self.state
        if len(order.reports) != self.nr_guests:
            raise ValueError(f"reports: {len(order.reports)}, but the host has {self.nr_guests} guests")
        reports = [
            self._decode(data, index, order.epoch) if data and not state.guest[index].killed else None
            for index, data in enumerate(order.reports)
        ]
        for index, report in enumerate(reports):
            if report is not None:
                self._take_contents(index, report)
        state.current[Current.END_PS] = order.end_ns * PS_PER_NS
        serve_traffic(state, self._merge(reports), order.end_ns * PS_PER_NS)
        for index, report in enumerate(reports):
            changed = np.empty(0, np.int32) if report is None else report.changed_gfn
            np.asarray(state.incoming)[: len(changed)] = changed
            void_contents(state, index, len(changed))
        return self._answers(order.epoch)

    def _decode(self, data: bytes, index: int, epoch: int) -> GuestReport:
        """Return a guest's report. Raises ``ValueError`` if it is another's, or names what is not there."""
        report = decode_as(GuestReport, data)
        if report.guest != index or report.epoch != epoch:
            raise ValueError(
                f"report {index} of epoch {epoch}: is guest {report.guest}'s of epoch {report.epoch}"
            )
        guest = self.state.guest[index]
        for name in ("violation_gfn", "changed_gfn", "accessed_gfn"):
            _check_range(f"report of guest {index}: {name}", getattr(report, name), guest.nr_gfns)
        _check_range(f"report of guest {index}: violation_vcpu", report.violation_vcpu, guest.nr_vcpus)
        if len(report.changed_gfn) + len(report.accessed_gfn) > len(self.state.incoming):
            raise ValueError(f"report of guest {index}: more gfns than the guest has")
        return report

    def _take_contents(self, index: int, report: GuestReport) -> None:
        state = self.state
        nr_changed, nr_accessed = len(report.changed_gfn), len(report.accessed_gfn)
        if not nr_changed and not nr_accessed:
            return
        positions = report.changed_gfn + np.int64(self._first_gfn[index])
        np.asarray(state.final_content)[positions] = report.changed_content
        np.asarray(state.final_word)[positions] = report.changed_word
        incoming = np.asarray(state.incoming)
        incoming[:nr_changed] = report.changed_gfn
        incoming[nr_changed : nr_changed + nr_accessed] = report.accessed_gfn
        take_contents(state, index, nr_changed, nr_accessed)

    def _merge(self, reports: list[GuestReport | None]) -> int:
        """Write all violations to ``state.traffic`` by (guest, vCPU, time), late reads too; return their number."""
        present = [(index, report) for index, report in enumerate(reports) if report is not None]
        lengths = [len(report.violation_gfn) for _, report in present]
        late = self._take_late_reads()
        total = len(late) + sum(lengths)
        if total > len(self.state.traffic):
            raise ValueError(
                f"reports: {total} violations, more than the {len(self.state.traffic)} there can be"
            )
        traffic = np.asarray(self.state.traffic)[:total]
        traffic[: len(late)] = late
        if present:
            new = traffic[len(late) :]
            new["guest"] = np.repeat([index for index, _ in present], lengths)
            new["time_ps"] = np.concatenate([report.violation_time_ps for _, report in present])
            new["vcpu"] = np.concatenate([report.violation_vcpu for _, report in present])
            new["gfn"] = np.concatenate([report.violation_gfn for _, report in present])
            new["kind"] = np.concatenate([report.violation_kind for _, report in present])
        # A stable sort: at equal times late reads come first, then violations as they were reported.
        order = np.lexsort((traffic["time_ps"], traffic["vcpu"], traffic["guest"]))
        traffic[:] = traffic[order]
        return total

    def _take_late_reads(self) -> npt.NDArray[np.void]:
        """Return the reads that earlier epochs left, without those of dead guests, and forget them."""
        state = self.state
        late = np.asarray(state.late_read)[: state.current[Current.NR_LATE_READS]].copy()
        state.current[Current.NR_LATE_READS] = 0
        killed = np.asarray(state.guest)["killed"][late["guest"]]
        alive: npt.NDArray[np.void] = late[killed == 0]
        return alive

    def _answers(self, epoch: int) -> list[bytes]:
        state = self.state
        nr_changed = settle_views(state)
        positions = np.sort(np.asarray(state.view_changed)[:nr_changed])
        levels = np.asarray(state.view_sent)[positions]
        borders = np.searchsorted(positions, self._first_gfn)
        estimate_ns = next_estimate(state) // PS_PER_NS
        owed = np.asarray(state.vcpu)["owed_ps"]
        answers = []
        for index in range(self.nr_guests):
            guest = state.guest[index]
            mine = slice(borders[index], borders[index + 1])
            answers.append(
                encode(
                    HostAnswer(
                        epoch=epoch,
                        guest=index,
                        view_gfn=(positions[mine] - self._first_gfn[index]).astype(np.int32),
                        view_level=levels[mine].copy(),
                        estimate_ns=estimate_ns,
                        stall_ps=owed[guest.vcpu_base : guest.vcpu_base + guest.nr_vcpus].copy(),
                        killed=bool(guest.killed),
                    )
                )
            )
        return answers

    def counters(self) -> dict[str, int]:
        """Return the machine's counters, each guest's memory as ``guest.<i>.<kind>_pages``, and merged classes."""
        counters = dict(self.machine.counters())
        for index in range(self.nr_guests):
            guest = self.state.guest[index]
            mm = self.state.mm[guest.mm]
            alive = 0 if guest.killed else 1
            counters |= {
                f"guest.{index}.rss_pages": alive * mm.nr_anon,
                f"guest.{index}.ksm_pages": alive * mm.ksm_merging_pages,
                f"guest.{index}.swapped_pages": alive * mm.nr_swap,
                f"guest.{index}.zero_pages": alive * mm.nr_zero,
                f"guest.{index}.killed": guest.killed,
            }
        return counters | self._merged_classes.count(
            self.state, self.state.current[Current.END_PS] // PS_PER_NS
        )

    def look(self) -> bytes:
        """Return the machine's files of /proc and a picture of its memory, encoded."""
        return self.machine.look()

    def audit(self, contents: Sequence[bytes]) -> bytes:
        """Check the machine's invariants, and that it holds what its guests hold, dead ones (b"") left out.

        Raises ``AssertionError`` that names the first wrong frame.
        """
        from node.guest.invariants import check_guest

        self.machine.audit(contents)
        for index, data in enumerate(contents):
            if data:
                check_guest(self.state, index, np.frombuffer(data, np.int64))
        return b""

    def snapshot(self) -> bytes:
        """Return the complete state."""
        return self.machine.snapshot()

    def restore(self, data: bytes) -> None:
        """Take over the state of ``snapshot``. Raises ``ValueError`` if ``data`` is anything else."""
        self.machine.restore(data)

    def digest(self) -> str:
        """Return the hash of the state, as hexadecimal digits."""
        return self.machine.digest()


def _with_recorded(spec: Mapping[str, Any]) -> Mapping[str, Any]:
    """Add the recorded contents' checksums to a spec, where ksmd asks for checksums that ids do not hold."""
    if spec.get("ksm", {}).get("checksum") != "jhash2":
        return spec
    recorded: dict[int, int] = {}
    for path in sorted({guest["image"] for guest in spec["guests"] if guest["kind"] == "image"}):
        image = load_image(Path(path))
        recorded |= dict(zip(image.content_ids.tolist(), image.content_jhash2.tolist(), strict=True))
    return {**spec, "recorded": recorded}


def _check_range(where: str, values: npt.NDArray[Any], limit: int) -> None:
    if len(values) and not (values.min() >= 0 and values.max() < limit):
        raise ValueError(f"{where}: {values.min()}..{values.max()} is outside 0..{limit - 1}")
