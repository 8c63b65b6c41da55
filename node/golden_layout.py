"""A recorded machine's free memory: the blocks that its buddyinfo and pagetypeinfo list, laid into a built machine.

    zone DMA32, from its lowest frame up

    | kernel image | pageblocks of its unmovable  | movable pageblocks in use: pages, | free blocks of     | 97 free  |
    |  (reserved)  | and reclaimable memory, with | smaller free blocks between them  | order 9, pageblock | blocks of|
    |              | the free blocks of the type  |                                   | by pageblock       | order 10 |

A recording says how many free blocks of each zone, order and migrate type there were, and how many pageblocks of
each type; not where. A kernel that boots takes the lowest frames first, so the large blocks are the highest, and
what is in use lies below them: first what the kernel took for good, then pages. No two blocks are laid where they
would merge. Every other managed frame is in use: the kernel's, but for those that the recording harness's
controller needs, which the per-CPU lists of CPU 0 keep ready for it until ``close``. How many frames those lists
held then follows from the recording's counters: pgfree, which counts what booting freed too, less pgalloc, less
what was on the free lists. Of which type, it does not say. Few can have been unmovable, since the first page tables
took batches off the free lists; here they are reclaimable ones, which no command of the recordings takes.

That those pages are reclaimable and that the controller's lie highest was settled after the other choice had been
seen to agree less with ``buddy_big``: it is an assumption fitted to that recording, which is the only one laid out so.

Linux: mm/vmstat.c (frag_show, pagetypeinfo_showfree, pagetypeinfo_showblockcount), whose text the recordings hold.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from node.counters import Current, VmStat
from node.joints import drain_all_pages
from node.phys.buddy import MAX_ORDER, NR_ORDERS, add_block, count_free
from node.phys.frames_check import ORDER_OF_LIST
from node.phys.migrate_type import NR_MIGRATE_TYPES, NR_PCP_TYPES, MigrateType, pageblock_type, zone_of
from node.phys.page import PageFlag
from node.phys.pcp import NR_PCP_LISTS, list_of, pcp_index, push_frame
from node.phys.zone import NR_ZONES, PAGEBLOCK_ORDER, PAGEBLOCK_PAGES, ZONE_NAMES, ZoneId
from node.vm.page_tables import PGD_ORDER
from shared.constants import NIL
from shared.jit import entry

if TYPE_CHECKING:
    from node.state import State

FREE_WORDS: Final = 6 + NR_ORDERS  # "Node 0, zone DMA, type Movable" and a number for each order
COUNT_WORDS: Final = 4 + NR_MIGRATE_TYPES  # "Node 0, zone DMA" and a number for each type
PER_CPU_PAGES: Final = "initial_per_cpu_pages"
SPARE_UNMOVABLE: Final = 32  # frames kept ready for the page tables of the controller

Mask = npt.NDArray[np.bool_]


class LayoutError(ValueError):
    """A recording whose free blocks do not fit into the machine, in one line."""


@dataclass(frozen=True, slots=True)
class RecordedStart:
    """How a recorded machine's free memory was before the first command."""

    pagetypeinfo: tuple[str, ...]  # lines of /proc/pagetypeinfo
    nr_on_lists: int  # frames on per-CPU lists


@dataclass(frozen=True, slots=True)
class RecordedZone:
    """What a recording says of a zone."""

    free: tuple[tuple[int, ...], ...]  # [NR_PCP_TYPES][NR_ORDERS] free blocks, by migrate type and order
    pageblocks: tuple[int, ...]  # [NR_PCP_TYPES] pageblocks given to each type

    def blocks(self, migrate_type: int, orders: Sequence[int]) -> list[int]:
        """Return the order of each free block of a type, for those of ``orders`` and in their order."""
        return [order for order in orders for _ in range(self.free[migrate_type][order])]

    def free_pages(self, migrate_type: int) -> int:
        """Return the frames in the free blocks of a type."""
        return sum(count << order for order, count in enumerate(self.free[migrate_type]))


