"""Entries that units call in one another: the signatures, as a C header has them.

The bodies are in the modules named. A call through here is a call of compiled code by pointer (shared/jit.py),
so allocation, reclaim, faults and swap, which call one another in a circle, are compiled apart.
"""

from typing import TYPE_CHECKING

from shared.jit import declare

if TYPE_CHECKING:
    from node.state import State


@declare("node.rbtree")
def rb_erase(state: "State", tree: int, index: int) -> int:
    """Take a node out of a red-black tree; return 0."""
    raise NotImplementedError


@declare("node.phys.alloc_slowpath")
def alloc_frames(state: "State", order: int, gfp: int) -> int:
    """Return the first of 2**order frames with one reference to it, or NIL: ``alloc_pages`` for rare callers."""
    raise NotImplementedError


@declare("node.phys.alloc_slowpath")
def free_frames(state: "State", pfn: int, order: int) -> int:
    """Give back 2**order frames that nobody refers to any more: ``free_pages`` for rare callers; return 0."""
    raise NotImplementedError


@declare("node.kalloc.cache_list")
def kmem_cache_create(state: "State") -> int:
    """Return a cache for the objects that Request.A0..A6 describe (node/kalloc/cache_list.py), or NIL."""
    raise NotImplementedError


@declare("node.kalloc.cache_list")
def kmem_cache_shrink(state: "State", cache: int) -> int:
    """Give back the cache's slabs that have no object in use; return how many frames those were."""
    raise NotImplementedError


@declare("node.kalloc.cache_list")
def kmem_cache_destroy(state: "State", cache: int) -> int:
    """One user fewer; with the last, end the cache. Return 0, or the number of objects in use; NIL if it is none."""
    raise NotImplementedError


@declare("node.kalloc.calls")
def kmem_cache_alloc(state: "State", cache: int, gfp: int) -> int:
    """Return the physical address of a new object, or NIL if there is no memory."""
    raise NotImplementedError


@declare("node.kalloc.calls")
def kmem_cache_free(state: "State", cache: int, paddr: int) -> int:
    """Take an object back; return 0, or a SlabError."""
    raise NotImplementedError


@declare("node.kalloc.calls")
def kmalloc(state: "State", size: int, gfp: int) -> int:
    """Return the physical address of ``size`` bytes, or NIL if there is no memory or it is too much."""
    raise NotImplementedError


@declare("node.kalloc.calls")
def kfree(state: "State", paddr: int) -> int:
    """Take back what ``kmalloc`` gave; return 0, or a SlabError."""
    raise NotImplementedError


@declare("node.kalloc.calls")
def ksize(state: "State", paddr: int) -> int:
    """Return how many bytes the holder of ``paddr``, which kmalloc gave, may use; 0 for any other address."""
    raise NotImplementedError


@declare("node.kalloc.calls")
def write_slab_bytes(state: "State", paddr: int, nr_bytes: int, value: int) -> int:
    """Write ``value``, 0..255, over bytes of slabs, as a user of an object may; return how many were written."""
    raise NotImplementedError


@declare("node.kalloc.slub")
def slub_cache_create(state: "State", cache: int) -> int:
    """SLUB: lay out the objects of a new cache whose size, align and flags are set; return 0, or NIL without memory."""
    raise NotImplementedError


@declare("node.kalloc.slub")
def slub_cache_alloc(state: "State", cache: int, gfp: int) -> int:
    """SLUB: return the physical address of a new object, or NIL if there is no memory."""
    raise NotImplementedError


@declare("node.kalloc.slub")
def slub_cache_free(state: "State", cache: int, paddr: int) -> int:
    """SLUB: take an object back; return 0, or a SlabError."""
    raise NotImplementedError


@declare("node.kalloc.slub")
def slub_cache_shrink(state: "State", cache: int) -> int:
    """SLUB: give back the cache's slabs that have no object in use; return how many frames those were."""
    raise NotImplementedError


@declare("node.kalloc.slub")
def slub_cache_destroy(state: "State", cache: int) -> int:
    """SLUB: give back all slabs; return 0, or the number of objects that are still in use, with nothing done."""
    raise NotImplementedError


