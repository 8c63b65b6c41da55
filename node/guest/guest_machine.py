"""``GuestMachine``: a full simulated machine that runs on a host, as a member of a fleet.

Its clocks are the host's. Until ``start_offset_ns`` it does not exist; then its CPUs start at that time. What
its kernel touched while it booted is reported with its first epoch.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from node.counters import Current, Knob
from node.guest.guest_side import end_guest_epoch, take_lowered_view
from node.hw.ept_view import GfnMark
from node.kthread import ASLEEP
from node.machine import Machine
from node.state import State
from shared.constants import PS_PER_NS
from shared.messages import GuestReport, HostAnswer, HostPhase, RunUntil, decode_as, encode


class GuestMachine:
    """A guest of a host. ``spec`` is a machine's, with guest (its index on its host) and start_offset_ns.

    Raises ``ValueError`` as ``Machine`` does.
    """

    kind = "guest"

    def __init__(self, spec: Mapping[str, Any]) -> None:
        self.machine = Machine(spec)
        self.guest = int(spec["guest"])
        self.start_ps = int(spec.get("start_offset_ns", 0)) * PS_PER_NS
        self._set_clocks()

    @property
    def state(self) -> State:
        """The machine's state."""
        return self.machine.state

    def _set_clocks(self) -> None:
        """Let everything begin at the start, what booting has logged included."""
        state = self.state
        np.asarray(state.cpu)["clock_ps"] += self.start_ps
        clocks = np.asarray(state.kthread)["clock_ps"]
        clocks[clocks != ASLEEP] += self.start_ps
        booted = np.asarray(state.violation)[: state.current[Current.NR_VIOLATIONS]]
        booted["time_ps"] = self.start_ps
        state.current[Current.CLOCK_PS] = self.start_ps

    def run_epoch(self, order: RunUntil) -> bytes:
        """Run the span of ``order``; return an encoded ``GuestReport``."""
        if order.answer:
            self._apply(decode_as(HostAnswer, order.answer))
        killed = self._is_killed()
        started = order.end_ns * PS_PER_NS > self.start_ps
        if started and not killed:
            self.machine.run_until_ps(order.end_ns * PS_PER_NS)
        finished = killed or (started and self.machine.finished)
        return self._report(order.epoch, finished, silent=killed or not started)

    def _apply(self, answer: HostAnswer) -> None:
        state = self.state
        if len(answer.view_gfn):
            if answer.view_gfn.min() < 0 or answer.view_gfn.max() >= len(state.ept_view):
                raise ValueError(f"view_gfn: outside 0..{len(state.ept_view) - 1}")
            np.asarray(state.ept_view)[answer.view_gfn] = answer.view_level
            take_lowered_view(state)
        if len(answer.stall_ps) > len(state.cpu):
            raise ValueError(f"stall_ps: {len(answer.stall_ps)} vCPUs, but there are {len(state.cpu)}")
        np.asarray(state.cpu)["owed_ps"][: len(answer.stall_ps)] += answer.stall_ps
        state.knob[Knob.EPT_FAULT_ESTIMATE_PS] = answer.estimate_ns * PS_PER_NS
        if answer.killed:
            state.current[Current.KILLED] = 1

    def _is_killed(self) -> bool:
        return bool(self.state.current[Current.KILLED])

    def _report(self, epoch: int, finished: bool, *, silent: bool) -> bytes:
        """Encode what the epoch logged and marked, and forget it. If ``silent``, counters only."""
        state = self.state
        if silent:
            return encode(GuestReport(epoch, self.guest, self.machine.kept_counters(), finished=finished))
        violations = np.asarray(state.violation)[: state.current[Current.NR_VIOLATIONS]]
        # CPUs and kernel threads take turns, so what they logged is in order for each of them only.
        violations = violations[np.lexsort((violations["vcpu"], violations["time_ps"]))]
        marked = np.asarray(state.ept_marked)[: state.current[Current.NR_MARKED]].copy()
        changed = marked[(np.asarray(state.ept_mark)[marked] & GfnMark.CHANGED) != 0]
        page = np.asarray(state.page)
        report = GuestReport(
            epoch=epoch,
            guest=self.guest,
            counters=self.machine.kept_counters(),
            violation_time_ps=violations["time_ps"].copy(),
            violation_gfn=violations["gfn"].copy(),
            violation_vcpu=violations["vcpu"].copy(),
            violation_kind=violations["kind"].copy(),
            changed_gfn=changed,
            changed_content=page["content"][changed],
            changed_word=page["word"][changed],
            accessed_gfn=marked,
            finished=finished,
        )
        end_guest_epoch(state)
        return encode(report)

    def host_phase(self, order: HostPhase) -> list[bytes]:
        """Refuse: a guest is no host."""
        raise TypeError(f"a guest has no host phase (epoch {order.epoch})")

    def contents(self) -> npt.NDArray[np.int64]:
        """Return the content id of every frame, by gfn, as far as it has been reported.

        Only what booting wrote is not, before the guest starts.
        """
        contents: npt.NDArray[np.int64] = np.asarray(self.state.page)["content"].copy()
        contents[np.asarray(self.state.ept_marked)[: self.state.current[Current.NR_MARKED]]] = 0
        return contents

    def look(self) -> bytes:
        """Return the machine's files of /proc and a picture of its memory, encoded."""
        return self.machine.look()

    def audit(self, contents: Sequence[bytes]) -> bytes:
        """Check the machine's invariants; return ``contents()`` as bytes."""
        self.machine.audit(contents)
        return self.contents().tobytes()

    def counters(self) -> dict[str, int]:
        """Return the machine's counters."""
        return self.machine.counters()

    def snapshot(self) -> bytes:
        """Return the complete state."""
        return self.machine.snapshot()

    def restore(self, data: bytes) -> None:
        """Take over the state of ``snapshot``. Raises ``ValueError`` if ``data`` is anything else."""
        self.machine.restore(data)

    def digest(self) -> str:
        """Return the hash of the state, as hexadecimal digits."""
        return self.machine.digest()
