/* The twin of node/vm/fork.py: a second address space over the same frames. */
#pragma once
#include "vm.h"

/* --- an empty address space (node/vm/mmap.py, page_tables.py, node/kmap/pti.py) ------------------------ */

static void init_mm(State *s, int64_t index)
{
    struct mm *mm = &s->mm[index];
    mm->brk_start = mm->brk = BRK_START;
    mm->mmap_top = s->knob[KNOB_TASK_SIZE] - STACK_GAP_BYTES;
    mm->minflt = mm->majflt = mm->stall_ps = 0;
    mm->ctx_id = ++s->current[CURRENT_LAST_CTX_ID];
    mm->tlb_gen = 0;
    mm->first_vma = mm->last_found = NIL;
    mm->nr_vmas = mm->nr_anon = mm->nr_swap = mm->nr_zero = mm->nr_page_tables = 0;
    mm->alive = mm->mergeable = 0;
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

/* --- areas (node/vm/vma.py, rmap.py) -------------------------------------------------------------------- */

static int64_t insert_vma(State *s, int64_t mm, int64_t start, int64_t end, int32_t vm_flags)
{
    int64_t index = pool_alloc(s, POOL_VMA), before = NIL, after = s->mm[mm].first_vma;
    if (index == NIL)
        UNREACHED();
    for (; after != NIL && s->vma[after].start < start; after = s->vma[after].next)
        before = after;
    struct vma *vma = &s->vma[index];
    vma->start = start;
    vma->end = end;
    vma->vm_flags = vm_flags;
    vma->mm = (int32_t)mm;
    vma->anon_vma = 0;
    vma->first_chain = NIL;
    vma->swap_ra = 0;
    vma->prev = (int32_t)before;
    vma->next = (int32_t)after;
    if (before == NIL)
        s->mm[mm].first_vma = (int32_t)index;
    else
        s->vma[before].next = (int32_t)index;
    if (after != NIL)
        s->vma[after].prev = (int32_t)index;
    s->mm[mm].nr_vmas++;
    return index;
}

static void anon_vma_fork(State *s, int64_t child_vma, int64_t parent_vma)
{
    if (s->vma[parent_vma].anon_vma == 0)
        return;
    for (int64_t i = s->vma[parent_vma].first_chain; i != NIL; i = s->anon_vma_chain[i].next_of_vma)
        link_anon_vma(s, child_vma, s->anon_vma_chain[i].anon_vma);
    new_anon_vma(s, child_vma);
    int32_t root = s->anon_vma[s->vma[parent_vma].anon_vma].root;
    s->anon_vma[s->vma[child_vma].anon_vma].root = root;
    s->anon_vma[root].refcount++;
}

/* --- entries -------------------------------------------------------------------------------------------- */

static int64_t copy_present(State *s, int64_t position, int64_t to)
{
    int64_t pte = s->pt_word[position];
    struct page *page = &s->page[pte_pfn(pte)];
    s->pt_word[position] = pte & ~(int64_t)PTE_WRITE;
    s->pt_word[to] = pte & ~(int64_t)(PTE_WRITE | PTE_ACCESSED);
    if (page->page_flags & PAGE_FLAG_ZERO_PAGE)
        UNREACHED();
    page->page_flags &= ~PAGE_FLAG_ANON_EXCLUSIVE;
    page->refcount++;
    page->mapcount++;
    return 1;
}

static void copy_entries(State *s, int64_t child, int64_t parent, int64_t vaddr, int64_t end)
{
    int64_t position = pte_position(s, s->mm[parent].pgd_pfn, vaddr), nr_anon = 0;
    for (; s->pt_word[position] == 0; position++)
        if ((vaddr += 1 << PAGE_SHIFT) == end)
            return;
    int64_t distance = pte_alloc(s, child, vaddr) - position;
    if (s->knob[KNOB_IS_HOST])
        UNREACHED();
    for (int64_t at = position; at < position + ((end - vaddr) >> PAGE_SHIFT); at++) {
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
        if (position != NIL) {
            int64_t table = position >> s->knob[KNOB_TABLE_SHIFT];
            s->page[table].refcount++;
            copy_entries(s, child, parent, vaddr, border);
            s->page[table].refcount--;
        }
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
    if (parent_mm->mergeable)
        UNREACHED();
    for (int64_t i = parent_mm->first_vma; i != NIL; i = s->vma[i].next) {
        int64_t copy = insert_vma(s, child, s->vma[i].start, s->vma[i].end, s->vma[i].vm_flags);
        anon_vma_fork(s, copy, i);
        if (s->vma[i].anon_vma)
            copy_area(s, child, i);
    }
    child_mm->alive = 1;
    flush_tlb_range(s, parent, 0, FLUSH_ALL);
    return child;
}
