/* The twin of node/phys and node/reclaim/lru.py: buddy system, per-CPU lists, watermarks, LRU lists. */
#pragma once
#include "base.h"

static int64_t zone_of(int64_t pfn)
{
    return pfn < DMA_END_PFN ? ZONE_ID_DMA : pfn < DMA32_END_PFN ? ZONE_ID_DMA32 : ZONE_ID_NORMAL;
}

static void add_block(State *s, int64_t zone, int64_t pfn, int64_t order, int64_t to_tail)
{
    struct free_area *area = &s->free_area[zone * NR_ORDERS + order];
    struct page *page = &s->page[pfn];
    page->page_flags |= PAGE_FLAG_BUDDY;
    page->order = (int8_t)order;
    if (area->nr_free == 0) {
        page->next = page->prev = NIL;
        area->first = area->last = (int32_t)pfn;
    } else if (to_tail) {
        page->next = NIL;
        page->prev = area->last;
        s->page[area->last].next = (int32_t)pfn;
        area->last = (int32_t)pfn;
    } else {
        page->prev = NIL;
        page->next = area->first;
        s->page[area->first].prev = (int32_t)pfn;
        area->first = (int32_t)pfn;
    }
    area->nr_free++;
}

static void take_block(State *s, int64_t zone, int64_t pfn, int64_t order)
{
    struct free_area *area = &s->free_area[zone * NR_ORDERS + order];
    struct page *page = &s->page[pfn];
    if (page->prev == NIL)
        area->first = page->next;
    else
        s->page[page->prev].next = page->next;
    if (page->next == NIL)
        area->last = page->prev;
    else
        s->page[page->next].prev = page->prev;
    page->page_flags &= ~PAGE_FLAG_BUDDY;
    area->nr_free--;
}

static int64_t buddy_alloc(State *s, int64_t zone, int64_t order)
{
    for (int64_t found = order; found < NR_ORDERS; found++) {
        struct free_area *area = &s->free_area[zone * NR_ORDERS + found];
        if (area->nr_free == 0)
            continue;
        int64_t pfn = area->first;
        take_block(s, zone, pfn, found);
        for (int64_t half = found - 1; half >= order; half--)
            add_block(s, zone, pfn + (1LL << half), half, 0);
        s->zone[zone].nr_free -= 1LL << order;
        s->vm_stat[VM_STAT_NR_FREE_PAGES] -= 1LL << order;
        return pfn;
    }
    return NIL;
}

static int64_t is_free_block(const State *s, int64_t zone, int64_t pfn, int64_t order)
{
    if (pfn < s->zone[zone].start_pfn || pfn >= s->zone[zone].end_pfn)
        return 0;
    return s->page[pfn].page_flags & PAGE_FLAG_BUDDY && s->page[pfn].order == order;
}

static void buddy_free(State *s, int64_t pfn, int64_t order, int64_t to_tail)
{
    int64_t zone = zone_of(pfn);
    s->zone[zone].nr_free += 1LL << order;
    s->vm_stat[VM_STAT_NR_FREE_PAGES] += 1LL << order;
    while (order < MAX_ORDER) {
        int64_t buddy = pfn ^ (1LL << order);
        if (!is_free_block(s, zone, buddy, order))
            break;
        take_block(s, zone, buddy, order);
        pfn &= buddy;
        order++;
    }
    if (!to_tail && order < MAX_ORDER - 1) {
        int64_t parent = pfn & ~(1LL << order);
        to_tail = is_free_block(s, zone, parent ^ (1LL << (order + 1)), order + 1);
    }
    add_block(s, zone, pfn, order, to_tail);
}

static void refill(State *s, int64_t zone)
{
    struct pcp *lists = &s->pcp[s->current[CURRENT_CPU] * NR_ZONES + zone];
    for (int64_t i = 0; i < lists->batch; i++) {
        int64_t pfn = buddy_alloc(s, zone, 0);
        if (pfn == NIL)
            break;
        struct page *page = &s->page[pfn];
        page->page_flags |= PAGE_FLAG_PCP;
        page->next = NIL;
        page->prev = lists->last;
        if (lists->count == 0)
            lists->first = (int32_t)pfn;
        else
            s->page[lists->last].next = (int32_t)pfn;
        lists->last = (int32_t)pfn;
        lists->count++;
    }
}

