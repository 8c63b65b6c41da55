"""Invariants: each can fail. A busy machine is sound; one wrong number in it is named."""

from collections.abc import Callable

import numpy as np
import pytest

from node.checkpoint import restore, snapshot
from node.counters import Current, Knob, KsmStat, VmStat
from node.hw.pte import SWAP_ENTRY_EXCLUSIVE, Pte
from node.hw.tlb import FRAME_SHIFT
from node.invariants import InvariantError, check, violations
from node.ksm.records import ItemPlace
from node.phys.migrate_type import MigrateType
from node.phys.page import PageFlag
from node.phys.pcp import NR_PCP_LISTS
from node.phys.zone import ZoneId
from node.pool import Pool
from node.rbtree import Color, Tree
from node.state import State
from node.vm.mappings import Mappings, all_mappings
from shared.constants import NIL, PAGE_SHIFT, TABLE_INDEX_MASK, TABLE_SHIFT
from shared.kernel_state import Record
from tests.node.busy_machine import BusyMachine

pytestmark = pytest.mark.three_ways

Corruption = Callable[[State, Mappings], None]


@pytest.fixture(scope="module")
def kept() -> bytes:
    return snapshot(BusyMachine().state, {})


def frame_with(state: State, flag: int, without: int = 0) -> int:
    page_flags = state.page["page_flags"]
    return int(np.flatnonzero((page_flags & flag == flag) & (page_flags & without == 0))[0])


def entry_of(state: State, mappings: Mappings, which: np.ndarray) -> int:
    """Return where in pt_word the first of these leaf entries stands."""
    index = int(np.flatnonzero(which)[0])
    tables = mappings.table_pfn[mappings.table_mm == mappings.mm[index]]
    positions = (tables << TABLE_SHIFT) + (int(mappings.vpn[index]) & TABLE_INDEX_MASK)
    return int(next(p for p in positions if state.pt_word[int(p)] == mappings.pte[index]))


def longest_pcp_list(state: State) -> tuple[int, Record]:
    """Return the place in state.pcp, and the ends, of the first CPU list of movable single frames that has two."""
    for index in range(len(state.pcp)):
        ends = state.pcp_list[index * NR_PCP_LISTS + MigrateType.MOVABLE]
        if ends.first not in (NIL, ends.last):
            return index, ends
    raise AssertionError("no CPU has two frames on a list")


# --- each corruption, and the start of the line that must name it ---------------------------------------


def leak_a_frame(state: State, _: Mappings) -> None:
    index, ends = longest_pcp_list(state)
    pfn = ends.first
    ends.first = state.page[pfn].next
    state.page[ends.first].prev = state.page[pfn].prev
    state.pcp[index].count -= 1
    state.page[pfn].page_flags = 0


def free_a_mapped_frame(state: State, _: Mappings) -> None:
    index, ends = longest_pcp_list(state)
    pfn = frame_with(state, PageFlag.LRU)
    state.page[ends.last].next = pfn
    state.page[pfn].prev = ends.last
    ends.last = pfn
    state.pcp[index].count += 1
    state.page[pfn].page_flags |= PageFlag.PCP


def misalign_a_block(state: State, _: Mappings) -> None:
    heads = np.flatnonzero(state.page["page_flags"] & PageFlag.BUDDY)
    state.page[int(heads[heads % 2 == 1][0])].order = 1


def tear_a_free_list(state: State, _: Mappings) -> None:
    ends = next(
        record for record in (state.free_list[i] for i in range(len(state.free_list))) if record.first != NIL
    )
    state.page[ends.first].prev = ends.last


def miscount_free_blocks(state: State, _: Mappings) -> None:
    state.free_area[0].nr_free += 1


def miscount_a_zone(state: State, _: Mappings) -> None:
    state.zone[ZoneId.DMA32].nr_free -= 1


def miscount_free_pages(state: State, _: Mappings) -> None:
    state.vm_stat[VmStat.NR_FREE_PAGES] += 1


def forget_a_managed_frame(state: State, _: Mappings) -> None:
    state.zone[ZoneId.DMA].managed -= 1


def miscount_a_pcp_list(state: State, _: Mappings) -> None:
    next(record for record in (state.pcp[i] for i in range(len(state.pcp))) if record.count).count += 1


def free_a_record_twice(state: State, _: Mappings) -> None:
    pool = state.pool[Pool.VMA]
    state.pool_link[pool.first_link + pool.mark - 1] = pool.mark - 1
    pool.first_free = pool.mark - 1


def miscount_a_pool(state: State, _: Mappings) -> None:
    state.pool[Pool.ANON_VMA].nr_used += 1


