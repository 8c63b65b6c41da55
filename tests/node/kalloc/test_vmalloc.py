"""vmalloc, vmap, ioremap and modules on a built machine: what they map, whom it reaches, and what Linux prints."""

import pytest

from node.build import build_state
from node.checkpoint import digest, restore, snapshot
from node.counters import Current, Knob, VmEvent, VmStat
from node.hw.memory_type import MemoryType
from node.hw.paging import AccessKind
from node.hw.pte import Pte
from node.invariants import check
from node.joints import (
    alloc_frames,
    free_frames,
    ioremap,
    iounmap,
    kmalloc,
    load_module,
    run_in_user_mode,
    unload_module,
    vfree,
    vm_unmap_aliases,
    vmalloc,
    vmap,
    vunmap,
)
from node.kalloc.vmalloc import NOT_AN_AREA
from node.kalloc.vmallocinfo import frames_of_area, vmallocinfo
from node.kalloc.vmap_area import VmapCaller, VmapStat, find_vmap_area
from node.kalloc.vmap_pages import memory_type_bits
from node.kmap.entry import enter_kernel
from node.kmap.kernel_access import kernel_access
from node.phys.page import PageFlag
from node.spec import MachineSpec, SwapSpec
from node.state import State
from node.vm.mm_init import new_mm
from shared.constants import GIB, KIB, MIB, NIL, PAGE_SHIFT, PAGE_SIZE
from shared.gfp_flags import GFP_KERNEL, Gfp
from shared.jit import entry

pytestmark = pytest.mark.three_ways

VMALLOC_OF_4_LEVELS = 0xFFFFC90000000000 - (1 << 64)
MODULES = 0xFFFFFFFFA0000000 - (1 << 64)
DEVICE = 0xFED00000
# era, paging, page-table isolation
KINDS = [
    ("6.1", "4level", True),
    ("6.1", "4level", False),
    ("6.1", "5level", True),
    ("lecture", "4level", True),
]
KINDS_32 = [("6.1", "32bit", False), ("lecture", "32bit", False)]


@entry
def access_in_kernel_mode(state: State, mm: int, vaddr: int, kind: int) -> int:
    run_in_user_mode(state, mm)
    enter_kernel(state)
    return kernel_access(state, vaddr, kind)


@entry
def type_bits(_state: State, kind: int) -> int:
    return memory_type_bits(kind)


@entry
def area_at(state: State, vaddr: int) -> int:
    return find_vmap_area(state, vaddr)


def machine(era: str = "6.1", paging: str = "4level", pti: bool = True, **keys: object) -> State:
    hw = {"era": era, "paging": paging, "pti": pti}
    return build_state(MachineSpec(memory_bytes=96 * MIB, **keys).with_hw(**hw))  # type: ignore[arg-type]


def frames(state: State, vaddr: int) -> list[int]:
    return list(frames_of_area(state, area_at(state, vaddr)).values())


@pytest.mark.parametrize(("era", "paging", "pti"), KINDS + KINDS_32)
def test_reads_and_writes_reach_the_frames_in_every_process(era: str, paging: str, pti: bool) -> None:
    state = machine(era, paging, pti)
    first = new_mm(state)
    vaddr = vmalloc(state, 5 * PAGE_SIZE, GFP_KERNEL, VmapCaller.UNKNOWN)
    second = new_mm(state)
    mapped = frames(state, vaddr)
    assert len(set(mapped)) == 5
    for mm in (first, second, first):
        for page, pfn in enumerate(mapped):
            at = vaddr + page * PAGE_SIZE
            assert access_in_kernel_mode(state, mm, at + 8, AccessKind.READ) == pfn
            assert access_in_kernel_mode(state, mm, at + 4088, AccessKind.WRITE) == pfn
    assert (
        access_in_kernel_mode(state, first, vaddr + 5 * PAGE_SIZE, AccessKind.READ) == NIL
    )  # the guard page
    check(state)


