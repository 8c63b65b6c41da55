"""GFP flags: what a request for memory may do to succeed, and how Linux's traces write them.

    where   DMA, DMA32, HIGHMEM, MOVABLE        the highest zone that will do; THISNODE: no other node
    what    MOVABLE, RECLAIMABLE                the migrate type, by which pageblocks are kept apart
    how     HIGH, ATOMIC, MEMALLOC, NOMEMALLOC  how deep into the reserves
            DIRECT_RECLAIM, KSWAPD_RECLAIM      who may be made to reclaim
            NORETRY, RETRY_MAYFAIL, NOFAIL      how hard to try
    else    ZERO, COMP, NOWARN, IO, FS, and what no model here depends on: WRITE, HARDWALL, ACCOUNT, ZEROTAGS

Linux: include/linux/gfp_types.h; include/trace/events/mmflags.h has the names in the order in which a trace looks
for them, the largest first.
"""

from enum import IntEnum
from typing import Final


class Gfp(IntEnum):
    """Bits of a request (``__GFP_...``), by Linux's values."""

    DMA = 0x01
    HIGHMEM = 0x02
    DMA32 = 0x04
    MOVABLE = 0x08  # of the movable type; with HIGHMEM, from the zone MOVABLE down
    RECLAIMABLE = 0x10  # a slab whose objects a shrinker can free
    HIGH = 0x20  # may use half of what lies below min
    IO = 0x40
    FS = 0x80
    ZERO = 0x100
    ATOMIC = 0x200  # cannot wait, and is urgent
    DIRECT_RECLAIM = 0x400  # the task may reclaim itself, and wait for it
    KSWAPD_RECLAIM = 0x800  # kswapd may be woken
    WRITE = 0x1000
    NOWARN = 0x2000
    RETRY_MAYFAIL = 0x4000
    NOFAIL = 0x8000
    NORETRY = 0x10000  # may reclaim once, and never calls the OOM killer
    MEMALLOC = 0x20000  # ignores the watermarks
    COMP = 0x40000  # a compound page: the block stays one
    NOMEMALLOC = 0x80000  # never ignores them, whoever asks
    HARDWALL = 0x100000
    THISNODE = 0x200000
    ACCOUNT = 0x400000
    ZEROTAGS = 0x800000


RECLAIM: Final = Gfp.DIRECT_RECLAIM | Gfp.KSWAPD_RECLAIM
GFP_ATOMIC: Final = Gfp.HIGH | Gfp.ATOMIC | Gfp.KSWAPD_RECLAIM
GFP_KERNEL: Final = RECLAIM | Gfp.IO | Gfp.FS
GFP_NOWAIT: Final = int(Gfp.KSWAPD_RECLAIM)
GFP_NOIO: Final = RECLAIM
GFP_DMA: Final = int(Gfp.DMA)
GFP_DMA32: Final = int(Gfp.DMA32)
GFP_USER: Final = GFP_KERNEL | Gfp.HARDWALL
GFP_HIGHUSER: Final = GFP_USER | Gfp.HIGHMEM
GFP_HIGHUSER_MOVABLE: Final = GFP_HIGHUSER | Gfp.MOVABLE
GFP_TRANSHUGE_LIGHT: Final = (GFP_HIGHUSER_MOVABLE | Gfp.COMP | Gfp.NOMEMALLOC | Gfp.NOWARN) & ~RECLAIM

# Longest combinations first, then single bits: the order in which Linux's traces look for them.
NAMES: Final = {
    "GFP_TRANSHUGE": GFP_TRANSHUGE_LIGHT | Gfp.DIRECT_RECLAIM,
    "GFP_TRANSHUGE_LIGHT": GFP_TRANSHUGE_LIGHT,
    "GFP_HIGHUSER_MOVABLE": GFP_HIGHUSER_MOVABLE,
    "GFP_HIGHUSER": GFP_HIGHUSER,
    "GFP_USER": GFP_USER,
    "GFP_KERNEL_ACCOUNT": GFP_KERNEL | Gfp.ACCOUNT,
    "GFP_KERNEL": GFP_KERNEL,
    "GFP_NOFS": RECLAIM | Gfp.IO,
    "GFP_ATOMIC": GFP_ATOMIC,
    "GFP_NOIO": GFP_NOIO,
    "__GFP_RECLAIM": RECLAIM,
    "GFP_NOWAIT": GFP_NOWAIT,
    "GFP_DMA": GFP_DMA,
    "GFP_DMA32": GFP_DMA32,
    **{f"__GFP_{bit.name}": int(bit) for bit in Gfp},
}
_NONE: Final = "none"  # how a trace writes no flags
MAX_GFP: Final = (1 << 28) - 1  # __GFP_BITS of Linux 6.1, lockdep's included


def parse_gfp(text: str) -> int:
    """Return the bits of flags such as ``GFP_KERNEL|__GFP_ZERO``, ``none``, ``0xcc0`` or ``3264``.

    Raises ``ValueError``, in one line, for a name that is no flag or a number outside 0..2**28-1.
    """
    bits = 0
    for part in text.strip().split("|"):
        if part in NAMES:
            bits |= NAMES[part]
        elif part != _NONE:
            bits |= _number(part)
    return bits


def _number(text: str) -> int:
    try:
        number = int(text, 0)
    except ValueError:
        raise ValueError(f"{text!r} is no GFP flag such as GFP_KERNEL or __GFP_ZERO") from None
    if not 0 <= number <= MAX_GFP:
        raise ValueError(f"{text} is outside 0..{MAX_GFP:#x}, the GFP flags")
    return number


def format_gfp(bits: int) -> str:
    """Return flags as Linux's traces write them."""
    said = []
    for name, value in NAMES.items():
        if value and bits & value == value:
            said.append(name)
            bits &= ~value
    if bits:
        said.append(hex(bits))
    return "|".join(said) or _NONE
