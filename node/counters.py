"""Numbers of a machine that have names: knobs, counters by Linux's names, and causes of a panic."""

from enum import IntEnum


class Panic(IntEnum):
    """Causes of a KernelPanic that kernels state themselves (codes below 2 are the runtime's)."""

    REFCOUNT = 2
    MAPCOUNT = 3
    LIST = 4
    PAGE_FLAGS = 5
    PAGE_TABLE = 6
    VMA = 7
    KSM_TREE = 8
    SWAP_COUNT = 9
    POOL = 10
    BUDDY = 11
    PROTOCOL = 12
    RMAP = 13
    DATA_CACHE = 14
    INTERVAL_TREE = 15
    PAGE_CACHE = 16
    HUGE_PAGE = 17
    OUT_OF_MEMORY = 18  # vm.panic_on_oom is set


class Current(IntEnum):
    """What runs now: filled in by whoever gives the processor to a task."""

    CPU = 0
    CLOCK_PS = 1  # that task's clock; every cost is added here
    MM = 2
    MEMALLOC = 3  # 1 inside reclaim: may go below min, does not reclaim again (PF_MEMALLOC)
    STALL_PS = 4  # of CLOCK_PS, what was waiting for a device or for reclaim
    END_PS = 5  # of the span that the machine is asked to run
    GUEST = 6  # whose memory is being worked on, on a host; NIL otherwise
    NR_VIOLATIONS = 7  # on a guest: EPT violations logged in this epoch
    NR_MARKED = 8  # on a guest: frames in ept_marked
    NR_VIEW_CHANGES = 9  # on a host: positions in view_changed
    KILLED = 10  # on a guest: 1 once its host has killed it
    NR_LATE_READS = 11  # on a host: reads in late_read
    READS_ARE_LATE = (
        12  # on a host: 1 while a fault is served ahead of its time: its reads are noted, not issued
    )
    LAST_CTX_ID = 13  # of address spaces: each has its own, never used again
    PAGE_IS_SPECIAL = 14  # 1 after an access to a page with a protection key or a memory type of its own
    NR_GATHERED = 15  # of the unmapping under way (node/vm/mmu_gather.py): pages in ``gathered``
    NR_GATHER_BATCHES = 16  # and frames in ``gather_batch``
    GATHER_LIMIT = 17  # where the present batch is full; 0: no unmapping is under way
    GATHER_MM = 18  # whose TLB entries must go before its pages do, or 0
    GATHER_START = 19
    GATHER_END = 20
    HUGE_ZERO_PFN = 21  # first frame of the huge page of zeroes, or 0: not made yet
    HUGE_ZERO_USERS = 22  # page tables that map it
    DEFERRED_FIRST = 26  # of the queue of huge pages that are mapped in part (node/vm/huge_rmap.py)
    DEFERRED_LAST = 27
    NR_DEFERRED = 28
    KHUGEPAGED_MM = 29  # where khugepaged goes on (node/vm/khugepaged.py)
    KHUGEPAGED_VADDR = 30
    RMAP_LEFT = 31  # entries that the walk over a frame's mappings still looks for
    NR = 32


class Request(IntEnum):
    """Places in ``state.request``, as each entry's docstring says."""

    A0 = 0
    A1 = 1
    A2 = 2
    A3 = 3
    A4 = 4
    A5 = 5
    A6 = 6
    A7 = 7
    R0 = 8
    R1 = 9
    R2 = 10
    R3 = 11
    NR = 16