@declare("node.kalloc.slub")
def slub_kmalloc(state: "State", size: int, gfp: int) -> int:
    """SLUB: return the physical address of ``size`` bytes, or NIL if there is no memory."""
    raise NotImplementedError


@declare("node.kalloc.slub")
def slub_kfree(state: "State", paddr: int) -> int:
    """SLUB: take back what ``slub_kmalloc`` gave; return 0, or a SlabError."""
    raise NotImplementedError


@declare("node.kalloc.slub")
def slub_ksize(state: "State", paddr: int) -> int:
    """SLUB: return how many bytes the holder of ``paddr``, which kmalloc gave, may use."""
    raise NotImplementedError


@declare("node.kalloc.slab")
def slab_cache_create(state: "State", cache: int) -> int:
    """SLAB: lay out the objects of a new cache whose size, align and flags are set; return 0, or NIL without memory."""
    raise NotImplementedError


@declare("node.kalloc.slab")
def slab_cache_alloc(state: "State", cache: int, gfp: int) -> int:
    """SLAB: return the physical address of a new object, or NIL if there is no memory."""
    raise NotImplementedError


@declare("node.kalloc.slab")
def slab_cache_free(state: "State", cache: int, paddr: int) -> int:
    """SLAB: take an object back; return 0, or a SlabError."""
    raise NotImplementedError


@declare("node.kalloc.slab")
def slab_cache_shrink(state: "State", cache: int) -> int:
    """SLAB: give back the cache's slabs that have no object in use; return how many frames those were."""
    raise NotImplementedError


@declare("node.kalloc.slab")
def slab_cache_destroy(state: "State", cache: int) -> int:
    """SLAB: give back all slabs; return 0, or the number of objects that are still in use, with nothing done."""
    raise NotImplementedError


@declare("node.kalloc.slab")
def slab_kmalloc(state: "State", size: int, gfp: int) -> int:
    """SLAB: return the physical address of ``size`` bytes, or NIL if there is no memory."""
    raise NotImplementedError


@declare("node.kalloc.slab")
def slab_kfree(state: "State", paddr: int) -> int:
    """SLAB: take back what ``slab_kmalloc`` gave; return 0, or a SlabError."""
    raise NotImplementedError


@declare("node.kalloc.slab")
def slab_ksize(state: "State", paddr: int) -> int:
    """SLAB: return how many bytes the holder of ``paddr``, which kmalloc gave, may use."""
    raise NotImplementedError


@declare("node.kalloc.slob")
def slob_cache_create(state: "State", cache: int) -> int:
    """SLOB: lay out the objects of a new cache whose size, align and flags are set; return 0, or NIL without memory."""
    raise NotImplementedError


@declare("node.kalloc.slob")
def slob_cache_alloc(state: "State", cache: int, gfp: int) -> int:
    """SLOB: return the physical address of a new object, or NIL if there is no memory."""
    raise NotImplementedError


@declare("node.kalloc.slob")
def slob_cache_free(state: "State", cache: int, paddr: int) -> int:
    """SLOB: take an object back; return 0, or a SlabError."""
    raise NotImplementedError


@declare("node.kalloc.slob")
def slob_cache_shrink(state: "State", cache: int) -> int:
    """SLOB: give back the cache's slabs that have no object in use; return how many frames those were."""
    raise NotImplementedError


@declare("node.kalloc.slob")
def slob_cache_destroy(state: "State", cache: int) -> int:
    """SLOB: give back all slabs; return 0, or the number of objects that are still in use, with nothing done."""
    raise NotImplementedError


@declare("node.kalloc.slob")
def slob_kmalloc(state: "State", size: int, gfp: int) -> int:
    """SLOB: return the physical address of ``size`` bytes, or NIL if there is no memory."""
    raise NotImplementedError


@declare("node.kalloc.slob")
def slob_kfree(state: "State", paddr: int) -> int:
    """SLOB: take back what ``slob_kmalloc`` gave; return 0, or a SlabError."""
    raise NotImplementedError


@declare("node.kalloc.slob")
def slob_ksize(state: "State", paddr: int) -> int:
    """SLOB: return how many bytes the holder of ``paddr``, which kmalloc gave, may use."""
    raise NotImplementedError


