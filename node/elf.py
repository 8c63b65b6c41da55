"""Program headers of an ELF file: what of it is loaded where, and whether an interpreter loads the rest.

    ELF header  --> program headers --> PT_LOAD     bytes [offset, offset + filesz) at vaddr, zeroes up to memsz
    64 bytes        56 bytes each       PT_INTERP   the name of the interpreter (ld.so)

Only 64-bit little-endian files that can be executed: at fixed addresses (ET_EXEC) or anywhere (ET_DYN).

Source: System V ABI, Object Files; include/uapi/linux/elf.h; fs/binfmt_elf.c (load_elf_phdrs).
"""

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from shared.constants import PAGE_SIZE

_HEADER: Final = struct.Struct("<4sBBBB8xHHIQQQIHHHHHH")
_PROGRAM_HEADER: Final = struct.Struct("<IIQQQQQQ")
_MAGIC: Final = b"\x7fELF"
_CLASS_64: Final = 2
_LITTLE_ENDIAN: Final = 1
ET_EXEC: Final = 2
ET_DYN: Final = 3
PT_LOAD: Final = 1
PT_INTERP: Final = 3
PF_X: Final = 1
PF_W: Final = 2
PF_R: Final = 4
MAX_HEADER_BYTES: Final = 65536  # of all program headers: Linux refuses more
MAX_ADDRESS: Final = 1 << 47


class ElfError(ValueError):
    """A file that cannot be loaded; one line says why."""


@dataclass(frozen=True, slots=True)
class Segment:
    """What one PT_LOAD header loads."""

    vaddr: int
    memsz: int
    filesz: int
    offset: int
    flags: int  # PF_R, PF_W, PF_X


@dataclass(frozen=True, slots=True)
class ElfImage:
    """An executable: its segments by ascending address, and where it starts."""

    segments: tuple[Segment, ...]
    entry: int
    is_relocatable: bool = False  # ET_DYN: addresses are distances from where it is loaded
    interpreter: str = ""  # "": none

    @property
    def file_bytes(self) -> int:
        """The least size of the file."""
        return max((segment.offset + segment.filesz for segment in self.segments), default=0)

    @property
    def span(self) -> tuple[int, int]:
        """First address, of a whole page, and the first behind all segments."""
        start = self.segments[0].vaddr // PAGE_SIZE * PAGE_SIZE
        return start, max(segment.vaddr + segment.memsz for segment in self.segments)


def check_image(image: ElfImage, name: str) -> None:
    """Raise ``ElfError`` for an image that the loader would refuse."""
    if not image.segments:
        raise ElfError(f"{name}: has no segment to load")
    behind = 0
    for number, segment in enumerate(image.segments):
        where = f"{name}: segment {number}"
        if segment.filesz > segment.memsz:
            raise ElfError(
                f"{where}: {segment.filesz} bytes of the file do not fit {segment.memsz} of memory"
            )
        if segment.vaddr < 0 or segment.vaddr + segment.memsz > MAX_ADDRESS:
            raise ElfError(f"{where}: {segment.vaddr:#x} and {segment.memsz} bytes reach beyond user space")
        if (segment.vaddr - segment.offset) % PAGE_SIZE:
            raise ElfError(f"{where}: {segment.vaddr:#x} and offset {segment.offset:#x} differ within a page")
        if segment.vaddr < behind:
            raise ElfError(f"{where}: begins at {segment.vaddr:#x}, below the end of the one before")
        behind = segment.vaddr + segment.memsz


def read_elf(path: Path) -> ElfImage:
    """Read an executable's headers. Raises ``ElfError`` if it is none that can be loaded, OSError if not readable."""
    with path.open("rb") as file:
        header = file.read(_HEADER.size)
        if len(header) < _HEADER.size or not header.startswith(_MAGIC):
            raise ElfError(f"{path}: is no ELF file")
        (_, kind, order, _, _, type_, _, _, entry, offset, _, _, _, entry_size, count, *_) = _HEADER.unpack(
            header
        )
        if (kind, order) != (_CLASS_64, _LITTLE_ENDIAN):
            raise ElfError(f"{path}: is not a 64-bit little-endian file")
        if type_ not in (ET_EXEC, ET_DYN):
            raise ElfError(
                f"{path}: its type is {type_}, neither {ET_EXEC} (executable) nor {ET_DYN} (shared)"
            )
        size = entry_size * count
        if entry_size != _PROGRAM_HEADER.size or not 0 < size <= MAX_HEADER_BYTES:
            raise ElfError(f"{path}: has {count} program headers of {entry_size} bytes")
        file.seek(0, 2)
        file_size = file.tell()
        if offset + size > file_size:
            raise ElfError(f"{path}: its program headers lie behind its end")
        file.seek(offset)
        headers = list(_PROGRAM_HEADER.iter_unpack(file.read(size)))
        interpreter = ""
        segments = []
        for kind_, flags, at, vaddr, _, filesz, memsz, _ in headers:
            if kind_ in (PT_LOAD, PT_INTERP) and at + filesz > file_size:
                raise ElfError(f"{path}: a program header names bytes {at} to {at + filesz} of {file_size}")
            if kind_ == PT_LOAD and memsz:
                segments.append(Segment(vaddr, memsz, filesz, at, flags))
            elif kind_ == PT_INTERP:
                file.seek(at)
                interpreter = file.read(min(filesz, PAGE_SIZE)).rstrip(b"\0").decode("utf-8", "replace")
    image = ElfImage(tuple(segments), entry, type_ == ET_DYN, interpreter)
    check_image(image, str(path))
    return image
