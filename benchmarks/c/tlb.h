/* The twin of node/hw/tlb.py and node/hw/mmu.py: two-level TLB, four-level walk, accessed and dirty bits. */
#pragma once
#include "layout.h"

#define NEEDED_TO_READ TLB_RIGHT_USER
#define NEEDED_TO_WRITE (TLB_RIGHT_USER | TLB_RIGHT_WRITE | TLB_RIGHT_DIRTY | TLB_RIGHT_EPT_WRITE)

static int64_t tlb_key(int64_t vaddr, int64_t pcid) { return (vaddr & ~(int64_t)PAGE_OFFSET_MASK) | pcid; }

static int64_t pte_pfn(int64_t pte) { return (pte >> PAGE_SHIFT) & PFN_MASK; }

static int64_t first_level_set(const State *s, int64_t cpu, int64_t key)
{
    int64_t set = (key >> PAGE_SHIFT) & (s->knob[KNOB_TLB_L1_SETS] - 1);
    return cpu * s->knob[KNOB_TLB_ENTRIES] + set * s->knob[KNOB_TLB_L1_WAYS];
}

static int64_t second_level_set(const State *s, int64_t cpu, int64_t key)
{
    int64_t level = cpu * s->knob[KNOB_TLB_ENTRIES] + s->knob[KNOB_TLB_L1_SETS] * s->knob[KNOB_TLB_L1_WAYS];
    int64_t set = (key >> PAGE_SHIFT) & (s->knob[KNOB_TLB_L2_SETS] - 1);
    return level + set * s->knob[KNOB_TLB_L2_WAYS];
}

static int64_t find(const State *s, int64_t first, int64_t ways, int64_t key)
{
    for (int64_t i = first; i < first + ways; i++)
        if (s->tlb[i].key == key)
            return i;
    return NIL;
}

static int64_t victim(const State *s, int64_t first, int64_t ways)
{
    int64_t found = first, oldest = s->tlb[first].stamp;
    for (int64_t i = first + 1; i < first + ways; i++)
        if (s->tlb[i].stamp < oldest) {
            oldest = s->tlb[i].stamp;
            found = i;
        }
    return found;
}

static void use(State *s, int64_t cpu, int64_t index) { s->tlb[index].stamp = ++s->cpu[cpu].tlb_tick; }

static void fill(State *s, int64_t first, int64_t ways, int64_t key, int64_t pfn, int64_t rights)
{
    int64_t index = find(s, first, ways, key);
    if (index == NIL)
        index = victim(s, first, ways);
    s->tlb[index].key = key;
    s->tlb[index].pfn = (int32_t)pfn;
    s->tlb[index].rights = (int32_t)rights;
    use(s, s->current[CURRENT_CPU], index);
}

static void fill_first_level(State *s, int64_t key, int64_t pfn, int64_t rights)
{
    fill(s, first_level_set(s, s->current[CURRENT_CPU], key), s->knob[KNOB_TLB_L1_WAYS], key, pfn, rights);
}

static void fill_second_level(State *s, int64_t key, int64_t pfn, int64_t rights)
{
    fill(s, second_level_set(s, s->current[CURRENT_CPU], key), s->knob[KNOB_TLB_L2_WAYS], key, pfn, rights);
}

static void invalidate(State *s, int64_t index)
{
    s->tlb[index].key = 0;
    s->tlb[index].stamp = 0;
}

static void flush_one(State *s, int64_t cpu, int64_t key)
{
    int64_t index = find(s, first_level_set(s, cpu, key), s->knob[KNOB_TLB_L1_WAYS], key);
    if (index != NIL)
        invalidate(s, index);
    index = find(s, second_level_set(s, cpu, key), s->knob[KNOB_TLB_L2_WAYS], key);
    if (index != NIL)
        invalidate(s, index);
}

static void charge_flush(State *s, int64_t mm, int64_t event, int64_t price)
{
    int64_t here = s->current[CURRENT_CPU], nr_remote = 0;
    for (int64_t cpu = 0; cpu < s->knob[KNOB_NR_CPUS]; cpu++) {
        if (s->cpu[cpu].mm != mm)
            continue;
        s->hw_event[event]++;
        if (cpu == here) {
            s->current[CURRENT_CLOCK_PS] += s->cost[price];
        } else {
            nr_remote++;
            s->cpu[cpu].clock_ps += s->cost[COST_IPI_HANDLER] + s->cost[price];
        }
    }
    if (nr_remote) {
        s->hw_event[HW_EVENT_TLB_REMOTE_FLUSH] += nr_remote;
        s->current[CURRENT_CLOCK_PS] += s->cost[COST_IPI];
    }
}

