"""The state of one machine: every table.

A kernel object's record type stands beside its kernels; this file names one table of each. Tables with a
high-water mark are *pools* (node/pool.py): their records are handed out from the mark, or from a free list.
Kernels import ``State`` for the type checker only, so that a table added here recompiles nothing by itself
but through its layout, which every compiled unit is keyed by.
"""

import numpy as np

from node.alloc_trace import ALLOC_EVENT, ALLOC_OBJECT
from node.dma_work import DMA_REQUEST
from node.guest.host_guests import GUEST, VCPU
from node.hw.cache_lines import CACHE_LINE
from node.hw.cpu import CPU
from node.hw.disk import DISK
from node.hw.dma import DMA_DEVICE
from node.hw.ept_view import VIOLATION
from node.hw.paging import PAGING_LEVEL
from node.hw.tlb import TLB_ARRAY, TLB_ENTRY
from node.kalloc.kmem_cache import KMEM_CACHE
from node.kalloc.slab_array import ARRAY_CACHE
from node.kalloc.slab_layout import SLAB_CACHE
from node.kalloc.slab_lists import SLAB_LIST, SLAB_NODE
from node.kalloc.slab_reap import SLAB_REAPER
from node.kalloc.slab_report import SLAB_REPORT
from node.kalloc.slob_lists import SLOB_LIST
from node.kalloc.slub_records import KMEM_CACHE_CPU, KMEM_CACHE_NODE, SLUB_CACHE
from node.kalloc.vmap_area import VMAP_AREA
from node.kmap.asid import TLB_CONTEXT
from node.kmap.entry_pages import ENTRY_PAGE
from node.ksm.records import KSM_SCAN, RMAP_ITEM, STABLE_NODE
from node.kthread import KTHREAD
from node.pagecache.inode import INODE
from node.pagecache.radix_tree import RADIX_NODE
from node.phys.bounce import BOUNCE_POOL, BOUNCE_SLOT
from node.phys.buddy import FREE_AREA, FREE_LIST
from node.phys.compact_control import COMPACT_CONTROL
from node.phys.dma_map import DMA_MAPPING, DMA_SEGMENT
from node.phys.migrate_type import PAGEBLOCK
from node.phys.page import PAGE
from node.phys.pcp import PCP, PCP_LIST
from node.phys.zone import ZONE
from node.pool import POOL
from node.rb_max import RB_MAX
from node.rbtree import RB_NODE
from node.reclaim.lru import LRU
from node.reclaim.scan_control import SCAN_CONTROL
from node.swap.slots import SWAP_AREA, SWAP_CLUSTER, SWAP_CPU, SWAP_SLOT
from node.swap.writeback import WRITEBACK
from node.trace import TRACE_RUN
from node.vm.anon_vma import ANON_VMA, ANON_VMA_CHAIN
from node.vm.mm import MM
from node.vm.vma import VMA
from node.work import WORK
from shared.jit import use_state
from shared.kernel_state import Counters, KernelState, Records, table


