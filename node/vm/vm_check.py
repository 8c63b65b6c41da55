"""What must hold of address spaces at any time when no kernel runs.

    - an area list is in order, without overlap, and every mapped or swapped page lies in an area
    - every frame is in exactly one place: reserved, free, a page table, the kernel's, or anonymous
    - a frame's references are its mappings, the swap cache's and its isolation's; its mapcount is the entries that
      point to it
    - an entry that may be written maps a frame that nobody else maps
    - what an address space counts is what its tables hold
    - reverse mapping finds every mapping

Written apart from the kernels, with numpy over whole tables.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from node.counters import Knob, VmStat
from node.findings import Ints, differ, each, used_records, walk_list
from node.hw.paging import PagingMode
from node.hw.pte import Pte
from node.phys.frames_check import free_block_cover, hole_frames
from node.phys.page import PageFlag
from node.pool import Pool
from node.vm.huge_check import HugeEntries, check_huge, huge_entries
from node.vm.mappings import Mappings, living_mms, second_of_pairs
from node.vm.mlock_check import check_mlock
from shared.constants import ENTRIES_PER_TABLE, NIL, PAGE_SHIFT

if TYPE_CHECKING:
    from node.state import State

_MM_SHIFT = 48  # (address space, page) as one number: pages have 36 bits
_PAIR_SHIFT = 32


def areas_of_blocks(state: "State") -> Ints:
    """Return the first frame of every area of a machine without paging."""
    used = used_records(state, Pool.VMA)
    starts: Ints = state.vma["start"][: len(used)][used] >> PAGE_SHIFT
    return starts


@dataclass(frozen=True, slots=True)
class Areas:
    """All areas of living address spaces, by (address space, first page)."""

    vma: Ints
    mm: Ints
    first: Ints
    behind: Ints

    def of(self, mappings: Mappings, *, large: bool = False, offset: int = 0) -> Ints:
        """Return for each entry of the last level, or each larger page, the area that it lies in, or NIL.

        ``offset``: of the page that many behind its first.
        """
        mm = mappings.large_mm if large else mappings.mm
        vpn = (mappings.large_vpn if large else mappings.vpn) + offset
        if len(self.vma) == 0:
            return np.full(len(mm), NIL, np.int64)
        starts = (self.mm << _MM_SHIFT) | self.first
        at = np.searchsorted(starts, (mm << _MM_SHIFT) | vpn, side="right") - 1
        inside = (at >= 0) & (self.mm[at] == mm) & (vpn < self.behind[at])
        return np.where(inside, self.vma[at], NIL)


def check_vm(state: "State", mappings: Mappings, held_anon_vmas: Ints) -> list[str]:
    """Return one line for each thing that is wrong with address spaces and their pages.

    ``held_anon_vmas`` names the anon_vma of every reference that is held by another than an area.
    """
    areas, wrong = _check_areas(state)
    wrong += mappings.wrong
    place_of = areas.of(mappings)
    wrong += each(
        np.flatnonzero(place_of == NIL), lambda i: f"{mappings.name(i)}: is mapped or swapped, but in no area"
    )
    outside = mappings.present & (mappings.pfn >= len(state.page))
    wrong += each(
        np.flatnonzero(outside), lambda i: f"{mappings.name(i)}: maps frame {mappings.pfn[i]}, which is none"
    )
    if wrong:
        return wrong  # what follows relies on these
    huge = huge_entries(state, mappings)
    wrong += check_huge(state, mappings, huge)
    if wrong:
        return wrong
    wrong += _check_huge_pages(state, areas, mappings)
    wrong += _check_places(state, mappings, huge)
    wrong += _check_counts_of_frames(state, mappings, huge)
    wrong += _check_rights(state, mappings)
    wrong += _check_counts_of_mms(state, mappings, huge)
    wrong += check_mlock(state, mappings, place_of, areas.of(mappings, large=True))
    wrong += _check_huge_rmap(state, areas, mappings, huge)
    return wrong + _check_rmap(state, mappings, place_of) + _check_anon_vmas(state, held_anon_vmas)


# --- areas ----------------------------------------------------------------------------------------------


def _check_areas(state: "State") -> tuple[Areas, list[str]]:
    following = state.vma["next"][: state.pool[Pool.VMA].mark].tolist()
    used = used_records(state, Pool.VMA)
    rows: list[tuple[int, int, int, int]] = []
    wrong: list[str] = []
    for mm_index in living_mms(state).tolist():
        mm = state.mm[mm_index]
        members = walk_list(mm.first_vma, following)
        name = f"mm {mm_index}"
        if len(members) > len(following) or not all(
            0 <= index < len(used) and used[index] for index in members
        ):
            wrong.append(f"{name}: its list of areas is a circle, or leads to a record that is not in use")
            continue
        wrong += differ(f"{name}.nr_vmas", mm.nr_vmas, len(members), "areas on its list")
        behind = 0
        before = NIL
        for index in members:
            vma = state.vma[index]
            area = f"{name}, area {index}"
            if vma.mm != mm_index or vma.prev != before:
                wrong.append(f"{area}: belongs to mm {vma.mm}, has area {vma.prev} before it, not {before}")
            if not behind <= vma.start < vma.end:
                wrong.append(f"{area}: [{vma.start:#x}, {vma.end:#x}) is empty or begins below {behind:#x}")
            behind = vma.end
            before = index
            rows.append((index, mm_index, vma.start >> PAGE_SHIFT, vma.end >> PAGE_SHIFT))
    wrong += differ("pool VMA", int(used.sum()), len(rows), "areas of living address spaces")
    columns = np.array(rows, np.int64).reshape(-1, 4).T
    return Areas(*columns), wrong


# --- frames ---------------------------------------------------------------------------------------------


def _check_places(state: "State", mappings: Mappings, huge: HugeEntries) -> list[str]:
    page_flags = state.page["page_flags"]
    nr_frames = len(page_flags)
    nr_tables = np.bincount(np.concatenate([mappings.table_pfn, huge.table_pfn]), minlength=nr_frames)
    in_huge = page_flags & PageFlag.HUGE != 0
    mapped = np.bincount(mappings.pfn[mappings.present], minlength=nr_frames) != 0
    pageable = mapped | (page_flags & (PageFlag.SWAPCACHE | PageFlag.CACHED) != 0)
    pageable &= (page_flags & PageFlag.ZERO_PAGE == 0) & ~in_huge
    places = {
        "reserved": page_flags & PageFlag.RESERVED != 0,
        "a hole": hole_frames(state),
        "in a free block": free_block_cover(state, PageFlag.BUDDY) != 0,
        "on a per-CPU list": free_block_cover(state, PageFlag.PCP) != 0,
        "a page table": nr_tables != 0,
        "mapped, or in the swap or page cache": pageable,
        "the kernel's": (page_flags & PageFlag.KERNEL != 0) | _in_kernel_blocks(state),
        "an object allocator's": page_flags & PageFlag.SLAB != 0,
        "a device's": page_flags & PageFlag.DMA != 0,
        "isolated for compaction": (page_flags & PageFlag.ISOLATED != 0) & ~pageable,
        "in a huge page": in_huge | _frames_in(_hugetlb_heads(state, mappings), ENTRIES_PER_TABLE, nr_frames),
        "in a block of a machine without paging": page_flags & PageFlag.UNPAGED != 0,
    }
    count = np.sum(list(places.values()), axis=0)

    def where(pfn: int) -> str:
        found = [name for name, holds in places.items() if holds[pfn]]
        return f"frame {pfn}: is {' and '.join(found) if found else 'nowhere: it has leaked'}"

    wrong = each(np.flatnonzero(count != 1), where)
    wrong += each(
        np.flatnonzero(nr_tables > 1), lambda pfn: f"frame {pfn}: is a page table {nr_tables[pfn]} times"
    )
    # The kernel's own tables, from boot or made for vmalloc, are no address space's.
    others = PageFlag.RESERVED | PageFlag.KERNEL
    users_table = page_flags & (PageFlag.PAGE_TABLE | others) == PageFlag.PAGE_TABLE
    unused = users_table & (nr_tables == 0)
    wrong += each(
        np.flatnonzero(unused),
        lambda pfn: f"frame {pfn}: is flagged a page table, but of no living address space",
    )
    return wrong + differ(
        "NR_PAGE_TABLE_PAGES",
        state.vm_stat[VmStat.NR_PAGE_TABLE_PAGES],
        int((mappings.table_level >= max(int(state.knob[Knob.NR_LEVELS]) - 2, 1)).sum())
        + len(huge.table_pfn),
        "page tables",
    )


def _in_kernel_blocks(state: "State") -> npt.NDArray[np.bool_]:
    """Return for each frame whether it lies in a block that the kernel has as one, by its first frame's order."""
    wanted = PageFlag.KERNEL | PageFlag.COMPOUND
    heads = np.flatnonzero(state.page["page_flags"] & wanted == wanted)
    inside = np.zeros(len(state.page), bool)
    for head in heads.tolist():
        inside[head : head + (1 << max(int(state.page[head].order), 0))] = True
    return inside


