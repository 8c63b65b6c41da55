"""IA32_PAT read byte by byte, and the manual's table of what each memory type lets caches do."""

import struct

NAMES = {0: "UC", 1: "WC", 4: "WT", 5: "WP", 6: "WB", 7: "UC-"}
# Name -> whether reads are served by the cache, whether writes are.
CACHED = {
    "UC": (False, False),
    "UC-": (False, False),
    "WC": (False, False),
    "WT": (True, False),
    "WP": (True, False),
    "WB": (True, True),
}


def types_of(pat: int) -> list[str] | None:
    """Return the names in PA0 to PA7, or None if the processor refuses the value."""
    fields = struct.unpack("8B", struct.pack("<q", pat))
    return [NAMES[field] for field in fields] if all(field in NAMES for field in fields) else None


def index_of(word: int, *, is_large: bool) -> int:
    """Return the field that an entry chooses, from its bits written as a string, bit 0 last."""
    bits = f"{word % 2**64:064b}"[::-1]
    pat, pcd, pwt = bits[12 if is_large else 7], bits[4], bits[3]
    return int(pat + pcd + pwt, 2)
