"""The walk: from a linear address through the tables to a page, or to a fault.

    CR3 -> PGD entry -> P4D entry -> PUD entry -> PMD entry -> PTE -> frame
             |             |            | PS: 1 GiB  | PS: 2 MiB
             at each: absent? reserved bits? R/W, U/S, XD of all levels together; A is set

The paging-structure caches remember the tables that earlier walks found, with the rights on the way there: the
one for the lowest level that knows the address lets the walk begin there. Only entries whose A is set, which
are all that a walk has passed, get in.

Rights are asked of the whole path at its end, and D is set in the last entry by a write. A fault leaves its
address in CR2 and says in its error code what went wrong; it drops what the TLBs hold for the address.

On a guest each table, and the page, has a guest-physical address that the host's table translates first: up to
(4 + 1) * (4 + 1) - 1 = 24 entries are read for one address. A cache of the host's lower level shortens those walks
too. What the host's view does not allow, ``ept_access`` logs and raises (node/hw/ept_view.py); translations
are cached for 4 KiB each there, since the host maps a guest's memory so.

A table beyond the machine's memory reads as all ones, as a bus does that nobody answers on.

Sources: Intel SDM volume 3, 4.3 to 4.9, 4.10.3 (paging-structure caches), 28.3 (EPT). Order of the checks:
4.7 leaves it open; A of upper levels is set even if the walk then faults, as processors do.
"""

from enum import IntEnum
from typing import TYPE_CHECKING, Final

from node.counters import Current, HwEvent, Knob
from node.hw.cache_lines import CacheMode
from node.hw.cost import Cost
from node.hw.ept_view import ept_access
from node.hw.memory_type import MemoryType, leaf_pat_index, memory_type
from node.hw.page_table import entry_position
from node.hw.paging import MIN_LEVELS_64, AccessKind, PageSize, PagingMode
from node.hw.pte import PFN_MASK, PKEY_MASK, PKEY_SHIFT, Pte
from node.hw.registers import (
    PKRU_ACCESS_DISABLE,
    PKRU_WRITE_DISABLE,
    Cr0,
    Cr4,
    Efer,
    FaultCode,
    FaultVector,
    cr3_root,
)
from node.hw.tlb import (
    FETCH_SEEN,
    FRAME_SHIFT,
    KEY_GLOBAL,
    KEY_PAGE_SHIFT,
    KEY_VALID,
    PAT_INDEX_MASK,
    PAT_INDEX_SHIFT,
    PCID_MASK,
    SIZE_MASK,
    SIZE_SHIFT,
    WORD_PKEY_MASK,
    WORD_PKEY_SHIFT,
    TlbArray,
    TlbRight,
    find_variant,
    frame_of,
    note_use,
    paths_place,
    put,
    put_new,
)
from node.hw.tlb_drop import drop_translation, invalidate
from shared.constants import NIL, PAGE_SHIFT, TABLE_SHIFT
from shared.jit import hot_kernel, kernel
from shared.views import View

if TYPE_CHECKING:
    from node.state import State

PATH_RIGHTS: Final = TlbRight.WRITE | TlbRight.USER | TlbRight.EXECUTE
# A 4 MiB page of 32-bit paging keeps bits 39..32 of its address in bits 20..13 (PSE-36).
PSE36_SHIFT: Final = 13
PSE36_MASK: Final = 255
PSE36_FRAME_SHIFT: Final = 32 - PAGE_SHIFT
ADDRESS_MASK: Final = PFN_MASK << PAGE_SHIFT
HIGHEST_FRAME_BIT: Final = (PFN_MASK + 1) >> 1
LEVEL_SHIFT: Final = PAT_INDEX_SHIFT  # of the level in a path
LEVEL_MASK: Final = PAT_INDEX_MASK
# Instead of a path: no page there. Paths with so high a frame do not exist.
FAILED: Final = -1
MAX_CODE: Final = 63


