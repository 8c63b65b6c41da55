"""The host's side of an epoch: what its guests did becomes faults, content and bits in its page tables.

A host's process is a guest: its RAM is one anonymous mergeable area, and the process's page table is the
guest's EPT. All guests' frames have a *position* in one row, guest after guest, where the host keeps the
view that each guest has:

    view_sent   [ guest 0: gfn 0, 1, 2 ... | guest 1: gfn 0, 1 ... | ... ]
                              ^ guest.view_base + gfn

An epoch of the host, over the span that its guests have just run:

    take_contents   what a guest changed: a frame that it may write takes its final content now. Any other is
                    one that it had to fault on: the content waits for that fault (FINAL)
    serve_traffic   all guests' violations by (time, guest, vCPU, order). Before each, ksmd and kswapd run
                    up to its time; then it is a page fault of that guest's process at that time. What it
                    took, less what the guest was charged for it, is owed to the guest's vCPU
    settle_views    whatever view differs from what the guest now has goes into its answer

A vCPU waits for one fault at a time. Had the guest known what its first fault would take, its second would
have come later by what is owed for the first; so a violation's time is the logged one and what its vCPU
owes already. Without that, a guest's faults of one epoch would queue behind each other at the device, and
the longer the epoch, the more they would seem to wait. Nine recorded guests in their first 30 s on a host
with 0.8 of the memory they use stalled 2.8, 4.5 and 21.7 s at epochs of 10, 100 and 500 ms; so they stall
2.24, 2.30 and 2.26 s.

A fault that is due behind the end of the epoch is served at the end, so that the border finds memory as the guest
has it. Its reads from the device are not: the device would be busy with them when others, whose turn is
before, come in the next epoch. They are *late reads*: noted here, and the first of their vCPU's traffic when
they are due. With reads issued at the end, four recorded guests on a host with half of the memory that they
touch, and a disk to swap to, stalled 57.6 and 62.4 s at epochs of 10 and 100 ms.

A guest charges itself, for each violation, the exit with a minor fault (Cost.EPT_VIOLATION), and for a
swapped frame also the estimate for the device that it was last told (Knob.EPT_FAULT_ESTIMATE_PS). That is what
a read takes which does not queue: the rest is owed, and its place among the others' is found here. Too much would
be lost instead: a vCPU that stood still too long has its next accesses at a lower price, but not earlier. With
the mean latency of the last epoch, queueing included, the same guests stalled 57.3 and 60.7 s.

Views are read from the page table when they are settled. ``note_view_change`` only lists where to look:
whoever writes an entry of a guest's page table calls it.

# Differs from Linux: KVM keeps a page table of its own (the TDP MMU), filled from the process's by faults and
# emptied by MMU notifiers. Here they are one: a page mapped in the process needs no second fault.
"""

from enum import IntEnum
from typing import TYPE_CHECKING, Final

import numpy as np

from node.counters import Current, Knob, Panic, VmEvent
from node.fault.kinds import VmFault
from node.hw.cost import Cost
from node.hw.disk import begin_epoch_of_disk, disk_io, mean_service_ps
from node.hw.ept_view import ViolationKind
from node.hw.page_table import pte_position
from node.hw.pte import Pte, is_swap_pte, pte_pfn
from node.joints import exit_mmap, handle_mm_fault, run_kthreads
from node.vm.huge_pmd import huge_position
from node.vm.leaf_word import leaf_word
from shared.constants import NIL, PAGE_SHIFT, PS_PER_NS
from shared.jit import bug_on, entry, kernel
from shared.views import View

if TYPE_CHECKING:
    from node.state import State

GUEST = np.dtype(
    [
        ("ram_vaddr", np.int64),  # where its RAM is mapped in its process
        ("nr_gfns", np.int64),
        ("view_base", np.int64),  # position of its gfn 0
        ("vcpu_base", np.int32),  # number of its vCPU 0 in ``state.vcpu``
        ("nr_vcpus", np.int32),
        ("mm", np.int32),
        ("killed", np.int32),
    ],
    align=True,
)
VCPU = np.dtype(
    [
        ("owed_ps", np.int64),  # what this epoch's faults took, less what the guest charged itself for them
        ("due_ps", np.int64),  # when it comes to its next violation, having waited for those before
        ("next", np.int32),  # of its violations in the traffic
        ("behind", np.int32),  # its last one
    ],
    align=True,
)