def raise_a_refcount(state: State, _: Mappings) -> None:
    state.page[frame_with(state, PageFlag.LRU)].refcount += 1


def lower_a_mapcount(state: State, _: Mappings) -> None:
    state.page[frame_with(state, PageFlag.ANON_EXCLUSIVE)].mapcount = 0


def miscount_anon_pages(state: State, _: Mappings) -> None:
    state.vm_stat[VmStat.NR_ANON_PAGES] += 1


def miscount_page_tables(state: State, _: Mappings) -> None:
    state.vm_stat[VmStat.NR_PAGE_TABLE_PAGES] -= 1


def forget_a_page_table(state: State, mappings: Mappings) -> None:
    state.page[int(mappings.table_pfn[-1])].page_flags = 0


def write_a_shared_page(state: State, mappings: Mappings) -> None:
    shared = mappings.present & (state.page["mapcount"][mappings.pfn * mappings.present] > 1)
    state.pt_word[entry_of(state, mappings, shared)] |= Pte.WRITE


def miscount_a_process(state: State, mappings: Mappings) -> None:
    state.mm[int(mappings.mm[0])].nr_anon += 1


def miscount_swapped_pages(state: State, mappings: Mappings) -> None:
    state.mm[int(mappings.mm[~mappings.present][0])].nr_swap -= 1


def shrink_an_area(state: State, mappings: Mappings) -> None:
    vma = state.vma[state.mm[int(mappings.mm[-1])].first_vma]
    vma.end = vma.start + (1 << PAGE_SHIFT)


def overlap_two_areas(state: State, mappings: Mappings) -> None:
    mm = next(i for i in mappings.mm if state.mm[int(i)].nr_vmas > 1)
    vma = state.vma[state.mm[int(mm)].first_vma]
    vma.end = state.vma[vma.next].end


def lose_a_page_to_reverse_mapping(state: State, mappings: Mappings) -> None:
    state.page[frame_with(state, PageFlag.ANON_EXCLUSIVE | PageFlag.LRU)].index += 1


def raise_an_anon_vma(state: State, _: Mappings) -> None:
    state.anon_vma[1].refcount += 1


def take_a_page_off_the_lru(state: State, _: Mappings) -> None:
    state.lru[0].nr_pages -= 1


def move_a_page_to_the_wrong_lru(state: State, _: Mappings) -> None:
    state.page[state.lru[0].first].page_flags |= PageFlag.ACTIVE


def use_a_slot_once_more(state: State, mappings: Mappings) -> None:
    state.swap_slot[int(mappings.slot[~mappings.present][0])].nr_users += 1


def name_a_slot_outside(state: State, mappings: Mappings) -> None:
    state.pt_word[entry_of(state, mappings, ~mappings.present)] = SWAP_ENTRY_EXCLUSIVE


def swap_two_cached_slots(state: State, _: Mappings) -> None:
    frames = np.flatnonzero(state.page["page_flags"] & PageFlag.SWAPCACHE)
    first, second = state.page[int(frames[0])], state.page[int(frames[1])]
    first.private, second.private = second.private, first.private


def change_a_clean_cached_page(state: State, _: Mappings) -> None:
    state.page[frame_with(state, PageFlag.SWAPCACHE, PageFlag.DIRTY)].content ^= 1


def miscount_a_swap_cluster(state: State, _: Mappings) -> None:
    state.swap_cluster[0].nr_used += 1


def lose_a_write(state: State, _: Mappings) -> None:
    state.swap_area[0].nr_writes -= 1
    state.vm_stat[VmStat.NR_WRITEBACK] -= 1


def miscount_merged_pages(state: State, _: Mappings) -> None:
    state.ksm_stat[KsmStat.PAGES_SHARED] += 1


def miscount_sharing_pages(state: State, _: Mappings) -> None:
    state.ksm_stat[KsmStat.PAGES_SHARING] -= 1


def miscount_unshared_pages(state: State, _: Mappings) -> None:
    state.ksm_stat[KsmStat.PAGES_UNSHARED] += 1


def miscount_dups(state: State, _: Mappings) -> None:
    state.ksm_stat[KsmStat.STABLE_NODE_DUPS] += 1


def miscount_rmap_items(state: State, _: Mappings) -> None:
    state.ksm_stat[KsmStat.RMAP_ITEMS] += 1


def disorder_rmap_items(state: State, mappings: Mappings) -> None:
    mm = next(i for i in mappings.mm if state.mm[int(i)].ksm_rmap_items)
    first = state.rmap_item[state.mm[int(mm)].ksm_rmap_list]
    first.vaddr = state.rmap_item[first.next_in_mm].vaddr


