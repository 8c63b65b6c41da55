"""How faults end: the table that the counts, the report and the diagram in docs/faults.md are made from.

Every fault that the kernel gets ends at one leaf of ``FAULT_TREE`` and counts there, in ``state.fault_outcome``. A
question has the answers below it, in the order in which they are tried.
"""

from enum import IntEnum
from typing import Final


class FaultOutcome(IntEnum):
    """Leaves of the tree: what was done, or why not."""

    BAD_AREA = 0
    BAD_ACCESS = 1
    KERNEL_FIXUP = 2
    KERNEL_OOPS = 3
    OUT_OF_MEMORY = 4
    TABLE_SWAPPED_IN = 5
    ANON_ZERO_PAGE = 6
    ANON_NEW_PAGE = 7
    FILE_AROUND = 8
    FILE_READ = 9
    FILE_COPIED = 10
    FILE_WRITTEN = 11
    SWAP_MINOR = 12
    SWAP_MAJOR = 13
    WP_REUSED = 14
    WP_COPIED = 15
    WP_COPIED_ZERO = 16
    WP_COPIED_FILE = 17
    WP_COPIED_MERGED = 18
    WP_SHARED = 19
    PROTNONE = 20
    SPURIOUS = 21
    HUGE_NEW_PAGE = 22
    HUGE_ZERO_PAGE = 23
    HUGE_REUSED = 24
    HUGE_SPLIT = 25
    HUGE_ZERO_WRITTEN = 26
    VMALLOC_SYNCED = 27
    NR = 32


WORDS: Final = {
    FaultOutcome.BAD_AREA: "SIGSEGV, SEGV_MAPERR",
    FaultOutcome.BAD_ACCESS: "SIGSEGV, SEGV_ACCERR",
    FaultOutcome.KERNEL_FIXUP: "the copy ends early: -EFAULT",
    FaultOutcome.KERNEL_OOPS: "oops",
    FaultOutcome.OUT_OF_MEMORY: "VM_FAULT_OOM",
    FaultOutcome.TABLE_SWAPPED_IN: "page table read back; try again",
    FaultOutcome.ANON_ZERO_PAGE: "map the page of zeroes, read-only",
    FaultOutcome.ANON_NEW_PAGE: "a frame of zeroes",
    FaultOutcome.FILE_AROUND: "map cached pages of the 64 KiB around",
    FaultOutcome.FILE_READ: "map the file's page",
    FaultOutcome.FILE_COPIED: "a copy of the file's page",
    FaultOutcome.FILE_WRITTEN: "page_mkwrite; map the file's page, dirty",
    FaultOutcome.SWAP_MINOR: "page from the swap cache",
    FaultOutcome.SWAP_MAJOR: "page read from the device",
    FaultOutcome.WP_REUSED: "reuse: nobody else has the page",
    FaultOutcome.WP_COPIED: "copy the anonymous page",
    FaultOutcome.WP_COPIED_ZERO: "a frame of zeroes for the page of zeroes",
    FaultOutcome.WP_COPIED_FILE: "copy the file's page",
    FaultOutcome.WP_COPIED_MERGED: "copy the merged page",
    FaultOutcome.WP_SHARED: "page_mkwrite; let the entry be written",
    FaultOutcome.PROTNONE: "give the entry its rights again",
    FaultOutcome.SPURIOUS: "somebody was faster: mark it used",
    FaultOutcome.HUGE_NEW_PAGE: "a huge page of zeroes",
    FaultOutcome.HUGE_ZERO_PAGE: "map the huge page of zeroes",
    FaultOutcome.HUGE_REUSED: "reuse the huge page",
    FaultOutcome.HUGE_SPLIT: "split the entry; the small page's fault goes on",
    FaultOutcome.HUGE_ZERO_WRITTEN: "a huge page, or the entry split, for the huge page of zeroes",
    FaultOutcome.VMALLOC_SYNCED: "copy the kernel's entry into this table",
}

# A question, and for each answer a leaf or another question.
Tree = tuple[str, dict[str, "FaultOutcome | Tree"]]

_F = FaultOutcome

_ANON: Final[Tree] = ("write?", {"no": _F.ANON_ZERO_PAGE, "yes": _F.ANON_NEW_PAGE})
_FILE: Final[Tree] = (
    "write?",
    {
        "no": ("cached pages around it?", {"yes": _F.FILE_AROUND, "no": _F.FILE_READ}),
        "yes": ("shared area?", {"no": _F.FILE_COPIED, "yes": _F.FILE_WRITTEN}),
    },
)
_SWAP: Final[Tree] = ("in the swap cache?", {"yes": _F.SWAP_MINOR, "no": _F.SWAP_MAJOR})
_WRITE_PROTECTED: Final[Tree] = (
    "whose page?",
    {
        "the page of zeroes": _F.WP_COPIED_ZERO,
        "shared area": _F.WP_SHARED,
        "exclusive, or of one user": _F.WP_REUSED,
        "merged": _F.WP_COPIED_MERGED,
        "anonymous, shared": _F.WP_COPIED,
        "a file's": _F.WP_COPIED_FILE,
    },
)
_ENTRY: Final[Tree] = (
    "entry of the page?",
    {
        "none": ("anonymous area?", {"yes": _ANON, "no": _FILE}),
        "swap entry": _SWAP,
        "PROT_NONE": _F.PROTNONE,
        "present": ("write, and not writable?", {"no": _F.SPURIOUS, "yes": _WRITE_PROTECTED}),
    },
)
_HUGE: Final[Tree] = (
    "entry of 2 MiB?",
    {
        "none, and huge pages fit": ("write?", {"no": _F.HUGE_ZERO_PAGE, "yes": _F.HUGE_NEW_PAGE}),
        "present, written, not writable": (
            "whose page?",
            {
                "the huge page of zeroes": _F.HUGE_ZERO_WRITTEN,
                "exclusive": _F.HUGE_REUSED,
                "shared": _F.HUGE_SPLIT,
            },
        ),
        "none, or a table": _ENTRY,
    },
)
_SERVED: Final[Tree] = (
    "page table swapped out?",
    {
        "yes": _F.TABLE_SWAPPED_IN,
        "no": ("memory for what it takes?", {"no": _F.OUT_OF_MEMORY, "yes": _HUGE}),
    },
)
_REFUSED: Final[Tree] = (
    "in kernel mode?",
    {
        "no": ("an area there?", {"no": _F.BAD_AREA, "yes": _F.BAD_ACCESS}),
        "yes": ("in copy_to_user, or its like?", {"yes": _F.KERNEL_FIXUP, "no": _F.KERNEL_OOPS}),
    },
)
FAULT_TREE: Final[Tree] = (
    "CR2 in vmalloc's range, era lecture?",
    {
        "yes": _F.VMALLOC_SYNCED,
        "no": (
            "an area there, or a stack that may grow, that allows the access?",
            {"no": _REFUSED, "yes": _SERVED},
        ),
    },
)
