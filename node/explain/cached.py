"""What a CPU's TLBs and paging-structure caches hold for an address, seen without using them.

For each array that the access may be served by: the set that the address belongs to, and the entry there if its
tag is the CPU's, or the entry is global. Entries for the same page under other tags are named too: they are what
PCIDs keep apart.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

from node.explain.entries import first_of_set
from node.explain.tables import Place, memory_type_name
from node.hw.paging import AccessKind
from node.hw.processors import TlbArraySpec
from node.hw.pte import PFN_MASK
from node.hw.registers import Cr4
from node.hw.tlb import (
    FRAME_SHIFT,
    KEY_GLOBAL,
    KEY_PAGE_SHIFT,
    KEY_SIZE_SHIFT,
    KEY_VALID,
    PAT_INDEX_MASK,
    PAT_INDEX_SHIFT,
    PCID_MASK,
    SIZE_MASK,
    WORD_PKEY_MASK,
    WORD_PKEY_SHIFT,
    TlbArray,
    TlbRight,
)

if TYPE_CHECKING:
    from node.spec import MachineSpec

_FIRST: Final = {"data": TlbArray.D1_4K, "instruction": TlbArray.I1_4K}
# The cache of entries of the level above the last, and so on upwards; names are those of scenarios.
_WALK_CACHES: Final = ("pd", "pdpt", "pml4", "pml5")


def look_into_tlbs(place: Place, spec: "MachineSpec", kind: AccessKind) -> list[dict[str, Any]]:
    """Return what each TLB array that serves accesses of this kind holds for the address, first level first."""
    side = "instruction" if kind == AccessKind.EXECUTE else "data"
    found = []
    for level, first_role in (("first", _FIRST[side]), ("second", TlbArray.L2_4K)):
        for page_level in reversed(place.mode.levels):
            role = first_role + page_level.page_size
            array = spec.tlb.array(role)
            if page_level.page_name is None or array is None:
                continue
            name = spec.tlb.name(spec.tlb.roles[role] or 0)
            number = place.vaddr >> page_level.shift
            row: dict[str, Any] = {"level": level, "array": name, "page_size": page_level.page_name}
            row |= _geometry(array)
            row |= _look(place, role, number, page_level.page_size)
            found.append(row)
    return found


def look_into_walk_caches(place: Place, spec: "MachineSpec") -> list[dict[str, Any]]:
    """Return what each paging-structure cache holds for the address, from the lowest level up."""
    upper = list(reversed(place.mode.levels))[1:]
    found = []
    for distance, (name, level) in enumerate(zip(_WALK_CACHES, upper, strict=False)):
        array = getattr(spec.hw.walk_caches, name)
        if array is None:
            continue
        number = place.vaddr >> level.shift
        row: dict[str, Any] = {"cache": name, "level": level.linux, **_geometry(array)}
        first, ways = _set_of(place, TlbArray.WALK_PD + distance, number)
        row["set"] = _set_number(place, TlbArray.WALK_PD + distance, first)
        row["held"] = None
        for key, word in ways:
            if key == number << KEY_PAGE_SHIFT | int(place.registers.tlb_tag):
                row["held"] = {"table_frame": f"{word >> FRAME_SHIFT & PFN_MASK:#x}", "rights": _rights(word)}
        found.append(row)
    return found


def _geometry(array: TlbArraySpec) -> dict[str, int | str]:
    return {"entries": array.entries, "ways": array.ways, "replacement": array.replacement}


def _set_of(place: Place, role: int, number: int) -> tuple[int, Iterator[tuple[int, int]]]:
    """Return the place of a set in ``state.tlb``, and its keys and words."""
    first = first_of_set(place.state, role, number)
    ways = range(first, first + int(place.state.tlb_array[role].nr_ways))
    return first, ((int(place.state.tlb[way].key), int(place.state.tlb[way].word)) for way in ways)


def _set_number(place: Place, role: int, first: int) -> int:
    array = place.state.tlb_array[role]
    all_sets = first_of_set(place.state, role, 0)
    return (first - all_sets) // int(array.nr_ways)


def _look(place: Place, role: int, number: int, size: int) -> dict[str, Any]:
    """Return the set of page ``number``, the entry there that is the CPU's, and other tags of the same page."""
    first, ways = _set_of(place, role, number)
    tag = int(place.registers.tlb_tag)
    held = None
    others = []
    for key, word in ways:
        if (
            not key & KEY_VALID
            or key >> KEY_PAGE_SHIFT != number
            or key >> KEY_SIZE_SHIFT & SIZE_MASK != size
        ):
            continue
        if key & KEY_GLOBAL or key & PCID_MASK == tag & PCID_MASK:
            held = _decode_entry(place, key, word)
        else:
            others.append(key & PCID_MASK)
    return {"set": _set_number(place, role, first), "held": held, "other_pcids": sorted(others)}


def _decode_entry(place: Place, key: int, word: int) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "frame": f"{word >> FRAME_SHIFT & PFN_MASK:#x}",
        "pcid": None if key & KEY_GLOBAL else key & PCID_MASK,
        "global": bool(key & KEY_GLOBAL),
        "rights": _rights(word),
        "dirty": bool(word & TlbRight.DIRTY),
        "memory_type": memory_type_name(int(place.registers.pat), word >> PAT_INDEX_SHIFT & PAT_INDEX_MASK),
    }
    if int(place.registers.cr4) & Cr4.PKE:
        entry["key"] = word >> WORD_PKEY_SHIFT & WORD_PKEY_MASK
    return entry


def _rights(word: int) -> dict[str, bool]:
    return {
        "write": bool(word & TlbRight.WRITE),
        "user": bool(word & TlbRight.USER),
        "execute": bool(word & TlbRight.EXECUTE),
    }
