"""Segmentation: descriptors, who may load a selector, and what an access through a segment may reach.

An address that a program gives is an offset in a segment; the segment's base makes a linear address of it,
which paging then translates.

    selector     15 .......... 3  2   1 0
                 index in table   TI  RPL

    descriptor   63 .. 56  55  54  53 52  51 .. 48  47 46..45 44 43..40  39 ......... 16  15 ..... 0
                 base      G   D/B L  AVL limit     P  DPL    S  type    base             limit
                 31..24                   19..16                         23..0            15..0

    type of code   1 C R A    conforming, readable, accessed
    type of data   0 E W A    expand-down, writable, accessed

With G the limit counts 4 KiB pages. An expand-down segment holds the offsets *above* its limit, up to 4 GiB (B
set) or 64 KiB. Linux uses neither: its four segments are *flat*, base 0 and limit 4 GiB, so that an offset is
the linear address and only privilege is left: DPL 0 for the kernel, 3 for programs.

    offset --limit--> fault                        In 64-bit mode the limit is not looked at, nor the type, and
       +----base----> linear address --> paging    only FS and GS have a base.

Whether a selector may be loaded depends on CPL (of the code that runs), RPL (in the selector) and DPL:

    DS ES FS GS    data or readable code; DPL >= CPL and DPL >= RPL, unless it is conforming code
    SS             writable data; DPL = CPL = RPL
    CS             code, here by a far jump or call; DPL = CPL >= RPL, or conforming and DPL <= CPL

Sources: Intel SDM volume 3, 3.4 (selectors, descriptors), 5.3 (limits), 5.4 (types), 5.5 to 5.8 (privilege);
volume 2, MOV and JMP (order of checks); Linux arch/x86/kernel/cpu/common.c (gdt_page), asm/segment.h.
# Differs from Linux: its GDT has more entries (TLS, TSS, LDT, and on 32 bits BIOS and per-CPU segments), and
# it enters the kernel through gates and SYSCALL, whose loads of CS are not those of a jump.
# Differs from Linux: in 64-bit mode it sets the bases of FS and GS through MSRs, with 64 bits.
"""

from dataclasses import astuple, dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Final

from node.counters import Request
from node.hw.paging import AccessKind
from shared.constants import PAGE_OFFSET_MASK, PAGE_SHIFT
from shared.jit import kernel
from shared.wrap64 import add64, to_signed, to_unsigned

if TYPE_CHECKING:
    from node.state import State

# Places of a descriptor's fields.
BASE_LOW_SHIFT: Final = 16
BASE_LOW_MASK: Final = 0xFFFFFF
BASE_HIGH_SHIFT: Final = 56
BASE_HIGH_MASK: Final = 0xFF
BASE_LOW_BITS: Final = 24
LIMIT_LOW_MASK: Final = 0xFFFF
LIMIT_LOW_BITS: Final = 16
LIMIT_HIGH_SHIFT: Final = 48
LIMIT_HIGH_MASK: Final = 0xF
TYPE_SHIFT: Final = 40
TYPE_MASK: Final = 0xF
DPL_SHIFT: Final = 45
DPL_MASK: Final = 3
MAX_BASE: Final = (1 << 32) - 1
MAX_LIMIT: Final = (1 << 20) - 1

RPL_MASK: Final = 3
INDEX_SHIFT: Final = 3
# What an exception reports of a selector: index and TI. 0 names the null descriptor.
ERROR_CODE_MASK: Final = 0xFFFC

LINEAR_MASK_32: Final = (1 << 32) - 1
SMALL_SEGMENT_END: Final = 1 << 16  # an expand-down segment's without B
USER_LEVEL: Final = 3


class DescriptorBit(IntEnum):
    """Places of a descriptor's single bits."""

    S = 44  # 1: code or data; 0: a system segment or a gate
    P = 47
    AVL = 52
    L = 53  # code of 64 bits
    DB = 54  # default size of operands, size of the stack pointer, end of an expand-down segment
    G = 55


class SegmentType(IntEnum):
    """Bits of the type of a code or data segment."""

    ACCESSED = 1 << 0
    WRITABLE = 1 << 1  # of data
    READABLE = 1 << 1  # of code
    EXPAND_DOWN = 1 << 2  # of data
    CONFORMING = 1 << 2  # of code
    CODE = 1 << 3


class SegmentRegister(IntEnum):
    """Segment registers by their number in instructions (SDM volume 2, table B-8)."""

    ES = 0
    CS = 1
    SS = 2
    DS = 3
    FS = 4
    GS = 5