@pytest.mark.parametrize("era", ["6.1", "lecture"])
def test_a_process_older_than_the_entry_copies_it_in_the_lecture_era_alone(era: str) -> None:
    state = machine(era)
    mm = new_mm(state)
    vaddr = vmalloc(state, PAGE_SIZE, GFP_KERNEL, VmapCaller.UNKNOWN)
    position = (int(state.mm[mm].pgd_pfn) << 9) + (vaddr >> 39 & 511)
    assert bool(state.pt_word[position] & Pte.PRESENT) == (era == "6.1")
    assert access_in_kernel_mode(state, mm, vaddr, AccessKind.READ) == frames(state, vaddr)[0]
    assert state.pt_word[position] & Pte.PRESENT


def fragment(state: State) -> None:
    """Take all memory in blocks of order 3 and give every other one back: no two of them are buddies."""
    state.current[Current.MEMALLOC] = 1
    kept = []
    while (pfn := alloc_frames(state, 3, Gfp.NOWARN)) != NIL:
        kept.append(pfn)
    for pfn in kept:
        if pfn & 8:
            state.page[pfn].page_flags |= PageFlag.KERNEL
        else:
            free_frames(state, pfn, 3)
    state.current[Current.MEMALLOC] = 0


@pytest.mark.parametrize("allocator", ["slub", "slab", "slob"])
def test_vmalloc_works_where_no_block_is_left_for_kmalloc(allocator: str) -> None:
    state = machine(allocator=allocator)
    fragment(state)
    assert state.vm_stat[VmStat.NR_FREE_PAGES] > 16 * MIB // PAGE_SIZE
    free_blocks = state.page["order"][state.page["page_flags"] & PageFlag.BUDDY != 0]
    assert free_blocks.max() < 4
    for size in (64 * KIB, 128 * KIB, MIB):
        assert kmalloc(state, size, int(Gfp.NOWARN)) == NIL
    free = int(state.vm_stat[VmStat.NR_FREE_PAGES])
    vaddr = vmalloc(state, MIB, GFP_KERNEL, VmapCaller.UNKNOWN)
    assert vaddr == VMALLOC_OF_4_LEVELS
    assert state.vm_stat[VmStat.NR_VMALLOC] == 256
    # 256 pages, and tables of two levels: the uppermost is there from boot.
    assert state.vmap_stat[VmapStat.KERNEL_TABLES] == 2
    assert free - state.vm_stat[VmStat.NR_FREE_PAGES] >= 256
    assert len(set(frames(state, vaddr))) == 256
    assert vfree(state, vaddr) == 0


def test_what_is_freed_is_unmapped_at_once_and_flushed_later() -> None:
    state = machine(cpus=2)
    mm = new_mm(state)
    vaddr = vmalloc(state, 2 * PAGE_SIZE, GFP_KERNEL, VmapCaller.UNKNOWN)
    pfn = access_in_kernel_mode(state, mm, vaddr, AccessKind.READ)
    used = int(state.vm_stat[VmStat.NR_VMALLOC])
    assert vfree(state, vaddr) == 0
    assert state.vm_stat[VmStat.NR_VMALLOC] == used - 2 == 0
    assert not state.page[pfn].page_flags & PageFlag.VMALLOC
    # The TLB may still have it, as in Linux; the addresses are not handed out until it is gone.
    assert access_in_kernel_mode(state, mm, vaddr, AccessKind.READ) == pfn
    check(state)
    assert vmalloc(state, PAGE_SIZE, GFP_KERNEL, VmapCaller.UNKNOWN) == vaddr + 3 * PAGE_SIZE
    assert vm_unmap_aliases(state) == 1
    assert access_in_kernel_mode(state, mm, vaddr, AccessKind.READ) == NIL
    assert vmalloc(state, PAGE_SIZE, GFP_KERNEL, VmapCaller.UNKNOWN) == vaddr
    check(state)


