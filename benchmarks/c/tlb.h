/* The twin of node/hw/tlb.py: arrays of cached translations, with least recently used entries replaced. */
#pragma once
#include "base.h"

/* --- sets -------------------------------------------------------------------------------------------- */

static int64_t array_set(const State *s, int64_t cpu, int64_t role, int64_t page_number)
{
    const struct tlb_array *array = &s->tlb_array[role];
    int64_t set = page_number & array->set_mask;
    if (array->set_mask < 0)
        set = (page_number & PAGE_NUMBER_MASK) % array->nr_sets;
    return cpu * s->knob[KNOB_TLB_ENTRIES] + array->first + set * array->nr_ways;
}

static int64_t find_in_set(const State *s, int64_t first, int64_t nr_ways, int64_t key)
{
    for (int64_t i = first; i < first + nr_ways; i++)
        if (s->tlb[i].key == key)
            return i;
    return NIL;
}

static void note_use(State *s, int64_t cpu, int64_t role, int64_t index)
{
    int64_t tick = ++s->cpu[cpu].tlb_tick;
    if (s->tlb_array[role].replacement == REPLACEMENT_LRU)
        s->tlb[index].stamp = tick;
    else if (s->tlb_array[role].replacement == REPLACEMENT_PLRU)
        UNREACHED();
}

static void note_fill(State *s, int64_t cpu, int64_t role, int64_t index)
{
    s->tlb[index].stamp = ++s->cpu[cpu].tlb_tick;
    if (s->tlb_array[role].replacement == REPLACEMENT_PLRU)
        UNREACHED();
}

static int64_t way_for(const State *s, int64_t role, int64_t first, int64_t key)
{
    const struct tlb_array *array = &s->tlb_array[role];
    if (array->replacement > REPLACEMENT_FIFO || array->wired)
        UNREACHED();
    int64_t victim = first, oldest = INT64_MAX;
    for (int64_t i = first; i < first + array->nr_ways; i++) {
        const struct tlb *entry = &s->tlb[i];
        if (entry->key == key)
            return i;
        /* Which is older is anyone's guess: two conditional moves cost less than a branch. */
        int is_older = entry->stamp < oldest;
        oldest = is_older ? entry->stamp : oldest;
        victim = is_older ? i : victim;
    }
    return victim;
}

static int64_t way_for_new(const State *s, int64_t role, int64_t first)
{
    const struct tlb_array *array = &s->tlb_array[role];
    if (array->replacement > REPLACEMENT_FIFO || array->wired)
        UNREACHED();
    int64_t victim = first, oldest = INT64_MAX;
    for (int64_t i = first; i < first + array->nr_ways; i++) {
        int64_t stamp = s->tlb[i].stamp;
        int is_older = stamp < oldest;
        oldest = is_older ? stamp : oldest;
        victim = is_older ? i : victim;
    }
    return victim;
}

/* --- looking up and filling --------------------------------------------------------------------------- */

static int beyond_keys(int64_t vaddr)
{
    int64_t sign = vaddr >> (KEY_ADDRESS_BITS - 1);
    return sign != 0 && sign != -1;
}

static int64_t find_small(State *s, int64_t cpu, int64_t role, int64_t vaddr)
{
    int64_t page_number = vaddr >> PAGE_SHIFT;
    int64_t key = (page_number << KEY_PAGE_SHIFT) | s->cpu[cpu].fast_tag;
    int64_t index = find_in_set(s, array_set(s, cpu, role, page_number), s->tlb_array[role].nr_ways, key);
    if (index != NIL)
        note_use(s, cpu, role, index);
    return index;
}

static int64_t key_of(const State *s, int64_t vaddr, int64_t variant, int64_t tag)
{
    int64_t size = variant % PAGE_SIZE_NR;
    int64_t page_number = vaddr >> s->tlb_array[TLB_ARRAY_D1_4K + size].shift;
    if (variant >= PAGE_SIZE_NR)
        tag = KEY_VALID | KEY_GLOBAL;
    return (page_number << KEY_PAGE_SHIFT) | (size << KEY_SIZE_SHIFT) | tag;
}