@declare("node.kalloc.vmalloc")
def vmalloc(state: "State", size: int, gfp: int, caller: int) -> int:
    """Return the kernel address of ``size`` bytes of frames from anywhere, or NIL; ``caller`` is a VmapCaller."""
    raise NotImplementedError


@declare("node.kalloc.vmalloc")
def vfree(state: "State", vaddr: int) -> int:
    """Free what ``vmalloc`` gave; return 0, or NOT_AN_AREA."""
    raise NotImplementedError


@declare("node.kalloc.vmalloc")
def vmap(state: "State", first_pfn: int, nr_pages: int, caller: int) -> int:
    """Map the caller's frames, linked by ``page.next``, together; return the address, or NIL."""
    raise NotImplementedError


@declare("node.kalloc.vmalloc")
def vunmap(state: "State", vaddr: int) -> int:
    """Unmap what ``vmap`` mapped; return 0, or NOT_AN_AREA."""
    raise NotImplementedError


@declare("node.kalloc.ioremap")
def ioremap(state: "State", paddr: int, size: int, kind: int, caller: int) -> int:
    """Map a device's addresses with a MemoryType; return the address that stands for ``paddr``, or NIL."""
    raise NotImplementedError


@declare("node.kalloc.ioremap")
def iounmap(state: "State", vaddr: int) -> int:
    """Unmap what ``ioremap`` mapped; return 0, or NOT_AN_AREA."""
    raise NotImplementedError


@declare("node.kalloc.vmalloc")
def load_module(state: "State", size: int, caller: int) -> int:
    """Return the address of ``size`` bytes for a module's text, in the modules' region, or NIL."""
    raise NotImplementedError


@declare("node.kalloc.vmalloc")
def unload_module(state: "State", vaddr: int) -> int:
    """Free a module's text and flush it; return 0, or NOT_AN_AREA."""
    raise NotImplementedError


@declare("node.kalloc.vmap_space")
def vm_unmap_aliases(state: "State") -> int:
    """Flush all areas of vmalloc that wait for it; return how many they were."""
    raise NotImplementedError


@declare("node.kmap.kernel_flush")
def flush_tlb_kernel_range(state: "State", start: int, end: int) -> int:
    """Drop [start, end) of the kernel's addresses from every CPU; return 0."""
    raise NotImplementedError


@declare("node.phys.alloc_slowpath")
def alloc_beyond_lists(state: "State", order: int, gfp: int) -> int:
    """Return the first of 2**order frames where the CPU's list has none to give, or NIL, counted."""
    raise NotImplementedError


@declare("node.phys.alloc_slowpath")
def free_block(state: "State", pfn: int, order: int) -> int:
    """Put back a block of frames that are counted and cleared already; return 0."""
    raise NotImplementedError


@declare("node.phys.pcp_batch")
def pcp_free_bulk(state: "State", index: int, which: int) -> int:
    """Give frames of ``state.pcp[index]``, which reached its limit, back to the zone, list ``which`` first; 0."""
    raise NotImplementedError


@declare("node.phys.pcp_batch")
def drain_all_pages(state: "State") -> int:
    """Give the frames of every CPU's lists back to their zones; return 0."""
    raise NotImplementedError


@declare("node.phys.compaction")
def try_to_compact_pages(state: "State", order: int, gfp: int, alloc_flags: int, priority: int) -> int:
    """Compact the zones of a request until one has a block for it; return a CompactResult."""
    raise NotImplementedError


@declare("node.phys.compaction")
def begin_background_zone(state: "State", zone: int, order: int) -> int:
    """Let kcompactd begin with a zone, if it is deferred for no failure and suitable; return 0."""
    raise NotImplementedError


@declare("node.phys.compaction")
def compact_slice(state: "State", limit_ps: int) -> int:
    """Go on with kcompactd's zone until the clock passes ``limit_ps``; return CONTINUE, or how it ended."""
    raise NotImplementedError


@declare("node.phys.compact_defer")
def reset_isolation_suitable(state: "State") -> int:
    """Forget in which pageblocks compaction found nothing, where the scanners met; return 0."""
    raise NotImplementedError


