"""Zipf's law over ranks, in floating point, and the search of a table by bisection."""

from bisect import bisect_right


def rank_shares(nr_ranks: int, exponent: float) -> list[float]:
    """Return the probability of each rank."""
    weights = [rank**-exponent for rank in range(1, nr_ranks + 1)]
    total = sum(weights)
    return [weight / total for weight in weights]


def bucket_of(ends: list[int], share: int) -> int:
    """Return the number of the bucket that a share of 0..2**62 falls into."""
    return bisect_right(ends, share)
