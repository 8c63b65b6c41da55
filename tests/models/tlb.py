"""Two levels of set-associative TLB with LRU replacement, as lists of keys, least recently used first."""

from collections.abc import Callable
from dataclasses import dataclass, field

Key = tuple[int, int]  # PCID, virtual page number


@dataclass
class LevelModel:
    """One level: each set is a dictionary in the order of last use."""

    nr_sets: int
    nr_ways: int
    sets: list[dict[Key, int]] = field(init=False)

    def __post_init__(self) -> None:
        self.sets = [{} for _ in range(self.nr_sets)]

    def _set_of(self, key: Key) -> dict[Key, int]:
        return self.sets[key[1] % self.nr_sets]

    def look_up(self, key: Key) -> int | None:
        entries = self._set_of(key)
        rights = entries.pop(key, None)
        if rights is not None:
            entries[key] = rights
        return rights

    def put(self, key: Key, rights: int) -> None:
        entries = self._set_of(key)
        entries.pop(key, None)
        if len(entries) == self.nr_ways:
            del entries[next(iter(entries))]
        entries[key] = rights

    def drop(self, is_meant: Callable[[Key, int], bool]) -> int:
        dropped = 0
        for entries in self.sets:
            for key in [key for key, rights in entries.items() if is_meant(key, rights)]:
                del entries[key]
                dropped += 1
        return dropped


@dataclass
class TlbModel:
    """One CPU's TLB; ``hits`` counts accesses served by each level and, last, by a walk."""

    first: LevelModel
    second: LevelModel
    served: list[int] = field(default_factory=lambda: [0, 0, 0])

    def access(self, key: Key, needed: int, walk: Callable[[], int | None]) -> bool:
        """Look a key up; ``walk`` says the rights that the tables give, or None for a fault."""
        for level, entries in enumerate((self.first, self.second)):
            rights = entries.look_up(key)
            if rights is not None and rights & needed == needed:
                self.served[level] += 1
                if level == 1:
                    self.first.put(key, rights)
                return True
        self.served[2] += 1
        rights = walk()
        if rights is None:
            self.drop(lambda other, _: other == key)
            return False
        self.first.put(key, rights)
        self.second.put(key, rights)
        return True

    def drop(self, is_meant: Callable[[Key, int], bool]) -> int:
        return self.first.drop(is_meant) + self.second.drop(is_meant)
