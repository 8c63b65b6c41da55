"""The C header that describes a State: its records, enums and constants, made from the Python ones.

So a twin's structs cannot fall behind the program's, and a twin runs over the tables of a real State.
"""

import re
from enum import IntEnum
from typing import Any, Final

import numpy as np

from benchmarks import kernels
from node import content, counters
from node.fault import entries, user_fault
from node.fault.kinds import VmFault
from node.fault.outcome import FaultOutcome
from node.hw import cache_lines, cost, memory_type, mmu, paging, pte, registers, tlb, walk
from node.kalloc import kmem_cache, slub_kmalloc, slub_records
from node.kmap import asid, entry, pti, tlb_flush
from node.ksm.records import ItemPlace, KsmModel
from node.phys import buddy, fallback, gfp, migrate_type, page, pcp, pcp_batch, zone
from node.pool import Pool
from node.rbtree import Color, Tree
from node.reclaim.lru import LruList
from node.state import State
from node.vm import commit, fork, mm_init, mmu_gather, page_tables, rss
from node.vm.anon_vma import RmapWalk
from node.vm.thp import ThpMode
from node.vm.vma import VmAreaStat, VmaSearch, VmFlag
from shared import constants, gfp_flags

C_TYPES: Final = {8: "int64_t", 4: "int32_t", 2: "int16_t", 1: "int8_t"}
ENUMS: Final[tuple[type[IntEnum], ...]] = (
    *(found for found in vars(counters).values() if isinstance(found, type) and issubclass(found, IntEnum)),
    cost.Cost,
    pte.Pte,
    cache_lines.CacheMode,
    memory_type.MemoryType,
    paging.AccessKind,
    paging.PageSize,
    paging.PagingMode,
    registers.Cr0,
    registers.Cr4,
    registers.Efer,
    registers.FaultCode,
    registers.FaultVector,
    tlb.Refill,
    tlb.Replacement,
    tlb.TlbArray,
    tlb.TlbRight,
    walk.Cached,
    page.PageFlag,
    fallback.AllocFlag,
    gfp_flags.Gfp,
    migrate_type.MigrateType,
    zone.ZoneId,
    Pool,
    LruList,
    VmFault,
    FaultOutcome,
    VmFlag,
    VmAreaStat,
    VmaSearch,
    RmapWalk,
    ThpMode,
    commit.Overcommit,
    ItemPlace,
    KsmModel,
    Color,
    Tree,
    slub_records.SlubStat,
)
MODULES_OF_CONSTANTS: Final = (
    constants,
    content,
    memory_type,
    mmu,
    pte,
    registers,
    tlb,
    walk,
    asid,
    entry,
    pti,
    tlb_flush,
    buddy,
    migrate_type,
    fallback,
    gfp,
    gfp_flags,
    migrate_type,
    pcp,
    pcp_batch,
    zone,
    entries,
    commit,
    fork,
    mm_init,
    page_tables,
    user_fault,
    mmu_gather,
    rss,
    kmem_cache,
    slub_records,
    slub_kmalloc,
    kernels,
)
_WORD_STARTS: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


def header() -> str:
    """Return the text of layout.h."""
    lines = ["#pragma once", "#include <stdint.h>"]
    constants_seen = set()
    for module in MODULES_OF_CONSTANTS:
        for name, value in vars(module).items():
            if name.isupper() and isinstance(value, int) and not name.startswith(("_", "INT64")):
                lines += [f"#undef {name}", f"#define {name} ({_literal(int(value))})"]
                constants_seen.add(name)
    for enum in ENUMS:
        if enum is IntEnum:
            continue
        prefix = _WORD_STARTS.sub("_", enum.__name__).upper()
        # GFP_ATOMIC is a combination of bits and, with this prefix, one of them: the constant has the name.
        lines += [
            f"#define {prefix}_{name} ({_literal(int(member))})"
            for name, member in enum.__members__.items()
            if f"{prefix}_{name}" not in constants_seen
        ]
    for table, spec in State.LAYOUT.items():
        if spec.dtype.names:
            lines += _struct(table, spec.dtype)
    members = [
        f"{_element(table, spec.dtype)} *{table}; int64_t {table}_length;"
        for table, spec in State.LAYOUT.items()
    ]
    return "\n".join([*lines, "typedef struct {", *members, "} State;", ""])


def _literal(value: int) -> str:
    if value == constants.INT64_MIN:
        return "INT64_MIN"
    return f"{value}LL" if abs(value) > constants.INT64_MAX >> 32 else str(value)


def _element(table: str, dtype: np.dtype[Any]) -> str:
    return f"struct {table}" if dtype.names else C_TYPES[dtype.itemsize]


def _struct(table: str, dtype: np.dtype[Any]) -> list[str]:
    fields = [f"{C_TYPES[dtype[name].itemsize]} {name};" for name in dtype.names or ()]
    size = f'_Static_assert(sizeof(struct {table}) == {dtype.itemsize}, "{table}");'
    return [f"struct {table} {{", *fields, "};", size]