@declare("node.phys.kcompactd")
def wakeup_kcompactd(state: "State", order: int) -> int:
    """Let kcompactd make a block of 2**order frames, if it sleeps and there is a zone where it could; return 0."""
    raise NotImplementedError


@declare("node.phys.kcompactd")
def kcompactd_slice(state: "State", limit_ps: int) -> int:
    """Run kcompactd from Current.CLOCK_PS until its clock passes ``limit_ps`` or it sleeps (clock ASLEEP); 0."""
    raise NotImplementedError


@declare("node.reclaim.vmscan")
def wake_kswapd(state: "State", order: int, gfp: int) -> int:
    """Let kswapd run as soon as the clock allows, or kcompactd if only blocks are short; return 0."""
    raise NotImplementedError


@declare("node.reclaim.vmscan")
def direct_reclaim(state: "State", order: int, gfp: int) -> int:
    """Reclaim on behalf of the current task, or let the OOM killer; return 1 if another try is worth while."""
    raise NotImplementedError


@declare("node.swap.swap_cache")
def swap_in(state: "State", mm: int, vaddr: int, pte: int) -> int:
    """Bring the page of swap entry ``pte`` into a frame in the swap cache.

    Returns its pfn with a reference for the caller, or NIL if there is no memory. Sets Request.R0 to 1 if it
    had to be read from the device (a major fault), else 0; the wait is added to the current clock and stall.
    """
    raise NotImplementedError


@declare("node.swap.swap_cache")
def swap_in_slot(state: "State", slot: int) -> int:
    """Do what ``swap_in`` does for a slot that holds no page of an area: a page table."""
    raise NotImplementedError


@declare("node.swap.swap_cache")
def try_to_free_swap(state: "State", pfn: int) -> int:
    """Drop the frame's slot in the swap cache if no page table refers to the slot; return 1 if it did."""
    raise NotImplementedError


@declare("node.swap.swap_cache")
def free_swap_entry(state: "State", slot: int) -> int:
    """Note that a page-table entry no longer refers to ``slot``: free it, and its cached frame, with the last; 0."""
    raise NotImplementedError


@declare("node.swap.swap_cache")
def dup_swap_entry(state: "State", slot: int) -> int:
    """One more page-table entry refers to ``slot`` (fork); return 0."""
    raise NotImplementedError


@declare("node.swap.swap_out")
def add_to_swap(state: "State", pfn: int) -> int:
    """Give a frame a slot and put it into the swap cache, DIRTY; return the slot, or NIL if swap is full."""
    raise NotImplementedError


@declare("node.swap.swap_out")
def swap_writepage(state: "State", pfn: int) -> int:
    """Start to write a frame of the swap cache to its slot, or drop it if nobody refers to the slot; return 0."""
    raise NotImplementedError


@declare("node.swap.swap_out")
def remove_mapping(state: "State", pfn: int) -> int:
    """Take a clean frame that nobody else uses out of the swap cache; return 1 if it was one."""
    raise NotImplementedError


@declare("node.swap.swap_out")
def free_swap_if_full(state: "State", pfn: int) -> int:
    """Free the slot of a frame that is going to stay, if swap is more than half full; return 1 if it did."""
    raise NotImplementedError


@declare("node.swap.swap_out")
def page_is_locked(state: "State", pfn: int) -> int:
    """Return whether the frame is still being read from the device."""
    raise NotImplementedError


@declare("node.swap.swap_out")
def end_page_writebacks(state: "State") -> int:
    """Complete all writes whose time has come by the current clock; return 0."""
    raise NotImplementedError


@declare("node.swap.swap_out")
def sleep_until_written(state: "State", nr_writes: int, timeout_ps: int) -> int:
    """Let the current task sleep until ``nr_writes`` more writes are done, or for ``timeout_ps``; return 0."""
    raise NotImplementedError


@declare("node.reclaim.vmscan")
def kswapd_slice(state: "State", limit_ps: int) -> int:
    """Run kswapd from Current.CLOCK_PS until its clock passes ``limit_ps`` or it sleeps (kthread clock ASLEEP); 0."""
    raise NotImplementedError


