"""The preset ``apple2``: a machine whose programs name memory itself, and whose pages have names.

    $0000        $0400 $0800      $2000        $4000        $6000          $C000 $C100 $C800 $D000      $FFFF
    |zero|stack|..|text|text 2|free|hi-res 1  |hi-res 2  |free            |I/O |slots|card |ROM           |
    |<------------------------- 48 KiB of RAM ---------------------------->|

The 6502 has 16 address lines and no paging: an address is a place, for every program the same, and a page is 256
bytes only because an address has two bytes. The upper one is the page's number. Hardware gives some pages a meaning
(page 0 has short instructions, page 1 is the stack, the video circuits read four ranges of RAM sixty times a second),
the monitor in ROM others. Above the RAM, reading an address can itself be the act: $C0 is switches.

This is the map alone, to look at: Linux needs a hundred times the memory, so no machine is built from it and no
process runs on it. ``hw.paging: none`` is the machine with physical addresses that runs. The simulator's frames are
4 KiB, sixteen of these pages; names belong to ranges of bytes within them.

Source: Apple II Reference Manual (Apple Computer, 1979), chapters "Memory Organization" (RAM, ROM, and I/O
memory; use of the pages by the monitor and BASIC), "Input/Output Structure" ($C000 to $CFFF) and "The Standard I/O"
(text, low- and high-resolution pages); the ROM's parts are those of the Autostart ROM with Applesoft.
Cited from memory; the map was compared with three public copies of it, not with the manual.
"""

from dataclasses import dataclass
from typing import Final

from shared.constants import PAGE_SIZE

PAGE_BYTES: Final = 256
NR_PAGES: Final = 256  # of 16 address lines
ADDRESS_END: Final = PAGE_BYTES * NR_PAGES
PAGES_PER_FRAME: Final = PAGE_SIZE // PAGE_BYTES
RAM: Final = "RAM"
IO: Final = "I/O"
ROM: Final = "ROM"


@dataclass(frozen=True, slots=True)
class NamedPages:
    """Pages ``first`` to ``last`` (inclusive), by their numbers, and what they are for."""

    first: int
    last: int
    kind: str
    name: str
    use: str

    @property
    def start(self) -> int:
        """Address of the first byte."""
        return self.first * PAGE_BYTES

    @property
    def end(self) -> int:
        """Address of the last byte."""
        return (self.last + 1) * PAGE_BYTES - 1

    @property
    def frames(self) -> tuple[int, int]:
        """First and last 4 KiB frame that it lies in."""
        return self.first // PAGES_PER_FRAME, self.last // PAGES_PER_FRAME


MEMORY_MAP: Final = (
    NamedPages(0x00, 0x00, RAM, "zero page", "one-byte addresses; pointers of the monitor, BASIC and DOS"),
    NamedPages(0x01, 0x01, RAM, "stack page", "the 6502's stack, from $01FF down"),
    NamedPages(0x02, 0x02, RAM, "input buffer", "the line being typed (GETLN)"),
    NamedPages(0x03, 0x03, RAM, "vectors", "$03D0 to $03FF: of DOS, and of interrupts, reset and &"),
    NamedPages(0x04, 0x07, RAM, "text page 1", "40 x 24 characters, or low-resolution graphics"),
    NamedPages(0x08, 0x0B, RAM, "text page 2", "the second screen of both; a program's, if it is not shown"),
    NamedPages(0x0C, 0x1F, RAM, "free RAM", "programs"),
    NamedPages(0x20, 0x3F, RAM, "hi-res page 1", "280 x 192 points"),
    NamedPages(0x40, 0x5F, RAM, "hi-res page 2", "the second screen of these"),
    NamedPages(0x60, 0xBF, RAM, "free RAM", "programs; DOS at the top, where there is a disk"),
    NamedPages(0xC0, 0xC0, IO, "I/O switches", "keyboard, speaker, screen modes: an access is the act"),
    *(
        NamedPages(0xC0 + slot, 0xC0 + slot, ROM, f"slot {slot} ROM", f"the card in slot {slot}")
        for slot in range(1, 8)
    ),
    NamedPages(0xC8, 0xCF, ROM, "expansion ROM", "the card that was used last"),
    NamedPages(0xD0, 0xF7, ROM, "BASIC ROM", "Applesoft"),
    NamedPages(0xF8, 0xFF, ROM, "monitor ROM", "the monitor; $FFFA to $FFFF: vectors of the 6502"),
)
RAM_BYTES: Final = sum(one.end + 1 - one.start for one in MEMORY_MAP if one.kind == RAM)


def pages_at(address: int) -> NamedPages:
    """Return the named pages that hold ``address``. Raises ValueError for one that needs more than 16 bits."""
    if not 0 <= address < ADDRESS_END:
        raise ValueError(f"ADDRESS {address:#x}: an apple2 has 16 address lines, the last byte is 0xffff")
    number = address // PAGE_BYTES
    return next(one for one in MEMORY_MAP if one.first <= number <= one.last)
