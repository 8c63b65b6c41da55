"""The kernel's memory map: which region each linear address lies in, holes included.

    0 ............ user space ............ | non-canonical hole | guard hole | LDT | direct map | .. vmalloc ..
    .. vmemmap .. KASAN shadow .. cpu_entry_area .. fixup stacks .. EFI .. text, modules, fixmap, vsyscall ..

A 64-bit machine's map is a table of starts, as the document of its kernel lists them; a region ends where the
next one begins, so nothing is left out and nothing overlaps. What a document leaves blank is a hole, and has
a name here too. Two eras:

    6.1       the direct map begins at ffff888000000000, behind the LDT that KPTI remaps
    lecture   the map of 4.15 to 4.19: the direct map begins at ffff880000000000, the LDT is behind
              cpu_entry_area

A 32-bit machine's map depends on ``page_offset``, where user space ends, and on the memory: as much of it as
fits is mapped from there on (lowmem), and vmalloc begins 8 MiB behind it. The rest is counted down from the top:

    page_offset      lowmem       |8 MiB| vmalloc |8 KiB| persistent kmap | LDT | cpu_entry_area | fixmap |

In mode ``none`` an address is one of the memory.

Addresses are unsigned here. Kernels know them as signed 64-bit numbers: ``signed`` converts.

Sources: Documentation/x86/x86_64/mm.rst of 6.1, Documentation/x86/x86_64/mm.txt of 4.15;
arch/x86/include/asm/pgtable_64_types.h, page_64_types.h, fixmap.h; for 32 bits pgtable_32_areas.h of 6.1, and
pgtable_32.h and page_32.h of 2.6 for the lecture's map.
# Differs from Linux: bases are never randomized (``nokaslr``); on 32-bit machines NR_CPUS is 8, and there is
# no PAE.
"""

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from typing import Final

from node.counters import Era
from node.hw.paging import PAGING_MODES, PagingMode
from node.kmap.cpu_entry_area import entry_area_pages
from shared.constants import GIB, MIB, PAGE_SIZE
from shared.wrap64 import to_signed

ERAS: Final = {"6.1": Era.LINUX_6_1, "lecture": Era.LECTURE}
DEFAULT_PAGE_OFFSET: Final = 0xC000_0000  # CONFIG_PAGE_OFFSET of VMSPLIT_3G

ADDRESS_BITS: Final = 64
START_KERNEL_MAP: Final = 0xFFFF_FFFF_8000_0000
CPU_ENTRY_AREA: Final = 0xFFFF_FE00_0000_0000
USER_BITS: Final = 47
VSYSCALL: Final = 0xFFFF_FFFF_FF60_0000


class RegionName(StrEnum):
    """What a region is called."""

    USER = "user space"
    NON_CANONICAL = "non-canonical hole"
    GUARD_HOLE = "guard hole"
    LDT = "LDT remap"
    DIRECT_MAP = "direct map"
    VMALLOC = "vmalloc"
    VMEMMAP = "vmemmap"
    KASAN = "KASAN shadow"
    CPU_ENTRY_AREA = "cpu_entry_area"
    FIXUP_STACKS = "%esp fixup stacks"
    EFI = "EFI"
    KERNEL_TEXT = "kernel text"
    MODULES = "modules"
    FIXMAP = "fixmap"
    VSYSCALL = "vsyscall"
    BEHIND_DIRECT_MAP = "hole behind the direct map"
    BEHIND_VMALLOC = "hole behind vmalloc"
    BEHIND_VMEMMAP = "hole behind vmemmap"
    BEHIND_KASAN = "hole behind the KASAN shadow"
    BEHIND_CPU_ENTRY_AREA = "hole behind cpu_entry_area"
    BEHIND_FIXUP_STACKS = "hole behind the fixup stacks"
    BEHIND_EFI = "hole behind EFI"
    BEHIND_MODULES = "hole behind modules"
    BEHIND_VSYSCALL = "hole behind vsyscall"
    TOP = "hole at the top"
    # Of 32-bit machines alone
    BEHIND_KMAP = "hole behind the persistent kmap"
    KMAP = "persistent kmap"
    BOOT_FIXMAP = "boot-time fixmap"
    # Of machines without paging alone
    MEMORY = "physical memory"
    NO_MEMORY = "no memory"