class GfnBit(IntEnum):
    """Bits of ``view_sent``."""

    VIEW = 3  # mask: the View that the guest has
    LISTED = 4  # in view_changed: the page table may say something else
    FINAL = 8  # final_content waits for the guest's write fault


# A fault maps a page, then may lose it to the reclaim of another allocation. More than a few in a row means
# that the guest's page cannot be had.
MAX_FAULTS: Final = 16
# Late reads that are remembered; further ones are issued with their fault.
LATE_READS: Final = 4096


@kernel
def _pte_of(state: "State", guest_index: int, gfn: int) -> int:
    """Return the entry that maps a guest's frame in its process, or 0."""
    guest = state.guest[guest_index]
    return leaf_word(state, guest.mm, guest.ram_vaddr + (gfn << PAGE_SHIFT))


@kernel
def _view_of(pte: int) -> int:
    """Return the View that a page-table entry grants."""
    if pte & Pte.PRESENT:
        return View.WRITABLE if pte & Pte.WRITE else View.READ_ONLY
    return View.SWAPPED if is_swap_pte(pte) else View.UNTOUCHED


@kernel
def _list_view(state: "State", position: int) -> None:
    """See to it that ``settle_views`` looks at a frame's page-table entry."""
    if state.view_sent[position] & GfnBit.LISTED:
        return
    state.view_sent[position] |= GfnBit.LISTED
    index = state.current[Current.NR_VIEW_CHANGES]
    state.view_changed[index] = position
    state.current[Current.NR_VIEW_CHANGES] = index + 1


@entry
def note_view_change(state: "State", mm: int, vaddr: int, level: int) -> int:
    """On a host: tell a guest at the next border that its gfn's View is now ``level``; return 0.

    Nothing happens if the address is no guest's RAM. The border reads the level from the page table, so it is
    right even if the entry changes again before.
    """
    guest_index = state.mm[mm].guest
    if guest_index == NIL:
        return 0
    guest = state.guest[guest_index]
    gfn = (vaddr - guest.ram_vaddr) >> PAGE_SHIFT
    if 0 <= gfn < guest.nr_gfns:
        _list_view(state, guest.view_base + gfn)
    return 0


# --- contents and accessed bits -----------------------------------------------------------------------


@kernel
def _take_content(state: "State", position: int, pfn: int) -> None:
    page = state.page[pfn]
    page.content = state.final_content[position]
    page.word = state.final_word[position]


@entry
def take_contents(state: "State", guest_index: int, nr_changed: int, nr_accessed: int) -> int:
    """Take over one guest's changed contents and accessed bits; return how many contents wait for a fault.

    ``state.incoming`` holds the gfns: ``nr_changed`` changed ones, then ``nr_accessed`` accessed ones;
    final_content and final_word are filled in at the changed ones' positions.
    """
    guest = state.guest[guest_index]
    waiting = 0
    for i in range(nr_changed):
        gfn = state.incoming[i]
        position = guest.view_base + gfn
        pte = _pte_of(state, guest_index, gfn)
        if pte & Pte.PRESENT and pte & Pte.WRITE:
            _take_content(state, position, pte_pfn(pte))
            _set_pte_bits(state, guest_index, gfn, Pte.ACCESSED | Pte.DIRTY)
        else:
            state.view_sent[position] |= GfnBit.FINAL
            waiting += 1
    for i in range(nr_changed, nr_changed + nr_accessed):
        gfn = state.incoming[i]
        if _pte_of(state, guest_index, gfn) & Pte.PRESENT:
            _set_pte_bits(state, guest_index, gfn, Pte.ACCESSED)
    return waiting


@kernel
def _set_pte_bits(state: "State", guest_index: int, gfn: int, bits: int) -> None:
    """Set bits of the entry that maps a guest's frame; its tables exist."""
    guest = state.guest[guest_index]
    vaddr = guest.ram_vaddr + (gfn << PAGE_SHIFT)
    position = pte_position(state, state.mm[guest.mm].pgd_pfn, vaddr)
    if position == NIL:
        position = huge_position(state, guest.mm, vaddr)
    state.pt_word[position] |= bits


# --- traffic ------------------------------------------------------------------------------------------