@pytest.mark.parametrize("pti", [True, False])
def test_a_flush_reaches_processes_that_are_not_loaded(pti: bool) -> None:
    state = machine(pti=pti)
    mms = [new_mm(state) for _ in range(3)]
    vaddr = vmalloc(state, PAGE_SIZE, GFP_KERNEL, VmapCaller.UNKNOWN)
    for mm in mms:
        assert access_in_kernel_mode(state, mm, vaddr, AccessKind.READ) != NIL
    vfree(state, vaddr)
    vm_unmap_aliases(state)
    check(state)
    for mm in mms:
        assert access_in_kernel_mode(state, mm, vaddr, AccessKind.READ) == NIL
    check(state)


def test_a_large_flush_drops_everything_on_every_cpu() -> None:
    state = machine(cpus=3)
    vfree(state, vmalloc(state, 40 * PAGE_SIZE, GFP_KERNEL, VmapCaller.UNKNOWN))
    received = int(state.vm_event[VmEvent.NR_TLB_REMOTE_FLUSH_RECEIVED])
    vm_unmap_aliases(state)
    assert state.vm_event[VmEvent.NR_TLB_REMOTE_FLUSH_RECEIVED] == received + 3


@pytest.mark.parametrize("size", [0, -5, 97 * MIB, 1 << 60, (1 << 63) - 1])
def test_sizes_that_linux_refuses(size: int) -> None:
    state = machine()
    assert vmalloc(state, size, GFP_KERNEL, VmapCaller.UNKNOWN) == NIL
    assert state.vmap_stat[VmapStat.BAD_REQUEST] == 1
    check(state)


def test_memory_that_runs_out_on_the_way_leaves_nothing_behind() -> None:
    state = machine()
    free = int(state.vm_stat[VmStat.NR_FREE_PAGES])
    size = free * PAGE_SIZE
    assert vmalloc(state, size, int(Gfp.KSWAPD_RECLAIM), VmapCaller.UNKNOWN) == NIL
    assert state.vmap_stat[VmapStat.NO_MEMORY] == 1
    assert state.vm_stat[VmStat.NR_VMALLOC] == 0
    check(state)
    assert vmalloc(state, MIB, GFP_KERNEL, VmapCaller.UNKNOWN) != NIL
    check(state)


def test_a_wrong_address_is_refused_and_counted() -> None:
    state = machine()
    vaddr = vmalloc(state, 3 * PAGE_SIZE, GFP_KERNEL, VmapCaller.UNKNOWN)
    for wrong in (vaddr + 1, vaddr - PAGE_SIZE, 0, 12345, MODULES, vaddr + 4 * PAGE_SIZE):
        assert vfree(state, wrong) == NOT_AN_AREA
    assert vunmap(state, vaddr) == iounmap(state, vaddr) == unload_module(state, vaddr) == NOT_AN_AREA
    assert state.vmap_stat[VmapStat.BAD_FREE] == 9
    assert vfree(state, vaddr + PAGE_SIZE) == 0  # inside the area: Linux frees it too
    assert vfree(state, vaddr) == NOT_AN_AREA
    check(state)


def test_vmap_maps_the_callers_frames_and_leaves_them_to_it() -> None:
    state = machine()
    mm = new_mm(state)
    mine = [alloc_frames(state, 0, GFP_KERNEL) for _ in range(3)]
    for pfn, following in zip(mine, [*mine[1:], NIL], strict=True):
        state.page[pfn].next = following
        state.page[pfn].page_flags |= PageFlag.KERNEL
    assert vmap(state, mine[0], 4, VmapCaller.UNKNOWN) == NIL
    vaddr = vmap(state, mine[0], 3, VmapCaller.UNKNOWN)
    for page, pfn in enumerate(mine):
        assert access_in_kernel_mode(state, mm, vaddr + page * PAGE_SIZE, AccessKind.WRITE) == pfn
    assert state.vm_stat[VmStat.NR_VMALLOC] == 0
    check(state)
    assert vunmap(state, vaddr) == 0
    assert all(state.page[pfn].refcount == 1 for pfn in mine)
    check(state)


