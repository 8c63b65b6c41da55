"""Real pages: the 4096 bytes that each pattern of node/content.py stands for, made in an obvious way."""

import hashlib
from dataclasses import dataclass

from shared.constants import PAGE_SIZE

TEXT = b"the quick brown fox jumps over the lazy dog "


@dataclass(frozen=True)
class Pattern:
    """What fills a page: same, unique, half or text, with the numbers that tell pages of it apart."""

    kind: str
    seed: int
    index: int = 0

    def page(self) -> bytes:
        """Return the page's bytes."""
        if self.kind == "same":
            return self.seed.to_bytes(8, "little", signed=True) * (PAGE_SIZE // 8)
        name = f"{self.kind} {self.seed} {self.index}".encode()
        noise = hashlib.shake_128(name).digest(PAGE_SIZE - 1)
        if self.kind == "half":
            noise = noise[: PAGE_SIZE // 2] + bytes(PAGE_SIZE - 1 - PAGE_SIZE // 2)
        if self.kind == "text":
            noise = noise[:16].hex().encode() + (TEXT * PAGE_SIZE)[: PAGE_SIZE - 33]
        return b"\0" + noise


def with_first_byte(page: bytes, value: int) -> bytes:
    """Return the page after one byte was written over its start."""
    return bytes([value]) + page[1:]
