"""Replay of a recorded guest: which page is touched or changed when, and what the EPT view says to it.

A recording has snapshots, and between them nobody looked. Replay fills in the spans:

    ready        snapshot 0            snapshot 1                    snapshot 2
      |------------|---------------------|-----------------------------|----> guest time
      first touches  touches of new pages  a page that changed between two snapshots:
      in gfn order   at drawn moments        rate   at drawn moments, with unique contents in between
                                             once   at one drawn moment, to the recorded content
                   ^ what differs from it is set to the recorded content

*rate*: a page that changed in k of the n spans it was watched over changes by a Poisson process of rate
-ln(1 - k/n) / span, the one under which a span sees no change with probability 1 - k/n. For k = n that is
infinite: such a *hot* page changes every ``hot_period``, which is to be shorter than a full scan of ksmd,
so that no scan finds it calm. After the last snapshot the rates go on.

Every page has at most one event due. Pages with one are in a binary heap by (time, gfn): an epoch costs
what happens in it, whatever the size of the guest. Draws are a function of (seed, gfn, event number), so
the events are the same however time is cut into epochs.

The guest has one vCPU and a clock of its own, which counts the time in which it runs. It lags behind the
time of its host by its ``start_offset``, by what the estimates of EPT violations cost it, and by the stall
that its host says it owes:

    host time = guest time + lag

# Differs from Linux: a recording does not say what a guest reads, so pages are accessed where they change.
"""

from enum import IntEnum
from typing import TYPE_CHECKING, Final

import numpy as np

from node.content import PATTERN_UNIQUE, generated
from node.hw.ept_view import VIOLATION, ViolationKind
from shared.constants import INT64_MAX, NIL, PS_PER_NS
from shared.fixed_log import LOG_BITS, exponential, log2_fixed
from shared.jit import entry, kernel
from shared.kernel_state import Counters, KernelState, Records, table
from shared.rng import below, mix64, splitmix64_word
from shared.views import View
from shared.wrap64 import add64

REPLAY_PAGE = np.dtype(
    [
        ("content", np.int64),  # content id
        ("due_ns", np.int64),  # guest time of its event, while in the heap
        ("event", np.int32),  # number of its next event: rate: changes so far; once: the snapshot it leads to
        ("touched", np.int8),
        ("mark", np.int8),  # PageMark bits of this epoch
        ("spare", np.int16),
    ],
    align=True,
)
REPLAY_PLAN = np.dtype(
    [
        ("wait_ns", np.int64),  # rate: waiting time per bit of a draw (fixed_log.exponential); 0: calm; HOT
        ("first_snapshot", np.int32),  # the first in which the page is touched, or NIL
        ("spare", np.int32),
    ],
    align=True,
)
HOT: Final = -1
NEVER: Final = INT64_MAX
_EVENTS_SHIFT: Final = 32
# The rate's quotient is taken at 2**-16 and 2**-24 in two steps, so that a day in ns fits in 63 bits.
_QUOTIENT_SHIFT: Final = 16


class PageMark(IntEnum):
    """What happened to a page in this epoch."""

    ACCESSED = 1
    CHANGED = 2


class ReplayMode(IntEnum):
    """How the spans between snapshots are filled in."""

    RATE = 0
    ONCE = 1


class Replay(IntEnum):
    """Places in ``state.var``."""

    # What the guest is; set before ``start_replay``.
    NR_PAGES = 0
    NR_SNAPSHOTS = 1
    MODE = 2
    DRAW_KEY = 3
    CONTENT_KEY = 4
    HOT_PERIOD_NS = 5
    BOOT_NS = 6
    VIOLATION_PS = 7  # estimate for an EPT violation that needs no device
    OFFSET_PS = 8
    # Where it is.
    GUEST_PS = 16
    LAG_PS = 17
    OWED_PS = 18
    ESTIMATE_PS = 19  # charged for a swapped page
    END_PS = 20  # of this epoch, in host time
    NEXT_SNAPSHOT = 21
    NEXT_GFN = 22  # the snapshot is set up to here
    NR_HEAP = 23
    KILLED = 30  # by the host
    # Of this epoch.
    NR_VIOLATIONS = 24
    NR_CHANGED = 25
    NR_ACCESSED = 26
    # Since the start.
    TOUCHED_PAGES = 27
    CHANGES = 28
    EPT_VIOLATIONS = 29
    NR = 32


