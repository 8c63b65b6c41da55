"""Processors: which translation hardware each of them has, every number with its source.

A processor caches translations in *arrays*. Each array serves one or more *roles*: first level for data, first
level for instructions, or second level, by page size. Sharing an array is naming it in several roles.

                 4K        2M        1G                      4K        2M        1G
    data       [ 64/4 ]  [ 32/4 ]  [ 4 full ]   data       [        64 full        ]
    instr.     [128/8 ]  [8 full]     --        instr.     [        64 full        ]
    second     [    1536/12     ]  [ 16/4  ]    second     [    2048/16     ]     --
                        skylake                                    zen2

Beside them stand the paging-structure caches, one a level, that shorten a walk, and what the processor can do:
the bits that Linux looks for in CPUID, and the width of its physical addresses. In 32-bit paging the column of
2M holds pages of 4 MiB.

Manuals say entries and ways. Nobody says how an entry is replaced or what the paging-structure caches hold;
what was measured is used, and where nothing was, the word [guess] stands. What a hit in the second level costs
is no part of a preset: 7 cycles on Skylake [Opt], the default in node/hw/cost.py, and no source for the others.

Sources:
    [Opt]     Intel, 64 and IA-32 Architectures Optimization Reference Manual: TLB parameters of the Skylake
              client microarchitecture; cost of a hit in the second-level TLB
    [SDM]     Intel SDM volume 3, 4.1.4 (physical width: 52 bits at most), 4.10.3 (paging-structure caches)
    [cpuid]   github.com/InstLatx64/InstLatx64, dumps of CPUID: 00506E3 (Skylake client), 00606A6 (Ice Lake
              server), 0830F10 (Zen 2, Rome), 0A00F11 (Zen 3, Milan), 0A10F11 (Zen 4, Genoa). TLBs in leaves 2
              and 18h (Intel), 8000_0005h, 8000_0006h and 8000_0019h (AMD); widths in 8000_0008h; features in
              1, 7 and 8000_0001h
    [wiki]    WikiChip, pages "Skylake (client)", "Sunny Cove" and "Zen 2"
    [7-cpu]   7-cpu.com, page "Zen2"
    [TLBDR]   Tatar et al., TLB;DR, USENIX Security 2022, and its tool (github.com/vusec/tlbdr): Kaby Lake,
              whose TLBs are Skylake's, has 16 sets of 8 ways, 16 of 4 and 128 of 12, replaced by trees of bits
    [RevAnC]  Van Schaik et al., RevAnC, EuroSec 2017, and its tool (github.com/vusec/revanc), which evicts
              Intel's caches of PDEs and PDPTEs by the numbers of 2 MiB and 1 GiB TLB entries, 4 PDPTEs on
              processors that have no 1 GiB entry, and 24 entries on AMD's
    [17h]     AMD, Software Optimization Guide for AMD Family 17h Processors (55723), 2.7
    [common]  Linux 6.1, arch/x86/kernel/cpu/common.c, cpu_vuln_whitelist: no AMD processor has Meltdown;
              Intel's Ice Lake says RDCL_NO
    [OSTEP]   Arpaci-Dusseau, Operating Systems: Three Easy Pieces, chapter 19: a TLB of 32, 64 or 128 entries,
              fully associative. Courses that give one number say 128 to 256.
    [r3k]     Linux 6.1, arch/mips/kernel/cpu-r3k-probe.c (64 entries), arch/mips/mm/tlb-r3k.c (8 of them
              wired); Kane, MIPS RISC Architecture: fully associative, Random counts 63 down to 8, 6-bit ASID,
              20-bit frame number, a trap for each miss
    [guess]   no source found

# Differs from Linux: AMD's second level is two arrays, of which the one for instructions (512 entries) is
# left out: both kinds share that for data.
# Differs from Linux: stores have no first-level array of their own (16 entries on Ice Lake), and Ice Lake's
# second level, 1024 entries for 4K and 2M beside 1024 for 4K and 1G, is three arrays, one a page size.
# Differs from Linux: AMD keeps PDEs in its second-level TLB, and PML4Es and PDPTEs in one cache of 64; here
# each level has a cache of its own.
# Differs from Linux: replacement is true LRU where processors use trees of bits, or what is not known.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

SIDES: Final = ("data", "instruction", "second")
PAGE_SIZES: Final = ("4K", "2M", "1G")
NR_SIZES: Final = len(PAGE_SIZES)
NR_ROLES: Final = len(SIDES) * NR_SIZES
REPLACEMENTS: Final = ("lru", "plru", "fifo", "random")
REFILLS: Final = ("hardware", "software")
# The first-level data cache where one is asked for: 32 KiB of 64-byte lines [Opt]; AMD's is the same [cpuid].
DATA_CACHE_SETS: Final = 64
DATA_CACHE_WAYS: Final = 8


@dataclass(frozen=True, slots=True)
class TlbArraySpec:
    """One array. ``ways`` equal to ``entries`` is fully associative, 1 is direct-mapped.

    ``wired``: entries of each set, its first ones, that no refill replaces.
    """

    entries: int
    ways: int
    replacement: str = "lru"
    wired: int = 0

    @property
    def nr_sets(self) -> int:
        """Sets of ``ways`` entries."""
        return self.entries // self.ways


@dataclass(frozen=True, slots=True)
class TlbSpec:
    """All TLBs of one CPU: arrays, and for each role the place of its array.

    Roles are in the order of ``TlbArray`` (node/hw/tlb.py): side by side of ``SIDES``, in each the sizes of
    ``PAGE_SIZES``. None: pages of that size are not cached there. ``refill``: who serves a miss.
    """

    arrays: tuple[TlbArraySpec, ...]
    roles: tuple[int | None, ...]  # [NR_ROLES] place in arrays
    refill: str = "hardware"

    def array(self, role: int) -> TlbArraySpec | None:
        """Return the array of a role, or None."""
        place = self.roles[role]
        return None if place is None else self.arrays[place]

    def name(self, place: int) -> str:
        """Return what an array is called in messages and listings: ``second 4K+2M``, ``unified 4K``."""
        sides = {
            side: "+".join(
                size
                for size, used in zip(PAGE_SIZES, self.roles[first * NR_SIZES :], strict=False)
                if used == place
            )
            for first, side in enumerate(SIDES)
        }
        data, instruction, second = sides["data"], sides["instruction"], sides["second"]
        if data and data == instruction and not second:
            return f"unified {data}"
        return " ".join(f"{side} {sizes}" for side, sizes in sides.items() if sizes)


@dataclass(frozen=True, slots=True)
class WalkCacheSpec:
    """The paging-structure caches of one CPU, by the kind of entry they hold; None: there is none."""

    pd: TlbArraySpec | None = None
    pdpt: TlbArraySpec | None = None
    pml4: TlbArraySpec | None = None
    pml5: TlbArraySpec | None = None
    ept_pd: TlbArraySpec | None = None  # PDEs of the host's table, under a guest's walks


@dataclass(frozen=True, slots=True)
class Features:
    """What a processor can do, by Linux's names in /proc/cpuinfo, and whether it has Meltdown."""

    pcid: bool = True
    invpcid: bool = True
    pge: bool = True
    nx: bool = True
    smep: bool = True
    smap: bool = True
    pke: bool = True
    la57: bool = False
    pdpe1gb: bool = True  # pages of 1 GiB
    meltdown: bool = False  # Linux isolates page tables unless told otherwise