class Cached(IntEnum):
    """What may be cached of an address that is walked for: who knows spares the search."""

    ANYTHING = 0
    NO_TRANSLATION = 1  # neither level that the access looked into has its page, of any size
    NOTHING = 2  # nor has a paging-structure cache a way to it: it has just faulted


# --- faults ---------------------------------------------------------------------------------------------


@hot_kernel
def _walk_key(state: "State", level: int, vaddr: int) -> int:
    """Return the key in a paging-structure cache of the entry for ``vaddr`` at a level."""
    tag = state.cpu[state.current[Current.CPU]].tlb_tag
    return ((vaddr >> state.paging_level[level].shift) << KEY_PAGE_SHIFT) | tag


@kernel
def _forget_path(state: "State", cpu: int, vaddr: int) -> None:
    """Drop what the paging-structure caches would use for ``vaddr``."""
    last = state.knob[Knob.NR_LEVELS] - 1
    for distance in range(last):
        key = _walk_key(state, last - 1 - distance, vaddr)
        index = find_variant(state, cpu, TlbArray.WALK_PD + distance, key)
        if index != NIL:
            invalidate(state, index)
            state.cached_paths[paths_place(cpu, key & PCID_MASK)] -= 1


@hot_kernel
def _other_side_may_have(state: "State", kind: int) -> int:
    """Return whether a page may be cached where its access does not look: the other side, the data cache."""
    fetched = state.cpu[state.current[Current.CPU]].tlb_variants & FETCH_SEEN
    is_virtual = state.knob[Knob.DCACHE_MODE] == CacheMode.VIRTUAL
    return 1 if fetched or kind == AccessKind.EXECUTE or is_virtual else 0


@kernel
def _fault(state: "State", vaddr: int, kind: int, code: int, cached: int) -> int:
    """Raise #PF with the bits of ``code`` that only the walk knows; return NIL."""
    cpu_index = state.current[Current.CPU]
    cpu = state.cpu[cpu_index]
    if kind == AccessKind.WRITE:
        code |= FaultCode.WRITE
    if cpu.cpl:
        code |= FaultCode.USER
    # SDM 4.7: the I/D flag exists where execution can be forbidden.
    if kind == AccessKind.EXECUTE and (cpu.cr4 & Cr4.SMEP or (cpu.efer & Efer.NXE and cpu.cr4 & Cr4.PAE)):
        code |= FaultCode.FETCH
    cpu.fault_vector = FaultVector.PAGE_FAULT
    cpu.cr2 = vaddr
    cpu.error_code = code
    if cached == Cached.ANYTHING or _other_side_may_have(state, kind):
        drop_translation(state, cpu_index, vaddr, cpu.tlb_tag & PCID_MASK, 1)
    _forget_path(state, cpu_index, vaddr)
    return NIL


@hot_kernel
def _not_canonical(state: "State", vaddr: int) -> int:
    """Return whether no address of the machine's mode is ``vaddr``: its upper bits are not all alike."""
    bits = state.knob[Knob.LINEAR_BITS]
    if state.knob[Knob.PAGING_MODE] == PagingMode.BITS_32:
        return 1 if vaddr >> bits else 0
    sign = vaddr >> (bits - 1)
    return 0 if sign in (0, -1) else 1


# --- rights ---------------------------------------------------------------------------------------------


@hot_kernel
def key_forbids(state: "State", word: int, kind: int) -> int:
    """Return whether the protection key of a user page forbids a data access (SDM 4.6.2)."""
    cpu = state.cpu[state.current[Current.CPU]]
    if not cpu.cr4 & Cr4.PKE or not word & TlbRight.USER or kind == AccessKind.EXECUTE:
        return 0
    if not cpu.efer & Efer.LMA:
        return 0  # 4-byte entries have no keys
    rights = cpu.pkru >> (2 * ((word >> WORD_PKEY_SHIFT) & WORD_PKEY_MASK))
    if rights & PKRU_ACCESS_DISABLE:
        return 1
    checks_write = kind == AccessKind.WRITE and (cpu.cpl or cpu.cr0 & Cr0.WP)
    return 1 if checks_write and rights & PKRU_WRITE_DISABLE else 0