static void flush_tlb_mm(State *s, int64_t mm)
{
    int64_t pcid = s->mm[mm].pcid, nr_entries = s->knob[KNOB_TLB_ENTRIES];
    for (int64_t cpu = 0; cpu < s->knob[KNOB_NR_CPUS]; cpu++)
        if (s->cpu[cpu].tlb_tick)
            for (int64_t i = cpu * nr_entries; i < (cpu + 1) * nr_entries; i++)
                if ((s->tlb[i].key & PCID_MASK) == pcid)
                    invalidate(s, i);
    charge_flush(s, mm, HW_EVENT_TLB_FLUSH_ALL, COST_TLB_FLUSH_ALL);
}

static int64_t entry_position(int64_t table, int64_t vaddr, int64_t shift)
{
    return (table << TABLE_SHIFT) + ((vaddr >> shift) & TABLE_INDEX_MASK);
}

static int64_t walk(State *s, int64_t mm, int64_t vaddr, int64_t write)
{
    s->hw_event[HW_EVENT_TLB_WALK]++;
    s->hw_event[HW_EVENT_WALK_REFERENCES] += NR_LEVELS;
    s->current[CURRENT_CLOCK_PS] += NR_LEVELS * s->cost[COST_WALK_REFERENCE];
    int64_t table = s->mm[mm].pgd_pfn, rights = PTE_WRITE | PTE_USER;
    for (int64_t level = 0; level < NR_LEVELS - 1; level++) {
        int64_t position = entry_position(table, vaddr, TOP_SHIFT - TABLE_SHIFT * level);
        int64_t word = s->pt_word[position];
        if (!(word & PTE_PRESENT))
            return NIL;
        if (!(word & PTE_ACCESSED))
            s->pt_word[position] = word | PTE_ACCESSED;
        rights &= word;
        table = pte_pfn(word);
    }
    int64_t position = entry_position(table, vaddr, PAGE_SHIFT);
    int64_t word = s->pt_word[position];
    rights = word & (rights | PTE_PRESENT);
    int64_t needed = PTE_PRESENT | PTE_USER | (write ? PTE_WRITE : 0);
    if ((rights & needed) != needed)
        return NIL;
    int64_t used = word | PTE_ACCESSED | (write ? PTE_DIRTY : 0);
    if (used != word)
        s->pt_word[position] = used;
    int64_t pfn = pte_pfn(word), key = tlb_key(vaddr, s->mm[mm].pcid);
    int64_t granted = TLB_RIGHT_EPT_WRITE | (rights & PTE_WRITE ? TLB_RIGHT_WRITE : 0) |
                      (rights & PTE_USER ? TLB_RIGHT_USER : 0) | (used & PTE_DIRTY ? TLB_RIGHT_DIRTY : 0);
    fill_first_level(s, key, pfn, granted);
    fill_second_level(s, key, pfn, granted);
    return pfn;
}

static int64_t access_page(State *s, int64_t mm, int64_t vaddr, int64_t write)
{
    int64_t cpu = s->current[CURRENT_CPU], key = tlb_key(vaddr, s->mm[mm].pcid);
    int64_t needed = write ? NEEDED_TO_WRITE : NEEDED_TO_READ;
    int64_t index = find(s, first_level_set(s, cpu, key), s->knob[KNOB_TLB_L1_WAYS], key);
    if (index != NIL) {
        use(s, cpu, index);
        if ((s->tlb[index].rights & needed) == needed) {
            s->hw_event[HW_EVENT_TLB_L1_HIT]++;
            s->current[CURRENT_CLOCK_PS] += s->cost[COST_TLB_L1_HIT];
            return s->tlb[index].pfn;
        }
    }
    index = find(s, second_level_set(s, cpu, key), s->knob[KNOB_TLB_L2_WAYS], key);
    if (index != NIL) {
        use(s, cpu, index);
        if ((s->tlb[index].rights & needed) == needed) {
            s->hw_event[HW_EVENT_TLB_L2_HIT]++;
            s->current[CURRENT_CLOCK_PS] += s->cost[COST_TLB_L2_HIT];
            fill_first_level(s, key, s->tlb[index].pfn, s->tlb[index].rights);
            return s->tlb[index].pfn;
        }
    }
    int64_t pfn = walk(s, mm, vaddr, write);
    if (pfn == NIL)
        flush_one(s, cpu, key);
    return pfn;
}
