"""The patterns of allocations that a scenario can name, and the trace of each.

    short-lived         scenarios/alloc_short_lived.py         small objects of system calls
    producer-consumer   scenarios/alloc_producer_consumer.py   allocated on one CPU, freed on another
    network             scenarios/alloc_network.py             packets, in bursts that cannot wait
    page-tables         scenarios/alloc_page_tables.py         processes that come and go
    fragmenting         scenarios/alloc_fragmenting.py         long-lived frames among short-lived
    checkerboard        scenarios/alloc_checkerboard.py        every other frame stays

Each file says what it is made after. A trace is a function of the pattern, the demand, and (seed, machine, process).
"""

from collections.abc import Callable, Mapping
from typing import Final

from scenarios import (
    alloc_checkerboard,
    alloc_fragmenting,
    alloc_network,
    alloc_page_tables,
    alloc_producer_consumer,
    alloc_short_lived,
)
from scenarios.alloc_events import Demand, Draws, Lives, trace_of
from shared.alloc_traces import AllocTrace

_LIVES: Final[Mapping[str, Callable[[Draws, Demand], Lives]]] = {
    "short-lived": alloc_short_lived.lives,
    "producer-consumer": alloc_producer_consumer.lives,
    "network": alloc_network.lives,
    "page-tables": alloc_page_tables.lives,
    "fragmenting": alloc_fragmenting.lives,
    "checkerboard": alloc_checkerboard.lives,
}
# Objects alive at a time where the scenario does not say: of the last three, 24, 32 and 16 MiB of frames.
DEFAULT_LIVE: Final[Mapping[str, int]] = {
    "short-lived": 2000,
    "producer-consumer": 1000,
    "network": 2000,
    "page-tables": 8000,
    "fragmenting": 8000,
    "checkerboard": 4000,
}
PATTERNS: Final = tuple(_LIVES)


def generate(pattern: str, demand: Demand, draws: Draws) -> AllocTrace:
    """Return the trace of a pattern, of exactly ``demand.operations`` events.

    Raises ``ValueError``, in one line, for a demand that the pattern cannot meet, KeyError for no pattern.
    """
    return trace_of(_LIVES[pattern](draws, demand), demand, pattern)
