"""A machine's translation hardware: a processor's preset, and what a scenario or a caller changes of it.

    keys  {processor: zen4, paging: 5level, tlb: {data: {4K: {entries: 48}}}}
      |  resolve_hw()
      v
    HwSpec and TlbSpec, complete: what the machine is built from
      |  check_hardware()
      v
    ValueError in one line, or nothing

What is not said is as the processor has it; what the paging mode lacks of a processor's arrays is left out
quietly. What is said counts, even against the processor (a Skylake with five levels, a Zen 2 with PCIDs), but
not against the architecture: those combinations are refused, and so is every array that cannot be built. Of a
key that changes part of an array the rest is as it was.

An array may serve several page sizes (``4K+2M``). Naming some of them takes these out of an array that had more.

Sources: Intel SDM volume 3, 4.1 (modes and what they need), 4.10.1 (PCIDs need IA-32e paging); Linux 6.1,
arch/x86/Kconfig (PAGE_OFFSET's values; page-table isolation needs 64 bits or PAE), arch/x86/mm/init.c
(setup_pcid: no PCIDs without global pages).
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Final

from node.hw.processors import (
    DEFAULT_PROCESSOR,
    NR_ROLES,
    NR_SIZES,
    PAGE_SIZES,
    PROCESSORS,
    REFILLS,
    REPLACEMENTS,
    SIDES,
    Features,
    Processor,
    TlbArraySpec,
    TlbSpec,
    WalkCacheSpec,
)
from shared.constants import GIB
from shared.units import format_size

PAGINGS: Final = ("none", "32bit", "4level", "5level")
ALL_SIZES: Final = "all"
ERAS: Final = ("6.1", "lecture")
HW_KEYS: Final = (
    "processor",
    "paging",
    "page_offset",
    "pcid",
    "pti",
    "global_pages",
    "physical_bits",
    "tlb",
    "walk_caches",
)
PAGE_OFFSETS: Final = (0xC000_0000, 0xB000_0000, 0x8000_0000, 0x7800_0000, 0x4000_0000)
MAX_ENTRIES: Final = 65536
MAX_PLRU_WAYS: Final = 32  # a set's tree is one word of bits
MIN_PHYSICAL_BITS: Final = 32
MAX_PHYSICAL_BITS: Final = {"none": 52, "32bit": 40, "4level": 52, "5level": 52}
MAX_MEMORY_32BIT: Final = 4 * GIB  # what 4-byte entries of 4 KiB pages reach

_PAGINGS_64: Final = ("4level", "5level")
_SIZES_OF: Final = {"none": ("4K",), "32bit": ("4K", "2M"), "4level": PAGE_SIZES, "5level": PAGE_SIZES}
_SIZE_NAMES: Final = {"4K": "4 KiB", "2M": "2 MiB", "4M": "4 MiB", "1G": "1 GiB"}
_WALK_LEVELS: Final = {"none": (), "32bit": ("pd",), "4level": ("pd", "pdpt", "pml4")}
_ARRAY_KEYS: Final = tuple(field.name for field in fields(TlbArraySpec))
_SHORTHANDS: Final = {
    "l1_entries": ("data", "4K", "entries"),
    "l1_ways": ("data", "4K", "ways"),
    "l2_entries": ("second", "4K+2M", "entries"),
    "l2_ways": ("second", "4K+2M", "ways"),
}


@dataclass(frozen=True, slots=True)
class HwSpec:
    """Everything of the translation hardware but the TLBs. Complete: see ``resolve_hw`` for what follows what."""

    processor: str = DEFAULT_PROCESSOR.name
    paging: str = "4level"
    page_offset: int = PAGE_OFFSETS[0]  # first address of the kernel in 32-bit paging; else without meaning
    pcid: bool = DEFAULT_PROCESSOR.features.pcid
    pti: bool = DEFAULT_PROCESSOR.features.meltdown
    global_pages: bool = DEFAULT_PROCESSOR.features.pge
    physical_bits: int = DEFAULT_PROCESSOR.physical_bits  # M
    walk_caches: WalkCacheSpec = DEFAULT_PROCESSOR.walk_caches
    features: Features = DEFAULT_PROCESSOR.features
    era: str = ERAS[0]


DEFAULT_TLB: Final = DEFAULT_PROCESSOR.tlb


# --- from keys to specs ---------------------------------------------------------------------------------


def resolve_hw(keys: Mapping[str, Any]) -> tuple[HwSpec, TlbSpec]:
    """Return the hardware that ``keys`` describe; a key that is absent or None is as the processor has it.

    Keys: those of ``HW_KEYS``, and era. Two are mappings:

        tlb          refill; data, instruction, unified (both), second: {sizes: array}, where sizes are ``4K``,
                     ``4K+2M`` and so on, or ``all``; l1_entries and l1_ways are short for data 4K, l2_entries
                     and l2_ways for second 4K+2M
        walk_caches  pd, pdpt, pml4, pml5, ept_pd: array

    An array is {entries, ways, replacement, wired}; ways may be "full", and 0 entries say that there is none.
    Raises ValueError in one line for a key or name that is unknown, a size or level that the paging mode lacks, or a
    setting that makes sense in other modes only. ``check_hardware`` says whether the result can be built.
    """
    given = _given("hw", keys, (*HW_KEYS, "era"))
    processor = PROCESSORS[
        _one_of("hw.processor", given.get("processor", DEFAULT_PROCESSOR.name), PROCESSORS)
    ]
    paging = _one_of("hw.paging", given.get("paging", "4level"), PAGINGS)
    is_64 = paging in _PAGINGS_64
    if "page_offset" in given and paging != "32bit":
        raise ValueError(f"hw.page_offset: only 32bit paging lets it be chosen, not {paging}")
    tlb = _resolve_tlb(processor, paging, given.get("tlb", {}))
    features = processor.features
    global_pages = given.get("global_pages", features.pge and paging != "none")
    hw = HwSpec(
        processor=processor.name,
        paging=paging,
        page_offset=given.get("page_offset", PAGE_OFFSETS[0]),
        pcid=given.get("pcid", features.pcid and is_64 and global_pages),
        pti=given.get("pti", features.meltdown and is_64),
        global_pages=global_pages,
        physical_bits=given.get("physical_bits", min(processor.physical_bits, MAX_PHYSICAL_BITS[paging])),
        walk_caches=_resolve_walk_caches(processor, paging, tlb.refill, given.get("walk_caches", {})),
        era=given.get("era", ERAS[0]),
    )
    asked = replace(
        features,
        pcid=features.pcid or hw.pcid,
        pge=features.pge or hw.global_pages,
        la57=features.la57 or paging == "5level",
        pdpe1gb=features.pdpe1gb or _serves(tlb, "1G"),
    )
    return replace(hw, features=asked), tlb


def _one_of(place: str, value: object, known: Any) -> str:
    if isinstance(value, str) and value in known:
        return value
    raise ValueError(f"{place}: {value!r} is not one of {', '.join(known)}")


def _given(place: str, keys: Mapping[str, Any], known: tuple[str, ...]) -> dict[str, Any]:
    """Return the keys that are not None; all of them must be known."""
    if not isinstance(keys, Mapping):
        raise ValueError(f"{place}: {keys!r} is not a mapping of {', '.join(known)}")
    for key in keys:
        if key not in known:
            raise ValueError(f"{place}.{key}: unknown key; there are {', '.join(known)}")
    return {key: value for key, value in keys.items() if value is not None}


def _serves(tlb: TlbSpec, size: str) -> bool:
    return any(place is not None for place in tlb.roles[PAGE_SIZES.index(size) :: NR_SIZES])


def _resolve_tlb(processor: Processor, paging: str, keys: Mapping[str, Any]) -> TlbSpec:
    tlb = _only_sizes(processor.tlb, _SIZES_OF[paging])
    keys = _given("hw.tlb", keys, ("refill", "unified", *SIDES, *_SHORTHANDS))
    if "refill" in keys:
        tlb = replace(tlb, refill=_one_of("hw.tlb.refill", keys["refill"], REFILLS))
    for side in ("unified", *SIDES):
        seen: set[str] = set()
        for text, array in keys.get(side, {}).items():
            sizes = _sizes_of(f"hw.tlb.{side}", text, paging)
            if seen.intersection(sizes):
                raise ValueError(f"hw.tlb.{side}.{text}: a size has two arrays")
            seen.update(sizes)
            tlb = _with_array(tlb, side, sizes, array, text)
    for key, (side, text, field) in _SHORTHANDS.items():
        if key in keys:
            sizes = tuple(size for size in text.split("+") if size in _SIZES_OF[paging])
            tlb = _with_array(tlb, side, sizes, {field: keys[key]}, text)
    return tlb


def _only_sizes(tlb: TlbSpec, sizes: tuple[str, ...]) -> TlbSpec:
    """Leave out the roles of other page sizes."""
    roles = [place if PAGE_SIZES[role % NR_SIZES] in sizes else None for role, place in enumerate(tlb.roles)]
    return _compact(tlb, list(tlb.arrays), roles)


def _compact(tlb: TlbSpec, arrays: list[TlbArraySpec], roles: list[int | None]) -> TlbSpec:
    """Return ``tlb`` with these arrays and roles, without the arrays that no role names."""
    used = sorted({place for place in roles if place is not None})
    return replace(
        tlb,
        arrays=tuple(arrays[place] for place in used),
        roles=tuple(None if place is None else used.index(place) for place in roles),
    )


def _sizes_of(place: str, text: str, paging: str) -> tuple[str, ...]:
    """Read ``4K+2M``. In 32-bit paging ``4M`` is the large page, and so is ``2M``."""
    if text == ALL_SIZES:
        return _SIZES_OF[paging]
    sizes: list[str] = []
    for size in text.split("+"):
        if size not in _SIZE_NAMES:
            raise ValueError(
                f"{place}.{text}: {size!r} is not one of {', '.join(_SIZE_NAMES)} or {ALL_SIZES}"
            )
        internal = "2M" if size == "4M" and paging == "32bit" else size
        if internal not in _SIZES_OF[paging]:
            raise ValueError(f"{place}.{text}: {paging} paging has no {_SIZE_NAMES[size]} pages")
        if internal in sizes:
            raise ValueError(f"{place}.{text}: {size} is there twice")
        sizes.append(internal)
    return tuple(sizes)


def _with_array(
    tlb: TlbSpec, side: str, sizes: tuple[str, ...], keys: Mapping[str, Any], text: str
) -> TlbSpec:
    """Give the roles of ``sizes`` an array of their own, made of the one that the first of them had."""
    sides = SIDES[:2] if side == "unified" else (side,)
    changed = [SIDES.index(one) * NR_SIZES + PAGE_SIZES.index(size) for one in sides for size in sizes]
    arrays = list(tlb.arrays)
    roles = list(tlb.roles)
    place: int | None = None
    if keys.get("entries") != 0:
        place = len(arrays)
        arrays.append(_array(f"hw.tlb.{side}.{text}", tlb.array(changed[0]), keys))
    for role in changed:
        roles[role] = place
    return _compact(tlb, arrays, roles)


def _array(place: str, before: TlbArraySpec | None, keys: Mapping[str, Any]) -> TlbArraySpec:
    """Make an array of what is said and, for the rest, of the one before."""
    given = _given(place, keys, _ARRAY_KEYS)
    entries = given.get("entries", before.entries if before else None)
    if entries is None:
        raise ValueError(f"{place}.entries: missing, and the processor has no such array")
    is_full = before is None or before.ways == before.entries
    ways = given.get("ways", "full" if is_full or before is None else before.ways)
    return TlbArraySpec(
        entries=entries,
        ways=entries if ways == "full" else ways,
        replacement=given.get("replacement", before.replacement if before else REPLACEMENTS[0]),
        wired=given.get("wired", before.wired if before else 0),
    )


def _resolve_walk_caches(
    processor: Processor, paging: str, refill: str, keys: Mapping[str, Any]
) -> WalkCacheSpec:
    levels = (*_WALK_LEVELS.get(paging, ("pd", "pdpt", "pml4", "pml5")), "ept_pd")
    caches: dict[str, TlbArraySpec | None] = {}
    if refill == "hardware" and paging != "none":
        caches = {level: getattr(processor.walk_caches, level) for level in levels}
    known = tuple(field.name for field in fields(WalkCacheSpec))
    for level, keys_of_array in _given("hw.walk_caches", keys, known).items():
        place = f"hw.walk_caches.{level}"
        array = _given(place, keys_of_array, _ARRAY_KEYS)
        if array.get("entries") == 0:
            caches[level] = None
            continue
        if level not in levels or paging == "none":
            raise ValueError(f"{place}: {paging} paging has no entries of that level")
        if refill == "software":
            raise ValueError(f"{place}: where software refills the TLB, no hardware walks")
        caches[level] = _array(place, caches.get(level), array)
    return WalkCacheSpec(**caches)


# --- checks ---------------------------------------------------------------------------------------------


def check_hardware(hw: HwSpec, tlb: TlbSpec, memory_bytes: int = 0) -> None:
    """Raise ValueError, in one line, for hardware that does not exist or cannot hold ``memory_bytes``."""
    _one_of("hw.processor", hw.processor, PROCESSORS)
    _one_of("hw.paging", hw.paging, PAGINGS)
    _one_of("era", hw.era, ERAS)
    if hw.page_offset not in PAGE_OFFSETS:
        known = ", ".join(f"{value:#010X}".replace("X", "x") for value in PAGE_OFFSETS)
        raise ValueError(f"hw.page_offset: {hw.page_offset:#x} is not one of {known}")
    for key, is_on in (("pcid", hw.pcid), ("pti", hw.pti)):
        if is_on and hw.paging not in _PAGINGS_64:
            raise ValueError(f"hw.{key}: on needs 4level or 5level paging, not {hw.paging}")
    if hw.global_pages and hw.paging == "none":
        raise ValueError("hw.global_pages: on needs paging, not none")
    if hw.pcid and not hw.global_pages:
        raise ValueError("hw.pcid: on needs hw.global_pages on (Linux uses neither without the other)")
    _check_physical_bits(hw, memory_bytes)
    _check_tlb(hw, tlb)
    for field in fields(WalkCacheSpec):
        array = getattr(hw.walk_caches, field.name)
        if array is not None:
            check_array(f"hw.walk_caches.{field.name}", array)


def _check_physical_bits(hw: HwSpec, memory_bytes: int) -> None:
    highest = MAX_PHYSICAL_BITS[hw.paging]
    if not MIN_PHYSICAL_BITS <= hw.physical_bits <= highest:
        raise ValueError(
            f"hw.physical_bits: {hw.physical_bits} is outside {MIN_PHYSICAL_BITS}..{highest} of {hw.paging} paging"
        )
    if memory_bytes > 1 << hw.physical_bits:
        raise ValueError(
            f"memory: {format_size(memory_bytes)} is more than the {format_size(1 << hw.physical_bits)} "
            f"that {hw.physical_bits} physical address bits reach (hw.physical_bits)"
        )
    if hw.paging == "32bit" and memory_bytes > MAX_MEMORY_32BIT:
        raise ValueError(
            f"memory: {format_size(memory_bytes)} is more than the {format_size(MAX_MEMORY_32BIT)} "
            "that 4 KiB pages of 32bit paging reach"
        )


def _check_tlb(hw: HwSpec, tlb: TlbSpec) -> None:
    _one_of("hw.tlb.refill", tlb.refill, REFILLS)
    if len(tlb.roles) != NR_ROLES:
        raise ValueError(f"hw.tlb: {len(tlb.roles)} roles are not the {NR_ROLES} that there are")
    for role, place in enumerate(tlb.roles):
        side, size = SIDES[role // NR_SIZES], PAGE_SIZES[role % NR_SIZES]
        where = f"hw.tlb.{side}.{size}"
        if place is None:
            if tlb.refill == "software" and size == "4K" and side != "second":
                raise ValueError(f"{where}: where software refills the TLB, there must be one")
            continue
        if size not in _SIZES_OF[hw.paging]:
            raise ValueError(f"{where}: {hw.paging} paging has no {_SIZE_NAMES[size]} pages")
        if not 0 <= place < len(tlb.arrays):
            raise ValueError(f"{where}: array {place} is not one of the {len(tlb.arrays)}")
        check_array(where, tlb.arrays[place])


def check_array(place: str, array: TlbArraySpec) -> None:
    """Raise ValueError, in one line, for an array that cannot be built; ``place`` names it."""
    entries, ways = array.entries, array.ways
    if not 1 <= entries <= MAX_ENTRIES:
        raise ValueError(f"{place}.entries: {entries} is outside 1..{MAX_ENTRIES}")
    if ways < 1:
        raise ValueError(f"{place}.ways: {ways} is below the minimum of 1 (direct-mapped)")
    if entries % ways:
        raise ValueError(f"{place}: {entries} entries is not a multiple of {ways} ways")
    _one_of(f"{place}.replacement", array.replacement, REPLACEMENTS)
    if array.replacement == "plru" and (ways & (ways - 1) or ways > MAX_PLRU_WAYS):
        raise ValueError(f"{place}.ways: plru needs a power of two up to {MAX_PLRU_WAYS}, not {ways}")
    if not 0 <= array.wired < ways:
        raise ValueError(f"{place}.wired: {array.wired} of {ways} ways leaves none to refill")