class Knob(IntEnum):
    """Sysctls, sysfs files and constants of the machine."""

    NR_FRAMES = 0
    NR_CPUS = 1
    ZERO_PFN = 2
    MIN_FREE_KBYTES = 3
    WATERMARK_SCALE_FACTOR = 4
    SWAPPINESS = 5
    PAGE_CLUSTER = 6
    QUANTUM_PS = 7
    PAGING_MODE = 8  # PagingMode
    NR_LEVELS = 9  # of page tables
    TABLE_SHIFT = 10  # entries of a table, as a power of two
    LINEAR_BITS = 11  # width of a linear address
    TLB_ENTRIES = 12  # of all arrays of one CPU, paging-structure caches included
    IS_GUEST = 13
    IS_HOST = 14
    KSM_RUN = 15
    KSM_PAGES_TO_SCAN = 16
    KSM_SLEEP_MILLISECS = 17
    KSM_MAX_PAGE_SHARING = 18
    KSM_USE_ZERO_PAGES = 19
    KSM_MERGE_ACROSS_NODES = 20
    KSM_PRUNE_MILLISECS = 21
    KSM_MODEL = 22  # KsmModel
    KSM_SMART_SCAN = 23
    KSM_CHECKSUM = 24  # KsmChecksum
    KSM_COMPARE = 25  # KsmCompare
    NR_RECORDED = 26
    EPT_FAULT_ESTIMATE_PS = 27  # what a guest charges itself for the device at a swapped gfn
    PHYSICAL_BITS = 28  # width of a physical address (M of Intel's manual)
    TLB_REFILL = 29  # Refill
    TLB_SETS = 30  # of all arrays of one CPU
    NR_WORKS = 31
    NR_GUESTS = 32
    TIME_SLICE_PS = 33
    CONTENT_KEY = 34  # of the contents that this machine generates for itself
    PCID = 35  # 1: CR4.PCIDE is set and Linux keeps translations over switches
    PTI = 36  # 1: kernel page-table isolation
    ERA = 37  # Era
    TASK_SIZE = 38  # end of user space
    EPT_LEVELS = 39  # of the page table that the host keeps for a guest; 0: no guest
    SWAPPER_PGD = 40  # frame of the master kernel page table's top level
    KERNEL_PGD_INDEX = 41  # first entry of a top-level table that maps the kernel
    ENTRY_PAGES = 42  # kernel pages that every entry into the kernel touches
    INVPCID = 47  # 1: the processor has that instruction
    NX_BIT = 43  # what an entry that forbids fetches has set: bit 63, or 0 where the mode has none
    VMALLOC_START = 44  # first address of vmalloc, signed
    VMALLOC_LAST = 45  # its last address
    PAGE_OFFSET = 46  # where the direct map begins, signed
    DCACHE_MODE = 48  # CacheMode
    DCACHE_SETS = 49  # of one CPU's data cache
    DCACHE_WAYS = 50
    DCACHE_LINE_SHIFT = 51  # bytes of a line, as a power of two
    PAGEABLE_TABLES = 52  # 1: second-level page tables are swapped too (32-bit paging)
    ALLOCATOR = 53  # Allocator
    NR_NODES = 54  # of NUMA
    EXTFRAG_THRESHOLD = 55
    WATERMARK_BOOST_FACTOR = 56
    COMPACT_UNEVICTABLE_ALLOWED = 57
    SLAB_DEBUG = 58  # SlabFlag bits that every cache gets
    HAS_DMA32 = 59  # 1: the machine has that kind of zone
    HIGH_FRACTION = 60  # vm.percpu_pagelist_high_fraction
    MODULES_START = 80  # first address of modules, signed; on 32-bit machines that of vmalloc
    MODULES_LAST = 81  # their last address
    SLOB_POLICY = 82  # SlobPolicy
    VMA_SEARCH = 83  # VmaSearch: how an area is looked up by address
    RMAP_WALK = 84  # RmapWalk: how the areas that may map a page are found
    OVERCOMMIT_MEMORY = 85  # Overcommit
    OVERCOMMIT_RATIO = 86  # percent of memory, under Overcommit.NEVER
    MAX_MAP_COUNT = 87
    FAULT_AROUND_PAGES = 88  # fault_around_bytes, in pages
    THP_ENABLED = 89  # ThpMode
    THP_DEFRAG = 90  # ThpDefrag
    THP_USE_ZERO_PAGE = 91
    STACK_GUARD_PAGES = 92  # stack_guard_gap
    OOM_KILL_ALLOCATING_TASK = 93
    PANIC_ON_OOM = 94
    KHUGEPAGED_PAGES_TO_SCAN = 95
    KHUGEPAGED_SCAN_SLEEP_MILLISECS = 96
    KHUGEPAGED_ALLOC_SLEEP_MILLISECS = 97
    KHUGEPAGED_MAX_PTES_NONE = 98
    KHUGEPAGED_MAX_PTES_SWAP = 99
    KHUGEPAGED_MAX_PTES_SHARED = 100
    KHUGEPAGED_DEFRAG = 101
    OVERCOMMIT_KBYTES = 102
    MMAP_MIN_ADDR = 103
    THP_SPLIT_TO_ZERO_PAGE = 104  # 1: parts of a split huge page that hold zeroes map the page of zeroes
    NR = 112


