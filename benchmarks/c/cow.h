/* The twin of node/fault/cow.py: a write to a page that another process maps as well. */
#pragma once
#include "vm.h"

static void put_page(State *s, int64_t pfn)
{
    if (--s->page[pfn].refcount <= 0)
        UNREACHED(); /* somebody else still maps what a write breaks away from */
}

static void copy_content(State *s, int64_t to, int64_t from)
{
    s->page[to].content = s->page[from].content;
    s->page[to].word = s->page[from].word;
    if (s->knob[KNOB_IS_GUEST])
        UNREACHED();
}

static int may_reuse(const State *s, int64_t pfn)
{
    const struct page *page = &s->page[pfn];
    if (page->page_flags & PAGE_FLAG_ANON_EXCLUSIVE)
        return 1;
    if (page->page_flags & PAGE_FLAG_KSM || !(page->page_flags & PAGE_FLAG_ANON))
        return 0;
    if (page->refcount > (page->page_flags & PAGE_FLAG_SWAPCACHE ? 2 : 1))
        return 0;
    return page->refcount == 1;
}

static void copy_page(State *s, int64_t vma, int64_t position, int64_t vaddr)
{
    int64_t old = pte_pfn(s->pt_word[position]);
    if (s->page[old].page_flags & (PAGE_FLAG_ZERO_PAGE | PAGE_FLAG_HUGE))
        UNREACHED();
    s->page[old].refcount++;
    int64_t copy = new_anon_page(s, vma, vaddr);
    if (pte_pfn(s->pt_word[position]) != old)
        UNREACHED();
    copy_content(s, copy, old);
    s->current[CURRENT_CLOCK_PS] += s->cost[COST_PAGE_COPY];
    s->mm[s->vma[vma].mm].nr_anon--;
    if (--s->page[old].mapcount <= 0 || s->vma[vma].vm_flags & VM_FLAG_LOCKED)
        UNREACHED();
    put_page(s, old);
    put_page(s, old);
    s->mm[s->vma[vma].mm].nr_anon++;
    set_user_pte(s, position, (copy << PAGE_SHIFT) | written_bits(s, vma));
    flush_tlb_range(s, s->vma[vma].mm, vaddr, vaddr + (1 << PAGE_SHIFT));
}

static void do_wp_page(State *s, int64_t vma, int64_t position, int64_t vaddr)
{
    int64_t pfn = pte_pfn(s->pt_word[position]);
    if (s->vma[vma].vm_flags & VM_FLAG_SHARED || may_reuse(s, pfn) || s->page[pfn].page_flags & PAGE_FLAG_KSM)
        UNREACHED();
    s->fault_outcome[FAULT_OUTCOME_WP_COPIED]++;
    copy_page(s, vma, position, vaddr);
}
