"""Building a machine: from a spec to a State whose memory is laid out as after boot.

What the frames hold is in node/kmap/physical_map.py. Those that the kernel itself takes are reserved; the rest
goes to the buddy system in the largest blocks. The kernel's page tables are written into frames of its own, and
every CPU starts in kernel mode on them.
"""

from fractions import Fraction
from typing import Any, Final

from node.alloc_traces import alloc_trace_lengths, nr_work_records
from node.content import PATTERN_TABLE, generated, set_content
from node.counters import Current, HwEvent, Knob, KsmRun, KsmStat, Request, VmEvent, VmStat
from node.dma_setup import check_devices, device_lengths, setup_devices
from node.fault.outcome import FaultOutcome
from node.guest.host_guests import LATE_READS
from node.hw.cost import Cost, cost_table_ps
from node.hw.data_cache import check_data_cache_spec, nr_cache_lines, setup_data_cache
from node.hw.disk import DISK_PRESETS, DiskPreset, setup_disk
from node.hw.hardware import check_hardware
from node.hw.paging import MODE_NAMES, PAGING_MODES
from node.hw.power_on import load_registers, power_on, table_lengths
from node.kalloc.choice import allocator_of, debug_flags_of, slob_policy_of
from node.kalloc.kmem_cache import MAX_CACHES, Allocator
from node.kalloc.slab_array import nr_arrays, nr_entries
from node.kalloc.slab_general import NR_GENERAL, SlabStat, setup_general_caches
from node.kalloc.slab_lists import NR_SLAB_LISTS
from node.kalloc.slab_report import NR_SLAB_REPORTS
from node.kalloc.slob_lists import SlobList
from node.kalloc.slob_page import SlobStat
from node.kalloc.slub_records import (
    NR_KMALLOC_SLOTS,
    KmallocType,
    LargeStat,
    SlubStat,
)
from node.kalloc.vmap_area import MAX_VMAP_AREAS, VmapStat
from node.kalloc.vmap_space import setup_vmap_space
from node.kmap.asid import NR_ASIDS
from node.kmap.entry_pages import MAX_ENTRY_PAGES, setup_entry_pages
from node.kmap.kernel_tables import KernelLayout, build_kernel_tables
from node.kmap.memory_map import task_size
from node.kmap.physical_map import FrameRange, Holder, lowmem_pages, zero_pfn
from node.kmap.ram_map import nid_of_cpu
from node.kmap.zones import setup_zones, zone_pieces
from node.ksm.records import KsmChecksum, KsmCompare, KsmModel
from node.kthread import ASLEEP, NR_KTHREADS
from node.pagecache.inode import MAX_INODES
from node.pagecache.radix_tree import RADIX_SHIFT
from node.phys.buddy import MAX_ORDER, NR_ORDERS, buddy_free
from node.phys.compact_control import NR_COMPACTORS
from node.phys.migrate_type import NR_MIGRATE_TYPES, NR_PCP_TYPES
from node.phys.numa import default_distances
from node.phys.page import PageFlag
from node.phys.pcp import NR_PCP_LISTS
from node.phys.watermarks import (
    default_min_free_kbytes,
    pcp_batch,
    pcp_high,
    pcp_high_of_fraction,
    setup_lowmem_reserve,
    setup_watermarks,
)
from node.phys.zone import NR_ZONES, PAGEBLOCK_PAGES, ZoneId
from node.phys.zonelist import setup_zonelists
from node.pool import Pool
from node.rbtree import Tree
from node.reclaim.lru import NR_LRU_LISTS
from node.reclaim.scan_control import NR_RECLAIMERS
from node.sched import DEFAULT_QUANTUM_PS, DEFAULT_TIME_SLICE_PS
from node.spec import MachineSpec, SwapSpec, check_pageable_tables, check_thp, check_zones
from node.state import State
from node.swap.slots import nr_clusters, setup_swap_area
from node.swap.swap_map import allocate_swap_map
from node.traces import trace_lengths
from node.tree_nodes import NODE_POOLS, ROOT_POOLS
from node.vm.anon_vma import RmapWalk
from node.vm.mmu_gather import GATHER_PAGES, MAX_BATCHES
from node.vm.thp import ThpDefrag, ThpMode
from node.vm.vma import STACK_GUARD_PAGES, VmAreaStat, VmaSearch
from node.work import MAX_ZIPF_WORDS
from shared.constants import ENTRIES_PER_TABLE, MIB, NIL, PAGE_KIB, PAGE_SIZE
from shared.jit import entry
from shared.streams import Purpose, Stream
from shared.wrap64 import to_signed

