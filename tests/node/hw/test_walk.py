"""The walk against the manual's rules (tests/models/paging.py): every width, bit and right that there is.

Unicorn has one physical width and all features; here are the others, one rule at a time and at random.
"""

from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from typing import Final

import numpy as np
import pytest

from node.counters import HwEvent
from node.hw.memory_type import MemoryType
from node.hw.pte import PFN_MASK
from node.hw.registers import FaultCode, FaultVector
from node.hw.tlb import (
    FRAME_SHIFT,
    PAT_INDEX_MASK,
    PAT_INDEX_SHIFT,
    SIZE_MASK,
    SIZE_SHIFT,
    WORD_PKEY_MASK,
    WORD_PKEY_SHIFT,
    TlbRight,
)
from shared.constants import NIL, PAGE_SHIFT
from shared.jit import COMPILED
from tests.models.paging import (
    GIB,
    GP,
    KEY_SHIFT,
    KIB,
    MIB,
    PF,
    PS,
    RW,
    US,
    XD,
    A,
    Access,
    D,
    Fault,
    P,
    Registers,
    Translation,
    translate,
)
from tests.node.hw.random_tables import NR_FRAMES, PAGE, Case, Round, Shape, random_cases
from tests.node.hw.walk_entries import How, do_walk
from tests.node.hw.walking_machine import Tables, WalkingMachine, signed

pytestmark = pytest.mark.three_ways

NR_RANDOM: Final = 20_000 if COMPILED else 512
ALL: Final = P | RW | US
PAGE_SIZES: Final = {4 * KIB: 0, 2 * MIB: 1, 4 * MIB: 1, GIB: 2}  # PageSize


def assert_same(machine: WalkingMachine, case: Case, how: int = 0) -> int:
    """Run a case on the machine and by the rules; return how many accesses were translated."""
    machine.start(case)
    words = machine.words.copy()
    tables = Tables(words, machine.mode.entry_bytes)
    nr_translations = 0
    for round_ in case.rounds:
        machine.load(round_.registers, keep=not how & How.DROP_CACHED)
        how_here = how if round_.registers.is_user else how & ~How.FAST
        ours = machine.access_all(round_.accesses, how_here)
        for (vaddr, kind), mine in zip(round_.accesses, ours, strict=True):
            found = translate(tables, round_.registers, vaddr, kind)
            expected = found if isinstance(found, Fault) else found.paddr & -PAGE
            assert mine == expected, f"{kind.name} {vaddr:#x}, {round_.registers}"
            nr_translations += isinstance(found, Translation)
    differing = np.flatnonzero(words != machine.words) * machine.mode.entry_bytes
    assert differing.tolist() == []
    return nr_translations


# --- at random ------------------------------------------------------------------------------------------

WIDTHS: Final = [
    (Shape.LEVEL_4, 36, True),
    (Shape.LEVEL_4, 39, False),
    (Shape.LEVEL_4, 52, True),
    (Shape.LEVEL_5, 46, False),
    (Shape.LEVEL_5, 52, True),
    (Shape.BITS_32, 32, True),
    (Shape.BITS_32, 36, True),
    (Shape.BITS_32, 40, True),
]


@pytest.mark.parametrize(("shape", "physical_bits", "has_1gib_pages"), WIDTHS)
def test_random_walks_follow_the_rules(shape: Shape, physical_bits: int, has_1gib_pages: bool) -> None:
    machine = WalkingMachine(shape, physical_bits, has_1gib_pages=has_1gib_pages)
    cases = random_cases(
        f"rules {shape.name} {physical_bits}",
        shape,
        physical_bits,
        nr_accesses=NR_RANDOM,
        has_1gib_pages=has_1gib_pages,
    )
    nr_translations = sum(assert_same(machine, case, How.FAST) for case in cases)
    assert nr_translations > NR_RANDOM / 8


def test_caches_serve_some_of_the_random_walks() -> None:
    machine = WalkingMachine(Shape.LEVEL_4, 46)
    for case in random_cases("caches", Shape.LEVEL_4, 46, nr_accesses=512):
        assert_same(machine, case)
    served = (
        HwEvent.TLB_L1_HIT,
        HwEvent.TLB_L2_HIT,
        HwEvent.ITLB_L1_HIT,
        HwEvent.ITLB_L2_HIT,
        HwEvent.WALK_CACHE_HIT,
    )
    assert all(machine.events(*served))


def word_of(found: Translation, vaddr: int) -> dict[str, int]:
    """Return what a TLB should know of a page."""
    return {
        "frame": (found.paddr - vaddr % found.page_bytes) >> PAGE_SHIFT,
        "size": PAGE_SIZES[found.page_bytes],
        "write": int(found.writable),
        "user": int(found.user),
        "execute": int(found.executable),
        "global": int(found.is_global),
        "memory type index": found.memory_type_index,
        "key": found.key,  # whether CR4.PKE is set or not
    }