def _frames_in(heads: Ints, nr_pages: int, nr_frames: int) -> npt.NDArray[np.bool_]:
    """Return for each frame whether it lies in one of the blocks of ``nr_pages`` that begin at ``heads``."""
    inside = np.zeros(nr_frames, bool)
    for head in heads.tolist():
        inside[head : head + nr_pages] = True
    return inside


def _check_huge_pages(state: "State", areas: Areas, mappings: Mappings) -> list[str]:
    """Check that huge pages lie in areas, and that their frames, and no others, say that they are such."""
    first = areas.of(mappings, large=True)
    last = areas.of(mappings, large=True, offset=ENTRIES_PER_TABLE - 1)
    wrong = each(
        np.flatnonzero((first == NIL) | (first != last)),
        lambda i: (
            f"mm {mappings.large_mm[i]}, huge page {mappings.large_vpn[i]:#x}: is in no area, or in several"
        ),
    )
    flagged = state.page["page_flags"] & PageFlag.HUGETLB != 0
    inside = _frames_in(_hugetlb_heads(state, mappings), ENTRIES_PER_TABLE, len(flagged))
    return wrong + each(
        np.flatnonzero(flagged != inside),
        lambda pfn: f"frame {pfn}: says that it is in a huge page, or is in one and does not",
    )


