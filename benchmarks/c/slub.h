/* The twin of node/kalloc/slub_*.py: the fast paths, the CPUs' and the nodes' lists. Slabs are there already. */
#pragma once
#include "base.h"

static void slub_count(State *s, int64_t cache, int64_t item) { s->slub_stat[cache * SLUB_STAT_NR + item]++; }

static void slub_charge(State *s, int64_t cost) { s->current[CURRENT_CLOCK_PS] += s->cost[cost]; }

static struct kmem_cache_cpu *this_cpu(State *s, int64_t cache)
{
    return &s->kmem_cache_cpu[cache * s->knob[KNOB_NR_CPUS] + s->current[CURRENT_CPU]];
}

static int64_t slab_inuse(const State *s, int64_t slab) { return s->page[slab].private & COUNT_MASK; }

static struct kmem_cache_node *node_of_slab(State *s, int64_t cache, int64_t slab)
{
    int64_t nid = s->zone[s->pageblock[slab >> PAGEBLOCK_ORDER].zone].nid;
    return &s->kmem_cache_node[cache * s->knob[KNOB_NR_NODES] + nid];
}

static int64_t slub_link_of(State *s, int64_t cache, int64_t slab, int64_t paddr)
{
    int64_t offset = s->slub_cache[cache].link_offset;
    int64_t next = s->slab_word[(paddr + offset) >> WORD_SHIFT];
    int64_t frame = ((next + offset) >> PAGE_SHIFT) - slab;
    if (next != NO_OBJECT && (frame < 0 || frame >= 1LL << s->page[slab].order))
        UNREACHED();
    return next;
}

static void slub_set_link(State *s, int64_t cache, int64_t paddr, int64_t next)
{
    s->slab_word[(paddr + s->slub_cache[cache].link_offset) >> WORD_SHIFT] = next;
}

static void slub_add_partial(State *s, int64_t cache, int64_t slab, int64_t to_tail)
{
    struct kmem_cache_node *node = node_of_slab(s, cache, slab);
    struct page *page = &s->page[slab];
    if (node->nr_partial == 0) {
        page->next = page->prev = NIL;
        node->first = node->last = (int32_t)slab;
    } else if (to_tail) {
        page->next = NIL;
        page->prev = node->last;
        s->page[node->last].next = (int32_t)slab;
        node->last = (int32_t)slab;
    } else {
        page->prev = NIL;
        page->next = node->first;
        s->page[node->first].prev = (int32_t)slab;
        node->first = (int32_t)slab;
    }
    node->nr_partial++;
}

static void slub_remove_partial(State *s, int64_t cache, int64_t slab)
{
    struct kmem_cache_node *node = node_of_slab(s, cache, slab);
    struct page *page = &s->page[slab];
    if (page->prev == NIL)
        node->first = page->next;
    else
        s->page[page->prev].next = page->next;
    if (page->next == NIL)
        node->last = page->prev;
    else
        s->page[page->next].prev = page->prev;
    page->next = page->prev = NIL;
    node->nr_partial--;
}

static int64_t slub_node_has_enough(State *s, int64_t cache, int64_t slab)
{
    return node_of_slab(s, cache, slab)->nr_partial >= s->slub_cache[cache].min_partial;
}

static void slub_unfreeze(State *s, int64_t cache, int64_t slab)
{
    slub_charge(s, COST_SLUB_NODE_LIST);
    while (slab != NIL) {
        struct page *page = &s->page[slab];
        int64_t next = page->next;
        page->private &= ~FROZEN;
        if (slab_inuse(s, slab) == 0 && slub_node_has_enough(s, cache, slab))
            UNREACHED();
        slub_add_partial(s, cache, slab, 1);
        slub_count(s, cache, SLUB_STAT_FREE_ADD_PARTIAL);
        slab = next;
    }
}

