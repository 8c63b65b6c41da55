"""Memory types: how the caches may treat a page, chosen by three bits of its entry through IA32_PAT.

    entry      PAT PCD PWT            4 KiB page: bits 7, 4, 3; larger page: bits 12, 4, 3
               |_________|
    index         0..7 ------------+
                                   v
    IA32_PAT   63  58..56  ...  10..8  ...  2..0
               0   PA7          PA1         PA0        each field: a type in three bits, above it five zeroes

    type               reads            writes
    UC, UC- 0, 7       from memory      to memory, in order
    WC      1          from memory      gathered in a buffer, written to memory later
    WT      4          cached           to memory, and to the line if it is cached
    WP      5          cached           to memory; other processors' copies of the line are dropped
    WB      6          cached           cached

The processor refuses (#GP) a value of IA32_PAT with a reserved type (2, 3) or with one of the zeroes set.
At power-on the register says WB, WT, UC-, UC twice over, which is what PCD and PWT meant before there was a
PAT. Linux puts WC in place of the first WT, and WP and WT where the bit called PAT is set.

An access is *cached* if its type lets it be served by the data cache, and costs what any access does;
else it waits for memory.

Sources: Intel SDM volume 3, 11.3 (types), 11.5.2 (with MTRRs), 11.12 (PAT), 4.9.2 (the index);
Linux arch/x86/mm/pat/memtype.c (pat_init).
# Differs from Linux: all MTRRs say WB, so a page has the type that its entry chooses; device memory, which
# firmware makes UC by MTRRs, does not exist here.
# Differs from Linux: gathered writes (WC) never fill their buffers, and a change of type flushes no cache.
"""

from enum import IntEnum
from typing import TYPE_CHECKING, Final

from node.counters import Current
from node.hw.cost import Cost
from node.hw.paging import AccessKind
from node.hw.pte import Pte
from node.hw.registers import REFUSED
from shared.jit import hot_kernel, kernel

if TYPE_CHECKING:
    from node.state import State


class MemoryType(IntEnum):
    """Encodings of memory types (SDM volume 3, table 11-10)."""

    UC = 0  # uncached
    WC = 1  # write-combining
    WT = 4  # write-through
    WP = 5  # write-protected
    WB = 6  # write-back
    UC_MINUS = 7  # UC, but an MTRR may turn it into WC


PAT_FIELD_BITS: Final = 8
PAT_TYPE_MASK: Final = 7
_PAT_ZEROES: Final = -0x0707070707070708  # all bits but the three of each field, as a signed word
# The reserved types 2 and 3 are those with bit 1 and without bit 2.
_BIT_1_OF_FIELDS: Final = 0x0202020202020202

# PA0 to PA7. Power-on: SDM volume 3, table 11-12.
POWER_ON_TYPES: Final = (MemoryType.WB, MemoryType.WT, MemoryType.UC_MINUS, MemoryType.UC) * 2
LINUX_TYPES: Final = (
    *(MemoryType.WB, MemoryType.WC, MemoryType.UC_MINUS, MemoryType.UC),
    *(MemoryType.WB, MemoryType.WP, MemoryType.UC_MINUS, MemoryType.WT),
)


def pat_of(types: tuple[MemoryType, ...]) -> int:
    """Return the value of IA32_PAT that has these types in PA0 to PA7."""
    return sum(kind << PAT_FIELD_BITS * field for field, kind in enumerate(types))


POWER_ON_PAT: Final = pat_of(POWER_ON_TYPES)
LINUX_PAT: Final = pat_of(LINUX_TYPES)


@kernel
def is_valid_pat(value: int) -> int:
    """Return whether IA32_PAT takes a 64-bit value: no reserved type in any field, nothing beside the fields."""
    reserved_types = value & ~(value >> 1) & _BIT_1_OF_FIELDS
    return 0 if value & _PAT_ZEROES or reserved_types else 1


@kernel
def write_pat(state: "State", value: int) -> int:
    """Load the current CPU's IA32_PAT. Returns REFUSED, with nothing changed, for a value it does not take."""
    if not is_valid_pat(value):
        return REFUSED
    state.cpu[state.current[Current.CPU]].pat = value
    return 0


@hot_kernel
def leaf_pat_index(word: int, is_large: int) -> int:
    """Return which field of IA32_PAT an entry that maps a page chooses; ``is_large``: a page above 4 KiB."""
    index = 0
    if word & Pte.WRITE_THROUGH:
        index |= 1
    if word & Pte.CACHE_DISABLE:
        index |= 2
    if word & (Pte.PAT_LARGE if is_large else Pte.HUGE):
        index |= 4
    return index


@hot_kernel
def memory_type(pat: int, index: int) -> int:
    """Return the MemoryType in field ``index`` (0..7) of a value of IA32_PAT."""
    return (pat >> (PAT_FIELD_BITS * index)) & PAT_TYPE_MASK


@kernel
def is_cached(kind: int, write: int) -> int:
    """Return whether an access to memory of this MemoryType may be served by the data cache."""
    if write:
        return 1 if kind == MemoryType.WB else 0
    return 1 if MemoryType.WT <= kind <= MemoryType.WB else 0


@kernel
def access_cost_ps(state: "State", kind: int, write: int) -> int:
    """Return what an access costs after its translation, in ps, where no data cache is modelled.

    A write to WC memory costs what a cached one does: the buffer takes it.
    """
    if is_cached(kind, write) or (write and kind == MemoryType.WC):
        return state.cost[Cost.MEMORY_ACCESS]
    return state.cost[Cost.UNCACHED_ACCESS]


@kernel
def type_extra_ps(state: "State", pat_index: int, kind: int) -> int:
    """Return what the memory type of a page adds to an access of the current CPU, in ps; 0 for most.

    ``pat_index`` is ``leaf_pat_index`` of its entry, ``kind`` an AccessKind.
    """
    pat = state.cpu[state.current[Current.CPU]].pat
    write = 1 if kind == AccessKind.WRITE else 0
    extra = access_cost_ps(state, memory_type(pat, pat_index), write) - state.cost[Cost.MEMORY_ACCESS]
    return extra if extra > 0 else 0