@kernel
def _kill(state: "State", guest_index: int) -> None:
    """Take note that the guest's process is dead. What it still reported of this epoch is void."""
    state.guest[guest_index].killed = 1


@kernel
def _fault_until_served(state: "State", guest_index: int, gfn: int, write: int) -> int:
    """Fault a frame in until its entry allows the access; return the entry, or 0 if the guest is dead."""
    guest = state.guest[guest_index]
    mm = state.mm[guest.mm]
    vaddr = guest.ram_vaddr + (gfn << PAGE_SHIFT)
    for _ in range(MAX_FAULTS):
        pte = _pte_of(state, guest_index, gfn)
        if pte & Pte.PRESENT and (pte & Pte.WRITE or not write):
            return pte
        outcome = handle_mm_fault(state, guest.mm, vaddr, write)
        bug_on(state, outcome == VmFault.SEGV, Panic.PROTOCOL, gfn)
        if not mm.alive:
            return 0
    pte = _pte_of(state, guest_index, gfn)
    if pte & Pte.PRESENT and (pte & Pte.WRITE or not write):
        return pte
    # Nobody else was worth killing, and there is still no page: the fault's own process has to go.
    if not mm.oom_victim:  # else it was chosen, and counted
        state.vm_event[VmEvent.OOM_KILL] += 1
    exit_mmap(state, guest.mm)
    return 0


@kernel
def _charged_ps(state: "State", position: int) -> int:
    """Return what the guest charged itself for a violation on the frame, the exit itself left out."""
    charged_ps = state.cost[Cost.PAGE_FAULT] + state.cost[Cost.PAGE_ZERO]
    if state.view_sent[position] & GfnBit.VIEW == View.SWAPPED:
        charged_ps += state.knob[Knob.EPT_FAULT_ESTIMATE_PS]
    return charged_ps


@kernel
def _raise_view(state: "State", position: int, view: int) -> None:
    """Follow the guest, which raised its view itself; what the page table says is settled at the border."""
    bits = state.view_sent[position] & ~GfnBit.VIEW
    state.view_sent[position] = bits | max(state.view_sent[position] & GfnBit.VIEW, view)
    _list_view(state, position)


@kernel
def _serve(state: "State", index: int, issue_ps: int) -> None:
    """Serve violation ``index`` as a page fault at ``issue_ps``; CLOCK_PS then says when it was done."""
    violation = state.traffic[index]
    guest_index = violation.guest
    gfn = violation.gfn
    guest = state.guest[guest_index]
    state.current[Current.CLOCK_PS] = issue_ps
    if not state.mm[guest.mm].alive:
        _kill(state, guest_index)
        return
    position = guest.view_base + gfn
    write = 1 if violation.kind == ViolationKind.WRITE else 0
    _raise_view(state, position, View.WRITABLE if write else View.READ_ONLY)
    state.current[Current.CPU] = 0
    state.current[Current.MM] = guest.mm
    state.current[Current.GUEST] = guest_index
    state.current[Current.STALL_PS] = 0
    pte = _fault_until_served(state, guest_index, gfn, write)
    if pte == 0:
        _kill(state, guest_index)
        return
    if write and state.view_sent[position] & GfnBit.FINAL:
        _take_content(state, position, pte_pfn(pte))
        state.view_sent[position] &= ~GfnBit.FINAL
    _set_pte_bits(state, guest_index, gfn, Pte.ACCESSED | (Pte.DIRTY if write else 0))


@kernel
def _latency_ps(state: "State", due_ps: int, issue_ps: int) -> int:
    """Return how long the fault that ended at CLOCK_PS kept its vCPU, due at ``due_ps``, waiting.

    A fault that is due behind the end of the epoch was served at the end, its reads left out. If it waited all the
    same, for reclaim or for a read that was under way, that began when its vCPU was still waiting for those
    before: it does not count twice. A read of its own is the least that such a fault is charged.
    """
    done_ps = state.current[Current.CLOCK_PS]
    latency_ps = done_ps - issue_ps
    if due_ps > issue_ps:
        disk = state.disk[0]
        latency_ps = min(latency_ps, max(done_ps - due_ps, disk.read_latency_ps + disk.page_read_ps))
    return latency_ps


# --- whose violation is next: a binary heap of vCPUs by (due_ps, number) ----------------------------------


