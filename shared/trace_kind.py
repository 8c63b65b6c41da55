"""What a recorded access does: written by recorders, read by kernels."""

from enum import IntEnum


class TraceKind(IntEnum):
    """Kind of a recorded access."""

    FETCH = 0  # an instruction
    LOAD = 1
    STORE = 2
    MODIFY = 3  # a load and a store by one instruction
