"""The words that callers of ``handle_mm_fault`` and the fault path share."""

from enum import IntEnum


class Access(IntEnum):
    """What the faulting access wanted."""

    READ = 0
    WRITE = 1
    BREAK = 2  # a write that undoes a merge, whatever the area allows


class VmFault(IntEnum):
    """How a fault ended."""

    DONE = 0
    OOM = 1
    SEGV = 2
