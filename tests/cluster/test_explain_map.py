"""``pagefleet explain memory-map``: the pages of a machine with physical addresses, by their names."""

import json
from pathlib import Path

import pytest

from cluster.errors import InputError
from cluster.explain_map import explain_memory_map, lines_of
from tests.cluster import programs

WIDEST = 110


def test_the_map_is_printed_line_by_line() -> None:
    lines = list(lines_of(explain_memory_map("apple2", None)))
    assert (
        lines[0] == "machine   apple2: 16 address bits, 48 KiB of RAM, no paging: every address is physical"
    )
    assert any(line.startswith("04-07    $0400 .. $07FF   0      RAM   text page 1:") for line in lines)
    assert max(map(len, lines)) <= WIDEST


@pytest.mark.parametrize(
    ("address", "said"),
    [("$0428", "$0428: page $04, byte $28"), ("0xC030", "page $C0, byte $30"), ("8192", "$2000: page $20")],
)
def test_an_address_is_placed(address: str, said: str) -> None:
    lines = list(lines_of(explain_memory_map("apple2", address)))
    assert said in lines[2]
    assert len(lines) == 5


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("0x10000", "ADDRESS 0x10000: an apple2 has 16 address lines, the last byte is 0xffff"),
        ("C030", "ADDRESS 'C030': not a hexadecimal (0x... or $...) or decimal number"),
    ],
)
def test_a_wrong_address_is_one_line(address: str, said: str) -> None:
    with pytest.raises(InputError) as caught:
        explain_memory_map("apple2", address)
    assert str(caught.value) == said


def test_a_wrong_address_ends_with_status_2(tmp_path: Path) -> None:
    arguments = ("explain", "memory-map", "--preset", "apple2", "0x10000")
    done = programs.run(*arguments, cwd=tmp_path, program=programs.REAL)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)


def test_json_has_what_is_printed(tmp_path: Path) -> None:
    arguments = ("explain", "memory-map", "--preset", "apple2", "0x100", "--json")
    said = json.loads(programs.run(*arguments, cwd=tmp_path, program=programs.REAL).stdout)
    assert said["address"]["held_by"]["name"] == "stack page"
    assert [one["name"] for one in said["pages"]][:2] == ["zero page", "stack page"]
