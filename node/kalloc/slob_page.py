"""SLOB: one page cut into blocks of any size, its free blocks linked through themselves.

    0        12       40             200                        2048      units of two bytes
    | in use | 28, 200 |   in use     | 1848, 2048               |
      ^                  ^              ^ size and next of a free block; a next of 2048 ends the list
      |                  12 is the first free block: page.index
      what is in use has no header: who frees it says its size

A free block says its size in its first unit and where the next one begins in its second; one of a single unit has room
for one number, and says the next place with a minus. The list is in order of address, so a block that comes back finds
its free neighbours, and becomes one with them.

A page of SLOB's is flagged SLAB, and its descriptor is overlaid: ``index`` is the first free block, ``private`` the
number of free units; ``next`` and ``prev`` are its place on a list of pages with free units (SLOB_FREE).

Linux: mm/slob.c (set_slob, slob_page_alloc, slob_free).
"""

from enum import IntEnum
from typing import TYPE_CHECKING, Final

from node.counters import Knob
from node.kalloc.kmem_cache import WORD_SHIFT
from shared.constants import NIL, PAGE_SHIFT, PAGE_SIZE
from shared.jit import kernel

if TYPE_CHECKING:
    from node.state import State

UNIT_BYTES: Final = 2  # sizeof(slobidx_t), where pages have at most 64 KiB
UNIT_SHIFT: Final = 1
UNITS_PER_PAGE: Final = PAGE_SIZE // UNIT_BYTES
END: Final = UNITS_PER_PAGE  # as a next: the unit behind the page
_UNIT_BITS: Final = 8 * UNIT_BYTES
_UNIT_MASK: Final = (1 << _UNIT_BITS) - 1
_SIGN_BIT: Final = 1 << (_UNIT_BITS - 1)
_UNIT_IN_WORD: Final = (1 << (WORD_SHIFT - UNIT_SHIFT)) - 1
_TOP_SHIFT: Final = _UNIT_IN_WORD * _UNIT_BITS
_UNITS_PER_PAGE_SHIFT: Final = PAGE_SHIFT - UNIT_SHIFT
_WORD_OF_UNIT_SHIFT: Final = WORD_SHIFT - UNIT_SHIFT


class SlobPolicy(IntEnum):
    """Values of Knob.SLOB_POLICY: where a block is looked for."""

    FIRST_FIT_ONE_LIST = 0  # the first that is large enough, in the first page of all
    FIRST_FIT_THREE_LISTS = 1  # the same among the pages that serve objects of about its size: 6.1
    BEST_FIT = 2  # three lists; within a page, the smallest block that is large enough


class SlobStat(IntEnum):
    """Counters of ``state.slob_stat``."""

    ALLOCS = 0  # objects from pages that are cut up
    FREES = 1
    FIRST_PAGE_HITS = 2  # of ALLOCS, those that the first page of the list served
    LATER_PAGE_HITS = 3  # served by another one
    NEW_PAGES = 4  # served by a page that had to be allocated
    PAGES_SCANNED = 5  # pages whose blocks were looked at; those with too few free units are passed over
    BLOCKS_SCANNED = 6  # free blocks that were looked at, in allocation and in freeing
    SPLITS = 7  # blocks left over, in front (alignment) or behind
    MERGES = 8  # neighbours that a freed block became one with
    PAGES_FREED = 9
    LARGE_ALLOCS = 10  # objects that went to the page allocator
    LARGE_FREES = 11
    NO_MEMORY = 12
    ERRORS = 13  # frees that were refused
    BYTES_ASKED = 14  # level: of objects in use, large ones too
    BYTES_USED = 15  # level: what they take, with headers, rounding and rest of the last page
    NR = 16


@kernel
def read_unit(state: "State", pfn: int, unit: int) -> int:
    """Return one unit of a page, a signed 16-bit number."""
    index = (pfn << _UNITS_PER_PAGE_SHIFT) + unit
    word = state.slab_word[index >> _WORD_OF_UNIT_SHIFT]
    value = (word >> ((index & _UNIT_IN_WORD) * _UNIT_BITS)) & _UNIT_MASK
    return value - ((value & _SIGN_BIT) << 1)


@kernel
def _write_unit(state: "State", pfn: int, unit: int, value: int) -> None:
    index = (pfn << _UNITS_PER_PAGE_SHIFT) + unit
    shift = (index & _UNIT_IN_WORD) * _UNIT_BITS
    word = state.slab_word[index >> _WORD_OF_UNIT_SHIFT]
    below = word & ((1 << shift) - 1)
    if shift == _TOP_SHIFT:  # the word's sign is the unit's
        word = (value << shift) | below
    else:
        above = (word >> (shift + _UNIT_BITS)) << (shift + _UNIT_BITS)
        word = above | (value & _UNIT_MASK) << shift | below
    state.slab_word[index >> _WORD_OF_UNIT_SHIFT] = word


# --- free blocks ----------------------------------------------------------------------------------------