class SegmentOutcome(IntEnum):
    """What a load or an access leads to: nothing, or an exception by its vector."""

    OK = 0
    NOT_PRESENT = 11  # #NP(selector)
    STACK_FAULT = 12  # #SS(selector) of a load, #SS(0) of an access
    GENERAL_PROTECTION = 13  # #GP(selector) of a load, #GP(0) of an access


# --- descriptors ----------------------------------------------------------------------------------------


@kernel
def segment_base(descriptor: int) -> int:
    """Return the base of a descriptor: 0..2**32-1."""
    low = (descriptor >> BASE_LOW_SHIFT) & BASE_LOW_MASK
    return low | ((descriptor >> BASE_HIGH_SHIFT) & BASE_HIGH_MASK) << BASE_LOW_BITS


@kernel
def segment_limit(descriptor: int) -> int:
    """Return a descriptor's limit in bytes, G taken into account: the last offset, or the one before the first."""
    limit = (descriptor & LIMIT_LOW_MASK) | (
        (descriptor >> LIMIT_HIGH_SHIFT) & LIMIT_HIGH_MASK
    ) << LIMIT_LOW_BITS
    if descriptor >> DescriptorBit.G & 1:
        limit = (limit << PAGE_SHIFT) | PAGE_OFFSET_MASK
    return limit


@kernel
def segment_type(descriptor: int) -> int:
    """Return the SegmentType bits of a descriptor."""
    return (descriptor >> TYPE_SHIFT) & TYPE_MASK


@kernel
def segment_dpl(descriptor: int) -> int:
    """Return the privilege level of a descriptor."""
    return (descriptor >> DPL_SHIFT) & DPL_MASK


@dataclass(frozen=True, slots=True)
class Segment:
    """A descriptor's fields; ``limit`` as it is stored, in bytes or in pages."""

    base: int
    limit: int
    type: int
    s: int
    dpl: int
    p: int
    avl: int
    l: int  # noqa: E741 - Intel's name
    db: int
    g: int

    @staticmethod
    def decode(descriptor: int) -> "Segment":
        """Read the eight bytes of a descriptor, given signed."""
        word = to_unsigned(descriptor)

        def field(shift: int, mask: int = 1) -> int:
            return word >> shift & mask

        return Segment(
            base=field(BASE_LOW_SHIFT, BASE_LOW_MASK)
            | field(BASE_HIGH_SHIFT, BASE_HIGH_MASK) << BASE_LOW_BITS,
            limit=field(0, LIMIT_LOW_MASK) | field(LIMIT_HIGH_SHIFT, LIMIT_HIGH_MASK) << LIMIT_LOW_BITS,
            type=field(TYPE_SHIFT, TYPE_MASK),
            s=field(DescriptorBit.S),
            dpl=field(DPL_SHIFT, DPL_MASK),
            p=field(DescriptorBit.P),
            avl=field(DescriptorBit.AVL),
            l=field(DescriptorBit.L),
            db=field(DescriptorBit.DB),
            g=field(DescriptorBit.G),
        )

    def encode(self) -> int:
        """Return the eight bytes of the descriptor, signed. Raises ValueError for a field that does not fit."""
        widths = (MAX_BASE, MAX_LIMIT, TYPE_MASK, 1, DPL_MASK, 1, 1, 1, 1, 1)
        for name, value, most in zip(self.__slots__, astuple(self), widths, strict=True):
            if not 0 <= value <= most:
                raise ValueError(f"segment.{name}: {value} is outside 0..{most}")
        word = (self.base & BASE_LOW_MASK) << BASE_LOW_SHIFT
        word |= self.base >> BASE_LOW_BITS << BASE_HIGH_SHIFT
        word |= self.limit & LIMIT_LOW_MASK
        word |= self.limit >> LIMIT_LOW_BITS << LIMIT_HIGH_SHIFT
        word |= self.type << TYPE_SHIFT | self.dpl << DPL_SHIFT
        word |= self.s << DescriptorBit.S | self.p << DescriptorBit.P | self.avl << DescriptorBit.AVL
        word |= self.l << DescriptorBit.L | self.db << DescriptorBit.DB | self.g << DescriptorBit.G
        return to_signed(word)

    @property
    def is_flat(self) -> bool:
        """Whether an offset in it is the linear address, of all 4 GiB."""
        return self.base == 0 and self.limit == MAX_LIMIT and self.g == 1 and not self._expands_down

    @property
    def _expands_down(self) -> bool:
        return (
            self.s == 1
            and self.type & (SegmentType.CODE | SegmentType.EXPAND_DOWN) == SegmentType.EXPAND_DOWN
        )