@dataclass(frozen=True, slots=True)
class Region:
    """One region: ``start`` and ``end`` are its first and its last address."""

    name: RegionName
    start: int
    end: int
    what: str

    @property
    def nr_bytes(self) -> int:
        """Bytes of the region."""
        return self.end - self.start + 1

    @property
    def is_hole(self) -> bool:
        """Return whether nothing may ever be mapped there."""
        return "hole" in self.name or self.name == RegionName.NO_MEMORY


Row = tuple[int, RegionName, str]  # first address, name, what it is

_USER: Final[Row] = (0, RegionName.USER, "user space, different in each process")
_UNUSED: Final = "unused"

# From -4 TiB on 4-level and 5-level machines of both eras are alike, but for what is behind cpu_entry_area.
# FIXADDR_START: 646 pages below FIXADDR_TOP (ffffffffff7ff000), those of the vsyscall page included: the
# permanent entries of enum fixed_addresses with Debian's configuration. The document says "variable".
_FIXADDR_START: Final = 0xFFFF_FFFF_FF57_9000
_NEAR_THE_TOP: Final[tuple[Row, ...]] = (
    (0xFFFF_FF00_0000_0000, RegionName.FIXUP_STACKS, "%esp fixup stacks, for returns to 16-bit segments"),
    (0xFFFF_FF80_0000_0000, RegionName.BEHIND_FIXUP_STACKS, _UNUSED),
    (0xFFFF_FFEF_0000_0000, RegionName.EFI, "EFI runtime services, mapped in efi_pgd alone"),
    (0xFFFF_FFFF_0000_0000, RegionName.BEHIND_EFI, _UNUSED),
    (START_KERNEL_MAP, RegionName.KERNEL_TEXT, "kernel text, from physical address 0 on"),
    (0xFFFF_FFFF_A000_0000, RegionName.MODULES, "modules"),
    (0xFFFF_FFFF_FF00_0000, RegionName.BEHIND_MODULES, _UNUSED),
    (_FIXADDR_START, RegionName.FIXMAP, "fixmap: addresses that are constants of the kernel"),
    (VSYSCALL, RegionName.VSYSCALL, "vsyscall page, an old interface to user space"),
    (VSYSCALL + PAGE_SIZE, RegionName.BEHIND_VSYSCALL, _UNUSED),
    (0xFFFF_FFFF_FFE0_0000, RegionName.TOP, _UNUSED),
)
_ENTRY_AREA: Final[Row] = (
    CPU_ENTRY_AREA,
    RegionName.CPU_ENTRY_AREA,
    "what a CPU needs to enter the kernel: its GDT, TSS and stacks",
)
_BEHIND_KASAN: Final[Row] = (0xFFFF_FC00_0000_0000, RegionName.BEHIND_KASAN, _UNUSED)
_LDT: Final = "LDT of the process, remapped for KPTI"
_DIRECT_MAP: Final = "direct map of all memory (page_offset_base)"
_VMALLOC: Final = "vmalloc and ioremap (vmalloc_base)"
_VMEMMAP: Final = "frame descriptors (vmemmap_base)"
_KASAN: Final = "KASAN shadow memory"
_GUARD: Final = "guard hole, also reserved for a hypervisor"
_SIGN_EXTENSION: Final = "addresses whose upper bits are not all alike"

_FOUR_LEVELS_BEHIND_DIRECT_MAP: Final[tuple[Row, ...]] = (
    (0xFFFF_C900_0000_0000, RegionName.VMALLOC, _VMALLOC),
    (0xFFFF_E900_0000_0000, RegionName.BEHIND_VMALLOC, _UNUSED),
    (0xFFFF_EA00_0000_0000, RegionName.VMEMMAP, _VMEMMAP),
    (0xFFFF_EB00_0000_0000, RegionName.BEHIND_VMEMMAP, _UNUSED),
    (0xFFFF_EC00_0000_0000, RegionName.KASAN, _KASAN),
    _BEHIND_KASAN,
    _ENTRY_AREA,
)

