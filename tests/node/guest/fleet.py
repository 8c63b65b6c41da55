"""A host and its guests run in this process, epoch by epoch, without the coordinator."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from node.counters import Current
from node.guest.guest_machine import GuestMachine
from node.guest.host import HostMachine
from node.guest.image import ImageGuest
from node.guest.invariants import check_guest, check_view
from node.hw.pte import PFN_MASK
from node.hw.tlb import FRAME_SHIFT, TlbArray, TlbRight
from shared.messages import HostAnswer, HostPhase, RunUntil, decode_as
from shared.views import View

Guest = ImageGuest | GuestMachine
MIB = 1 << 20


def host_spec(guests: Sequence[dict[str, Any]], memory_mib: int = 96, **more: Any) -> dict[str, Any]:
    """Return the spec of a host; KSM is off unless ``ksm`` says otherwise."""
    return {"kind": "host", "memory_bytes": memory_mib * MIB, "guests": list(guests), "seed": 3} | more


class Fleet:
    """One host and its guests. ``check`` compares what they hold after every epoch."""

    def __init__(self, host: HostMachine, guests: Sequence[Guest], *, check: bool = True) -> None:
        self.host, self.guests, self.check = host, guests, check
        self.epoch = 0
        self.now_ns = 0
        self.answers = [b""] * len(guests)
        self.last: list[HostAnswer] = []

    def run(self, end_ns: int, epoch_ns: int) -> None:
        while self.now_ns < end_ns:
            self.step(min(self.now_ns + epoch_ns, end_ns))

    def step(self, end_ns: int) -> None:
        """Run one epoch."""
        reports = tuple(
            guest.run_epoch(RunUntil(self.epoch, self.now_ns, end_ns, answer))
            for guest, answer in zip(self.guests, self.answers, strict=True)
        )
        if self.check and self.epoch:
            self._check_views_before()
        self.answers = self.host.host_phase(HostPhase(self.epoch, self.now_ns, end_ns, reports))
        self.last = [decode_as(HostAnswer, answer) for answer in self.answers]
        if self.check:
            self._check_border()
        self.epoch += 1
        self.now_ns = end_ns

    def _check_border(self) -> None:
        for index, guest in enumerate(self.guests):
            if not self.last[index].killed:
                check_guest(self.host.state, index, guest.contents())
                # Before it starts, a guest has not told its host of what it did while booting.
                if not (isinstance(guest, GuestMachine) and guest.state.current[Current.NR_VIOLATIONS]):
                    check_view(self.host.state, index, self.view_after(index))

    def view_after(self, index: int) -> np.ndarray:
        """Return the view that a guest will have once it has its answer."""
        view = np.asarray(self.guests[index].state.ept_view).copy()
        view[self.last[index].view_gfn] = self.last[index].view_level
        return view

    def _check_views_before(self) -> None:
        """No TLB entry of a guest allows what its view forbids."""
        for guest in self.guests:
            if isinstance(guest, GuestMachine):
                check_tlb(guest)


def tlb_entries(guest: GuestMachine) -> npt.NDArray[Any]:
    """Return all valid entries of a guest's TLBs."""
    nr_pages = int(guest.state.tlb_array[TlbArray.WALK_PD].first)  # behind are the paging-structure caches
    tlb = np.asarray(guest.state.tlb).reshape(len(guest.state.cpu), -1)[:, :nr_pages].ravel()
    used: npt.NDArray[Any] = tlb[tlb["key"] != 0]
    return used


def check_tlb(guest: GuestMachine) -> None:
    """Check that no translation cached by a guest grants more than its EPT view."""
    used = tlb_entries(guest)
    views = np.asarray(guest.state.ept_view)[(used["word"] >> FRAME_SHIFT) & PFN_MASK]
    needed = np.where(used["word"] & TlbRight.EPT_WRITE, View.WRITABLE, View.READ_ONLY)
    assert (views >= needed).all()
