"""The buddy system as a set of free frames: which blocks there must be follows from which frames are free."""

from dataclasses import dataclass, field


@dataclass
class BuddyModel:
    """Free frames of one zone, [start, end)."""

    start: int
    end: int
    max_order: int
    free: set[int] = field(default_factory=set)

    def blocks(self) -> list[tuple[int, int]]:
        """Return (first frame, order) of every block: the largest aligned runs of free frames."""
        found = []
        covered: set[int] = set()
        for order in range(self.max_order, -1, -1):
            size = 1 << order
            for first in range(-(-self.start // size) * size, self.end - size + 1, size):
                run = range(first, first + size)
                if first not in covered and all(pfn in self.free for pfn in run):
                    found.append((first, order))
                    covered |= set(run)
        return sorted(found)
