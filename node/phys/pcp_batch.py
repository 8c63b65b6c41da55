"""Per-CPU frame lists, in batches: refilled from the zone when empty, given back when they are too long.

    limit reached -> batch << free_factor frames go back, coldest first, list after list from the one just freed to;
                     the factor rises with each time in a row, and halves with each allocation
    a block of order 1-3 freed while the factor is up -> everything goes back

While kswapd works, freed frames shall reach the zone, where watermarks see them: the limit falls to four batches.

Linux: mm/page_alloc.c (rmqueue_bulk, free_pcppages_bulk, nr_pcp_free, nr_pcp_high, drain_all_pages).
"""

from typing import TYPE_CHECKING, Final

from node.counters import Knob, VmEvent
from node.phys.buddy import count_free, free_one_page
from node.phys.fallback import TYPE_MASK, rmqueue
from node.phys.migrate_type import NR_PCP_TYPES, MigrateType, pageblock_type, zone_of
from node.phys.page import PageFlag
from node.phys.pcp import COSTLY_ORDER, NR_PCP_LISTS, list_of, order_of_list, pcp_index, pcp_zone, push_frame
from shared.constants import NIL
from shared.jit import entry, kernel
from shared.kernel_state import prefetch

if TYPE_CHECKING:
    from node.state import State

BATCH_SCALE_MAX: Final = 5  # CONFIG_PCP_BATCH_SCALE_MAX
RECLAIM_BATCHES: Final = 4  # nr_pcp_high
# A block is taken from its low end upwards, so the descriptors that the host's processor should bring now are these.
FRAMES_AHEAD: Final = 16


# --- refilling ------------------------------------------------------------------------------------------


@kernel
def refill(state: "State", zone: int, order: int, type_and_flags: int) -> int:
    """Fetch a batch for this CPU's empty list of an order and type; return how many blocks came."""
    index = pcp_index(state, zone)
    lists = state.pcp[index]
    which = list_of(order, type_and_flags & TYPE_MASK)
    pcp_list = state.pcp_list[index * NR_PCP_LISTS + which]
    batch = lists.batch
    if batch > 1:
        batch = max(batch >> order, 2)
    fetched = 0
    while fetched < batch:
        pfn = rmqueue(state, zone, order, type_and_flags)
        if pfn == NIL:
            break
        page = state.page[pfn]
        prefetch(state.page, pfn + FRAMES_AHEAD)
        page.page_flags |= PageFlag.PCP
        page.next = NIL
        page.prev = pcp_list.last
        if pcp_list.last == NIL:
            pcp_list.first = pfn
        else:
            state.page[pcp_list.last].next = pfn
        pcp_list.last = pfn
        fetched += 1
    lists.count += fetched << order
    count_free(state, zone, -(fetched << order))
    state.vm_event[VmEvent.MM_PAGE_ALLOC_ZONE_LOCKED] += fetched
    return fetched


# --- giving back ----------------------------------------------------------------------------------------


@kernel
def _free_from_tail(state: "State", index: int, which: int, order: int) -> int:
    """Give the coldest block of a list, which is not empty, back to its zone; return how many frames are free then.

    They are not counted here.
    """
    pcp_list = state.pcp_list[index * NR_PCP_LISTS + which]
    pfn = pcp_list.last
    page = state.page[pfn]
    pcp_list.last = page.prev
    if page.prev == NIL:
        pcp_list.first = NIL
    else:
        state.page[page.prev].next = NIL
    page.page_flags &= ~PageFlag.PCP
    # The pageblock may have been isolated since the frame was freed.
    if pageblock_type(state, pfn) == MigrateType.ISOLATE:
        free_one_page(state, pfn, order, MigrateType.ISOLATE, 0)
        return 0
    free_one_page(state, pfn, order, page.migrate_type, 0)
    return 1 << order


@kernel
def free_pages_of_lists(state: "State", index: int, nr_pages: int, which: int) -> None:
    """Give at least ``nr_pages`` frames, as far as there are, back: list by list in turn, from ``which`` on.

    Of each list all that is still wanted goes before the next is looked at (free_pcppages_bulk).
    """
    lists = state.pcp[index]
    left = min(lists.count, nr_pages)
    nr_freed = 0
    which -= 1
    while left > 0:
        which = which + 1 if which < NR_PCP_LISTS - 1 else 0
        order = order_of_list(which)
        while left > 0 and state.pcp_list[index * NR_PCP_LISTS + which].first != NIL:
            nr_freed += _free_from_tail(state, index, which, order)
            state.vm_event[VmEvent.MM_PAGE_PCPU_DRAIN] += 1
            lists.count -= 1 << order
            left -= 1 << order
    count_free(state, pcp_zone(state, index), nr_freed)


@kernel
def _nr_to_free(state: "State", index: int) -> int:
    """Return how many frames go back when the limit is reached: twice as many with each time in a row."""
    lists = state.pcp[index]
    if lists.limit < lists.batch:
        return 1
    most = lists.limit - lists.batch
    wanted = lists.batch << lists.free_factor
    if wanted < most and lists.free_factor < BATCH_SCALE_MAX:
        lists.free_factor += 1
    return min(max(wanted, lists.batch), most)


@entry
def pcp_free_bulk(state: "State", index: int, which: int) -> int:
    """Give frames of ``state.pcp[index]``, which reached its limit, back to the zone, list ``which`` first; 0."""
    free_pages_of_lists(state, index, _nr_to_free(state, index), which)
    return 0


@kernel
def free_block_to_lists(state: "State", pfn: int, order: int) -> None:
    """Put a block of an order that the lists keep on this CPU's lists (free_unref_page)."""
    migrate_type = pageblock_type(state, pfn)
    page = state.page[pfn]
    page.migrate_type = migrate_type
    page.order = order
    if migrate_type >= NR_PCP_TYPES:
        migrate_type = MigrateType.MOVABLE
    which = list_of(order, migrate_type)
    index = pcp_index(state, zone_of(state, pfn))
    push_frame(state, index, which, pfn)
    lists = state.pcp[index]
    lists.count += 1 << order
    if 0 < order <= COSTLY_ORDER and lists.free_factor:
        free_pages_of_lists(state, index, lists.count, which)
    elif lists.count >= lists.limit:
        free_pages_of_lists(state, index, _nr_to_free(state, index), which)


@kernel
def drain_lists(state: "State", index: int) -> None:
    """Give all frames of a CPU's lists for one zone, ``state.pcp[index]``, back to it."""
    while state.pcp[index].count > 0:
        free_pages_of_lists(state, index, state.pcp[index].batch << BATCH_SCALE_MAX, 0)


@kernel
def drain_cpu(state: "State", cpu: int) -> None:
    """Give the frames of a CPU's lists back to their zones."""
    nr_zones = len(state.zone)
    for index in range(cpu * nr_zones, (cpu + 1) * nr_zones):
        drain_lists(state, index)


@entry
def drain_all_pages(state: "State") -> int:
    """Give the frames of every CPU's lists back to their zones; return 0."""
    for cpu in range(state.knob[Knob.NR_CPUS]):
        drain_cpu(state, cpu)
    return 0


@kernel
def set_reclaim_active(state: "State", active: int) -> None:
    """Let freed frames reach the zones, where the watermarks see them, while kswapd works."""
    for zone in range(len(state.zone)):
        state.zone[zone].reclaim_active = active
        for cpu in range(state.knob[Knob.NR_CPUS]):
            lists = state.pcp[cpu * len(state.zone) + zone]
            lists.limit = min(lists.batch * RECLAIM_BATCHES, lists.high) if active else lists.high
