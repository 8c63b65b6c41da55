/* What the benchmarks call: the same functions over the same State as benchmarks/kernels.py has, in C. */
#include "ksm.h"
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

int64_t touch_at_random(State *s, int64_t mm, int64_t vaddr, int64_t nr_pages, int64_t count)
{
    int64_t sum = 0;
    for (int64_t i = 0; i < count; i++) {
        uint64_t word = (uint64_t)mix64((uint64_t)(i + 1) * 0x9E3779B97F4A7C15u);
        int64_t page = (int64_t)((unsigned __int128)word * (uint64_t)nr_pages >> 64);
        sum += touch(s, mm, vaddr + (page << PAGE_SHIFT), 0);
    }
    return sum;
}

int64_t first_touch(State *s, int64_t mm, int64_t vaddr, int64_t nr_pages)
{
    for (int64_t page = 0; page < nr_pages; page++)
        if (touch(s, mm, vaddr + (page << PAGE_SHIFT), 1) == NIL)
            return page;
    return nr_pages;
}

int64_t unmap_whole_area(State *s, int64_t mm, int64_t vaddr)
{
    return unmap_area(s, find_vma(s, mm, vaddr));
}
