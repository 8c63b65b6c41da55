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
    NR = 16


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
    TLB_L1_SETS = 8
    TLB_L1_WAYS = 9
    TLB_L2_SETS = 10
    TLB_L2_WAYS = 11
    TLB_ENTRIES = 12  # of both levels, of one CPU
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
    NR_WORKS = 31
    NR_GUESTS = 32
    TIME_SLICE_PS = 33
    CONTENT_KEY = 34  # of the contents that this machine generates for itself
    NR = 40


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
    PGALLOC_DMA = 3
    PGALLOC_DMA32 = 4
    PGALLOC_NORMAL = 5
    PGREUSE = 6
    COW_KSM = 7
    KSM_SWPIN_COPY = 8
    PSWPIN = 9
    PSWPOUT = 10
    PGACTIVATE = 11
    PGDEACTIVATE = 12
    PGSCAN_KSWAPD = 13
    PGSCAN_DIRECT = 14
    PGSTEAL_KSWAPD = 15
    PGSTEAL_DIRECT = 16
    PGSCAN_ANON = 17
    PGSTEAL_ANON = 18
    PAGEOUTRUN = 19
    ALLOCSTALL = 20
    OOM_KILL = 21
    SWAP_RA = 22
    SWAP_RA_HIT = 23
    KSWAPD_HIGH_WMARK_HIT_QUICKLY = 24
    PGREFILL = 25
    KSWAPD_LOW_WMARK_HIT_QUICKLY = 26
    NR = 32


class VmStat(IntEnum):
    """Levels of /proc/vmstat in pages, by its names in lower case."""

    NR_FREE_PAGES = 0
    NR_ANON_PAGES = 1
    NR_PAGE_TABLE_PAGES = 2
    NR_INACTIVE_ANON = 3
    NR_ACTIVE_ANON = 4
    NR_SWAPCACHED = 5
    NR_KERNEL_PAGES = 6
    NR_SWAP_USED = 7
    NR_WRITEBACK = 8
    NR = 16


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
    """Counters of the translation hardware."""

    TLB_L1_HIT = 0
    TLB_L2_HIT = 1
    TLB_WALK = 2
    WALK_REFERENCES = 3
    TLB_FLUSH_ONE = 4
    TLB_FLUSH_ALL = 5
    TLB_REMOTE_FLUSH = 6
    EPT_VIOLATION = 7
    MEMORY_ACCESS = 8
    NR = 16