def _hugetlb_heads(state: "State", mappings: Mappings) -> Ints:
    """Return the first frame of each larger page that is no transparent one."""
    heads = mappings.huge_heads
    found: Ints = heads[state.page["page_flags"][heads] & (PageFlag.HUGE | PageFlag.ZERO_PAGE) == 0]
    return found


def _held_by_heads(entries: Ints, page_flags: Ints, huge: HugeEntries) -> Ints:
    """Return for each frame how many entries refer to it: those of a transparent huge page refer to its head."""
    held = entries.copy()
    inside = page_flags & PageFlag.HUGE != 0
    held[inside] = 0
    np.add.at(held, np.flatnonzero(inside) & ~(ENTRIES_PER_TABLE - 1), entries[inside])
    np.add.at(held, huge.head[huge.is_zero == 0], 1)
    return held


def _check_counts_of_frames(state: "State", mappings: Mappings, huge: HugeEntries) -> list[str]:
    page_flags = state.page["page_flags"]
    mapcount = state.page["mapcount"]
    refcount = state.page["refcount"]
    entries = np.bincount(mappings.pfn[mappings.present], minlength=len(page_flags))
    entries[page_flags & PageFlag.ZERO_PAGE != 0] = 0
    entries[_hugetlb_heads(state, mappings)] += 1
    held = _held_by_heads(entries, page_flags, huge)
    heads = np.where(page_flags & PageFlag.HUGE, state.page["head"], 0)
    entries += page_flags[heads] & PageFlag.DOUBLE_MAP != 0
    cached = (page_flags & (PageFlag.SWAPCACHE | PageFlag.CACHED) != 0).astype(np.int64)
    owned = (page_flags & (PageFlag.PAGE_TABLE | PageFlag.KERNEL | PageFlag.DMA) != 0).astype(np.int64)
    owned[page_flags & PageFlag.RESERVED != 0] = 0
    if state.knob[Knob.PAGING_MODE] == PagingMode.NONE:
        owned[areas_of_blocks(state)] = 1
    slabs = np.flatnonzero(page_flags & PageFlag.SLAB)
    owned[slabs] = refcount[slabs] != 0  # the allocators' checks know which frames begin a slab
    owned[second_of_pairs(state)] = 0  # a block is held by its first frame
    isolated = (page_flags & PageFlag.ISOLATED != 0).astype(np.int64)
    wrong = each(
        np.flatnonzero(mapcount != entries),
        lambda pfn: f"frame {pfn}.mapcount: is {mapcount[pfn]}, but entries that map it: {entries[pfn]}",
    )
    wrong += each(
        np.flatnonzero(refcount != held + cached + owned + isolated),
        lambda pfn: (
            f"frame {pfn}.refcount: is {refcount[pfn]}, but mappings {held[pfn]},"
            f" swap or page cache {cached[pfn]}, page table or kernel {owned[pfn]},"
            f" isolation {isolated[pfn]}"
        ),
    )
    mapped = ((mapcount > 0) | (state.page["huge_mapcount"][heads] > 0)) & (
        page_flags & PageFlag.HUGETLB == 0
    )
    anon = page_flags & PageFlag.ANON != 0
    for stat, frames in ((VmStat.NR_ANON_PAGES, mapped & anon), (VmStat.NR_MAPPED, mapped & ~anon)):
        wrong += differ(stat.name, state.vm_stat[stat], int(frames.sum()), "frames mapped")
    return wrong


