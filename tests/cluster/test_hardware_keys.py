"""The keys of ``hw`` and ``era``: from a scenario's text to a machine's spec, and what is refused on the way."""

from pathlib import Path
from typing import Any, get_args

import pytest
import yaml

from cluster.config import Scenario
from cluster.config_hardware import DataCache, Hardware, Tlb, TlbArray, WalkCaches
from cluster.config_values import PAGE_OFFSETS
from cluster.errors import InputError
from cluster.plan import make_plan
from cluster.report_settings import flat_settings
from cluster.scenario_file import load_scenario
from node.hw.hardware import PAGE_OFFSETS as NODE_PAGE_OFFSETS
from node.hw.hardware import PAGINGS
from node.hw.processors import NR_SIZES, PAGE_SIZES, PROCESSORS, Processor, TlbArraySpec
from node.spec import DataCacheSpec, MachineSpec

DOCUMENT = (Path(__file__).resolve().parents[2] / "docs" / "scenarios.md").read_text()
HEAD = "name: lab\nduration: 1s\n"


def scenario_of(folder: Path, hw: str, *settings: str) -> Scenario:
    path = folder / "lab.yaml"
    path.write_text(f"{HEAD}machines:\n  - {{name: m, memory: 64MiB, hw: {hw}}}\n")
    return load_scenario(path, settings)


def machine_of(folder: Path, hw: str, *settings: str) -> MachineSpec:
    """Go the whole way: text, models, plan, the machine's spec."""
    plan = make_plan(scenario_of(folder, hw, *settings), folder / "lab.yaml")
    return MachineSpec.from_dict(plan.specs[0])


def error_of(folder: Path, hw: str) -> str:
    with pytest.raises(InputError) as caught:
        scenario_of(folder, hw)
    message = str(caught.value)
    assert "\n" not in message
    return message.removeprefix(f"{folder}/lab.yaml: ")


def test_a_scenario_that_says_nothing_makes_the_default_machine(tmp_path: Path) -> None:
    spec = machine_of(tmp_path, "{}")
    default = MachineSpec(memory_bytes=spec.memory_bytes)
    assert (spec.hw, spec.tlb, spec.data_cache) == (default.hw, default.tlb, default.data_cache)
    assert (spec.cost, spec.clock_ghz) == (default.cost, default.clock_ghz)


@pytest.mark.parametrize("name", list(PROCESSORS))
def test_every_preset_has_its_name(tmp_path: Path, name: str) -> None:
    spec = machine_of(tmp_path, f"{{processor: {name}}}")
    assert spec.tlb == PROCESSORS[name].tlb
    assert spec.hw.processor == name


def test_names_are_those_of_the_machine(tmp_path: Path) -> None:
    assert get_args(Hardware.model_fields["processor"].annotation) == tuple(PROCESSORS)
    assert get_args(Hardware.model_fields["paging"].annotation) == PAGINGS
    assert tuple(int(text, 16) for text in PAGE_OFFSETS) == NODE_PAGE_OFFSETS


@pytest.mark.parametrize(
    ("text", "value"), [("on", True), ("off", False), ("true", True), ("'on'", True), ('"off"', False)]
)
def test_switches_are_on_and_off_however_yaml_reads_them(tmp_path: Path, text: str, value: bool) -> None:
    hw = machine_of(tmp_path, f"{{processor: icelake, pcid: {text}, pti: {text}}}").hw
    assert (hw.pcid, hw.pti) == (value, value)
    assert machine_of(tmp_path, f"{{pcid: off, global_pages: {text}}}").hw.global_pages == value


@pytest.mark.parametrize("text", ["0x80000000", "'0x80000000'", "2147483648"])
def test_page_offset_is_text_or_a_number(tmp_path: Path, text: str) -> None:
    hw = machine_of(tmp_path, f"{{paging: 32bit, page_offset: {text}}}").hw
    assert (hw.paging, hw.page_offset) == ("32bit", 0x8000_0000)
    settings = flat_settings(
        scenario_of(tmp_path, f"{{paging: 32bit, page_offset: {text}}}").model_dump(mode="json")
    )
    assert settings["machines.0.hw.page_offset"] == "0x80000000"