_ROWS: Final[dict[tuple[Era, PagingMode], tuple[Row, ...]]] = {
    (Era.LINUX_6_1, PagingMode.LEVEL_4): (
        _USER,
        (0x0000_8000_0000_0000, RegionName.NON_CANONICAL, _SIGN_EXTENSION),
        (0xFFFF_8000_0000_0000, RegionName.GUARD_HOLE, _GUARD),
        (0xFFFF_8800_0000_0000, RegionName.LDT, _LDT),
        (0xFFFF_8880_0000_0000, RegionName.DIRECT_MAP, _DIRECT_MAP),
        (0xFFFF_C880_0000_0000, RegionName.BEHIND_DIRECT_MAP, _UNUSED),
        *_FOUR_LEVELS_BEHIND_DIRECT_MAP,
        (0xFFFF_FE80_0000_0000, RegionName.BEHIND_CPU_ENTRY_AREA, _UNUSED),
        *_NEAR_THE_TOP,
    ),
    (Era.LINUX_6_1, PagingMode.LEVEL_5): (
        _USER,
        (0x0100_0000_0000_0000, RegionName.NON_CANONICAL, _SIGN_EXTENSION),
        (0xFF00_0000_0000_0000, RegionName.GUARD_HOLE, _GUARD),
        (0xFF10_0000_0000_0000, RegionName.LDT, _LDT),
        (0xFF11_0000_0000_0000, RegionName.DIRECT_MAP, _DIRECT_MAP),
        (0xFF91_0000_0000_0000, RegionName.BEHIND_DIRECT_MAP, _UNUSED),
        (0xFFA0_0000_0000_0000, RegionName.VMALLOC, _VMALLOC),
        (0xFFD2_0000_0000_0000, RegionName.BEHIND_VMALLOC, _UNUSED),
        (0xFFD4_0000_0000_0000, RegionName.VMEMMAP, _VMEMMAP),
        (0xFFD6_0000_0000_0000, RegionName.BEHIND_VMEMMAP, _UNUSED),
        (0xFFDF_0000_0000_0000, RegionName.KASAN, _KASAN),
        _BEHIND_KASAN,
        _ENTRY_AREA,
        (0xFFFF_FE80_0000_0000, RegionName.BEHIND_CPU_ENTRY_AREA, _UNUSED),
        *_NEAR_THE_TOP,
    ),
    (Era.LECTURE, PagingMode.LEVEL_4): (
        _USER,
        (0x0000_8000_0000_0000, RegionName.NON_CANONICAL, _SIGN_EXTENSION),
        (0xFFFF_8000_0000_0000, RegionName.GUARD_HOLE, _GUARD),
        (0xFFFF_8800_0000_0000, RegionName.DIRECT_MAP, _DIRECT_MAP),
        (0xFFFF_C800_0000_0000, RegionName.BEHIND_DIRECT_MAP, _UNUSED),
        *_FOUR_LEVELS_BEHIND_DIRECT_MAP,
        (0xFFFF_FE80_0000_0000, RegionName.LDT, _LDT),
        *_NEAR_THE_TOP,
    ),
}

# --- 32 bits ------------------------------------------------------------------------------------------------

PGD_SHIFT_32BIT: Final = 22
_PGD_SPAN: Final = 1 << PGD_SHIFT_32BIT  # bytes that one entry of the top table maps: PMD_SIZE, folded
NR_CPUS_32BIT: Final = 8  # CONFIG_NR_CPUS of a 32-bit kernel, by default
VMALLOC_RESERVE: Final = 128 * MIB  # __VMALLOC_RESERVE
VMALLOC_OFFSET: Final = 8 * MIB
_VMALLOC_GAP: Final = 2 * PAGE_SIZE  # between vmalloc and what is behind it
NR_KMAP_PAGES: Final = 1024  # LAST_PKMAP without PAE: one table
FIXADDR_TOP_32BIT: Final = 0xFFFF_F000
# enum fixed_addresses of 6.1 without PAE: the hole at the top, two consoles, the local APIC, 64 I/O APICs, 16
# places for kmap_local on each of 8 CPUs, PCI, two for ACPI errors; then 512 boot-time pages and a test.
_NR_FIXED: Final = 199
_NR_FIXED_IN_ALL: Final = _NR_FIXED + 512 + 1
_FIXADDR_START_32BIT: Final = FIXADDR_TOP_32BIT - _NR_FIXED * PAGE_SIZE
_FIXADDR_BOOT_START_32BIT: Final = FIXADDR_TOP_32BIT - _NR_FIXED_IN_ALL * PAGE_SIZE
_ENTRY_AREA_BYTES_32BIT: Final = entry_area_pages("6.1", PagingMode.BITS_32, NR_CPUS_32BIT) * PAGE_SIZE
MIN_LOWMEM: Final = 64 * MIB  # what the kernel itself needs of it


