/* The twin of node/rbtree.py, node/rb_max.py and node/tree_nodes.py: ordered sets, and the largest value below a node. */
#pragma once
#include "base.h"

/* --- which nodes and roots are whose (node/tree_nodes.py) ---------------------------------------------- */

static int64_t vma_base(const State *s)
{
    return (int64_t)s->pool[POOL_RMAP_ITEM].capacity + s->pool[POOL_STABLE_NODE].capacity
           + s->pool[POOL_VMAP_AREA].capacity;
}

static int64_t chain_base(const State *s) { return vma_base(s) + 2 * (int64_t)s->pool[POOL_VMA].capacity; }

static int64_t mm_root(int64_t mm) { return TREE_NR + mm; }

static int64_t anon_vma_root(const State *s, int64_t anon_vma)
{
    return TREE_NR + (int64_t)s->pool[POOL_MM].capacity + s->pool[POOL_INODE].capacity + anon_vma;
}

/* --- red-black trees (node/rbtree.py) ------------------------------------------------------------------ */

static void change_child(State *s, int64_t tree, int64_t old, int64_t new, int64_t parent)
{
    if (parent == NIL)
        s->rb_root[tree] = new;
    else if (s->rb_node[parent].left == old)
        s->rb_node[parent].left = (int32_t)new;
    else
        s->rb_node[parent].right = (int32_t)new;
}

static void rotate_left(State *s, int64_t tree, int64_t index)
{
    struct rb_node *node = &s->rb_node[index];
    int64_t up = node->right;
    struct rb_node *upper = &s->rb_node[up];
    node->right = upper->left;
    if (upper->left != NIL)
        s->rb_node[upper->left].parent = (int32_t)index;
    upper->parent = node->parent;
    change_child(s, tree, index, up, node->parent);
    upper->left = (int32_t)index;
    node->parent = (int32_t)up;
}

static void rotate_right(State *s, int64_t tree, int64_t index)
{
    struct rb_node *node = &s->rb_node[index];
    int64_t up = node->left;
    struct rb_node *upper = &s->rb_node[up];
    node->left = upper->right;
    if (upper->right != NIL)
        s->rb_node[upper->right].parent = (int32_t)index;
    upper->parent = node->parent;
    change_child(s, tree, index, up, node->parent);
    upper->right = (int32_t)index;
    node->parent = (int32_t)up;
}

static int is_red(State *s, int64_t index)
{
    return index != NIL && s->rb_node[index].color == COLOR_RED;
}

static void rb_link(State *s, int64_t tree, int64_t index, int64_t parent, int64_t side)
{
    struct rb_node *node = &s->rb_node[index];
    node->left = node->right = NIL;
    node->parent = (int32_t)parent;
    node->color = COLOR_RED;
    if (parent == NIL)
        s->rb_root[tree] = index;
    else if (side < 0)
        s->rb_node[parent].left = (int32_t)index;
    else
        s->rb_node[parent].right = (int32_t)index;
    while (is_red(s, parent)) {
        int64_t grand = s->rb_node[parent].parent;
        int is_left = parent == s->rb_node[grand].left;
        int64_t uncle = is_left ? s->rb_node[grand].right : s->rb_node[grand].left;
        if (is_red(s, uncle)) {
            s->rb_node[parent].color = COLOR_BLACK;
            s->rb_node[uncle].color = COLOR_BLACK;
            s->rb_node[grand].color = COLOR_RED;
            index = grand;
            parent = s->rb_node[index].parent;
            continue;
        }
        if (is_left) {
            if (index == s->rb_node[parent].right) {
                rotate_left(s, tree, parent);
                index = parent;
                parent = s->rb_node[index].parent;
            }
            rotate_right(s, tree, grand);
        } else {
            if (index == s->rb_node[parent].left) {
                rotate_right(s, tree, parent);
                index = parent;
                parent = s->rb_node[index].parent;
            }
            rotate_left(s, tree, grand);
        }
        s->rb_node[parent].color = COLOR_BLACK;
        s->rb_node[grand].color = COLOR_RED;
        break;
    }
    s->rb_node[s->rb_root[tree]].color = COLOR_BLACK;
}

/* --- the largest value of a subtree (node/rb_max.py) --------------------------------------------------- */

static int64_t largest_below(const State *s, int64_t node) { return node == NIL ? NIL : s->rb_max[node].largest; }

static void compute_largest(State *s, int64_t node)
{
    if (node == NIL)
        return;
    const struct rb_node *links = &s->rb_node[node];
    int64_t below = max64(largest_below(s, links->left), largest_below(s, links->right));
    s->rb_max[node].largest = max64(s->rb_max[node].own, below);
}

static void compute_upwards(State *s, int64_t node)
{
    for (; node != NIL; node = s->rb_node[node].parent) {
        compute_largest(s, s->rb_node[node].left);
        compute_largest(s, s->rb_node[node].right);
        compute_largest(s, node);
    }
}

static void change_own(State *s, int64_t node, int64_t value)
{
    s->rb_max[node].own = value;
    compute_upwards(s, node);
}

static void insert_max(State *s, int64_t tree, int64_t node, int64_t key, int64_t own)
{
    int64_t parent = NIL, side = -1;
    s->rb_node[node].key = key;
    s->rb_max[node].own = s->rb_max[node].largest = own;
    for (int64_t at = s->rb_root[tree]; at != NIL; at = side < 0 ? s->rb_node[at].left : s->rb_node[at].right) {
        parent = at;
        side = key < s->rb_node[at].key ? -1 : 1;
    }
    rb_link(s, tree, node, parent, side);
    compute_upwards(s, node);
}

/* Of a tree with one node: no benchmark takes one out of a larger tree. */
static void erase_max(State *s, int64_t tree, int64_t node)
{
    const struct rb_node *links = &s->rb_node[node];
    if (links->left != NIL || links->right != NIL || links->parent != NIL)
        UNREACHED();
    s->rb_root[tree] = NIL;
}