def _check_rights(state: "State", mappings: Mappings) -> list[str]:
    """Check that a frame which an entry may write is one address space's own, and no merged or zero page."""
    page_flags = state.page["page_flags"]
    writable = mappings.present & (mappings.pte & Pte.WRITE != 0)
    may_write = PageFlag.ANON_EXCLUSIVE | PageFlag.CACHED
    exclusive = page_flags[mappings.pfn * mappings.present] & may_write != 0
    wrong = each(
        np.flatnonzero(writable & ~exclusive),
        lambda i: f"{mappings.name(i)}: may write frame {mappings.pfn[i]}, which is not exclusive",
    )
    shared = (page_flags & PageFlag.ANON_EXCLUSIVE != 0) & (
        (state.page["mapcount"] > 1) | (page_flags & (PageFlag.KSM | PageFlag.ZERO_PAGE) != 0)
    )
    return wrong + each(
        np.flatnonzero(shared),
        lambda pfn: f"frame {pfn}: is exclusive, but merged or mapped {state.page[pfn].mapcount} times",
    )


# --- what address spaces count --------------------------------------------------------------------------


def _check_counts_of_mms(state: "State", mappings: Mappings, huge: HugeEntries) -> list[str]:
    mark = state.pool[Pool.MM].mark
    present = mappings.present
    zero = present & (state.page["page_flags"][mappings.pfn * present] & PageFlag.ZERO_PAGE != 0)
    page_flags = state.page["page_flags"][mappings.pfn * present]
    anon = present & (page_flags & PageFlag.ANON != 0)
    shmem = present & ~anon & (page_flags & PageFlag.SWAPBACKED != 0)
    counted = {
        "nr_anon": np.bincount(mappings.mm[anon & ~zero], minlength=mark)
        + np.bincount(huge.mm[huge.is_zero == 0], minlength=mark) * ENTRIES_PER_TABLE,
        "nr_shmem": np.bincount(mappings.mm[shmem], minlength=mark),
        "nr_file": np.bincount(mappings.mm[present & ~anon & ~shmem & ~zero], minlength=mark),
        "nr_zero": np.bincount(mappings.mm[zero], minlength=mark),
        "nr_swap": np.bincount(mappings.mm[~present], minlength=mark),
        "nr_page_tables": np.bincount(mappings.table_mm[mappings.table_level > 0], minlength=mark)
        + np.bincount(huge.table_mm, minlength=mark),
        "ksm_zero_pages": np.bincount(mappings.mm[zero & (mappings.pte & Pte.DIRTY != 0)], minlength=mark),
    }
    wrong: list[str] = []
    for name, counts in counted.items():
        for index in living_mms(state).tolist():
            wrong += differ(
                f"mm {index}.{name}", getattr(state.mm[index], name), int(counts[index]), "in its tables"
            )
    return wrong


# --- reverse mapping ------------------------------------------------------------------------------------


