"""The TLBs of each CPU, and its paging-structure caches: arrays of cached translations, tagged with PCIDs.

                            set 0          set 1               a set holds as many entries as there are ways
    CPU 0   D1, 4 KiB     [ . . . . ]    [ . . . . ]  ...      first level, data
            D1, 2 MiB     [ . . . . ]    ...
            I1, 4 KiB     ...                                  first level, instructions
            L2            [ . . . . . . . . . . . . ] ...      second level, here of two page sizes
            PD cache      [ . . . . ] ...                      leads a walk past the levels above the last
    CPU 1   ...

Every array is described by a record of ``state.tlb_array``, one for each *role*: level, data or instructions,
page size. Roles may share an array (a unified level, a level for several page sizes): their records then name
the same place. A role without ways is one that the processor lacks.

An entry is a key and a word.

    key    63 ........ 16  15  14..13  12  11..0
           page number      V   size    G   PCID (0 of a global entry)
    word   63 ........ 24  23 ...... 0
           frame number     TlbRight bits: what the walk found

A page's set is its page number modulo the number of sets, any number. An access that wants more than the word
grants walks again, as the processor does, so rights that grow need no flush. Rights that shrink do.

A walk fills both levels. A hit in the second copies the entry to the first and keeps it; an entry leaves
either level alone. So no level includes the other and none excludes it: what Skylake does.

Most programs have small pages that are not global, so the first look is for such a one alone;
``cpu.tlb_variants`` says, for user and kernel addresses, which kinds may be there and are worth a look.

Sources: Intel SDM volume 3, 4.10 (PCIDs, global pages, invalidation, paging-structure caches); Tatar et al.,
"TLB;DR", USENIX Security 2022 (neither inclusive nor exclusive; replacement). Sizes: node/hw/processors.py.
"""

from enum import IntEnum
from typing import TYPE_CHECKING, Final

import numpy as np

from node.counters import Current, Knob
from node.hw.paging import PageSize
from node.hw.pte import PFN_MASK, Pte
from shared.constants import INT64_MAX, NIL, PAGE_OFFSET_MASK, PAGE_SHIFT
from shared.jit import cold_kernel, hot_kernel, kernel
from shared.rng import below, splitmix64_word

if TYPE_CHECKING:
    from node.state import State

TLB_ENTRY = np.dtype(
    [
        ("key", np.int64),  # 0: invalid
        ("stamp", np.int64),  # cpu.tlb_tick at its last use (LRU) or when it was filled (FIFO); 0: invalid
        ("word", np.int64),
    ],
    align=True,
)

TLB_ARRAY = np.dtype(
    [
        ("first", np.int64),  # place of its first entry among those of its CPU
        ("nr_sets", np.int64),
        ("set_mask", np.int64),  # nr_sets - 1 if that is a mask, else NIL
        ("nr_ways", np.int64),  # 0: the processor has none
        ("shift", np.int64),  # of the page number in the key
        ("replacement", np.int64),  # Replacement
        ("wired", np.int64),  # ways at the front of each set that are never replaced
        ("first_set", np.int64),  # place of its first set's tree in state.tlb_tree
    ],
    align=True,
)


class TlbArray(IntEnum):
    """Roles of arrays: places in ``state.tlb_array``."""

    D1_4K = 0
    D1_2M = 1
    D1_1G = 2
    I1_4K = 3
    I1_2M = 4
    I1_1G = 5
    L2_4K = 6
    L2_2M = 7
    L2_1G = 8
    WALK_PD = 9  # paging-structure caches, from the level above the last upwards
    WALK_PDPT = 10
    WALK_PML4 = 11
    WALK_PML5 = 12
    EPT_PD = 13  # of the host's table, under a guest's walks
    NR = 16


class Replacement(IntEnum):
    """Which entry of a full set goes."""

    LRU = 0
    FIFO = 1
    RANDOM = 2
    PLRU = 3  # a tree of bits that point away from what was used


class Refill(IntEnum):
    """Who serves a miss."""

    HARDWARE = 0
    SOFTWARE = 1