@pytest.mark.parametrize(("era", "paging", "pti"), KINDS + KINDS_32[:1])
def test_ioremap_maps_a_device_uncached(era: str, paging: str, pti: bool) -> None:
    state = machine(era, paging, pti)
    mm = new_mm(state)
    vaddr = ioremap(state, DEVICE + 0x10, 0x2FF0, MemoryType.UC_MINUS, VmapCaller.DRIVER)
    assert vaddr & (PAGE_SIZE - 1) == 0x10
    assert (vaddr - 0x10) % (4 * PAGE_SIZE) == 0  # aligned to its size, a power of two
    access_in_kernel_mode(state, mm, vaddr, AccessKind.READ)
    clock_ps = state.current[Current.CLOCK_PS]
    assert access_in_kernel_mode(state, mm, vaddr, AccessKind.READ) == DEVICE >> PAGE_SHIFT
    uncached_ps = state.current[Current.CLOCK_PS] - clock_ps
    normal = vmalloc(state, PAGE_SIZE, GFP_KERNEL, VmapCaller.UNKNOWN)
    access_in_kernel_mode(state, mm, normal, AccessKind.READ)
    clock_ps = state.current[Current.CLOCK_PS]
    access_in_kernel_mode(state, mm, normal, AccessKind.READ)
    assert uncached_ps > state.current[Current.CLOCK_PS] - clock_ps
    check(state)
    assert iounmap(state, vaddr) == 0
    vm_unmap_aliases(state)
    assert access_in_kernel_mode(state, mm, vaddr, AccessKind.READ) == NIL
    check(state)


def test_each_memory_type_has_its_bits() -> None:
    state = machine()
    pwt, pcd, pat = Pte.WRITE_THROUGH, Pte.CACHE_DISABLE, Pte.HUGE
    bits = {
        MemoryType.WB: 0,
        MemoryType.WC: pwt,
        MemoryType.UC_MINUS: pcd,
        MemoryType.UC: pcd | pwt,
        MemoryType.WP: pat | pwt,
        MemoryType.WT: pat | pcd | pwt,
    }
    assert {kind: type_bits(state, kind) for kind in MemoryType} == bits
    assert type_bits(state, 2) == NIL


@pytest.mark.parametrize(
    ("paddr", "size"),
    [
        (DEVICE, 0),
        (1 * MIB, 4096),
        (96 * MIB - 1, 4096),
        (1 << 46, 4096),
        (DEVICE, -1),
        ((1 << 63) - 1, 4096),
        (DEVICE, (1 << 63) - 1),
    ],
)
def test_what_no_device_can_have_is_refused(paddr: int, size: int) -> None:
    state = machine()
    state.knob[Knob.PHYSICAL_BITS] = 46
    assert ioremap(state, paddr, size, MemoryType.UC, VmapCaller.DRIVER) == NIL
    assert ioremap(state, DEVICE, 4096, 2, VmapCaller.DRIVER) == NIL
    assert state.vmap_stat[VmapStat.BAD_REQUEST] == 2


@pytest.mark.parametrize("pti", [True, False])
def test_a_module_is_text_in_its_region_and_gone_at_once(pti: bool) -> None:
    state = machine(pti=pti)
    mm = new_mm(state)
    vaddr = load_module(state, 20_000, VmapCaller.LOAD_MODULE)
    assert vaddr == MODULES
    assert access_in_kernel_mode(state, mm, vaddr + 4096, AccessKind.EXECUTE) == frames(state, vaddr)[1]
    assert access_in_kernel_mode(state, mm, vaddr, AccessKind.WRITE) == NIL
    data = vmalloc(state, PAGE_SIZE, GFP_KERNEL, VmapCaller.UNKNOWN)
    assert access_in_kernel_mode(state, mm, data, AccessKind.EXECUTE) == NIL
    check(state)
    assert unload_module(state, vaddr) == 0
    assert access_in_kernel_mode(state, mm, vaddr + 4096, AccessKind.EXECUTE) == NIL
    assert state.vmap_stat[VmapStat.PURGES] == 1
    assert load_module(state, 20_000, VmapCaller.LOAD_MODULE) == vaddr
    check(state)


