"""What the generators of allocation traces share: draws, lifetimes, and putting lives in order.

A generator says of each object when it is born, how long it lives, where, and what it is; time is counted in
births. Its trace is those births and deaths in the order of time, cut off after as many events as were asked
for:

    born      0   1   2   3   4   5
    life      3   9   1   1   .   .
    trace   +a  +b  +c  +d  -a -c  +e  -d  +f ...        what lives at the cut is never freed

Every number is a function of (seed, machine, process), drawn from numpy's Philox under the key of
shared/streams.py, and integer: a scenario has the same trace on every computer.

Lifetimes are exponential around a mean: an object that has lived for a while has no other future than a new
one. Mixed with a smaller part of a longer mean, this is the shape that lifetime studies find in most
programs, many deaths early and a long tail (Barrett, Zorn: Using Lifetime Predictors to Improve Memory
Allocation Performance, PLDI 1993; Wilson, Johnstone, Neely, Boles: Dynamic Storage Allocation: A Survey and
Critical Review, IWMM 1995).
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Context, Decimal
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from shared.alloc_kind import AllocKind, AllocOp
from shared.alloc_traces import AllocTrace, make_trace
from shared.streams import Purpose, stream_key

Ints = npt.NDArray[np.int64]

_WORD_BITS: Final = 64
_HALF_BITS: Final = 32
_QUANTILE_BITS: Final = 10
_UNIT_BITS: Final = 12  # the mean of the table of lifetimes, as a power of two
_DIGITS: Final = 30


@dataclass(frozen=True, slots=True)
class Demand:
    """What a scenario says of a generated trace."""

    operations: int  # events of the trace
    cpus: tuple[int, ...]
    live: int  # objects that are alive at a time, on average, once the trace has got going


@dataclass(frozen=True, slots=True)
class What:
    """What is allocated, and with which weight among others."""

    kind: AllocKind
    size: int  # bytes, or an order
    gfp: int
    weight: int = 1


@dataclass(frozen=True, slots=True)
class Lives:
    """N objects."""

    born: Ints  # [N] time, ascending
    life: Ints  # [N] at least 0
    cpu: Ints  # [N] that allocates
    free_cpu: Ints  # [N] that frees
    kind: Ints  # [N] AllocKind
    size: Ints  # [N]
    gfp: Ints  # [N]


class Draws:
    """Random integers of one process of one machine."""

    def __init__(self, seed: int, machine: int, process: int) -> None:
        key = stream_key(seed, machine, Purpose.ALLOCATION)
        counter = np.array([0, process, 0, 0], np.uint64)
        self._philox = np.random.Philox(key=np.array(key, np.uint64), counter=counter)

    def below(self, bound: int, count: int) -> Ints:
        """Draw ``count`` of 0..bound-1, for a bound of at most 2**31."""
        raw: Any = self._philox.random_raw(count)
        high = raw.astype(np.uint64) >> np.uint64(_WORD_BITS - _HALF_BITS)
        drawn: Ints = (high * np.uint64(bound) >> np.uint64(_HALF_BITS)).astype(np.int64)
        return drawn

    def lifetimes(self, mean: int, count: int) -> Ints:
        """Draw ``count`` lifetimes around ``mean``, of the exponential distribution."""
        return _exponential()[self.below(1 << _QUANTILE_BITS, count)] * max(mean, 1) >> _UNIT_BITS

    def choose(self, choices: Sequence[What], count: int) -> tuple[Ints, Ints, Ints]:
        """Draw ``count`` of some choices by their weights; return kind, size and gfp of each."""
        ends = np.cumsum([choice.weight for choice in choices])
        which = np.searchsorted(ends, self.below(int(ends[-1]), count), side="right")
        kind, size, gfp = (
            np.array(column, np.int64)
            for column in zip(*((choice.kind, choice.size, choice.gfp) for choice in choices), strict=True)
        )
        return kind[which], size[which], gfp[which]

    def cpus(self, cpus: Sequence[int], run: int, count: int) -> Ints:
        """Draw a CPU for each of ``count`` births, of which ``run`` after one another are on the same."""
        picked = self.below(len(cpus), -(-count // run))
        return np.array(cpus, np.int64)[np.repeat(picked, run)[:count]]


@functools.cache
def _exponential() -> Ints:
    """Return quantiles of the exponential distribution in the middle of equal steps, scaled to 2**_UNIT_BITS.

    Decimal arithmetic is rounded alike everywhere.
    """
    context = Context(prec=_DIGITS)
    steps = 1 << _QUANTILE_BITS
    quantiles = [
        -context.ln(context.divide(Decimal(2 * (steps - step) - 1), Decimal(2 * steps)))
        for step in range(steps)
    ]
    scale = Decimal((1 << _UNIT_BITS) * steps) / sum(quantiles)
    return np.array([int(context.multiply(quantile, scale)) for quantile in quantiles], np.int64)


def trace_of(lives: Lives, demand: Demand, pattern: str) -> AllocTrace:
    """Return the first ``demand.operations`` births and deaths of ``lives``, in order, as a trace."""
    nr_lives = len(lives.born)
    number = np.arange(nr_lives, dtype=np.int64)
    # A death comes after the births of its time, of which its own is one.
    keys = np.concatenate([2 * lives.born, 2 * (lives.born + lives.life) + 1])
    order = np.argsort(keys, kind="stable")[: demand.operations]
    which = order % nr_lives
    is_free = order >= nr_lives
    columns = {
        "cpu": np.where(is_free, lives.free_cpu[which], lives.cpu[which]),
        "op": np.where(is_free, int(AllocOp.FREE), int(AllocOp.ALLOC)),
        "kind": lives.kind[which],
        "size": lives.size[which],
        "gfp": lives.gfp[which],
        "id": number[which],
    }
    return make_trace(pattern, columns, {"pattern": pattern})