class TlbRight(IntEnum):
    """Bits of an entry's word; where page-table entries have the same bit, its place is theirs."""

    EXECUTE = 1 << 0  # no level's XD
    WRITE = Pte.WRITE  # every level's R/W
    USER = Pte.USER  # every level's U/S
    EPT_WRITE = 1 << 3  # the host lets the frame be written; always set where there is no host
    SPECIAL = 1 << 4  # a protection key or a memory type other than write-back: see the rest of the word
    ACCESSED = Pte.ACCESSED
    DIRTY = Pte.DIRTY  # the leaf's D is set, so a write need not walk to set it
    GLOBAL = Pte.GLOBAL


SIZE_SHIFT: Final = 9  # of PageSize in a word
SIZE_MASK: Final = 3
PAT_INDEX_SHIFT: Final = 11  # of the entry's PAT, PCD and PWT
PAT_INDEX_MASK: Final = 7
WORD_PKEY_SHIFT: Final = 14
WORD_PKEY_MASK: Final = 15
FRAME_SHIFT: Final = 24

KEY_PAGE_SHIFT: Final = 16
KEY_VALID: Final = 1 << 15
KEY_SIZE_SHIFT: Final = 13
KEY_GLOBAL: Final = 1 << 12
PCID_MASK: Final = PAGE_OFFSET_MASK
NO_TAG: Final = SIZE_MASK << KEY_SIZE_SHIFT  # no entry has it: not valid, and of a size that does not exist
NR_VARIANTS: Final = 2 * PageSize.NR  # of entries: size, and global or not
PRIVATE_VARIANTS: Final = (1 << PageSize.NR) - 1
ALL_VARIANTS: Final = (1 << NR_VARIANTS) - 1
# Further bits of cpu.tlb_variants: there may be entries with TlbRight.SPECIAL; user addresses may be in the side for
# instructions; which PCIDs may have some. A kernel that keeps out of user memory has none under its own PCID.
SPECIAL_SEEN: Final = 1 << (2 * NR_VARIANTS)
FETCH_SEEN: Final = 1 << (2 * NR_VARIANTS + 1)
USER_GROUPS_SHIFT: Final = (
    2 * NR_VARIANTS + 2
)  # from here on, for each group of PCIDs: it may have user addresses
UNUSUAL_OF_USERS: Final = SPECIAL_SEEN | ALL_VARIANTS & ~1  # more than small private pages of user addresses
WIDEST_USER_BITS: Final = 57  # no mode gives user programs more
PAGE_NUMBER_MASK: Final = (1 << 47) - 1  # makes a kernel address's page number positive
KEY_ADDRESS_BITS: Final = 60  # of an address, its lowest: what keys of 4 KiB pages tell apart
# PCIDs are counted in groups: of one are those with the same highest bit, which Linux gives to user mode, and the
# same lowest three, its ASID.
PCID_GROUPS: Final = 16
GROUP_ASID_MASK: Final = 7
GROUP_USER_BIT: Final = 8
GROUP_USER_SHIFT: Final = 8  # from PCID bit 11 to it


# --- sets -----------------------------------------------------------------------------------------------


@hot_kernel
def array_set(state: "State", cpu: int, array_index: int, page_number: int) -> int:
    """Return the place in ``state.tlb`` of the first way of the set of ``page_number``."""
    array = state.tlb_array[array_index]
    number = page_number & array.set_mask
    if array.set_mask < 0:
        number = (page_number & PAGE_NUMBER_MASK) % array.nr_sets
    return cpu * state.knob[Knob.TLB_ENTRIES] + array.first + number * array.nr_ways


@hot_kernel
def find_in_set(state: "State", first: int, nr_ways: int, key: int) -> int:
    """Return the place of the entry with ``key`` among ``nr_ways`` from ``first`` on, or NIL."""
    for index in range(first, first + nr_ways):
        if state.tlb[index].key == key:
            return index
    return NIL


