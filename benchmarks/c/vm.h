/* The twin of node/vm as far as anonymous memory of one process goes: first-touch faults, munmap. */
#pragma once
#include "area_tree.h"
#include "kmap.h"
#include "phys.h"

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

static void link_anon_vma(State *s, int64_t vma, int64_t index)
{
    int64_t chain_index = pool_alloc(s, POOL_ANON_VMA_CHAIN);
    if (chain_index == NIL || s->knob[KNOB_RMAP_WALK] != RMAP_WALK_TREE)
        UNREACHED();
    struct anon_vma_chain *chain = &s->anon_vma_chain[chain_index];
    struct vma *area = &s->vma[vma];
    chain->vma = (int32_t)vma;
    chain->anon_vma = (int32_t)index;
    chain->next_of_vma = area->first_chain;
    chain->prev_of_vma = NIL;
    if (area->first_chain != NIL)
        s->anon_vma_chain[area->first_chain].prev_of_vma = (int32_t)chain_index;
    area->first_chain = (int32_t)chain_index;
    int64_t last = area->pgoff + ((area->end - area->start) >> PAGE_SHIFT) - 1;
    insert_max(s, anon_vma_root(s, index), chain_base(s) + chain_index, area->pgoff, last);
    s->anon_vma[index].refcount++;
}

static int64_t new_anon_vma(State *s, int64_t vma)
{
    int64_t index = pool_alloc(s, POOL_ANON_VMA);
    if (index == NIL)
        UNREACHED();
    s->rb_root[anon_vma_root(s, index)] = NIL;
    struct anon_vma *anon_vma = &s->anon_vma[index];
    anon_vma->first_chain = anon_vma->last_chain = NIL;
    anon_vma->refcount = anon_vma->nr_children = anon_vma->nr_active_vmas = 0;
    anon_vma->root = anon_vma->parent = (int32_t)index;
    link_anon_vma(s, vma, index);
    s->vma[vma].anon_vma = (int32_t)index;
    anon_vma->nr_active_vmas++;
    return index;
}

/* Of an area without neighbours, whose anon_vma it could share. */
static void anon_vma_prepare(State *s, int64_t vma)
{
    if (s->vma[vma].anon_vma != 0)
        return;
    if (s->vma[vma].next != NIL || s->vma[vma].prev != NIL)
        UNREACHED();
    s->anon_vma[new_anon_vma(s, vma)].nr_children = 1;
}

static void unlink_anon_vmas(State *s, int64_t vma)
{
    int64_t index = s->vma[vma].first_chain;
    if (s->vma[vma].anon_vma)
        s->anon_vma[s->vma[vma].anon_vma].nr_active_vmas--;
    while (index != NIL) {
        struct anon_vma_chain *chain = &s->anon_vma_chain[index];
        struct anon_vma *anon_vma = &s->anon_vma[chain->anon_vma];
        int64_t following = chain->next_of_vma, root = anon_vma_root(s, chain->anon_vma);
        erase_max(s, root, chain_base(s) + index);
        if (s->rb_root[root] == NIL)
            s->anon_vma[anon_vma->parent].nr_children--;
        if (--anon_vma->refcount == 0) {
            if (anon_vma->root != chain->anon_vma)
                UNREACHED();
            pool_free(s, POOL_ANON_VMA, chain->anon_vma);
        }
        pool_free(s, POOL_ANON_VMA_CHAIN, index);
        index = following;
    }
    s->vma[vma].first_chain = NIL;
    s->vma[vma].anon_vma = 0;
}

static int64_t gap_below(const State *s, int64_t index)
{
    const struct vma *vma = &s->vma[index];
    if (vma->vm_flags & VM_FLAG_GROWSDOWN)
        UNREACHED();
    return vma->start - (vma->prev == NIL ? 0 : s->vma[vma->prev].end);
}

static void gap_changed(State *s, int64_t index)
{
    if (index != NIL)
        change_own(s, vma_base(s) + index, gap_below(s, index));
}

static void remove_vma(State *s, int64_t index)
{
    struct vma *vma = &s->vma[index];
    struct mm *mm = &s->mm[vma->mm];
    if (vma->inode)
        UNREACHED();
    erase_max(s, mm_root(vma->mm), vma_base(s) + index);
    if (vma->prev == NIL)
        mm->first_vma = vma->next;
    else
        s->vma[vma->prev].next = vma->next;
    if (vma->next != NIL)
        s->vma[vma->next].prev = vma->prev;
    if (mm->last_found == index)
        mm->last_found = NIL;
    mm->nr_vmas--;
    gap_changed(s, vma->next);
    pool_free(s, POOL_VMA, index);
}

