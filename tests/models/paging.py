"""How an x86 processor translates an address, read from the manual rule by rule: no caches, no cleverness.

Intel SDM volume 3, chapter 4. Each function here is one of its tables or lists:

    reserved_bits         tables 4-4 to 4-6 (32-bit) and 4-15 to 4-20 (4- and 5-level), the rows "reserved"
    is_allowed            4.6.1, the list of what each kind of access may do
    error_code            figure 4-12 and the list under it
    translate             4.3 (32-bit), 4.5 (4- and 5-level), 4.8 (accessed and dirty), 4.5.1 (canonical)

An entry that a walk goes through gets A, also when the walk ends in a fault further down; the entry that maps
the page gets A, and D for a write, only if the access is allowed. The manual leaves room there (4.8 says
"whenever the processor uses an entry"); this is what QEMU does, and what real processors were seen to do.

Legacy PAE paging (three levels) is not here: neither Linux on x86-64 nor its 32-bit lecture form uses it.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Final, Protocol

P: Final = 1 << 0
RW: Final = 1 << 1
US: Final = 1 << 2
PWT: Final = 1 << 3
PCD: Final = 1 << 4
A: Final = 1 << 5
D: Final = 1 << 6
PS: Final = 1 << 7  # PAT in an entry that maps a 4 KiB page
PAT_4KIB: Final = 1 << 7
G: Final = 1 << 8
PAT_LARGE: Final = 1 << 12
XD: Final = 1 << 63
KEY_SHIFT: Final = 59
KEY_MASK: Final = 0xF

WIDEST: Final = 52  # no processor has a wider physical address
GP: Final = 13
PF: Final = 14
KIB: Final = 1 << 10
MIB: Final = 1 << 20
GIB: Final = 1 << 30


class Access(Enum):
    """What the processor wants; the values are node.hw.paging's AccessKind."""

    READ = 0
    WRITE = 1
    EXECUTE = 2


class Memory(Protocol):
    """Where page tables are: an entry of 8 bytes (4 in 32-bit paging) at each physical address."""

    def __getitem__(self, paddr: int) -> int: ...
    def __setitem__(self, paddr: int, entry: int) -> None: ...


@dataclass(frozen=True)
class Registers:
    """What a translation depends on beside the tables. CR0.PE is set; EFER.LMA is PG and LME."""

    cr3: int = 0
    pg: bool = True
    wp: bool = True
    pse: bool = False
    pae: bool = True
    pge: bool = False
    pcide: bool = False
    smep: bool = False
    smap: bool = False
    pke: bool = False
    la57: bool = False
    lme: bool = True
    nxe: bool = True
    pkru: int = 0
    cpl: int = 3
    ac: bool = False  # EFLAGS.AC
    physical_bits: int = WIDEST
    has_1gib_pages: bool = True

    @property
    def nr_levels(self) -> int:
        """Return how many entries a translation of a 4 KiB page goes through; 0 without paging."""
        if not self.pg:
            return 0
        if not self.pae:
            return 2
        if not self.lme:
            raise ValueError("PAE paging without long mode is not modelled")
        return 5 if self.la57 else 4

    @property
    def is_user(self) -> bool:
        """Return whether accesses are user-mode accesses."""
        return self.cpl == 3


@dataclass(frozen=True)
class Translation:
    """What a page-table walk found; bits of rights are combined over all levels."""

    paddr: int
    page_bytes: int
    memory_type_index: int  # into IA32_PAT: PAT, PCD, PWT
    is_global: bool
    writable: bool
    user: bool
    executable: bool
    key: int


@dataclass(frozen=True)
class Fault:
    """A #GP (``cr2`` stays as it was: None) or a #PF."""

    vector: int
    cr2: int | None
    error_code: int


@dataclass
class Walk:
    """One translation under way: what it wants, and the entries it has used."""

    registers: Registers
    vaddr: int
    access: Access
    used: list[int] = field(default_factory=list)  # physical addresses, top down

    def fault(self, *, present: bool, reserved: bool = False, key: bool = False) -> Fault:
        """Return the page fault, with the error code of figure 4-12."""
        registers = self.registers
        fetch_is_told = registers.smep or (registers.pae and registers.nxe)
        bits = (
            present,
            self.access is Access.WRITE,
            registers.is_user,
            reserved,
            self.access is Access.EXECUTE and fetch_is_told,
            key,
        )
        return Fault(PF, self.vaddr, sum(1 << position for position, bit in enumerate(bits) if bit))


# --- the tables of entry formats ------------------------------------------------------------------------


def bits_from_to(low: int, high: int) -> int:
    """Return the mask of bits ``low`` to ``high``, both in it; 0 if there are none."""
    return sum(1 << bit for bit in range(low, high + 1))


def page_bytes_of(registers: Registers, level: int, entry: int) -> int | None:
    """Return the size of the page that a present entry maps, or None if it refers to another table.

    ``level`` counts from the page: 1 is a page-table entry (PTE), 2 a PDE, 3 a PDPTE, 4 PML4E, 5 PML5E.
    """
    if level == 1:
        return 4 * KIB
    if not entry & PS:
        return None
    if registers.nr_levels == 2:
        return 4 * MIB if registers.pse else None
    if level == 2:
        return 2 * MIB
    if level == 3 and registers.has_1gib_pages:
        return GIB
    return None


