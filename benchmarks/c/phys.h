/* The twin of node/phys and node/reclaim/lru.py: buddy system, per-CPU lists, watermarks, LRU lists. */
#pragma once
#include "base.h"

static int64_t zone_of(const State *s, int64_t pfn) { return s->pageblock[pfn >> PAGEBLOCK_ORDER].zone; }

static int64_t pageblock_type(const State *s, int64_t pfn)
{
    return s->pageblock[pfn >> PAGEBLOCK_ORDER].migrate_type;
}

static int64_t gfp_zone(int64_t gfp)
{
    if (gfp & GFP_DMA)
        return ZONE_ID_DMA;
    if (gfp & GFP_DMA32)
        return ZONE_ID_DMA32;
    if (gfp & GFP_HIGHMEM)
        return gfp & GFP_MOVABLE ? ZONE_ID_MOVABLE : ZONE_ID_HIGHMEM;
    return ZONE_ID_NORMAL;
}

static int64_t gfp_migrate_type(int64_t gfp)
{
    return gfp >> TYPE_SHIFT & (MIGRATE_TYPE_MOVABLE | MIGRATE_TYPE_RECLAIMABLE);
}

/* --- buddy ------------------------------------------------------------------------------------------ */

static struct free_list *free_list(State *s, int64_t zone, int64_t order, int64_t type)
{
    return &s->free_list[(zone * NR_ORDERS + order) * NR_MIGRATE_TYPES + type];
}

static void add_block(State *s, int64_t zone, int64_t pfn, int64_t to_tail)
{
    struct page *page = &s->page[pfn];
    page->page_flags |= PAGE_FLAG_BUDDY;
    struct free_list *list = free_list(s, zone, page->order, page->migrate_type);
    if (to_tail) {
        page->next = NIL;
        page->prev = list->last;
        if (list->last == NIL)
            list->first = (int32_t)pfn;
        else
            s->page[list->last].next = (int32_t)pfn;
        list->last = (int32_t)pfn;
    } else {
        page->prev = NIL;
        page->next = list->first;
        if (list->first == NIL)
            list->last = (int32_t)pfn;
        else
            s->page[list->first].prev = (int32_t)pfn;
        list->first = (int32_t)pfn;
    }
    s->free_area[zone * NR_ORDERS + page->order].nr_free++;
}

static void take_block(State *s, int64_t zone, int64_t pfn)
{
    struct page *page = &s->page[pfn];
    struct free_list *list = free_list(s, zone, page->order, page->migrate_type);
    if (page->prev == NIL)
        list->first = page->next;
    else
        s->page[page->prev].next = page->next;
    if (page->next == NIL)
        list->last = page->prev;
    else
        s->page[page->next].prev = page->prev;
    page->page_flags &= ~PAGE_FLAG_BUDDY;
    s->free_area[zone * NR_ORDERS + page->order].nr_free--;
}

static void count_free(State *s, int64_t zone, int64_t change)
{
    s->zone[zone].nr_free += change;
    s->vm_stat[VM_STAT_NR_FREE_PAGES] += change;
}

static int64_t rmqueue_smallest(State *s, int64_t zone, int64_t order, int64_t type)
{
    for (int64_t found = order; found < NR_ORDERS; found++) {
        int64_t pfn = free_list(s, zone, found, type)->first;
        if (pfn == NIL)
            continue;
        take_block(s, zone, pfn);
        for (int64_t half = found - 1; half >= order; half--) {
            struct page *other = &s->page[pfn + (1LL << half)];
            other->order = (int8_t)half;
            other->migrate_type = (int8_t)type;
            add_block(s, zone, pfn + (1LL << half), 0);
        }
        s->page[pfn].order = (int8_t)order;
        s->page[pfn].migrate_type = (int8_t)type;
        return pfn;
    }
    return NIL;
}

static int64_t is_free_block(const State *s, int64_t zone, int64_t pfn, int64_t order)
{
    if (pfn >= s->zone[zone].end_pfn)
        return 0;
    const struct page *page = &s->page[pfn];
    if (!(page->page_flags & PAGE_FLAG_BUDDY) || page->order != order)
        return 0;
    return order < PAGEBLOCK_ORDER || zone_of(s, pfn) == zone;
}

