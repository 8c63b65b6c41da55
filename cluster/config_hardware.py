"""What a scenario may say of a machine's translation hardware and data cache.

What is absent is as the processor's preset has it; node/hw/hardware.py says which combinations exist.
"""

from typing import Annotated, Any, Final, Literal, Self

from pydantic import (
    BeforeValidator,
    Field,
    model_validator,
)

from cluster.config_values import (
    MAX_CACHE_BYTES,
    MAX_INT,
    MAX_TLB_ENTRIES,
    Bytes,
    ClockMhz,
    Name,
    OnOff,
    PageOffset,
    Strict,
    Ways,
    is_off,
    text_of_off,
)
from shared.constants import CACHE_LINE_BYTES, KIB, PAGE_SIZE


class TlbArray(Strict):
    """One array of a TLB, or a paging-structure cache; what is absent is as the processor has it."""

    entries: int | None = Field(None, ge=0, le=MAX_TLB_ENTRIES)
    """A multiple of the ways, in any number of sets. 0: there is none; to write off for the array says so too."""
    ways: Ways | None = None
    replacement: Literal["lru", "plru", "fifo", "random"] | None = None
    wired: int | None = Field(None, ge=0, le=MAX_TLB_ENTRIES)
    """Entries of each set that no refill replaces."""


NO_ARRAY: Final = {"entries": 0}
ArrayOrOff = Annotated[TlbArray, BeforeValidator(lambda value: NO_ARRAY if is_off(value) else value)]
TlbSide = Annotated[
    dict[str, ArrayOrOff], BeforeValidator(lambda value: {"all": NO_ARRAY} if value is False else value)
]


class Tlb(Strict):
    """What differs from the processor's TLBs."""

    refill: Literal["hardware", "software"] | None = None
    data: TlbSide | None = None
    """First level, an array for each size of pages or for several: {4K: {entries: 64, ways: 4}, 2M+1G: off}."""
    instruction: TlbSide | None = None
    unified: TlbSide | None = None
    """First level, the same arrays for data and instructions."""
    second: TlbSide | None = None
    l1_entries: int | None = Field(None, ge=1, le=MAX_TLB_ENTRIES)
    """Short for data.4K.entries."""
    l1_ways: Ways | None = None
    l2_entries: int | None = Field(None, ge=1, le=MAX_TLB_ENTRIES)
    """Short for second.4K+2M.entries."""
    l2_ways: Ways | None = None


class WalkCaches(Strict):
    """What differs from the processor's paging-structure caches, by the entries they hold."""

    pd: ArrayOrOff | None = None
    pdpt: ArrayOrOff | None = None
    pml4: ArrayOrOff | None = None
    pml5: ArrayOrOff | None = None
    ept_pd: ArrayOrOff | None = None
    """Of a guest: entries of its host's table."""


def _no_walk_caches(value: Any) -> Any:
    return dict.fromkeys(WalkCaches.model_fields, NO_ARRAY) if value in (False, "off") else value


class DataCache(Strict):
    """A first-level data cache in front of memory, and how translation meets it."""

    mode: Annotated[
        Literal["off", "serial", "overlapped", "extra_stage", "virtual"], BeforeValidator(text_of_off)
    ] = "off"
    size: Annotated[Bytes, Field(ge=1, le=MAX_CACHE_BYTES)] = 32 * KIB
    ways: int = Field(8, ge=1, le=MAX_TLB_ENTRIES)
    line_bytes: int = Field(CACHE_LINE_BYTES, ge=1, le=PAGE_SIZE)

    @model_validator(mode="after")
    def _has_whole_sets(self) -> Self:
        if self.size % (self.ways * self.line_bytes):
            raise ValueError(
                f"size: {self.size} bytes is not a multiple of {self.ways} ways of {self.line_bytes} bytes"
            )
        return self

    @property
    def sets(self) -> int:
        """Sets of ``ways`` lines."""
        return self.size // (self.ways * self.line_bytes)


class Hardware(Strict):
    """The machine's processor, and what differs from it."""

    processor: Literal["skylake", "icelake", "zen2", "zen3", "zen4", "textbook", "r3000"] = "skylake"
    paging: Literal["none", "32bit", "4level", "5level"] = "4level"
    page_offset: PageOffset | None = None
    """Where the kernel begins, in 32bit paging; null: 0xC0000000."""
    pcid: OnOff | None = None
    """null: on if the processor has PCIDs and paging is 4level or 5level."""
    pti: OnOff | None = None
    """Kernel page-table isolation; null: on if the processor has Meltdown, and likewise."""
    global_pages: OnOff | None = None
    physical_bits: int | None = Field(None, ge=32, le=52)
    """Width of a physical address; null: the processor's."""
    tlb: Tlb = Tlb()
    walk_caches: Annotated[WalkCaches, BeforeValidator(_no_walk_caches)] = WalkCaches()
    data_cache: DataCache = DataCache()
    cost: dict[Name, Annotated[int, Field(ge=0, le=MAX_INT)]] = Field({})
    """Cycles by the names of node/hw/cost.py."""
    clock_ghz: ClockMhz | None = None

    def keys(self) -> dict[str, Any]:
        """Return what was said of the translation hardware, as ``MachineSpec.with_hw`` takes it."""
        return self.model_dump(exclude={"data_cache", "cost", "clock_ghz"}, exclude_unset=True)