static int64_t pcp_alloc(State *s, int64_t zone)
{
    struct pcp *lists = &s->pcp[s->current[CURRENT_CPU] * NR_ZONES + zone];
    if (lists->count == 0) {
        refill(s, zone);
        if (lists->count == 0)
            return NIL;
    }
    int64_t pfn = lists->first;
    struct page *page = &s->page[pfn];
    lists->first = page->next;
    if (--lists->count == 0)
        lists->last = NIL;
    else
        s->page[page->next].prev = NIL;
    page->page_flags &= ~PAGE_FLAG_PCP;
    return pfn;
}

static void free_from_tail(State *s, struct pcp *lists, int64_t nr_pages)
{
    nr_pages = min64(nr_pages, lists->count);
    for (int64_t i = 0; i < nr_pages; i++) {
        int64_t pfn = lists->last;
        struct page *page = &s->page[pfn];
        lists->last = page->prev;
        if (--lists->count == 0)
            lists->first = NIL;
        else
            s->page[lists->last].next = NIL;
        page->page_flags &= ~PAGE_FLAG_PCP;
        buddy_free(s, pfn, 0, 0);
    }
}

static void pcp_free(State *s, int64_t pfn)
{
    struct pcp *lists = &s->pcp[s->current[CURRENT_CPU] * NR_ZONES + zone_of(pfn)];
    struct page *page = &s->page[pfn];
    page->page_flags |= PAGE_FLAG_PCP;
    page->prev = NIL;
    if (lists->count == 0) {
        page->next = NIL;
        lists->last = (int32_t)pfn;
    } else {
        page->next = lists->first;
        s->page[lists->first].prev = (int32_t)pfn;
    }
    lists->first = (int32_t)pfn;
    int64_t high = lists->high;
    if (s->zone[zone_of(pfn)].reclaim_active)
        high = min64(high, lists->batch * RECLAIM_BATCHES);
    if (++lists->count >= high)
        free_from_tail(s, lists, lists->batch);
}

/* Above the low watermarks only: no benchmark comes to them. */
static int64_t alloc_page(State *s)
{
    int64_t memalloc = s->current[CURRENT_MEMALLOC], pfn = NIL;
    for (int64_t zone = NR_ZONES - 1; zone >= 0 && pfn == NIL; zone--) {
        const struct zone *z = &s->zone[zone];
        if (z->managed == 0 || (!memalloc && z->nr_free <= z->low + z->protection))
            continue;
        pfn = pcp_alloc(s, zone);
    }
    if (pfn == NIL || s->knob[KNOB_IS_GUEST])
        UNREACHED();
    struct page *page = &s->page[pfn];
    page->refcount = 1;
    page->content = 0;
    page->word = 0;
    page->page_flags = 0;
    s->vm_event[VM_EVENT_PGALLOC_DMA + zone_of(pfn)]++;
    return pfn;
}

static void free_page(State *s, int64_t pfn)
{
    struct page *page = &s->page[pfn];
    page->refcount = 0;
    page->page_flags = 0;
    page->mapping = 0;
    s->vm_event[VM_EVENT_PGFREE]++;
    pcp_free(s, pfn);
}

static void lru_add(State *s, int64_t which, int64_t pfn)
{
    struct lru *lru = &s->lru[which];
    struct page *page = &s->page[pfn];
    page->prev = NIL;
    if (lru->nr_pages == 0) {
        page->next = NIL;
        lru->last = (int32_t)pfn;
    } else {
        page->next = lru->first;
        s->page[lru->first].prev = (int32_t)pfn;
    }
    lru->first = (int32_t)pfn;
    page->page_flags = (page->page_flags & ~PAGE_FLAG_ACTIVE) | PAGE_FLAG_LRU;
    if (which == LRU_LIST_ACTIVE_ANON)
        page->page_flags |= PAGE_FLAG_ACTIVE;
    lru->nr_pages++;
    s->vm_stat[VM_STAT_NR_INACTIVE_ANON + which]++;
}

static void lru_del(State *s, int64_t pfn)
{
    struct page *page = &s->page[pfn];
    int64_t which = page->page_flags & PAGE_FLAG_ACTIVE ? LRU_LIST_ACTIVE_ANON : LRU_LIST_INACTIVE_ANON;
    struct lru *lru = &s->lru[which];
    if (page->prev == NIL)
        lru->first = page->next;
    else
        s->page[page->prev].next = page->next;
    if (page->next == NIL)
        lru->last = page->prev;
    else
        s->page[page->next].prev = page->prev;
    page->page_flags &= ~PAGE_FLAG_LRU;
    lru->nr_pages--;
    s->vm_stat[VM_STAT_NR_INACTIVE_ANON + which]--;
}
