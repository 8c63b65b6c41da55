"""What one compactor is about: for whom, how hard, and how far its two scanners are (struct compact_control).

    zone    | migrate_pfn -->  pages to move up          free frames to move them to  <-- free_pfn |

Tasks that compact for themselves, and ``compact_memory``, use one record, one after another; kcompactd, which gives
the processor back between two batches, has its own. What is isolated is on two lists that are linked through
the frames: pages about to move, last found first, and free frames, in the order in which they were found.

Linux: mm/internal.h (struct compact_control), include/linux/compaction.h (enum compact_result, compact_priority),
include/linux/migrate_mode.h.
"""

from enum import IntEnum
from typing import Final

import numpy as np

COMPACT_CONTROL = np.dtype(
    [
        ("migrate_pfn", np.int64),  # where the migration scanner goes on
        ("free_pfn", np.int64),  # where the free scanner goes on
        ("last_migrated_pfn", np.int64),  # where the batch began that moved last; 0: its frames are merged
        ("nr_migrate_scanned", np.int64),  # of this zone
        ("nr_free_scanned", np.int64),
        ("zone", np.int32),
        ("order", np.int32),  # of the block that is wanted, or WHOLE_ZONES
        ("mode", np.int32),  # MigrateMode
        ("migrate_type", np.int32),  # of whoever wants the block
        ("alloc_flags", np.int32),  # of whoever wants the block: AllocFlag bits
        ("highest_zone", np.int32),  # that whoever wants the block can use: ZoneId
        ("nr_migratepages", np.int32),
        ("first_migratepage", np.int32),  # meaningless in an empty list
        ("nr_freepages", np.int32),
        ("first_freepage", np.int32),  # meaningless in an empty list; likewise
        ("last_freepage", np.int32),
        ("search_low", np.int64),  # of the free lists: frames above are preferred
        ("search_min", np.int64),  # frames above will do
        ("search_highest", np.int64),  # pageblock that was seen
        ("search_limit", np.int32),  # blocks of a list to look at
        ("search_order", np.int32),  # whose list comes first
        ("search_failures", np.int32),  # in a row
        ("priority", np.int32),  # CompactPriority of a task's next attempt
        ("retries", np.int32),  # of a task, at this priority
        ("is_direct", np.int8),  # a task compacts for its own request
        ("whole_zone", np.int8),  # from end to end, whatever is remembered of the last time
        ("ignore_hints", np.int8),  # scan pageblocks in which nothing was found of late, too
        ("any_target", np.int8),  # free frames of all pageblocks will do, not of movable ones only
        ("may_enter_fs", np.int8),  # Gfp.FS: pages that have a mapping, as those of the swap cache, may move
        ("rescan", np.int8),  # this pageblock is looked at again: all of it is taken at once
        ("update_cached", np.int8),  # no pageblock had anything to move so far
        ("skip_updated", np.int8),  # a page of this pageblock was isolated in this batch
        ("is_at_work", np.int8),  # kcompactd: in the middle of a zone
        ("is_awake", np.int8),  # kcompactd: between two zones, or at work in one
        ("next_zone", np.int32),  # kcompactd: where it goes on
    ],
    align=True,
)

WHOLE_ZONES: Final = -1  # order of compact_memory
COMPACT_CLUSTER_MAX: Final = 32  # pages of a batch


class Compactor(IntEnum):
    """Who compacts: records of ``state.compact_control``."""

    TASK = 0
    KCOMPACTD = 1


NR_COMPACTORS: Final = len(Compactor)


class MigrateMode(IntEnum):
    """How long migration waits: not at all, for nothing slow, or for writeback too."""

    ASYNC = 0
    SYNC_LIGHT = 1
    SYNC = 2


class CompactPriority(IntEnum):
    """How hard a task tries; it starts with ASYNC, and lower numbers are harder."""

    SYNC_FULL = 0
    SYNC_LIGHT = 1
    ASYNC = 2


class CompactResult(IntEnum):
    """How compaction of a zone went, or of all; of several the largest counts (by Linux's numbers)."""

    SKIPPED = 1  # too little free memory to work with, or too little of it in pieces
    DEFERRED = 2  # it failed of late
    CONTINUE = 4  # not done yet
    COMPLETE = 5  # the scanners met, having seen the whole zone
    PARTIAL_SKIPPED = 6  # they met, having begun in the middle
    CONTENDED = 7  # given up early
    SUCCESS = 8  # there is a block now