def _down(address: int) -> int:
    return address & -_PGD_SPAN


@cache
def _top_32bit(era: Era) -> tuple[Row, ...]:
    """Return the rows from the persistent kmap on, which do not depend on page_offset or memory."""
    fixmap: tuple[Row, ...] = (
        (_FIXADDR_BOOT_START_32BIT, RegionName.BOOT_FIXMAP, "fixmap of early_ioremap, unused after boot"),
        (_FIXADDR_START_32BIT, RegionName.FIXMAP, "fixmap: addresses that are constants of the kernel"),
        (FIXADDR_TOP_32BIT, RegionName.TOP, _UNUSED),
    )
    kmap_what = "persistent kmap: frames above lowmem, one by one"
    kmap_bytes = NR_KMAP_PAGES * PAGE_SIZE
    if era == Era.LECTURE:
        kmap = _down(_FIXADDR_BOOT_START_32BIT - kmap_bytes - PAGE_SIZE)
        return (
            (kmap, RegionName.KMAP, kmap_what),
            (kmap + kmap_bytes, RegionName.BEHIND_KMAP, _UNUSED),
            *fixmap,
        )
    entry_area = _down(_FIXADDR_BOOT_START_32BIT - _ENTRY_AREA_BYTES_32BIT)
    ldt = _down(entry_area - PAGE_SIZE)
    kmap = _down(ldt - PAGE_SIZE)
    return (
        (kmap, RegionName.KMAP, kmap_what),
        (ldt, RegionName.LDT, _LDT),
        (entry_area, RegionName.CPU_ENTRY_AREA, _ENTRY_AREA[2]),
        (entry_area + _ENTRY_AREA_BYTES_32BIT, RegionName.BEHIND_CPU_ENTRY_AREA, _UNUSED),
        *fixmap,
    )


def max_lowmem_bytes(era: str, page_offset: int = DEFAULT_PAGE_OFFSET) -> int:
    """Return how much memory a 32-bit kernel maps directly at most: MAXMEM.

    It keeps 128 MiB for vmalloc and what is above: of the whole space in the lecture's kernel (896 MiB), of the
    space below the persistent kmap in 6.1 (8 KiB less than 880 MiB). Raises ValueError for a bad page_offset.
    """
    if page_offset % _PGD_SPAN or not 0 < page_offset < 4 * GIB:
        raise ValueError(
            f"page_offset: {page_offset:#x} is not a multiple of {_PGD_SPAN // MIB} MiB below 4 GiB"
        )
    number = era_number(era)
    behind = 4 * GIB if number == Era.LECTURE else _top_32bit(number)[0][0] - _VMALLOC_GAP
    maximum = behind - page_offset - VMALLOC_RESERVE
    if maximum < MIN_LOWMEM:
        raise ValueError(
            f"page_offset: {page_offset:#x} leaves {maximum // MIB} MiB of lowmem, less than {MIN_LOWMEM // MIB}"
        )
    return maximum


def _rows_32bit(era: str, page_offset: int, memory_bytes: int | None) -> tuple[Row, ...]:
    lowmem = max_lowmem_bytes(era, page_offset)
    if memory_bytes is not None:
        lowmem = min(lowmem, memory_bytes)
    top = _top_32bit(era_number(era))
    behind = page_offset + lowmem
    return (
        (0, RegionName.USER, _USER[2]),
        (page_offset, RegionName.DIRECT_MAP, "lowmem: the memory that is mapped directly"),
        (behind, RegionName.BEHIND_DIRECT_MAP, "VMALLOC_OFFSET, to catch accesses behind lowmem"),
        (behind + VMALLOC_OFFSET, RegionName.VMALLOC, "vmalloc and ioremap, modules too"),
        (top[0][0] - _VMALLOC_GAP, RegionName.BEHIND_VMALLOC, _UNUSED),
        *top,
    )


