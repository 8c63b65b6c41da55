/* The twin of node/ksm as far as calm, distinct pages of live processes go: scanning, checksums, both trees. */
#pragma once
#include "vm.h"

#define HEAD 0

/* --- the unstable tree (node/ksm/unstable_tree.py) ---------------------------------------------------- */

static int64_t mapped_anon_page(State *s, int64_t mm, int64_t vaddr)
{
    int64_t position = pte_position(s, s->mm[mm].pgd_pfn, vaddr);
    if (position == NIL || !(s->pt_word[position] & PTE_PRESENT))
        return NIL;
    int64_t pfn = pte_pfn(s->pt_word[position]);
    return s->page[pfn].page_flags & PAGE_FLAG_ANON ? pfn : NIL;
}

static int64_t mergeable_page(State *s, int64_t item)
{
    int64_t mm = s->rmap_item[item].mm, vaddr = s->rmap_item[item].vaddr;
    int64_t vma = s->mm[mm].alive ? find_vma(s, mm, vaddr) : NIL;
    if (vma == NIL || vaddr < s->vma[vma].start || !(s->vma[vma].vm_flags & VM_FLAG_MERGEABLE) || !s->vma[vma].anon_vma)
        return NIL;
    return mapped_anon_page(s, mm, vaddr);
}

static int is_still_there(State *s, const struct rb_node *node)
{
    const struct page *page = &s->page[node->pfn];
    if (s->knob[KNOB_RMAP_WALK] != RMAP_WALK_TREE)
        UNREACHED();
    if (page->mapcount != 1 || page->index != node->key || page->mapping != node->owner)
        return 0;
    if (!(page->page_flags & PAGE_FLAG_ANON) || page->page_flags & PAGE_FLAG_KSM)
        return 0;
    int64_t chain = s->rb_root[anon_vma_root(s, node->owner)];
    if (chain == NIL || s->rb_node[chain].left != NIL || s->rb_node[chain].right != NIL)
        return 0;
    const struct vma *vma = &s->vma[s->anon_vma_chain[chain - chain_base(s)].vma];
    if (!(vma->vm_flags & VM_FLAG_MERGEABLE) || vma->pgoff != vma->start >> PAGE_SHIFT)
        return 0;
    int64_t vaddr = node->key << PAGE_SHIFT;
    return vma->start <= vaddr && vaddr < vma->end;
}

static int64_t unstable_tree_search_insert(State *s, int64_t item, int64_t pfn)
{
    int64_t key = s->page[pfn].content, parent = NIL, side = -1, nr_compared = 0;
    int64_t at = s->rb_root[TREE_UNSTABLE];
    while (at != NIL) {
        struct rb_node *node = &s->rb_node[at];
        __builtin_prefetch(&s->rb_node[node->left]);
        __builtin_prefetch(&s->rb_node[node->right]);
        int64_t tree_pfn = is_still_there(s, node) ? node->pfn : mergeable_page(s, at);
        if (tree_pfn == NIL || tree_pfn == pfn)
            return NIL;
        nr_compared++;
        int64_t tree_key = s->page[tree_pfn].content;
        if (key == tree_key)
            break;
        parent = at;
        side = key < tree_key ? -1 : 1;
        at = key < tree_key ? node->left : node->right;
    }
    s->current[CURRENT_CLOCK_PS] += nr_compared * s->cost[COST_KSM_COMPARE];
    if (at == NIL) {
        struct rb_node *node = &s->rb_node[item];
        s->rmap_item[item].where = ITEM_PLACE_UNSTABLE_TREE;
        s->rmap_item[item].seqnr = (int32_t)s->ksm_scan[0].seqnr;
        node->key = s->rmap_item[item].vaddr >> PAGE_SHIFT;
        node->pfn = (int32_t)pfn;
        node->owner = s->page[pfn].mapping;
        rb_link(s, TREE_UNSTABLE, item, parent, side);
        s->ksm_stat[KSM_STAT_PAGES_UNSHARED]++;
    }
    return at;
}

/* --- ksmd (node/ksm/ksmd.py, merge.py, rmap_items.py) -------------------------------------------------- */