/* --- sizes of an address space (node/vm/commit.py), resident pages (node/vm/rss.py) --------------------- */

static void vm_stat_account(State *s, int64_t index, int64_t vm_flags, int64_t nr_pages)
{
    struct mm *mm = &s->mm[index];
    mm->total_vm += nr_pages;
    mm->peak_vm = max64(mm->peak_vm, mm->total_vm);
    if ((vm_flags & (VM_FLAG_WRITE | VM_FLAG_SHARED | VM_FLAG_GROWSDOWN)) != VM_FLAG_WRITE)
        UNREACHED();
    mm->data_vm += nr_pages;
}

static void uncount_area(State *s, int64_t index)
{
    const struct vma *vma = &s->vma[index];
    int64_t nr_pages = (vma->end - vma->start) >> PAGE_SHIFT;
    vm_stat_account(s, vma->mm, vma->vm_flags, -nr_pages);
    if (vma->vm_flags & VM_FLAG_ACCOUNT)
        s->vm_stat[VM_STAT_NR_COMMITTED] -= nr_pages;
    if (vma->vm_flags & VM_FLAG_LOCKED)
        UNREACHED();
}

static void sync_mm_rss(State *s, int64_t mm) { s->mm[mm].late_rss = s->mm[mm].rss_events = 0; }

static void check_sync_rss_stat(State *s)
{
    int64_t current = s->current[CURRENT_MM];
    if (current && ++s->mm[current].rss_events > EVENTS_BEFORE_SYNC + 1)
        sync_mm_rss(s, current);
}