@declare("node.ksm.scan")
def ksm_scan_until(state: "State", nr_pages: int, limit_ps: int) -> int:
    """Scan up to ``nr_pages`` while the clock is before ``limit_ps``; return how many were scanned.

    Request.R0 is 1 if a full scan ended, which is the end of the batch however many pages are left.
    """
    raise NotImplementedError


@declare("node.ksm.ksmd")
def ksmd_slice(state: "State", limit_ps: int) -> int:
    """Run ksmd from Current.CLOCK_PS until its clock passes ``limit_ps`` or it sleeps; return 0.

    Leaves in its kthread record the time at which it runs next.
    """
    raise NotImplementedError


@declare("node.ksm.registry")
def ksm_enter(state: "State", mm: int) -> int:
    """Put an address space with its first mergeable area on ksmd's list; return 0."""
    raise NotImplementedError


@declare("node.ksm.break_ksm")
def break_range(state: "State", mm: int, start: int, end: int) -> int:
    """Undo every merge in [start, end); return 0, or NIL if there is no memory for the copies."""
    raise NotImplementedError


@declare("node.ksm.registry")
def ksm_exit(state: "State", mm: int) -> int:
    """Take a process that ends off ksmd's list, or leave that to ksmd if it has items of it; return 0."""
    raise NotImplementedError


@declare("node.alloc_trace")
def run_allocations(state: "State", index: int, limit_ps: int) -> int:
    """Make the events of an allocation trace, a workload, until the current clock passes ``limit_ps``; return 0."""
    raise NotImplementedError


@declare("node.kalloc.slab_reap")
def slab_reap_slice(state: "State", limit_ps: int) -> int:
    """SLAB: run cache_reap on every CPU where it is due before ``limit_ps``; return 0.

    Leaves in its kthread record the time at which it runs next.
    """
    raise NotImplementedError


@declare("node.kthread")
def run_kthreads(state: "State", until_ps: int) -> int:
    """Run the kernel threads, whichever is behind first, up to ``until_ps``; return 0."""
    raise NotImplementedError


@declare("node.hw.second_level")
def access_beyond_first_level(state: "State", vaddr: int, kind: int, first_level_place: int) -> int:
    """Translate a user program's access that the first-level TLB does not let through; return the frame, or NIL."""
    raise NotImplementedError


@declare("node.hw.second_level")
def access_after_fault(state: "State", vaddr: int, kind: int) -> int:
    """Translate a user program's access again whose page fault the kernel has served; return the frame, or NIL."""
    raise NotImplementedError


@declare("node.hw.second_level")
def access_as(state: "State", vaddr: int, kind: int) -> int:
    """Translate one access of the current CPU at its privilege level; return the 4 KiB frame, or NIL for a fault."""
    raise NotImplementedError


@declare("node.kmap.entry")
def run_in_user_mode(state: "State", mm: int) -> int:
    """Let a process run on the current CPU: switch to its address space if another's is loaded; return 0."""
    raise NotImplementedError


@declare("node.kmap.entry")
def system_call(state: "State", nr_calls: int) -> int:
    """Make ``nr_calls`` system calls that do nothing on the current CPU; return 0."""
    raise NotImplementedError


@declare("node.kmap.entry")
def device_interrupt(state: "State", nr_interrupts: int) -> int:
    """Take ``nr_interrupts`` interrupts of devices on the current CPU; return 0."""
    raise NotImplementedError


@declare("node.dma_work")
def dma_step(state: "State", index: int) -> int:
    """Start the next transfer of a ``dma`` workload, or finish the one under way; return 0."""
    raise NotImplementedError


@declare("node.kmap.entry")
def go_idle(state: "State", cpu: int) -> int:
    """Let a CPU without work run the idle thread; return 0."""
    raise NotImplementedError


@declare("node.kmap.tlb_flush")
def flush_tlb_range(state: "State", mm: int, start: int, end: int, freed_tables: int) -> int:
    """Flush [start, end) of an address space after its entries lost rights; return 0."""
    raise NotImplementedError


@declare("node.kmap.tlb_flush")
def retire_mm(state: "State", mm: int) -> int:
    """Take an address space that ends, and whose tables are about to go, off every CPU; return 0."""
    raise NotImplementedError


