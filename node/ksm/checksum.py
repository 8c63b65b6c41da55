"""What tells ksmd that a page is calm, and in what order pages stand in its trees.

A page's checksum is the low half of its bytes' xxHash64 in kernels since 4.20, jhash2 before. Of a recorded
page both are known: the content id is its xxHash64, and a table has jhash2. Of a generated one the id is as
good as a hash of its bytes.

# Differs from Linux: trees are ordered by content id, not by memcmp, so they have other shapes; no counter
# of ksmd depends on that, as long as no page goes away while its item is in the unstable tree. With
# ``compare: hash`` (as a course's KSM has it) pages of one checksum are deemed equal, and a merge may change
# what a process reads.
"""

from typing import TYPE_CHECKING, Final

from node.counters import Knob
from node.ksm.records import KsmChecksum, KsmCompare
from shared.jit import hot_kernel, kernel
from shared.wrap64 import HALF_SHIFT, LOW_HALF, shift_right64

if TYPE_CHECKING:
    from node.state import State

# Of 4096 zero bytes: xxHash64 with seed 0, low half; jhash2 of 1024 words with initval 17 (mm/ksm.c).
ZERO_PAGE_XXHASH: Final = 0x32D8BBDB
ZERO_PAGE_JHASH2: Final = 0x61574272
SIGN_BIT: Final = 1 << 31


@kernel
def _as_int32(value: int) -> int:
    return ((value & LOW_HALF) ^ SIGN_BIT) - SIGN_BIT


@kernel
def _jhash2(state: "State", content: int) -> int:
    nr_recorded = state.knob[Knob.NR_RECORDED]
    low = 0
    high = nr_recorded
    while low < high:
        middle = (low + high) // 2
        if state.recorded[middle] < content:
            low = middle + 1
        else:
            high = middle
    if low < nr_recorded and state.recorded[low] == content:
        return state.recorded[nr_recorded + low]
    return shift_right64(content, HALF_SHIFT)


@kernel
def zero_checksum(state: "State") -> int:
    """Return the checksum of a page of zeroes."""
    return _as_int32(
        ZERO_PAGE_JHASH2 if state.knob[Knob.KSM_CHECKSUM] == KsmChecksum.JHASH2 else ZERO_PAGE_XXHASH
    )


@hot_kernel
def content_checksum(state: "State", content: int) -> int:
    """Return the checksum of a page with this content id, as an int32."""
    if content == 0:
        return zero_checksum(state)
    if state.knob[Knob.KSM_CHECKSUM] == KsmChecksum.JHASH2:
        return _as_int32(_jhash2(state, content))
    return _as_int32(content)


@hot_kernel
def page_key(state: "State", pfn: int) -> int:
    """Return what decides whether two frames are equal, and orders them."""
    content = state.page[pfn].content
    if state.knob[Knob.KSM_COMPARE] == KsmCompare.HASH:
        return content_checksum(state, content)
    return content
