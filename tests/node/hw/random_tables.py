"""Random page tables, registers and accesses: the cases on which page walks are compared.

A case is a few dozen frames of tables, and accesses to them in several *rounds*, each with registers of its own.
Tables are made top down. Each has a handful of entries, and addresses are drawn by going down through
those, so that most accesses get far:

    root --mostly: a table of the next level, now and then one that others lead to already
         --else:   a page (where the level can map one), nothing, or an entry with PS that may not have it

Entries that lead to tables mostly grant rights, pages grant anything. Now and then a reserved bit is set. In half
of the cases, the calm ones, little goes wrong: a fault drops what is cached, and caches are to be seen too.
Pages lie behind the tables, anywhere in the physical address space, so no access changes a table.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Final

from tests.models.paging import (
    GIB,
    KEY_SHIFT,
    KIB,
    MIB,
    PAT_LARGE,
    PCD,
    PS,
    PWT,
    RW,
    US,
    WIDEST,
    XD,
    A,
    Access,
    D,
    G,
    P,
    Registers,
    page_bytes_of,
    reserved_bits,
)

PAGE: Final = 4096
NR_FRAMES: Final = 48  # of tables
NR_ENTRIES: Final = 4  # of a table that are not empty
MAX_PAGES_HIGH: Final = 1 << 20  # of 32-bit paging
WORD: Final = (1 << 64) - 1
IGNORED_HIGH: Final = ((1 << 59) - 1) & ~((1 << WIDEST) - 1)
IGNORED_LOW: Final = 0b111 << 9
NR_FAVOURITES: Final = 16  # addresses of a case that are used again and again
KINDS: Final = tuple(Access)
GIGANTIC_LEVEL: Final = 3  # whose entries map 1 GiB
PCIDS: Final = (0, 1, 0xABC)
EIGHT: Final = 8  # accesses are to words of 8 bytes


class Shape(Enum):
    """Paging modes as their number of levels."""

    BITS_32 = 2
    LEVEL_4 = 4
    LEVEL_5 = 5


@dataclass
class Round:
    """Accesses under one setting of the registers."""

    registers: Registers
    accesses: list[tuple[int, Access]]


@dataclass
class Case:
    """Tables and what is done to them."""

    registers: Registers  # of all rounds, as far as they say nothing of protection
    entries: dict[int, int]  # by physical address; others are 0
    root: int
    rounds: list[Round]
    gigantic: set[int] = field(default_factory=set)  # addresses of entries of level 3 with PS


@dataclass
class TableMaker:
    """Makes the tables of one case. Frame 0 stays empty, frame 1 is the top-level table."""

    chance: random.Random
    registers: Registers
    entries: dict[int, int] = field(default_factory=dict)
    indexes: dict[int, list[int]] = field(default_factory=dict)  # by table: those of its entries
    levels: dict[int, list[int]] = field(default_factory=dict)  # by level: its tables
    below: dict[int, int] = field(default_factory=dict)  # by entry: the table it leads to
    gigantic: set[int] = field(default_factory=set)
    nr_frames: int = 1
    calmness: int = 1

    @property
    def entry_bytes(self) -> int:
        return 4 if self.registers.nr_levels == 2 else 8

    def one_in(self, n: int) -> bool:
        return self.chance.getrandbits(16) % n == 0

    def goes_wrong(self, n: int) -> bool:
        """Return True once in ``n``, in calm cases less: those see what is cached at work."""
        return self.one_in(n * self.calmness)

    def make_table(self, level: int) -> int:
        """Return a new table of ``level``, with all that is below it."""
        table = self.nr_frames * PAGE
        self.nr_frames += 1
        self.levels.setdefault(level, []).append(table)
        per_table = PAGE // self.entry_bytes
        # The last entries of the top-level table are left to the harness.
        highest = per_table - 3 if level == self.registers.nr_levels else per_table - 1
        edges = (0, per_table // 2 - 1, per_table // 2, highest)
        # All places are drawn before anything below is made.
        places = {
            self.chance.choice(edges) if self.one_in(4) else self.chance.randrange(highest + 1)
            for _ in range(NR_ENTRIES)
        }
        self.indexes[table] = sorted(places)
        for index in self.indexes[table]:
            paddr = table + index * self.entry_bytes
            self.entries[paddr] = self.make_entry(level, paddr)
        return table

    def make_entry(self, level: int, paddr: int) -> int:
        """Return an entry for a table of ``level``; what it leads to is made too."""
        bits = self.chance.getrandbits(8 * self.entry_bytes)
        if self.goes_wrong(16):
            return bits & ~P  # a swap entry, or anything
        wants_table = level > 1 and not (self.goes_wrong(24) if level > 3 else self.one_in(4))
        entry = P | bits & (A | D | IGNORED_LOW)
        if self.one_in(8):
            entry |= bits & (PWT | PCD | G)
        if self.entry_bytes == EIGHT:
            entry |= bits & (IGNORED_HIGH | (0xF << KEY_SHIFT))
        entry |= self.rights(mostly=16 if wants_table else 4)
        if level > 1 and not wants_table:
            entry |= PS
        if page_bytes_of(self.registers, level, entry) is None:
            # A table; also where PS means nothing (32-bit without CR4.PSE) or is forbidden.
            table = self.some_table(level - 1)
            self.below[paddr] = table
            entry |= table
        else:
            entry |= self.some_page(level, entry)
            if level == GIGANTIC_LEVEL:
                self.gigantic.add(paddr)
        if self.goes_wrong(32):
            entry |= self.a_reserved_bit(level, entry)
        return entry

    def rights(self, *, mostly: int) -> int:
        """Return R/W, U/S and XD, each withheld once in ``mostly``."""
        entry = 0 if self.goes_wrong(mostly) else RW
        entry |= 0 if self.goes_wrong(mostly) else US
        # XD is reserved if EFER.NXE is clear, so there it must be rarer.
        forbids = self.goes_wrong(mostly) and (self.registers.nxe or self.one_in(8))
        return entry | (XD if forbids and self.entry_bytes == EIGHT else 0)

    def some_table(self, level: int) -> int:
        """Return a table of ``level``: a new one, unless there are enough."""
        known = self.levels.get(level, [])
        if known and (self.nr_frames + level > NR_FRAMES or self.one_in(3)):
            return self.chance.choice(known)
        return self.make_table(level)

    def some_page(self, level: int, entry: int) -> int:
        """Return the address bits, and PAT, of an entry that maps a page."""
        page_bytes = page_bytes_of(self.registers, level, entry)
        if page_bytes == 4 * KIB:
            highest = (
                MAX_PAGES_HIGH if self.entry_bytes != EIGHT else 1 << (self.registers.physical_bits - 12)
            )
            pat = PS if self.one_in(4) else 0
            return self.chance.randrange(NR_FRAMES * 2, highest) * PAGE | pat
        pat = PAT_LARGE if self.one_in(4) else 0
        if page_bytes == 4 * MIB:
            high = (
                self.chance.getrandbits(min(self.registers.physical_bits, 40) - 32) if self.one_in(2) else 0
            )
            return self.chance.randrange(1, 1 << 10) << 22 | high << 13 | pat
        assert page_bytes in (2 * MIB, GIB)
        return self.chance.randrange(1, (1 << self.registers.physical_bits) // page_bytes) * page_bytes | pat

    def a_reserved_bit(self, level: int, entry: int) -> int:
        """Return one of the bits that the entry must not have, or 0 if there are none."""
        reserved = reserved_bits(self.registers, level, entry)
        places = [bit for bit in range(64) if reserved >> bit & 1]
        return 1 << self.chance.choice(places) if places else 0

    def some_address(self, root: int) -> int:
        """Return an address, a multiple of 8, that most likely leads somewhere."""
        nr_levels = self.registers.nr_levels
        index_bits = 10 if nr_levels == 2 else 9
        vaddr = 0
        table: int | None = root
        for level in range(nr_levels, 0, -1):
            index = self.chance.getrandbits(index_bits)
            if table is not None and not self.goes_wrong(32):
                index = self.chance.choice(self.indexes[table])
            if level == nr_levels:
                index = min(index, (1 << index_bits) - 3)
            vaddr = vaddr << index_bits | index
            if table is not None:
                table = self.below.get(table + index * self.entry_bytes)
        vaddr = vaddr << 12 | self.chance.getrandbits(9) << 3
        if nr_levels == 2:
            return vaddr
        linear_bits = 12 + 9 * nr_levels
        if vaddr >> (linear_bits - 1):
            vaddr |= WORD & ~((1 << linear_bits) - 1)
        return vaddr

    def a_relative(self, vaddr: int) -> int:
        """Return, in place of an address that may be cached, most often itself.

        Else its neighbour, which no smaller page holds with it, or what one wrong bit makes of it: not canonical.
        """
        if self.one_in(8):
            return vaddr ^ 1 << self.chance.choice((12, 13, 20, 21))
        if self.one_in(32) and self.registers.nr_levels > 2:
            return vaddr ^ 1 << self.chance.randrange(11 + 9 * self.registers.nr_levels, 64)
        return vaddr


def random_registers(chance: random.Random, shape: Shape, physical_bits: int, cr3: int) -> Registers:
    """Return registers of a mode; CR0.PG, and what the mode needs, are set."""
    flags = chance.getrandbits(16)
    is_long = shape is not Shape.BITS_32
    return Registers(
        cr3=cr3,
        pse=bool(flags & 1) or is_long,
        pae=is_long,
        pge=bool(flags & 2),
        pcide=is_long and bool(flags & 16),
        la57=shape is Shape.LEVEL_5,
        lme=is_long,
        nxe=is_long and flags >> 2 & 3 != 0,
        physical_bits=physical_bits,
    )


def random_protection(chance: random.Random, registers: Registers) -> Registers:
    """Return ``registers`` with other values of all that protects, and that changes without a flush."""
    flags = chance.getrandbits(16)
    return replace(
        registers,
        cr3=registers.cr3 | (chance.choice(PCIDS) if registers.pcide else 0),
        wp=bool(flags & 1),
        smep=bool(flags & 2),
        smap=bool(flags & 4),
        pke=bool(flags & 8),
        ac=bool(flags & 16),
        cpl=3 if flags & 32 else 0,
        # Half of all bits set would forbid most; three draws leave one in eight.
        pkru=chance.getrandbits(32) & chance.getrandbits(32) & chance.getrandbits(32),
    )


def random_case(
    chance: random.Random, registers: Registers, *, nr_rounds: int, accesses_per_round: int
) -> Case:
    """Return a case; what ``registers`` says of protection holds for no round."""
    maker = TableMaker(chance, registers, calmness=chance.choice((1, 8)))
    root = maker.make_table(registers.nr_levels)
    assert maker.nr_frames <= NR_FRAMES
    # Half of the addresses return, within a round and in every round, so that what is cached matters.
    pool = [maker.some_address(root) for _ in range(NR_FAVOURITES)]
    rounds = []
    for _ in range(nr_rounds):
        accesses = [
            (
                maker.a_relative(chance.choice(pool)) if maker.one_in(2) else maker.some_address(root),
                chance.choice(KINDS),
            )
            for _ in range(accesses_per_round)
        ]
        rounds.append(Round(random_protection(chance, replace(registers, cr3=root)), accesses))
    return Case(registers, maker.entries, root, rounds, maker.gigantic)


def random_cases(
    seed: str, shape: Shape, physical_bits: int, *, nr_accesses: int, has_1gib_pages: bool = True
) -> Iterator[Case]:
    """Yield cases until they make ``nr_accesses`` in all: 4 rounds of 64 each."""
    chance = random.Random(seed)  # noqa: S311 # the same in every run, no secret
    nr_rounds, accesses_per_round = 4, 64
    for _ in range(0, nr_accesses, nr_rounds * accesses_per_round):
        registers = random_registers(chance, shape, physical_bits, PAGE)
        registers = replace(registers, has_1gib_pages=has_1gib_pages)
        yield random_case(chance, registers, nr_rounds=nr_rounds, accesses_per_round=accesses_per_round)
