"""Segmentation: the layout of descriptors, Linux's own, and every rule of the manual on loads and accesses."""

from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from node.counters import Request
from node.hw.paging import AccessKind
from node.hw.segments import (
    LINUX_GDT_32,
    LINUX_GDT_64,
    Segment,
    SegmentOutcome,
    SegmentRegister,
    SegmentType,
    Selector32,
    Selector64,
    linux_descriptor,
)
from node.state import State
from tests.models import segments as model
from tests.models.segments import Descriptor
from tests.node.hw.segment_entries import (
    do_in_64bit_mode,
    do_load_code,
    do_load_data,
    do_load_error_code,
    do_load_stack,
    do_segment_access,
    do_segment_base,
    do_segment_dpl,
    do_segment_limit,
    do_segment_type,
)

pytestmark = pytest.mark.three_ways

NAMES = {
    SegmentOutcome.OK: "",
    SegmentOutcome.GENERAL_PROTECTION: model.GP,
    SegmentOutcome.NOT_PRESENT: model.NP,
    SegmentOutcome.STACK_FAULT: model.SS,
}
KINDS = {"read": AccessKind.READ, "write": AccessKind.WRITE, "execute": AccessKind.EXECUTE}
WORDS = st.integers(-(2**63), 2**63 - 1)
# Segments whose ends are near 0, 64 KiB and 4 GiB.
EDGES = [0, 1, 0xF, 0x10, 0xFFFE, 0xFFFF, 0xFFFFE, 0xFFFFF]
DESCRIPTORS = st.builds(
    Descriptor,
    st.integers(0, 2**32 - 1),
    st.sampled_from(EDGES),
    st.integers(0, 255),
    st.integers(0, 15),
)
OFFSETS = st.builds(
    lambda edge, by: min(max(edge + by, 0), 2**32 - 1),
    st.sampled_from([0, 0x10, 0xFFFF, 0x10000, 0xFFFFF, 2**32 - 1]),
    st.integers(-9, 9),
)
SELECTORS = st.integers(0, 2**16 - 1) | st.integers(0, 15)
LEVELS = st.integers(0, 3)


@pytest.fixture(scope="module")
def state() -> State:
    return State(**dict.fromkeys(State.LAYOUT, 1) | {"panic": 4, "request": Request.NR})


def access(
    state: State, register: SegmentRegister, descriptor: int, offset: int, kind: int = 0
) -> SegmentOutcome:
    """Access four bytes through a register outside 64-bit mode."""
    state.request[Request.A0] = descriptor
    state.request[Request.A1] = 4
    state.request[Request.A2] = 0
    return SegmentOutcome(do_segment_access(state, register, offset, kind))


# --- layout ---------------------------------------------------------------------------------------------


@given(WORDS)
@example(-1)
@example(0x00CF9B000000FFFF)
def test_every_field_is_where_the_manual_puts_it(state: State, word: int) -> None:
    bytewise = Descriptor.of(word)
    segment = Segment.decode(word)
    assert segment.encode() == word == bytewise.bytes()
    assert (segment.base, segment.limit) == (bytewise.base, bytewise.limit)
    assert segment.p << 7 | segment.dpl << 5 | segment.s << 4 | segment.type == bytewise.access
    assert segment.g << 3 | segment.db << 2 | segment.l << 1 | segment.avl == bytewise.options
    assert do_segment_base(state, word) == bytewise.base
    assert do_segment_limit(state, word) == bytewise.effective_limit()
    assert do_segment_type(state, word) == bytewise.access & 15
    assert do_segment_dpl(state, word) == bytewise.dpl


@pytest.mark.parametrize(
    ("field", "value", "most"),
    [("base", 2**32, 2**32 - 1), ("limit", 2**20, 2**20 - 1), ("dpl", 4, 3), ("p", -1, 1)],
)
def test_a_field_that_does_not_fit_is_refused(field: str, value: int, most: int) -> None:
    with pytest.raises(ValueError, match=rf"segment\.{field}: {value} is outside 0\.\.{most}"):
        replace(Segment.decode(0), **{field: value}).encode()


