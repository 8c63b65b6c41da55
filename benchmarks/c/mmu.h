/* The twin of node/hw/{registers,walk,second_level,mmu}.py: CR3, the walk through tables of any depth, the access. */
#pragma once
#include "tlb.h"

static int64_t pte_pfn(int64_t pte) { return (pte >> PAGE_SHIFT) & PFN_MASK; }

/* --- registers ---------------------------------------------------------------------------------------- */

static void write_cr3(State *s, int64_t value)
{
    int64_t index = s->current[CURRENT_CPU];
    struct cpu *cpu = &s->cpu[index];
    if (!(cpu->cr4 & CR4_PCIDE))
        UNREACHED();
    s->hw_event[HW_EVENT_CR3_WRITE]++;
    s->current[CURRENT_CLOCK_PS] += s->cost[COST_CR3_WRITE];
    cpu->cr3 = value & ~CR3_NO_FLUSH;
    cpu->tlb_tag = KEY_VALID | (cpu->cr3 & PCID_MASK);
    if (cpu->cr4 & CR4_PKE)
        UNREACHED();
    cpu->fast_tag = cpu->tlb_tag;
    if (value >= 0) {
        s->hw_event[HW_EVENT_CR3_FLUSH]++;
        drop_pcid(s, index, value & PCID_MASK);
    }
}

/* --- the walk ----------------------------------------------------------------------------------------- */

static int64_t walk_key(const State *s, int64_t level, int64_t vaddr)
{
    int64_t tag = s->cpu[s->current[CURRENT_CPU]].tlb_tag;
    return ((vaddr >> s->paging_level[level].shift) << KEY_PAGE_SHIFT) | tag;
}

static int64_t walk_fault(State *s, int64_t vaddr, int64_t kind, int64_t code, int64_t cached)
{
    int64_t index = s->current[CURRENT_CPU], last = s->knob[KNOB_NR_LEVELS] - 1;
    struct cpu *cpu = &s->cpu[index];
    if (kind == ACCESS_KIND_WRITE)
        code |= FAULT_CODE_WRITE;
    if (cpu->cpl)
        code |= FAULT_CODE_USER;
    if (kind == ACCESS_KIND_EXECUTE)
        UNREACHED();
    cpu->fault_vector = FAULT_VECTOR_PAGE_FAULT;
    cpu->cr2 = vaddr;
    cpu->error_code = (int16_t)code;
    if (cached == CACHED_ANYTHING || cpu->tlb_variants & FETCH_SEEN
        || s->knob[KNOB_DCACHE_MODE] == CACHE_MODE_VIRTUAL)
        drop_translation(s, index, vaddr, cpu->tlb_tag & PCID_MASK, 1);
    for (int64_t distance = 0; distance < last; distance++) {
        int64_t found = find_variant(s, index, TLB_ARRAY_WALK_PD + distance, walk_key(s, last - 1 - distance, vaddr));
        if (found != NIL) {
            invalidate(s, found);
            s->cached_paths[paths_place(index, cpu->tlb_tag & PCID_MASK)]--;
        }
    }
    return NIL;
}

static int key_forbids(const State *s)
{
    if (s->cpu[s->current[CURRENT_CPU]].cr4 & CR4_PKE)
        UNREACHED();
    return 0;
}

static int path_forbids(const State *s, int64_t word, int64_t kind)
{
    const struct cpu *cpu = &s->cpu[s->current[CURRENT_CPU]];
    if (kind == ACCESS_KIND_EXECUTE) {
        if (!(word & TLB_RIGHT_EXECUTE))
            return 1;
        return cpu->cpl ? !(word & TLB_RIGHT_USER) : word & TLB_RIGHT_USER && cpu->cr4 & CR4_SMEP;
    }
    if (cpu->cpl)
        return !(word & TLB_RIGHT_USER) || (kind == ACCESS_KIND_WRITE && !(word & TLB_RIGHT_WRITE));
    if (word & TLB_RIGHT_USER && cpu->cr4 & CR4_SMAP && !cpu->ac)
        return 1;
    return kind == ACCESS_KIND_WRITE && cpu->cr0 & CR0_WP && !(word & TLB_RIGHT_WRITE);
}

static int64_t frame_field(int64_t pfn) { return ((pfn ^ HIGHEST_FRAME_BIT) - HIGHEST_FRAME_BIT) << FRAME_SHIFT; }

static int64_t level_of(int64_t path) { return (path >> LEVEL_SHIFT) & LEVEL_MASK; }