def _check_huge_rmap(state: "State", areas: Areas, mappings: Mappings, huge: HugeEntries) -> list[str]:
    """Check that an anon_vma of the area that a huge page lies in leads to it, at its place."""
    used = used_records(state, Pool.ANON_VMA_CHAIN)
    chains = np.asarray(state.anon_vma_chain)[: len(used)][used]
    pairs = (chains["vma"].astype(np.int64) << _PAIR_SHIFT) | chains["anon_vma"]
    heads = mappings.huge_heads
    at = np.flatnonzero(state.page["page_flags"][heads] & PageFlag.HUGE)
    place_of = areas.of(mappings, large=True)[at]
    area = np.asarray(state.vma)[place_of]
    index = area["pgoff"] + mappings.large_vpn[at] - (area["start"] >> PAGE_SHIFT)
    found = np.isin((place_of << _PAIR_SHIFT) | state.page["mapping"][heads[at]], pairs)
    found &= state.page["index"][heads[at]] == index
    return each(heads[at[~found]], "huge page {}: reverse mapping does not find it".format)


def _check_rmap(state: "State", mappings: Mappings, place_of: Ints) -> list[str]:
    used = used_records(state, Pool.ANON_VMA_CHAIN)
    chains = np.asarray(state.anon_vma_chain)[: len(used)][used]
    pairs = (chains["vma"].astype(np.int64) << _PAIR_SHIFT) | chains["anon_vma"]
    pages = state.page
    anon = mappings.present & (
        pages["page_flags"][mappings.pfn * mappings.present] & (PageFlag.KSM | PageFlag.ANON) == PageFlag.ANON
    )
    at = np.flatnonzero(anon)
    pfn = mappings.pfn[at]
    area = np.asarray(state.vma)[place_of[at]]
    index = area["pgoff"] + mappings.vpn[at] - (area["start"] >> PAGE_SHIFT)
    found = np.isin((place_of[at] << _PAIR_SHIFT) | pages["mapping"][pfn], pairs) & (
        pages["index"][pfn] == index
    )
    return _check_file_rmap(state, mappings, place_of) + each(
        at[~found],
        lambda i: f"{mappings.name(i)}: reverse mapping of frame {mappings.pfn[i]} does not find it",
    )


def _check_file_rmap(state: "State", mappings: Mappings, place_of: Ints) -> list[str]:
    """Check that an entry which maps a page of a file lies in an area of that file, at its place."""
    pages = state.page
    cached = mappings.present & (pages["page_flags"][mappings.pfn * mappings.present] & PageFlag.CACHED != 0)
    at = np.flatnonzero(cached)
    pfn = mappings.pfn[at]
    area = np.asarray(state.vma)[place_of[at]]
    index = area["pgoff"] + mappings.vpn[at] - (area["start"] >> PAGE_SHIFT)
    found = (area["inode"] == pages["mapping"][pfn]) & (pages["index"][pfn] == index)
    return each(
        at[~found],
        lambda i: (
            f"{mappings.name(i)}: maps frame {mappings.pfn[i]}, which is another page of a file than its area's"
        ),
    )


def _chains_by_vma(state: "State") -> int:
    """Return how many chains hang on the areas that are in use."""
    following = state.anon_vma_chain["next_of_vma"][: state.pool[Pool.ANON_VMA_CHAIN].mark].tolist()
    vmas = np.flatnonzero(used_records(state, Pool.VMA)).tolist()
    return sum(len(walk_list(state.vma[index].first_chain, following)) for index in vmas)


def _check_anon_vmas(state: "State", held: Ints) -> list[str]:
    used = used_records(state, Pool.ANON_VMA)
    chains = used_records(state, Pool.ANON_VMA_CHAIN)
    chained = state.anon_vma_chain["anon_vma"][: len(chains)][chains]
    root = state.anon_vma["root"][: len(used)]
    rooted = root[used & (root != np.arange(len(used)))]
    counted = np.bincount(np.concatenate([chained, held, rooted]), minlength=len(used))
    refcount = np.where(used, state.anon_vma["refcount"][: len(used)], 0)
    wrong = differ("pool ANON_VMA_CHAIN", len(chained), _chains_by_vma(state), "chains of areas in use")
    if len(counted) > len(used):
        return [*wrong, f"anon_vma {len(counted) - 1}: is linked, but was never handed out"]
    return wrong + each(
        np.flatnonzero(refcount != counted),
        lambda i: (
            f"anon_vma {i}.refcount: is {refcount[i]}, but areas, rmap_items and children that hold it: {counted[i]}"
        ),
    )