def redden_the_root(state: State, _: Mappings) -> None:
    state.rb_node[int(state.rb_root[Tree.STABLE])].color = Color.RED


def change_a_merged_page(state: State, _: Mappings) -> None:
    state.page[frame_with(state, PageFlag.KSM)].content ^= 1


def lose_a_sharer(state: State, _: Mappings) -> None:
    items = state.rmap_item
    index = next(
        i for i in range(1, state.pool[Pool.RMAP_ITEM].mark) if items[i].where == ItemPlace.STABLE_NODE
    )
    state.stable_node[items[index].stable_node].nr_sharers -= 1


def take_an_address_space_off_ksmds_list(state: State, _: Mappings) -> None:
    state.mm[state.ksm_scan[0].last_mm].mergeable = 0


def forget_a_flush(state: State, _: Mappings) -> None:
    # Of CPU 1, which runs the process that has it.
    entries = np.flatnonzero(state.tlb["key"])
    entry = state.tlb[int(entries[entries >= state.knob[Knob.TLB_ENTRIES]][0])]
    entry.word += 1 << FRAME_SHIFT


CASES: dict[Corruption, str] = {
    leak_a_frame: "nowhere: it has leaked",
    free_a_mapped_frame: "is on a per-CPU list with 1 references",
    misalign_a_block: "is not aligned to its order 1",
    tear_a_free_list: "before it, not",
    miscount_free_blocks: "free_area DMA order 0.nr_free: is",
    miscount_a_zone: "zone DMA32.nr_free: is",
    miscount_free_pages: "NR_FREE_PAGES: is",
    forget_a_managed_frame: "zone DMA.managed: is",
    miscount_a_pcp_list: "pcp list",
    free_a_record_twice: "pool VMA: its free list is a circle",
    miscount_a_pool: "pool ANON_VMA.nr_used: is",
    raise_a_refcount: ".refcount: is 2, but mappings 1",
    lower_a_mapcount: ".mapcount: is 0, but entries that map it: 1",
    miscount_anon_pages: "NR_ANON_PAGES: is",
    miscount_page_tables: "NR_PAGE_TABLE_PAGES: is",
    forget_a_page_table: "page tables of level 1: frame",
    write_a_shared_page: "which is not exclusive",
    miscount_a_process: ".nr_anon: is",
    miscount_swapped_pages: ".nr_swap: is",
    shrink_an_area: "is mapped or swapped, but in no area",
    overlap_two_areas: "is empty or begins below",
    lose_a_page_to_reverse_mapping: "reverse mapping of frame",
    raise_an_anon_vma: "anon_vma 1.refcount: is",
    take_a_page_off_the_lru: "lru INACTIVE_ANON.nr_pages: is",
    move_a_page_to_the_wrong_lru: "lru INACTIVE_ANON: frame",
    use_a_slot_once_more: ".nr_users: is",
    name_a_slot_outside: "names slot",
    swap_two_cached_slots: "which names another frame",
    change_a_clean_cached_page: "holds another content",
    miscount_a_swap_cluster: "swap cluster 0.nr_used: is",
    lose_a_write: "writeback: the ring has",
    miscount_merged_pages: "pages_shared: is",
    miscount_sharing_pages: "pages_sharing: is",
    miscount_unshared_pages: "pages_unshared: is",
    miscount_dups: "stable_node_dups: is",
    miscount_rmap_items: "rmap_items: is",
    disorder_rmap_items: "its rmap_items are not in the order of their addresses",
    redden_the_root: "STABLE tree: its root",
    change_a_merged_page: "its content is not its stable node's key any more",
    lose_a_sharer: ".nr_sharers: is",
    take_an_address_space_off_ksmds_list: "is on ksmd's list or mergeable, not both",
    forget_a_flush: "but tables and view allow 0x0",
}


def test_a_busy_machine_is_sound(kept: bytes) -> None:
    state, _ = restore(kept)
    assert violations(state) == []
    assert state.vm_stat[VmStat.NR_SWAP_USED] > 0
    assert state.vm_stat[VmStat.NR_WRITEBACK] > 0
    assert state.ksm_stat[KsmStat.STABLE_NODE_CHAINS] > 0
    assert state.current[Current.CPU] == 1


@pytest.mark.parametrize("corrupt", CASES, ids=lambda corrupt: corrupt.__name__)
def test_what_is_wrong_is_named(kept: bytes, corrupt: Corruption) -> None:
    state, _ = restore(kept)
    corrupt(state, all_mappings(state))
    with pytest.raises(InvariantError) as caught:
        check(state)
    assert CASES[corrupt] in str(caught.value)