@declare("node.fault.user_fault")
def access_through_cache(state: "State", vaddr: int, kind: int) -> int:
    """Translate and make one access of a user program where there is a data cache; return the frame, or NIL."""
    raise NotImplementedError


@declare("node.fault.user_fault")
def fault_in(state: "State", mm: int, vaddr: int, kind: int) -> int:
    """Go on with a user program's access that has just faulted; return the frame, or NIL for a signal."""
    raise NotImplementedError


@declare("node.fault.fault")
def handle_mm_fault(state: "State", mm: int, vaddr: int, write: int) -> int:
    """Serve a page fault of the current task; return a VmFault."""
    raise NotImplementedError


@declare("node.vm.table_swap")
def swap_out_table(state: "State", mm: int, vaddr: int) -> int:
    """Swap out the second-level table for ``vaddr``, which is in memory, if it maps nothing; return 1 if it goes."""
    raise NotImplementedError


@declare("node.vm.table_swap")
def swap_in_table(state: "State", mm: int, vaddr: int) -> int:
    """Bring the second-level table for ``vaddr`` back into memory if it is swapped out.

    Returns 1 if it came, 0 if it need not, NIL if there is no memory. With 1, Request.R0 says whether it was read
    from the device; the wait is added to the current clock and stall.
    """
    raise NotImplementedError


@declare("node.vm.table_swap")
def zap_swapped_table(state: "State", mm: int, start: int, end: int) -> int:
    """Empty every entry for [start, end), within one table, if that is swapped out; return how many pages it was."""
    raise NotImplementedError


@declare("node.vm.rmap_walk")
def try_to_unmap(state: "State", pfn: int, swap_slot: int) -> int:
    """Replace every page-table entry that maps the frame by a swap entry of ``swap_slot``.

    Returns the number of entries replaced; the frame's mapcount is then 0. Accessed and dirty bits of the
    entries go to the frame (REFERENCED, DIRTY); TLB entries are flushed.
    """
    raise NotImplementedError


@declare("node.vm.rmap_walk")
def page_referenced(state: "State", pfn: int) -> int:
    """Count, and clear, the accessed bits of all page-table entries that map the frame."""
    raise NotImplementedError


@declare("node.vm.rmap_walk")
def page_mkclean(state: "State", pfn: int) -> int:
    """Clear dirty and write bits of all page-table entries that map a file's page; return how many had one."""
    raise NotImplementedError


@declare("node.vm.rmap_walk")
def move_mappings(state: "State", pfn: int, to: int) -> int:
    """Let every page-table entry that maps frame ``pfn`` map ``to``; return how many there were."""
    raise NotImplementedError


@declare("node.vm.migrate")
def isolate_lru_page(state: "State", pfn: int) -> int:
    """Take a page off its LRU list and hold it; return 0."""
    raise NotImplementedError


@declare("node.vm.migrate")
def putback_lru_page(state: "State", pfn: int) -> int:
    """Let go of an isolated page, which goes to the head of its LRU list; return 0."""
    raise NotImplementedError


@declare("node.vm.migrate")
def migrate_page(state: "State", pfn: int, to: int, mode: int) -> int:
    """Move an isolated page to an isolated free frame; return whether it moved. ``mode`` is a MigrateMode."""
    raise NotImplementedError


@declare("node.fault.populate")
def populate_range(state: "State", mm: int, start: int, end: int) -> int:
    """Fault in every page of [start, end) that its area allows, as if it were used; return how many could not be."""
    raise NotImplementedError


@declare("node.fault.populate")
def populate_area(state: "State", vma: int, start: int, end: int, write: int) -> int:
    """Fault in every page of [start, end) of one area, for reading or writing; return 0, or a negative Errno."""
    raise NotImplementedError


@declare("node.pagecache.inode")
def new_file(state: "State", nr_pages: int, key: int) -> int:
    """Return a regular file of ``nr_pages`` whose contents are those of ``key``, held by its name; or NIL."""
    raise NotImplementedError


@declare("node.pagecache.inode")
def get_inode(state: "State", inode: int) -> int:
    """One more area maps the file, or has it open; return 0."""
    raise NotImplementedError


