"""The kernel's address space, told plainly: which page is in which area, page by page of a small region."""

from dataclasses import dataclass, field

PAGE = 4096


@dataclass
class VmapModel:
    """A region [start, end): areas in use, and pages that wait for a flush."""

    start: int
    end: int
    lazy_max: int
    areas: dict[int, int] = field(default_factory=dict)  # start -> end, guard page included
    lazy: list[tuple[int, int]] = field(default_factory=list)
    purges: int = 0

    def holes(self) -> list[tuple[int, int]]:
        """Return the free ranges in order."""
        taken = sorted([*self.areas.items(), *self.lazy])
        holes = []
        at = self.start
        for first, end in taken:
            if at < first:
                holes.append((at, first))
            at = max(at, end)
        if at < self.end:
            holes.append((at, self.end))
        return holes

    def lowest(self, size: int, align: int = PAGE) -> int | None:
        """Return the lowest aligned address at which ``size`` bytes are free."""
        for first, end in self.holes():
            at = -(-first // align) * align
            if at + size <= end:
                return at
        return None

    def allocate(self, size: int) -> int | None:
        """Take the lowest free pages, purging once if there are none."""
        at = self.lowest(size)
        if at is None and self.lazy:
            self.purge()
            at = self.lowest(size)
        if at is not None:
            self.areas[at] = at + size
        return at

    def free(self, at: int) -> None:
        """Let an area wait for its flush."""
        self.lazy.append((at, self.areas.pop(at)))
        if sum(end - first for first, end in self.lazy) > self.lazy_max * PAGE:
            self.purge()

    def purge(self) -> None:
        """Flush what waits."""
        if self.lazy:
            self.lazy.clear()
            self.purges += 1
