"""Which object allocator a machine has, and how it is set up: from a scenario's words to knobs.

    allocator     slub (Linux 6.1's default), slab (what courses teach, and 6.1 still has), slob (for small machines)
    slob_policy   where SLOB looks for a block; three-lists is 6.1's, one-list what it began with
    slab_debug    letters, as after slub_debug= on Linux's command line: F sanity checks, Z red zones, P poisoning,
                  U the last user of each object

Linux: init/Kconfig (SLAB, SLUB, SLOB), Documentation/mm/slub.rst (slub_debug).
"""

from collections.abc import Mapping
from typing import Final

from node.kalloc.kmem_cache import Allocator, SlabFlag
from node.kalloc.slob_page import SlobPolicy

ALLOCATORS: Final[Mapping[str, Allocator]] = {
    "slub": Allocator.SLUB,
    "slab": Allocator.SLAB,
    "slob": Allocator.SLOB,
}
ALLOCATOR_OF_ERA: Final[Mapping[str, str]] = {"6.1": "slub", "lecture": "slab"}
POLICY_OF_ERA: Final[Mapping[str, str]] = {"6.1": "three-lists", "lecture": "one-list"}
SLOB_POLICIES: Final[Mapping[str, SlobPolicy]] = {
    "one-list": SlobPolicy.FIRST_FIT_ONE_LIST,
    "three-lists": SlobPolicy.FIRST_FIT_THREE_LISTS,
    "best-fit": SlobPolicy.BEST_FIT,
}
DEBUG_LETTERS: Final[Mapping[str, SlabFlag]] = {
    "F": SlabFlag.CONSISTENCY_CHECKS,
    "Z": SlabFlag.RED_ZONE,
    "P": SlabFlag.POISON,
    "U": SlabFlag.STORE_USER,
}


def allocator_of(name: str | None, era: str) -> Allocator:
    """Return the allocator of this name; None: that of the era. Raises ValueError, in one line, for no such name."""
    found = ALLOCATORS.get(ALLOCATOR_OF_ERA[era] if name is None else name)
    if found is None:
        raise ValueError(f"allocator: {name!r} is none of {', '.join(ALLOCATORS)}")
    return found


def slob_policy_of(name: str | None, era: str) -> SlobPolicy:
    """Return SLOB's policy of this name; None: that of the era. Raises ValueError, in one line, for no such name."""
    found = SLOB_POLICIES.get(POLICY_OF_ERA[era] if name is None else name)
    if found is None:
        raise ValueError(f"slob_policy: {name!r} is none of {', '.join(SLOB_POLICIES)}")
    return found


def debug_flags_of(letters: str, allocator: Allocator) -> int:
    """Return the SlabFlag bits that every cache gets.

    Raises ValueError, in one line, for a letter that is none, or for SLOB, whose objects have no room for them.
    """
    if letters and allocator == Allocator.SLOB:
        raise ValueError(f"slab_debug: {letters!r} needs the allocator slub or slab, not slob")
    flags = 0
    for letter in letters:
        if letter not in DEBUG_LETTERS:
            raise ValueError(f"slab_debug: {letter!r} is none of {', '.join(DEBUG_LETTERS)}")
        flags |= DEBUG_LETTERS[letter]
    return flags
