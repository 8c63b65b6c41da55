from dataclasses import replace

import pytest

from node.hw.processors import (
    DATA_CACHE_SETS,
    DATA_CACHE_WAYS,
    NR_ROLES,
    PAGE_SIZES,
    PROCESSORS,
    REFILLS,
    REPLACEMENTS,
    SIDES,
    Processor,
    TlbArraySpec,
    WalkCacheSpec,
)
from node.hw.tlb import Refill, Replacement, TlbArray
from node.spec import MachineSpec, check_hw
from shared.constants import CACHE_LINE_BYTES, KIB, MIB

MACHINE = MachineSpec(memory_bytes=64 * MIB)
PRESETS = list(PROCESSORS.values())
SIDE_LETTERS = dict(zip(SIDES, ("D1", "I1", "L2"), strict=True))


def shapes(processor: Processor) -> dict[str, str]:
    tlb = processor.tlb
    return {tlb.name(place): f"{array.entries}/{array.ways}" for place, array in enumerate(tlb.arrays)}


@pytest.mark.parametrize("processor", PRESETS, ids=lambda processor: processor.name)
def test_a_preset_makes_a_machine_that_can_be_built(processor: Processor) -> None:
    spec = MACHINE.with_hw(processor=processor.name)
    check_hw(spec)
    assert spec.tlb == processor.tlb
    assert spec.hw.features == processor.features
    assert spec.hw.physical_bits == processor.physical_bits


@pytest.mark.parametrize("paging", ["none", "32bit", "4level", "5level"])
@pytest.mark.parametrize("processor", PRESETS, ids=lambda processor: processor.name)
def test_a_preset_works_in_every_mode(processor: Processor, paging: str) -> None:
    spec = MACHINE.with_hw(processor=processor.name, paging=paging)
    sizes = {"none": 1, "32bit": 2}.get(paging, 3)
    assert all(place is None for role, place in enumerate(spec.tlb.roles) if role % 3 >= sizes)
    assert spec.tlb.roles[0] is not None
    assert set(range(len(spec.tlb.arrays))) == {place for place in spec.tlb.roles if place is not None}


def test_a_machine_without_keys_is_a_skylake_with_everything_on() -> None:
    assert MACHINE.with_hw() == MACHINE
    assert MACHINE.tlb == PROCESSORS["skylake"].tlb
    hw = MACHINE.hw
    assert (hw.processor, hw.paging, hw.pcid, hw.pti, hw.era) == ("skylake", "4level", True, True, "6.1")


def test_roles_stand_in_the_order_of_the_tables_that_kernels_read() -> None:
    names = [f"{SIDE_LETTERS[side]}_{size}" for side in SIDES for size in PAGE_SIZES]
    assert names == [role.name for role in TlbArray][:NR_ROLES]
    assert {name.upper() for name in REPLACEMENTS} == {one.name for one in Replacement}
    assert [name.upper() for name in REFILLS] == [one.name for one in Refill]
    walk_caches = [f"WALK_{level.upper()}" for level in ("pd", "pdpt", "pml4", "pml5")]
    assert [TlbArray[name] for name in (*walk_caches, "EPT_PD")] == list(range(NR_ROLES, NR_ROLES + 5))


def test_skylake_is_as_intels_manual_has_it() -> None:
    assert shapes(PROCESSORS["skylake"]) == {
        "data 4K": "64/4",
        "data 2M": "32/4",
        "data 1G": "4/4",
        "instruction 4K": "128/8",
        "instruction 2M": "8/8",
        "second 4K+2M": "1536/12",
        "second 1G": "16/4",
    }


# Leaves of CPUID (github.com/InstLatx64/InstLatx64): 8000_0005h and 8000_0006h, data in the upper halves, and
# 8000_0019h, second-level entries of 1 GiB.
@pytest.mark.parametrize(
    ("name", "l1", "l2_2m", "l2_4k", "gigantic"),
    [
        ("zen2", 0xFF40FF40, 0x48006400, 0x68006400, 0x00000000),
        ("zen3", 0xFF40FF40, 0x48002200, 0x68004200, 0xF0400000),
        ("zen4", 0xFF48FF40, 0x5C002200, 0x6C004200, 0xF0400000),
    ],
)
def test_amds_sizes_are_those_that_cpuid_reports(
    name: str, l1: int, l2_2m: int, l2_4k: int, gigantic: int
) -> None:
    tlb = PROCESSORS[name].tlb
    data, instruction, second = tlb.array(0), tlb.array(3), tlb.array(6)
    assert data is not None
    assert instruction is not None
    assert second is not None
    assert (data.entries, instruction.entries) == (l1 >> 16 & 0xFF, l1 & 0xFF)
    assert second.entries == l2_4k >> 16 & 0xFFF == l2_2m >> 16 & 0xFFF
    assert second.nr_sets == 128
    large = tlb.array(8)
    assert (large.entries if large else 0) == gigantic >> 16 & 0xFFF


# Subleaves of leaf 18h: ways in EBX 31:16, sets in ECX.
@pytest.mark.parametrize(
    ("roles", "ebx", "ecx"),
    [((0,), 0x00040001, 0x10), ((1,), 0x00040006, 8), ((2,), 0x00080008, 1), ((7,), 0x00080007, 0x80)],
)
def test_ice_lakes_arrays_are_those_that_cpuid_reports(roles: tuple[int, ...], ebx: int, ecx: int) -> None:
    for role in roles:
        array = PROCESSORS["icelake"].tlb.array(role)
        assert array is not None
        assert (array.ways, array.nr_sets) == (ebx >> 16, ecx)


def test_textbook_and_r3000_have_one_unified_array() -> None:
    textbook, r3000 = PROCESSORS["textbook"].tlb, PROCESSORS["r3000"].tlb
    assert textbook.arrays == (TlbArraySpec(128, 128),)
    assert textbook.roles == (0, 0, 0, 0, 0, 0, None, None, None)
    assert r3000.arrays == (TlbArraySpec(64, 64, "random", wired=8),)
    assert r3000.roles == (0, None, None, 0, None, None, None, None, None)
    assert (textbook.refill, r3000.refill) == ("hardware", "software")
    assert textbook.name(0) == "unified 4K+2M+1G"
    assert PROCESSORS["r3000"].walk_caches == WalkCacheSpec()


def test_an_array_of_all_roles_is_named_after_each_side() -> None:
    tlb = replace(PROCESSORS["textbook"].tlb, roles=(0,) * NR_ROLES)
    assert tlb.name(0) == "data 4K+2M+1G instruction 4K+2M+1G second 4K+2M+1G"


def test_only_skylake_has_meltdown_and_only_rome_and_the_textbook_lack_tags() -> None:
    assert [one.name for one in PRESETS if one.features.meltdown] == ["skylake"]
    assert [one.name for one in PRESETS if not one.features.pcid] == ["zen2", "textbook"]
    assert [one.name for one in PRESETS if one.features.la57] == ["icelake", "zen4"]


def test_the_default_data_cache_is_skylakes() -> None:
    assert DATA_CACHE_SETS * DATA_CACHE_WAYS * CACHE_LINE_BYTES == 32 * KIB
