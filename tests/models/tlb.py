"""TLBs as lists: arrays of sets of ways with four rules of replacement, and the two levels made of them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

SET_BITS = 47  # of a page number say its set


class Key(NamedTuple):
    """Which page: its number, counted in pages of its size; a global page has no tag."""

    page: int
    size: int = 0
    tag: int | None = 0


@dataclass
class TreeModel:
    """Tree-PLRU of a set: each node points to the half from which the next victim comes."""

    nr_ways: int
    first: "TreeModel | None" = field(init=False, default=None)
    second: "TreeModel | None" = field(init=False, default=None)
    victim_is_second: bool = False

    def __post_init__(self) -> None:
        if self.nr_ways > 1:
            self.first, self.second = TreeModel(self.nr_ways // 2), TreeModel(self.nr_ways // 2)

    def use(self, way: int) -> None:
        """Point away from a way."""
        if self.first is None or self.second is None:
            return
        half = self.nr_ways // 2
        self.victim_is_second = way < half
        if way < half:
            self.first.use(way)
        else:
            self.second.use(way - half)

    def victim(self, wired: int) -> int:
        """Return the way that is pointed at; a half that is all wired is passed over."""
        if self.first is None or self.second is None:
            return 0
        half = self.nr_ways // 2
        if self.victim_is_second or wired >= half:
            return half + self.second.victim(max(wired - half, 0))
        return self.first.victim(wired)


@dataclass
class SetModel:
    """A set: what each way holds, and in which order the ways were used or filled, oldest first."""

    nr_ways: int
    replacement: str
    wired: int
    ways: list[Key | None] = field(init=False)
    rights: dict[Key, int] = field(default_factory=dict)
    order: list[int] = field(default_factory=list)
    tree: TreeModel = field(init=False)

    def __post_init__(self) -> None:
        self.ways = [None] * self.nr_ways
        self.tree = TreeModel(self.nr_ways)

    def _to_the_end(self, way: int) -> None:
        if way in self.order:
            self.order.remove(way)
        self.order.append(way)

    def look_up(self, key: Key) -> int | None:
        """Return the rights of a key that is there; this is a use of it."""
        if key not in self.ways:
            return None
        way = self.ways.index(key)
        self.tree.use(way)
        if self.replacement == "lru":
            self._to_the_end(way)
        return self.rights[key]

    def put(self, key: Key, rights: int) -> None:
        if key in self.ways:
            way = self.ways.index(key)
        else:
            way = self._victim()
            self.rights.pop(self.ways[way] or key, None)
        self.ways[way] = key
        self.rights[key] = rights
        self.tree.use(way)
        self._to_the_end(way)

    def _victim(self) -> int:
        free = [way for way in range(self.wired, self.nr_ways) if self.ways[way] is None]
        if free:
            return free[0]
        if self.replacement == "plru":
            return self.tree.victim(self.wired)
        return next(way for way in self.order if way >= self.wired)

    def drop(self, is_meant: Callable[[Key], bool]) -> int:
        meant = [way for way, key in enumerate(self.ways) if key is not None and is_meant(key)]
        for way in meant:
            self.ways[way] = None
            self.order.remove(way)
        return len(meant)


@dataclass
class ArrayModel:
    """An array of sets; replacement is lru, fifo or plru."""

    nr_sets: int
    nr_ways: int
    replacement: str = "lru"
    wired: int = 0
    sets: list[SetModel] = field(init=False)

    def __post_init__(self) -> None:
        self.sets = [SetModel(self.nr_ways, self.replacement, self.wired) for _ in range(self.nr_sets)]

    def _set_of(self, key: Key) -> SetModel:
        return self.sets[key.page % (1 << SET_BITS) % self.nr_sets]

    def look_up(self, key: Key) -> int | None:
        return self._set_of(key).look_up(key)

    def put(self, key: Key, rights: int) -> None:
        self._set_of(key).put(key, rights)

    def drop(self, is_meant: Callable[[Key], bool]) -> int:
        return sum(each.drop(is_meant) for each in self.sets)


Role = tuple[str, int]  # data, instruction or second; size


@dataclass
class TlbModel:
    """One CPU's TLBs; ``served`` counts what each level served and, last, walks: of data, of instructions."""

    arrays: Mapping[Role, ArrayModel]  # roles may share one
    served: dict[str, list[int]] = field(
        default_factory=lambda: {"data": [0, 0, 0], "instruction": [0, 0, 0]}
    )

    def _put(self, side: str, key: Key, rights: int) -> None:
        if (side, key.size) in self.arrays:
            self.arrays[side, key.size].put(key, rights)

    def access(
        self, side: str, keys: list[Key], needed: int, walk: Callable[[], tuple[Key, int] | None]
    ) -> bool:
        """Look up the keys under which an address may be cached; ``walk`` returns its key and rights, if any."""
        for level, place in enumerate((side, "second")):
            found = [
                (key, rights)
                for key in keys
                if (place, key.size) in self.arrays
                and (rights := self.arrays[place, key.size].look_up(key)) is not None
            ]
            if found and found[0][1] & needed == needed:
                self.served[side][level] += 1
                if level == 1:
                    self._put(side, *found[0])
                return True
        self.served[side][2] += 1
        result = walk()
        if result is None:
            self.drop(lambda key: key in keys)
            return False
        self._put(side, *result)
        self._put("second", *result)
        return True

    def drop(self, is_meant: Callable[[Key], bool]) -> int:
        distinct = {id(array): array for array in self.arrays.values()}.values()
        return sum(array.drop(is_meant) for array in distinct)


def keys_of(vaddr: int, tag: int, shifts: tuple[int, ...] = (12, 21, 30)) -> list[Key]:
    """Return the keys under which an address may be cached: of each size, private and global."""
    return [Key(vaddr >> shift, size, each) for each in (tag, None) for size, shift in enumerate(shifts)]