MIN_MANAGED_PAGES: Final = 1024
MAX_MMS: Final = 4096  # PCIDs have 12 bits
MAX_VMAS: Final = 1 << 17
MAX_CHAINS: Final = 1 << 19
MAX_CPUS: Final = 64
RMAP_WALK_OF_ERA: Final = {"6.1": RmapWalk.TREE, "lecture": RmapWalk.LIST}
ITEMS_PER_FRAME: Final = 4  # of machines that are no hosts: merged pages may be many more than frames
SPARE_RECORDS: Final = 65536
SPARE_RADIX_NODES: Final = 1024
PANIC_WORDS: Final = 4


# Of set_recommended_min_free_kbytes: pageblocks of each zone, and lowmem is divided by this.
FREE_PAGEBLOCKS: Final = 2
MOST_MIN_FREE_SHARE: Final = 20


def build_state(spec: MachineSpec) -> State:
    """Return the state of a machine that has just booted, without processes.

    Raises ValueError, in one line that names the value and its limit, if the spec cannot be built.
    """
    _check(spec)
    layout = _kernel_layout(spec)
    state = State(**_lengths(spec))
    _set_knobs(state, spec)
    power_on(state, spec.hw, spec.tlb, is_guest=spec.is_guest)
    setup_data_cache(state, spec.data_cache)
    _setup_pools(state, spec)
    state.cpu["nid"][:] = [nid_of_cpu(cpu, spec.cpus, spec.numa.nodes) for cpu in range(spec.cpus)]
    _lay_out_memory(state, spec, layout.physical)
    _map_kernel(state, spec, layout)
    _setup_watermarks(state, spec)
    _setup_lists(state)
    setup_vmap_space(state)
    if state.knob[Knob.ALLOCATOR] == Allocator.SLAB:
        setup_general_caches(state)
    if spec.swap is not None:
        preset = disk_preset(spec.swap)
        setup_disk(state, preset)
        setup_swap_area(state, spec.swap.size_bytes // PAGE_SIZE, int(preset.rotational))
        allocate_swap_map(state)
    setup_devices(state, spec)
    if spec.recorded:
        ids = sorted(spec.recorded)
        state.recorded[: 2 * len(ids)] = ids + [spec.recorded[content] for content in ids]
    return state


def disk_preset(swap: SwapSpec) -> DiskPreset:
    """Return the figures of a swap device: a preset's, or what the scenario says."""
    if isinstance(swap.device, str):
        return DISK_PRESETS[swap.device]
    figures = swap.device
    return DiskPreset(
        rotational=False,
        read_latency_ns=figures["latency_ns"],
        write_latency_ns=figures["latency_ns"],
        read_bytes_per_s=figures["bandwidth_bytes_per_s"],
        write_bytes_per_s=figures["bandwidth_bytes_per_s"],
        queue_depth=figures["queue_depth"],
        nr_requests=max(figures["queue_depth"], DISK_PRESETS["ssd"].nr_requests),
        source="the scenario",
    )


def _check(spec: MachineSpec) -> None:
    if not 1 <= spec.cpus <= MAX_CPUS:
        raise ValueError(f"cpus: {spec.cpus} is outside 1..{MAX_CPUS}")
    check_hardware(spec.hw, spec.tlb, spec.memory_bytes)
    check_data_cache_spec(spec.data_cache)
    check_pageable_tables(spec)
    check_thp(spec)
    check_zones(spec)
    slob_policy_of(spec.slob_policy, spec.hw.era)
    debug_flags_of(spec.slab_debug, allocator_of(spec.allocator, spec.hw.era))
    check_devices(spec)
    free = sum(one.nr_frames for one in _kernel_layout(spec).physical if not one.reserved)
    if free < MIN_MANAGED_PAGES:
        raise ValueError(
            f"memory: {spec.memory_bytes // MIB}MiB leaves {free} frames beside the kernel's,"
            f" fewer than the {MIN_MANAGED_PAGES} that a machine needs"
        )


def _kernel_layout(spec: MachineSpec) -> KernelLayout:
    return KernelLayout(
        nr_frames=spec.nr_frames,
        mode=MODE_NAMES[spec.hw.paging],
        era=spec.hw.era,
        cpus=spec.cpus,
        pti=spec.hw.pti,
        gigantic=spec.hw.features.pdpe1gb,
        page_offset=spec.hw.page_offset,
        nx=spec.hw.features.nx,
        ram=spec.ram,
    )


def _capacities(spec: MachineSpec) -> dict[Pool, int]:
    guest_pages = sum(guest.memory_bytes // PAGE_SIZE for guest in spec.guests)
    items = (guest_pages or ITEMS_PER_FRAME * spec.nr_frames) + SPARE_RECORDS
    return {
        Pool.MM: MAX_MMS,
        Pool.VMA: MAX_VMAS,
        Pool.ANON_VMA: MAX_VMAS,
        Pool.ANON_VMA_CHAIN: MAX_CHAINS,
        Pool.RMAP_ITEM: items,
        Pool.STABLE_NODE: spec.nr_frames + SPARE_RECORDS,
        Pool.VMAP_AREA: MAX_VMAP_AREAS,
        Pool.INODE: MAX_INODES,
        Pool.RADIX_NODE: spec.nr_frames // 2 + SPARE_RADIX_NODES,
    }


def _lengths(spec: MachineSpec) -> dict[str, int]:
    """Return the upper bound of every table."""
    capacity = _capacities(spec)
    gfns = [guest.memory_bytes // PAGE_SIZE for guest in spec.guests]
    late_reads = LATE_READS if gfns else 0
    guest_frames = spec.nr_frames if spec.is_guest else 0
    preset = None if spec.swap is None else disk_preset(spec.swap)
    slots = 0 if spec.swap is None else spec.swap.size_bytes // PAGE_SIZE
    nr_tree_nodes = sum(capacity[which] for which in NODE_POOLS)
    return {
        "panic": PANIC_WORDS,
        "current": Current.NR,
        "request": Request.NR,
        "knob": Knob.NR,
        "cost": Cost.NR,
        "vm_event": VmEvent.NR,
        "vm_stat": VmStat.NR,
        "ksm_stat": KsmStat.NR,
        "hw_event": HwEvent.NR,
        "pool": Pool.NR,
        "pool_link": sum(capacity.values()),
        "page": spec.nr_frames,
        "pt_word": spec.nr_frames << PAGING_MODES[MODE_NAMES[spec.hw.paging]].table_shift,
        "slab_word": spec.nr_frames * ENTRIES_PER_TABLE,
        "kmem_cache": MAX_CACHES,
        "slab_report": NR_SLAB_REPORTS,
        "slub_cache": MAX_CACHES,
        "kmem_cache_cpu": MAX_CACHES * spec.cpus,
        "kmem_cache_node": MAX_CACHES * spec.numa.nodes,
        "slub_stat": MAX_CACHES * SlubStat.NR,
        "kmalloc_cache": KmallocType.NR * NR_KMALLOC_SLOTS,
        "kmalloc_large": LargeStat.NR,
        **_zone_lengths(spec),
        "cpu": spec.cpus,
        **table_lengths(spec.tlb, spec.hw.walk_caches, spec.cpus),
        "tlb_context": spec.cpus * NR_ASIDS,
        "entry_page": spec.cpus * MAX_ENTRY_PAGES,
        "cache_line": spec.cpus * nr_cache_lines(spec.data_cache) or 1,
        "gathered": GATHER_PAGES,
        "gather_batch": MAX_BATCHES,
        "mm": capacity[Pool.MM],
        "vma": capacity[Pool.VMA],
        "vm_area_stat": VmAreaStat.NR,
        "inode": capacity[Pool.INODE],
        "radix_node": capacity[Pool.RADIX_NODE],
        "radix_slot": capacity[Pool.RADIX_NODE] << RADIX_SHIFT,
        "fault_outcome": FaultOutcome.NR,
        "anon_vma": capacity[Pool.ANON_VMA],
        "anon_vma_chain": capacity[Pool.ANON_VMA_CHAIN],
        "kthread": NR_KTHREADS,
        "lru": NR_LRU_LISTS,
        "scan_control": NR_RECLAIMERS,
        "swap_area": 1,
        "swap_cluster": max(nr_clusters(slots), 1),
        "swap_cpu": spec.cpus,
        "swap_slot": max(slots, 1),
        "slot_word": slots << PAGING_MODES[MODE_NAMES[spec.hw.paging]].table_shift
        if spec.pageable_tables
        else 0,
        "writeback": 1 if preset is None else preset.nr_requests,
        "disk": 1,
        "disk_queue": 1 if preset is None else preset.queue_depth,
        "ksm_scan": 1,
        "rmap_item": capacity[Pool.RMAP_ITEM],
        "stable_node": capacity[Pool.STABLE_NODE],
        "rb_node": nr_tree_nodes,
        "rb_max": nr_tree_nodes,
        "rb_root": Tree.NR + sum(capacity[which] for which in ROOT_POOLS),
        "vmap_area": capacity[Pool.VMAP_AREA],
        "vmap_stat": VmapStat.NR,
        "slab_cache": MAX_CACHES,
        "slab_array": nr_arrays(MAX_CACHES, spec.cpus, spec.numa.nodes),
        "slab_entry": nr_entries(MAX_CACHES, spec.cpus, spec.numa.nodes),
        "slab_node": MAX_CACHES * spec.numa.nodes,
        "slab_list": MAX_CACHES * spec.numa.nodes * NR_SLAB_LISTS,
        "slab_general": NR_GENERAL,
        "slab_stat": SlabStat.NR,
        "slab_reaper": spec.cpus,
        "slob_list": SlobList.NR,
        "slob_stat": SlobStat.NR,
        "recorded": 2 * max(len(spec.recorded), 1),
        "work": max(nr_work_records(spec.works), 1),
        "zipf": max(_zipf_words(spec), 1),
        **trace_lengths(spec.works),
        **alloc_trace_lengths(spec.works),
        **device_lengths(spec),
        "ept_view": guest_frames,
        "ept_mark": guest_frames,
        "ept_marked": guest_frames,
        "violation": 2 * guest_frames,
        "guest": len(spec.guests),
        "vcpu": sum(guest.cpus for guest in spec.guests),
        "vcpu_heap": sum(guest.cpus for guest in spec.guests),
        "traffic": 2 * sum(gfns) + late_reads,
        "late_read": late_reads,
        "incoming": 2 * max(gfns, default=0),
        "final_content": sum(gfns),
        "final_word": sum(gfns),
        "view_sent": sum(gfns),
        "view_changed": sum(gfns),
    }


def _zone_lengths(spec: MachineSpec) -> dict[str, int]:
    nr_nodes = spec.numa.nodes
    nr_zones = nr_nodes * NR_ZONES
    return {
        "zone": nr_zones,
        "lowmem_reserve": nr_zones * NR_ZONES,
        "zonelist": nr_zones * (nr_zones + 1),
        "node_distance": nr_nodes * nr_nodes,
        "pageblock": -(-spec.nr_frames // PAGEBLOCK_PAGES),
        "free_area": nr_zones * NR_ORDERS,
        "free_list": nr_zones * NR_ORDERS * NR_MIGRATE_TYPES,
        "compact_control": NR_COMPACTORS,
        "pcp": spec.cpus * nr_zones,
        "pcp_list": spec.cpus * nr_zones * NR_PCP_LISTS,
    }


def _zipf_words(spec: MachineSpec) -> int:
    return MAX_ZIPF_WORDS * sum(work.workload == "zipf" for work in spec.works)


def _set_knobs(state: State, spec: MachineSpec) -> None:
    ksm = spec.ksm
    allocator = allocator_of(spec.allocator, spec.hw.era)
    values = {
        Knob.NR_FRAMES: spec.nr_frames,
        Knob.NR_CPUS: spec.cpus,
        Knob.WATERMARK_SCALE_FACTOR: spec.watermark_scale_factor,
        Knob.WATERMARK_BOOST_FACTOR: spec.watermark_boost_factor,
        Knob.HIGH_FRACTION: spec.percpu_pagelist_high_fraction,
        Knob.EXTFRAG_THRESHOLD: spec.extfrag_threshold,
        Knob.COMPACT_UNEVICTABLE_ALLOWED: spec.compact_unevictable_allowed,
        Knob.NR_NODES: spec.numa.nodes,
        Knob.HAS_DMA32: int(spec.hw.paging in ("4level", "5level")),
        Knob.SWAPPINESS: spec.swappiness,
        Knob.PAGE_CLUSTER: spec.page_cluster,
        Knob.PAGEABLE_TABLES: int(spec.pageable_tables),
        Knob.ALLOCATOR: allocator,
        Knob.SLOB_POLICY: slob_policy_of(spec.slob_policy, spec.hw.era),
        Knob.SLAB_DEBUG: debug_flags_of(spec.slab_debug, allocator),
        Knob.VMA_SEARCH: VmaSearch[spec.vma_search.upper()],
        Knob.RMAP_WALK: RmapWalk[spec.rmap_walk.upper()] if spec.rmap_walk else RMAP_WALK_OF_ERA[spec.hw.era],
        Knob.OVERCOMMIT_MEMORY: spec.overcommit_memory,
        Knob.OVERCOMMIT_RATIO: spec.overcommit_ratio,
        Knob.OVERCOMMIT_KBYTES: spec.overcommit_kbytes,
        Knob.OOM_KILL_ALLOCATING_TASK: spec.oom_kill_allocating_task,
        Knob.PANIC_ON_OOM: spec.panic_on_oom,
        Knob.MAX_MAP_COUNT: spec.max_map_count,
        Knob.FAULT_AROUND_PAGES: spec.fault_around_bytes // PAGE_SIZE,
        Knob.MMAP_MIN_ADDR: spec.mmap_min_addr,
        Knob.STACK_GUARD_PAGES: STACK_GUARD_PAGES,
        **_thp_knobs(spec),
        Knob.QUANTUM_PS: DEFAULT_QUANTUM_PS,
        Knob.TIME_SLICE_PS: DEFAULT_TIME_SLICE_PS,
        Knob.IS_GUEST: int(spec.is_guest),
        Knob.IS_HOST: int(bool(spec.guests)),
        Knob.KSM_RUN: KsmRun.STOP,
        Knob.KSM_PAGES_TO_SCAN: ksm.pages_to_scan,
        Knob.KSM_SLEEP_MILLISECS: ksm.sleep_millisecs,
        Knob.KSM_MAX_PAGE_SHARING: ksm.max_page_sharing,
        Knob.KSM_USE_ZERO_PAGES: ksm.use_zero_pages,
        Knob.KSM_MERGE_ACROSS_NODES: ksm.merge_across_nodes,
        Knob.KSM_PRUNE_MILLISECS: ksm.stable_node_chains_prune_millisecs,
        Knob.THP_SPLIT_TO_ZERO_PAGE: int(ksm.model == "6.18"),
        Knob.KSM_MODEL: {"6.1": KsmModel.LINUX_6_1, "6.18": KsmModel.LINUX_6_18}[ksm.model],
        Knob.KSM_SMART_SCAN: ksm.smart_scan,
        Knob.KSM_CHECKSUM: {"xxhash": KsmChecksum.XXHASH, "jhash2": KsmChecksum.JHASH2}[ksm.checksum],
        Knob.KSM_COMPARE: {"content": KsmCompare.CONTENT, "checksum": KsmCompare.HASH}[ksm.compare],
        Knob.NR_RECORDED: len(spec.recorded),
        Knob.NR_WORKS: nr_work_records(spec.works),
        Knob.NR_GUESTS: len(spec.guests),
        Knob.CONTENT_KEY: to_signed(Stream(spec.seed, spec.machine, Purpose.CONTENT).word()),
    }
    for knob, value in values.items():
        state.knob[knob] = value
    state.cost[:] = cost_table_ps(Fraction(spec.clock_ghz), spec.cost)


def _thp_knobs(spec: MachineSpec) -> dict[Knob, int]:
    khugepaged = spec.khugepaged
    return {
        Knob.THP_ENABLED: ThpMode[spec.thp_enabled.upper()],
        Knob.THP_DEFRAG: ThpDefrag[spec.thp_defrag.upper().replace("+", "_")],
        Knob.THP_USE_ZERO_PAGE: spec.thp_use_zero_page,
        Knob.KHUGEPAGED_DEFRAG: khugepaged.defrag,
        Knob.KHUGEPAGED_PAGES_TO_SCAN: khugepaged.pages_to_scan,
        Knob.KHUGEPAGED_SCAN_SLEEP_MILLISECS: khugepaged.scan_sleep_millisecs,
        Knob.KHUGEPAGED_ALLOC_SLEEP_MILLISECS: khugepaged.alloc_sleep_millisecs,
        Knob.KHUGEPAGED_MAX_PTES_NONE: khugepaged.max_ptes_none,
        Knob.KHUGEPAGED_MAX_PTES_SWAP: khugepaged.max_ptes_swap,
        Knob.KHUGEPAGED_MAX_PTES_SHARED: khugepaged.max_ptes_shared,
    }


def _setup_pools(state: State, spec: MachineSpec) -> None:
    base = 0
    for which, capacity in _capacities(spec).items():
        pool = state.pool[which]
        pool.first_link = base
        pool.capacity = capacity
        pool.mark = 1  # record 0 stands for "none" in a zeroed link
        pool.first_free = NIL
        base += capacity


def _lay_out_memory(state: State, spec: MachineSpec, physical: tuple[FrameRange, ...]) -> None:
    """Divide the frames into zones, and give the buddy system those that nobody holds."""
    lowmem = lowmem_pages(spec.hw.era, MODE_NAMES[spec.hw.paging], len(state.page), spec.hw.page_offset)
    setup_zones(state, spec.ram, lowmem, spec.movablecore_bytes // PAGE_SIZE)
    page_flags = state.page["page_flags"]
    for one in physical:
        if one.holder == Holder.HOLE:
            continue
        if one.reserved:
            page_flags[one.first : one.behind] = PageFlag.RESERVED
            continue
        first = one.first
        if one.holder == Holder.HIGH:
            # Lowmem may end within a pageblock, which is its zone's; what the kernel cannot map stays reserved.
            first = min(-(-first // PAGEBLOCK_PAGES) * PAGEBLOCK_PAGES, one.behind)
            page_flags[one.first : first] = PageFlag.RESERVED
        for piece in zone_pieces(state, first, one.behind):
            free_boot_range(state, *piece)
    state.knob[Knob.ZERO_PFN] = zero_pfn(physical)
    page_flags[zero_pfn(physical)] |= PageFlag.ZERO_PAGE
    for index in range(len(state.zone)):
        zone = state.zone[index]
        zone.managed = zone.nr_free
    distances = spec.numa.distances or default_distances(spec.numa.nodes)
    state.node_distance[:] = [distance for row in distances for distance in row]
    setup_zonelists(
        state, distances, [bool((state.cpu["nid"] == nid).any()) for nid in range(spec.numa.nodes)]
    )


def _map_kernel(state: State, spec: MachineSpec, layout: KernelLayout) -> None:
    """Write the kernel's own page tables, and let every CPU run on them."""
    tables = build_kernel_tables(state, layout).tables
    for pfn, words in tables.items():
        if words.any():
            write_table_content(state, pfn)
    load_registers(state, spec.hw, int(state.knob[Knob.SWAPPER_PGD]))
    state.knob[Knob.TASK_SIZE] = task_size(MODE_NAMES[spec.hw.paging], spec.hw.page_offset, spec.memory_bytes)
    setup_entry_pages(state, layout)
    state.cpu["next_asid"][:] = 1


@entry
def write_table_content(state: State, pfn: int) -> int:
    """Give a page table of the kernel, which is not empty, a content of its own; return 0."""
    set_content(state, pfn, generated(PATTERN_TABLE, state.knob[Knob.CONTENT_KEY], pfn))
    return 0


@entry
def free_boot_range(state: State, first: int, behind: int) -> None:
    """Give frames [first, behind) to the buddy system in the largest aligned blocks (memblock_free_all)."""
    pfn = first
    while pfn < behind:
        order = MAX_ORDER
        while pfn & ((1 << order) - 1) or pfn + (1 << order) > behind:
            order -= 1
        buddy_free(state, pfn, order, 1)
        pfn += 1 << order


def _setup_watermarks(state: State, spec: MachineSpec) -> None:
    zones = [state.zone[index] for index in range(len(state.zone))]
    lowmem = sum(zone.managed for zone in zones if zone.kind <= ZoneId.NORMAL)  # nr_free_buffer_pages
    state.knob[Knob.MIN_FREE_KBYTES] = (
        default_min_free_kbytes(lowmem) if spec.min_free_kbytes is None else spec.min_free_kbytes
    )
    setup_watermarks(state)
    if spec.thp_enabled != "never" and spec.min_free_kbytes is None:
        _raise_min_free(state, zones)
    setup_lowmem_reserve(state, spec.lowmem_reserve_ratio)
    nr_local = [int((state.cpu["nid"] == nid).sum()) or spec.cpus for nid in range(spec.numa.nodes)]
    fraction = spec.percpu_pagelist_high_fraction
    for cpu in range(spec.cpus):
        for index, zone in enumerate(zones):
            lists = state.pcp[cpu * len(zones) + index]
            lists.batch = pcp_batch(zone.managed)
            lists.high = (
                pcp_high_of_fraction(zone.managed, fraction, nr_local[zone.nid], lists.batch)
                if fraction
                else pcp_high(zone.low, nr_local[zone.nid], lists.batch)
            )
            lists.limit = lists.high


def _raise_min_free(state: State, zones: list[Any]) -> None:
    """Keep more memory free, so that huge pages can be had: set_recommended_min_free_kbytes of khugepaged.c."""
    lowmem = [zone for zone in zones if zone.managed and zone.kind <= ZoneId.NORMAL]
    free_buffer_pages = sum(max(zone.managed - zone.high, 0) for zone in lowmem)
    recommended = PAGEBLOCK_PAGES * len(lowmem) * (FREE_PAGEBLOCKS + NR_PCP_TYPES * NR_PCP_TYPES)
    kbytes = min(recommended, free_buffer_pages // MOST_MIN_FREE_SHARE) * PAGE_KIB
    if kbytes > state.knob[Knob.MIN_FREE_KBYTES]:
        state.knob[Knob.MIN_FREE_KBYTES] = kbytes
        setup_watermarks(state)


def _setup_lists(state: State) -> None:
    state.kthread["clock_ps"][:] = ASLEEP
    state.current[Current.GUEST] = NIL
    scan = state.ksm_scan[0]
    scan.first_mm = NIL
    scan.last_mm = NIL
    scan.rmap_item = NIL
    state.rb_root[: Tree.NR] = NIL  # the others are set with the records that they belong to
