"""A zone's free lists as Python lists: buddy merging, migrate types, stealing, the high-order reserve, per-CPU lists.

Written from what the kernel's documentation and comments say that each does (mm/page_alloc.c), for one zone whose
pageblocks are of 512 frames.
"""

from dataclasses import dataclass, field

UNMOVABLE, MOVABLE, RECLAIMABLE, HIGHATOMIC = range(4)
TOP = 10
BLOCK_ORDER = 9
BLOCK = 1 << BLOCK_ORDER
LINE = {
    UNMOVABLE: (RECLAIMABLE, MOVABLE),
    MOVABLE: (RECLAIMABLE, UNMOVABLE),
    RECLAIMABLE: (UNMOVABLE, MOVABLE),
}


@dataclass
class ZoneLists:
    """Frames [start, end) of a zone."""

    start: int
    end: int
    managed: int
    max_boost: int  # 0: no boosting
    types: dict[int, int]  # pageblock number -> its type
    lists: dict[tuple[int, int], list[int]] = field(default_factory=dict)  # (order, type) -> first frames
    lru: set[int] = field(default_factory=set)  # frames in use that could be moved away
    boost: int = 0
    boosted: bool = False
    reserved: int = 0

    def list_of(self, order: int, kind: int) -> list[int]:
        """Return a list, to be changed."""
        return self.lists.setdefault((order, kind), [])

    def free_blocks(self) -> dict[int, tuple[int, int]]:
        """Return the order and type of each free block."""
        return {pfn: key for key, members in self.lists.items() for pfn in members}

    # --- the buddy system -------------------------------------------------------------------------------

    def free(self, pfn: int, order: int, kind: int) -> None:
        """Give a block back, and merge it as far as its buddies are free."""
        while order < TOP:
            buddy = pfn ^ (1 << order)
            other = self.free_blocks().get(buddy)
            if other is None or other[0] != order:
                break
            apart = self.types[buddy // BLOCK]
            if order >= BLOCK_ORDER and apart != kind and max(apart, kind) >= HIGHATOMIC:
                break
            self.lists[other].remove(buddy)
            pfn = min(pfn, buddy)
            order += 1
        soon = False
        if order < TOP - 1:
            parent = pfn & ~(1 << order)
            soon = self.free_blocks().get(parent ^ (2 << order), (-1, 0))[0] == order + 1
        members = self.list_of(order, kind)
        members.insert(len(members) if soon else 0, pfn)

    def smallest(self, order: int, kind: int) -> int | None:
        """Take the smallest block of a type that will do, and give its upper halves back one by one."""
        for found in range(order, TOP + 1):
            members = self.list_of(found, kind)
            if members:
                pfn = members.pop(0)
                for half in reversed(range(order, found)):
                    self.list_of(half, kind).insert(0, pfn + (1 << half))
                return pfn
        return None

    # --- falling back -----------------------------------------------------------------------------------

    def move(self, pfn: int, kind: int) -> None:
        """Put a free block at the tail of another type's list."""
        order, old = self.free_blocks()[pfn]
        self.lists[order, old].remove(pfn)
        self.list_of(order, kind).append(pfn)

    def move_pageblock(self, pfn: int, kind: int) -> tuple[int, int]:
        """Move all free blocks of a pageblock; return how many frames were free and how many movable in use."""
        first = pfn // BLOCK * BLOCK
        behind = first + BLOCK
        if first < self.start:
            first = pfn
        if behind > self.end:
            return 0, 0
        free = 0
        for block, (order, _) in sorted(self.free_blocks().items()):
            if first <= block < behind:
                self.move(block, kind)
                free += 1 << order
        return free, sum(first <= frame < behind for frame in self.lru)

    def steal(self, pfn: int, order: int, kind: int, *, whole: bool, kswapd: bool) -> None:
        """Take a block of another type over, and all of its pageblock if that is worth while."""
        old = self.types[pfn // BLOCK]
        if old == HIGHATOMIC:
            self.move(pfn, kind)
            return
        if order >= BLOCK_ORDER:
            for number in range(pfn // BLOCK, (pfn + (1 << order)) // BLOCK):
                self.types[number] = kind
            self.move(pfn, kind)
            return
        if self.max_boost and self.managed >= 4 * BLOCK:
            self.boost = min(self.boost + BLOCK, max(self.max_boost, BLOCK))
            self.boosted |= kswapd
        if not whole:
            self.move(pfn, kind)
            return
        free, movable = self.move_pageblock(pfn, kind)
        if not free:
            self.move(pfn, kind)
            return
        alike = movable
        if kind != MOVABLE:
            alike = BLOCK - free - movable if old == MOVABLE else 0
        if free + alike >= BLOCK // 2:
            self.types[pfn // BLOCK] = kind

    def fall_back(self, order: int, kind: int, *, kswapd: bool, nofragment: bool) -> bool:
        """Bring a block of another type over."""

        def next_in_line(at: int) -> int | None:
            return next((other for other in LINE[kind] if self.list_of(at, other)), None)

        least = BLOCK_ORDER if nofragment and order < BLOCK_ORDER else order
        for at in range(TOP, least - 1, -1):
            other = next_in_line(at)
            if other is None:
                continue
            found = at
            if at < BLOCK_ORDER // 2 and kind == MOVABLE:
                found = next(small for small in range(order, TOP + 1) if next_in_line(small) is not None)
                other = next_in_line(found)
            assert other is not None
            whole = found >= BLOCK_ORDER // 2 or kind != MOVABLE
            self.steal(self.lists[found, other][0], found, kind, whole=whole, kswapd=kswapd)
            return True
        return False

    def take(self, order: int, kind: int, *, kswapd: bool = False, nofragment: bool = False) -> int | None:
        """Take a block of a type, or of another if there is none."""
        pfn = self.smallest(order, kind)
        if pfn is None and self.fall_back(order, kind, kswapd=kswapd, nofragment=nofragment):
            pfn = self.smallest(order, kind)
        return pfn

    # --- the reserve for high-order requests ------------------------------------------------------------

    def reserve(self, pfn: int) -> None:
        """Reserve a pageblock: one, and up to a hundredth of the zone."""
        if self.reserved < self.managed // 100 + BLOCK and self.types[pfn // BLOCK] < HIGHATOMIC:
            self.reserved += BLOCK
            self.types[pfn // BLOCK] = HIGHATOMIC
            self.move_pageblock(pfn, HIGHATOMIC)

    def unreserve(self, kind: int, *, force: bool) -> bool:
        """Give a reserved pageblock that has free frames to a type; the last one only if forced."""
        if not force and self.reserved <= BLOCK:
            return False
        for order in range(TOP + 1):
            members = self.list_of(order, HIGHATOMIC)
            if not members:
                continue
            pfn = members[0]
            if self.types[pfn // BLOCK] == HIGHATOMIC:
                self.reserved = max(self.reserved - BLOCK, 0)
            self.types[pfn // BLOCK] = kind
            if self.move_pageblock(pfn, kind)[0]:
                return True
        return False


@dataclass
class CpuLists:
    """One CPU's lists in front of a zone: first is hot, last is cold."""

    zone: ZoneLists
    batch: int
    limit: int
    factor: int = 0
    lists: list[list[tuple[int, int]]] = field(default_factory=lambda: [[] for _ in range(14)])  # frame, type

    @staticmethod
    def number(order: int, kind: int) -> int:
        """Return which list: three for each order up to 3, then huge ones, movable last."""
        if order == BLOCK_ORDER:
            return 13 if kind == MOVABLE else 12
        return 3 * order + kind

    @staticmethod
    def order(number: int) -> int:
        """Return the order of a list's blocks."""
        return BLOCK_ORDER if number >= 12 else number // 3

    @property
    def count(self) -> int:
        """Frames on all lists."""
        return sum(len(members) << self.order(number) for number, members in enumerate(self.lists))

    def take(self, order: int, kind: int, *, kswapd: bool, nofragment: bool) -> int | None:
        """Take the hottest block; an empty list is filled with a batch first."""
        members = self.lists[self.number(order, kind)]
        self.factor //= 2
        if not members:
            batch = max(self.batch >> order, 2) if self.batch > 1 else 1
            for _ in range(batch):
                pfn = self.zone.take(order, kind, kswapd=kswapd, nofragment=nofragment)
                if pfn is None:
                    break
                members.append((pfn, kind))
        return members.pop(0)[0] if members else None

    def give(self, pfn: int, order: int) -> None:
        """Put a block at the hot end; at the limit some go back, ever more while nothing is taken."""
        kind = self.zone.types[pfn // BLOCK]
        number = self.number(order, MOVABLE if kind == HIGHATOMIC else kind)
        self.lists[number].insert(0, (pfn, kind))
        if 0 < order <= 3 and self.factor:
            self.give_back(self.count, number)
        elif self.count >= self.limit:
            wanted = self.batch << self.factor
            most = self.limit - self.batch
            if wanted < most and self.factor < 5:
                self.factor += 1
            self.give_back(min(max(wanted, self.batch), most), number)

    def give_back(self, wanted: int, number: int) -> None:
        """Give coldest blocks back: all that is wanted of one list, then of the next."""
        left = min(wanted, self.count)
        while left > 0:
            while left > 0 and self.lists[number]:
                pfn, kind = self.lists[number].pop()
                self.zone.free(pfn, self.order(number), kind)
                left -= 1 << self.order(number)
            number = (number + 1) % len(self.lists)

    def drain(self) -> None:
        """Give everything back."""
        while self.count:
            self.give_back(self.batch << 5, 0)