static int64_t path_from_top(const State *s)
{
    return frame_field(pte_pfn(s->cpu[s->current[CURRENT_CPU]].cr3)) | PATH_RIGHTS;
}

static int64_t known_path(State *s, int64_t vaddr)
{
    int64_t cpu = s->current[CURRENT_CPU], last = s->knob[KNOB_NR_LEVELS] - 1;
    for (int64_t distance = 0; distance < last; distance++) {
        int64_t role = TLB_ARRAY_WALK_PD + distance;
        int64_t index = find_variant(s, cpu, role, walk_key(s, last - 1 - distance, vaddr));
        if (index != NIL) {
            note_use(s, cpu, role, index);
            s->hw_event[HW_EVENT_WALK_CACHE_HIT]++;
            return s->tlb[index].word;
        }
    }
    return path_from_top(s);
}

static int64_t lower_path(int64_t path, int64_t word)
{
    int64_t rights = path & word & (TLB_RIGHT_WRITE | TLB_RIGHT_USER);
    if (word >= 0)
        rights |= path & TLB_RIGHT_EXECUTE;
    return frame_field(pte_pfn(word)) | (level_of(path) + 1) << LEVEL_SHIFT | rights;
}

static int64_t path_position(const State *s, int64_t path, int64_t vaddr)
{
    const struct paging_level *here = &s->paging_level[level_of(path)];
    int64_t table = (path >> FRAME_SHIFT) & PFN_MASK;
    return (table << s->knob[KNOB_TABLE_SHIFT]) + ((vaddr >> here->shift) & here->index_mask);
}

static int maps_page(const State *s, int64_t level, int64_t word)
{
    if (level == s->knob[KNOB_NR_LEVELS] - 1)
        return 1;
    if (!(word & PTE_HUGE) || !s->paging_level[level].leaf)
        return 0;
    return (s->cpu[s->current[CURRENT_CPU]].cr4 & (CR4_PAE | CR4_PSE)) != 0;
}

static int64_t next_table(State *s, int64_t path, int64_t vaddr, int64_t level)
{
    int64_t table = (path >> FRAME_SHIFT) & PFN_MASK;
    const struct paging_level *here = &s->paging_level[level];
    if (s->knob[KNOB_IS_GUEST] || table >= s->knob[KNOB_NR_FRAMES])
        UNREACHED();
    int64_t position = (table << s->knob[KNOB_TABLE_SHIFT]) + ((vaddr >> here->shift) & here->index_mask);
    int64_t word = s->pt_word[position];
    if (!(word & PTE_PRESENT))
        return FAILED;
    if (word < 0 && !(s->cpu[s->current[CURRENT_CPU]].efer & EFER_NXE))
        return FAILED - (FAULT_CODE_PRESENT | FAULT_CODE_RESERVED);
    if (maps_page(s, level, word))
        return word & here->reserved_leaf ? FAILED - (FAULT_CODE_PRESENT | FAULT_CODE_RESERVED) : path;
    if (word & here->reserved)
        return FAILED - (FAULT_CODE_PRESENT | FAULT_CODE_RESERVED);
    if (!(word & PTE_ACCESSED))
        s->pt_word[position] = word | PTE_ACCESSED;
    int64_t lower = lower_path(path, word);
    put_new(s, TLB_ARRAY_WALK_PD + s->knob[KNOB_NR_LEVELS] - 2 - level, walk_key(s, level, vaddr), lower);
    return lower;
}

static int has_failed(int64_t path) { return FAILED - MAX_CODE <= path && path <= FAILED; }

static int64_t descend(State *s, int64_t vaddr, int64_t cached)
{
    int64_t path = cached == CACHED_NOTHING ? path_from_top(s) : known_path(s, vaddr), nr_references = 0;
    for (int64_t level = level_of(path);; level++) {
        nr_references++;
        int64_t lower = next_table(s, path, vaddr, level);
        if (lower == path || has_failed(lower)) {
            int64_t cpu = s->current[CURRENT_CPU];
            s->cached_paths[paths_place(cpu, s->cpu[cpu].tlb_tag & PCID_MASK)] += nr_references - 1;
            s->hw_event[HW_EVENT_WALK_REFERENCES] += nr_references;
            s->current[CURRENT_CLOCK_PS] += nr_references * s->cost[COST_WALK_REFERENCE];
            return lower;
        }
        path = lower;
    }
}