@kernel
def _is_before(state: "State", a: int, b: int) -> int:
    """Return whether vCPU ``a``'s next violation comes before vCPU ``b``'s."""
    due_a = state.vcpu[a].due_ps
    due_b = state.vcpu[b].due_ps
    if due_a != due_b:
        return 1 if due_a < due_b else 0
    return 1 if a < b else 0


@kernel
def _sift_down(state: "State", place: int, count: int) -> None:
    """Move the vCPU at ``place`` of the heap down to where it belongs."""
    vcpu = state.vcpu_heap[place]
    child = 2 * place + 1
    while child < count:
        if child + 1 < count and _is_before(state, state.vcpu_heap[child + 1], state.vcpu_heap[child]):
            child += 1
        if not _is_before(state, state.vcpu_heap[child], vcpu):
            break
        state.vcpu_heap[place] = state.vcpu_heap[child]
        place = child
        child = 2 * place + 1
    state.vcpu_heap[place] = vcpu


@kernel
def _find_streams(state: "State", nr_violations: int) -> int:
    """Give each vCPU its part of the traffic and put those with any into the heap; return their number."""
    for number in range(len(state.vcpu)):
        vcpu = state.vcpu[number]
        vcpu.owed_ps = 0
        vcpu.next = 0
        vcpu.behind = 0
    count = 0
    last = NIL
    for index in range(nr_violations):
        violation = state.traffic[index]
        number = state.guest[violation.guest].vcpu_base + violation.vcpu
        vcpu = state.vcpu[number]
        if number != last:
            last = number
            vcpu.next = index
            vcpu.due_ps = violation.time_ps
            state.vcpu_heap[count] = number
            count += 1
        vcpu.behind = index + 1
    for place in range(count // 2 - 1, -1, -1):
        _sift_down(state, place, count)
    return count


@kernel
def _note_late_read(state: "State", index: int, number: int, charged_ns: int) -> None:
    """Fill in when a late read of vCPU ``number`` is due, and what is to be taken off its latency."""
    vcpu = state.vcpu[number]
    read = state.late_read[index]
    violation = state.traffic[vcpu.next]
    read.time_ps = vcpu.due_ps
    read.guest = violation.guest
    read.vcpu = violation.vcpu
    read.kind = ViolationKind.LATE_READ
    read.charged_ns = charged_ns


@kernel
def _serve_violation(state: "State", number: int, issue_ps: int) -> None:
    """Serve the next violation of vCPU ``number`` at ``issue_ps`` and add to what the vCPU owes."""
    vcpu = state.vcpu[number]
    violation = state.traffic[vcpu.next]
    charged_ps = _charged_ps(state, state.guest[violation.guest].view_base + violation.gfn)
    late = state.current[Current.NR_LATE_READS]
    state.current[Current.READS_ARE_LATE] = 1 if vcpu.due_ps > issue_ps else 0
    _serve(state, vcpu.next, issue_ps)
    state.current[Current.READS_ARE_LATE] = 0
    if late != state.current[Current.NR_LATE_READS]:
        # The guest was charged for the device, so it has that to its credit only when the device has been asked.
        estimate_ps = min(state.knob[Knob.EPT_FAULT_ESTIMATE_PS], charged_ps)
        charged_ps -= estimate_ps
        _note_late_read(state, late, number, estimate_ps // PS_PER_NS)
        for index in range(late + 1, state.current[Current.NR_LATE_READS]):
            _note_late_read(state, index, number, 0)
    vcpu.owed_ps += _latency_ps(state, vcpu.due_ps, issue_ps) - charged_ps
    vcpu.next += 1


@kernel
def _issue_late_reads(state: "State", number: int, end_ps: int) -> None:
    """Issue the late reads of one fault, the next of vCPU ``number``, and let the vCPU wait for the last.

    If they are not due in this epoch either, they stay late.
    """
    vcpu = state.vcpu[number]
    begin_ps = state.traffic[vcpu.next].time_ps
    done_ps = vcpu.due_ps
    charged_ps = 0
    while vcpu.next < vcpu.behind:
        read = state.traffic[vcpu.next]
        if read.kind != ViolationKind.LATE_READ or read.time_ps != begin_ps:
            break
        if vcpu.due_ps <= end_ps:
            state.current[Current.CLOCK_PS] = vcpu.due_ps
            done_ps = disk_io(state, read.gfn, 1, 0)
            charged_ps += read.charged_ns * PS_PER_NS
        else:
            index = state.current[Current.NR_LATE_READS]
            state.late_read[index].gfn = read.gfn
            _note_late_read(state, index, number, read.charged_ns)
            state.current[Current.NR_LATE_READS] = index + 1
        vcpu.next += 1
    vcpu.owed_ps += done_ps - vcpu.due_ps - charged_ps


@entry
def serve_traffic(state: "State", nr_violations: int, end_ps: int) -> int:
    """Serve the first ``nr_violations`` of ``state.traffic`` with ksmd and kswapd in between; return 0.

    The traffic is ordered by (guest, vCPU, time, order of report). Of all vCPUs' next violations the earliest is
    served, of equal ones that of the lower guest and vCPU.
    """
    count = _find_streams(state, nr_violations)
    while count > 0:
        number = state.vcpu_heap[0]
        vcpu = state.vcpu[number]
        issue_ps = min(vcpu.due_ps, end_ps)
        run_kthreads(state, issue_ps)
        if state.traffic[vcpu.next].kind == ViolationKind.LATE_READ:
            _issue_late_reads(state, number, end_ps)
        else:
            _serve_violation(state, number, issue_ps)
        if vcpu.next < vcpu.behind:
            vcpu.due_ps = state.traffic[vcpu.next].time_ps + vcpu.owed_ps
        else:
            count -= 1
            state.vcpu_heap[0] = state.vcpu_heap[count]
        if count > 0:
            _sift_down(state, 0, count)
    state.current[Current.MM] = 0
    state.current[Current.GUEST] = NIL
    run_kthreads(state, end_ps)
    return 0


@entry
def void_contents(state: "State", guest_index: int, nr_changed: int) -> int:
    """Check that no content of the guest still waits, unless the guest is dead; return 1 if it is.

    ``state.incoming`` holds its changed gfns.
    """
    guest = state.guest[guest_index]
    if not state.mm[guest.mm].alive:
        _kill(state, guest_index)
    for i in range(nr_changed):
        position = guest.view_base + state.incoming[i]
        if state.view_sent[position] & GfnBit.FINAL:
            # A guest may not change what it could not write and never asked for.
            bug_on(state, not guest.killed, Panic.PROTOCOL, position)
            state.view_sent[position] &= ~GfnBit.FINAL
    return guest.killed


# --- answers ------------------------------------------------------------------------------------------


@kernel
def _guest_at(state: "State", position: int) -> int:
    """Return the guest whose frame has ``position``, by bisection."""
    low = 0
    high = state.knob[Knob.NR_GUESTS] - 1
    while low < high:
        middle = (low + high + 1) >> 1
        if state.guest[middle].view_base <= position:
            low = middle
        else:
            high = middle - 1
    return low


@entry
def settle_views(state: "State") -> int:
    """Keep in ``view_changed`` the positions where a guest's view is not its page table's; return how many.

    ``view_sent`` then holds what the guests will have once they were told.
    """
    nr_listed = state.current[Current.NR_VIEW_CHANGES]
    nr_changed = 0
    for i in range(nr_listed):
        position = state.view_changed[i]
        guest_index = _guest_at(state, position)
        guest = state.guest[guest_index]
        sent = state.view_sent[position] & GfnBit.VIEW
        # A dead guest's page tables are gone.
        pte = 0 if guest.killed else _pte_of(state, guest_index, position - guest.view_base)
        now = _view_of(pte)
        state.view_sent[position] = now
        if now != sent:
            state.view_changed[nr_changed] = position
            nr_changed += 1
    state.current[Current.NR_VIEW_CHANGES] = 0
    return nr_changed


# --- the device ---------------------------------------------------------------------------------------


@entry
def next_estimate(state: "State") -> int:
    """Return in ps, whole ns, what guests charge themselves for the device in the next epoch.

    A read without queueing, or the mean of the last epoch's if they took less. Their statistics begin anew.
    """
    disk = state.disk[0]
    estimate_ps = min(mean_service_ps(state), disk.read_latency_ps + disk.page_read_ps)
    estimate_ps = estimate_ps // PS_PER_NS * PS_PER_NS
    state.knob[Knob.EPT_FAULT_ESTIMATE_PS] = estimate_ps
    begin_epoch_of_disk(state)
    return estimate_ps
