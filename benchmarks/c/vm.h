/* The twin of node/vm as far as anonymous memory of one process goes: first-touch faults, munmap. */
#pragma once
#include "phys.h"
#include "tlb.h"

#define MAPPED_BITS (PTE_PRESENT | PTE_USER | PTE_ACCESSED)

/* --- pools, anon_vmas, areas ------------------------------------------------------------------------- */

static int64_t pool_alloc(State *s, int64_t which)
{
    struct pool *pool = &s->pool[which];
    int64_t index = pool->first_free;
    if (index != NIL)
        pool->first_free = s->pool_link[pool->first_link + index];
    else if (pool->mark < pool->capacity)
        index = pool->mark++;
    else
        return NIL;
    pool->nr_used++;
    return index;
}

static void pool_free(State *s, int64_t which, int64_t index)
{
    struct pool *pool = &s->pool[which];
    s->pool_link[pool->first_link + index] = pool->first_free;
    pool->first_free = (int32_t)index;
    pool->nr_used--;
}

static int64_t anon_vma_prepare(State *s, int64_t vma)
{
    if (s->vma[vma].anon_vma != 0)
        return 0;
    int64_t index = pool_alloc(s, POOL_ANON_VMA), chain_index = pool_alloc(s, POOL_ANON_VMA_CHAIN);
    if (index == NIL || chain_index == NIL)
        return NIL;
    struct anon_vma *anon_vma = &s->anon_vma[index];
    struct anon_vma_chain *chain = &s->anon_vma_chain[chain_index];
    chain->vma = (int32_t)vma;
    chain->anon_vma = (int32_t)index;
    chain->next_of_vma = s->vma[vma].first_chain;
    s->vma[vma].first_chain = (int32_t)chain_index;
    chain->prev = chain->next = NIL;
    anon_vma->first_chain = (int32_t)chain_index;
    anon_vma->refcount = 1;
    anon_vma->root = (int32_t)index;
    s->vma[vma].anon_vma = (int32_t)index;
    return 0;
}

static void unlink_anon_vmas(State *s, int64_t vma)
{
    int64_t index = s->vma[vma].first_chain;
    while (index != NIL) {
        struct anon_vma_chain *chain = &s->anon_vma_chain[index];
        struct anon_vma *anon_vma = &s->anon_vma[chain->anon_vma];
        int64_t following = chain->next_of_vma;
        if (chain->prev == NIL)
            anon_vma->first_chain = chain->next;
        else
            s->anon_vma_chain[chain->prev].next = chain->next;
        if (chain->next != NIL)
            s->anon_vma_chain[chain->next].prev = chain->prev;
        if (--anon_vma->refcount == 0)
            pool_free(s, POOL_ANON_VMA, chain->anon_vma);
        pool_free(s, POOL_ANON_VMA_CHAIN, index);
        index = following;
    }
    s->vma[vma].first_chain = NIL;
    s->vma[vma].anon_vma = 0;
}

static int64_t find_vma(State *s, int64_t mm, int64_t vaddr)
{
    int64_t index = s->mm[mm].last_found;
    if (index != NIL && s->vma[index].start <= vaddr && vaddr < s->vma[index].end)
        return index;
    for (index = s->mm[mm].first_vma; index != NIL; index = s->vma[index].next)
        if (vaddr < s->vma[index].end) {
            s->mm[mm].last_found = (int32_t)index;
            return index;
        }
    return NIL;
}

static void remove_vma(State *s, int64_t index)
{
    struct vma *vma = &s->vma[index];
    struct mm *mm = &s->mm[vma->mm];
    if (vma->prev == NIL)
        mm->first_vma = vma->next;
    else
        s->vma[vma->prev].next = vma->next;
    if (vma->next != NIL)
        s->vma[vma->next].prev = vma->prev;
    if (mm->last_found == index)
        mm->last_found = NIL;
    mm->nr_vmas--;
    pool_free(s, POOL_VMA, index);
}

/* --- page tables -------------------------------------------------------------------------------------- */

static int64_t mix64(uint64_t word)
{
    word = (word ^ word >> 30) * 0xBF58476D1CE4E5B9u;
    word = (word ^ word >> 27) * 0x94D049BB133111EBu;
    return (int64_t)(word ^ word >> 31);
}

