"""The words that callers of ``handle_mm_fault`` and the fault path share."""

from enum import IntEnum


class Access(IntEnum):
    """What the faulting access wanted: the hardware's AccessKind, and one more. Writes have bit 0 set."""

    READ = 0
    WRITE = 1
    EXECUTE = 2
    BREAK = 3  # a write that undoes a merge, whatever the area allows


class VmFault(IntEnum):
    """How a fault ended."""

    DONE = 0
    OOM = 1
    SEGV = 2
    SIGBUS = 3  # behind the end of a file