static int64_t first_frame(const State *s, int64_t word, int64_t size)
{
    if (size == PAGE_SIZE_SMALL)
        return pte_pfn(word);
    if (s->knob[KNOB_PAGING_MODE] == PAGING_MODE_BITS_32)
        UNREACHED();
    int64_t shift = s->tlb_array[TLB_ARRAY_D1_4K + size].shift;
    return (word & ADDRESS_MASK) >> shift << (shift - PAGE_SHIFT);
}

static int64_t special_bits(const State *s, int64_t word, int64_t size)
{
    const struct cpu *cpu = &s->cpu[s->current[CURRENT_CPU]];
    int64_t pat_index = 0;
    if (word & PTE_WRITE_THROUGH)
        pat_index |= 1;
    if (word & PTE_CACHE_DISABLE)
        pat_index |= 2;
    if (word & (size ? PTE_PAT_LARGE : PTE_HUGE))
        pat_index |= 4;
    int64_t bits = pat_index << PAT_INDEX_SHIFT;
    if (((cpu->pat >> (PAT_FIELD_BITS * pat_index)) & PAT_TYPE_MASK) != MEMORY_TYPE_WB)
        bits |= TLB_RIGHT_SPECIAL;
    if (cpu->cr4 & CR4_PKE)
        UNREACHED();
    return bits;
}

static int64_t tlb_word(const State *s, int64_t path, int64_t word)
{
    int64_t size = s->paging_level[level_of(path)].page_size;
    int64_t bits = lower_path(path, word) & PATH_RIGHTS;
    bits |= (word & (PTE_ACCESSED | PTE_DIRTY)) | size << SIZE_SHIFT;
    if (s->cpu[s->current[CURRENT_CPU]].cr4 & CR4_PGE)
        bits |= word & PTE_GLOBAL;
    bits |= special_bits(s, word, size) | TLB_RIGHT_EPT_WRITE;
    return frame_field(first_frame(s, word, size)) | bits;
}

static int64_t walk(State *s, int64_t vaddr, int64_t kind, int64_t cached)
{
    int64_t sign = vaddr >> (s->knob[KNOB_LINEAR_BITS] - 1);
    if (s->knob[KNOB_PAGING_MODE] == PAGING_MODE_BITS_32 || (sign != 0 && sign != -1))
        UNREACHED();
    int64_t path = descend(s, vaddr, cached);
    if (has_failed(path))
        return walk_fault(s, vaddr, kind, FAILED - path, cached);
    int64_t position = path_position(s, path, vaddr), word = s->pt_word[position];
    int64_t used = word | (kind == ACCESS_KIND_WRITE ? PTE_ACCESSED | PTE_DIRTY : PTE_ACCESSED);
    int64_t granted = tlb_word(s, path, used);
    if (key_forbids(s) || path_forbids(s, granted, kind))
        return walk_fault(s, vaddr, kind, FAULT_CODE_PRESENT, cached);
    if (used != word)
        s->pt_word[position] = used;
    if (s->knob[KNOB_IS_GUEST])
        UNREACHED();
    return granted;
}

/* --- the access --------------------------------------------------------------------------------------- */

static int64_t refill_tlbs(State *s, int64_t vaddr, int64_t kind, int64_t cached)
{
    int fetch = kind == ACCESS_KIND_EXECUTE;
    s->hw_event[fetch ? HW_EVENT_ITLB_WALK : HW_EVENT_TLB_WALK]++;
    if (s->knob[KNOB_TLB_REFILL] == REFILL_SOFTWARE)
        UNREACHED();
    int64_t word = walk(s, vaddr, kind, cached);
    if (word == NIL)
        return NIL;
    int64_t first_level = fetch ? TLB_ARRAY_I1_4K : TLB_ARRAY_D1_4K;
    if (cached != CACHED_ANYTHING && (word & (SIZE_MASK << SIZE_SHIFT | TLB_RIGHT_GLOBAL)) == 0)
        fill_both_new(s, first_level, vaddr, word);
    else {
        fill(s, first_level, vaddr, word);
        fill(s, TLB_ARRAY_L2_4K, vaddr, word);
    }
    return word;
}

static int allows(const State *s, int64_t word, int64_t kind)
{
    int64_t needed = TLB_RIGHT_DIRTY | TLB_RIGHT_EPT_WRITE;
    if (kind == ACCESS_KIND_WRITE && (word & needed) != needed)
        return 0;
    return !path_forbids(s, word, kind) && !key_forbids(s);
}