# --- all modes ----------------------------------------------------------------------------------------------


def era_number(era: str) -> Era:
    """Return the value of Knob.ERA. Raises ValueError for an unknown era."""
    if era not in ERAS:
        raise ValueError(f"era: {era!r} is none of {', '.join(ERAS)}")
    return ERAS[era]


def _rows(era: str, mode: PagingMode, page_offset: int, memory_bytes: int | None) -> tuple[Row, ...]:
    number = era_number(era)
    if mode == PagingMode.BITS_32:
        return _rows_32bit(era, page_offset, memory_bytes)
    if mode == PagingMode.NONE:
        memory: Row = (0, RegionName.MEMORY, "physical memory, all programs' and the kernel's")
        if memory_bytes is None:
            return (memory,)
        return (memory, (memory_bytes, RegionName.NO_MEMORY, "nothing answers there"))
    if (number, mode) not in _ROWS:
        raise ValueError(f"era: {era} has no {PAGING_MODES[mode].name} paging")
    return _ROWS[number, mode]


def address_bits(mode: PagingMode) -> int:
    """Return the width of the addresses that a memory map covers, non-canonical ones included."""
    if mode in (PagingMode.LEVEL_4, PagingMode.LEVEL_5):
        return ADDRESS_BITS
    return PAGING_MODES[mode].linear_bits


@cache
def regions(
    era: str, mode: PagingMode, page_offset: int = DEFAULT_PAGE_OFFSET, memory_bytes: int | None = None
) -> tuple[Region, ...]:
    """Return all regions in ascending order: the first begins at 0, each at the end of the one before.

    ``page_offset`` is where a 32-bit kernel's space begins, ``memory_bytes`` what the machine has (None: more
    than a 32-bit kernel can map); 64-bit maps depend on neither. Raises ValueError for what no kernel has.
    """
    return tuple(_joined(_rows(era, mode, page_offset, memory_bytes), 1 << address_bits(mode)))


def _joined(rows: tuple[Row, ...], behind: int) -> Iterator[Region]:
    starts = [row[0] for row in rows[1:]] + [behind]
    for (start, name, what), following in zip(rows, starts, strict=True):
        yield Region(name, start, following - 1, what)


def region_of(
    address: int,
    era: str,
    mode: PagingMode,
    page_offset: int = DEFAULT_PAGE_OFFSET,
    memory_bytes: int | None = None,
) -> Region:
    """Return the region of an unsigned address. Raises ValueError if it is wider than the mode's."""
    bits = address_bits(mode)
    if not 0 <= address < 1 << bits:
        raise ValueError(
            f"address: {address:#x} is outside the {bits} bits of {PAGING_MODES[mode].name} paging"
        )
    found = regions(era, mode, page_offset, memory_bytes)
    return found[bisect_right(found, address, key=lambda region: region.start) - 1]


def find_region(
    name: RegionName,
    era: str,
    mode: PagingMode,
    page_offset: int = DEFAULT_PAGE_OFFSET,
    memory_bytes: int | None = None,
) -> Region:
    """Return the region of that name. Raises KeyError if the map has none."""
    for region in regions(era, mode, page_offset, memory_bytes):
        if region.name == name:
            return region
    raise KeyError(name)


def signed(address: int) -> int:
    """Return an unsigned address as kernels know it: the upper half of the 64-bit space is negative."""
    if not 0 <= address < 1 << ADDRESS_BITS:
        raise ValueError(f"address: {address:#x} is not one of {ADDRESS_BITS} bits")
    return to_signed(address)


def task_size(mode: PagingMode, page_offset: int, memory_bytes: int) -> int:
    """Return the end of user space: 47 bits less a page, also of 5 levels unless a program asks for more.

    Linux: arch/x86/include/asm/page_64_types.h (TASK_SIZE_MAX, DEFAULT_MAP_WINDOW), page_32_types.h.
    """
    if mode == PagingMode.NONE:
        return memory_bytes
    if mode == PagingMode.BITS_32:
        return page_offset
    return (1 << USER_BITS) - PAGE_SIZE