static void free_one_page(State *s, int64_t pfn, int64_t order, int64_t type, int64_t to_tail)
{
    int64_t zone = zone_of(s, pfn);
    while (order < MAX_ORDER) {
        int64_t buddy = pfn ^ (1LL << order);
        if (!is_free_block(s, zone, buddy, order))
            break;
        if (order >= PAGEBLOCK_ORDER && pageblock_type(s, buddy) != type
            && max64(pageblock_type(s, buddy), type) >= NR_PCP_TYPES)
            break;
        take_block(s, zone, buddy);
        pfn &= buddy;
        order++;
    }
    if (!to_tail && order < MAX_ORDER - 1) {
        int64_t parent = pfn & ~(1LL << order);
        to_tail = is_free_block(s, zone, parent ^ (1LL << (order + 1)), order + 1);
    }
    s->page[pfn].order = (int8_t)order;
    s->page[pfn].migrate_type = (int8_t)type;
    add_block(s, zone, pfn, to_tail);
}

/* --- fallback: no benchmark has a reserve for large requests ------------------------------------------ */

static int64_t fallback_type(State *s, int64_t zone, int64_t order, int64_t type)
{
    int64_t nearest = type == MIGRATE_TYPE_RECLAIMABLE ? MIGRATE_TYPE_UNMOVABLE : MIGRATE_TYPE_RECLAIMABLE;
    if (free_list(s, zone, order, nearest)->first != NIL)
        return nearest;
    int64_t last = type == MIGRATE_TYPE_MOVABLE ? MIGRATE_TYPE_UNMOVABLE : MIGRATE_TYPE_MOVABLE;
    return free_list(s, zone, order, last)->first != NIL ? last : NIL;
}

static int64_t may_steal(int64_t order, int64_t type)
{
    return order >= PAGEBLOCK_ORDER / 2 || type != MIGRATE_TYPE_MOVABLE;
}

static void move_block(State *s, int64_t zone, int64_t pfn, int64_t type)
{
    take_block(s, zone, pfn);
    s->page[pfn].migrate_type = (int8_t)type;
    add_block(s, zone, pfn, 1);
}

static int64_t boost_watermark(State *s, struct zone *zone)
{
    int64_t factor = s->knob[KNOB_WATERMARK_BOOST_FACTOR];
    if (factor == 0 || BOOST_MIN_PAGEBLOCKS * PAGEBLOCK_PAGES > zone->managed || zone->high == 0)
        return 0;
    zone->boost = min64(zone->boost + PAGEBLOCK_PAGES, max64(zone->high * factor / BOOST_UNIT, PAGEBLOCK_PAGES));
    return 1;
}

static void steal(State *s, int64_t pfn, int64_t type, int64_t alloc_flags)
{
    int64_t zone = zone_of(s, pfn), order = s->page[pfn].order, old_type = pageblock_type(s, pfn);
    if (old_type >= NR_PCP_TYPES)
        UNREACHED();
    if (order >= PAGEBLOCK_ORDER) {
        for (int64_t block = pfn >> PAGEBLOCK_ORDER; block < (pfn + (1LL << order)) >> PAGEBLOCK_ORDER; block++)
            s->pageblock[block].migrate_type = (int8_t)type;
    } else {
        if (boost_watermark(s, &s->zone[zone]) && alloc_flags & ALLOC_FLAG_KSWAPD)
            s->zone[zone].boosted = 1;
        if (may_steal(order, type)) {
            int64_t start = pfn & ~(PAGEBLOCK_PAGES - 1), free = 0, movable = 0;
            int64_t end = min64(start + PAGEBLOCK_PAGES, s->zone[zone].end_pfn);
            for (int64_t at = start; at < end;) {
                const struct page *page = &s->page[at];
                if (page->page_flags & PAGE_FLAG_BUDDY) {
                    free += 1LL << page->order;
                    move_block(s, zone, at, type);
                    at += 1LL << page->order;
                    continue;
                }
                movable += !!(page->page_flags & PAGE_FLAG_LRU);
                at++;
            }
            int64_t alike = movable;
            if (type != MIGRATE_TYPE_MOVABLE)
                alike = old_type == MIGRATE_TYPE_MOVABLE ? PAGEBLOCK_PAGES - free - movable : 0;
            if (free + alike >= PAGEBLOCK_PAGES / 2)
                s->pageblock[pfn >> PAGEBLOCK_ORDER].migrate_type = (int8_t)type;
            return;
        }
    }
    move_block(s, zone, pfn, type);
}

