"""The areas of one address space, by page number, as a sorted list that is cut, changed and merged.

Nothing is searched cleverly: a gap is found by trying every place from the top down, an area by looking at all. A page
that is written makes its area one that has an anonymous store; such stores are numbers, so that areas with different
ones stay apart.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from node.vm.vma import VmFlag

GUARD_PAGES = 256
RIGHTS = VmFlag.READ | VmFlag.WRITE | VmFlag.EXEC


@dataclass(frozen=True)
class Area:
    """Pages [first, behind) with one set of flags; ``file`` is "" for anonymous memory."""

    first: int
    behind: int
    vm_flags: int
    file: str
    pgoff: int
    store: int = 0  # 0: no anonymous page yet

    def part(self, first: int, behind: int) -> "Area":
        """Return what of it lies in [first, behind)."""
        first = max(first, self.first)
        return replace(
            self, first=first, behind=min(behind, self.behind), pgoff=self.pgoff + first - self.first
        )

    @property
    def guarded(self) -> int:
        """From where on it keeps others away."""
        return self.first - GUARD_PAGES if self.vm_flags & VmFlag.GROWSDOWN else self.first


def _follow(lower: Area, upper: Area, ignored: int = 0) -> bool:
    return (
        lower.behind == upper.first
        and not (lower.vm_flags ^ upper.vm_flags) & ~ignored
        and lower.file == upper.file
        and upper.pgoff == lower.pgoff + lower.behind - lower.first
    )


def _takes(neighbour: Area, area: Area) -> bool:
    """Whether a neighbour's anonymous pages and an area's may be of one; without fork a store is never inherited."""
    return neighbour.store == area.store or (area.store == 0 and neighbour.store != 0)


class Areas:
    """The areas of one process that never forks."""

    def __init__(self, top: int) -> None:
        self.top = top
        self.areas: list[Area] = []
        self.nr_stores = 0

    def at(self, page: int) -> Area | None:
        """Return the area that holds a page."""
        return next((area for area in self.areas if area.first <= page < area.behind), None)

    def free(self, first: int, behind: int) -> bool:
        """Return whether nothing, and no stack's guard gap, lies in [first, behind)."""
        return all(area.behind <= first or behind <= area.guarded for area in self.areas)

    def gap(self, nr_pages: int) -> int:
        """Return the highest free place below the top for this many pages."""
        first = self.top - nr_pages
        while not self.free(first, first + nr_pages):
            first -= 1
        return first

    def cut(self, first: int, behind: int) -> list[Area]:
        """Take [first, behind) out; return what was there."""
        parts = [
            area.part(first, behind) for area in self.areas if area.first < behind and first < area.behind
        ]
        rest = []
        for area in self.areas:
            sides = area.part(area.first, first), area.part(behind, area.behind)
            apart = area.behind <= first or behind <= area.first
            rest += [area] if apart else [side for side in sides if side.first < side.behind]
        self.areas = sorted(rest, key=lambda area: area.first)
        return parts

    def _add(self, area: Area) -> int:
        self.areas.append(area)
        self.areas.sort(key=lambda each: each.first)
        return self.areas.index(area)

    def _join(self, lower: int) -> None:
        below, above = self.areas[lower : lower + 2]
        self.areas[lower : lower + 2] = [
            replace(below, behind=above.behind, store=below.store or above.store)
        ]

    def map(self, area: Area) -> None:
        """Put an area over whatever is there; it becomes one with the area above, then with the one below."""
        self.cut(area.first, area.behind)
        at = self._add(area)
        if (
            at + 1 < len(self.areas)
            and _follow(area, self.areas[at + 1])
            and _takes(self.areas[at + 1], area)
        ):
            self._join(at)
        if (
            at > 0
            and _follow(self.areas[at - 1], self.areas[at])
            and _takes(self.areas[at - 1], self.areas[at])
        ):
            self._join(at - 1)

    def change(self, first: int, behind: int, change: Callable[[int], int]) -> bool:
        """Change the flags in [first, behind); return whether all of it lay in areas."""
        nr_pages = 0
        page = first
        while page < behind:
            area = self.at(page)
            if area is None:
                page += 1
                continue
            part = area.part(page, behind)
            nr_pages += part.behind - part.first
            page = part.behind
            if change(part.vm_flags) != part.vm_flags:
                self.cut(part.first, part.behind)
                self._merge(self._add(replace(part, vm_flags=change(part.vm_flags))))
        return nr_pages == behind - first

    def _merge(self, at: int) -> None:
        area = self.areas[at]
        below = self.areas[at - 1] if at > 0 else None
        above = self.areas[at + 1] if at + 1 < len(self.areas) else None
        joins_below = below is not None and _follow(below, area) and _takes(below, area)
        joins_above = above is not None and _follow(area, above) and _takes(above, area)
        if below and above and joins_below and joins_above and below.store and above.store:
            joins_above = below.store == above.store
        if joins_above:
            self._join(at)
        if joins_below:
            self._join(at - 1)

    def write(self, page: int) -> bool:
        """Write a page; return whether that is allowed. Its area gets a store, a neighbour's if they may be one."""
        area = self.at(page)
        if area is None or not area.vm_flags & VmFlag.WRITE:
            return False
        if area.vm_flags & VmFlag.SHARED or area.store:
            return True
        at = self.areas.index(area)
        store = 0
        if at + 1 < len(self.areas) and _follow(area, self.areas[at + 1], RIGHTS):
            store = self.areas[at + 1].store
        if not store and at > 0 and _follow(self.areas[at - 1], area, RIGHTS):
            store = self.areas[at - 1].store
        if not store:
            self.nr_stores += 1
            store = self.nr_stores
        self.areas[at] = replace(area, store=store)
        return True