def read_pagetypeinfo(lines: Sequence[str]) -> dict[int, RecordedZone]:
    """Return what /proc/pagetypeinfo says of each kind of zone of node 0.

    Raises ``LayoutError`` for blocks that are reserved or isolated: where they lie is the machine's own affair.
    """
    free: dict[str, list[tuple[int, ...]]] = {}
    counts: dict[str, tuple[int, ...]] = {}
    for line in lines:
        words = line.replace(",", " ").split()
        if len(words) == FREE_WORDS and words[4] == "type":
            free.setdefault(words[3], []).append(tuple(map(int, words[6:])))
        elif len(words) == COUNT_WORDS and words[2] == "zone":
            counts[words[3]] = tuple(map(int, words[4:]))
    if any(any(map(any, rows[NR_PCP_TYPES:])) for rows in free.values()):
        raise LayoutError("pagetypeinfo: free blocks that are HighAtomic or Isolate cannot be laid out")
    return {
        ZONE_NAMES.index(name): RecordedZone(tuple(rows[:NR_PCP_TYPES]), counts[name][:NR_PCP_TYPES])
        for name, rows in free.items()
    }


@entry
def lay_block(state: "State", pfn: int, order: int) -> int:
    """Make frames that are in use a free block of their pageblock's type, at its list's tail; return 0."""
    for frame in range(pfn, pfn + (1 << order)):
        state.page[frame].page_flags = 0
        state.page[frame].refcount = 0
    page = state.page[pfn]
    page.order = order
    page.migrate_type = pageblock_type(state, pfn)
    add_block(state, zone_of(state, pfn), pfn, 1)
    count_free(state, zone_of(state, pfn), 1 << order)
    return 0


@entry
def keep_ready(state: "State", pfn: int, order: int, which_type: int) -> int:
    """Put a block that is in use first on this CPU's list of a migrate type, NIL: its pageblock's; return 0."""
    page = state.page[pfn]
    for frame in range(pfn, pfn + (1 << order)):
        state.page[frame].page_flags = 0
        state.page[frame].refcount = 0
    page.order = order
    page.migrate_type = pageblock_type(state, pfn)
    index = pcp_index(state, zone_of(state, pfn))
    wanted = page.migrate_type if which_type == NIL else which_type
    push_frame(state, index, list_of(order, wanted), pfn)
    state.pcp[index].count += 1 << order
    return 0


