"""Segment descriptors read byte by byte, and the manual's rules about them as lists of sentences."""

import struct
from dataclasses import dataclass

GP, NP, SS = "#GP", "#NP", "#SS"


@dataclass(frozen=True)
class Descriptor:
    base: int
    limit: int
    access: int  # byte 5: P, DPL, S, type
    options: int  # high half of byte 6: G, D/B, L, AVL

    @staticmethod
    def of(word: int) -> "Descriptor":
        limit, base, base_16, access, byte_6, base_24 = struct.unpack("<HHBBBB", struct.pack("<q", word))
        return Descriptor(
            base | base_16 << 16 | base_24 << 24, limit | (byte_6 & 15) << 16, access, byte_6 >> 4
        )

    def bytes(self) -> int:
        word = struct.pack(
            "<HHBBBB",
            self.limit & 0xFFFF,
            self.base & 0xFFFF,
            self.base >> 16 & 0xFF,
            self.access,
            self.limit >> 16 | self.options << 4,
            self.base >> 24,
        )
        return int(struct.unpack("<q", word)[0])

    present = property(lambda self: bool(self.access & 0x80))
    dpl = property(lambda self: self.access >> 5 & 3)
    is_segment = property(lambda self: bool(self.access & 0x10))
    code = property(lambda self: self.is_segment and bool(self.access & 8))
    data = property(lambda self: self.is_segment and not self.access & 8)
    conforming = property(lambda self: self.code and bool(self.access & 4))
    expand_down = property(lambda self: self.data and bool(self.access & 4))
    readable = property(lambda self: self.data or (self.code and bool(self.access & 2)))
    writable = property(lambda self: self.data and bool(self.access & 2))
    pages = property(lambda self: bool(self.options & 8))
    big = property(lambda self: bool(self.options & 4))
    long = property(lambda self: bool(self.options & 2))

    def effective_limit(self) -> int:
        return (self.limit + 1) * 4096 - 1 if self.pages else self.limit

    def offsets(self) -> range:
        if self.expand_down:
            return range(self.effective_limit() + 1, 2**32 if self.big else 2**16)
        return range(self.effective_limit() + 1)


def first_of(rules: list[tuple[bool, str]]) -> str:
    """Return what the first rule that is broken raises."""
    return next((fault for broken, fault in rules if broken), "")


def load_data(selector: int, d: Descriptor, cpl: int) -> str:
    if selector < 4:
        return ""
    rpl = selector & 3
    return first_of(
        [
            (not d.is_segment, GP),
            (not d.readable, GP),
            ((d.data or not d.conforming) and (rpl > d.dpl or cpl > d.dpl), GP),
            (not d.present, NP),
        ]
    )


def load_stack(selector: int, d: Descriptor, cpl: int, *, is_64bit: bool) -> str:
    rpl = selector & 3
    if selector < 4:
        return "" if is_64bit and cpl != 3 and rpl == cpl else GP
    return first_of([(rpl != cpl, GP), (not d.writable, GP), (d.dpl != cpl, GP), (not d.present, SS)])


def load_code(selector: int, d: Descriptor, cpl: int, *, is_long: bool) -> str:
    rpl = selector & 3
    return first_of(
        [
            (selector < 4, GP),
            (not d.code, GP),
            (is_long and d.long and d.big, GP),
            (d.conforming and d.dpl > cpl, GP),
            (not d.conforming and rpl > cpl, GP),
            (not d.conforming and d.dpl != cpl, GP),
            (not d.present, NP),
        ]
    )


def access(d: Descriptor, offset: int, nr_bytes: int, kind: str) -> bool:
    """Return whether a type allows a read, write or execute, and all bytes are inside."""
    allowed = {"read": d.readable, "write": d.writable, "execute": d.code}[kind]
    return bool(allowed and offset in d.offsets() and offset + nr_bytes - 1 in d.offsets())