def test_modules_of_a_32_bit_machine_lie_in_vmalloc_space() -> None:
    state = machine("6.1", "32bit", pti=False)
    vaddr = load_module(state, 20_000, VmapCaller.LOAD_MODULE)
    assert vaddr == state.knob[Knob.VMALLOC_START]


def test_the_file_is_as_linux_prints_it() -> None:
    state = machine()
    first = vmalloc(state, 5 * PAGE_SIZE, GFP_KERNEL, VmapCaller.SWAPON)
    second = vmalloc(state, 11 * MIB, GFP_KERNEL, VmapCaller.UNKNOWN)
    ioremap(state, DEVICE, PAGE_SIZE, MemoryType.UC_MINUS, VmapCaller.DRIVER)
    load_module(state, 3 * PAGE_SIZE, VmapCaller.LOAD_MODULE)
    vfree(state, first)
    assert second == first + 6 * PAGE_SIZE
    assert vmallocinfo(state) == (
        "0xffffc90000006000-0xffffc90000b07000 11538432 pages=2816 vmalloc N0=2816\n"
        "0xffffc90000b07000-0xffffc90000b09000    8192 pci_iomap_range+0x0/0x0 phys=0x00000000fed00000 ioremap\n"
        "0xffffffffa0000000-0xffffffffa0004000   16384 load_module+0x0/0x0 pages=3 vmalloc N0=3\n"
        "0xffffc90000000000-0xffffc90000006000   24576 unpurged vm_area\n"
    )


def test_the_file_of_a_32_bit_machine_has_short_addresses() -> None:
    state = machine("6.1", "32bit", pti=False)
    assert vmallocinfo(state) == ""
    vmalloc(state, PAGE_SIZE, GFP_KERNEL, VmapCaller.UNKNOWN)
    ioremap(state, DEVICE, PAGE_SIZE, MemoryType.UC_MINUS, VmapCaller.UNKNOWN)
    assert vmallocinfo(state) == (
        "0xc6800000-0xc6802000    8192 pages=1 vmalloc\n0xc6802000-0xc6804000    8192 phys=0xfed00000 ioremap\n"
    )


def test_swapon_takes_the_areas_maps_from_vmalloc() -> None:
    state = machine(swap=SwapSpec(GIB, "ssd"))
    assert vmallocinfo(state) == (
        "0xffffc90000000000-0xffffc90000041000  266240 __do_sys_swapon+0x0/0x0 pages=64 vmalloc N0=64\n"
        "0xffffc90000041000-0xffffc90000044000   12288 __do_sys_swapon+0x0/0x0 pages=2 vmalloc N0=2\n"
    )
    check(state)
    rotational = machine(swap=SwapSpec(GIB, "hdd"))
    assert rotational.vm_stat[VmStat.NR_VMALLOC] == 64


def test_a_checkpoint_keeps_areas_and_trees() -> None:
    state = machine()
    areas = [vmalloc(state, (1 + n) * PAGE_SIZE, GFP_KERNEL, VmapCaller.UNKNOWN) for n in range(9)]
    for area in areas[::3]:
        vfree(state, area)
    other, _ = restore(snapshot(state, {}))
    for each in (state, other):
        vm_unmap_aliases(each)
        vfree(each, areas[1])
        assert vmalloc(each, PAGE_SIZE, GFP_KERNEL, VmapCaller.UNKNOWN) == areas[0]
        check(each)
    assert digest(state) == digest(other)


def test_devices_lie_in_the_hole_below_4_gib() -> None:
    state = build_state(MachineSpec(memory_bytes=5 * GIB).with_hw(era="6.1"))
    assert state.knob[Knob.NR_FRAMES] > DEVICE >> PAGE_SHIFT
    assert ioremap(state, DEVICE, PAGE_SIZE, MemoryType.UC_MINUS, VmapCaller.DRIVER) != NIL
    for ram in (GIB, 5 * GIB - PAGE_SIZE):
        assert ioremap(state, ram, PAGE_SIZE, MemoryType.UC_MINUS, VmapCaller.DRIVER) == NIL