@declare("node.pagecache.inode")
def is_regular_file(state: "State", inode: int) -> int:
    """Return whether an inode is of a file on a disk, not of shared memory."""
    raise NotImplementedError


@declare("node.pagecache.inode")
def put_inode(state: "State", inode: int) -> int:
    """One user of the file less; with the last, one without a name goes, and its pages with it; return 0."""
    raise NotImplementedError


@declare("node.pagecache.shmem")
def new_shmem_inode(state: "State", nr_pages: int, is_accounted: int) -> int:
    """Return an object of shared memory of ``nr_pages`` without a name, held by the caller; or NIL."""
    raise NotImplementedError


@declare("node.vm.mmap")
def do_mmap(state: "State", mm: int) -> int:
    """Map what Request.A0..A6 say (node/vm/mmap.py); return the address, or a negative Errno."""
    raise NotImplementedError


@declare("node.vm.mmap")
def munmap(state: "State", mm: int, start: int, end: int) -> int:
    """Unmap [start, end); return the number of pages that were mapped there, or a negative Errno."""
    raise NotImplementedError


@declare("node.vm.unmap")
def exit_mmap(state: "State", mm: int) -> int:
    """End a process: unmap all of it, free its page tables; return the number of pages unmapped."""
    raise NotImplementedError


@declare("node.guest.host_guests")
def note_view_change(state: "State", mm: int, vaddr: int, level: int) -> int:
    """On a host: tell a guest at the next border that its gfn's View is now ``level``; return 0."""
    raise NotImplementedError


@declare("node.vm.huge_rmap")
def free_huge_page(state: "State", pfn: int) -> int:
    """Give back a transparent huge page that nobody refers to any more; return 0."""
    raise NotImplementedError


@declare("node.vm.huge_rmap")
def deferred_split_huge_page(state: "State", pfn: int) -> int:
    """Let a huge page, a part of which is unmapped, wait to be split; return 0."""
    raise NotImplementedError


@declare("node.vm.huge_pmd")
def zap_huge_pmd(state: "State", mm_index: int, position: int, vaddr: int) -> int:
    """Empty the entry at ``position``, which maps a transparent huge page whole; return 0. For an unmapping."""
    raise NotImplementedError


@declare("node.vm.huge_split")
def split_huge_at(state: "State", mm_index: int, vaddr: int) -> int:
    """Split the huge entry that maps ``vaddr``, if one does; return whether."""
    raise NotImplementedError


@declare("node.vm.huge_fork")
def copy_huge_pmd(state: "State", child: int, parent: int, vaddr: int) -> int:
    """Let a child map what the parent maps at ``vaddr`` by a huge page; return whether there is one, NIL: no memory."""
    raise NotImplementedError


@declare("node.vm.huge_page_split")
def split_huge_page(state: "State", pfn: int) -> int:
    """Make 512 small pages of a huge page that the caller holds; return whether."""
    raise NotImplementedError


@declare("node.vm.huge_page_split")
def huge_page_referenced(state: "State", pfn: int) -> int:
    """Count, and clear, the accessed bits of all entries that map a huge page or a part of it."""
    raise NotImplementedError


@declare("node.vm.huge_page_split")
def shrink_huge(state: "State", priority: int) -> int:
    """Give reclaim what huge pages hold for nothing: unmapped parts, and the huge page of zeroes; return how many."""
    raise NotImplementedError


@declare("node.vm.huge_protect")
def change_huge_pmd(state: "State", vma_index: int, vaddr: int) -> int:
    """Give the huge entry at ``vaddr`` its area's rights, if it is one; return whether it lost some."""
    raise NotImplementedError


@declare("node.fault.khugepaged")
def khugepaged_slice(state: "State", limit_ps: int) -> int:
    """Let khugepaged scan until it has done its share or its clock passes ``limit_ps``; return 0."""
    raise NotImplementedError


@declare("node.fault.huge")
def do_huge_fault(state: "State", vma_index: int, vaddr: int, access: int) -> int:
    """Serve a fault where no table of the last level leads; return a VmFault, or NIL: small pages are to serve it."""
    raise NotImplementedError