class Era(IntEnum):
    """Values of Knob.ERA: which kernel's mechanisms are modelled where 6.1 replaced an older one."""

    LINUX_6_1 = 0
    LECTURE = 1


class KsmRun(IntEnum):
    """Values of Knob.KSM_RUN: /sys/kernel/mm/ksm/run."""

    STOP = 0
    MERGE = 1
    UNMERGE = 2


class VmEvent(IntEnum):
    """Event counters of /proc/vmstat, by its names in lower case."""

    PGFAULT = 0
    PGMAJFAULT = 1
    PGFREE = 2
    PGALLOC_DMA = 3  # and one for each kind of zone, in the order of ZoneId
    PGALLOC_DMA32 = 4
    PGALLOC_NORMAL = 5
    PGALLOC_HIGH = 6
    PGALLOC_MOVABLE = 7
    PGALLOC_DEVICE = 8
    ALLOCSTALL_DMA = 9  # likewise
    ALLOCSTALL_DMA32 = 10
    ALLOCSTALL_NORMAL = 11
    ALLOCSTALL_HIGH = 12
    ALLOCSTALL_MOVABLE = 13
    ALLOCSTALL_DEVICE = 14
    PGREUSE = 15
    COW_KSM = 16
    KSM_SWPIN_COPY = 17
    PSWPIN = 18
    PSWPOUT = 19
    PGACTIVATE = 20
    PGDEACTIVATE = 21
    PGSCAN_KSWAPD = 22
    PGSCAN_DIRECT = 23
    PGSTEAL_KSWAPD = 24
    PGSTEAL_DIRECT = 25
    PGSCAN_ANON = 26
    PGSTEAL_ANON = 27
    PAGEOUTRUN = 28
    OOM_KILL = 29
    SWAP_RA = 30
    SWAP_RA_HIT = 31
    KSWAPD_HIGH_WMARK_HIT_QUICKLY = 32
    PGREFILL = 33
    KSWAPD_LOW_WMARK_HIT_QUICKLY = 34
    NR_TLB_REMOTE_FLUSH = 35
    NR_TLB_REMOTE_FLUSH_RECEIVED = 36
    NR_TLB_LOCAL_FLUSH_ALL = 37
    NR_TLB_LOCAL_FLUSH_ONE = 38
    COMPACT_MIGRATE_SCANNED = 39
    COMPACT_FREE_SCANNED = 40
    COMPACT_ISOLATED = 41
    COMPACT_STALL = 42
    COMPACT_FAIL = 43
    COMPACT_SUCCESS = 44
    COMPACT_DAEMON_WAKE = 45
    COMPACT_DAEMON_MIGRATE_SCANNED = 46
    COMPACT_DAEMON_FREE_SCANNED = 47
    PGMIGRATE_SUCCESS = 48
    PGMIGRATE_FAIL = 49
    MM_PAGE_ALLOC_EXTFRAG = 50  # the tracepoint's count: requests that took another migrate type's block
    ALLOC_FAILED = 51  # requests for frames that got none (warn_alloc)
    MM_PAGE_ALLOC_ZONE_LOCKED = 52  # likewise: blocks that the zones gave, to per-CPU lists or to requests
    MM_PAGE_PCPU_DRAIN = 53  # likewise: blocks that per-CPU lists gave back to their zones
    UNEVICTABLE_PGS_CULLED = 54
    UNEVICTABLE_PGS_SCANNED = 55
    UNEVICTABLE_PGS_RESCUED = 56
    UNEVICTABLE_PGS_MLOCKED = 57
    UNEVICTABLE_PGS_MUNLOCKED = 58
    UNEVICTABLE_PGS_CLEARED = 59
    UNEVICTABLE_PGS_STRANDED = 60
    PGLAZYFREE = 61
    PGLAZYFREED = 62
    THP_FAULT_ALLOC = 63
    THP_FAULT_FALLBACK = 64
    THP_COLLAPSE_ALLOC = 65
    THP_COLLAPSE_ALLOC_FAILED = 66
    THP_SPLIT_PAGE = 67
    THP_SPLIT_PAGE_FAILED = 68
    THP_DEFERRED_SPLIT_PAGE = 69
    THP_SPLIT_PMD = 70
    THP_ZERO_PAGE_ALLOC = 71
    THP_ZERO_PAGE_ALLOC_FAILED = 72
    THP_SCAN_EXCEED_NONE_PTE = 73
    THP_SCAN_EXCEED_SWAP_PTE = 74
    THP_SCAN_EXCEED_SHARE_PTE = 75
    THP_SWPOUT = 76
    THP_SWPOUT_FALLBACK = 77
    PGSCAN_FILE = 78
    PGSTEAL_FILE = 79
    RMAP_WALK = 110  # not Linux's: walks over all that maps a frame
    RMAP_AREA = 111  # and the areas that they looked at
    NR = 112