static int64_t rmqueue_fallback(State *s, int64_t zone, int64_t order, int64_t type, int64_t alloc_flags)
{
    int64_t lowest = order < PAGEBLOCK_ORDER && alloc_flags & ALLOC_FLAG_NOFRAGMENT ? PAGEBLOCK_ORDER : order;
    int64_t found = NIL, at = MAX_ORDER;
    for (; at >= lowest; at--)
        if ((found = fallback_type(s, zone, at, type)) != NIL)
            break;
    if (found == NIL)
        return 0;
    if (at > order && !may_steal(at, type)) {
        at = order;
        while ((found = fallback_type(s, zone, at, type)) == NIL)
            at++;
    }
    steal(s, free_list(s, zone, at, found)->first, type, alloc_flags);
    s->vm_event[VM_EVENT_MM_PAGE_ALLOC_EXTFRAG]++;
    return 1;
}

static int64_t rmqueue(State *s, int64_t zone, int64_t order, int64_t type, int64_t alloc_flags)
{
    int64_t pfn = rmqueue_smallest(s, zone, order, type);
    if (pfn == NIL && rmqueue_fallback(s, zone, order, type, alloc_flags))
        pfn = rmqueue_smallest(s, zone, order, type);
    return pfn;
}

/* --- per-CPU lists ------------------------------------------------------------------------------------ */

static int64_t pcp_index(const State *s, int64_t zone)
{
    return s->current[CURRENT_CPU] * s->zone_length + zone;
}

static int64_t is_pcp_order(int64_t order) { return order <= COSTLY_ORDER || order == PAGEBLOCK_ORDER; }

static int64_t list_of(int64_t order, int64_t type)
{
    return order > COSTLY_ORDER ? NR_LOW_ORDER_LISTS + (type == MIGRATE_TYPE_MOVABLE) : NR_PCP_TYPES * order + type;
}

static int64_t order_of_list(int64_t which)
{
    return which >= NR_LOW_ORDER_LISTS ? PAGEBLOCK_ORDER : which / NR_PCP_TYPES;
}

static int64_t pop_frame(State *s, int64_t index, int64_t which, int64_t nr_pages)
{
    struct pcp_list *list = &s->pcp_list[index * NR_PCP_LISTS + which];
    int64_t pfn = list->first;
    if (pfn == NIL)
        return NIL;
    s->pcp[index].free_factor >>= 1;
    s->pcp[index].count -= (int32_t)nr_pages;
    int32_t following = s->page[pfn].next;
    list->first = following;
    if (following == NIL)
        list->last = NIL;
    else
        s->page[following].prev = NIL;
    return pfn;
}

static void push_frame(State *s, int64_t index, int64_t which, int64_t pfn)
{
    struct pcp_list *list = &s->pcp_list[index * NR_PCP_LISTS + which];
    struct page *page = &s->page[pfn];
    page->page_flags = PAGE_FLAG_PCP;
    page->prev = NIL;
    page->next = list->first;
    if (list->first == NIL)
        list->last = (int32_t)pfn;
    else
        s->page[list->first].prev = (int32_t)pfn;
    list->first = (int32_t)pfn;
}

static int64_t refill(State *s, int64_t zone, int64_t order, int64_t type, int64_t alloc_flags)
{
    int64_t index = pcp_index(s, zone), fetched = 0, batch = s->pcp[index].batch;
    struct pcp_list *list = &s->pcp_list[index * NR_PCP_LISTS + list_of(order, type)];
    if (batch > 1)
        batch = max64(batch >> order, 2);
    for (; fetched < batch; fetched++) {
        int64_t pfn = rmqueue(s, zone, order, type, alloc_flags);
        if (pfn == NIL)
            break;
        struct page *page = &s->page[pfn];
        __builtin_prefetch(&s->page[pfn + FRAMES_AHEAD]);
        page->page_flags |= PAGE_FLAG_PCP;
        page->next = NIL;
        page->prev = list->last;
        if (list->last == NIL)
            list->first = (int32_t)pfn;
        else
            s->page[list->last].next = (int32_t)pfn;
        list->last = (int32_t)pfn;
    }
    s->pcp[index].count += (int32_t)(fetched << order);
    count_free(s, zone, -(fetched << order));
    s->vm_event[VM_EVENT_MM_PAGE_ALLOC_ZONE_LOCKED] += fetched;
    return fetched;
}