@dataclass(slots=True)
class _ZoneLayout:
    """Where a zone's free blocks go."""

    managed: Mask  # [pageblocks of the zone, 512]
    first_pfn: int  # of those pageblocks
    recorded: RecordedZone
    types: npt.NDArray[np.int8] = field(init=False)  # [pageblocks] MigrateType
    used: Mask = field(init=False)  # frames of no free block yet
    heads: list[tuple[int, int]] = field(default_factory=list)  # first frame and order of each block

    def __post_init__(self) -> None:
        self.types = np.full(len(self.managed), MigrateType.MOVABLE, np.int8)
        self.used = self.managed.copy()

    def give_pageblocks(self) -> None:
        """Give pageblocks to unmovable and reclaimable memory: as high as leaves enough in use for movable pages."""
        wanted = [self.recorded.pageblocks[kind] for kind in (MigrateType.UNMOVABLE, MigrateType.RECLAIMABLE)]
        length = sum(wanted)
        in_use = int(self.managed.sum()) - sum(self.recorded.free_pages(kind) for kind in range(NR_PCP_TYPES))
        free = sum(
            self.recorded.free_pages(kind) for kind in (MigrateType.UNMOVABLE, MigrateType.RECLAIMABLE)
        )
        # Beside each free block smaller than a pageblock lies one of its size that is in use, at least in part.
        small = self.recorded.blocks(MigrateType.MOVABLE, range(PAGEBLOCK_ORDER))
        movable_use = sum(1 << order for order in small)
        room = np.cumsum(np.concatenate([[0], self.managed.sum(axis=1)]))
        windows = room[length:] - room[: len(room) - length]
        fitting = np.flatnonzero((windows >= free) & (windows - free <= in_use - movable_use))
        if not len(fitting):
            raise LayoutError(f"pagetypeinfo: {length} pageblocks cannot hold what is not movable")
        first = int(fitting[np.argmax(windows[fitting])])
        self.types[first : first + wanted[0]] = MigrateType.UNMOVABLE
        self.types[first + wanted[0] : first + length] = MigrateType.RECLAIMABLE

    def lay(self) -> None:
        """Find a place for every block."""
        descending = range(MAX_ORDER, -1, -1)
        for kind in (MigrateType.UNMOVABLE, MigrateType.RECLAIMABLE):
            for order in self.recorded.blocks(kind, descending):
                self._place(order, kind, upwards=True)
        for order in self.recorded.blocks(MigrateType.MOVABLE, descending):
            self._place(order, MigrateType.MOVABLE, upwards=False)

    def _place(self, order: int, kind: int, *, upwards: bool) -> None:
        size = 1 << order
        taken = {pfn for pfn, other in self.heads if other == order}
        used = self.used.reshape(-1)
        first = -(-self.first_pfn // size) * size
        starts = np.arange(first - self.first_pfn, len(used) - size + 1, size)
        whole = used[starts[0] : starts[0] + len(starts) * size].reshape(-1, size).all(axis=1)
        right = self.types[starts >> PAGEBLOCK_ORDER] == kind
        for start in starts[whole & right] if upwards else starts[whole & right][::-1]:
            pfn = self.first_pfn + int(start)
            if order == MAX_ORDER or pfn ^ size not in taken:
                used[start : start + size] = False
                self.heads.append((pfn, order))
                return
        raise LayoutError(f"buddyinfo: no place for a free block of order {order}")

    def in_use(self, kinds: tuple[int, ...]) -> Iterator[int]:
        """Yield the frames in use in pageblocks of some types, ascending."""
        rows = np.isin(self.types, kinds)
        for at in np.flatnonzero((self.used & rows[:, None]).reshape(-1)):
            yield self.first_pfn + int(at)


class GoldenLayout:
    """A built machine whose free lists are as recorded; its other frames are in use.

    The harness's controller has ``nr_pages`` pages, its files have ``nr_unmovable``; all are made before ``close`` is
    called. Raises ``LayoutError`` if the recorded blocks cannot be laid out.
    """

    def __init__(self, state: "State", start: RecordedStart, nr_pages: int, nr_unmovable: int = 0) -> None:
        self.state = state
        self.nr_on_lists = start.nr_on_lists
        self.on_lists: list[int] = []
        recorded = read_pagetypeinfo(start.pagetypeinfo)
        drain_all_pages(state)
        free = self._take_all()
        layouts = {}
        for kind, zone in recorded.items():
            layouts[kind] = self._lay_zone(kind, zone, free)
        self._keep_ready(layouts[max(layouts)], nr_pages, SPARE_UNMOVABLE + nr_unmovable)

    def _take_all(self) -> Mask:
        """Take every free block off its list; return which frames that were."""
        state = self.state
        heads = np.flatnonzero(np.asarray(state.page["page_flags"]) & PageFlag.BUDDY)
        borders = np.zeros(len(state.page) + 1, np.int64)
        borders[heads] += 1
        np.add.at(borders, heads + (1 << state.page["order"][heads].astype(np.int64)), -1)
        free: Mask = np.cumsum(borders[:-1]) > 0
        state.free_list["first"][:] = NIL
        state.free_list["last"][:] = NIL
        state.free_area["nr_free"][:] = 0
        state.zone["nr_free"][:] = 0
        state.vm_stat[VmStat.NR_FREE_PAGES] = 0
        page = state.page
        page["order"][free] = 0
        page["page_flags"][free] = PageFlag.KERNEL
        page["refcount"][free] = 1
        return free

    def _lay_zone(self, kind: int, recorded: RecordedZone, free: Mask) -> _ZoneLayout:
        state = self.state
        blocks = np.flatnonzero(np.asarray(state.pageblock["zone"]) == kind)
        if not len(blocks):
            raise LayoutError(f"pagetypeinfo: the machine has no zone {ZONE_NAMES[kind]}")
        first, behind = int(blocks[0]), int(blocks[-1]) + 1
        managed = np.zeros((behind - first) * PAGEBLOCK_PAGES, np.bool_)
        of_zone = free[first * PAGEBLOCK_PAGES : behind * PAGEBLOCK_PAGES]
        managed[: len(of_zone)] = of_zone
        layout = _ZoneLayout(managed.reshape(-1, PAGEBLOCK_PAGES), first * PAGEBLOCK_PAGES, recorded)
        layout.give_pageblocks()
        layout.lay()
        state.pageblock["migrate_type"][first:behind] = layout.types
        for pfn, order in sorted(layout.heads):
            lay_block(state, pfn, order)
        return layout

    def _keep_ready(self, layout: _ZoneLayout, nr_pages: int, nr_unmovable: int) -> None:
        state = self.state
        state.current[Current.CPU] = 0
        # The controller came last, so it has the highest of the frames in use. The last put is the first taken.
        pages = list(layout.in_use((MigrateType.MOVABLE,)))[-nr_pages:]
        # Where there were no more movable pageblocks at hand, others' frames served it.
        others = list(layout.in_use((MigrateType.UNMOVABLE, MigrateType.RECLAIMABLE)))
        nr_others = nr_pages - len(pages)
        if nr_others > len(others) // 2:
            raise LayoutError(f"pagetypeinfo: {len(pages)} movable frames in use are not {nr_pages}")
        borrowed = others[len(others) - nr_others :] if nr_others else []
        taken = set(borrowed)
        tables = [pfn for pfn in layout.in_use((MigrateType.UNMOVABLE,)) if pfn not in taken]
        top_table = next(pfn for pfn in tables if pfn % 2 == 0 and pfn + 1 in tables)
        tables = [pfn for pfn in tables if pfn - top_table not in (0, 1)]
        tables = tables[:nr_unmovable]
        reclaimable = [pfn for pfn in layout.in_use((MigrateType.RECLAIMABLE,)) if pfn not in taken]
        self.on_lists = reclaimable[: self.nr_on_lists]
        keep_ready(state, top_table, PGD_ORDER, NIL)
        for pfn in (*reversed(tables), *reversed(pages)):
            keep_ready(state, pfn, 0, NIL)
        for pfn in reversed(borrowed):
            keep_ready(state, pfn, 0, MigrateType.MOVABLE)

    def close(self) -> None:
        """Leave on the lists what they held, and make the kernel's what else the controller did not need."""
        state = self.state
        for index in range(len(state.pcp)):
            for which in range(NR_PCP_LISTS):
                pcp_list = state.pcp_list[index * NR_PCP_LISTS + which]
                size = 1 << ORDER_OF_LIST[which]
                pfn = int(pcp_list.first)
                while pfn != NIL:
                    state.page["page_flags"][pfn : pfn + size] = PageFlag.KERNEL
                    state.page["refcount"][pfn : pfn + size] = 1
                    pfn = int(state.page[pfn].next)
                pcp_list.first = NIL
                pcp_list.last = NIL
            state.pcp[index].count = 0
        for pfn in self.on_lists:
            keep_ready(state, pfn, 0, NIL)


def recorded_start(golden: dict[str, Any]) -> RecordedStart | None:
    """Return how a recording's free memory was at its start, if it watches buddy lists; None otherwise.

    Raises KeyError for a counter that it lacks.
    """
    snapshots = golden["snapshots"]
    if not any(key.startswith("buddy.") for snapshot in snapshots for key in snapshot.get("key", {})):
        return None
    lines = tuple(golden["machine"]["initial_pagetypeinfo"])
    if PER_CPU_PAGES in golden["machine"]:  # a recording of our own says it
        return RecordedStart(lines, golden["machine"][PER_CPU_PAGES])
    level = snapshots[0]["level"]
    taken = sum(_median(value) for key, value in level.items() if key.startswith("vmstat.pgalloc_"))
    on_lists = _median(level["vmstat.pgfree"]) - taken - _median(level["vmstat.nr_free_pages"])
    return RecordedStart(lines, max(on_lists, 0))


def _median(value: int | list[int]) -> int:
    return value if isinstance(value, int) else value[1]


def buddy_counters(state: "State") -> dict[str, int]:
    """Return free blocks by zone and order as the recordings name them: ``buddy.DMA32.order3``."""
    return {
        f"buddy.{ZONE_NAMES[zone % NR_ZONES]}.order{order}": int(
            state.free_area[zone * NR_ORDERS + order].nr_free
        )
        for zone in range(min(NR_ZONES, len(state.zone)))
        if zone != ZoneId.DEVICE and state.zone[zone].managed
        for order in range(NR_ORDERS)
    }