def test_every_part_of_the_tlb_reaches_the_machine(tmp_path: Path) -> None:
    text = """{
      processor: zen4,
      physical_bits: 50,
      tlb: {
        refill: software,
        data: {4K: {entries: 48, ways: 6, replacement: fifo}, 2M+1G: {entries: 20, ways: full, wired: 2}},
        instruction: {all: {entries: 24, ways: 3, replacement: random}},
        second: {1G: off, 4K+2M: {entries: 1000, ways: 10}},
      },
      walk_caches: off,
    }"""
    spec = machine_of(tmp_path, text)
    assert spec.tlb.refill == "software"
    assert spec.tlb.arrays == (
        TlbArraySpec(48, 6, "fifo"),
        TlbArraySpec(20, 20, wired=2),
        TlbArraySpec(24, 3, "random"),
        TlbArraySpec(1000, 10),
    )
    assert spec.tlb.roles == (0, 1, 1, 2, 2, 2, 3, 3, None)
    assert spec.hw.physical_bits == 50


def test_todays_short_keys_still_work(tmp_path: Path) -> None:
    spec = machine_of(tmp_path, "{tlb: {l1_entries: 48, l1_ways: 3, l2_entries: 1000, l2_ways: 10}}")
    assert spec.tlb.array(0) == TlbArraySpec(48, 3)
    assert spec.tlb.array(6) == spec.tlb.array(7) == TlbArraySpec(1000, 10)
    assert machine_of(tmp_path, "{}", "machines.0.hw.tlb.l1_entries=32").tlb.array(0) == TlbArraySpec(32, 4)


def test_a_whole_side_can_be_off(tmp_path: Path) -> None:
    spec = machine_of(tmp_path, "{tlb: {second: off, data: {1G: 'off'}}}")
    assert spec.tlb.roles == (0, 1, None, 2, 3, None, None, None, None)


def test_walk_caches_are_changed_one_by_one_or_off(tmp_path: Path) -> None:
    caches = machine_of(tmp_path, "{walk_caches: {pd: {entries: 8}, pml4: off}}").hw.walk_caches
    assert (caches.pd, caches.pml4) == (TlbArraySpec(8, 4), None)
    assert caches.pdpt == PROCESSORS["skylake"].walk_caches.pdpt
    hw = machine_of(tmp_path, "{paging: 5level, processor: icelake, walk_caches: off}").hw
    assert (hw.walk_caches.pd, hw.walk_caches.pml5, hw.walk_caches.ept_pd) == (None, None, None)


def test_the_data_cache_has_sets(tmp_path: Path) -> None:
    text = "{data_cache: {mode: virtual, size: 48KiB, ways: 12}}"
    assert machine_of(tmp_path, text).data_cache == DataCacheSpec("virtual", sets=64, ways=12, line_bytes=64)
    assert machine_of(tmp_path, "{data_cache: {mode: off}}").data_cache == DataCacheSpec()
    assert DataCache().sets == DataCacheSpec().sets


def test_eras_are_of_a_machine_or_of_all(tmp_path: Path) -> None:
    text = HEAD + (
        "era: lecture\n"
        "machines: [{name: old, memory: 64MiB}, {name: new, memory: 64MiB, era: 6.1}]\n"
        "hosts: [{name: h, memory: 64MiB, era: '6.1', guests: [{machine: {memory: 64MiB}}]}]\n"
    )
    (tmp_path / "lab.yaml").write_text(text)
    plan = make_plan(load_scenario(tmp_path / "lab.yaml"), tmp_path / "lab.yaml")
    eras = {spec["id"]: MachineSpec.from_dict(spec).hw.era for spec in plan.specs}
    assert eras == {"h": "6.1", "h.guest": "lecture", "old": "lecture", "new": "6.1"}


def test_hosts_and_guests_take_the_same_keys(tmp_path: Path) -> None:
    hw = {"processor": "zen3", "tlb": {"l1_entries": 32}}
    document = {
        "name": "lab",
        "duration": "1s",
        "hosts": [
            {
                "name": "h",
                "memory": "64MiB",
                "hw": hw,
                "guests": [{"machine": {"memory": "64MiB", "hw": {**hw, "paging": "5level"}}}],
            }
        ],
    }
    path = tmp_path / "lab.yaml"
    path.write_text(yaml.safe_dump(document))
    host, guest = (MachineSpec.from_dict(spec) for spec in make_plan(load_scenario(path), path).specs)
    assert host.tlb == guest.tlb
    assert (host.hw.paging, guest.hw.paging) == ("4level", "5level")
    document["hosts"][0]["guests"] = [{"image": "idle-a", "hw": hw}]  # type: ignore[index]
    path.write_text(yaml.safe_dump(document))
    with pytest.raises(InputError, match=r"hosts\.0\.guests\.0\.hw: unknown key"):
        load_scenario(path)