static void slub_put_cpu_partial(State *s, int64_t cache, int64_t slab, int64_t drain)
{
    struct kmem_cache_cpu *cpu = this_cpu(s, cache);
    struct page *page = &s->page[slab];
    int64_t before = cpu->partial, drained = NIL, nr_slabs = 0;
    if (before != NIL) {
        nr_slabs = s->page[before].prev;
        if (drain && nr_slabs >= s->slub_cache[cache].cpu_partial_slabs) {
            drained = before;
            before = NIL;
            nr_slabs = 0;
        }
    }
    page->prev = (int32_t)(nr_slabs + 1);
    page->next = (int32_t)before;
    cpu->partial = (int32_t)slab;
    if (drained != NIL) {
        slub_unfreeze(s, cache, drained);
        slub_count(s, cache, SLUB_STAT_CPU_PARTIAL_DRAIN);
    }
}

static void slub_set_cpu_slab(State *s, struct kmem_cache_cpu *cpu, int64_t slab, int64_t freelist)
{
    cpu->slab = (int32_t)slab;
    cpu->nr_frames = slab == NIL ? 0 : 1 << s->page[slab].order;
    cpu->freelist = freelist;
    cpu->tid++;
}

static int64_t slub_get_freelist(State *s, int64_t slab)
{
    struct page *page = &s->page[slab];
    int64_t first = page->index, objects = (page->private >> OBJECTS_SHIFT) & COUNT_MASK;
    page->index = NO_OBJECT;
    page->private = (int32_t)((page->private & ~(COUNT_MASK | FROZEN)) | objects | (first != NO_OBJECT ? FROZEN : 0));
    return first;
}

static int64_t slub_hand_out(State *s, int64_t cache, int64_t slab, int64_t first)
{
    slub_set_cpu_slab(s, this_cpu(s, cache), slab, slub_link_of(s, cache, slab, first));
    s->kmem_cache[cache].nr_objects++;
    return first;
}

static int64_t slub_from_cpu(State *s, int64_t cache)
{
    struct kmem_cache_cpu *cpu = this_cpu(s, cache);
    int64_t slab = cpu->slab;
    for (;;) {
        if (slab == NIL) {
            slab = cpu->partial;
            if (slab == NIL)
                return NO_OBJECT;
            cpu->partial = s->page[slab].next;
            slub_count(s, cache, SLUB_STAT_CPU_PARTIAL_ALLOC);
        }
        int64_t first = slub_get_freelist(s, slab);
        if (first != NO_OBJECT) {
            slub_count(s, cache, SLUB_STAT_ALLOC_REFILL);
            return slub_hand_out(s, cache, slab, first);
        }
        slub_set_cpu_slab(s, cpu, NIL, NO_OBJECT);
        slub_count(s, cache, SLUB_STAT_DEACTIVATE_BYPASS);
        slab = NIL;
    }
}

static int64_t slub_get_partial(State *s, int64_t cache)
{
    struct kmem_cache_node *node = &s->kmem_cache_node[cache * s->knob[KNOB_NR_NODES] + s->cpu[s->current[CURRENT_CPU]].nid];
    if (node->nr_partial == 0)
        UNREACHED();
    slub_charge(s, COST_SLUB_NODE_LIST);
    int64_t taken = node->first;
    slub_remove_partial(s, cache, taken);
    s->page[taken].private |= FROZEN;
    slub_count(s, cache, SLUB_STAT_ALLOC_FROM_PARTIAL);
    for (int64_t i = 0; i < s->slub_cache[cache].cpu_partial_slabs / 2 + 1 && node->nr_partial; i++) {
        int64_t more = node->first;
        slub_remove_partial(s, cache, more);
        s->page[more].private |= FROZEN;
        slub_put_cpu_partial(s, cache, more, 0);
        slub_count(s, cache, SLUB_STAT_CPU_PARTIAL_NODE);
    }
    return taken;
}

__attribute__((noinline, cold)) static int64_t slub_alloc_slow(State *s, int64_t cache)
{
    slub_count(s, cache, SLUB_STAT_ALLOC_SLOWPATH);
    slub_charge(s, COST_SLUB_ALLOC_SLOW);
    if (s->slub_cache[cache].is_debug)
        UNREACHED();
    int64_t found = slub_from_cpu(s, cache);
    if (found != NO_OBJECT)
        return found;
    int64_t slab = slub_get_partial(s, cache);
    return slub_hand_out(s, cache, slab, slub_get_freelist(s, slab));
}