@kernel
def _tree_place(state: "State", cpu: int, array_index: int, first: int) -> int:
    array = state.tlb_array[array_index]
    number = (first - cpu * state.knob[Knob.TLB_ENTRIES] - array.first) // array.nr_ways
    return cpu * state.knob[Knob.TLB_SETS] + array.first_set + number


@kernel
def _point_away(state: "State", place: int, nr_ways: int, way: int) -> None:
    """Let the bits on the path to ``way`` of a set's tree point to the other side."""
    tree = state.tlb_tree[place]
    node = 1
    half = nr_ways >> 1
    while half:
        right = 1 if way & half else 0
        tree = tree & ~(1 << node) if right else tree | (1 << node)
        node = 2 * node + right
        half >>= 1
    state.tlb_tree[place] = tree


@kernel
def _pointed_at(state: "State", place: int, nr_ways: int, wired: int) -> int:
    """Return the way that a set's tree points at; a half that is all wired is passed over."""
    tree = state.tlb_tree[place]
    node = 1
    way = 0
    half = nr_ways >> 1
    while half:
        right = 1 if tree >> node & 1 or way + half <= wired else 0
        way += half if right else 0
        node = 2 * node + right
        half >>= 1
    return way


@cold_kernel
def _note_use_in_tree(state: "State", cpu: int, array_index: int, index: int) -> None:
    array = state.tlb_array[array_index]
    way = (index - cpu * state.knob[Knob.TLB_ENTRIES] - array.first) % array.nr_ways
    _point_away(state, _tree_place(state, cpu, array_index, index - way), array.nr_ways, way)


@hot_kernel
def note_use(state: "State", cpu: int, array_index: int, index: int) -> None:
    """Note that an access used an entry."""
    record = state.cpu[cpu]
    tick = record.tlb_tick + 1
    record.tlb_tick = tick
    replacement = state.tlb_array[array_index].replacement
    if replacement == Replacement.LRU:
        state.tlb[index].stamp = tick
    elif replacement == Replacement.PLRU:
        _note_use_in_tree(state, cpu, array_index, index)


@hot_kernel
def _note_fill(state: "State", cpu: int, array_index: int, index: int) -> None:
    record = state.cpu[cpu]
    record.tlb_tick += 1
    state.tlb[index].stamp = record.tlb_tick
    if state.tlb_array[array_index].replacement == Replacement.PLRU:
        _note_use_in_tree(state, cpu, array_index, index)


@cold_kernel
def _victim_other(state: "State", cpu: int, array_index: int, first: int) -> int:
    """Return the way of a set that goes, an invalid one before others: by any rule, and past wired ways."""
    array = state.tlb_array[array_index]
    oldest = first + array.wired
    for index in range(oldest, first + array.nr_ways):
        if state.tlb[index].key == 0:
            return index
        if state.tlb[index].stamp < state.tlb[oldest].stamp:
            oldest = index
    if array.replacement <= Replacement.FIFO:
        return oldest
    if array.replacement == Replacement.RANDOM:
        draw = splitmix64_word(cpu, state.cpu[cpu].tlb_tick)
        return first + array.wired + below(draw, array.nr_ways - array.wired)
    tree_place = _tree_place(state, cpu, array_index, first)
    return first + _pointed_at(state, tree_place, array.nr_ways, array.wired)


@hot_kernel
def _way_for(state: "State", cpu: int, array_index: int, first: int, key: int) -> int:
    """Return the way of a set where ``key`` goes: its own if it is there, else an invalid one, else the victim."""
    array = state.tlb_array[array_index]
    if array.replacement > Replacement.FIFO or array.wired:
        index = find_in_set(state, first, array.nr_ways, key)
        return index if index != NIL else _victim_other(state, cpu, array_index, first)
    victim = first
    oldest = INT64_MAX
    for index in range(first, first + array.nr_ways):
        entry = state.tlb[index]
        if entry.key == key:
            return index
        stamp = entry.stamp
        if stamp < oldest:
            oldest = stamp
            victim = index
    return victim