@dataclass(frozen=True, slots=True)
class Processor:
    """A preset."""

    name: str
    title: str
    tlb: TlbSpec
    walk_caches: WalkCacheSpec
    physical_bits: int
    features: Features


def _full(entries: int) -> TlbArraySpec:
    return TlbArraySpec(entries, entries)


def _tlb(by_roles: Mapping[str, TlbArraySpec], refill: str = "hardware") -> TlbSpec:
    """Build a TlbSpec from ``"second 4K+2M"``; the side ``unified`` is data and instruction."""
    roles: list[int | None] = [None] * NR_ROLES
    for place, name in enumerate(by_roles):
        side, _, sizes = name.partition(" ")
        for one in SIDES[:2] if side == "unified" else (side,):
            for size in sizes.split("+"):
                roles[SIDES.index(one) * NR_SIZES + PAGE_SIZES.index(size)] = place
    return TlbSpec(tuple(by_roles.values()), tuple(roles), refill)


_SKYLAKE: Final = Processor(
    name="skylake",
    title="Intel Skylake (client), 2015",
    tlb=_tlb(  # [Opt]; sets and ways verified by [TLBDR]
        {
            "data 4K": TlbArraySpec(64, 4),
            "data 2M": TlbArraySpec(32, 4),
            "data 1G": _full(4),
            "instruction 4K": TlbArraySpec(128, 8),
            "instruction 2M": _full(8),
            "second 4K+2M": TlbArraySpec(1536, 12),
            "second 1G": TlbArraySpec(16, 4),
        }
    ),
    walk_caches=WalkCacheSpec(
        pd=TlbArraySpec(32, 4),  # as many as 2 MiB entries [RevAnC]; ways [guess]
        pdpt=_full(4),  # as many as 1 GiB entries [RevAnC]
        pml4=_full(4),  # [guess]
        ept_pd=TlbArraySpec(32, 4),  # [guess]
    ),
    physical_bits=39,  # [cpuid]; servers of the same generation have 46
    features=Features(pke=False, meltdown=True),  # [cpuid]; protection keys came with the servers
)