static int64_t next_mapped_anon(State *s, int64_t mm, int64_t vaddr, int64_t end)
{
    while (vaddr < end) {
        int64_t position = pte_position(s, s->mm[mm].pgd_pfn, vaddr);
        int64_t border = (vaddr / HUGE_PAGE_SIZE + 1) * HUGE_PAGE_SIZE;
        if (border > end)
            border = end;
        if (position == NIL) {
            vaddr = border;
            continue;
        }
        for (; vaddr < border; vaddr += PAGE_SIZE, position++) {
            int64_t pte = s->pt_word[position];
            if (pte & PTE_PRESENT && s->page[pte_pfn(pte)].page_flags & PAGE_FLAG_ANON)
                return vaddr;
        }
    }
    return NIL;
}

static int64_t item_at(State *s, int64_t mm, int64_t previous, int64_t vaddr)
{
    int64_t item = previous == NIL ? s->mm[mm].ksm_rmap_list : s->rmap_item[previous].next_in_mm;
    return item != NIL && s->rmap_item[item].vaddr == vaddr ? item : NIL;
}

static int64_t next_item_to_scan(State *s)
{
    struct ksm_scan *scan = &s->ksm_scan[0];
    if (scan->first_mm == NIL)
        return NIL;
    if (scan->mm == HEAD) {
        s->rb_root[TREE_UNSTABLE] = NIL;
        scan->mm = scan->first_mm;
        scan->address = 0;
        scan->rmap_item = NIL;
    }
    while (scan->mm != HEAD) {
        int64_t mm = scan->mm;
        for (int64_t vma = find_vma(s, mm, scan->address); vma != NIL; vma = s->vma[vma].next) {
            if (!(s->vma[vma].vm_flags & VM_FLAG_MERGEABLE))
                continue;
            if (scan->address < s->vma[vma].start)
                scan->address = s->vma[vma].start;
            if (s->vma[vma].anon_vma == 0)
                UNREACHED();
            int64_t found = next_mapped_anon(s, mm, scan->address, s->vma[vma].end);
            if (found == NIL) {
                scan->address = s->vma[vma].end;
                continue;
            }
            int64_t item = item_at(s, mm, scan->rmap_item, found);
            scan->rmap_item = (int32_t)item;
            scan->address = found + PAGE_SIZE;
            return item;
        }
        scan->mm = s->mm[mm].ksm_next == NIL ? HEAD : s->mm[mm].ksm_next;
        scan->address = 0;
        scan->rmap_item = NIL;
    }
    scan->seqnr++;
    return NIL;
}

static void cmp_and_merge_page(State *s, int64_t item_index, int64_t pfn)
{
    struct rmap_item *item = &s->rmap_item[item_index];
    /* The stable tree is empty, and the unstable tree that held the item was dropped. */
    if (item->where == ITEM_PLACE_UNSTABLE_TREE) {
        s->ksm_stat[KSM_STAT_PAGES_UNSHARED]--;
        item->where = ITEM_PLACE_NOWHERE;
    }
    s->current[CURRENT_CLOCK_PS] += s->cost[COST_KSM_CHECKSUM];
    int32_t checksum = (int32_t)s->page[pfn].content;
    int calm = item->checksum == checksum;
    item->checksum = checksum;
    if (calm)
        unstable_tree_search_insert(s, item_index, pfn);
}

int64_t ksm_do_scan(State *s, int64_t nr_pages)
{
    s->request[REQUEST_R0] = 0;
    if (s->knob[KNOB_KSM_MODEL] != KSM_MODEL_LINUX_6_1 || s->knob[KNOB_KSM_USE_ZERO_PAGES])
        UNREACHED();
    for (int64_t done = 0; done < nr_pages; done++) {
        int64_t item = next_item_to_scan(s);
        if (item == NIL) {
            s->request[REQUEST_R0] = 1;
            return done;
        }
        s->current[CURRENT_CLOCK_PS] += s->cost[COST_KSM_SCAN_PAGE];
        int64_t position = pte_position(s, s->mm[s->rmap_item[item].mm].pgd_pfn, s->rmap_item[item].vaddr);
        cmp_and_merge_page(s, item, pte_pfn(s->pt_word[position]));
        s->ksm_stat[KSM_STAT_PAGES_SCANNED]++;
    }
    return nr_pages;
}