@pytest.mark.parametrize(
    ("hw", "message"),
    [
        (
            "{processor: zen9}",
            (
                "machines.0.hw.processor: \"zen9\" is not one of 'skylake', 'icelake', 'zen2', 'zen3', 'zen4',"
                " 'textbook' or 'r3000'"
            ),
        ),
        (
            "{paging: 3level}",
            "machines.0.hw.paging: \"3level\" is not one of 'none', '32bit', '4level' or '5level'",
        ),
        ("{pcid: maybe}", "machines.0.hw.pcid: 'maybe' is not on or off"),
        ("{pti: 1}", "machines.0.hw.pti: 1 is not on or off"),
        (
            "{paging: 32bit, page_offset: 0xA0000000}",
            (
                "machines.0.hw.page_offset: 0xa0000000 is not one of 0xC0000000, 0xB0000000, 0x80000000,"
                " 0x78000000, 0x40000000"
            ),
        ),
        (
            "{paging: 32bit, page_offset: high}",
            (
                "machines.0.hw.page_offset: 'high' is not one of 0xC0000000, 0xB0000000, 0x80000000,"
                " 0x78000000, 0x40000000"
            ),
        ),
        ("{physical_bits: 53}", "machines.0.hw.physical_bits: 53 is above the maximum of 52"),
        (
            "{tlb: {data: {4K: {ways: 0}}}}",
            "machines.0.hw.tlb.data.4K.ways: 0 is below the minimum of 1 (direct-mapped)",
        ),
        ("{tlb: {l2_ways: 0}}", "machines.0.hw.tlb.l2_ways: 0 is below the minimum of 1 (direct-mapped)"),
        ("{tlb: {l1_ways: 70000}}", "machines.0.hw.tlb.l1_ways: 70000 is above the maximum of 65536"),
        (
            "{tlb: {data: {4K: {ways: many}}}}",
            "machines.0.hw.tlb.data.4K.ways: 'many' is neither a number of ways nor \"full\"",
        ),
        ("{tlb: {l1_entries: 0}}", "machines.0.hw.tlb.l1_entries: 0 is below the minimum of 1"),
        (
            "{tlb: {data: {4K: {entries: 70000}}}}",
            "machines.0.hw.tlb.data.4K.entries: 70000 is above the maximum of 65536",
        ),
        (
            "{tlb: {data: {4K: {replacement: mru}}}}",
            "machines.0.hw.tlb.data.4K.replacement: \"mru\" is not one of 'lru', 'plru', 'fifo' or 'random'",
        ),
        ("{tlb: {data: {4K: 64}}}", "machines.0.hw.tlb.data.4K: 64 is not a mapping of keys"),
        ("{tlb: {data: 64}}", "machines.0.hw.tlb.data: 64 is not a mapping of keys"),
        (
            "{tlb: {data: {4K: {way: 4}}}}",
            "machines.0.hw.tlb.data.4K.way: unknown key (did you mean ways?)",
        ),
        ("{tlb: {l1_entries: 65}}", "machines.0: hw.tlb.data.4K: 65 entries is not a multiple of 4 ways"),
        (
            "{tlb: {second: {4K+2M: {replacement: plru}}}}",
            "machines.0: hw.tlb.second.4K.ways: plru needs a power of two up to 32, not 12",
        ),
        (
            "{tlb: {data: {16K: {entries: 4}}}}",
            "machines.0: hw.tlb.data.16K: '16K' is not one of 4K, 2M, 4M, 1G or all",
        ),
        (
            "{paging: 32bit, tlb: {data: {1G: {entries: 4}}}}",
            "machines.0: hw.tlb.data.1G: 32bit paging has no 1 GiB pages",
        ),
        (
            "{paging: 32bit, pcid: on}",
            "machines.0: hw.pcid: on needs 4level or 5level paging, not 32bit",
        ),
        ("{paging: none, pti: on}", "machines.0: hw.pti: on needs 4level or 5level paging, not none"),
        (
            "{page_offset: 0xC0000000}",
            "machines.0: hw.page_offset: only 32bit paging lets it be chosen, not 4level",
        ),
        (
            "{walk_caches: {pml5: {entries: 4}}}",
            "machines.0: hw.walk_caches.pml5: 4level paging has no entries of that level",
        ),
        (
            "{data_cache: {mode: fast}}",
            (
                "machines.0.hw.data_cache.mode: \"fast\" is not one of 'off', 'serial', 'overlapped',"
                " 'extra_stage' or 'virtual'"
            ),
        ),
        (
            "{data_cache: {mode: serial, size: 1000B}}",
            "machines.0.hw.data_cache: size: 1000 bytes is not a multiple of 8 ways of 64 bytes",
        ),
    ],
)
def test_wrong_hardware_is_refused_when_the_scenario_is_read(tmp_path: Path, hw: str, message: str) -> None:
    assert error_of(tmp_path, hw) == message


