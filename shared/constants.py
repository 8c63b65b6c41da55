"""Constants that several folders agree on: page geometry, the number for "none", units of time."""

from typing import Final

# Pages and page tables of x86-64 (arch/x86/include/asm/page_types.h, pgtable_64_types.h).
PAGE_SHIFT: Final = 12
PAGE_SIZE: Final = 1 << PAGE_SHIFT  # bytes
PAGE_OFFSET_MASK: Final = PAGE_SIZE - 1  # the bits of an address within its page
PAGE_KIB: Final = PAGE_SIZE // 1024  # KiB in a page, the unit of /proc
TABLE_SHIFT: Final = 9
ENTRIES_PER_TABLE: Final = 1 << TABLE_SHIFT
TABLE_INDEX_MASK: Final = ENTRIES_PER_TABLE - 1
HUGE_PAGE_SHIFT: Final = PAGE_SHIFT + TABLE_SHIFT
HUGE_PAGE_SIZE: Final = 1 << HUGE_PAGE_SHIFT  # bytes: 2 MiB
CACHE_LINE_BYTES: Final = 64

# "None" in every link and index field. It fits in the narrowest, int32; -1 would index the last record.
NIL: Final = -(2**31)

INT64_MIN: Final = -(2**63)
INT64_MAX: Final = 2**63 - 1

KIB: Final = 1 << 10
MIB: Final = 1 << 20
GIB: Final = 1 << 30
TIB: Final = 1 << 40

# Clocks of CPUs count picoseconds, interfaces nanoseconds.
PS_PER_NS: Final = 1_000
NS_PER_US: Final = 1_000
NS_PER_MS: Final = 1_000_000
NS_PER_S: Final = 1_000_000_000
PS_PER_US: Final = PS_PER_NS * NS_PER_US
PS_PER_MS: Final = PS_PER_NS * NS_PER_MS
PS_PER_S: Final = PS_PER_NS * NS_PER_S