static int64_t find_variant(const State *s, int64_t cpu, int64_t role, int64_t key)
{
    int64_t nr_ways = s->tlb_array[role].nr_ways;
    if (nr_ways == 0)
        return NIL;
    return find_in_set(s, array_set(s, cpu, role, key >> KEY_PAGE_SHIFT), nr_ways, key);
}

static int64_t variants_of(const State *s, int64_t cpu, int64_t vaddr)
{
    int64_t variants = s->cpu[cpu].tlb_variants;
    return (vaddr >= 0 ? variants : variants >> NR_VARIANTS) & ALL_VARIANTS;
}

static int64_t find_any(State *s, int64_t level, int64_t vaddr)
{
    int64_t cpu = s->current[CURRENT_CPU], variants = variants_of(s, cpu, vaddr);
    for (int64_t variant = 0; variants; variant++, variants >>= 1) {
        if (!(variants & 1))
            continue;
        int64_t role = level + variant % PAGE_SIZE_NR;
        int64_t index = find_variant(s, cpu, role, key_of(s, vaddr, variant, s->cpu[cpu].tlb_tag));
        if (index != NIL) {
            note_use(s, cpu, role, index);
            return index;
        }
    }
    return NIL;
}

static void put(State *s, int64_t role, int64_t key, int64_t word)
{
    if (s->tlb_array[role].nr_ways == 0)
        return;
    int64_t cpu = s->current[CURRENT_CPU];
    int64_t index = way_for(s, role, array_set(s, cpu, role, key >> KEY_PAGE_SHIFT), key);
    s->tlb[index].key = key;
    s->tlb[index].word = word;
    note_fill(s, cpu, role, index);
}

static void put_new(State *s, int64_t role, int64_t key, int64_t word)
{
    if (s->tlb_array[role].nr_ways == 0)
        return;
    int64_t cpu = s->current[CURRENT_CPU];
    int64_t index = way_for_new(s, role, array_set(s, cpu, role, key >> KEY_PAGE_SHIFT));
    s->tlb[index].key = key;
    s->tlb[index].word = word;
    note_fill(s, cpu, role, index);
}

static int64_t pcid_group(int64_t pcid)
{
    return (pcid >> GROUP_USER_SHIFT & GROUP_USER_BIT) | (pcid & GROUP_ASID_MASK);
}

static int64_t note_variant(State *s, int64_t level, int64_t vaddr, int64_t word)
{
    struct cpu *cpu = &s->cpu[s->current[CURRENT_CPU]];
    int64_t variant = (word >> SIZE_SHIFT) & SIZE_MASK;
    if (word & TLB_RIGHT_GLOBAL)
        variant += PAGE_SIZE_NR;
    if (vaddr >= 0)
        cpu->tlb_variants |= 1 << variant | 1 << (USER_GROUPS_SHIFT + pcid_group(cpu->tlb_tag & PCID_MASK));
    else
        cpu->tlb_variants |= 1 << (variant + NR_VARIANTS);
    if (word & TLB_RIGHT_SPECIAL || (level == TLB_ARRAY_I1_4K && vaddr >= 0))
        UNREACHED();
    return variant;
}

static void fill(State *s, int64_t level, int64_t vaddr, int64_t word)
{
    int64_t variant = note_variant(s, level, vaddr, word), tag = s->cpu[s->current[CURRENT_CPU]].tlb_tag;
    put(s, level + variant % PAGE_SIZE_NR, key_of(s, vaddr, variant, tag), word);
}

static void fill_both_new(State *s, int64_t first_level, int64_t vaddr, int64_t word)
{
    note_variant(s, first_level, vaddr, word);
    int64_t key = ((vaddr >> PAGE_SHIFT) << KEY_PAGE_SHIFT) | s->cpu[s->current[CURRENT_CPU]].tlb_tag;
    put_new(s, first_level, key, word);
    put_new(s, TLB_ARRAY_L2_4K, key, word);
}