@hot_kernel
def _way_for_new(state: "State", cpu: int, array_index: int, first: int) -> int:
    """As ``_way_for``, for a key that the set does not have."""
    array = state.tlb_array[array_index]
    if array.replacement > Replacement.FIFO or array.wired:
        return _victim_other(state, cpu, array_index, first)
    victim = first
    oldest = INT64_MAX
    for index in range(first, first + array.nr_ways):
        stamp = state.tlb[index].stamp
        if stamp < oldest:
            oldest = stamp
            victim = index
    return victim


# --- looking up and filling -----------------------------------------------------------------------------


@hot_kernel
def is_users(vaddr: int) -> int:
    """Return whether an address can be one of user space in any mode; then no bit of it is lost in a key."""
    return vaddr >> WIDEST_USER_BITS == 0


@hot_kernel
def beyond_keys(vaddr: int) -> int:
    """Return whether an address, which then is not canonical, would have the key of another."""
    sign = vaddr >> (KEY_ADDRESS_BITS - 1)
    return (sign + 1) >> 1  # of 0 and -1, 0


@hot_kernel
def find_small(state: "State", cpu: int, array_index: int, vaddr: int) -> int:
    """Return the place of the entry for ``vaddr`` as a private 4 KiB page, now used last; or NIL.

    Of ordinary pages: none while the CPU's registers ask for care.
    """
    page_number = vaddr >> PAGE_SHIFT
    key = (page_number << KEY_PAGE_SHIFT) | state.cpu[cpu].fast_tag
    first = array_set(state, cpu, array_index, page_number)
    index = find_in_set(state, first, state.tlb_array[array_index].nr_ways, key)
    if index != NIL:
        note_use(state, cpu, array_index, index)
    return index


@hot_kernel
def key_of(state: "State", vaddr: int, variant: int, tag: int) -> int:
    """Return the key of ``vaddr`` in a page of the kind that ``variant`` says: its size, + 3 if global.

    ``tag`` is KEY_VALID with the PCID; a global entry has none.
    """
    size = variant % PageSize.NR
    page_number = vaddr >> state.tlb_array[TlbArray.D1_4K + size].shift
    if variant >= PageSize.NR:
        tag = KEY_VALID | KEY_GLOBAL
    return (page_number << KEY_PAGE_SHIFT) | (size << KEY_SIZE_SHIFT) | tag


@hot_kernel
def find_variant(state: "State", cpu: int, array_index: int, key: int) -> int:
    """Return the place of the entry with ``key`` in an array, or NIL."""
    nr_ways = state.tlb_array[array_index].nr_ways
    if nr_ways == 0:
        return NIL
    return find_in_set(state, array_set(state, cpu, array_index, key >> KEY_PAGE_SHIFT), nr_ways, key)


@hot_kernel
def variants_of(state: "State", cpu: int, vaddr: int) -> int:
    """Return which variants of entries the CPU may hold for the half of the address space that has ``vaddr``."""
    variants = state.cpu[cpu].tlb_variants
    return (variants if vaddr >= 0 else variants >> NR_VARIANTS) & ALL_VARIANTS


@kernel
def find_any(state: "State", level: int, vaddr: int) -> int:
    """Return the place of the current CPU's entry of any kind for ``vaddr`` in a level, now used last; or NIL.

    ``level`` is the level's first role: D1_4K, I1_4K or L2_4K.
    """
    cpu = state.current[Current.CPU]
    variants = variants_of(state, cpu, vaddr)
    variant = 0
    while variants:
        if variants & 1:
            array_index = level + variant % PageSize.NR
            key = key_of(state, vaddr, variant, state.cpu[cpu].tlb_tag)
            index = find_variant(state, cpu, array_index, key)
            if index != NIL:
                note_use(state, cpu, array_index, index)
                return index
        variants >>= 1
        variant += 1
    return NIL


@hot_kernel
def put(state: "State", array_index: int, key: int, word: int) -> None:
    """Put an entry into an array of the current CPU, over what it holds for ``key``."""
    array = state.tlb_array[array_index]
    if array.nr_ways == 0:
        return
    cpu = state.current[Current.CPU]
    first = array_set(state, cpu, array_index, key >> KEY_PAGE_SHIFT)
    index = _way_for(state, cpu, array_index, first, key)
    entry = state.tlb[index]
    entry.key = key
    entry.word = word
    _note_fill(state, cpu, array_index, index)


