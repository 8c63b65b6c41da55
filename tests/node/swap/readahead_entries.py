"""What Python calls in tests of readahead."""

from node.state import State
from node.swap.readahead import readahead_pages
from shared.jit import entry


@entry
def do_readahead_pages(_state: State, adjacent: int, hits: int, limits: int) -> int:
    """Call with ``limits`` = max_pages * 256 + last_pages."""
    return readahead_pages(adjacent, hits, limits >> 8, limits & 255)