class VmStat(IntEnum):
    """Levels of /proc/vmstat in pages, by its names in lower case."""

    NR_FREE_PAGES = 0
    NR_ANON_PAGES = 1
    NR_PAGE_TABLE_PAGES = 2
    NR_INACTIVE_ANON = 3  # and one for each LRU list, in the order of LruList
    NR_ACTIVE_ANON = 4
    NR_INACTIVE_FILE = 5
    NR_ACTIVE_FILE = 6
    NR_UNEVICTABLE = 7
    NR_SWAPCACHED = 8
    NR_KERNEL_PAGES = 9
    NR_SWAP_USED = 10
    NR_WRITEBACK = 11
    NR_SLAB_RECLAIMABLE = 12
    NR_SLAB_UNRECLAIMABLE = 13
    NR_VMALLOC = 14  # VmallocUsed of /proc/meminfo, in pages
    NR_ISOLATED = 15  # off the LRU, for compaction
    NR_FILE_PAGES = 16  # of files and shared memory, mapped or not
    NR_MAPPED = 17  # of them, those that some page table maps
    NR_SHMEM = 18
    NR_MLOCK = 19
    NR_ANON_TRANSPARENT_HUGEPAGES = 20  # counted in huge pages
    NR_DIRTY = 21
    NR_COMMITTED = 22  # Committed_AS of /proc/meminfo
    NR = 32


class KsmStat(IntEnum):
    """Files of /sys/kernel/mm/ksm that count."""

    PAGES_SHARED = 0
    PAGES_SHARING = 1
    PAGES_UNSHARED = 2
    RMAP_ITEMS = 3  # pages_volatile is what is left of these
    STABLE_NODE_CHAINS = 4
    STABLE_NODE_DUPS = 5
    PAGES_SCANNED = 6
    PAGES_SKIPPED = 7
    KSM_ZERO_PAGES = 8
    NR = 16


class HwEvent(IntEnum):
    """Counters of the translation hardware.

    An access is one first-level hit, second-level hit or walk: TLB_... if of data, ITLB_... if of instructions.
    """

    TLB_L1_HIT = 0
    TLB_L2_HIT = 1
    TLB_WALK = 2
    WALK_REFERENCES = 3  # entries that walks read
    ITLB_L1_HIT = 4
    ITLB_L2_HIT = 5
    ITLB_WALK = 6
    EPT_VIOLATION = 7
    MEMORY_ACCESS = 8
    WALK_CACHE_HIT = 9  # walks that a paging-structure cache shortened
    EPT_REFERENCES = 10  # entries of the host's table that a guest's walks read
    REFILL_TRAP = 11  # misses that software had to serve
    CR3_WRITE = 12
    CR3_FLUSH = 13  # of them, those that dropped translations
    KERNEL_ENTRY = 14  # system calls, faults and interrupts
    SYSCALL = 15
    CONTEXT_SWITCH = 16
    TABLE_SWAPOUT = 17  # page tables written to swap
    TABLE_SWAPIN = 18  # page tables that came back, from the device or the swap cache
    DEVICE_INTERRUPT = 19
    DCACHE_HIT = 24
    DCACHE_MISS = 25
    DCACHE_SYNONYM = 26  # of the misses, those whose line the cache held under another virtual address
    DCACHE_WRITEBACK = 27  # modified lines written to memory
    DCACHE_INVALIDATION = 28  # lines dropped because another CPU wrote
    NR = 32