static inline __attribute__((always_inline)) int64_t slub_alloc(State *s, int64_t cache)
{
    struct kmem_cache_cpu *cpu = this_cpu(s, cache);
    int64_t paddr = cpu->freelist;
    if (paddr == NO_OBJECT)
        return slub_alloc_slow(s, cache);
    int64_t offset = cpu->link_offset, next = s->slab_word[(paddr + offset) >> WORD_SHIFT];
    int64_t frame = ((next + offset) >> PAGE_SHIFT) - cpu->slab;
    if ((frame < 0 || frame >= cpu->nr_frames) && next != NO_OBJECT)
        UNREACHED();
    cpu->freelist = next;
    cpu->tid++;
    cpu->alloc_fastpath++;
    s->kmem_cache[cache].nr_objects++;
    slub_charge(s, COST_SLUB_ALLOC_FAST);
    return paddr;
}

__attribute__((noinline, cold)) static int64_t slub_free_slow(State *s, int64_t cache, int64_t paddr)
{
    int64_t pfn = paddr >> PAGE_SHIFT;
    if (pfn < 0 || pfn >= s->page_length || !(s->page[pfn].page_flags & PAGE_FLAG_SLAB))
        UNREACHED();
    int64_t slab = s->page[pfn].word;
    struct page *page = &s->page[slab];
    int64_t start = paddr - s->slub_cache[cache].red_left - (slab << PAGE_SHIFT);
    int64_t stride = s->kmem_cache[cache].stride, objects = (page->private >> OBJECTS_SHIFT) & COUNT_MASK;
    if (page->mapping != cache || start < 0 || start >= objects * stride || start % stride)
        UNREACHED();
    slub_count(s, cache, SLUB_STAT_FREE_SLOWPATH);
    slub_charge(s, COST_SLUB_FREE_SLOW);
    int64_t prior = page->index;
    if (s->slub_cache[cache].is_debug || prior == paddr || slab_inuse(s, slab) == 0)
        UNREACHED();
    slub_set_link(s, cache, paddr, prior);
    page->index = paddr;
    page->private -= 1;
    s->kmem_cache[cache].nr_objects--;
    if (page->private & FROZEN) {
        slub_count(s, cache, SLUB_STAT_FREE_FROZEN);
    } else if (prior == NO_OBJECT) {
        page->private |= FROZEN;
        slub_put_cpu_partial(s, cache, slab, 1);
        slub_count(s, cache, SLUB_STAT_CPU_PARTIAL_FREE);
    } else if (slab_inuse(s, slab) == 0) {
        slub_charge(s, COST_SLUB_NODE_LIST);
        if (slub_node_has_enough(s, cache, slab))
            UNREACHED();
    }
    return 0;
}

static inline __attribute__((always_inline)) int64_t slub_free(State *s, int64_t cache, int64_t paddr)
{
    struct kmem_cache_cpu *cpu = this_cpu(s, cache);
    int64_t link = paddr + cpu->link_offset, frame = (link >> PAGE_SHIFT) - cpu->slab;
    if (frame < 0 || frame >= cpu->nr_frames)
        return slub_free_slow(s, cache, paddr);
    int64_t next = cpu->freelist;
    if (next == paddr)
        UNREACHED();
    s->slab_word[link >> WORD_SHIFT] = next;
    cpu->freelist = paddr;
    cpu->tid++;
    cpu->free_fastpath++;
    s->kmem_cache[cache].nr_objects--;
    slub_charge(s, COST_SLUB_FREE_FAST);
    return 0;
}

static inline __attribute__((always_inline)) int64_t slub_kmalloc(State *s, int64_t size)
{
    if (size <= 0 || size > KMALLOC_MAX_CACHE_SIZE)
        UNREACHED();
    int64_t cache = s->kmalloc_cache[(size - 1) >> KMALLOC_SLOT_SHIFT];
    if (cache == 0)
        UNREACHED();
    return slub_alloc(s, cache);
}

static inline __attribute__((always_inline)) int64_t slub_kfree(State *s, int64_t paddr)
{
    int64_t pfn = paddr >> PAGE_SHIFT;
    if (pfn < 0 || pfn >= s->page_length || !(s->page[pfn].page_flags & PAGE_FLAG_SLAB))
        UNREACHED();
    return slub_free(s, s->page[s->page[pfn].word].mapping, paddr);
}
