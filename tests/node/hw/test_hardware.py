from dataclasses import replace
from typing import Any

import pytest

from node.hw.hardware import ERAS, MAX_PHYSICAL_BITS, PAGE_OFFSETS, PAGINGS
from node.hw.paging import MODE_NAMES, PAGING_MODES
from node.hw.processors import NR_ROLES, PROCESSORS, TlbArraySpec, TlbSpec
from node.hw.tlb import TlbArray
from node.spec import MachineSpec, check_hw
from shared.constants import GIB, MIB, TIB

MACHINE = MachineSpec(memory_bytes=64 * MIB)
NAMES = "skylake, icelake, zen2, zen3, zen4, textbook, r3000"


def array(role: TlbArray, **tlb: Any) -> TlbArraySpec | None:
    return MACHINE.with_hw(tlb=tlb).tlb.array(role)


def test_modes_are_those_of_the_hardware() -> None:
    assert set(PAGINGS) == set(MODE_NAMES) == set(MAX_PHYSICAL_BITS)
    assert all(
        PAGING_MODES[MODE_NAMES[name]].max_physical_bits == MAX_PHYSICAL_BITS[name] for name in PAGINGS
    )


def test_what_is_not_said_of_an_array_stays() -> None:
    assert array(TlbArray.D1_4K, data={"4K": {"entries": 48}}) == TlbArraySpec(48, 4)
    assert array(TlbArray.D1_4K, data={"4K": {"replacement": "plru"}}) == TlbArraySpec(64, 4, "plru")
    assert array(TlbArray.D1_1G, data={"1G": {"entries": 6}}) == TlbArraySpec(6, 6)
    assert array(TlbArray.I1_1G, instruction={"1G": {"entries": 6}}) == TlbArraySpec(6, 6)
    assert array(TlbArray.L2_2M, second={"2M": {"ways": "full"}}) == TlbArraySpec(1536, 1536)


def test_sizes_that_are_named_together_share_an_array_and_leave_the_one_they_had() -> None:
    tlb = MACHINE.with_hw(processor="zen4", tlb={"data": {"2M+1G": {"entries": 20, "ways": 5}}}).tlb
    assert tlb.array(TlbArray.D1_4K) == TlbArraySpec(72, 72)
    assert tlb.array(TlbArray.D1_2M) == tlb.array(TlbArray.D1_1G) == TlbArraySpec(20, 5)
    assert tlb.roles[TlbArray.D1_2M] == tlb.roles[TlbArray.D1_1G]
    assert [tlb.name(place) for place in range(3)] == ["data 4K", "instruction 4K+2M+1G", "second 4K+2M"]


def test_unified_serves_data_and_instructions() -> None:
    tlb = MACHINE.with_hw(tlb={"unified": {"all": {"entries": 256, "ways": "full"}}}).tlb
    assert len(set(tlb.roles[: TlbArray.L2_4K])) == 1
    assert tlb.array(TlbArray.I1_1G) == TlbArraySpec(256, 256)


def test_no_entries_are_no_array() -> None:
    tlb = MACHINE.with_hw(tlb={"second": {"all": {"entries": 0}}, "data": {"1G": {"entries": 0}}}).tlb
    assert tlb.roles == (0, 1, None, 2, 3, None, None, None, None)
    assert len(tlb.arrays) == 4
    hw = MACHINE.with_hw(walk_caches={"pd": {"entries": 0}, "pdpt": {"entries": 6, "ways": 2}}).hw
    assert (hw.walk_caches.pd, hw.walk_caches.pdpt) == (None, TlbArraySpec(6, 2))


def test_short_keys_mean_small_data_and_the_shared_second_level() -> None:
    keys = {"l1_entries": 48, "l1_ways": 3, "l2_entries": 1000, "l2_ways": 10}
    tlb = MACHINE.with_hw(tlb=keys).tlb
    assert tlb.array(TlbArray.D1_4K) == TlbArraySpec(48, 3)
    assert tlb.array(TlbArray.L2_4K) == tlb.array(TlbArray.L2_2M) == TlbArraySpec(1000, 10)
    assert MACHINE.with_hw(paging="none", tlb=keys).tlb.array(TlbArray.L2_2M) is None


@pytest.mark.parametrize("size", ["2M", "4M"])
def test_in_32_bit_paging_the_large_page_has_two_names(size: str) -> None:
    tlb = MACHINE.with_hw(paging="32bit", tlb={"data": {size: {"entries": 8}}}).tlb
    assert tlb.array(TlbArray.D1_2M) == TlbArraySpec(8, 4)


def test_defaults_follow_processor_and_mode() -> None:
    def is_on(**keys: Any) -> tuple[bool, bool, bool]:
        hw = MACHINE.with_hw(**keys).hw
        return hw.pcid, hw.pti, hw.global_pages

    assert is_on() == (True, True, True)
    assert is_on(paging="5level") == (True, True, True)
    assert is_on(paging="32bit") == (False, False, True)
    assert is_on(paging="none") == (False, False, False)
    assert is_on(processor="zen2") == (False, False, True)
    assert is_on(processor="icelake", pcid=False, pti=True) == (False, True, True)
    assert is_on(global_pages=False) == (False, True, False)