# --- Linux's --------------------------------------------------------------------------------------------


def test_linuxs_descriptors_are_these_eight_bytes() -> None:
    assert {selector.name: f"{word:016x}" for selector, word in LINUX_GDT_64.items()} == {
        "KERNEL32_CS": "00cf9b000000ffff",
        "KERNEL_CS": "00af9b000000ffff",
        "KERNEL_DS": "00cf93000000ffff",
        "USER32_CS": "00cffb000000ffff",
        "USER_DS": "00cff3000000ffff",
        "USER_CS": "00affb000000ffff",
    }
    assert {selector.name: f"{word:016x}" for selector, word in LINUX_GDT_32.items()} == {
        "KERNEL_CS": "00cf9a000000ffff",
        "KERNEL_DS": "00cf92000000ffff",
        "USER_CS": "00cffa000000ffff",
        "USER_DS": "00cff2000000ffff",
    }


def test_linuxs_segments_are_flat_and_of_two_levels() -> None:
    for gdt in (LINUX_GDT_64, LINUX_GDT_32):
        for selector, word in gdt.items():
            segment = Segment.decode(word)
            assert segment.is_flat
            assert segment.dpl == selector & 3 == (3 if selector.name.startswith("USER") else 0)


def test_what_holds_offsets_above_its_limit_is_not_flat() -> None:
    data = Segment.decode(LINUX_GDT_32[Selector32.USER_DS])
    assert not replace(data, type=data.type | SegmentType.EXPAND_DOWN).is_flat
    assert not replace(data, base=1).is_flat
    assert not replace(data, g=0).is_flat
    code = Segment.decode(LINUX_GDT_32[Selector32.USER_CS])
    assert replace(code, type=code.type | SegmentType.CONFORMING).is_flat


def test_a_selector_finds_its_descriptor_whatever_its_rpl() -> None:
    assert linux_descriptor(0x30, is_64bit=True) == LINUX_GDT_64[Selector64.USER_CS]
    assert linux_descriptor(0x71, is_64bit=False) == LINUX_GDT_32[Selector32.USER_CS]
    # The null descriptor, an entry that is not one of them, and one of the LDT.
    assert [linux_descriptor(selector, is_64bit=True) for selector in (0, 3, 0x40, 0x34)] == [0, 0, 0, 0]


@pytest.mark.parametrize(
    ("selector", "cpl", "outcome"),
    [
        (Selector64.USER_DS, 3, SegmentOutcome.OK),
        (Selector64.USER_DS, 0, SegmentOutcome.OK),
        (Selector64.KERNEL_DS, 0, SegmentOutcome.OK),
        (Selector64.KERNEL_DS, 3, SegmentOutcome.GENERAL_PROTECTION),
        (Selector64.KERNEL_DS | 3, 0, SegmentOutcome.GENERAL_PROTECTION),
        (Selector64.USER_CS, 3, SegmentOutcome.OK),
        (Selector64.KERNEL_CS, 3, SegmentOutcome.GENERAL_PROTECTION),
        (0, 3, SegmentOutcome.OK),
    ],
)
def test_programs_cannot_load_the_kernels_data(state: State, selector: int, cpl: int, outcome: int) -> None:
    assert do_load_data(state, selector, linux_descriptor(selector, is_64bit=True), cpl) == outcome


def test_programs_cannot_jump_into_the_kernels_code(state: State) -> None:
    levels = {}
    for selector in (
        Selector64.KERNEL_CS,
        Selector64.KERNEL_CS | 3,
        Selector64.USER_CS,
        Selector64.USER32_CS,
    ):
        word = linux_descriptor(selector, is_64bit=True)
        levels[int(selector)] = [
            do_load_code(state, selector, word, cpl, 1) == SegmentOutcome.OK for cpl in (0, 3)
        ]
    assert levels == {0x10: [True, False], 0x13: [False, False], 0x33: [False, True], 0x23: [False, True]}


