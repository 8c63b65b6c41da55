"""Writes under way: pages that the device has not yet taken, in the order of their completion.

    swap_writepage --> [ oldest | ... | newest ]  a ring of nr_requests places
                          |
                          v once the clock passes its completion: no longer WRITEBACK, and moved to the
                            tail of the inactive list, where reclaim frees it on its next pass

The device completes requests in the order of issue (node/hw/disk.py), so the ring is sorted by time and
needs no heap. It is looked at whenever it could matter: before reclaim scans, before it waits, and before a
page's WRITEBACK flag decides anything.

Linux: mm/page_io.c (end_swap_bio_write), mm/filemap.c (folio_end_writeback).
"""

from typing import TYPE_CHECKING

import numpy as np

from node.counters import Current, VmStat
from node.phys.page import PageFlag
from node.reclaim.lru import lru_rotate
from shared.jit import kernel

if TYPE_CHECKING:
    from node.state import State

WRITEBACK = np.dtype([("done_ps", np.int64), ("pfn", np.int32), ("spare", np.int32)], align=True)


@kernel
def _ring_position(state: "State", nth: int) -> int:
    return (state.swap_area[0].first_write + nth) % len(state.writeback)


@kernel
def _end_oldest(state: "State") -> None:
    area = state.swap_area[0]
    pfn = state.writeback[area.first_write].pfn
    area.first_write = _ring_position(state, 1)
    area.nr_writes -= 1
    state.vm_stat[VmStat.NR_WRITEBACK] -= 1
    page = state.page[pfn]
    page.page_flags &= ~PageFlag.WRITEBACK
    if page.page_flags & PageFlag.LRU and not page.page_flags & PageFlag.DIRTY:
        lru_rotate(state, pfn)


@kernel
def end_due_writes(state: "State") -> None:
    """Complete every write whose time has come by the current clock."""
    area = state.swap_area[0]
    now = state.current[Current.CLOCK_PS]
    while area.nr_writes != 0 and state.writeback[area.first_write].done_ps <= now:
        _end_oldest(state)


@kernel
def begin_write(state: "State", pfn: int, done_ps: int) -> None:
    """Note that frame ``pfn`` is being written until ``done_ps``; the ring has room."""
    entry = state.writeback[_ring_position(state, state.swap_area[0].nr_writes)]
    entry.done_ps = done_ps
    entry.pfn = pfn
    state.swap_area[0].nr_writes += 1
    state.page[pfn].page_flags |= PageFlag.WRITEBACK
    state.vm_stat[VmStat.NR_WRITEBACK] += 1


@kernel
def wait_for_writes(state: "State", nr_writes: int, timeout_ps: int) -> None:
    """Let the current task sleep until ``nr_writes`` more writes are done, at most for ``timeout_ps``.

    If fewer are under way, nothing wakes it before the time-out. Added to the clock, not to the stall:
    whoever reclaims accounts for all of its time.
    """
    end_due_writes(state)
    wake_ps = state.current[Current.CLOCK_PS] + timeout_ps
    if nr_writes <= state.swap_area[0].nr_writes:
        wake_ps = min(wake_ps, state.writeback[_ring_position(state, nr_writes - 1)].done_ps)
    state.current[Current.CLOCK_PS] = wake_ps
    end_due_writes(state)


@kernel
def wait_for_room(state: "State") -> None:
    """Wait until the block layer takes another write: at most ``nr_requests`` are under way."""
    end_due_writes(state)
    area = state.swap_area[0]
    if area.nr_writes == len(state.writeback):
        state.current[Current.CLOCK_PS] = state.writeback[area.first_write].done_ps
        end_due_writes(state)