def fields_of(word: int) -> dict[str, int]:
    """Return what a TLB entry's word says, by the names of ``word_of``."""
    return {
        "frame": word >> FRAME_SHIFT & PFN_MASK,
        "size": word >> SIZE_SHIFT & SIZE_MASK,
        "write": int(word & TlbRight.WRITE != 0),
        "user": int(word & TlbRight.USER != 0),
        "execute": int(word & TlbRight.EXECUTE != 0),
        "global": int(word & TlbRight.GLOBAL != 0),
        "memory type index": word >> PAT_INDEX_SHIFT & PAT_INDEX_MASK,
        "key": word >> WORD_PKEY_SHIFT & WORD_PKEY_MASK,
    }


@pytest.mark.parametrize("shape", Shape)
def test_a_walk_tells_the_tlb_all_that_the_entries_say(shape: Shape) -> None:
    physical_bits = 40 if shape is Shape.BITS_32 else 52
    machine = WalkingMachine(shape, physical_bits)
    # Nothing is kept of a page that is write-back; here that is index 0 alone.
    machine.state.cpu[0].pat = MemoryType.WB
    nr_translations = 0
    for case in random_cases(f"words {shape.name}", shape, physical_bits, nr_accesses=512):
        machine.start(case)
        tables = Tables(machine.words.copy(), machine.mode.entry_bytes)
        for round_ in case.rounds:
            machine.load(round_.registers, keep=True)
            for vaddr, kind in round_.accesses:
                word = do_walk(machine.state, signed(vaddr), kind.value)
                found = translate(tables, round_.registers, vaddr, kind)
                assert (word == NIL) == isinstance(found, Fault)
                if isinstance(found, Translation):
                    assert fields_of(word) == word_of(found, vaddr)
                    nr_translations += 1
    assert nr_translations > 100


# --- one rule at a time ---------------------------------------------------------------------------------

BASE: Final = {
    Shape.BITS_32: Registers(cr3=PAGE, pse=True, pae=False, lme=False, nxe=False, physical_bits=36),
    Shape.LEVEL_4: Registers(cr3=PAGE, pse=True, physical_bits=46),
    Shape.LEVEL_5: Registers(cr3=PAGE, pse=True, la57=True, physical_bits=52),
}
PAGE_LEVELS: Final = {Shape.BITS_32: (1, 2), Shape.LEVEL_4: (1, 2, 3), Shape.LEVEL_5: (1, 2, 3)}


def straight_path(registers: Registers, page_level: int) -> tuple[dict[int, int], list[int], int]:
    """Return entries, the addresses of those on the way to one page of all rights, and an address in it."""
    nr_levels = registers.nr_levels
    entry_bytes = 4 if nr_levels == 2 else 8
    index_bits = 10 if nr_levels == 2 else 9
    entries: dict[int, int] = {}
    vaddr = 8
    for depth, level in enumerate(range(nr_levels, page_level - 1, -1)):
        index = level + 1
        vaddr |= index << (12 + index_bits * (level - 1))
        leads_to = GIB | (PS if level > 1 else 0) if level == page_level else (depth + 2) * PAGE
        entries[(depth + 1) * PAGE + index * entry_bytes] = leads_to | ALL
    return entries, list(entries), vaddr


def all_kinds(vaddr: int) -> list[tuple[int, Access]]:
    return [(vaddr, kind) for kind in Access]


def flipped_cases(shape: Shape, page_level: int) -> Iterator[Case]:
    """Yield a case for each bit of each entry on the way to a page: that bit is the other way around."""
    base = replace(BASE[shape], smep=True, smap=True, ac=True, pke=True, pkru=0b01_10_00_01_00)
    entries, way, vaddr = straight_path(base, page_level)
    rounds = [Round(replace(base, cpl=cpl), all_kinds(vaddr)) for cpl in (0, 3)]
    bits = 32 if shape is Shape.BITS_32 else 64
    for paddr, bit in product(way, range(bits)):
        is_page = paddr == way[-1]
        in_address = 12 <= bit < min(bits, base.physical_bits)
        if (not is_page and in_address) or (is_page and page_level > 1 and 1 << bit == PS):
            continue  # a table where there is no memory
        yield Case(base, entries | {paddr: entries[paddr] ^ 1 << bit}, PAGE, rounds)


@pytest.mark.parametrize(
    ("shape", "page_level"), [(shape, level) for shape in Shape for level in PAGE_LEVELS[shape]]
)
def test_each_bit_of_each_entry_does_what_the_manual_says(shape: Shape, page_level: int) -> None:
    machine = WalkingMachine(shape, BASE[shape].physical_bits)
    nr_translations = [assert_same(machine, case) for case in flipped_cases(shape, page_level)]
    all_allowed = 5  # but the supervisor's fetch of a user's page, under SMEP
    assert 0 in nr_translations
    assert all_allowed in nr_translations