def test_the_code_segment_decides_between_64_bits_and_compatibility(state: State) -> None:
    modes = {
        word: [do_in_64bit_mode(state, word, is_long) for is_long in (0, 1)] for word in LINUX_GDT_64.values()
    }
    assert [modes[LINUX_GDT_64[selector]] for selector in (Selector64.USER_CS, Selector64.USER32_CS)] == [
        [0, 1],
        [0, 0],
    ]


# --- loads ----------------------------------------------------------------------------------------------


@given(SELECTORS, DESCRIPTORS, LEVELS)
def test_loads_of_data_registers_follow_the_manual(
    state: State, selector: int, d: Descriptor, cpl: int
) -> None:
    outcome = do_load_data(state, selector, d.bytes(), cpl)
    assert NAMES[SegmentOutcome(outcome)] == model.load_data(selector, d, cpl)


@given(SELECTORS, DESCRIPTORS, LEVELS, st.booleans())
def test_loads_of_the_stack_register_follow_the_manual(
    state: State, selector: int, d: Descriptor, cpl: int, is_64bit: bool
) -> None:
    outcome = do_load_stack(state, selector, d.bytes(), cpl, int(is_64bit))
    assert NAMES[SegmentOutcome(outcome)] == model.load_stack(selector, d, cpl, is_64bit=is_64bit)


@given(SELECTORS, DESCRIPTORS, LEVELS, st.booleans())
def test_jumps_follow_the_manual(state: State, selector: int, d: Descriptor, cpl: int, is_long: bool) -> None:
    outcome = do_load_code(state, selector, d.bytes(), cpl, int(is_long))
    assert NAMES[SegmentOutcome(outcome)] == model.load_code(selector, d, cpl, is_long=is_long)


def loaded(access: int, dpl: int) -> int:
    """Return a flat 32-bit descriptor that is present, of these S and type bits."""
    return Descriptor(0, 0xFFFFF, 0x80 | dpl << 5 | access, 0xC).bytes()


# Type, DPL, then for each CPL 0 and 3, with RPL equal to it: DS, SS, CS.
ROWS = [
    ("read-only data", 0x10, 3, ["", model.GP, model.GP], ["", model.GP, model.GP]),
    ("writable data", 0x12, 3, ["", model.GP, model.GP], ["", "", model.GP]),
    ("kernel data", 0x12, 0, ["", "", model.GP], [model.GP, model.GP, model.GP]),
    ("unreadable code", 0x18, 3, [model.GP, model.GP, model.GP], [model.GP, model.GP, ""]),
    ("conforming code of the kernel", 0x1E, 0, ["", model.GP, ""], ["", model.GP, ""]),
    ("conforming code of programs", 0x1E, 3, ["", model.GP, model.GP], ["", model.GP, ""]),
    ("a system segment", 0x0B, 3, [model.GP, model.GP, model.GP], [model.GP, model.GP, model.GP]),
]


@pytest.mark.parametrize("row", ROWS, ids=[row[0] for row in ROWS])
def test_each_kind_of_segment_loads_where_it_belongs(
    state: State, row: tuple[str, int, int, list[str], list[str]]
) -> None:
    _, kind, dpl, of_kernel, of_program = row
    word = loaded(kind, dpl)
    for cpl, expected in ((0, of_kernel), (3, of_program)):
        outcomes = (
            do_load_data(state, 0x20 | cpl, word, cpl),
            do_load_stack(state, 0x20 | cpl, word, cpl, 0),
            do_load_code(state, 0x20 | cpl, word, cpl, 0),
        )
        assert [NAMES[SegmentOutcome(outcome)] for outcome in outcomes] == expected


def test_an_absent_segment_is_reported_by_the_register(state: State) -> None:
    data, code = Descriptor(0, 0xFFFFF, 0x72, 0xC).bytes(), Descriptor(0, 0xFFFFF, 0x7A, 0xC).bytes()
    assert do_load_data(state, 0x23, data, 3) == SegmentOutcome.NOT_PRESENT
    assert do_load_stack(state, 0x23, data, 3, 0) == SegmentOutcome.STACK_FAULT
    assert do_load_code(state, 0x23, code, 3, 0) == SegmentOutcome.NOT_PRESENT


