/* The twin of the search for an area in node/vm/vma.py: the lowest one that ends above an address (find_vma).
 *
 * A node's key is where its area begins. Linux, mm/mmap.c up to 5.19: find_vma.
 */
#pragma once
#include "rb.h"

static int64_t area_at_or_below(const State *s, int64_t mm, int64_t vaddr)
{
    int64_t found = NIL;
    for (int64_t at = s->rb_root[mm_root(mm)]; at != NIL;) {
        const struct rb_node *node = &s->rb_node[at];
        /* Which way is anyone's guess: conditional moves cost less than a branch. */
        int is_below = node->key <= vaddr;
        found = is_below ? at : found;
        at = is_below ? node->right : node->left;
    }
    return found == NIL ? NIL : found - vma_base(s);
}

static int64_t find_vma(State *s, int64_t mm, int64_t vaddr)
{
    int64_t index = s->mm[mm].last_found;
    if (index != NIL && s->vma[index].start <= vaddr && vaddr < s->vma[index].end) {
        s->vm_area_stat[VM_AREA_STAT_FOUND_AGAIN]++;
        return index;
    }
    if (s->knob[KNOB_VMA_SEARCH] != VMA_SEARCH_TREE)
        UNREACHED();
    s->vm_area_stat[VM_AREA_STAT_TREE_SEARCHES]++;
    index = area_at_or_below(s, mm, vaddr);
    if (index == NIL)
        index = s->mm[mm].first_vma;
    else if (vaddr >= s->vma[index].end)
        index = s->vma[index].next;
    if (index != NIL)
        s->mm[mm].last_found = (int32_t)index;
    return index;
}