static void note_late_page(State *s, int64_t mm)
{
    if (mm == s->current[CURRENT_MM])
        s->mm[mm].late_rss++;
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

static void count_tables(State *s, int64_t mm, int64_t level, int change)
{
    s->mm[mm].nr_page_tables += change;
    if (level >= max64(s->knob[KNOB_NR_LEVELS] - 2, 1))
        s->vm_stat[VM_STAT_NR_PAGE_TABLE_PAGES] += change;
}

/* --- gathering: an unmapping is always under way where tables are freed ------------------------------- */

static void gather_begin(State *s, int64_t mm, int64_t start, int64_t end)
{
    s->current[CURRENT_NR_GATHERED] = 0;
    s->current[CURRENT_NR_GATHER_BATCHES] = 0;
    s->current[CURRENT_GATHER_LIMIT] = FIRST_BATCH;
    s->current[CURRENT_GATHER_MM] = mm;
    s->current[CURRENT_GATHER_START] = start;
    s->current[CURRENT_GATHER_END] = end;
}

static void free_batch(State *s, int64_t first, int64_t behind)
{
    for (int64_t at = first; at < behind; at++) {
        int64_t pfn = s->gathered[at];
        struct page *page = &s->page[pfn];
        if (page->mapcount == 0 && page->page_flags & PAGE_FLAG_SWAPCACHE)
            UNREACHED();
        if (--page->refcount < 0)
            UNREACHED();
        if (page->refcount != 0) {
            s->gathered[at] = NIL;
            continue;
        }
        if (page->page_flags & (PAGE_FLAG_HUGE | PAGE_FLAG_MLOCKED) || page->mapcount != 0)
            UNREACHED();
        if (page->page_flags & PAGE_FLAG_LRU)
            lru_del(s, pfn);
    }
    for (int64_t at = behind - 1; at >= first; at--)
        if (s->gathered[at] != NIL)
            free_pages(s, s->gathered[at], 0);
}

static void free_gathered(State *s)
{
    int64_t count = s->current[CURRENT_NR_GATHERED], first = 0;
    for (int64_t behind = FIRST_BATCH; first < count; behind += BATCH_PAGES) {
        free_batch(s, first, min64(behind, count));
        first = behind;
    }
    s->current[CURRENT_NR_GATHERED] = 0;
    s->current[CURRENT_GATHER_LIMIT] = FIRST_BATCH;
}

__attribute__((noinline)) static void next_batch(State *s)
{
    int64_t limit = s->current[CURRENT_GATHER_LIMIT], nr_batches = s->current[CURRENT_NR_GATHER_BATCHES];
    if (limit == FIRST_BATCH + nr_batches * BATCH_PAGES) {
        if (nr_batches == MAX_BATCHES) {
            flush_tlb_range(s, s->current[CURRENT_GATHER_MM], s->current[CURRENT_GATHER_START],
                            s->current[CURRENT_GATHER_END]);
            free_gathered(s);
            return;
        }
        s->gather_batch[nr_batches] = (int32_t)alloc_pages(s, 0, GFP_NOWAIT);
        s->current[CURRENT_NR_GATHER_BATCHES] = nr_batches + 1;
    }
    s->current[CURRENT_GATHER_LIMIT] = limit + BATCH_PAGES;
}

static void gather_page(State *s, int64_t pfn)
{
    int64_t count = s->current[CURRENT_NR_GATHERED];
    s->gathered[count] = (int32_t)pfn;
    s->current[CURRENT_NR_GATHERED] = count + 1;
    if (count + 1 == s->current[CURRENT_GATHER_LIMIT])
        next_batch(s);
}

static void gather_finish(State *s)
{
    free_gathered(s);
    for (int64_t at = 0; at < s->current[CURRENT_NR_GATHER_BATCHES]; at++)
        free_pages(s, s->gather_batch[at], 0);
    s->current[CURRENT_NR_GATHER_BATCHES] = 0;
    s->current[CURRENT_GATHER_LIMIT] = 0;
}

static void make_table(State *s, int64_t pfn)
{
    int64_t shift = s->knob[KNOB_TABLE_SHIFT];
    s->page[pfn].page_flags |= PAGE_FLAG_PAGE_TABLE;
    s->page[pfn].private = 0;
    s->page[pfn].content = table_content(s, pfn);
    for (int64_t i = pfn << shift; i < (pfn + 1) << shift; i++)
        s->pt_word[i] = 0;
}

static int64_t alloc_table(State *s, int64_t mm, int64_t level)
{
    int64_t pfn = alloc_pages(s, 0, GFP_KERNEL);
    make_table(s, pfn);
    count_tables(s, mm, level, 1);
    return pfn;
}

static int64_t entry_position(const State *s, int64_t table, int64_t vaddr, int64_t level)
{
    const struct paging_level *here = &s->paging_level[level];
    return (table << s->knob[KNOB_TABLE_SHIFT]) + ((vaddr >> here->shift) & here->index_mask);
}

static int is_large_leaf(const State *s, int64_t level, int64_t word)
{
    return word & PTE_HUGE && s->paging_level[level].leaf;
}

static int64_t leaf_position(const State *s, int64_t pgd, int64_t vaddr, int64_t levels)
{
    int64_t table = pgd;
    for (int64_t level = 0; level < levels; level++) {
        int64_t word = s->pt_word[entry_position(s, table, vaddr, level)];
        if (!(word & PTE_PRESENT) || is_large_leaf(s, level, word))
            return NIL;
        table = pte_pfn(word);
    }
    return entry_position(s, table, vaddr, levels);
}

static int64_t pte_position(const State *s, int64_t pgd, int64_t vaddr)
{
    return leaf_position(s, pgd, vaddr, s->knob[KNOB_NR_LEVELS] - 1);
}

static void set_table(State *s, int64_t level, int64_t position, int64_t word)
{
    if (level == 0)
        set_pgd(s, position, word);
    else
        s->pt_word[position] = word;
}

static int64_t pte_alloc(State *s, int64_t mm, int64_t vaddr)
{
    int64_t table = s->mm[mm].pgd_pfn, levels = s->knob[KNOB_NR_LEVELS] - 1;
    for (int64_t level = 0; level < levels; level++) {
        int64_t position = entry_position(s, table, vaddr, level), word = s->pt_word[position];
        if (word & PTE_PRESENT) {
            table = pte_pfn(word);
            continue;
        }
        if (word != 0)
            UNREACHED();
        table = alloc_table(s, mm, level + 1);
        set_table(s, level, position, (table << PAGE_SHIFT) | TABLE_BITS);
    }
    return entry_position(s, table, vaddr, levels);
}

static int64_t free_tables_of_level(State *s, int64_t mm, int64_t level)
{
    int64_t floor = s->request[REQUEST_A0], ceiling = s->request[REQUEST_A1], nr_freed = 0;
    int64_t span = 1LL << s->paging_level[level - 1].shift;
    for (int64_t vaddr = s->request[REQUEST_A2] / span * span; vaddr < s->request[REQUEST_A3]; vaddr += span) {
        if (vaddr < floor || (ceiling >= 0 && vaddr + span > ceiling))
            continue;
        int64_t position = leaf_position(s, s->mm[mm].pgd_pfn, vaddr, level - 1);
        if (position == NIL)
            continue;
        int64_t word = s->pt_word[position];
        if (word & PTE_PRESENT && !is_large_leaf(s, level - 1, word)) {
            set_table(s, level - 1, position, 0);
            gather_page(s, pte_pfn(word));
            count_tables(s, mm, level, -1);
            nr_freed++;
        }
    }
    return nr_freed;
}

/* --- faults and unmapping ------------------------------------------------------------------------------ */

/* The bits of a writable entry. */
static int64_t written_bits(const State *s, int64_t vma)
{
    int64_t bits = MAPPED_BITS | PTE_DIRTY | PTE_WRITE;
    return s->vma[vma].vm_flags & VM_FLAG_EXEC ? bits : bits | s->knob[KNOB_NX_BIT];
}

static void set_user_pte(State *s, int64_t position, int64_t pte)
{
    s->pt_word[position] = pte;
    if (s->knob[KNOB_IS_HOST])
        UNREACHED();
}

static int64_t new_anon_page(State *s, int64_t vma, int64_t vaddr)
{
    anon_vma_prepare(s, vma);
    int64_t pfn = alloc_pages(s, 0, GFP_HIGHUSER_MOVABLE);
    struct page *page = &s->page[pfn];
    page->page_flags |= PAGE_FLAG_ANON | PAGE_FLAG_SWAPBACKED;
    page->mapping = s->vma[vma].anon_vma;
    page->index = s->vma[vma].pgoff + ((vaddr - s->vma[vma].start) >> PAGE_SHIFT);
    page->page_flags |= PAGE_FLAG_ANON_EXCLUSIVE;
    if (++page->mapcount == 1)
        s->vm_stat[VM_STAT_NR_ANON_PAGES]++;
    if (s->vma[vma].vm_flags & VM_FLAG_LOCKED)
        UNREACHED();
    lru_add(s, LRU_LIST_INACTIVE_ANON, pfn);
    return pfn;
}

static void do_anonymous_page(State *s, int64_t vma, int64_t position, int64_t vaddr)
{
    int64_t mm = s->vma[vma].mm;
    if (position == NIL)
        position = pte_alloc(s, mm, vaddr);
    int64_t pfn = new_anon_page(s, vma, vaddr);
    s->current[CURRENT_CLOCK_PS] += s->cost[COST_PAGE_ZERO];
    s->mm[mm].nr_anon++;
    note_late_page(s, mm);
    s->fault_outcome[FAULT_OUTCOME_ANON_NEW_PAGE]++;
    set_user_pte(s, position, (pfn << PAGE_SHIFT) | written_bits(s, vma));
}

static void do_wp_page(State *s, int64_t vma, int64_t position, int64_t vaddr); /* cow.h */

static int may_meet_huge(const State *s)
{
    return s->knob[KNOB_THP_ENABLED] != THP_MODE_NEVER || s->vm_stat[VM_STAT_NR_ANON_TRANSPARENT_HUGEPAGES]
           || s->current[CURRENT_HUGE_ZERO_USERS];
}

static int64_t handle_mm_fault(State *s, int64_t mm, int64_t vaddr, int64_t kind)
{
    int64_t vma = find_vma(s, mm, vaddr);
    if (vma == NIL || s->vma[vma].start > vaddr || kind != ACCESS_KIND_WRITE || !(s->vma[vma].vm_flags & VM_FLAG_WRITE))
        UNREACHED();
    s->vm_event[VM_EVENT_PGFAULT]++;
    if (s->current[CURRENT_MM])
        s->mm[s->current[CURRENT_MM]].minflt++;
    check_sync_rss_stat(s);
    s->current[CURRENT_CLOCK_PS] += s->cost[COST_PAGE_FAULT];
    int64_t position = pte_position(s, s->mm[mm].pgd_pfn, vaddr);
    int64_t pte = position == NIL ? 0 : s->pt_word[position];
    if (s->knob[KNOB_PAGEABLE_TABLES] || (position == NIL && may_meet_huge(s)) || s->vma[vma].inode)
        UNREACHED();
    if (pte == 0)
        do_anonymous_page(s, vma, position, vaddr);
    else if (pte & PTE_PRESENT && !(pte & PTE_WRITE))
        do_wp_page(s, vma, position, vaddr);
    else
        UNREACHED();
    return VM_FAULT_DONE;
}

static int64_t fault_in(State *s, int64_t mm, int64_t vaddr, int64_t kind)
{
    for (int i = 0; i < MAX_FAULTS_PER_ACCESS; i++) {
        const struct cpu *cpu = &s->cpu[s->current[CURRENT_CPU]];
        if (cpu->fault_vector != FAULT_VECTOR_PAGE_FAULT)
            UNREACHED();
        enter_kernel(s);
        int64_t outcome = handle_mm_fault(s, mm, vaddr, kind);
        if (cpu->mm == mm)
            leave_kernel(s);
        if (outcome) {
            s->request[REQUEST_R0] = outcome;
            return NIL;
        }
        int64_t pfn = access_after_fault(s, vaddr, kind);
        if (pfn != NIL)
            return pfn;
    }
    UNREACHED();
}

static int64_t touch(State *s, int64_t mm, int64_t vaddr, int64_t kind)
{
    if (s->knob[KNOB_DCACHE_MODE] != CACHE_MODE_OFF)
        UNREACHED();
    int64_t pfn = access_page(s, vaddr, kind);
    if (pfn == NIL) {
        pfn = fault_in(s, mm, vaddr, kind);
        if (pfn == NIL)
            return NIL;
    }
    s->hw_event[HW_EVENT_MEMORY_ACCESS]++;
    s->current[CURRENT_CLOCK_PS] += s->cost[COST_MEMORY_ACCESS];
    return pfn;
}

static void fetch_ahead(const State *s, int64_t position, int64_t last)
{
    __builtin_prefetch(&s->page[pte_pfn(s->pt_word[min64(position + ENTRIES_AHEAD, last)])]);
}

static void zap_pte(State *s, int64_t mm, int64_t position)
{
    int64_t pte = s->pt_word[position], pfn = pte_pfn(pte);
    struct page *page = &s->page[pfn];
    s->pt_word[position] = 0;
    int32_t unusual = PAGE_FLAG_ZERO_PAGE | PAGE_FLAG_HUGE;
    if (!(pte & PTE_PRESENT) || page->page_flags & unusual || !(page->page_flags & PAGE_FLAG_ANON))
        UNREACHED();
    s->mm[mm].nr_anon--;
    if (page->mapcount <= 0)
        UNREACHED();
    if (--page->mapcount == 0)
        s->vm_stat[VM_STAT_NR_ANON_PAGES]--;
    gather_page(s, pfn);
    if (s->knob[KNOB_IS_HOST])
        UNREACHED();
}

static int64_t unmap_area(State *s, int64_t index)
{
    struct vma *vma = &s->vma[index];
    int64_t mm = vma->mm, start = vma->start, end = vma->end, nr_pages = 0;
    if (s->knob[KNOB_PAGING_MODE] == PAGING_MODE_NONE)
        UNREACHED();
    gather_begin(s, mm, start, end);
    for (int64_t vaddr = start; vaddr < end;) {
        int64_t border = min64(end, (vaddr / HUGE_PAGE_SIZE + 1) * HUGE_PAGE_SIZE);
        int64_t position = pte_position(s, s->mm[mm].pgd_pfn, vaddr);
        if (position == NIL)
            UNREACHED();
        if (mm == s->current[CURRENT_MM])
            sync_mm_rss(s, mm);
        for (int64_t last = position + ((border - vaddr) >> PAGE_SHIFT) - 1; position <= last; position++) {
            fetch_ahead(s, position, last);
            if (s->pt_word[position] != 0) {
                zap_pte(s, mm, position);
                nr_pages++;
            }
        }
        vaddr = border;
    }
    s->request[REQUEST_A0] = vma->prev == NIL ? 0 : s->vma[vma->prev].end;
    s->request[REQUEST_A1] = vma->next == NIL ? -1 : s->vma[vma->next].start;
    s->request[REQUEST_A2] = start;
    s->request[REQUEST_A3] = end;
    int64_t nr_freed = 0;
    for (int64_t level = s->knob[KNOB_NR_LEVELS] - 1; level > 0; level--)
        nr_freed += free_tables_of_level(s, mm, level);
    uncount_area(s, index);
    unlink_anon_vmas(s, index);
    remove_vma(s, index);
    if (nr_pages || nr_freed)
        flush_tlb_range(s, mm, start, end);
    gather_finish(s);
    return nr_pages;
}
