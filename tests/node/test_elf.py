"""Program headers of ELF files, real ones and broken ones."""

import struct
import sys
from pathlib import Path

import pytest

from node.elf import PF_R, PF_X, ElfError, Segment, read_elf
from shared.constants import PAGE_SIZE


def elf(headers: list[tuple[int, ...]], *, kind: int = 2, type_: int = 2, count: int | None = None) -> bytes:
    """Return a file of these program headers, a page long."""
    number = len(headers) if count is None else count
    header = struct.pack(
        "<4sBBBB8xHHIQQQIHHHHHH",
        b"\x7fELF",
        kind,
        1,
        1,
        0,
        type_,
        62,
        1,
        0x400000,
        64,
        0,
        0,
        64,
        56,
        number,
        0,
        0,
        0,
    )
    return (header + b"".join(struct.pack("<IIQQQQQQ", *each) for each in headers)).ljust(PAGE_SIZE, b"\0")


LOAD = (1, PF_R | PF_X, 0, 0x400000, 0x400000, 0x800, 0x900, 0x1000)


def test_a_real_program_has_text_that_may_be_executed() -> None:
    image = read_elf(Path(sys.executable).resolve())
    assert any(segment.flags & PF_X for segment in image.segments)
    assert any(segment.vaddr <= image.entry < segment.vaddr + segment.memsz for segment in image.segments)


def test_what_a_file_says_is_what_is_read(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(elf([LOAD]))
    image = read_elf(tmp_path / "a")
    assert image.segments == (Segment(0x400000, 0x900, 0x800, 0, PF_R | PF_X),)
    assert (image.entry, image.is_relocatable, image.interpreter) == (0x400000, False, "")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"#!/bin/sh\n", "is no ELF file"),
        (b"\x7fELF", "is no ELF file"),
        (elf([LOAD], kind=1), "is not a 64-bit little-endian file"),
        (elf([LOAD], type_=1), "its type is 1, neither 2 (executable) nor 3 (shared)"),
        (elf([]), "has 0 program headers of 56 bytes"),
        (elf([LOAD], count=1000), "its program headers lie behind its end"),
        (elf([(1, 5, 0, 0x400000, 0, 0x2000, 0x2000, 0x1000)]), "names bytes 0 to 8192 of 4096"),
        (elf([(4, 4, 0, 0, 0, 0, 0, 4)]), "has no segment to load"),
        (
            elf([(1, 5, 0, 0x400000, 0, 0x900, 0x800, 0x1000)]),
            "2304 bytes of the file do not fit 2048 of memory",
        ),
        (elf([(1, 5, 1, 0x400000, 0, 8, 8, 0x1000)]), "0x400000 and offset 0x1 differ within a page"),
        (elf([(1, 5, 0, 1 << 63, 0, 8, 8, 0x1000)]), "reach beyond user space"),
    ],
)
def test_a_file_that_cannot_be_loaded_is_refused_in_one_line(
    tmp_path: Path, data: bytes, message: str
) -> None:
    (tmp_path / "a").write_bytes(data)
    with pytest.raises(ElfError) as caught:
        read_elf(tmp_path / "a")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
