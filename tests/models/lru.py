"""LRU lists as Python lists, head first; and what they look like in a state."""

from node.counters import VmStat
from node.phys.page import PageFlag
from node.reclaim.lru import NR_LRU_LISTS, LruList
from node.state import State
from shared.constants import NIL


def pages_on(state: State, which: int) -> list[int]:
    """Return the frames of a list from its head, having checked its links, flags and counts."""
    lru = state.lru[which]
    found: list[int] = []
    previous = NIL
    pfn = lru.first if lru.nr_pages else NIL
    while pfn != NIL:
        page = state.page[pfn]
        assert page.prev == previous
        assert page.page_flags & PageFlag.LRU
        assert bool(page.page_flags & PageFlag.ACTIVE) == (
            which in (LruList.ACTIVE_ANON, LruList.ACTIVE_FILE)
        )
        found.append(pfn)
        assert len(found) <= lru.nr_pages
        previous, pfn = pfn, page.next
    assert len(found) == lru.nr_pages
    assert not found or found[-1] == lru.last
    assert state.vm_stat[VmStat.NR_INACTIVE_ANON + which] == len(found)
    return found


class LruModel:
    """The lists of a machine."""

    def __init__(self) -> None:
        self.lists: list[list[int]] = [[] for _ in range(NR_LRU_LISTS)]

    def list_of(self, pfn: int) -> int | None:
        """Return which list a frame is on."""
        return next((which for which, pages in enumerate(self.lists) if pfn in pages), None)

    def remove(self, pfn: int) -> None:
        """Take a frame off its list."""
        which = self.list_of(pfn)
        assert which is not None
        self.lists[which].remove(pfn)

    def same_as(self, state: State) -> bool:
        """Say whether the state's lists are these."""
        return [pages_on(state, which) for which in range(NR_LRU_LISTS)] == self.lists