class ImageState(KernelState):
    """The state of one replayed guest. U contents, S snapshots, N pages."""

    panic: Counters = table(np.int64)  # [4]
    var: Counters = table(np.int64)  # [Replay]
    page: Records = table(REPLAY_PAGE)  # [N] by gfn
    ept_view: Counters = table(np.int8)  # [N] View
    heap: Counters = table(np.int32)  # [N] gfns with an event due, a binary heap
    violation: Records = table(
        VIOLATION, used="epoch"
    )  # [N]: a write raises a view to the top, so one a page
    changed: Counters = table(np.int32, used="epoch")  # [N] gfns marked CHANGED, in order
    accessed: Counters = table(np.int32, used="epoch")  # [N] gfns marked ACCESSED, in order
    plan: Records = table(REPLAY_PLAN, used="fixed")  # [N]
    recorded: Counters = table(np.int32, used="fixed")  # [S * N] content number, snapshot by snapshot
    content_id: Counters = table(np.int64, used="fixed")  # [U]
    time_ns: Counters = table(np.int64, used="fixed")  # [S]


if TYPE_CHECKING:
    State = ImageState


# --- the heap -----------------------------------------------------------------------------------------


@kernel
def _is_before(state: "State", a: int, b: int) -> int:
    """Return whether page ``a``'s event comes before page ``b``'s."""
    due_a = state.page[a].due_ns
    due_b = state.page[b].due_ns
    if due_a != due_b:
        return 1 if due_a < due_b else 0
    return 1 if a < b else 0


@kernel
def _schedule(state: "State", gfn: int, due_ns: int) -> None:
    """Put the page, which has no event due, into the heap."""
    state.page[gfn].due_ns = due_ns
    place = state.var[Replay.NR_HEAP]
    state.var[Replay.NR_HEAP] = place + 1
    while place > 0:
        parent = (place - 1) >> 1
        above = state.heap[parent]
        if not _is_before(state, gfn, above):
            break
        state.heap[place] = above
        place = parent
    state.heap[place] = gfn


@kernel
def _take_first(state: "State") -> int:
    """Take the page with the earliest event out of the heap, which is not empty; return its gfn."""
    first = state.heap[0]
    count = state.var[Replay.NR_HEAP] - 1
    state.var[Replay.NR_HEAP] = count
    gfn = state.heap[count]
    place = 0
    child = 1
    while child < count:
        if child + 1 < count and _is_before(state, state.heap[child + 1], state.heap[child]):
            child += 1
        below_gfn = state.heap[child]
        if not _is_before(state, below_gfn, gfn):
            break
        state.heap[place] = below_gfn
        place = child
        child = 2 * place + 1
    state.heap[place] = gfn
    return first


# --- what is drawn ------------------------------------------------------------------------------------


@kernel
def _draw(state: "State", gfn: int, number: int) -> int:
    """Return the 64 random bits of a page's event."""
    return splitmix64_word(mix64(add64(state.var[Replay.DRAW_KEY], gfn)), number)


@kernel
def _recorded(state: "State", snapshot: int, gfn: int) -> int:
    """Return the content id of a page in a snapshot."""
    return state.content_id[state.recorded[snapshot * state.var[Replay.NR_PAGES] + gfn]]


@kernel
def _count_changes(state: "State", gfn: int, first: int) -> int:
    """Count the spans from snapshot ``first`` on in which the page changed."""
    count = 0
    for snapshot in range(first + 1, state.var[Replay.NR_SNAPSHOTS]):
        if _recorded(state, snapshot, gfn) != _recorded(state, snapshot - 1, gfn):
            count += 1
    return count