static int64_t frame_of(const State *s, int64_t word, int64_t vaddr)
{
    int64_t size = (word >> SIZE_SHIFT) & SIZE_MASK, pfn = (word >> FRAME_SHIFT) & PFN_MASK;
    if (size == PAGE_SIZE_SMALL)
        return pfn;
    int64_t pages = 1LL << (s->tlb_array[TLB_ARRAY_D1_4K + size].shift - PAGE_SHIFT);
    return pfn + ((vaddr >> PAGE_SHIFT) & (pages - 1));
}

/* --- invalidations ------------------------------------------------------------------------------------ */

static void invalidate(State *s, int64_t index)
{
    s->tlb[index].key = 0;
    s->tlb[index].stamp = 0;
}

static void drop_translation(State *s, int64_t cpu, int64_t vaddr, int64_t pcid, int with_global)
{
    int64_t variants = variants_of(s, cpu, vaddr);
    if (!with_global)
        variants &= (1 << PAGE_SIZE_NR) - 1;
    int may_be_private = vaddr < 0 || s->cpu[cpu].tlb_variants >> (USER_GROUPS_SHIFT + pcid_group(pcid)) & 1;
    for (int64_t variant = 0; variants; variant++, variants >>= 1) {
        if (!(variants & 1) || (!may_be_private && variant < PAGE_SIZE_NR))
            continue;
        int64_t key = key_of(s, vaddr, variant, KEY_VALID | pcid), size = variant % PAGE_SIZE_NR;
        for (int64_t level = TLB_ARRAY_D1_4K; level < TLB_ARRAY_WALK_PD; level += PAGE_SIZE_NR) {
            if (level == TLB_ARRAY_I1_4K && key >= 0 && !(s->cpu[cpu].tlb_variants & FETCH_SEEN))
                continue;
            int64_t index = find_variant(s, cpu, level + size, key);
            if (index != NIL)
                invalidate(s, index);
        }
    }
    if (s->knob[KNOB_DCACHE_MODE] == CACHE_MODE_VIRTUAL)
        UNREACHED();
}

static int64_t paths_place(int64_t cpu, int64_t pcid)
{
    return cpu * PCID_GROUPS + pcid_group(pcid);
}

__attribute__((noinline, cold)) static int64_t drop_paths(State *s, int64_t cpu, int64_t pcid)
{
    int64_t nr_left = 0;
    for (int64_t role = TLB_ARRAY_WALK_PD; role < TLB_ARRAY_EPT_PD; role++) {
        const struct tlb_array *array = &s->tlb_array[role];
        int64_t first = cpu * s->knob[KNOB_TLB_ENTRIES] + array->first;
        for (int64_t i = first; i < first + (int64_t)array->nr_sets * array->nr_ways; i++)
            if ((s->tlb[i].key & PCID_MASK) == pcid)
                invalidate(s, i);
            else if (s->tlb[i].key && paths_place(cpu, s->tlb[i].key & PCID_MASK) == paths_place(cpu, pcid))
                nr_left++;
    }
    return nr_left;
}

static void drop_page(State *s, int64_t cpu, int64_t vaddr, int64_t pcid, int with_global)
{
    drop_translation(s, cpu, vaddr, pcid, with_global);
    int64_t place = paths_place(cpu, pcid);
    if (s->cached_paths[place])
        s->cached_paths[place] = drop_paths(s, cpu, pcid);
}

static void drop_pcid(State *s, int64_t cpu, int64_t pcid)
{
    if (s->knob[KNOB_DCACHE_MODE] == CACHE_MODE_VIRTUAL)
        UNREACHED();
    int64_t first = cpu * s->knob[KNOB_TLB_ENTRIES];
    for (int64_t i = first; i < first + s->knob[KNOB_TLB_ENTRIES]; i++)
        if ((s->tlb[i].key & (KEY_GLOBAL | PCID_MASK)) == pcid)
            invalidate(s, i);
}