def test_the_error_code_is_the_selector_without_its_rpl(state: State) -> None:
    assert [do_load_error_code(state, selector) for selector in (0, 3, 0x10, 0x33, 0x17)] == [
        0,
        0,
        0x10,
        0x30,
        0x14,
    ]


# --- accesses -------------------------------------------------------------------------------------------


@given(
    DESCRIPTORS.filter(lambda d: d.is_segment),
    st.tuples(OFFSETS, st.sampled_from((1, 2, 4, 8, 16))),
    st.sampled_from(sorted(KINDS)),
    st.sampled_from(list(SegmentRegister)),
)
def test_accesses_end_where_the_segment_does(
    state: State, d: Descriptor, extent: tuple[int, int], kind: str, register: SegmentRegister
) -> None:
    offset, nr_bytes = extent
    state.request[Request.A0] = d.bytes()
    state.request[Request.A1] = nr_bytes
    state.request[Request.A2] = 0
    outcome = do_segment_access(state, register, offset, KINDS[kind])
    assert (outcome == SegmentOutcome.OK) == model.access(d, offset, nr_bytes, kind)
    if outcome == SegmentOutcome.OK:
        assert state.request[Request.R0] == (d.base + offset) % 2**32


def test_a_stack_reports_its_limit_by_a_vector_of_its_own(state: State) -> None:
    small = Descriptor(0x1000, 0xFFF, 0x92, 0x4).bytes()
    for register in SegmentRegister:
        beyond = (
            SegmentOutcome.STACK_FAULT
            if register == SegmentRegister.SS
            else SegmentOutcome.GENERAL_PROTECTION
        )
        assert access(state, register, small, 0xFFC) == SegmentOutcome.OK
        assert state.request[Request.R0] == 0x1FFC
        assert access(state, register, small, 0xFFD) == beyond


@pytest.mark.parametrize(("big", "last"), [(0x4, 2**32 - 4), (0x0, 2**16 - 4)])
def test_an_expand_down_segment_holds_what_is_above_its_limit(state: State, big: int, last: int) -> None:
    stack = Descriptor(0, 0xFFF, 0x96, big).bytes()
    inside = {
        offset: access(state, SegmentRegister.SS, stack, offset) == SegmentOutcome.OK
        for offset in (0, 0xFFF, 0x1000, last, last + 1)
    }
    assert inside == {0: False, 0xFFF: False, 0x1000: True, last: True, last + 1: False}


def test_a_null_selector_can_be_loaded_but_not_used(state: State) -> None:
    assert do_load_data(state, 0, 0, 3) == SegmentOutcome.OK
    assert access(state, SegmentRegister.DS, 0, 0) == SegmentOutcome.GENERAL_PROTECTION


def test_flat_segments_let_every_access_through_but_writes_to_code(state: State) -> None:
    for word, written in (
        (LINUX_GDT_32[Selector32.USER_DS], True),
        (LINUX_GDT_32[Selector32.USER_CS], False),
    ):
        for offset in (0, 0xBFFF_F000, 0xFFFF_FFFC):
            assert access(state, SegmentRegister.DS, word, offset) == SegmentOutcome.OK
            assert state.request[Request.R0] == offset
            outcome = access(state, SegmentRegister.DS, word, offset, AccessKind.WRITE)
            assert (outcome == SegmentOutcome.OK) == written


@given(DESCRIPTORS, WORDS, st.sampled_from(list(SegmentRegister)), st.sampled_from(list(KINDS.values())))
def test_64_bit_mode_asks_for_no_limit_and_no_type(
    state: State, d: Descriptor, offset: int, register: SegmentRegister, kind: AccessKind
) -> None:
    state.request[Request.A0] = d.bytes()
    state.request[Request.A1] = 8
    state.request[Request.A2] = 1
    assert do_segment_access(state, register, offset, kind) == SegmentOutcome.OK
    base = d.base if register in (SegmentRegister.FS, SegmentRegister.GS) else 0
    assert (int(state.request[Request.R0]) - base - offset) % 2**64 == 0
