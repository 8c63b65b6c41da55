"""The map of an Apple II: without holes, and as the reference manual draws it."""

from itertools import pairwise

import pytest

from node.apple2 import ADDRESS_END, IO, MEMORY_MAP, RAM, RAM_BYTES, ROM, pages_at
from shared.constants import KIB

# Figures of the Apple II Reference Manual, typed from it: first and last byte, and the name.
MANUAL = [
    (0x0000, 0x00FF, "zero page"),
    (0x0100, 0x01FF, "stack page"),
    (0x0200, 0x02FF, "input buffer"),
    (0x0300, 0x03FF, "vectors"),
    (0x0400, 0x07FF, "text page 1"),
    (0x0800, 0x0BFF, "text page 2"),
    (0x2000, 0x3FFF, "hi-res page 1"),
    (0x4000, 0x5FFF, "hi-res page 2"),
    (0xC000, 0xC0FF, "I/O switches"),
    (0xC600, 0xC6FF, "slot 6 ROM"),
    (0xC800, 0xCFFF, "expansion ROM"),
    (0xF800, 0xFFFF, "monitor ROM"),
]


def test_every_page_has_one_name() -> None:
    assert MEMORY_MAP[0].first == 0
    assert MEMORY_MAP[-1].end == ADDRESS_END - 1
    assert all(behind.first == one.last + 1 for one, behind in pairwise(MEMORY_MAP))


@pytest.mark.parametrize(("first", "last", "name"), MANUAL)
def test_pages_are_where_the_manual_has_them(first: int, last: int, name: str) -> None:
    for address in (first, (first + last) // 2, last):
        one = pages_at(address)
        assert (one.start, one.end, one.name) == (first, last, name)


def test_48_kib_are_ram_and_the_rest_is_switches_and_rom() -> None:
    assert RAM_BYTES == 48 * KIB
    assert {one.kind for one in MEMORY_MAP if one.start < 0xC000} == {RAM}
    assert [one.kind for one in MEMORY_MAP if one.start >= 0xC000] == [IO] + [ROM] * 10


def test_sixteen_pages_are_a_frame() -> None:
    assert pages_at(0x0400).frames == (0, 0)
    assert pages_at(0x2000).frames == (2, 3)
    assert pages_at(0xFFFF).frames == (15, 15)


@pytest.mark.parametrize("address", [-1, 0x10000])
def test_there_are_sixteen_address_lines(address: int) -> None:
    with pytest.raises(ValueError, match="16 address lines"):
        pages_at(address)
