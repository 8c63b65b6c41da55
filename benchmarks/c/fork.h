/* The twin of node/vm/fork.py: a second address space over the same frames. */
#pragma once
#include "vm.h"

/* --- an empty address space (node/vm/mm_init.py, page_tables.py, node/kmap/pti.py)----------------------- */

static void init_mm(State *s, int64_t index)
{
    struct mm *mm = &s->mm[index];
    mm->brk_start = mm->brk = BRK_START;
    mm->mmap_top = s->knob[KNOB_TASK_SIZE] - STACK_GAP_BYTES;
    mm->minflt = mm->majflt = mm->stall_ps = 0;
    mm->ctx_id = ++s->current[CURRENT_LAST_CTX_ID];
    mm->tlb_gen = 0;
    mm->total_vm = mm->data_vm = mm->exec_vm = mm->stack_vm = mm->locked_vm = mm->peak_vm = mm->peak_rss = 0;
    mm->stack_limit = STACK_LIMIT;
    mm->as_limit = mm->data_limit = mm->memlock_limit = INT64_MAX;
    mm->start_stack = mm->start_code = mm->end_code = mm->start_data = mm->end_data = 0;
    s->rb_root[mm_root(index)] = NIL;
    mm->first_vma = mm->last_found = NIL;
    mm->nr_vmas = mm->nr_anon = mm->nr_swap = mm->nr_zero = mm->nr_file = mm->nr_shmem = 0;
    mm->late_rss = mm->rss_events = mm->def_flags = mm->nr_page_tables = 0;
    mm->alive = mm->mergeable = mm->reaped = mm->hugepage = 0;
    mm->ksm_rmap_list = NIL;
    mm->ksm_rmap_items = mm->ksm_merging_pages = mm->ksm_zero_pages = 0;
    mm->oom_score_adj = mm->oom_victim = 0;
    mm->guest = NIL;
}

static void init_pgd_copy(State *s, int64_t pgd, int64_t master)
{
    int64_t shift = s->knob[KNOB_TABLE_SHIFT], first = s->knob[KNOB_KERNEL_PGD_INDEX];
    for (int64_t i = 0; i < first; i++)
        s->pt_word[(pgd << shift) + i] = 0;
    for (int64_t i = first; i < 1LL << shift; i++)
        s->pt_word[(pgd << shift) + i] = s->pt_word[(master << shift) + i];
}

static void alloc_pgd(State *s, int64_t mm)
{
    int64_t order = s->knob[KNOB_NR_LEVELS] >= MIN_LEVELS_64 ? PGD_ORDER : 0, master = s->knob[KNOB_SWAPPER_PGD];
    int64_t pfn = alloc_pages(s, order, GFP_KERNEL);
    for (int64_t table = pfn; table < pfn + (1LL << order); table++)
        make_table(s, table);
    init_pgd_copy(s, pfn, master);
    if (s->knob[KNOB_PTI])
        init_pgd_copy(s, pfn + 1, master + 1);
    s->mm[mm].pgd_pfn = (int32_t)pfn;
}

static int64_t new_mm_record(State *s)
{
    int64_t index = pool_alloc(s, POOL_MM);
    if (index == NIL)
        UNREACHED();
    init_mm(s, index);
    alloc_pgd(s, index);
    s->mm[index].alive = 1;
    return index;
}

/* --- areas (node/vm/vma.py, commit.py, anon_vma.py) ------------------------------------------------------ */

static void link_vma(State *s, int64_t index)
{
    struct vma *vma = &s->vma[index];
    int64_t below = area_at_or_below(s, vma->mm, vma->start);
    struct mm *mm = &s->mm[vma->mm];
    vma->prev = (int32_t)below;
    vma->next = below == NIL ? mm->first_vma : s->vma[below].next;
    if (below == NIL)
        mm->first_vma = (int32_t)index;
    else
        s->vma[below].next = (int32_t)index;
    if (vma->next != NIL)
        s->vma[vma->next].prev = (int32_t)index;
    insert_max(s, mm_root(vma->mm), vma_base(s) + index, vma->start, gap_below(s, index));
    gap_changed(s, vma->next);
    mm->nr_vmas++;
}

static void vm_enough_memory(State *s, int64_t nr_pages)
{
    int64_t total = max64(s->swap_area[0].nr_slots - SWAP_HEADER_PAGES, 0);
    for (int64_t zone = 0; zone < s->zone_length; zone++)
        total += s->zone[zone].managed;
    if (s->knob[KNOB_OVERCOMMIT_MEMORY] != OVERCOMMIT_GUESS || nr_pages > total)
        UNREACHED();
    s->vm_stat[VM_STAT_NR_COMMITTED] += nr_pages;
}

static int64_t copy_record(State *s, int64_t child, int64_t parent_vma)
{
    const struct vma *vma = &s->vma[parent_vma];
    int64_t nr_pages = (vma->end - vma->start) >> PAGE_SHIFT;
    if (vma->vm_flags & VM_FLAG_ACCOUNT)
        vm_enough_memory(s, nr_pages);
    int64_t index = pool_alloc(s, POOL_VMA);
    if (index == NIL || vma->inode || vma->vm_flags & VM_FLAG_DONTCOPY)
        UNREACHED();
    struct vma *copy = &s->vma[index];
    copy->start = vma->start;
    copy->end = vma->end;
    copy->pgoff = vma->pgoff;
    copy->vm_flags = vma->vm_flags & ~(VM_FLAG_LOCKED | VM_FLAG_LOCKONFAULT);
    copy->mm = (int32_t)child;
    copy->inode = copy->anon_vma = 0;
    copy->first_chain = NIL;
    copy->swap_ra = 0;
    link_vma(s, index);
    vm_stat_account(s, child, copy->vm_flags, nr_pages);
    return index;
}

