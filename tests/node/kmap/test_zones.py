"""Zones of machines of every kind and size: where they begin and end, and how much of them can be used."""

import pytest

from node.build import build_state
from node.hw.hardware import resolve_hw
from node.phys.frames_check import check_frames
from node.phys.reserved_check import check_reserved
from node.phys.zone import NR_ZONES, ZoneId
from node.spec import MachineSpec
from node.state import State
from shared.constants import GIB, MIB, PAGE_KIB

# A machine with 4096 MiB in QEMU (i440FX, virtme-ng, kernel 6.x, log of 2024-07-22) says "Memory: 4021152K/4193784K
# available (..., 2644K init, ...)", and has what is init later: this is its MemTotal. It keeps 64 MiB for swiotlb.
MEM_TOTAL_OF_4_GIB_KIB = 4_021_152 + 2_644
PAGEBLOCK = 512


def zones(state: State, nid: int = 0) -> dict[str, tuple[int, int]]:
    """Return the frames of each zone of a node: first, behind."""
    found = {}
    for kind in ZoneId:
        zone = state.zone[nid * NR_ZONES + kind]
        if zone.end_pfn:
            found[kind.name] = (int(zone.start_pfn), int(zone.end_pfn))
    return found


def machine(memory: int, paging: str = "4level", **more: int) -> State:
    hw, tlb = resolve_hw({"paging": paging})
    return build_state(MachineSpec(memory, hw=hw, tlb=tlb, **more))  # type: ignore[arg-type]


def test_a_64_bit_machine_without_a_hole_has_dma_and_dma32() -> None:
    assert zones(machine(512 * MIB)) == {"DMA": (1, 4096), "DMA32": (4096, 131_072)}


def test_what_does_not_fit_below_3_gib_is_above_the_hole() -> None:
    state = machine(4 * GIB)
    assert zones(state) == {
        "DMA": (1, 4096),
        "DMA32": (4096, 1 << 20),
        "NORMAL": (1 << 20, (1 << 20) + (1 << 18)),
    }
    assert state.zone[ZoneId.DMA32].present == 3 * GIB // 4096 - 4096
    assert check_frames(state) + check_reserved(state) == []


def test_just_below_3_5_gib_there_is_no_hole() -> None:
    assert list(zones(machine(3 * GIB + 508 * MIB))) == ["DMA", "DMA32"]


def test_a_machine_of_4_gib_has_as_many_usable_frames_as_a_real_one() -> None:
    managed_kib = int(machine(4 * GIB).zone["managed"].sum()) * PAGE_KIB
    assert abs(managed_kib - MEM_TOTAL_OF_4_GIB_KIB) < MEM_TOTAL_OF_4_GIB_KIB * 0.02


def test_a_32_bit_machine_has_highmem_above_what_its_kernel_maps() -> None:
    found = zones(machine(2 * GIB, "32bit"))
    assert list(found) == ["DMA", "NORMAL", "HIGHMEM"]
    assert found["NORMAL"][1] == found["HIGHMEM"][0]
    # 896 MiB, less what 6.1 takes of the kernel's quarter for the CPU entry areas of its CPUs.
    assert 864 * MIB < found["NORMAL"][1] * 4096 <= 896 * MIB
    assert found["HIGHMEM"][1] == 2 * GIB // 4096


def test_a_32_bit_machine_that_the_kernel_maps_wholly_has_no_highmem() -> None:
    assert list(zones(machine(256 * MIB, "32bit"))) == ["DMA", "NORMAL"]


def test_a_machine_without_paging_has_dma_and_normal() -> None:
    assert zones(machine(256 * MIB, "none")) == {"DMA": (1, 4096), "NORMAL": (4096, 65_536)}


def test_movable_is_cut_off_the_top() -> None:
    state = machine(512 * MIB, movablecore_bytes=100 * MIB)
    first, behind = zones(state)["MOVABLE"]
    assert behind == 131_072
    assert 0 <= 100 * MIB // 4096 - (behind - first) < 2 * PAGEBLOCK
    assert zones(state)["DMA32"][1] == first
    assert check_frames(state) == []


def test_device_memory_is_never_free() -> None:
    state = machine(256 * MIB, device_bytes=64 * MIB)
    device = state.zone[ZoneId.DEVICE]
    assert (device.end_pfn - device.start_pfn, device.managed, device.nr_free) == (16_384, 0, 0)
    assert check_frames(state) + check_reserved(state) == []


@pytest.mark.parametrize("memory_mib", [224, 256, 512, 1024, 2048, 4096, 8192])
def test_kernels_take_a_like_share_of_machines_of_all_sizes(memory_mib: int) -> None:
    state = machine(memory_mib * MIB)
    frames = memory_mib * MIB // 4096
    managed = int(state.zone["managed"].sum())
    taken = frames - managed
    # The first MiB, the image and what booting takes, and a 64th of it all for descriptors.
    assert taken == pytest.approx(256 + 11_664 + frames / 64, abs=600)
    assert check_reserved(state) == []
    assert int(state.zone["nr_free"].sum()) == managed


@pytest.mark.parametrize("memory_mib", [1, 16, 40])
def test_a_machine_too_small_for_its_kernel_is_refused_in_one_line(memory_mib: int) -> None:
    with pytest.raises(ValueError, match=r"^memory: [^\n]*$"):
        machine(memory_mib * MIB)