static int64_t table_content(const State *s, int64_t pfn)
{
    int64_t key = mix64((uint64_t)(mix64(PATTERN_TABLE) ^ s->knob[KNOB_CONTENT_KEY]));
    return mix64((uint64_t)key + (uint64_t)pfn) & ~(int64_t)FIRST_BYTE;
}

static int64_t alloc_table(State *s, int64_t mm)
{
    int64_t pfn = alloc_page(s);
    if (pfn == NIL)
        return NIL;
    s->page[pfn].page_flags |= PAGE_FLAG_PAGE_TABLE;
    s->page[pfn].content = table_content(s, pfn);
    for (int64_t i = 0; i < ENTRIES_PER_TABLE; i++)
        s->pt_word[(pfn << TABLE_SHIFT) + i] = 0;
    s->vm_stat[VM_STAT_NR_PAGE_TABLE_PAGES]++;
    s->mm[mm].nr_page_tables++;
    return pfn;
}

static void free_table(State *s, int64_t mm, int64_t pfn)
{
    free_page(s, pfn);
    s->vm_stat[VM_STAT_NR_PAGE_TABLE_PAGES]--;
    s->mm[mm].nr_page_tables--;
}

static int64_t pte_position(const State *s, int64_t pgd, int64_t vaddr)
{
    int64_t table = pgd;
    for (int64_t level = 0; level < NR_LEVELS - 1; level++) {
        int64_t word = s->pt_word[entry_position(table, vaddr, TOP_SHIFT - TABLE_SHIFT * level)];
        if (!(word & PTE_PRESENT))
            return NIL;
        table = pte_pfn(word);
    }
    return entry_position(table, vaddr, PAGE_SHIFT);
}

static int64_t pte_alloc(State *s, int64_t mm, int64_t vaddr)
{
    int64_t table = s->mm[mm].pgd_pfn;
    for (int64_t level = 0; level < NR_LEVELS - 1; level++) {
        int64_t position = entry_position(table, vaddr, TOP_SHIFT - TABLE_SHIFT * level);
        int64_t word = s->pt_word[position];
        if (word & PTE_PRESENT) {
            table = pte_pfn(word);
            continue;
        }
        table = alloc_table(s, mm);
        if (table == NIL)
            return NIL;
        s->pt_word[position] = (table << PAGE_SHIFT) | TABLE_BITS;
    }
    return entry_position(table, vaddr, PAGE_SHIFT);
}

static void free_tables_of_level(State *s, int64_t mm, int64_t shift)
{
    int64_t floor = s->request[REQUEST_A0], ceiling = s->request[REQUEST_A1];
    int64_t span = 1LL << (shift + TABLE_SHIFT);
    for (int64_t vaddr = s->request[REQUEST_A2] / span * span; vaddr < s->request[REQUEST_A3]; vaddr += span) {
        if (vaddr < floor || (ceiling >= 0 && vaddr + span > ceiling))
            continue;
        int64_t position = entry_position(s->mm[mm].pgd_pfn, vaddr, TOP_SHIFT);
        for (int64_t level = 1; level < NR_LEVELS; level++) {
            int64_t word = s->pt_word[position];
            if (!(word & PTE_PRESENT))
                break;
            if (TOP_SHIFT - TABLE_SHIFT * level == shift) {
                s->pt_word[position] = 0;
                free_table(s, mm, pte_pfn(word));
                break;
            }
            position = entry_position(pte_pfn(word), vaddr, TOP_SHIFT - TABLE_SHIFT * level);
        }
    }
}

/* --- faults and unmapping ------------------------------------------------------------------------------ */