@pytest.mark.parametrize("shape", Shape)
def test_each_combination_of_rights_and_registers_follows_the_rules(shape: Shape) -> None:
    machine = WalkingMachine(shape, BASE[shape].physical_bits)
    entries, way, vaddr = straight_path(BASE[shape], 1)
    key = 0 if shape is Shape.BITS_32 else 5
    access_disable, write_disable = 1 << 2 * key, 2 << 2 * key
    rounds = [
        Round(
            replace(
                BASE[shape], wp=wp, smep=smep, smap=smap, ac=ac, cpl=cpl, pke=pkru is not None, pkru=pkru or 0
            ),
            all_kinds(vaddr),
        )
        for wp, smep, smap, ac in product((False, True), repeat=4)
        for cpl, pkru in product((0, 3), (None, 0, access_disable, write_disable))
    ]
    for rights in product((0, RW), (0, US), (0, XD) if key else (0,)):
        page = GIB | P | sum(rights) | key << KEY_SHIFT
        case = Case(BASE[shape], entries | {way[-1]: page}, PAGE, rounds)
        assert_same(machine, case)


def test_a_page_cached_before_keys_were_turned_on_has_its_key_afterwards() -> None:
    machine = WalkingMachine(Shape.LEVEL_4, 46)
    before = replace(BASE[Shape.LEVEL_4], pcide=True)  # so that loading CR3 keeps what is cached
    entries, way, vaddr = straight_path(before, 1)
    key = 5
    after = replace(before, pke=True, pkru=1 << 2 * key)
    rounds = [Round(registers, all_kinds(vaddr)) for registers in (before, after)]
    page = entries[way[-1]] | key << KEY_SHIFT
    only_the_fetch = 1
    for how in (0, How.FAST):
        case = Case(before, entries | {way[-1]: page}, PAGE, rounds)
        assert assert_same(machine, case, how) == len(Access) + only_the_fetch


@pytest.mark.parametrize("shape", [Shape.LEVEL_4, Shape.LEVEL_5])
def test_an_address_that_is_not_canonical_finds_nothing_of_the_one_that_is(shape: Shape) -> None:
    machine = WalkingMachine(shape, BASE[shape].physical_bits)
    entries, _, vaddr = straight_path(BASE[shape], 1)
    machine.start(Case(BASE[shape], entries, PAGE, []))
    machine.load(BASE[shape], keep=True)
    wrong = [vaddr ^ 1 << bit for bit in range(11 + 9 * shape.value, 64)]
    accesses = [(address, Access.READ) for other in wrong for address in (vaddr, other)]
    for how in (0, How.FAST):
        assert machine.access_all(accesses, how) == [GIB, Fault(GP, None, 0)] * len(wrong)


def test_the_edges_of_both_canonical_halves_are_translated() -> None:
    machine = WalkingMachine(Shape.LEVEL_4, 46)
    machine.start(Case(BASE[Shape.LEVEL_4], {}, PAGE, []))
    machine.load(BASE[Shape.LEVEL_4], keep=True)
    edges = [(1 << 47) - 8, 1 << 47, (1 << 64) - (1 << 47) - 8, (1 << 64) - (1 << 47)]
    outcomes = machine.access_all([(vaddr, Access.READ) for vaddr in edges], 0)
    vectors = [outcome.vector for outcome in outcomes if isinstance(outcome, Fault)]
    assert vectors == [PF, GP, GP, PF]


def test_a_fault_leaves_a_in_the_entries_above_it_and_none_in_the_page() -> None:
    machine = WalkingMachine(Shape.LEVEL_4, 46)
    entries, way, vaddr = straight_path(BASE[Shape.LEVEL_4], 1)
    machine.start(Case(BASE[Shape.LEVEL_4], entries | {way[-1]: GIB | P | US}, PAGE, []))
    machine.load(BASE[Shape.LEVEL_4], keep=True)
    code = FaultCode.PRESENT | FaultCode.WRITE | FaultCode.USER
    assert machine.access_all([(vaddr, Access.WRITE)], 0) == [Fault(FaultVector.PAGE_FAULT, vaddr, code)]
    assert [int(machine.words[paddr // 8]) & (A | D) for paddr in way] == [A, A, A, 0]


def test_without_paging_an_address_is_physical_and_nothing_is_protected() -> None:
    machine = WalkingMachine(Shape.LEVEL_4, 46)
    registers = replace(BASE[Shape.LEVEL_4], pg=False, cpl=3)
    machine.start(Case(BASE[Shape.LEVEL_4], {}, PAGE, []))
    machine.load(registers, keep=True)
    last = (NR_FRAMES - 1) * PAGE
    assert machine.access_all([(last, kind) for kind in Access], 0) == [last] * len(Access)