@hot_kernel
def path_forbids(state: "State", word: int, kind: int) -> int:
    """Return whether R/W, U/S and XD of all levels together forbid the access at the CPU's level (SDM 4.6.1)."""
    cpu = state.cpu[state.current[Current.CPU]]
    if kind == AccessKind.EXECUTE:
        if not word & TlbRight.EXECUTE:
            return 1
        if cpu.cpl:
            return 0 if word & TlbRight.USER else 1
        return 1 if word & TlbRight.USER and cpu.cr4 & Cr4.SMEP else 0
    if cpu.cpl:
        if not word & TlbRight.USER:
            return 1
        return 1 if kind == AccessKind.WRITE and not word & TlbRight.WRITE else 0
    if word & TlbRight.USER and cpu.cr4 & Cr4.SMAP and not cpu.ac:
        return 1
    return 1 if kind == AccessKind.WRITE and cpu.cr0 & Cr0.WP and not word & TlbRight.WRITE else 0


# --- the way down ---------------------------------------------------------------------------------------


@kernel
def _ept_walk(state: "State", gfn: int) -> None:
    """On a guest: charge the walk of the host's table for one of the guest's frames."""
    cpu = state.current[Current.CPU]
    key = ((gfn >> TABLE_SHIFT) << KEY_PAGE_SHIFT) | KEY_VALID | KEY_GLOBAL
    nr_references = state.knob[Knob.EPT_LEVELS]
    index = find_variant(state, cpu, TlbArray.EPT_PD, key)
    if index != NIL:
        note_use(state, cpu, TlbArray.EPT_PD, index)
        nr_references = 1
    else:
        put(state, TlbArray.EPT_PD, key, 0)
    state.hw_event[HwEvent.EPT_REFERENCES] += nr_references
    state.current[Current.CLOCK_PS] += nr_references * state.cost[Cost.WALK_REFERENCE]


@kernel
def _frame_field(pfn: int) -> int:
    """Return a frame number at its place in a word or path, which is negative if the highest of 40 bits is set."""
    return ((pfn ^ HIGHEST_FRAME_BIT) - HIGHEST_FRAME_BIT) << FRAME_SHIFT


@hot_kernel
def _known_path(state: "State", vaddr: int) -> int:
    """Return the way to ``vaddr`` as far down as a paging-structure cache knows it, else to the top table.

    A path is a table: its frame from bit 24 on, its level from bit 11 on, and the rights on the way to it.
    """
    cpu = state.current[Current.CPU]
    last = state.knob[Knob.NR_LEVELS] - 1
    for distance in range(last):
        key = _walk_key(state, last - 1 - distance, vaddr)
        index = find_variant(state, cpu, TlbArray.WALK_PD + distance, key)
        if index != NIL:
            note_use(state, cpu, TlbArray.WALK_PD + distance, index)
            state.hw_event[HwEvent.WALK_CACHE_HIT] += 1
            return state.tlb[index].word
    return _path_from_top(state)


@hot_kernel
def _path_from_top(state: "State") -> int:
    return _frame_field(cr3_root(state.cpu[state.current[Current.CPU]].cr3)) | PATH_RIGHTS


@hot_kernel
def _lower(path: int, word: int) -> int:
    """Return the path that goes on from ``path`` through the entry ``word``."""
    rights = path & word & (TlbRight.WRITE | TlbRight.USER)
    if word >= 0:
        rights |= path & TlbRight.EXECUTE
    level = (path >> LEVEL_SHIFT & LEVEL_MASK) + 1
    return _frame_field(word >> PAGE_SHIFT & PFN_MASK) | level << LEVEL_SHIFT | rights


