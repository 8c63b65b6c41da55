"""A guest's EPT view: what it may do with each of its frames before its host has to be asked.

Translations of a guest go through two tables: its own gives a guest frame (gfn), its host's (the extended
page table, EPT) the frame behind it. The host runs after the guest, so the guest does not see that table
but a *view* of it as it stood at the last border: one byte a frame.

    UNTOUCHED   the host has nothing there     any access is an EPT violation
    SWAPPED     the host has it on its device  any access is an EPT violation, and waits for the device
    READ_ONLY   merged, or the page of zeroes  a write is an EPT violation
    WRITABLE    the guest's own

A violation is logged with its time for the host to serve afterwards, charged an estimate of what that will
take, and raises the view, so that the guest goes on. The host says with its answer by how much the
estimate was wrong: what was too little is owed, what was too much is taken off the next estimates.

Marks say which frames the guest used and whose content it changed in this epoch, each once: ACCESSED stands
for the accessed bit of the EPT, CHANGED for the content that the report takes along. What changes content
(node/content.py, and the allocator, which hands out zeroed frames) calls ``ept_wrote``.

Page tables count: the frame of a table is written when it is allocated, and the walk accesses it.
# Differs from Linux: later stores to page-table entries do not change a table frame's content id.

Sources: Intel SDM volume 3, 29.3 (EPT), 29.3.5 (accessed and dirty flags).
"""

from enum import IntEnum
from typing import TYPE_CHECKING

import numpy as np

from node.counters import Current, HwEvent, Knob
from node.hw.cost import Cost
from shared.jit import kernel
from shared.views import View

if TYPE_CHECKING:
    from node.state import State

VIOLATION = np.dtype(
    [
        ("time_ps", np.int64),
        ("gfn", np.int32),
        ("guest", np.int32),
        ("charged_ns", np.int32),  # of a late read: the estimate that its vCPU was charged for the device
        ("vcpu", np.int16),
        ("kind", np.int8),  # ViolationKind
        ("spare", np.int8),
    ],
    align=True,
)


class ViolationKind(IntEnum):
    """What a vCPU wanted."""

    READ = 0
    WRITE = 1
    LATE_READ = 2  # among a host's traffic: a read for a violation of an earlier epoch


class GfnMark(IntEnum):
    """What happened to a frame in this epoch: bits of ``state.ept_mark``."""

    ACCESSED = 1
    CHANGED = 2


# A view only rises within an epoch, to READ_ONLY and to WRITABLE: no frame has more violations than that.
MAX_VIOLATIONS_PER_GFN = 2


@kernel
def _mark(state: "State", pfn: int, bits: int) -> None:
    marks = state.ept_mark[pfn]
    if marks & bits == bits:
        return
    if marks == 0:
        index = state.current[Current.NR_MARKED]
        state.ept_marked[index] = pfn
        state.current[Current.NR_MARKED] = index + 1
    state.ept_mark[pfn] = marks | bits


@kernel
def _take_credit(state: "State", estimate_ps: int) -> int:
    """Return how much of an estimate the vCPU has waited already: earlier estimates were too high by that."""
    cpu = state.cpu[state.current[Current.CPU]]
    credit_ps = min(max(-cpu.owed_ps, 0), estimate_ps)
    cpu.owed_ps += credit_ps
    return credit_ps


@kernel
def _violate(state: "State", pfn: int, write: int) -> None:
    """Log the access as an EPT violation of the running vCPU, charge its estimate, and raise the view."""
    index = state.current[Current.NR_VIOLATIONS]
    state.current[Current.NR_VIOLATIONS] = index + 1
    violation = state.violation[index]
    violation.time_ps = state.current[Current.CLOCK_PS]
    violation.gfn = pfn
    violation.vcpu = state.current[Current.CPU]
    violation.kind = ViolationKind.WRITE if write else ViolationKind.READ
    state.hw_event[HwEvent.EPT_VIOLATION] += 1
    estimate_ps = state.cost[Cost.EPT_VIOLATION]
    if state.ept_view[pfn] == View.SWAPPED:
        estimate_ps += state.knob[Knob.EPT_FAULT_ESTIMATE_PS]
    estimate_ps -= _take_credit(state, estimate_ps)
    state.current[Current.CLOCK_PS] += estimate_ps
    state.current[Current.STALL_PS] += estimate_ps
    state.ept_view[pfn] = View.WRITABLE if write else View.READ_ONLY


@kernel
def ept_access(state: "State", pfn: int, write: int) -> None:
    """On a guest: let the running vCPU read or write frame ``pfn``; its view allows it from now on."""
    view = state.ept_view[pfn]
    if view < View.READ_ONLY or (write and view != View.WRITABLE):
        _violate(state, pfn, write)
    _mark(state, pfn, GfnMark.ACCESSED)


@kernel
def ept_wrote(state: "State", pfn: int) -> None:
    """On a guest: the content of frame ``pfn`` changes. The view is asked here too."""
    if state.ept_view[pfn] != View.WRITABLE:
        _violate(state, pfn, 1)
    _mark(state, pfn, GfnMark.ACCESSED | GfnMark.CHANGED)
