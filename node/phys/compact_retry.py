"""How hard a task's next attempt at compaction is, and whether there is one.

    ASYNC  -->  SYNC_LIGHT  -->  SYNC_FULL        the last for orders up to 3 only, whose failure calls the OOM killer

An attempt that ended without a block is repeated at the next priority. One that was told to reclaim first is
repeated if reclaim could help. One that made blocks which others took is repeated 16 times (4, for larger orders).

Linux: mm/page_alloc.c (should_compact_retry), include/linux/compaction.h (compaction_failed, compaction_withdrawn,
compaction_needs_reclaim, compaction_made_progress).
"""

from typing import TYPE_CHECKING, Final

from node.phys.compact_control import Compactor, CompactPriority, CompactResult
from node.phys.compact_suitable import compaction_zonelist_suitable
from node.phys.pcp import COSTLY_ORDER
from shared.jit import kernel

if TYPE_CHECKING:
    from node.state import State

MAX_COMPACT_RETRIES: Final = 16
COSTLY_SHARE: Final = 4  # larger blocks get a quarter of the retries


@kernel
def begin_compact_retries(state: "State", priority: int) -> None:
    """Let a task's next attempt have a priority, and count its retries from here."""
    control = state.compact_control[Compactor.TASK]
    control.priority = priority
    control.retries = 0


@kernel
def _raise_priority(state: "State", order: int) -> int:
    """Let the next attempt be harder; return 0 if it is as hard as it gets."""
    control = state.compact_control[Compactor.TASK]
    hardest: int = CompactPriority.SYNC_LIGHT if order > COSTLY_ORDER else CompactPriority.SYNC_FULL
    if control.priority <= hardest:
        return 0
    begin_compact_retries(state, control.priority - 1)
    return 1


@kernel
def should_compact_retry(state: "State", order: int, gfp: int, alloc_flags: int, result: int) -> int:
    """Return whether to reclaim and compact again after ``result``, a CompactResult."""
    control = state.compact_control[Compactor.TASK]
    if result == CompactResult.SKIPPED:
        return compaction_zonelist_suitable(state, order, gfp, alloc_flags)
    if result == CompactResult.SUCCESS:
        control.retries += 1
        most = MAX_COMPACT_RETRIES // COSTLY_SHARE if order > COSTLY_ORDER else MAX_COMPACT_RETRIES
        if control.retries <= most:
            return 1
    return _raise_priority(state, order)