static void free_from_tail(State *s, int64_t index, int64_t which)
{
    struct pcp_list *list = &s->pcp_list[index * NR_PCP_LISTS + which];
    int64_t pfn = list->last;
    struct page *page = &s->page[pfn];
    list->last = page->prev;
    if (page->prev == NIL)
        list->first = NIL;
    else
        s->page[page->prev].next = NIL;
    page->page_flags &= ~PAGE_FLAG_PCP;
    if (pageblock_type(s, pfn) == MIGRATE_TYPE_ISOLATE)
        UNREACHED();
    free_one_page(s, pfn, order_of_list(which), page->migrate_type, 0);
}

static void free_pages_of_lists(State *s, int64_t index, int64_t nr_pages, int64_t which)
{
    int64_t left = min64(s->pcp[index].count, nr_pages), nr_freed = 0;
    which--;
    while (left > 0) {
        which = which < NR_PCP_LISTS - 1 ? which + 1 : 0;
        int64_t block = 1LL << order_of_list(which);
        while (left > 0 && s->pcp_list[index * NR_PCP_LISTS + which].first != NIL) {
            free_from_tail(s, index, which);
            s->vm_event[VM_EVENT_MM_PAGE_PCPU_DRAIN]++;
            s->pcp[index].count -= block;
            left -= block;
            nr_freed += block;
        }
    }
    count_free(s, index % s->zone_length, nr_freed);
}

static int64_t nr_to_free(struct pcp *lists)
{
    if (lists->limit < lists->batch)
        return 1;
    int64_t most = lists->limit - lists->batch, wanted = (int64_t)lists->batch << lists->free_factor;
    if (wanted < most && lists->free_factor < BATCH_SCALE_MAX)
        lists->free_factor++;
    return max64(lists->batch, min64(wanted, most));
}

static void free_block_to_lists(State *s, int64_t pfn, int64_t order)
{
    int64_t type = pageblock_type(s, pfn);
    s->page[pfn].migrate_type = (int8_t)type;
    s->page[pfn].order = (int8_t)order;
    if (type >= NR_PCP_TYPES)
        type = MIGRATE_TYPE_MOVABLE;
    int64_t which = list_of(order, type), index = pcp_index(s, zone_of(s, pfn));
    push_frame(s, index, which, pfn);
    struct pcp *lists = &s->pcp[index];
    lists->count += 1 << order;
    if (order > 0 && order <= COSTLY_ORDER && lists->free_factor)
        free_pages_of_lists(s, index, lists->count, which);
    else if (lists->count >= lists->limit)
        free_pages_of_lists(s, index, nr_to_free(lists), which);
}

/* --- allocation: above the low watermark of the preferred zone; no benchmark comes to another --------- */

static int64_t has_block(State *s, int64_t zone, int64_t order)
{
    for (int64_t found = order; found < NR_ORDERS; found++)
        for (int64_t type = 0; type < NR_PCP_TYPES; type++)
            if (free_list(s, zone, found, type)->first != NIL)
                return 1;
    return 0;
}

static int64_t nofragment(const State *s, int64_t gfp, int64_t preferred)
{
    int64_t flags = gfp & GFP_KSWAPD_RECLAIM ? ALLOC_FLAG_KSWAPD : 0;
    if (s->zone[preferred].kind != ZONE_ID_NORMAL || !s->knob[KNOB_HAS_DMA32])
        return flags;
    if (s->knob[KNOB_NR_NODES] > 1 && s->zone[preferred - 1].managed == 0)
        return flags;
    return flags | ALLOC_FLAG_NOFRAGMENT;
}