@kernel
def _wait_per_bit(state: "State", gfn: int, first: int) -> int:
    """Return what the page's waiting times are made of (REPLAY_PLAN.wait_ns).

    A wait is -ln(U) / rate with rate = -ln(1 - k/n) / span: the logarithms' base cancels out, so it is
    span / log2(n / (n - k)) for each bit of -log2(U).
    """
    nr_spans = state.var[Replay.NR_SNAPSHOTS] - 1 - first
    nr_changes = _count_changes(state, gfn, first)
    if nr_changes == 0:
        return 0
    if nr_changes == nr_spans:
        return HOT
    span_ns = (state.time_ns[state.var[Replay.NR_SNAPSHOTS] - 1] - state.time_ns[first]) // nr_spans
    bits = log2_fixed(nr_spans) - log2_fixed(nr_spans - nr_changes)
    return ((span_ns << _QUOTIENT_SHIFT) // bits) << (LOG_BITS - _QUOTIENT_SHIFT)


@kernel
def _schedule_change_at_rate(state: "State", gfn: int, now_ns: int) -> None:
    page = state.page[gfn]
    wait_ns = state.plan[gfn].wait_ns
    if wait_ns == 0:
        return
    word = _draw(state, gfn, page.event)
    if wait_ns != HOT:
        _schedule(state, gfn, now_ns + exponential(word, wait_ns))
    elif page.event <= 1:
        # A phase of its own, so that hot pages do not all change at the same moment.
        _schedule(state, gfn, now_ns + 1 + below(word, state.var[Replay.HOT_PERIOD_NS]))
    else:
        _schedule(state, gfn, now_ns + state.var[Replay.HOT_PERIOD_NS])


@kernel
def _schedule_change_once(state: "State", gfn: int) -> None:
    """Schedule the next recorded change behind snapshot ``page.event``."""
    page = state.page[gfn]
    for snapshot in range(page.event + 1, state.var[Replay.NR_SNAPSHOTS]):
        if _recorded(state, snapshot, gfn) != _recorded(state, snapshot - 1, gfn):
            page.event = snapshot
            _schedule(state, gfn, _moment_before(state, snapshot, gfn, snapshot))
            return


@kernel
def _moment_before(state: "State", snapshot: int, gfn: int, number: int) -> int:
    """Draw a moment of the span that ends at ``snapshot``, uniformly; a page's event number ``number``."""
    begin_ns = state.time_ns[snapshot - 1]
    return begin_ns + below(_draw(state, gfn, number), state.time_ns[snapshot] - begin_ns)


# --- the start ----------------------------------------------------------------------------------------


@entry
def start_replay(state: "State") -> int:
    """Plan every page of a fresh state and schedule its first touch; return the number of pages planned.

    ``plan.first_snapshot``, the fixed tables and the first part of ``var`` are filled in.
    """
    nr_pages = state.var[Replay.NR_PAGES]
    nr_boot = 0
    nr_planned = 0
    for gfn in range(nr_pages):
        if state.plan[gfn].first_snapshot == 0:
            nr_boot += 1
    nth = 0
    for gfn in range(nr_pages):
        plan = state.plan[gfn]
        first = plan.first_snapshot
        if first == NIL:
            continue
        nr_planned += 1
        plan.wait_ns = _wait_per_bit(state, gfn, first)
        if first == 0:
            _schedule(state, gfn, state.var[Replay.BOOT_NS] * nth // nr_boot)
            nth += 1
        else:
            _schedule(state, gfn, _moment_before(state, first, gfn, 0))
    state.var[Replay.LAG_PS] = state.var[Replay.OFFSET_PS]
    return nr_planned


# --- a run --------------------------------------------------------------------------------------------


@kernel
def _host_ps(state: "State", guest_ns: int) -> int:
    return guest_ns * PS_PER_NS + state.var[Replay.LAG_PS]


@kernel
def _violate(state: "State", gfn: int, now_ns: int) -> None:
    """Log a write that the view does not allow, charge its estimate, and raise the view."""
    index = state.var[Replay.NR_VIOLATIONS]
    state.var[Replay.NR_VIOLATIONS] = index + 1
    state.var[Replay.EPT_VIOLATIONS] += 1
    violation = state.violation[index]
    violation.time_ps = _host_ps(state, now_ns)
    violation.gfn = gfn
    violation.kind = ViolationKind.WRITE
    estimate_ps = state.var[Replay.VIOLATION_PS]
    if state.ept_view[gfn] == View.SWAPPED:
        estimate_ps += state.var[Replay.ESTIMATE_PS]
    # What earlier estimates were too high by has been waited already.
    credit_ps = min(max(-state.var[Replay.OWED_PS], 0), estimate_ps)
    state.var[Replay.OWED_PS] += credit_ps
    state.var[Replay.LAG_PS] += estimate_ps - credit_ps
    state.ept_view[gfn] = View.WRITABLE


@kernel
def _write(state: "State", gfn: int, now_ns: int, content: int) -> None:
    """Write the page: it holds ``content`` from now on."""
    if state.ept_view[gfn] != View.WRITABLE:
        _violate(state, gfn, now_ns)
    page = state.page[gfn]
    if not page.mark & PageMark.ACCESSED:
        page.mark |= PageMark.ACCESSED
        state.accessed[state.var[Replay.NR_ACCESSED]] = gfn
        state.var[Replay.NR_ACCESSED] += 1
    if page.content == content:
        return
    page.content = content
    if not page.mark & PageMark.CHANGED:
        page.mark |= PageMark.CHANGED
        state.changed[state.var[Replay.NR_CHANGED]] = gfn
        state.var[Replay.NR_CHANGED] += 1


@kernel
def _touch(state: "State", gfn: int, now_ns: int) -> None:
    """Use a page for the first time; schedule its first change."""
    page = state.page[gfn]
    page.touched = 1
    state.var[Replay.TOUCHED_PAGES] += 1
    snapshot = max(state.plan[gfn].first_snapshot, state.var[Replay.NEXT_SNAPSHOT] - 1)
    _write(state, gfn, now_ns, _recorded(state, snapshot, gfn))
    if state.var[Replay.MODE] == ReplayMode.ONCE:
        page.event = snapshot
        _schedule_change_once(state, gfn)
    else:
        page.event = 1
        # Changes are known from the first snapshot on, even of a page that was touched before it.
        _schedule_change_at_rate(state, gfn, max(now_ns, state.time_ns[0]))


@kernel
def _change(state: "State", gfn: int, now_ns: int) -> None:
    """Let a page change at its moment; schedule its next change."""
    page = state.page[gfn]
    state.var[Replay.CHANGES] += 1
    if state.var[Replay.MODE] == ReplayMode.ONCE:
        _write(state, gfn, now_ns, _recorded(state, page.event, gfn))
        _schedule_change_once(state, gfn)
    else:
        index = (gfn << _EVENTS_SHIFT) + page.event
        _write(state, gfn, now_ns, generated(PATTERN_UNIQUE, state.var[Replay.CONTENT_KEY], index))
        page.event += 1
        _schedule_change_at_rate(state, gfn, now_ns)


@kernel
def _set_snapshot(state: "State", now_ns: int) -> None:
    """Give touched pages that differ from the next snapshot its content, as far as time allows."""
    snapshot = state.var[Replay.NEXT_SNAPSHOT]
    end_ps = state.var[Replay.END_PS]
    for gfn in range(state.var[Replay.NEXT_GFN], state.var[Replay.NR_PAGES]):
        if _host_ps(state, now_ns) >= end_ps:
            state.var[Replay.NEXT_GFN] = gfn
            return
        page = state.page[gfn]
        content = _recorded(state, snapshot, gfn)
        if page.touched and page.content != content:
            state.var[Replay.CHANGES] += 1
            _write(state, gfn, now_ns, content)
    state.var[Replay.NEXT_GFN] = 0
    state.var[Replay.NEXT_SNAPSHOT] = snapshot + 1


@kernel
def _next_snapshot_ns(state: "State") -> int:
    snapshot = state.var[Replay.NEXT_SNAPSHOT]
    if snapshot == state.var[Replay.NR_SNAPSHOTS]:
        return NEVER
    return state.time_ns[snapshot]


@kernel
def _next_event_ns(state: "State") -> int:
    if state.var[Replay.NR_HEAP] == 0:
        return NEVER
    return state.page[state.heap[0]].due_ns


@kernel
def _serve_debt(state: "State") -> None:
    """Stand still for what the host says is owed, as far as this epoch allows."""
    owed_ps = state.var[Replay.OWED_PS]
    room_ps = state.var[Replay.END_PS] - (state.var[Replay.GUEST_PS] + state.var[Replay.LAG_PS])
    served_ps = max(0, min(owed_ps, room_ps))
    state.var[Replay.OWED_PS] = owed_ps - served_ps
    state.var[Replay.LAG_PS] += served_ps


@entry
def run_replay(state: "State") -> int:
    """Run the guest up to host time END_PS; return the number of violations logged.

    Of equal times the snapshot comes first, then pages by gfn.
    """
    _serve_debt(state)
    end_ps = state.var[Replay.END_PS]
    while True:
        event_ns = _next_event_ns(state)
        snapshot_ns = _next_snapshot_ns(state)
        now_ns = min(event_ns, snapshot_ns)
        if now_ns == NEVER or _host_ps(state, now_ns) >= end_ps:
            break
        if snapshot_ns <= event_ns:
            _set_snapshot(state, now_ns)
        else:
            gfn = _take_first(state)
            if state.page[gfn].touched:
                _change(state, gfn, now_ns)
            else:
                _touch(state, gfn, now_ns)
        state.var[Replay.GUEST_PS] = now_ns * PS_PER_NS
    state.var[Replay.GUEST_PS] = max(state.var[Replay.GUEST_PS], end_ps - state.var[Replay.LAG_PS])
    return state.var[Replay.NR_VIOLATIONS]


@entry
def end_epoch(state: "State") -> int:
    """Forget what this epoch logged and marked; return 0."""
    for i in range(state.var[Replay.NR_ACCESSED]):
        state.page[state.accessed[i]].mark = 0
    state.var[Replay.NR_VIOLATIONS] = 0
    state.var[Replay.NR_CHANGED] = 0
    state.var[Replay.NR_ACCESSED] = 0
    return 0