@hot_kernel
def _entry_position(state: "State", path: int, vaddr: int) -> int:
    return entry_position(state, path >> FRAME_SHIFT & PFN_MASK, vaddr, path >> LEVEL_SHIFT & LEVEL_MASK)


@kernel
def _maps_page(state: "State", level: int, word: int) -> int:
    """Return whether a present entry of ``level`` maps a page; in 32-bit paging PS means nothing without CR4.PSE."""
    if level == state.knob[Knob.NR_LEVELS] - 1:
        return 1
    if not word & Pte.HUGE or not state.paging_level[level].leaf:
        return 0
    return 1 if state.cpu[state.current[Current.CPU]].cr4 & (Cr4.PAE | Cr4.PSE) else 0


@hot_kernel
def _next_table(state: "State", path: int, vaddr: int, level: int) -> int:
    """Read the entry of ``vaddr`` in a path's table: return the path through it, or ``path`` if it maps a page.

    Returns FAILED less the error code if it is absent or has reserved bits set. ``level`` is the path's: its reader
    counts along, or the place in the next table could not be computed before this one is read.
    """
    table = path >> FRAME_SHIFT & PFN_MASK
    here = state.paging_level[level]
    if state.knob[Knob.IS_GUEST]:
        _ept_walk(state, table)
        ept_access(state, table, 1)
    if table >= state.knob[Knob.NR_FRAMES]:
        return FAILED - (FaultCode.PRESENT | FaultCode.RESERVED)
    position = entry_position(state, table, vaddr, level)
    word = state.pt_word[position]
    if not word & Pte.PRESENT:
        return FAILED
    if word < 0 and not state.cpu[state.current[Current.CPU]].efer & Efer.NXE:
        return FAILED - (FaultCode.PRESENT | FaultCode.RESERVED)  # XD is reserved then
    if _maps_page(state, level, word):
        return FAILED - (FaultCode.PRESENT | FaultCode.RESERVED) if word & here.reserved_leaf else path
    if word & here.reserved:
        return FAILED - (FaultCode.PRESENT | FaultCode.RESERVED)
    if not word & Pte.ACCESSED:
        state.pt_word[position] = word | Pte.ACCESSED
    lower = _lower(path, word)
    put_new(
        state,
        TlbArray.WALK_PD + state.knob[Knob.NR_LEVELS] - 2 - level,
        _walk_key(state, level, vaddr),
        lower,
    )
    return lower


@hot_kernel
def _descend(state: "State", vaddr: int, cached: int) -> int:
    """Return the path whose entry for ``vaddr`` maps a page, or FAILED less an error code."""
    path = _path_from_top(state) if cached == Cached.NOTHING else _known_path(state, vaddr)
    level = path >> LEVEL_SHIFT & LEVEL_MASK
    nr_references = 0
    while True:
        lower = _next_table(state, path, vaddr, level + nr_references)
        nr_references += 1
        if lower == path or FAILED - MAX_CODE <= lower <= FAILED:
            break
        path = lower
    cpu = state.current[Current.CPU]
    # Each but the last has become known.
    state.cached_paths[paths_place(cpu, state.cpu[cpu].tlb_tag & PCID_MASK)] += nr_references - 1
    state.hw_event[HwEvent.WALK_REFERENCES] += nr_references
    state.current[Current.CLOCK_PS] += nr_references * state.cost[Cost.WALK_REFERENCE]
    return lower


# --- the page -------------------------------------------------------------------------------------------


@hot_kernel
def _first_frame(state: "State", word: int, size: int) -> int:
    """Return the first frame of the page that an entry maps."""
    if size == PageSize.SMALL:
        return word >> PAGE_SHIFT & PFN_MASK
    shift = state.tlb_array[TlbArray.D1_4K + size].shift
    if state.knob[Knob.PAGING_MODE] == PagingMode.BITS_32:
        high = (word >> PSE36_SHIFT & PSE36_MASK) << PSE36_FRAME_SHIFT
        return high | word >> shift << (shift - PAGE_SHIFT)
    return (word & ADDRESS_MASK) >> shift << (shift - PAGE_SHIFT)