_ICELAKE: Final = Processor(
    name="icelake",
    title="Intel Ice Lake (server), 2021",
    tlb=_tlb(
        {
            "data 4K": TlbArraySpec(64, 4),  # of loads [cpuid]
            "data 2M": TlbArraySpec(32, 4),  # of loads [cpuid]
            "data 1G": _full(8),  # of loads [cpuid]
            "instruction 4K": TlbArraySpec(128, 8),  # as Skylake's, no change given [wiki]
            "instruction 2M": _full(16),  # [wiki]; a thread sees 8 [cpuid]
            "second 4K": TlbArraySpec(2048, 16),  # 1024 of 8 ways twice [cpuid]
            "second 2M": TlbArraySpec(1024, 8),  # [cpuid]
            "second 1G": TlbArraySpec(1024, 8),  # [cpuid]
        }
    ),
    walk_caches=WalkCacheSpec(
        pd=TlbArraySpec(32, 4),  # the rule of [RevAnC] on these TLBs
        pdpt=_full(8),  # likewise
        pml4=_full(4),  # [guess]
        pml5=_full(4),  # [guess]
        ept_pd=TlbArraySpec(32, 4),  # [guess]
    ),
    physical_bits=46,  # [cpuid]
    features=Features(la57=True),  # [cpuid], [common]
)

# Zen's page directory cache has 64 entries for PML4Es and PDPTEs [17h]: half for each is a guess. PDEs share
# the second-level TLB [17h], [wiki]; how many of them stay there is a guess.
_ZEN_WALK_CACHES: Final = WalkCacheSpec(
    pd=TlbArraySpec(64, 4), pdpt=_full(32), pml4=_full(32), ept_pd=TlbArraySpec(64, 4)
)
_ZEN_L1: Final = _full(64)  # all page sizes [cpuid], [7-cpu]
# 4K entries have 8 ways, 2M entries 4 and coalesced ones 4 in 128 sets: 2048 in 16 ways. [wiki] still has Zen's
# 12 ways, which do not divide 2048; CPUID says 8 to 15 ways for 4K and 4 or 5 for 2M [cpuid].
_ZEN_L2: Final = TlbArraySpec(2048, 16)

_ZEN2: Final = Processor(
    name="zen2",
    title="AMD Zen 2 (EPYC Rome), 2019",
    tlb=_tlb({"data 4K+2M+1G": _ZEN_L1, "instruction 4K+2M+1G": _ZEN_L1, "second 4K+2M": _ZEN_L2}),
    walk_caches=_ZEN_WALK_CACHES,
    physical_bits=48,  # [cpuid]
    features=Features(pcid=False, invpcid=False, pke=False),  # [cpuid]
)

_ZEN3: Final = Processor(
    name="zen3",
    title="AMD Zen 3 (EPYC Milan), 2021",
    tlb=_tlb(
        {
            "data 4K+2M+1G": _ZEN_L1,
            "instruction 4K+2M+1G": _ZEN_L1,
            "second 4K+2M": _ZEN_L2,
            "second 1G": _full(64),  # [cpuid]
        }
    ),
    walk_caches=_ZEN_WALK_CACHES,
    physical_bits=48,  # [cpuid]
    features=Features(),  # [cpuid]
)

_ZEN4: Final = Processor(
    name="zen4",
    title="AMD Zen 4 (EPYC Genoa), 2022",
    tlb=_tlb(
        {
            "data 4K+2M+1G": _full(72),  # [cpuid]
            "instruction 4K+2M+1G": _ZEN_L1,
            "second 4K+2M": TlbArraySpec(3072, 24),  # [cpuid]; 128 sets as before: the ways are a [guess]
            "second 1G": _full(64),  # [cpuid]
        }
    ),
    walk_caches=WalkCacheSpec(
        _ZEN_WALK_CACHES.pd,
        _ZEN_WALK_CACHES.pdpt,
        _ZEN_WALK_CACHES.pml4,
        _full(4),  # [guess]
        _ZEN_WALK_CACHES.ept_pd,
    ),
    physical_bits=52,  # [cpuid]
    features=Features(la57=True),  # [cpuid]
)

_TEXTBOOK: Final = Processor(
    name="textbook",
    title="the machine of textbooks: one unified, fully associative TLB without tags",
    tlb=_tlb({"unified 4K+2M+1G": _full(128)}),  # [OSTEP]
    walk_caches=WalkCacheSpec(),
    physical_bits=52,  # the most that there may be [SDM]
    features=Features(pcid=False, invpcid=False, smep=False, smap=False, pke=False),
)

_R3000: Final = Processor(
    name="r3000",
    title="MIPS R3000, 1988: 64 entries, refilled by the kernel",
    tlb=_tlb({"unified 4K": TlbArraySpec(64, 64, "random", wired=8)}, "software"),  # [r3k]
    walk_caches=WalkCacheSpec(),
    physical_bits=32,  # [r3k]
    # ASIDs tag its entries as PCIDs do; it has G bits, but neither large pages nor a bit that forbids fetches.
    features=Features(invpcid=False, nx=False, smep=False, smap=False, pke=False, pdpe1gb=False),
)

PROCESSORS: Final[Mapping[str, Processor]] = {
    processor.name: processor for processor in (_SKYLAKE, _ICELAKE, _ZEN2, _ZEN3, _ZEN4, _TEXTBOOK, _R3000)
}
DEFAULT_PROCESSOR: Final = _SKYLAKE