__attribute__((noinline)) static int64_t alloc_beyond_lists(State *s, int64_t order, int64_t gfp, int64_t preferred)
{
    struct zone *zone = &s->zone[preferred];
    int64_t reserve = s->lowmem_reserve[preferred * NR_ZONES + gfp_zone(gfp)], type = gfp_migrate_type(gfp);
    int64_t flags = ALLOC_FLAG_WMARK_LOW | nofragment(s, gfp, preferred), pfn = NIL;
    int64_t left = zone->nr_free - ((1LL << order) - 1) - zone->nr_reserved_highatomic;
    if (left <= zone->low + zone->boost + reserve || (order && !has_block(s, preferred, order)))
        UNREACHED();
    if (is_pcp_order(order)) {
        int64_t index = pcp_index(s, preferred), which = list_of(order, type);
        pfn = pop_frame(s, index, which, 1LL << order);
        if (pfn == NIL && refill(s, preferred, order, type, flags))
            pfn = pop_frame(s, index, which, 1LL << order);
    }
    if (pfn == NIL && (pfn = rmqueue(s, preferred, order, type, flags)) != NIL) {
        count_free(s, preferred, -(1LL << order));
        s->vm_event[VM_EVENT_MM_PAGE_ALLOC_ZONE_LOCKED]++;
    }
    if (pfn == NIL || zone->boosted)
        UNREACHED();
    s->vm_event[VM_EVENT_PGALLOC_DMA + zone->kind] += 1LL << order;
    zone->numa_hit++;
    s->page[pfn].order = (int8_t)order;
    return pfn;
}

static int64_t alloc_pages(State *s, int64_t order, int64_t gfp)
{
    int64_t nid = s->cpu[s->current[CURRENT_CPU]].nid, pfn = NIL;
    int64_t preferred = s->zonelist[(nid * NR_ZONES + gfp_zone(gfp)) * (s->zone_length + 1)];
    if (preferred == NIL || s->knob[KNOB_IS_GUEST])
        UNREACHED();
    struct zone *zone = &s->zone[preferred];
    if (order == 0) {
        int64_t reserve = s->lowmem_reserve[preferred * NR_ZONES + gfp_zone(gfp)];
        if (zone->nr_free - zone->nr_reserved_highatomic > zone->low + zone->boost + reserve)
            pfn = pop_frame(s, pcp_index(s, preferred), gfp_migrate_type(gfp), 1);
        if (pfn != NIL) {
            s->vm_event[VM_EVENT_PGALLOC_DMA + zone->kind]++;
            zone->numa_hit++;
        }
    }
    if (pfn == NIL)
        pfn = alloc_beyond_lists(s, order, gfp, preferred);
    struct page *page = &s->page[pfn];
    page->refcount = 1;
    page->content = 0;
    page->word = 0;
    page->page_flags = 0;
    return pfn;
}

static void free_pages(State *s, int64_t pfn, int64_t order)
{
    struct page *page = &s->page[pfn];
    page->refcount = 0;
    page->page_flags = 0;
    page->mapping = 0;
    s->vm_event[VM_EVENT_PGFREE] += 1LL << order;
    int64_t type = pageblock_type(s, pfn);
    if (type == MIGRATE_TYPE_ISOLATE)
        UNREACHED();
    if (is_pcp_order(order)) {
        free_block_to_lists(s, pfn, order);
        return;
    }
    count_free(s, zone_of(s, pfn), 1LL << order);
    free_one_page(s, pfn, order, type, 0);
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
    if (which != LRU_LIST_INACTIVE_ANON || page->page_flags & PAGE_FLAG_HUGE)
        UNREACHED();
    page->page_flags = (page->page_flags & ~(PAGE_FLAG_ACTIVE | PAGE_FLAG_UNEVICTABLE)) | PAGE_FLAG_LRU;
    page->page_flags |= PAGE_FLAG_SWAPBACKED;
    lru->nr_pages++;
    s->vm_stat[VM_STAT_NR_INACTIVE_ANON + which]++;
}

static void lru_del(State *s, int64_t pfn)
{
    struct page *page = &s->page[pfn];
    if (page->page_flags & (PAGE_FLAG_UNEVICTABLE | PAGE_FLAG_HUGE))
        UNREACHED();
    int64_t which = page->page_flags & PAGE_FLAG_SWAPBACKED ? LRU_LIST_INACTIVE_ANON : LRU_LIST_INACTIVE_FILE;
    which += page->page_flags & PAGE_FLAG_ACTIVE ? 1 : 0;
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
