"""Content ids: 64 bits that stand for the bytes of a page, and nothing but its bytes.

A page is a *pattern* (one of the recorded or generated base contents) and the byte last written over its
start. A pattern's id is the hash of a recorded page, or is made here from what generates it; its lowest
byte is the page's first byte. ``word`` is the exclusive or of the byte now at the start with the pattern's
own: 0 is the pattern itself, so undoing a write restores the id, and writing the same byte again leaves it.

    id = pattern ^ spread(word)        spread(0) = 0, and spread mixes, so that ids do not meet by chance

The page of zeroes is id 0. Ids are compared, never ordered by meaning.

# Differs from Linux: of a recorded page only the hash is known, so a byte equal to the one that already
# stands at its start counts as a change; two different pages have one id with probability 2**-64.
"""

from typing import TYPE_CHECKING, Final

from node.counters import Knob
from node.hw.ept_view import ept_wrote
from shared.jit import kernel
from shared.rng import mix64
from shared.wrap64 import add64

if TYPE_CHECKING:
    from node.state import State

FIRST_BYTE: Final = 0xFF
REPEAT_BYTE: Final = 0x0101010101010101
PATTERN_SAME: Final = 0x53  # kind numbers of generated patterns, mixed into their ids
PATTERN_UNIQUE: Final = 0x55
PATTERN_HALF: Final = 0x48
PATTERN_TEXT: Final = 0x54
PATTERN_DEVICE: Final = 0x44  # what a device wrote
PATTERN_TABLE: Final = 0x50  # page tables
PATTERN_FILE: Final = 0x46  # what a file held from the start


@kernel
def same_filled(value: int) -> int:
    """Return the id of the page of one 8-byte value, repeated."""
    if value == 0:
        return 0
    return (mix64(value ^ mix64(PATTERN_SAME)) & ~FIRST_BYTE) | (value & FIRST_BYTE)


@kernel
def generated(kind: int, seed: int, index: int) -> int:
    """Return the id of page ``index`` of a generated pattern; its first byte is 0."""
    return mix64(add64(mix64(mix64(kind) ^ seed), index)) & ~FIRST_BYTE


@kernel
def spread(word: int) -> int:
    """Return the bits by which ``word`` changes an id; 0 for 0."""
    if word == 0:
        return 0
    return mix64(word)


@kernel
def set_content(state: "State", pfn: int, content: int) -> None:
    """Fill frame ``pfn`` with the pattern ``content``."""
    page = state.page[pfn]
    page.content = content
    page.word = 0
    if state.knob[Knob.IS_GUEST]:
        ept_wrote(state, pfn)


@kernel
def write_first_byte(state: "State", pfn: int, value: int) -> None:
    """Write one byte over the start of frame ``pfn``."""
    page = state.page[pfn]
    pattern = page.content ^ spread(page.word)
    word = (pattern & FIRST_BYTE) ^ value
    page.content = pattern ^ spread(word)
    page.word = word
    if state.knob[Knob.IS_GUEST]:
        ept_wrote(state, pfn)


@kernel
def write_word(state: "State", pfn: int, word: int) -> None:
    """Change the start of frame ``pfn`` from its pattern by ``word``, 31 bits wide; 0 restores the pattern."""
    page = state.page[pfn]
    page.content ^= spread(page.word) ^ spread(word)
    page.word = word
    if state.knob[Knob.IS_GUEST]:
        ept_wrote(state, pfn)


@kernel
def copy_content(state: "State", to_pfn: int, from_pfn: int) -> None:
    """Let frame ``to_pfn`` hold what ``from_pfn`` holds."""
    page = state.page[to_pfn]
    source = state.page[from_pfn]
    page.content = source.content
    page.word = source.word
    if state.knob[Knob.IS_GUEST]:
        ept_wrote(state, to_pfn)