def reserved_bits(registers: Registers, level: int, entry: int) -> int:
    """Return the bits that must be 0 in a present entry."""
    width = registers.physical_bits
    page_bytes = page_bytes_of(registers, level, entry)
    if registers.nr_levels == 2:
        # Only a PDE that maps 4 MiB has any: bits 20:13 are bits 39:32 of the address, as far as there are.
        if page_bytes == 4 * MIB:
            return bits_from_to(min(width, 40) - 19, 21)
        return 0
    reserved = bits_from_to(width, 51)
    if not registers.nxe:
        reserved |= XD
    if level >= 4 or (level == 3 and not registers.has_1gib_pages):
        reserved |= PS
    if page_bytes == GIB:
        reserved |= bits_from_to(13, 29)
    if page_bytes == 2 * MIB:
        reserved |= bits_from_to(13, 20)
    return reserved


def page_address(registers: Registers, entry: int, page_bytes: int) -> int:
    """Return where the page starts that an entry maps."""
    if page_bytes == 4 * MIB:
        return (entry & bits_from_to(22, 31)) | (((entry >> 13) & 0xFF) << 32)
    return entry & bits_from_to(0, registers.physical_bits - 1) & ~(page_bytes - 1)


def table_address(registers: Registers, entry: int) -> int:
    """Return where the table starts that an entry, or CR3, refers to."""
    highest = 31 if registers.nr_levels == 2 else registers.physical_bits - 1
    return entry & bits_from_to(12, highest)


# --- the list of rights ---------------------------------------------------------------------------------


def is_denied_by_key(registers: Registers, page: Translation, access: Access) -> bool:
    """Return whether PKRU forbids a data access to a user-mode address (4.6.2)."""
    if registers.nr_levels < 4 or not registers.pke or not page.user or access is Access.EXECUTE:
        return False
    access_disable = registers.pkru >> (2 * page.key) & 1
    write_disable = registers.pkru >> (2 * page.key + 1) & 1
    if access_disable:
        return True
    return bool(access is Access.WRITE and write_disable and (registers.is_user or registers.wp))


def is_allowed(registers: Registers, page: Translation, access: Access) -> bool:
    """Return what the list of 4.6.1 says, protection keys apart."""
    if registers.is_user:
        if not page.user:
            return False
        return {
            Access.READ: True,
            Access.WRITE: page.writable,
            Access.EXECUTE: page.executable,
        }[access]
    if access is Access.EXECUTE:
        return page.executable and not (page.user and registers.smep)
    if page.user and registers.smap and not registers.ac:
        return False
    return access is Access.READ or page.writable or not registers.wp


# --- translation ----------------------------------------------------------------------------------------


def is_canonical(registers: Registers, vaddr: int) -> bool:
    """Return whether all bits above the linear width equal its highest bit (4.5.1)."""
    highest_bit = 56 if registers.nr_levels == 5 else 47
    above = vaddr >> highest_bit
    return above in (0, bits_from_to(0, 63 - highest_bit))


def indexes(registers: Registers, vaddr: int) -> Iterator[tuple[int, int]]:
    """Yield each level, top down, and the index that ``vaddr`` has into its table."""
    index_bits = 10 if registers.nr_levels == 2 else 9
    for level in range(registers.nr_levels, 0, -1):
        shift = 12 + index_bits * (level - 1)
        yield level, vaddr >> shift & ((1 << index_bits) - 1)


def find_page(walk: Walk, memory: Memory) -> Translation | Fault:
    """Follow the tables to the page; every entry on the way but the last gets its A."""
    registers = walk.registers
    entry_bytes = 4 if registers.nr_levels == 2 else 8
    table = table_address(registers, registers.cr3)
    found = Translation(0, 0, 0, False, True, True, True, 0)
    for level, index in indexes(registers, walk.vaddr):
        paddr = table + index * entry_bytes
        entry = memory[paddr]
        if not entry & P:
            return walk.fault(present=False)
        if entry & reserved_bits(registers, level, entry):
            return walk.fault(present=True, reserved=True)
        walk.used.append(paddr)
        found = replace(
            found,
            writable=found.writable and bool(entry & RW),
            user=found.user and bool(entry & US),
            executable=found.executable and not entry & XD,
        )
        page_bytes = page_bytes_of(registers, level, entry)
        if page_bytes is not None:
            return mapped_page(walk, found, entry, page_bytes)
        memory[paddr] = entry | A
        table = table_address(registers, entry)
    raise AssertionError("a page-table entry always maps a page")


def mapped_page(walk: Walk, found: Translation, entry: int, page_bytes: int) -> Translation:
    """Complete a translation with what only the last entry says."""
    pat = entry & (PAT_4KIB if page_bytes == 4 * KIB else PAT_LARGE)
    bits = (entry & PWT, entry & PCD, pat)
    return replace(
        found,
        paddr=page_address(walk.registers, entry, page_bytes) + walk.vaddr % page_bytes,
        page_bytes=page_bytes,
        memory_type_index=sum(1 << position for position, bit in enumerate(bits) if bit),
        is_global=walk.registers.pge and bool(entry & G),
        key=entry >> KEY_SHIFT & KEY_MASK if walk.registers.nr_levels >= 4 else 0,
    )


def translate(memory: Memory, registers: Registers, vaddr: int, access: Access) -> Translation | Fault:
    """Translate one access, setting A and D in ``memory`` (physical address -> entry).

    ``vaddr`` is unsigned, below 2**32 in 32-bit paging. A table that an entry places outside the memory is
    the memory's own error.
    """
    if registers.nr_levels == 0:
        return Translation(vaddr, 4 * KIB, 0, False, True, True, True, 0)
    if registers.nr_levels >= 4 and not is_canonical(registers, vaddr):
        return Fault(GP, None, 0)
    walk = Walk(registers, vaddr, access)
    page = find_page(walk, memory)
    if isinstance(page, Fault):
        return page
    by_key = is_denied_by_key(registers, page, access)
    if by_key or not is_allowed(registers, page, access):
        return walk.fault(present=True, key=by_key)
    last = walk.used[-1]
    memory[last] |= A | (D if access is Access.WRITE else 0)
    return page