def test_an_unknown_era_is_refused(tmp_path: Path) -> None:
    (tmp_path / "lab.yaml").write_text(f"{HEAD}era: 5.4\nmachines: [{{name: m, memory: 64MiB}}]\n")
    with pytest.raises(InputError, match=r"era: \"5\.4\" is not one of '6\.1' or 'lecture'"):
        load_scenario(tmp_path / "lab.yaml")


def test_memory_must_fit_the_address(tmp_path: Path) -> None:
    message = "hosts.0: memory: 1 TiB is more than the 512 GiB that 39 physical address bits reach"
    text = f"{HEAD}hosts: [{{name: h, memory: 1TiB, hw: HW, guests: [{{image: idle-a}}]}}]\n"
    path = tmp_path / "lab.yaml"
    path.write_text(text.replace("HW", "{}"))
    with pytest.raises(InputError, match=message):
        load_scenario(path)
    path.write_text(text.replace("HW", "{physical_bits: 46}"))
    assert load_scenario(path).hosts[0].memory == 1 << 40


# --- the documentation ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "model", [Hardware, Tlb, TlbArray, WalkCaches, DataCache], ids=lambda one: one.__name__
)
def test_the_documentation_lists_every_key(model: Any) -> None:
    hardware = DOCUMENT[DOCUMENT.index("## Hardware") :]
    assert [key for key in model.model_fields if f"`{key}`" not in hardware] == []


def side_text(processor: Processor, first: int) -> str:
    """Write three roles as the table does."""
    tlb = processor.tlb
    roles = tlb.roles[first : first + NR_SIZES]
    parts = []
    for place in dict.fromkeys(roles):
        if place is None:
            parts += ["-"] * roles.count(None)
            continue
        array = tlb.arrays[place]
        sizes = [size for size, used in zip(PAGE_SIZES, roles, strict=True) if used == place]
        shape = f"{array.entries}/{'full' if array.ways == array.entries else array.ways}"
        parts.append(shape if len(sizes) == 1 else f"{'+'.join(sizes)} {shape}")
    return "none" if set(roles) == {None} else ", ".join(parts)


@pytest.mark.parametrize("processor", PROCESSORS.values(), ids=lambda processor: processor.name)
def test_the_documentation_shows_every_preset_as_it_is(processor: Processor) -> None:
    roles = processor.tlb.roles
    cells = [side_text(processor, first) for first in (0, NR_SIZES, 2 * NR_SIZES)]
    if roles[:NR_SIZES] == roles[NR_SIZES : 2 * NR_SIZES]:
        cells[1] = "the same"
    flags = ["yes" if flag else "no" for flag in (processor.features.pcid, processor.features.meltdown)]
    row = " | ".join([f"`{processor.name}`", *cells, str(processor.physical_bits), *flags])
    assert f"| {row} |" in DOCUMENT


def test_the_example_in_the_documentation_is_valid(tmp_path: Path) -> None:
    text = DOCUMENT[DOCUMENT.index("## Hardware") :].split("```")[1].removeprefix("yaml\n")
    (tmp_path / "lab.yaml").write_text(HEAD + text)
    plan = make_plan(load_scenario(tmp_path / "lab.yaml"), tmp_path / "lab.yaml")
    spec = MachineSpec.from_dict(plan.specs[0])
    assert spec.tlb.array(1) == spec.tlb.array(2) == TlbArraySpec(20, 20, "fifo")
