"""SLAB as the books draw it: slabs, three lists and arrays are Python lists. One cache, one NUMA node.

An object is (slab, number); a slab is a number of its own, in the order in which slabs are made.
"""

from dataclasses import dataclass, field

BATCH_OF_THE_UNTOUCHED = 16
SECOND = 10**12

Item = tuple[int, int]


@dataclass
class Array:
    limit: int
    items: list[Item] = field(default_factory=list)  # the top is at the end
    touched: bool = False

    def drained(self) -> int:
        """Return how many of the lowest go when the reaper comes."""
        share = (self.limit + 4) // 5
        return share if share <= len(self.items) else (len(self.items) + 1) // 2


class SlabModel:
    def __init__(self, cpus: int, per_slab: int, limit: int, shared_factor: int) -> None:
        self.per_slab = per_slab
        self.batch = (limit + 1) // 2
        self.arrays = [Array(limit) for _ in range(cpus)]
        self.shared = Array(shared_factor * self.batch)
        self.free_limit = (1 + cpus) * self.batch + per_slab
        self.free: dict[int, list[int]] = {}  # the free numbers of each slab, the next one at the end
        self.lists: dict[str, list[int]] = {"full": [], "partial": [], "free": []}  # the head is at 0
        self.nr_made = 0
        self.free_touched = False
        self.next_reap = 0

    def _list_of(self, slab: int) -> str:
        if len(self.free[slab]) == self.per_slab:
            return "free"
        return "partial" if self.free[slab] else "full"

    def _take(self, array: Array, slab: int, most: int) -> int:
        count = min(most, len(self.free[slab]))
        array.items += [(slab, self.free[slab].pop()) for _ in range(count)]
        self.lists[self._list_of(slab)].insert(0, slab)
        return count

    def _refill(self, array: Array) -> None:
        batch = self.batch if array.touched else min(self.batch, BATCH_OF_THE_UNTOUCHED)
        if self.shared.items:
            count = min(batch, len(self.shared.items))
            array.items += self.shared.items[-count:]
            del self.shared.items[-count:]
            self.shared.touched = True
            return
        left = batch if any(self.free.values()) else 0
        while left:
            if not self.lists["partial"]:
                self.free_touched = True
            if not (self.lists["partial"] or self.lists["free"]):
                break
            slab = (self.lists["partial"] or self.lists["free"]).pop(0)
            left -= self._take(array, slab, left)
        if not array.items:
            self.nr_made += 1
            self.free[self.nr_made] = list(range(self.per_slab))[::-1]
            self._take(array, self.nr_made, batch)

    def alloc(self, cpu: int) -> Item:
        array = self.arrays[cpu]
        if not array.items:
            self._refill(array)
        array.touched = True
        return array.items.pop()

    def _back(self, item: Item) -> None:
        slab, number = item
        self.lists[self._list_of(slab)].remove(slab)
        self.free[slab].append(number)
        if self._list_of(slab) == "free":
            self.lists["free"].insert(0, slab)
        else:
            self.lists["partial"].append(slab)

    def _drain(self, array: Array, count: int) -> None:
        for item in array.items[:count]:
            self._back(item)
        del array.items[:count]
        while sum(map(len, self.free.values())) > self.free_limit and self.lists["free"]:
            del self.free[self.lists["free"].pop()]

    def free_item(self, cpu: int, item: Item) -> None:
        array = self.arrays[cpu]
        if len(array.items) == array.limit:
            count = min(self.batch, self.shared.limit - len(self.shared.items))
            if count:
                self.shared.items += array.items[:count]
                del array.items[:count]
            else:
                self._drain(array, self.batch)
        array.items.append(item)

    def shrink(self) -> None:
        for array in [*self.arrays, self.shared]:
            self._drain(array, len(array.items))
        for slab in self.lists["free"]:
            del self.free[slab]
        self.lists["free"].clear()

    def _drain_if_idle(self, array: Array) -> None:
        if array.items and array.touched:
            array.touched = False
        elif array.items:
            self._drain(array, array.drained())

    def reap(self, cpu: int, now: int) -> None:
        self._drain_if_idle(self.arrays[cpu])
        if now < self.next_reap:
            return
        self.next_reap = now + 4 * SECOND
        self._drain_if_idle(self.shared)
        if self.free_touched:
            self.free_touched = False
            return
        for _ in range(-(-self.free_limit // (5 * self.per_slab))):
            if self.lists["free"]:
                del self.free[self.lists["free"].pop()]
