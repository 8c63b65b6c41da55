/* What the benchmarks call: the same functions over the same State as benchmarks/kernels.py has, in C. */
#include "cow.h"
#include "fork.h"
#include "ksm.h"
#include "slub.h"
#include "vm.h"

int64_t touch_in_order(State *s, int64_t mm, int64_t vaddr, int64_t nr_pages, int64_t count)
{
    int64_t page = 0, sum = 0;
    for (int64_t i = 0; i < count; i++) {
        sum += touch(s, mm, vaddr + (page << PAGE_SHIFT), 0);
        if (++page == nr_pages)
            page = 0;
    }
    return sum;
}

/* The i-th number drawn below a limit: below(splitmix64_word(0, i), limit) of shared/rng.py. */
static int64_t drawn_below(int64_t i, int64_t limit)
{
    uint64_t word = (uint64_t)mix64((uint64_t)(i + 1) * 0x9E3779B97F4A7C15u);
    return (int64_t)((unsigned __int128)word * (uint64_t)limit >> 64);
}

int64_t touch_at_random(State *s, int64_t mm, int64_t vaddr, int64_t nr_pages, int64_t count)
{
    int64_t sum = 0;
    for (int64_t i = 0; i < count; i++)
        sum += touch(s, mm, vaddr + (drawn_below(i, nr_pages) << PAGE_SHIFT), 0);
    return sum;
}

int64_t find_areas_at_random(State *s, int64_t mm, int64_t vaddr, int64_t nr_pages, int64_t count)
{
    int64_t sum = 0;
    for (int64_t i = 0; i < count; i++)
        sum += find_vma(s, mm, vaddr + (drawn_below(i, nr_pages) << PAGE_SHIFT));
    return sum;
}

int64_t first_touch(State *s, int64_t mm, int64_t vaddr, int64_t nr_pages)
{
    for (int64_t page = 0; page < nr_pages; page++)
        if (touch(s, mm, vaddr + (page << PAGE_SHIFT), 1) == NIL)
            return page;
    return nr_pages;
}

int64_t fork_mm(State *s, int64_t parent) { return fork_process(s, parent); }

int64_t unmap_whole_area(State *s, int64_t mm, int64_t vaddr)
{
    return unmap_area(s, find_vma(s, mm, vaddr));
}

int64_t frame_pairs(State *s, int64_t count)
{
    int64_t total = 0;
    for (int64_t i = 0; i < count; i++) {
        int64_t pfn = alloc_pages(s, 0, GFP_HIGHUSER_MOVABLE);
        total += pfn;
        free_pages(s, pfn, 0);
    }
    return total;
}

static int64_t take_from_zone(State *s, int64_t zone)
{
    int64_t pfn = rmqueue(s, zone, 0, MIGRATE_TYPE_MOVABLE, 0);
    count_free(s, zone, -1);
    return pfn;
}

static void give_to_zone(State *s, int64_t pfn)
{
    int64_t type = pageblock_type(s, pfn);
    if (type != MIGRATE_TYPE_ISOLATE)
        count_free(s, zone_of(s, pfn), 1);
    free_one_page(s, pfn, 0, type, 0);
}

int64_t zone_pairs(State *s, int64_t zone, int64_t count)
{
    int64_t total = 0;
    for (int64_t i = 0; i < count; i++) {
        int64_t pfn = take_from_zone(s, zone);
        total += pfn;
        give_to_zone(s, pfn);
    }
    return total;
}

int64_t frames_mixed(State *s, int64_t nr_live, int64_t count)
{
    int64_t total = 0;
    for (int64_t i = 0; i < nr_live; i++)
        s->slab_word[i] = take_from_zone(s, ZONE_ID_DMA32);
    for (int64_t i = 0; i < count; i++) {
        int64_t index = (int64_t)mix64((uint64_t)(i + 1) * 0x9E3779B97F4A7C15u) & (nr_live - 1);
        give_to_zone(s, s->slab_word[index]);
        total += s->slab_word[index] = take_from_zone(s, ZONE_ID_DMA32);
    }
    for (int64_t i = 0; i < nr_live; i++) {
        give_to_zone(s, s->slab_word[i]);
        s->slab_word[i] = 0;
    }
    return total;
}

int64_t slub_pairs(State *s, int64_t cache, int64_t count)
{
    int64_t sum = 0;
    for (int64_t i = 0; i < count; i++) {
        int64_t paddr = slub_alloc(s, cache);
        sum += paddr;
        slub_free(s, cache, paddr);
    }
    return sum;
}

int64_t slub_mixed(State *s, int64_t live, int64_t nr_live, int64_t count)
{
    int64_t sum = 0, array = live >> WORD_SHIFT;
    for (int64_t i = 0; i < count; i++) {
        int64_t word = mix64((uint64_t)(i + 1) * 0x9E3779B97F4A7C15u);
        s->current[CURRENT_CPU] = (word >> CPU_BITS_AT) & (NR_CPUS - 1);
        int64_t index = array + (word & (nr_live - 1));
        if (s->slab_word[index])
            slub_kfree(s, s->slab_word[index]);
        int64_t paddr = slub_kmalloc(s, WORD_BYTES << ((word >> SIZE_BITS_AT) & (NR_SIZES - 1)));
        s->slab_word[index] = paddr;
        sum += paddr;
    }
    s->current[CURRENT_CPU] = 0;
    for (int64_t index = array; index < array + nr_live; index++)
        if (s->slab_word[index]) {
            slub_kfree(s, s->slab_word[index]);
            s->slab_word[index] = 0;
        }
    return sum;
}