static void anon_vma_clone(State *s, int64_t to, int64_t source)
{
    struct vma *copy = &s->vma[to];
    int64_t index = s->vma[source].first_chain;
    while (index != NIL && s->anon_vma_chain[index].next_of_vma != NIL)
        index = s->anon_vma_chain[index].next_of_vma;
    for (; index != NIL; index = s->anon_vma_chain[index].prev_of_vma) {
        int32_t anon_vma = s->anon_vma_chain[index].anon_vma;
        link_anon_vma(s, to, anon_vma);
        if (!copy->anon_vma && s->anon_vma[anon_vma].nr_children < 2 && !s->anon_vma[anon_vma].nr_active_vmas)
            copy->anon_vma = anon_vma;
    }
    if (copy->anon_vma)
        s->anon_vma[copy->anon_vma].nr_active_vmas++;
}

static void anon_vma_fork(State *s, int64_t child_vma, int64_t parent_vma)
{
    int32_t parent = s->vma[parent_vma].anon_vma;
    if (parent == 0)
        return;
    anon_vma_clone(s, child_vma, parent_vma);
    if (s->vma[child_vma].anon_vma)
        return;
    struct anon_vma *anon_vma = &s->anon_vma[new_anon_vma(s, child_vma)];
    anon_vma->root = s->anon_vma[parent].root;
    anon_vma->parent = parent;
    s->anon_vma[anon_vma->root].refcount++;
    s->anon_vma[parent].nr_children++;
}

/* --- entries -------------------------------------------------------------------------------------------- */

static int64_t copy_present(State *s, int64_t position, int64_t to)
{
    int64_t pte = s->pt_word[position];
    struct page *page = &s->page[pte_pfn(pte)];
    int32_t flags = page->page_flags;
    s->pt_word[position] = pte & ~(int64_t)PTE_WRITE;
    s->pt_word[to] = pte & ~(int64_t)(PTE_WRITE | PTE_ACCESSED);
    if (flags & (PAGE_FLAG_ZERO_PAGE | PAGE_FLAG_HUGE) || !(flags & PAGE_FLAG_ANON))
        UNREACHED();
    page->page_flags = flags & ~PAGE_FLAG_ANON_EXCLUSIVE;
    page->refcount++;
    page->mapcount++;
    return 1;
}

static void copy_entries(State *s, int64_t child, int64_t parent, int64_t vaddr, int64_t end)
{
    int64_t position = pte_position(s, s->mm[parent].pgd_pfn, vaddr), nr_anon = 0;
    int64_t distance = pte_alloc(s, child, vaddr) - position;
    if (s->knob[KNOB_IS_HOST])
        UNREACHED();
    for (int64_t at = position, last = position + ((end - vaddr) >> PAGE_SHIFT) - 1; at <= last; at++) {
        fetch_ahead(s, at, last);
        int64_t pte = s->pt_word[at];
        if (pte & MAPS_FRAME)
            nr_anon += copy_present(s, at, at + distance);
        else if (pte != 0)
            UNREACHED();
    }
    s->mm[child].nr_anon += (int32_t)nr_anon;
}

static void copy_area(State *s, int64_t child, int64_t parent_vma)
{
    int64_t parent = s->vma[parent_vma].mm, vaddr = s->vma[parent_vma].start, end = s->vma[parent_vma].end;
    if (s->knob[KNOB_PAGEABLE_TABLES])
        UNREACHED();
    while (vaddr < end) {
        int64_t border = min64(end, (vaddr / HUGE_PAGE_SIZE + 1) * HUGE_PAGE_SIZE);
        int64_t position = pte_position(s, s->mm[parent].pgd_pfn, vaddr);
        if (position == NIL)
            UNREACHED();
        int64_t table = position >> s->knob[KNOB_TABLE_SHIFT];
        s->page[table].refcount++;
        copy_entries(s, child, parent, vaddr, border);
        s->page[table].refcount--;
        vaddr = border;
    }
}

static int64_t fork_process(State *s, int64_t parent)
{
    int64_t child = new_mm_record(s);
    struct mm *child_mm = &s->mm[child];
    const struct mm *parent_mm = &s->mm[parent];
    child_mm->alive = 0;
    child_mm->brk_start = parent_mm->brk_start;
    child_mm->brk = parent_mm->brk;
    child_mm->mmap_top = parent_mm->mmap_top;
    child_mm->oom_score_adj = parent_mm->oom_score_adj;
    child_mm->start_stack = parent_mm->start_stack;
    child_mm->start_code = parent_mm->start_code;
    child_mm->end_code = parent_mm->end_code;
    child_mm->start_data = parent_mm->start_data;
    child_mm->end_data = parent_mm->end_data;
    child_mm->stack_limit = parent_mm->stack_limit;
    child_mm->as_limit = parent_mm->as_limit;
    child_mm->data_limit = parent_mm->data_limit;
    child_mm->memlock_limit = parent_mm->memlock_limit;
    if (parent_mm->mergeable)
        UNREACHED();
    for (int64_t i = parent_mm->first_vma; i != NIL; i = s->vma[i].next) {
        int64_t copy = copy_record(s, child, i);
        anon_vma_fork(s, copy, i);
        if (s->vma[i].anon_vma)
            copy_area(s, child, i);
    }
    child_mm->alive = 1;
    flush_tlb_range(s, parent, 0, FLUSH_ALL);
    return child;
}