static int64_t handle_mm_fault(State *s, int64_t mm, int64_t vaddr)
{
    int64_t vma = find_vma(s, mm, vaddr);
    if (vma == NIL || s->vma[vma].start > vaddr || !(s->vma[vma].vm_flags & VM_FLAG_WRITE))
        return VM_FAULT_SEGV;
    s->vm_event[VM_EVENT_PGFAULT]++;
    if (s->current[CURRENT_MM])
        s->mm[s->current[CURRENT_MM]].minflt++;
    s->current[CURRENT_CLOCK_PS] += s->cost[COST_PAGE_FAULT];
    int64_t position = pte_position(s, s->mm[mm].pgd_pfn, vaddr);
    if (position != NIL && s->pt_word[position] != 0)
        return VM_FAULT_SEGV;
    position = pte_alloc(s, mm, vaddr);
    if (position == NIL || anon_vma_prepare(s, vma) == NIL)
        return VM_FAULT_OOM;
    int64_t pfn = alloc_page(s);
    if (pfn == NIL)
        return VM_FAULT_OOM;
    struct page *page = &s->page[pfn];
    page->page_flags |= PAGE_FLAG_ANON;
    page->mapping = s->vma[vma].anon_vma;
    page->index = vaddr >> PAGE_SHIFT;
    page->page_flags |= PAGE_FLAG_ANON_EXCLUSIVE;
    if (++page->mapcount == 1)
        s->vm_stat[VM_STAT_NR_ANON_PAGES]++;
    lru_add(s, LRU_LIST_INACTIVE_ANON, pfn);
    s->current[CURRENT_CLOCK_PS] += s->cost[COST_PAGE_ZERO];
    s->mm[mm].nr_anon++;
    s->pt_word[position] = (pfn << PAGE_SHIFT) | MAPPED_BITS | PTE_DIRTY | PTE_WRITE;
    return VM_FAULT_DONE;
}

static int64_t touch(State *s, int64_t mm, int64_t vaddr, int64_t write)
{
    for (;;) {
        int64_t pfn = access_page(s, mm, vaddr, write);
        if (pfn != NIL) {
            s->hw_event[HW_EVENT_MEMORY_ACCESS]++;
            s->current[CURRENT_CLOCK_PS] += s->cost[COST_MEMORY_ACCESS];
            return pfn;
        }
        int64_t outcome = handle_mm_fault(s, mm, vaddr);
        if (outcome) {
            s->request[REQUEST_R0] = outcome;
            return NIL;
        }
    }
}

static void zap_pte(State *s, int64_t mm, int64_t position)
{
    int64_t pte = s->pt_word[position], pfn = pte_pfn(pte);
    struct page *page = &s->page[pfn];
    s->pt_word[position] = 0;
    if (!(pte & PTE_PRESENT) || page->page_flags & PAGE_FLAG_ZERO_PAGE || page->mapcount <= 0) {
        s->panic[0] = PANIC_MAPCOUNT;
        return;
    }
    s->mm[mm].nr_anon--;
    if (pte & PTE_DIRTY)
        page->page_flags |= PAGE_FLAG_DIRTY;
    if (--page->mapcount == 0)
        s->vm_stat[VM_STAT_NR_ANON_PAGES]--;
    if (--page->refcount < 0)
        s->panic[0] = PANIC_REFCOUNT;
    if (page->refcount == 0) {
        if (page->mapcount != 0)
            s->panic[0] = PANIC_MAPCOUNT;
        if (page->page_flags & PAGE_FLAG_LRU)
            lru_del(s, pfn);
        free_page(s, pfn);
    }
}

static int64_t unmap_area(State *s, int64_t index)
{
    struct vma *vma = &s->vma[index];
    int64_t mm = vma->mm, start = vma->start, end = vma->end, nr_pages = 0;
    for (int64_t vaddr = start; vaddr < end;) {
        int64_t border = (vaddr / HUGE_PAGE_SIZE + 1) * HUGE_PAGE_SIZE;
        if (border > end)
            border = end;
        int64_t position = pte_position(s, s->mm[mm].pgd_pfn, vaddr);
        if (position != NIL)
            for (int64_t i = 0; i < (border - vaddr) >> PAGE_SHIFT; i++)
                if (s->pt_word[position + i] != 0) {
                    zap_pte(s, mm, position + i);
                    nr_pages++;
                }
        vaddr = border;
    }
    s->request[REQUEST_A0] = vma->prev == NIL ? 0 : s->vma[vma->prev].end;
    s->request[REQUEST_A1] = vma->next == NIL ? -1 : s->vma[vma->next].start;
    s->request[REQUEST_A2] = start;
    s->request[REQUEST_A3] = end;
    for (int64_t level = 0; level < NR_LEVELS - 1; level++)
        free_tables_of_level(s, mm, PAGE_SHIFT + TABLE_SHIFT * level);
    unlink_anon_vmas(s, index);
    remove_vma(s, index);
    flush_tlb_mm(s, mm);
    return nr_pages;
}