# --- Linux's segments -----------------------------------------------------------------------------------


class Selector64(IntEnum):
    """Selectors of a 64-bit kernel."""

    KERNEL32_CS = 0x08
    KERNEL_CS = 0x10
    KERNEL_DS = 0x18
    USER32_CS = 0x23
    USER_DS = 0x2B
    USER_CS = 0x33


class Selector32(IntEnum):
    """Selectors of a 32-bit kernel."""

    KERNEL_CS = 0x60
    KERNEL_DS = 0x68
    USER_CS = 0x73
    USER_DS = 0x7B


def _flat(kind: int, dpl: int, *, is_64bit: bool = False) -> int:
    """Return a flat segment's descriptor: of code of 64 bits with L and without D, all others with D/B."""
    long_code = int(is_64bit)
    return Segment(
        base=0, limit=MAX_LIMIT, type=kind, s=1, dpl=dpl, p=1, avl=0, l=long_code, db=1 - long_code, g=1
    ).encode()


_CODE: Final = SegmentType.CODE | SegmentType.READABLE
_DATA: Final = SegmentType.WRITABLE
# A 64-bit kernel's have A set from the start: its GDT is mapped read-only, and the processor would write A.
_CODE_A: Final = _CODE | SegmentType.ACCESSED
_DATA_A: Final = _DATA | SegmentType.ACCESSED

LINUX_GDT_64: Final = {
    Selector64.KERNEL32_CS: _flat(_CODE_A, 0),
    Selector64.KERNEL_CS: _flat(_CODE_A, 0, is_64bit=True),
    Selector64.KERNEL_DS: _flat(_DATA_A, 0),
    Selector64.USER32_CS: _flat(_CODE_A, USER_LEVEL),
    Selector64.USER_DS: _flat(_DATA_A, USER_LEVEL),
    Selector64.USER_CS: _flat(_CODE_A, USER_LEVEL, is_64bit=True),
}
LINUX_GDT_32: Final = {
    Selector32.KERNEL_CS: _flat(_CODE, 0),
    Selector32.KERNEL_DS: _flat(_DATA, 0),
    Selector32.USER_CS: _flat(_CODE, USER_LEVEL),
    Selector32.USER_DS: _flat(_DATA, USER_LEVEL),
}


def linux_descriptor(selector: int, *, is_64bit: bool) -> int:
    """Return the descriptor that a selector with any RPL names in Linux's GDT; 0 if it names none of these."""
    gdt = LINUX_GDT_64 if is_64bit else LINUX_GDT_32
    for known, descriptor in gdt.items():
        if known >> (INDEX_SHIFT - 1) == selector >> (INDEX_SHIFT - 1):
            return descriptor
    return 0


# --- loading a selector ---------------------------------------------------------------------------------
# ``descriptor`` is what the selector's table has at its index: 0 for an index behind the table's end, which
# is a system segment of a reserved type, so it is refused with the same exception.


@kernel
def is_null(selector: int) -> int:
    """Return whether a selector names the null descriptor: index 0 of the GDT, with any RPL."""
    return 0 if selector & ERROR_CODE_MASK else 1


@kernel
def load_error_code(selector: int) -> int:
    """Return the error code of an exception that a load of ``selector`` raises."""
    return selector & ERROR_CODE_MASK


@kernel
def load_data(selector: int, descriptor: int, cpl: int) -> int:
    """Return the SegmentOutcome of loading DS, ES, FS or GS. The null selector may be loaded, but not used."""
    if is_null(selector):
        return SegmentOutcome.OK
    kind = segment_type(descriptor)
    if not descriptor >> DescriptorBit.S & 1:
        return SegmentOutcome.GENERAL_PROTECTION
    if kind & SegmentType.CODE and not kind & SegmentType.READABLE:
        return SegmentOutcome.GENERAL_PROTECTION
    is_conforming = kind & SegmentType.CODE and kind & SegmentType.CONFORMING
    if not is_conforming and segment_dpl(descriptor) < max(cpl, selector & RPL_MASK):
        return SegmentOutcome.GENERAL_PROTECTION
    if not descriptor >> DescriptorBit.P & 1:
        return SegmentOutcome.NOT_PRESENT
    return SegmentOutcome.OK


