/* The twin of node/kmap: the border of the kernel with its entry pages and both PGDs, and flushes. */
#pragma once
#include "mmu.h"

/* --- the border (node/kmap/entry.py) ------------------------------------------------------------------ */

static void access_again(State *s, struct entry_page *page)
{
    int64_t cpu = s->current[CURRENT_CPU];
    int fetch = page->kind == ACCESS_KIND_EXECUTE;
    if (page->key && s->tlb[page->place].key == (page->key | (s->cpu[cpu].tlb_tag & page->tag_mask))) {
        note_use(s, cpu, page->array, page->place);
        s->hw_event[fetch ? HW_EVENT_ITLB_L1_HIT : HW_EVENT_TLB_L1_HIT]++;
        s->current[CURRENT_CLOCK_PS] += s->cost[COST_TLB_L1_HIT];
        return;
    }
    access_as(s, page->vaddr, page->kind);
    int64_t level = fetch ? TLB_ARRAY_I1_4K : TLB_ARRAY_D1_4K, place = find_any(s, level, page->vaddr);
    page->key = 0;
    if (place != NIL) {
        int64_t key = s->tlb[place].key;
        page->place = (int32_t)place;
        page->array = (int16_t)(level + ((key >> KEY_SIZE_SHIFT) & SIZE_MASK));
        page->tag_mask = key & KEY_GLOBAL ? 0 : KEY_VALID | PCID_MASK;
        page->key = key & ~page->tag_mask;
    }
}

static void enter_kernel(State *s)
{
    struct cpu *cpu = &s->cpu[s->current[CURRENT_CPU]];
    if (cpu->cpl == KERNEL_MODE)
        return;
    cpu->cpl = KERNEL_MODE;
    s->hw_event[HW_EVENT_KERNEL_ENTRY]++;
    if (s->knob[KNOB_PTI]) {
        int64_t value = cpu->cr3 & ~(USER_PGD_BIT | USER_PCID_BIT);
        write_cr3(s, s->knob[KNOB_PCID] ? value | CR3_NO_FLUSH : value);
    }
    int64_t nr_pages = s->knob[KNOB_ENTRY_PAGES], first = s->current[CURRENT_CPU] * nr_pages;
    for (int64_t i = first; i < first + nr_pages; i++)
        access_again(s, &s->entry_page[i]);
}

static void leave_kernel(State *s)
{
    struct cpu *cpu = &s->cpu[s->current[CURRENT_CPU]];
    if (cpu->cpl == USER_MODE)
        return;
    if (s->knob[KNOB_PTI]) {
        int64_t value = cpu->cr3 | USER_PGD_BIT;
        if (s->knob[KNOB_PCID]) {
            value |= USER_PCID_BIT;
            if (cpu->user_flush_mask >> cpu->asid & 1)
                cpu->user_flush_mask &= ~(1 << cpu->asid);
            else
                value |= CR3_NO_FLUSH;
        }
        write_cr3(s, value);
    }
    cpu->cpl = USER_MODE;
}

/* --- both copies of the top table (node/kmap/pti.py) --------------------------------------------------- */

static void set_pgd(State *s, int64_t position, int64_t word)
{
    int64_t index = position & ((1LL << s->knob[KNOB_TABLE_SHIFT]) - 1);
    if (s->knob[KNOB_PTI] && index < s->knob[KNOB_KERNEL_PGD_INDEX]) {
        s->pt_word[position ^ ENTRIES_PER_TABLE] = word;
        if ((word & MAPS_USER) == MAPS_USER)
            word |= s->knob[KNOB_NX_BIT];
    }
    s->pt_word[position] = word;
}

/* --- flushes (node/kmap/tlb_flush.py) ------------------------------------------------------------------ */

static void invalidate_user_asid(State *s, struct cpu *cpu)
{
    if (s->knob[KNOB_PTI])
        cpu->user_flush_mask |= 1 << cpu->asid;
}

static void flush_one_user(State *s, int64_t index, int64_t vaddr)
{
    int64_t pcid = s->cpu[index].asid + 1;
    drop_page(s, index, vaddr, pcid, 1);
    if (!s->knob[KNOB_PTI])
        return;
    if (s->knob[KNOB_INVPCID])
        drop_page(s, index, vaddr, pcid | USER_PCID_BIT, 0);
    else
        invalidate_user_asid(s, &s->cpu[index]);
}

static void catch_up(State *s, int64_t start, int64_t end)
{
    int64_t index = s->current[CURRENT_CPU];
    struct cpu *cpu = &s->cpu[index];
    int64_t tlb_gen = s->mm[cpu->mm].tlb_gen;
    struct tlb_context *context = &s->tlb_context[index * NR_ASIDS + cpu->asid];
    if (context->tlb_gen == tlb_gen)
        return;
    if (!s->knob[KNOB_PCID])
        UNREACHED();
    if (end != FLUSH_ALL && tlb_gen == context->tlb_gen + 1) {
        int64_t nr_pages = (end - start) >> PAGE_SHIFT;
        for (int64_t vaddr = start; vaddr < end; vaddr += 1 << PAGE_SHIFT)
            flush_one_user(s, index, vaddr);
        s->current[CURRENT_CLOCK_PS] += nr_pages * s->cost[COST_TLB_FLUSH_ONE];
        s->vm_event[VM_EVENT_NR_TLB_LOCAL_FLUSH_ONE] += nr_pages;
    } else {
        invalidate_user_asid(s, cpu);
        write_cr3(s, cpu->cr3);
        s->vm_event[VM_EVENT_NR_TLB_LOCAL_FLUSH_ALL]++;
    }
    context->tlb_gen = tlb_gen;
}

/* On the only CPU that has it loaded. */
static void flush_tlb_range(State *s, int64_t mm, int64_t start, int64_t end)
{
    int64_t here = s->current[CURRENT_CPU];
    if (end != FLUSH_ALL && (end - start) >> PAGE_SHIFT > SINGLE_PAGE_FLUSH_CEILING)
        end = FLUSH_ALL;
    s->mm[mm].tlb_gen++;
    for (int64_t cpu = 0; cpu < s->knob[KNOB_NR_CPUS]; cpu++)
        if (cpu != here && s->cpu[cpu].mm == mm)
            UNREACHED();
    if (s->cpu[here].mm != mm)
        return;
    if (s->cpu[here].lazy)
        UNREACHED();
    int was_in_user_mode = s->cpu[here].cpl == USER_MODE;
    enter_kernel(s);
    catch_up(s, start, end);
    if (was_in_user_mode)
        leave_kernel(s);
}
