"""The machine that a recording describes."""

from pathlib import Path
from typing import Any

import pytest

from node.build import build_state
from node.golden_file import load_golden
from node.golden_machine import machine_of, unmodelled_settings, warnings_of
from node.spec import SwapSpec
from shared.constants import MIB

pytestmark = pytest.mark.three_ways

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
CASES = sorted(path.name.removesuffix(".json.gz") for path in GOLDEN.glob("*.json.gz"))


def golden_of(case: str) -> dict[str, Any]:
    return load_golden(GOLDEN / f"{case}.json.gz")


@pytest.mark.parametrize("case", CASES)
def test_every_recorded_machine_can_be_described(case: str) -> None:
    golden = golden_of(case)
    spec = machine_of(golden)
    assert spec.memory_bytes == int(golden["machine"]["qemu_memory"].removesuffix("M")) * MIB
    assert spec.cpus == golden["machine"]["cpus"]
    assert spec.min_free_kbytes == int(golden["machine"]["sysctl_vm"]["min_free_kbytes"])
    assert spec.hw.pti == (case == "fault_pti")
    assert not spec.hw.pcid


def test_sysctls_go_to_the_fields_of_their_names() -> None:
    golden = golden_of("madv_pageout2")
    golden["machine"]["sysctl_vm"] |= {"swappiness": "33", "lowmem_reserve_ratio": "128\t64\t32\t0\t0"}
    spec = machine_of(golden)
    assert spec.page_cluster == 2
    assert spec.swappiness == 33
    assert spec.lowmem_reserve_ratio == (128, 64, 32, 0, 0)
    assert spec.swap == SwapSpec(256 * MIB, "ssd")
    assert machine_of(golden_of("madv_pageout")).swap == SwapSpec(256 * MIB, "hdd")


@pytest.mark.parametrize(
    ("header", "pti", "missing"),
    [
        ({}, False, []),
        ({"cmdline": "pti=on"}, True, []),
        ({"cmdline": "pti=on nopti"}, False, []),
        ({"cmdline": "pti=on nopcid quiet"}, True, ["cmdline quiet"]),
        ({"cpu": "Skylake-Client"}, False, ["cpu Skylake-Client"]),
        ({"cpu": "Skylake-Client", "cmdline": "pti=on"}, True, []),
    ],
)
def test_page_table_isolation_is_as_cpu_and_command_line_have_it(
    header: dict[str, str], pti: bool, missing: list[str]
) -> None:
    golden = {"header": header}
    assert machine_of(golden).hw.pti == pti
    assert unmodelled_settings(golden) == missing


@pytest.mark.parametrize(
    ("header", "missing"),
    [
        ({"swap": "none", "zswap": "off", "thp": "never", "ra_kb": "128", "fault_around": "65536"}, []),
        ({"swap": "disk:64M"}, []),
        ({"swap": "zram:128M:zstd"}, ["swap zram"]),
        ({"zswap": "enabled=1 zpool=zbud"}, ["zswap enabled=1 zpool=zbud"]),
        ({"sysctl": "vm.swappiness=5 vm.dirty_ratio=7"}, ["sysctl vm.dirty_ratio"]),
    ],
)
def test_what_a_machine_cannot_have_is_named(header: dict[str, str], missing: list[str]) -> None:
    assert unmodelled_settings({"header": header}) == missing


def test_another_way_to_age_pages_is_not_modelled() -> None:
    assert unmodelled_settings({"machine": {"lru_gen_enabled": "0x0007"}}) == ["lru_gen"]


@pytest.mark.parametrize("case", ["ksm_batch", "oom_select", "reclaim_global_loop", "smp2_mix", "thp"])
def test_zones_and_watermarks_agree_with_the_recorded_ones(case: str) -> None:
    golden = golden_of(case)
    assert warnings_of(golden, build_state(machine_of(golden))) == []


def test_a_watermark_that_differs_is_shown() -> None:
    golden = golden_of("ksm_batch")
    state = build_state(machine_of(golden))
    zone = golden["machine"]["zones"][1]
    assert zone["zone"] == "DMA32"
    zone["low"] += 100
    golden["machine"]["zones"].append({"zone": "Movable", "managed": 512})
    golden["machine"]["kernel"] = "Linux version 5.10.0"
    ours = int(state.zone[1].low)
    assert warnings_of(golden, state) == [
        "recorded on Linux version 5.10.0; what is modelled is Linux version 6.1.x",
        f"zone DMA32: low {zone['low']} pages, ours {ours}",
        "zone Movable: managed 512 pages, ours 0",
    ]