static int64_t access_as(State *s, int64_t vaddr, int64_t kind)
{
    if (!(s->cpu[s->current[CURRENT_CPU]].cr0 & CR0_PG) || beyond_keys(vaddr))
        UNREACHED();
    int fetch = kind == ACCESS_KIND_EXECUTE;
    int64_t first_level = fetch ? TLB_ARRAY_I1_4K : TLB_ARRAY_D1_4K, word;
    int64_t index = find_any(s, first_level, vaddr);
    if (index != NIL && allows(s, s->tlb[index].word, kind)) {
        s->hw_event[fetch ? HW_EVENT_ITLB_L1_HIT : HW_EVENT_TLB_L1_HIT]++;
        s->current[CURRENT_CLOCK_PS] += s->cost[COST_TLB_L1_HIT];
        word = s->tlb[index].word;
    } else if ((index = find_any(s, TLB_ARRAY_L2_4K, vaddr)) != NIL && allows(s, s->tlb[index].word, kind)) {
        s->hw_event[fetch ? HW_EVENT_ITLB_L2_HIT : HW_EVENT_TLB_L2_HIT]++;
        s->current[CURRENT_CLOCK_PS] += s->cost[COST_TLB_L2_HIT];
        word = s->tlb[index].word;
        fill(s, first_level, vaddr, word);
    } else {
        word = refill_tlbs(s, vaddr, kind, CACHED_ANYTHING);
        if (word == NIL)
            return NIL;
    }
    if (word & TLB_RIGHT_SPECIAL)
        UNREACHED();
    return frame_of(s, word, vaddr);
}

static int user_allows(int64_t word, int64_t kind)
{
    if (kind == ACCESS_KIND_WRITE)
        return (word & WRITE_MASK) == WRITE_WANTED;
    if (kind == ACCESS_KIND_EXECUTE)
        return (word & FETCH_MASK) == FETCH_WANTED;
    return (word & READ_MASK) == READ_WANTED;
}

static int64_t access_beyond_first_level(State *s, int64_t vaddr, int64_t kind, int64_t first_level_place)
{
    int64_t cpu = s->current[CURRENT_CPU];
    int fetch = kind == ACCESS_KIND_EXECUTE;
    if (vaddr >> WIDEST_USER_BITS || s->cpu[cpu].fast_tag == NO_TAG || s->cpu[cpu].tlb_variants & UNUSUAL_OF_USERS)
        UNREACHED();
    int64_t index = find_small(s, cpu, TLB_ARRAY_L2_4K, vaddr);
    if (index != NIL && user_allows(s->tlb[index].word, kind)) {
        s->hw_event[fetch ? HW_EVENT_ITLB_L2_HIT : HW_EVENT_TLB_L2_HIT]++;
        s->current[CURRENT_CLOCK_PS] += s->cost[COST_TLB_L2_HIT];
        int64_t word = s->tlb[index].word;
        put(s, fetch ? TLB_ARRAY_I1_4K : TLB_ARRAY_D1_4K, s->tlb[index].key, word);
        return (word >> FRAME_SHIFT) & PFN_MASK;
    }
    int searched = first_level_place == NIL && index == NIL;
    int64_t word = refill_tlbs(s, vaddr, kind, searched ? CACHED_NO_TRANSLATION : CACHED_ANYTHING);
    if (word == NIL)
        return NIL;
    if (word & TLB_RIGHT_SPECIAL)
        UNREACHED();
    return frame_of(s, word, vaddr);
}

static int64_t access_after_fault(State *s, int64_t vaddr, int64_t kind)
{
    int64_t word = refill_tlbs(s, vaddr, kind, CACHED_NOTHING);
    if (word == NIL)
        return NIL;
    if (word & TLB_RIGHT_SPECIAL)
        UNREACHED();
    return frame_of(s, word, vaddr);
}

static int64_t access_page(State *s, int64_t vaddr, int64_t kind)
{
    if (vaddr >> WIDEST_USER_BITS)
        UNREACHED();
    int64_t cpu = s->current[CURRENT_CPU];
    int fetch = kind == ACCESS_KIND_EXECUTE;
    int64_t index = find_small(s, cpu, fetch ? TLB_ARRAY_I1_4K : TLB_ARRAY_D1_4K, vaddr);
    if (index != NIL && user_allows(s->tlb[index].word, kind)) {
        s->hw_event[fetch ? HW_EVENT_ITLB_L1_HIT : HW_EVENT_TLB_L1_HIT]++;
        s->current[CURRENT_CLOCK_PS] += s->cost[COST_TLB_L1_HIT];
        return (s->tlb[index].word >> FRAME_SHIFT) & PFN_MASK;
    }
    return access_beyond_first_level(s, vaddr, kind, index);
}