@use_state
class State(KernelState):
    """The mutable state of one machine. There is no state anywhere else."""

    panic: Counters = table(np.int64)  # [4] code, table or cause, index or value; all 0: none
    current: Counters = table(np.int64)  # [Current] what runs now
    request: Counters = table(
        np.int64, used="scratch"
    )  # [Request] arguments and results of entries that need more than four
    knob: Counters = table(np.int64)  # [Knob] sysctls, sysfs files and machine constants
    cost: Counters = table(np.int64)  # [Cost] picoseconds
    vm_event: Counters = table(np.int64)  # [VmEvent]
    vm_stat: Counters = table(np.int64)  # [VmStat] pages
    ksm_stat: Counters = table(np.int64)  # [KsmStat]
    hw_event: Counters = table(np.int64)  # [HwEvent]
    pool: Records = table(POOL)  # [Pool]
    pool_link: Counters = table(np.int32, used="pool_links")  # all pools' free lists, at each pool's base
    page: Records = table(PAGE)  # [nr_frames], indexed by pfn
    pt_word: Counters = table(np.int64, used="page_tables")  # [nr_frames * 512] words of page-table frames
    slab_word: Counters = table(np.int64, used="slabs")  # [nr_frames * 512] bytes of slabs, eight to a word
    kmem_cache: Records = table(KMEM_CACHE)  # [MAX_CACHES]
    slab_report: Records = table(SLAB_REPORT)  # [NR_SLAB_REPORTS] ring of what was found wrong; 0 counts them
    slub_cache: Records = table(SLUB_CACHE)  # [MAX_CACHES]
    kmem_cache_cpu: Records = table(KMEM_CACHE_CPU)  # [cache * NR_CPUS + cpu]
    kmem_cache_node: Records = table(KMEM_CACHE_NODE)  # [cache * NR_NODES + nid]
    slub_stat: Counters = table(np.int64)  # [cache * SlubStat.NR + SlubStat]
    kmalloc_cache: Counters = table(
        np.int32
    )  # [KmallocType * NR_KMALLOC_SLOTS + slot] SLUB's; 0: not made yet
    kmalloc_large: Counters = table(np.int64)  # [LargeStat] of SLUB
    zone: Records = table(ZONE)  # [nid * NR_ZONES + ZoneId]
    lowmem_reserve: Counters = table(np.int64)  # [zone * NR_ZONES + highest ZoneId of the request] pages
    zonelist: Counters = table(
        np.int32
    )  # [(nid * NR_ZONES + highest ZoneId) * (zones + 1)] lists that end with NIL
    node_distance: Counters = table(np.int32)  # [nid * NR_NODES + nid]
    pageblock: Records = table(PAGEBLOCK)  # [nr_frames / 512], indexed by pfn >> 9
    free_area: Records = table(FREE_AREA)  # [zone * NR_ORDERS + order]
    free_list: Records = table(FREE_LIST)  # [(zone * NR_ORDERS + order) * NR_MIGRATE_TYPES + type]
    pcp: Records = table(PCP)  # [cpu * zones + zone]
    pcp_list: Records = table(PCP_LIST)  # [(cpu * zones + zone) * NR_PCP_LISTS + list]
    compact_control: Records = table(COMPACT_CONTROL)  # [Compactor]
    cpu: Records = table(CPU)  # [cpu]
    paging_level: Records = table(PAGING_LEVEL)  # [MAX_LEVELS] of the machine's paging mode, from the top
    tlb_array: Records = table(TLB_ARRAY)  # [TlbArray]
    tlb: Records = table(TLB_ENTRY)  # [cpu * entries of all arrays]
    tlb_tree: Counters = table(np.int64)  # [cpu * sets of all arrays] bits of the sets' PLRU trees
    cached_paths: Counters = table(np.int64)  # [cpu * PCID_GROUPS] walk-cache entries of a group, at most
    tlb_context: Records = table(TLB_CONTEXT)  # [cpu * NR_ASIDS]
    entry_page: Records = table(ENTRY_PAGE)  # [cpu * Knob.ENTRY_PAGES]
    cache_line: Records = table(CACHE_LINE)  # [cpu * sets * ways] of the data caches; [1] if there are none
    gathered: Counters = table(np.int32, used="scratch")  # [GATHER_PAGES] frames of the unmapping under way
    gather_batch: Counters = table(np.int32, used="scratch")  # [MAX_BATCHES] frames that would hold that list
    mm: Records = table(MM, used="MM")
    vma: Records = table(VMA, used="VMA")
    vm_area_stat: Counters = table(np.int64)  # [VmAreaStat]
    anon_vma: Records = table(ANON_VMA, used="ANON_VMA")
    anon_vma_chain: Records = table(ANON_VMA_CHAIN, used="ANON_VMA_CHAIN")
    inode: Records = table(INODE, used="INODE")
    radix_node: Records = table(RADIX_NODE, used="RADIX_NODE")
    radix_slot: Counters = table(np.int32, used="radix_slots")  # [radix_node * RADIX_SLOTS] frames, or nodes
    fault_outcome: Counters = table(np.int64)  # [FaultOutcome] faults that ended so
    kthread: Records = table(KTHREAD)  # [Kthread]
    lru: Records = table(LRU)  # [LruList]
    scan_control: Records = table(SCAN_CONTROL)  # [Reclaimer]
    swap_area: Records = table(SWAP_AREA)  # [1]
    swap_cluster: Records = table(SWAP_CLUSTER)  # [slots / 256]
    swap_cpu: Records = table(SWAP_CPU)  # [cpu]
    swap_slot: Records = table(SWAP_SLOT)  # [slots]
    slot_word: Counters = table(
        np.int64, used="slot_tables"
    )  # [slots * 1024] entries of swapped-out page tables, at their slots; empty where tables are not swapped
    writeback: Records = table(WRITEBACK)  # [nr_requests of the device] ring of the writes under way
    disk: Records = table(DISK)  # [1]
    disk_queue: Counters = table(np.int64)  # [queue depth] time at which each place of the device is free, ps
    dma_device: Records = table(DMA_DEVICE)  # [devices]
    dma_request: Records = table(DMA_REQUEST)  # [process of a workload]
    dma_mapping: Records = table(DMA_MAPPING)  # [process * 2] of its driver's buffers
    dma_segment: Records = table(DMA_SEGMENT)  # [mapping * MAX_SEGMENTS]; [1] on a machine without devices
    dma_frame: Counters = table(np.int32)  # frames of all drivers' buffers, each at its request's first_frame
    bounce_pool: Records = table(BOUNCE_POOL)  # [BouncePool]
    bounce_area: Counters = table(np.int32)  # [area of all pools] its first frame
    bounce_slot: Records = table(BOUNCE_SLOT)  # [area * IO_TLB_SEGSIZE]
    ksm_scan: Records = table(KSM_SCAN)  # [1]
    rmap_item: Records = table(RMAP_ITEM, used="RMAP_ITEM")
    stable_node: Records = table(STABLE_NODE, used="STABLE_NODE")
    rb_node: Records = table(RB_NODE, used="rb")  # see node/tree_nodes.py
    rb_max: Records = table(RB_MAX, used="rb_max")  # [node] of those trees that know the largest value below
    rb_root: Counters = table(
        np.int64, used="rb_roots"
    )  # [Tree], then those of address spaces, inodes, anon_vmas
    vmap_area: Records = table(VMAP_AREA, used="VMAP_AREA")  # areas of vmalloc and modules, free ones too
    vmap_stat: Counters = table(np.int64)  # [VmapStat]
    slab_cache: Records = table(SLAB_CACHE)  # [MAX_CACHES]
    slab_array: Records = table(ARRAY_CACHE)  # [cache * (NR_CPUS + NR_NODES) + cpu, or NR_CPUS + nid]
    slab_entry: Counters = table(
        np.int64, used="slab_arrays"
    )  # objects of all arrays, each at its first_entry
    slab_node: Records = table(SLAB_NODE)  # [cache * NR_NODES + nid]
    slab_list: Records = table(SLAB_LIST)  # [slab_node * NR_SLAB_LISTS + SlabList]
    slab_general: Counters = table(np.int32)  # [NR_GENERAL] SLAB's caches of kmalloc, see general_cache()
    slab_stat: Counters = table(np.int64)  # [SlabStat]
    slab_reaper: Records = table(SLAB_REAPER)  # [cpu]
    slob_list: Records = table(SLOB_LIST)  # [SlobList]
    slob_stat: Counters = table(np.int64)  # [SlobStat]
    recorded: Counters = table(
        np.int64
    )  # [2 * contents] recorded ids in ascending order, then jhash2 of each
    work: Records = table(WORK)  # [process of a workload]
    zipf: Counters = table(np.int64)  # cumulative weights of all Zipf workloads, each at its base
    trace_run: Records = table(TRACE_RUN)  # runs of all recorded traces, each at its works' first_run
    trace_page: Counters = table(np.int64)  # page numbers of all traces, each at its works' first_page
    alloc_event: Records = table(
        ALLOC_EVENT
    )  # events of all allocation traces, each CPU's at its work's first_run
    alloc_object: Records = table(
        ALLOC_OBJECT
    )  # objects of all allocation traces, each at its works' first_page
    alloc_stat: Counters = table(np.int64)  # [AllocStat]
    ept_view: Counters = table(np.int8)  # [nr_frames] of a guest: View of each gfn; empty on other machines
    ept_mark: Counters = table(np.int8)  # [nr_frames] of a guest: GfnMark bits of this epoch
    ept_marked: Counters = table(
        np.int32, used="marked"
    )  # [nr_frames] of a guest: gfns with a mark, in order of their first
    violation: Records = table(
        VIOLATION, used="violations"
    )  # [2 * nr_frames] of a guest: its EPT violations of this epoch
    guest: Records = table(GUEST)  # [guests of a host]
    vcpu: Records = table(VCPU)  # [vCPUs of all guests] of a host, guest after guest
    vcpu_heap: Counters = table(
        np.int32, used="scratch"
    )  # [vCPUs of all guests] of a host: those with traffic, by time
    traffic: Records = table(
        VIOLATION, used="scratch"
    )  # [2 * gfns of all guests, and late_read] of a host: this epoch's violations, merged
    late_read: Records = table(
        VIOLATION, used="late_reads"
    )  # [LATE_READS] of a host: reads that the device gets in a later epoch; gfn is the slot
    incoming: Counters = table(
        np.int32, used="scratch"
    )  # [2 * gfns of the largest guest] of a host: what one guest reports
    final_content: Counters = table(
        np.int64, used="scratch"
    )  # [gfns of all guests] of a host: content at the epoch's end,
    final_word: Counters = table(
        np.int32, used="scratch"
    )  # [gfns of all guests] valid for those that changed in it
    view_sent: Counters = table(np.int8)  # [gfns of all guests] of a host: GfnBit bits
    view_changed: Counters = table(
        np.int32, used="view_changes"
    )  # [gfns of all guests] of a host: positions in view_sent to look at