@hot_kernel
def put_new(state: "State", array_index: int, key: int, word: int) -> None:
    """As ``put``, where the array is known to hold nothing for ``key``."""
    array = state.tlb_array[array_index]
    if array.nr_ways == 0:
        return
    cpu = state.current[Current.CPU]
    index = _way_for_new(state, cpu, array_index, array_set(state, cpu, array_index, key >> KEY_PAGE_SHIFT))
    entry = state.tlb[index]
    entry.key = key
    entry.word = word
    _note_fill(state, cpu, array_index, index)


@hot_kernel
def pcid_group(pcid: int) -> int:
    """Return a PCID's group."""
    return pcid >> GROUP_USER_SHIFT & GROUP_USER_BIT | pcid & GROUP_ASID_MASK


@hot_kernel
def paths_place(cpu: int, pcid: int) -> int:
    """Return the place in ``state.cached_paths`` of a PCID's group on a CPU."""
    return cpu * PCID_GROUPS + pcid_group(pcid)


@hot_kernel
def is_small_private(word: int) -> int:
    """Return whether a word is that of a 4 KiB page that is not global."""
    return 1 if word & (SIZE_MASK << SIZE_SHIFT | TlbRight.GLOBAL) == 0 else 0


@hot_kernel
def fill(state: "State", level: int, vaddr: int, word: int) -> None:
    """Put the translation of ``vaddr`` into a level of the current CPU; size and globalness are in the word."""
    variant = _note_variant(state, level, vaddr, word)
    tag = state.cpu[state.current[Current.CPU]].tlb_tag
    if variant == 0:
        put(state, level, ((vaddr >> PAGE_SHIFT) << KEY_PAGE_SHIFT) | tag, word)
    else:
        put(state, level + variant % PageSize.NR, key_of(state, vaddr, variant, tag), word)


@hot_kernel
def fill_both_new(state: "State", first_level: int, vaddr: int, word: int) -> None:
    """Put the translation of a small private page into both levels, which are known to hold none of ``vaddr``."""
    _note_variant(state, first_level, vaddr, word)
    key = ((vaddr >> PAGE_SHIFT) << KEY_PAGE_SHIFT) | state.cpu[state.current[Current.CPU]].tlb_tag
    put_new(state, first_level, key, word)
    put_new(state, TlbArray.L2_4K, key, word)


@hot_kernel
def _note_variant(state: "State", level: int, vaddr: int, word: int) -> int:
    """Note which kind of entry a level is about to hold; return its variant."""
    cpu = state.cpu[state.current[Current.CPU]]
    variant = word >> SIZE_SHIFT & SIZE_MASK
    if word & TlbRight.GLOBAL:
        variant += PageSize.NR
    if vaddr >= 0:
        cpu.tlb_variants |= 1 << variant | 1 << (USER_GROUPS_SHIFT + pcid_group(cpu.tlb_tag & PCID_MASK))
    else:
        cpu.tlb_variants |= 1 << (variant + NR_VARIANTS)
    if word & TlbRight.SPECIAL:
        cpu.tlb_variants |= SPECIAL_SEEN
    if level == TlbArray.I1_4K and vaddr >= 0:
        cpu.tlb_variants |= FETCH_SEEN
    return variant


@hot_kernel
def frame_of(state: "State", word: int, vaddr: int) -> int:
    """Return the 4 KiB frame of ``vaddr`` within the page that an entry's word maps."""
    size = word >> SIZE_SHIFT & SIZE_MASK
    pfn = (word >> FRAME_SHIFT) & PFN_MASK
    if size == PageSize.SMALL:
        return pfn
    pages = 1 << (state.tlb_array[TlbArray.D1_4K + size].shift - PAGE_SHIFT)
    return pfn + ((vaddr >> PAGE_SHIFT) & (pages - 1))