@kernel
def block_units(state: "State", pfn: int, unit: int) -> int:
    """Return the size of the free block at ``unit``; one that somebody wrote over ends with the page at the latest."""
    return min(max(read_unit(state, pfn, unit), 1), END - unit)


@kernel
def next_block(state: "State", pfn: int, unit: int) -> int:
    """Return where the next free block after the one at ``unit`` begins, or END.

    A link that does not lead on was written over: it ends the list, where Linux would follow it.
    """
    first = read_unit(state, pfn, unit)
    if first == 1 or (first >= 0 and unit == END - 1):
        return END
    following = -first if first < 0 else read_unit(state, pfn, unit + 1)
    return following if unit < following <= END else END


@kernel
def set_block(state: "State", pfn: int, unit: int, size: int, following: int) -> None:
    """Make [unit, unit + size) a free block, followed by the one at ``following``."""
    if size > 1:
        _write_unit(state, pfn, unit, size)
        _write_unit(state, pfn, unit + 1, following)
    else:
        _write_unit(state, pfn, unit, -following)


@kernel
def _link(state: "State", pfn: int, before: int, following: int) -> None:
    """Let ``following`` come after the free block at ``before``, or first if that is NIL."""
    if before == NIL:
        state.page[pfn].index = following
    else:
        set_block(state, pfn, before, block_units(state, pfn, before), following)


# --- taking ---------------------------------------------------------------------------------------------


@kernel
def _gap(unit: int, align: int, align_offset: int) -> int:
    """Return the units to leave so that the byte ``align_offset`` behind them is aligned; ``align`` 0: anywhere."""
    if align == 0:
        return 0
    paddr = unit << UNIT_SHIFT
    aligned = ((paddr + align_offset + align - 1) & -align) - align_offset
    return (aligned - paddr) >> UNIT_SHIFT


@kernel
def _cut(state: "State", pfn: int, before: int, gap: int, units: int) -> int:
    """Take ``units`` out of the free block behind ``before``, ``gap`` units from its start; return where."""
    block = state.page[pfn].index if before == NIL else next_block(state, pfn, before)
    size = block_units(state, pfn, block)
    following = next_block(state, pfn, block)
    if size > gap + units:
        rest = block + gap + units
        set_block(state, pfn, rest, size - gap - units, following)
        following = rest
        state.slob_stat[SlobStat.SPLITS] += 1
    if gap:
        set_block(state, pfn, block, gap, following)
        state.slob_stat[SlobStat.SPLITS] += 1
        before = block
        block += gap
    _link(state, pfn, before, following)
    state.page[pfn].private -= units
    return block


@kernel
def take_units(state: "State", pfn: int, units: int, align: int, align_offset: int) -> int:
    """Return where in a page ``units`` free ones are now taken, or NIL if no block has room (slob_page_alloc).

    The byte ``align_offset`` behind the start is a multiple of ``align``; 0 is no wish. The page has a free block.
    """
    is_best_fit = state.knob[Knob.SLOB_POLICY] == SlobPolicy.BEST_FIT
    before = NIL
    block = state.page[pfn].index
    best_before = NIL
    best_gap = NIL
    best_size = UNITS_PER_PAGE + 1
    while block != END:
        state.slob_stat[SlobStat.BLOCKS_SCANNED] += 1
        size = block_units(state, pfn, block)
        gap = _gap(block, align, align_offset)
        if units + gap <= size < best_size:
            best_before = before
            best_gap = gap
            best_size = size
            if not is_best_fit or size == units:
                break
        before = block
        block = next_block(state, pfn, block)
    if best_gap == NIL:
        return NIL
    return _cut(state, pfn, best_before, best_gap, units)


# --- giving back ----------------------------------------------------------------------------------------


@kernel
def overlaps_free(state: "State", pfn: int, unit: int, units: int) -> int:
    """Return whether any of ``units`` from ``unit`` is free already."""
    if state.page[pfn].private == 0:
        return 0
    block = state.page[pfn].index
    while block < unit + units:
        if block + block_units(state, pfn, block) > unit:
            return 1
        block = next_block(state, pfn, block)
    return 0


@kernel
def give_units(state: "State", pfn: int, unit: int, units: int) -> None:
    """Make ``units`` from ``unit``, which are in use, free, one block with free neighbours (slob_free)."""
    page = state.page[pfn]
    if page.private == 0:
        page.private = units
        page.index = unit
        set_block(state, pfn, unit, units, END)
        return
    page.private += units
    before = NIL
    following = page.index
    while following < unit:
        state.slob_stat[SlobStat.BLOCKS_SCANNED] += 1
        before = following
        following = next_block(state, pfn, following)
    if following == unit + units and following != END:
        units += block_units(state, pfn, following)
        following = next_block(state, pfn, following)
        state.slob_stat[SlobStat.MERGES] += 1
    if before != NIL and before + block_units(state, pfn, before) == unit:
        units += unit - before
        unit = before
        state.slob_stat[SlobStat.MERGES] += 1
        set_block(state, pfn, unit, units, following)
        return
    set_block(state, pfn, unit, units, following)
    _link(state, pfn, before, unit)
