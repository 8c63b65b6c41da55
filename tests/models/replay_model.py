"""An obvious twin of node/guest/replay.py: each page by itself, with exact floats, and no heap.

Returns every page's events as (guest time in ns, content or None); a rate's unique content is None.
"""

import math
from collections.abc import Iterator

import numpy as np

from shared.streams import Purpose, Stream, splitmix64

MASK = 2**64 - 1


def draw(key: int, gfn: int, number: int) -> int:
    word = (key + gfn) & MASK
    word = (word ^ word >> 30) * 0xBF58476D1CE4E5B9 & MASK
    word = (word ^ word >> 27) * 0x94D049BB133111EB & MASK
    return splitmix64(word ^ word >> 31, number)


class ReplayModel:
    def __init__(
        self,
        contents: np.ndarray,
        touched: np.ndarray,
        times: list[int],
        *,
        seed: int,
        machine: int,
        hot: int,
    ) -> None:
        self.contents, self.touched, self.times, self.hot = contents, touched, times, hot
        self.key = Stream(seed, machine, Purpose.REPLAY).word()
        self.boot = [gfn for gfn in range(contents.shape[1]) if touched[0, gfn]]

    def first(self, gfn: int) -> tuple[int, int] | None:
        """When a page is touched, and in which snapshot it first is."""
        seen = np.flatnonzero(self.touched[:, gfn])
        if not len(seen):
            return None
        snapshot = int(seen[0])
        if snapshot == 0:
            return self.times[0] * self.boot.index(gfn) // len(self.boot), 0
        begin, end = self.times[snapshot - 1], self.times[snapshot]
        return begin + draw(self.key, gfn, 0) * (end - begin) // 2**64, snapshot

    def once(self, gfn: int) -> list[tuple[float, int | None]]:
        first = self.first(gfn)
        if first is None:
            return []
        when, start = first
        events: list[tuple[float, int | None]] = [(when, int(self.contents[start, gfn]))]
        for snapshot in range(start + 1, len(self.times)):
            if self.contents[snapshot, gfn] != self.contents[snapshot - 1, gfn]:
                begin, end = self.times[snapshot - 1], self.times[snapshot]
                moment = begin + draw(self.key, gfn, snapshot) * (end - begin) // 2**64
                events.append((moment, int(self.contents[snapshot, gfn])))
        return events

    def rate(self, gfn: int, end: int) -> list[tuple[float, int | None]]:
        first = self.first(gfn)
        if first is None:
            return []
        when, start = first
        events: list[tuple[float, int | None]] = [(when, int(self.contents[start, gfn]))]
        events += [
            (moment, None) for moment in self._random_moments(gfn, max(when, self.times[0]), start, end)
        ]
        events += [
            (self.times[snapshot], int(self.contents[snapshot, gfn]))
            for snapshot in range(start, len(self.times))
            if when < self.times[snapshot]
        ]
        return sorted(events, key=lambda event: event[0])

    def _random_moments(self, gfn: int, now: float, start: int, end: int) -> Iterator[float]:
        spans = len(self.times) - 1 - start
        column = self.contents[start:, gfn]
        changes = int((column[1:] != column[:-1]).sum())
        number = 1
        while changes:
            word = draw(self.key, gfn, number)
            if changes < spans:
                rate = -math.log(1 - changes / spans) / ((self.times[-1] - self.times[start]) / spans)
                now += max(1.0, -math.log(max(1, word >> 1) / 2**63) / rate)
            else:
                now += 1 + word * self.hot // 2**64 if number == 1 else self.hot
            if now >= end:
                return
            yield now
            number += 1