def test_what_is_asked_for_is_added_to_the_processor() -> None:
    assert MACHINE.with_hw(paging="5level").hw.features.la57
    assert MACHINE.with_hw(processor="zen2", pcid=True).hw.features.pcid
    assert MACHINE.with_hw(processor="r3000", tlb={"data": {"1G": {"entries": 4}}}).hw.features.pdpe1gb
    assert not MACHINE.with_hw(processor="r3000").hw.features.pdpe1gb


def test_walk_caches_are_those_of_the_modes_levels() -> None:
    def levels(**keys: Any) -> list[str]:
        caches = MACHINE.with_hw(**keys).hw.walk_caches
        names = ("pd", "pdpt", "pml4", "pml5", "ept_pd")
        return [name for name in names if getattr(caches, name) is not None]

    assert levels(processor="icelake") == ["pd", "pdpt", "pml4", "ept_pd"]
    assert levels(processor="icelake", paging="5level") == ["pd", "pdpt", "pml4", "pml5", "ept_pd"]
    assert levels(paging="32bit") == ["pd", "ept_pd"]
    assert levels(paging="none") == []
    assert levels(tlb={"refill": "software"}) == []


def test_physical_bits_follow_the_mode() -> None:
    assert MACHINE.with_hw(processor="zen4", paging="32bit").hw.physical_bits == 40
    assert MACHINE.with_hw(physical_bits=52).hw.physical_bits == 52
    big = replace(MACHINE, memory_bytes=TIB)
    assert big.with_hw(physical_bits=40).memory_bytes == TIB


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (
            {"tlb": {"data": {"4K": {"entry": 4}}}},
            "hw.tlb.data.4K.entry: unknown key; there are entries, ways, replacement, wired",
        ),
        (
            {"tlb": {"first": {}}},
            (
                "hw.tlb.first: unknown key; there are refill, unified, data, instruction, second, l1_entries,"
                " l1_ways, l2_entries, l2_ways"
            ),
        ),
        (
            {"cpu": "zen4"},
            (
                "hw.cpu: unknown key; there are processor, paging, page_offset, pcid, pti, global_pages,"
                " physical_bits, tlb, walk_caches, era"
            ),
        ),
        ({"processor": "zen9"}, f"hw.processor: 'zen9' is not one of {NAMES}"),
        ({"paging": "3level"}, "hw.paging: '3level' is not one of none, 32bit, 4level, 5level"),
        ({"era": "5.4"}, "era: '5.4' is not one of 6.1, lecture"),
        (
            {"page_offset": 0x8000_0000},
            "hw.page_offset: only 32bit paging lets it be chosen, not 4level",
        ),
        (
            {"paging": "32bit", "page_offset": 0xA000_0000},
            "hw.page_offset: 0xa0000000 is not one of 0xC0000000, 0xB0000000, 0x80000000, 0x78000000, 0x40000000",
        ),
        ({"paging": "32bit", "pcid": True}, "hw.pcid: on needs 4level or 5level paging, not 32bit"),
        ({"paging": "none", "pcid": True}, "hw.pcid: on needs 4level or 5level paging, not none"),
        ({"paging": "32bit", "pti": True}, "hw.pti: on needs 4level or 5level paging, not 32bit"),
        ({"paging": "none", "pti": True}, "hw.pti: on needs 4level or 5level paging, not none"),
        (
            {"pcid": True, "global_pages": False},
            "hw.pcid: on needs hw.global_pages on (Linux uses neither without the other)",
        ),
        ({"paging": "none", "global_pages": True}, "hw.global_pages: on needs paging, not none"),
        ({"physical_bits": 53}, "hw.physical_bits: 53 is outside 32..52 of 4level paging"),
        (
            {"paging": "32bit", "physical_bits": 41},
            "hw.physical_bits: 41 is outside 32..40 of 32bit paging",
        ),
        (
            {"paging": "32bit", "tlb": {"data": {"1G": {"entries": 4}}}},
            "hw.tlb.data.1G: 32bit paging has no 1 GiB pages",
        ),
        (
            {"tlb": {"second": {"4K+4M": {"entries": 4}}}},
            "hw.tlb.second.4K+4M: 4level paging has no 4 MiB pages",
        ),
        (
            {"paging": "none", "tlb": {"unified": {"2M": {"entries": 4}}}},
            "hw.tlb.unified.2M: none paging has no 2 MiB pages",
        ),
        (
            {"tlb": {"data": {"8K": {"entries": 4}}}},
            "hw.tlb.data.8K: '8K' is not one of 4K, 2M, 4M, 1G or all",
        ),
        ({"tlb": {"data": {"4K+4K": {"entries": 4}}}}, "hw.tlb.data.4K+4K: 4K is there twice"),
        (
            {"tlb": {"data": {"4K": {"entries": 4}, "4K+2M": {"entries": 4}}}},
            "hw.tlb.data.4K+2M: a size has two arrays",
        ),
        (
            {"tlb": {"instruction": {"1G": {"ways": 4}}}},
            "hw.tlb.instruction.1G.entries: missing, and the processor has no such array",
        ),
        (
            {"tlb": {"data": {"4K": {"ways": 0}}}},
            "hw.tlb.data.4K.ways: 0 is below the minimum of 1 (direct-mapped)",
        ),
        ({"tlb": {"l1_ways": 0}}, "hw.tlb.data.4K.ways: 0 is below the minimum of 1 (direct-mapped)"),
        (
            {"tlb": {"second": {"2M": {"entries": 100, "ways": 12}}}},
            "hw.tlb.second.2M: 100 entries is not a multiple of 12 ways",
        ),
        (
            {"tlb": {"data": {"4K": {"entries": 70000, "ways": 4}}}},
            "hw.tlb.data.4K.entries: 70000 is outside 1..65536",
        ),
        (
            {"tlb": {"second": {"4K": {"replacement": "plru"}}}},
            "hw.tlb.second.4K.ways: plru needs a power of two up to 32, not 12",
        ),
        (
            {"tlb": {"data": {"4K": {"ways": "full", "replacement": "plru"}}}},
            "hw.tlb.data.4K.ways: plru needs a power of two up to 32, not 64",
        ),
        (
            {"tlb": {"data": {"4K": {"replacement": "mru"}}}},
            "hw.tlb.data.4K.replacement: 'mru' is not one of lru, plru, fifo, random",
        ),
        (
            {"tlb": {"data": {"4K": {"wired": 4}}}},
            "hw.tlb.data.4K.wired: 4 of 4 ways leaves none to refill",
        ),
        ({"tlb": {"refill": "firmware"}}, "hw.tlb.refill: 'firmware' is not one of hardware, software"),
        (
            {"processor": "r3000", "tlb": {"instruction": {"4K": {"entries": 0}}}},
            "hw.tlb.instruction.4K: where software refills the TLB, there must be one",
        ),
        (
            {"walk_caches": {"pml5": {"entries": 4}}},
            "hw.walk_caches.pml5: 4level paging has no entries of that level",
        ),
        (
            {"paging": "none", "walk_caches": {"pd": {"entries": 4}}},
            "hw.walk_caches.pd: none paging has no entries of that level",
        ),
        (
            {"walk_caches": {"pt": {"entries": 4}}},
            "hw.walk_caches.pt: unknown key; there are pd, pdpt, pml4, pml5, ept_pd",
        ),
        (
            {"walk_caches": {"pd": {"entries": 5, "ways": 2}}},
            "hw.walk_caches.pd: 5 entries is not a multiple of 2 ways",
        ),
        (
            {"walk_caches": False},
            "hw.walk_caches: False is not a mapping of pd, pdpt, pml4, pml5, ept_pd",
        ),
        (
            {"walk_caches": {"pd": False}},
            "hw.walk_caches.pd: False is not a mapping of entries, ways, replacement, wired",
        ),
        (
            {"processor": "r3000", "walk_caches": {"pd": {"entries": 4}}},
            "hw.walk_caches.pd: where software refills the TLB, no hardware walks",
        ),
    ],
)
def test_hardware_that_does_not_exist_is_refused_in_one_line(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011  # the whole message is compared
        MACHINE.with_hw(**keys)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("memory_bytes", "keys", "message"),
    [
        (
            TIB,
            {},
            "memory: 1 TiB is more than the 512 GiB that 39 physical address bits reach (hw.physical_bits)",
        ),
        (
            8 * GIB,
            {"paging": "32bit"},
            "memory: 8 GiB is more than the 4 GiB that 4 KiB pages of 32bit paging reach",
        ),
    ],
)
def test_memory_beyond_what_addresses_reach_is_refused(
    memory_bytes: int, keys: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011  # the whole message is compared
        replace(MACHINE, memory_bytes=memory_bytes).with_hw(**keys)
    assert str(caught.value) == message


def test_specs_that_python_users_make_by_hand_are_checked_too() -> None:
    skylake = PROCESSORS["skylake"].tlb
    with pytest.raises(ValueError, match=r"hw\.tlb\.data\.1G: 32bit paging has no 1 GiB pages"):
        check_hw(replace(MACHINE, hw=replace(MACHINE.hw, paging="32bit", pcid=False, pti=False)))
    with pytest.raises(ValueError, match=r"hw\.tlb: 3 roles are not the 9 that there are"):
        check_hw(replace(MACHINE, tlb=TlbSpec(skylake.arrays, (0, 1, 2))))
    with pytest.raises(ValueError, match=r"hw\.tlb\.data\.4K: array 9 is not one of the 7"):
        check_hw(replace(MACHINE, tlb=TlbSpec(skylake.arrays, (9,) * NR_ROLES)))
    assert ERAS[0] == MACHINE.hw.era
    assert PAGE_OFFSETS[0] == MACHINE.hw.page_offset
