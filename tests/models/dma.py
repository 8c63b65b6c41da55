"""Memory for devices, the obvious way: a bus clock by clock, a list of frames cut into runs, a row of slots."""

from dataclasses import dataclass, field
from itertools import count

CPU_BUS_CYCLES = 4
AREA = 128  # slots


def walk_bus(
    bus: str, nr_words: int, cycles: int, arbitration: int, free_percent: int
) -> tuple[int, int, int]:
    """Return how long a block takes, how much of that the CPU stands still, and the longest such stop."""
    now = stolen = longest = 0
    if bus == "burst":
        stop = arbitration + sum(cycles for _ in range(nr_words))
        return stop, stop, stop
    if bus == "stealing":
        for _ in range(nr_words):
            stop = arbitration + cycles
            now += stop + CPU_BUS_CYCLES
            stolen += stop
            longest = max(longest, stop)
        return now, stolen, longest
    needed = nr_words * cycles
    for now in count(1):  # a cycle is free as soon as the share so far has room for one more
        if now * free_percent >= needed * 100:
            break
    return now, 0, 0


def cut(frames: list[int], longest: int, most: int) -> list[tuple[int, int]]:
    """Return the (first, length) of the segments, ``most`` at most, that a list of frames becomes."""
    runs: list[tuple[int, int]] = []
    for frame in frames:
        if runs and frame == sum(runs[-1]) and runs[-1][1] < longest:
            runs[-1] = (runs[-1][0], runs[-1][1] + 1)
        elif len(runs) == most:
            break
        else:
            runs.append((frame, 1))
    return runs


@dataclass
class SlotModel:
    """A pool as a row of slots that are taken or not."""

    nr_slots: int
    next_slot: int = 0
    taken: set[int] = field(default_factory=set)

    def alloc(self, nr_slots: int) -> int | None:
        """Take the first free run at an even slot of one area from ``next_slot`` on, around the pool."""
        start = self.next_slot + self.next_slot % 2
        for step in range(0, self.nr_slots, 2):
            first = (start + step) % self.nr_slots
            run = set(range(first, first + nr_slots))
            if first // AREA == (first + nr_slots - 1) // AREA and not run & self.taken:
                self.taken |= run
                self.next_slot = (first + nr_slots) % self.nr_slots
                return first
        return None

    def free(self, first: int, nr_slots: int) -> None:
        """Give a run back."""
        self.taken -= set(range(first, first + nr_slots))

    def free_from(self, slot: int) -> int:
        """Return how many free slots there are from ``slot`` on, within its area."""
        behind = slot
        while behind // AREA == slot // AREA and behind not in self.taken:
            behind += 1
        return behind - slot


@dataclass
class BufferModel:
    """One mapped buffer: what the CPU sees of each page, and what the device does where that is another."""

    contents: list[int]
    within_reach: list[bool]
    direction: str = "bidirectional"
    device_sees: list[int] = field(default_factory=list)  # empty: not mapped

    def map(self, direction: str) -> None:
        """Show the device all of it."""
        self.direction = direction
        self.device_sees = list(self.contents)

    def write(self, by_device: bool, page: int, content: int) -> None:
        """Let the CPU or the device write a page; the other sees it at once if there is only one copy."""
        one_copy = self.within_reach[page] or not self.device_sees
        if one_copy or not by_device:
            self.contents[page] = content
        if self.device_sees and (one_copy or by_device):
            self.device_sees[page] = content

    def sync(self, towards: str) -> None:
        """Make what one has written seen by the other, if the mapping has data go that way."""
        if self.direction not in (towards, "bidirectional"):
            return
        if towards == "to_device":
            self.device_sees = list(self.contents)
        else:
            self.contents = list(self.device_sees)

    def unmap(self) -> None:
        """End the mapping."""
        self.sync("from_device")
        self.device_sees = []