@kernel
def load_stack(selector: int, descriptor: int, cpl: int, is_64bit: int) -> int:
    """Return the SegmentOutcome of loading SS. In 64-bit mode, levels 0 to 2 may load a null selector."""
    if is_null(selector):
        if is_64bit and cpl < USER_LEVEL and selector & RPL_MASK == cpl:
            return SegmentOutcome.OK
        return SegmentOutcome.GENERAL_PROTECTION
    kind = segment_type(descriptor)
    is_writable_data = (
        descriptor >> DescriptorBit.S & 1 and kind & SegmentType.WRITABLE and not kind & SegmentType.CODE
    )
    if not is_writable_data or selector & RPL_MASK != cpl or segment_dpl(descriptor) != cpl:
        return SegmentOutcome.GENERAL_PROTECTION
    if not descriptor >> DescriptorBit.P & 1:
        return SegmentOutcome.STACK_FAULT
    return SegmentOutcome.OK


@kernel
def load_code(selector: int, descriptor: int, cpl: int, is_long: int) -> int:
    """Return the SegmentOutcome of loading CS by a far jump or call, which keeps CPL.

    ``is_long``: the processor is in IA-32e mode, where code may not have both L and D.
    """
    kind = segment_type(descriptor)
    if is_null(selector) or not descriptor >> DescriptorBit.S & 1 or not kind & SegmentType.CODE:
        return SegmentOutcome.GENERAL_PROTECTION
    if is_long and descriptor >> DescriptorBit.L & 1 and descriptor >> DescriptorBit.DB & 1:
        return SegmentOutcome.GENERAL_PROTECTION
    dpl = segment_dpl(descriptor)
    if kind & SegmentType.CONFORMING:
        if dpl > cpl:
            return SegmentOutcome.GENERAL_PROTECTION
    elif selector & RPL_MASK > cpl or dpl != cpl:
        return SegmentOutcome.GENERAL_PROTECTION
    if not descriptor >> DescriptorBit.P & 1:
        return SegmentOutcome.NOT_PRESENT
    return SegmentOutcome.OK


# --- access through a segment ---------------------------------------------------------------------------


@kernel
def in_64bit_mode(cs_descriptor: int, is_long: int) -> int:
    """Return whether code of this segment runs in 64-bit mode; ``is_long``: the processor is in IA-32e mode."""
    return 1 if is_long and cs_descriptor >> DescriptorBit.L & 1 else 0


@kernel
def is_within_limit(descriptor: int, offset: int, nr_bytes: int) -> int:
    """Return whether all bytes [offset, offset + nr_bytes) are in the segment; ``offset`` is 0..2**32-1."""
    kind = segment_type(descriptor)
    limit = segment_limit(descriptor)
    last = offset + nr_bytes - 1
    if not kind & SegmentType.CODE and kind & SegmentType.EXPAND_DOWN:
        end = LINEAR_MASK_32 + 1 if descriptor >> DescriptorBit.DB & 1 else SMALL_SEGMENT_END
        return 1 if offset > limit and last < end else 0
    return 1 if last <= limit else 0


@kernel
def type_allows(descriptor: int, kind: int) -> int:
    """Return whether a segment's type allows an access; ``kind`` is an AccessKind."""
    segment = segment_type(descriptor)
    if kind == AccessKind.EXECUTE:
        return 1 if segment & SegmentType.CODE else 0
    if segment & SegmentType.CODE:
        return 1 if kind == AccessKind.READ and segment & SegmentType.READABLE else 0
    return 1 if kind == AccessKind.READ or segment & SegmentType.WRITABLE else 0


@kernel
def segment_access(state: "State", register: int, offset: int, kind: int) -> int:
    """Return the SegmentOutcome of an access through a segment register, and in R0 its linear address.

    A0 is the descriptor in the register, 0 if a null selector was loaded; A1 the bytes accessed; A2 whether
    the processor is in 64-bit mode. ``offset`` is 0..2**32-1, in 64-bit mode any. A wrapping access, from the
    end of 4 GiB to the start, is refused, which processors are free to do. R0 is set if the outcome is OK.
    """
    descriptor = state.request[Request.A0]
    is_stack = register == SegmentRegister.SS
    if state.request[Request.A2]:
        base = 0
        if register >= SegmentRegister.FS:
            base = segment_base(descriptor)
        state.request[Request.R0] = add64(base, offset)
        return SegmentOutcome.OK
    if descriptor == 0 or not type_allows(descriptor, kind):
        return SegmentOutcome.GENERAL_PROTECTION
    if not is_within_limit(descriptor, offset, state.request[Request.A1]):
        return SegmentOutcome.STACK_FAULT if is_stack else SegmentOutcome.GENERAL_PROTECTION
    state.request[Request.R0] = (segment_base(descriptor) + offset) & LINEAR_MASK_32
    return SegmentOutcome.OK
