"""The seeded faults: one line each, in mechanisms that have nothing to do with each other.

Each names what goes wrong, the function and the line as it stands, the line that stands there instead, and the
natural check of that mechanism, which must see it: a case recorded on a real kernel, or a test. Where a check did not
see its fault, the missing test was written.
"""

from typing import Final

from tests.mutation.fault import Fault, check, suite

FORKED_SLOTS: Final = suite(
    "node/swap/test_swap_cache.py", "test_forked_processes_share_slots_and_the_last_exit_frees_all"
)

FAULTS: Final = (
    # --- KSM
    Fault(
        "unstable tree kept from scan to scan",
        "node/ksm/scan.py",
        "_next_item_to_scan",
        "state.rb_root[Tree.UNSTABLE] = NIL",
        "pass",
        check("ksm_volatile"),
    ),
    Fault(
        "a page is merged while it changes",
        "node/ksm/merge.py",
        "_is_calm",
        "calm = item.checksum == checksum",
        "calm = item.checksum != 0",
        check("ksm_volatile"),
    ),
    Fault(
        "a merged page stays writable in the TLB",
        "node/ksm/merge.py",
        "_write_protect",
        "flush_tlb_page(state, mm_index, vaddr)",
        "pass",
        suite("node/ksm/test_merge.py"),
    ),
    Fault(
        "a page merged away stays in the TLB",
        "node/ksm/merge.py",
        "_replace_page",
        "flush_tlb_page(state, mm_index, vaddr)",
        "pass",
        suite("node/ksm/test_merge.py"),
    ),
    # --- reverse mapping
    Fault(
        "second mapping of a page not counted",
        "node/vm/rmap.py",
        "page_add_rmap",
        "page.mapcount += 1",
        "page.mapcount = 1",
        suite("node/fault/test_file.py", "test_a_read_maps_the_cached_pages_around_it"),
    ),
    Fault(
        "last page of an area not in its anon_vma",
        "node/vm/anon_vma.py",
        "_enter",
        "last = vma.pgoff + ((vma.end - vma.start) >> PAGE_SHIFT) - 1",
        "last = vma.pgoff + ((vma.end - vma.start) >> PAGE_SHIFT) - 2",
        suite("node/vm/test_anon_vma.py"),
    ),
    Fault(
        "upper part of a split has the lower's place",
        "node/vm/vma_adjust.py",
        "split_vma",
        "upper.pgoff = vma.pgoff + ((vaddr - vma.start) >> PAGE_SHIFT)",
        "upper.pgoff = vma.pgoff",
        suite("node/vm/test_mmap.py"),
    ),
    # --- fork and copy-on-write
    Fault(
        "parent keeps its right to write over fork",
        "node/vm/fork.py",
        "_copy_present",
        "state.pt_word[position] = pte & ~Pte.WRITE",
        "state.pt_word[position] = pte",
        suite("node/vm/test_fork.py"),
    ),
    Fault(
        "child may write what it shares",
        "node/vm/fork.py",
        "_copy_present",
        "state.pt_word[to] = pte & ~(Pte.WRITE | Pte.ACCESSED)",
        "state.pt_word[to] = pte & ~Pte.ACCESSED",
        check("ksm_fork"),
    ),
    Fault(
        "fork leaves a page to be one's own",
        "node/vm/fork.py",
        "_copy_present",
        "page.page_flags = flags & ~PageFlag.ANON_EXCLUSIVE",
        "page.page_flags = flags",
        suite("node/vm/test_fork.py"),
    ),
    Fault(
        "fork does not flush the parent",
        "node/vm/fork.py",
        "fork_mm",
        "flush_tlb_mm(state, parent)",
        "pass",
        suite("node/vm/test_fork.py"),
    ),
    Fault(
        "child's swap entry not counted",
        "node/swap/swap_cache.py",
        "dup_swap_entry",
        "state.swap_slot[slot].nr_users += 1",
        "pass",
        FORKED_SLOTS,
    ),
    Fault(
        "a page whose slot others use is written in place",
        "node/fault/cow.py",
        "_may_reuse",
        "return 1 if holder.refcount == 1 else 0",
        "return 1",
        FORKED_SLOTS,
    ),
    Fault(
        "a merged page is written in place",
        "node/fault/cow.py",
        "_may_reuse",
        "if page.page_flags & PageFlag.KSM or not page.page_flags & PageFlag.ANON:",
        "if not page.page_flags & PageFlag.ANON:",
        suite("node/ksm/test_merge.py"),
    ),
    Fault(
        "a copied page stays in another CPU's TLB",
        "node/fault/cow.py",
        "_copy_page",
        "flush_tlb_page(state, mm_index, vaddr)",
        "pass",
        suite("node/fault/test_cow.py"),
    ),
    Fault(
        "a page of zeroes that is left still counts",
        "node/vm/rmap.py",
        "leave_zero_page",
        "mm.nr_zero -= 1",
        "pass",
        suite("node/fault/test_fault.py", "test_writing_a_page_that_was_only_read_leaves_the_page_of_zeroes"),
    ),
    # --- areas and their sizes
    Fault(
        "mprotect forgets to flush a single page",
        "node/vm/mprotect.py",
        "change_protection",
        "if nr_lost:",
        "if nr_lost > 1:",
        suite("node/vm/test_mprotect.py"),
    ),
    Fault(
        "a page that moves stays in the TLB at its old place",
        "node/vm/move_tables.py",
        "_move_entries",
        "flush_tlb_range(state, mm_index, vaddr, vaddr + length, 0)",
        "pass",
        suite("node/vm/test_mremap.py", "test_a_moved_page_keeps_its_frame_and_is_found_at_its_new_address"),
    ),
    Fault(
        "a single page given up stays in the TLB",
        "node/vm/unmap.py",
        "zap_page_range",
        "if nr_pages:",
        "if nr_pages > 1:",
        suite("node/vm/test_madvise.py"),
    ),
    Fault(
        "a page freed lazily is written behind its back",
        "node/vm/madvise.py",
        "_free_lazily",
        "flush_tlb_page(state, mm_index, vaddr)",
        "pass",
        suite("node/vm/test_madvise.py"),
    ),
    Fault(
        "unmapping takes back a page too little",
        "node/vm/unmap.py",
        "_uncount_area",
        "uncommit(state, nr_pages)",
        "uncommit(state, nr_pages - 1)",
        suite("node/vm/test_commit.py"),
    ),
    Fault(
        "a stack leaves one page of its gap too few",
        "node/vm/stack.py",
        "_keeps_its_distance",
        "return 1 if vaddr - neighbour.end >= state.knob[Knob.STACK_GUARD_PAGES] << PAGE_SHIFT else 0",
        "return 1 if vaddr - neighbour.end >= (state.knob[Knob.STACK_GUARD_PAGES] - 1) << PAGE_SHIFT else 0",
        suite("node/vm/test_stack.py"),
    ),
    Fault(
        "munlock takes two locks away",
        "node/vm/mlock_page.py",
        "munlock_page",
        "page.mlock_count = max(page.mlock_count - 1, 0)",
        "page.mlock_count = max(page.mlock_count - 2, 0)",
        suite("node/vm/test_mlock.py"),
    ),
    Fault(
        "populated pages not marked as used",
        "node/fault/populate.py",
        "_mark_used",
        "mark_page_accessed(state, pfn)",
        "pass",
        check("own/own_lazy"),
    ),
    # --- huge pages and tables
    Fault(
        "split huge page has a reference too many",
        "node/vm/huge_split.py",
        "_count_split",
        "head.refcount += ENTRIES_PER_TABLE - 1",
        "head.refcount += ENTRIES_PER_TABLE",
        suite("node/vm/test_huge_pages.py", "test_a_part_unmapped_splits_the_entry_and_waits_for_the_page"),
    ),
    Fault(
        "tables of the third level count too",
        "node/vm/page_tables.py",
        "count_tables",
        "if level >= max(state.knob[Knob.NR_LEVELS] - 2, 1):",
        "if level >= max(state.knob[Knob.NR_LEVELS] - 3, 1):",
        check("thp"),
    ),
    # --- frames
    Fault(
        "buddy of an odd block looked for above it",
        "node/phys/buddy.py",
        "free_one_page",
        "buddy = pfn ^ (1 << order)",
        "buddy = pfn + (1 << order)",
        suite("node/phys/test_buddy.py", "test_a_block_is_split_to_serve_and_its_halves_stay_free"),
    ),
    Fault(
        "per-CPU list holds a frame too many",
        "node/phys/pcp.py",
        "pcp_free",
        "if lists.count >= lists.limit:",
        "if lists.count > lists.limit:",
        suite("node/phys/test_pcp.py"),
    ),
    # --- TLBs
    Fault(
        "a page's flush leaves the user's half",
        "node/kmap/tlb_flush.py",
        "_flush_one_user",
        "drop_page(state, cpu, vaddr, user_pcid(state, asid), 0)",
        "drop_page(state, cpu, vaddr, kernel_pcid(state, asid), 0)",
        suite("node/kmap/test_tlb_flush.py", "test_up_to_33_pages_are_flushed_singly_and_more_as_a_whole"),
    ),
    Fault(
        "33 pages are flushed as a whole",
        "node/kmap/tlb_flush.py",
        "_flush_range",
        "if end != FLUSH_ALL and (end - start) >> PAGE_SHIFT > SINGLE_PAGE_FLUSH_CEILING:",
        "if end != FLUSH_ALL and (end - start) >> PAGE_SHIFT >= SINGLE_PAGE_FLUSH_CEILING:",
        suite("node/kmap/test_tlb_flush.py", "test_up_to_33_pages_are_flushed_singly_and_more_as_a_whole"),
    ),
    Fault(
        "an old generation switched to without flush",
        "node/kmap/asid.py",
        "_switch_to",
        "elif state.tlb_context[cpu * NR_ASIDS + asid].tlb_gen == tlb_gen:",
        "elif state.tlb_context[cpu * NR_ASIDS + asid].tlb_gen <= tlb_gen:",
        suite("node/kmap/test_asid.py"),
    ),
    Fault(
        "user mode's table lacks what the process maps",
        "node/kmap/pti.py",
        "set_pgd",
        "state.pt_word[user_pgd_position(position)] = word",
        "pass",
        suite(
            "node/kmap/test_pti.py", "test_user_space_is_in_both_copies_and_cannot_be_executed_by_the_kernel"
        ),
    ),
    # --- reclaim
    Fault(
        "OOM badness leaves out swapped pages",
        "node/reclaim/oom.py",
        "oom_badness",
        "return get_mm_rss(state, mm_index) + mm.nr_swap + mm.nr_page_tables + adjusted",
        "return get_mm_rss(state, mm_index) + mm.nr_page_tables + adjusted",
        suite("node/reclaim/test_oom.py", "test_badness_counts_swapped_pages_and_the_adjustment_decides"),
    ),
    Fault(
        "a page used once is reclaimed",
        "node/reclaim/shrink.py",
        "_check_references",
        "if nr_referenced == 0:",
        "if nr_referenced <= 1:",
        suite("node/reclaim/test_vmscan.py", "test_the_oldest_unused_pages_go_first_and_used_ones_stay"),
    ),
)
