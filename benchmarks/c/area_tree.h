/* The search for an area in a red-black tree: the lowest one that ends above an address (find_vma).
 *
 * A node's key is where its area begins, its owner the area. Linux, mm/mmap.c up to 5.19: find_vma.
 */
#pragma once
#include "base.h"

static int64_t find_area(const State *s, int64_t root, int64_t vaddr)
{
    int64_t found = NIL;
    for (int64_t at = root; at != NIL;) {
        const struct rb_node *node = &s->rb_node[at];
        if (s->vma[node->owner].end > vaddr) {
            found = node->owner;
            if (node->key <= vaddr)
                break;
            at = node->left;
        } else
            at = node->right;
    }
    return found;
}