@hot_kernel
def _special_bits(state: "State", word: int, size: int) -> int:
    """Return the bits of a TLB word for the entry's protection key and memory type; SPECIAL if they matter."""
    cpu = state.cpu[state.current[Current.CPU]]
    pat_index = leaf_pat_index(word, size)
    bits = pat_index << PAT_INDEX_SHIFT
    if memory_type(cpu.pat, pat_index) != MemoryType.WB:
        bits |= TlbRight.SPECIAL
    pkey = word >> PKEY_SHIFT & PKEY_MASK
    if pkey and state.knob[Knob.NR_LEVELS] >= MIN_LEVELS_64:
        # Kept while CR4.PKE is clear too, since setting it drops nothing.
        bits |= TlbRight.SPECIAL | pkey << WORD_PKEY_SHIFT
    return bits


@hot_kernel
def _tlb_word(state: "State", path: int, word: int) -> int:
    """Return what the TLBs keep of the page that the entry ``word`` at the end of ``path`` maps."""
    size = state.paging_level[path >> LEVEL_SHIFT & LEVEL_MASK].page_size
    cpu = state.cpu[state.current[Current.CPU]]
    bits = (_lower(path, word) & PATH_RIGHTS) | word & (Pte.ACCESSED | Pte.DIRTY) | size << SIZE_SHIFT
    if cpu.cr4 & Cr4.PGE:
        bits |= word & Pte.GLOBAL
    bits |= _special_bits(state, word, size) | TlbRight.EPT_WRITE
    return _frame_field(_first_frame(state, word, size)) | bits


@kernel
def _through_ept(state: "State", granted: int, vaddr: int, write: int) -> int:
    """On a guest: let the host translate the page's frame; return the word for that 4 KiB frame alone."""
    pfn = frame_of(state, granted, vaddr)
    _ept_walk(state, pfn)
    ept_access(state, pfn, write)
    bits = granted & ((1 << FRAME_SHIFT) - 1) & ~(SIZE_MASK << SIZE_SHIFT)
    if state.ept_view[pfn] != View.WRITABLE:
        bits &= ~TlbRight.EPT_WRITE
    return (pfn << FRAME_SHIFT) | bits


@hot_kernel
def walk(state: "State", vaddr: int, kind: int, cached: int) -> int:
    """Walk for an access of the current CPU; return the word that the TLBs may keep, or NIL for a fault.

    ``kind`` is an AccessKind, ``cached`` a Cached. A fault's vector, address and code are in the CPU's registers.
    """
    cpu = state.cpu[state.current[Current.CPU]]
    if _not_canonical(state, vaddr):
        cpu.fault_vector = FaultVector.GENERAL_PROTECTION
        cpu.error_code = 0
        return NIL
    path = _descend(state, vaddr, cached)
    if FAILED - MAX_CODE <= path <= FAILED:
        return _fault(state, vaddr, kind, FAILED - path, cached)
    position = _entry_position(state, path, vaddr)
    word = state.pt_word[position]
    used = word | (Pte.ACCESSED | Pte.DIRTY if kind == AccessKind.WRITE else Pte.ACCESSED)
    granted = _tlb_word(state, path, used)
    forbidden_key = key_forbids(state, granted, kind)
    if forbidden_key or path_forbids(state, granted, kind):
        code = FaultCode.PRESENT | (FaultCode.KEY if forbidden_key else 0)
        return _fault(state, vaddr, kind, code, cached)
    if used != word:
        state.pt_word[position] = used
    if state.knob[Knob.IS_GUEST]:
        return _through_ept(state, granted, vaddr, 1 if kind == AccessKind.WRITE else 0)
    return granted
