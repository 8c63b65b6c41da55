import json
from pathlib import Path
from typing import Any

import pytest

from cluster.config import Scenario
from cluster.errors import InputError
from cluster.scenario_file import load_scenario, schema_text, set_key
from tests.cluster.fleets import document, write_scenario

ROOT = Path(__file__).resolve().parent.parent.parent
SCENARIOS = sorted((ROOT / "scenarios").glob("*.yaml"))

FULL = """
name: full
duration: 2min
epoch: 50ms
checkpoint_every: 1s
hosts:
  - name: host0
    memory: 1.75GiB
    vm: {swappiness: 100, min_free_kbytes: 8192}
    ksm: {model: 6.18, pages_to_scan: 1000, smart_scan: 1}
    swap: {size: 2GiB, device: {latency: 100us, bandwidth: 500MB/s, queue_depth: 4}}
    guests:
      - {image: idle-a, count: 2, start_offset: 5s, presence: nonzero}
      - machine:
          memory: 256MiB
          cpus: 2
          processes:
            - {workload: zipf, memory: 64MiB, operations: 1M, skew: 1.25, cpu: 1}
            - {program: programs/one.txt}
machines:
  - {name: m0, memory: 512MiB, hw: {tlb: {l1_entries: 64}, cost: {walk: 30}, clock_ghz: "2.5"}}
"""


def load_text(folder: Path, text: str, *settings: str) -> Scenario:
    path = folder / "lab.yaml"
    path.write_text(text)
    return load_scenario(path, settings)


def error_of(folder: Path, text: str, *settings: str) -> str:
    with pytest.raises(InputError) as caught:
        load_text(folder, text, *settings)
    message = str(caught.value)
    assert "\n" not in message
    return message.replace(f"{folder}/", "")


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_every_scenario_of_the_project_is_valid(path: Path) -> None:
    assert load_scenario(path).name == path.stem


def test_sizes_times_and_counts_become_integers(tmp_path: Path) -> None:
    scenario = load_text(tmp_path, FULL)
    assert (scenario.duration, scenario.epoch) == (120 * 10**9, 50 * 10**6)
    host = scenario.hosts[0]
    assert host.memory == 1792 << 20
    assert host.ksm.model == "6.18"
    assert host.swap.device.model_dump() == {"latency": 100_000, "bandwidth": 500_000_000, "queue_depth": 4}
    assert host.guests[1].machine.processes[0].operations == 10**6
    assert host.guests[1].machine.processes[0].skew == 1250
    assert scenario.machines[0].hw.clock_ghz == 2500


def test_set_reaches_lists_and_makes_absent_mappings(tmp_path: Path) -> None:
    settings = (
        "hosts.0.ksm.pages_to_scan=77",
        "machines.0.swap.size=1GiB",
        "hosts.0.swap.device=hdd",
        "seed=9",
    )
    scenario = load_text(tmp_path, FULL, *settings)
    assert scenario.hosts[0].ksm.pages_to_scan == 77
    assert scenario.hosts[0].swap.device == "hdd"
    assert scenario.machines[0].swap.size == 1 << 30
    assert scenario.seed == 9


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("hosts.0.ksm.pages_to_scn=5", "hosts.0.ksm.pages_to_scn: unknown key (did you mean pages_to_scan?)"),
        ("colour=red", "colour: unknown key"),
        ("hosts.0.memory=512", "hosts.0.memory: 512 has no unit: write it as 512MiB"),
        (
            "hosts.0.memory=512MB",
            "hosts.0.memory: '512MB' is not a size such as 512MiB (units: B, KiB, MiB, GiB, TiB)",
        ),
        ("hosts.0.memory=2KiB", 'hosts.0.memory: "2KiB" is below the minimum of 4 KiB'),
        (
            "hosts.0.memory=20000001B",
            "hosts.0.memory: 20000001 bytes is not a whole number of 4096-byte pages",
        ),
        ("epoch=1us", 'epoch: "1us" is below the minimum of 1 ms'),
        ("hosts.0.cpus=two", 'hosts.0.cpus: "two" is not a whole number'),
        ("hosts.0.cpus=true", "hosts.0.cpus: true is not a whole number"),
        ("hosts.0.vm.swappiness=201", "hosts.0.vm.swappiness: 201 is above the maximum of 200"),
        ("hosts.0.swap.device=tape", "hosts.0.swap.device: \"tape\" is not one of 'hdd', 'ssd' or 'nvme'"),
        ("hosts.0.swap.device.latency=5", "hosts.0.swap.device.latency: 5 has no unit: write it as 20ms"),
        ("hosts.0.guests.1.machine.cpus=0", "hosts.0.guests.1.machine.cpus: 0 is below the minimum of 1"),
        (
            "hosts.0.guests.1.machine.processes.0.skew=1.00001",
            "hosts.0.guests.1.machine.processes.0.skew: 1.00001 is finer than 1/1000",
        ),
        (
            "hosts.0.guests.0.replay=often",
            "hosts.0.guests.0.replay: \"often\" is not one of 'rate' or 'once'",
        ),
        ("hosts.0.guests=[]", "hosts.0.guests: 0 entries are fewer than the minimum of 1"),
        ("hosts.0.ksm=3", "hosts.0.ksm: 3 is not a mapping of keys"),
        ("hosts.0.vm.pageable_tables=1", "hosts.0.vm.pageable_tables: 1 is not true or false"),
        ("hosts.7.cpus=1", "hosts.7: no such entry, the list has 1 (counted from 0)"),
        ("hosts.first.cpus=1", "hosts.first: no such entry, the list has 1 (counted from 0)"),
        ("hosts.0.name.x=1", "hosts.0.name is text, it has no keys"),
        ("duration", "write it as dotted.key=value"),
        ("name=[", "line 1: expected the node content, but found '<stream end>'"),
        ("name=a/b", "name: \"a/b\" is not a name: letters, digits, '.', '_' and '-', 63 at most"),
    ],
)
def test_a_wrong_setting_is_named_with_its_value_and_limit(
    tmp_path: Path, setting: str, expected: str
) -> None:
    assert error_of(tmp_path, FULL, setting) == f"--set {setting}: {expected}"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (("smart_scan: 1", "smart_scan: 1, run: 3"), "hosts.0.ksm.run: 3 is above the maximum of 2"),
        (
            ("model: 6.18", "model: 6.1"),
            'hosts.0.ksm: smart_scan: 1 needs model: "6.18" (Linux 6.1 has no smart_scan)',
        ),
        (("cpu: 1}", "cpu: 2}"), "hosts.0.guests.1.machine: processes.0.cpu: 2, but there are 2 CPUs"),
        (("{name: m0", "{name: host0"), "name: 'host0' stands for more than one host or machine"),
        (
            ("checkpoint_every: 1s", "checkpoint_every: 75ms"),
            "checkpoint_every: 75 ms is not a multiple of the epoch, 50 ms",
        ),
        (("name: full\n", ""), "name: missing key"),
        (("name: full\n", "name: full\nname: again\n"), "line 2: key 'name' is given twice"),
        (("name: full", "name: [full"), "line 3: expected ',' or ']', but got ':'"),
    ],
)
def test_a_wrong_file_is_named_with_key_and_reason(
    tmp_path: Path, change: tuple[str, str], expected: str
) -> None:
    assert change[0] in FULL
    assert error_of(tmp_path, FULL.replace(*change)) == f"lab.yaml: {expected}"


def test_several_mistakes_are_counted(tmp_path: Path) -> None:
    text = FULL.replace("swappiness: 100", "swappiness: -1").replace("512MiB", "1KiB")
    assert error_of(tmp_path, text).endswith(
        "hosts.0.vm.swappiness: -1 is below the minimum of 0 (and 1 more)"
    )


@pytest.mark.parametrize("text", ["", "just text", "- 1\n- 2\n"])
def test_a_file_that_is_no_mapping_is_refused(tmp_path: Path, text: str) -> None:
    assert "a scenario is a mapping of keys" in error_of(tmp_path, text)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"absent\.yaml: No such file or directory"):
        load_scenario(tmp_path / "absent.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match=r"binary\.yaml: not UTF-8 text"):
        load_scenario(tmp_path / "binary.yaml")
    (tmp_path / "big.yaml").write_bytes(b"#" * (2 << 20))
    with pytest.raises(InputError, match="2097152 bytes is above the limit of 1048576"):
        load_scenario(tmp_path / "big.yaml")


def test_yaml_cannot_make_objects(tmp_path: Path) -> None:
    assert "could not determine a constructor" in error_of(
        tmp_path, "name: !!python/object/apply:os.getcwd []\n"
    )


def test_set_changes_one_place_although_yaml_shares_it(tmp_path: Path) -> None:
    text = "name: lab\nduration: 1s\nmachines:\n  - &m {name: a, memory: 64MiB}\n"
    text += "  - {<<: *m, name: b, vm: &v {}}\n  - {<<: *m, name: c, vm: *v}\n"
    machines = load_text(tmp_path, text, "machines.1.vm.swappiness=1").machines
    assert [machine.vm.swappiness for machine in machines] == [60, 1, 60]


def test_aliases_cannot_fill_the_memory(tmp_path: Path) -> None:
    laughs = "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 12))
    assert "more than 1000000 values" in error_of(tmp_path, "a0: &a0 [1]\n" + laughs)
    assert "not YAML" in error_of(tmp_path, "a: &a [*a]\n")


def test_set_key_returns_the_path_that_it_set() -> None:
    target: dict[str, Any] = {"a": [{"b": 1}]}
    assert set_key(target, "a.0.b=[1, x]") == "a.0.b"
    assert target == {"a": [{"b": [1, "x"]}]}


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (
            ("machines.0.swap.size=1GiB",),
            "machines.0: vm.pageable_tables: true needs hw.paging 32bit, not 4level",
        ),
        (
            ("machines.0.hw.paging=32bit",),
            "machines.0: vm.pageable_tables: true needs swap, and there is none",
        ),
        (
            ("machines.0.hw.paging=32bit", "machines.0.swap.size=40GiB"),
            "machines.0: vm.pageable_tables: true reaches 32 GiB of swap, not 40 GiB",
        ),
    ],
)
def test_a_machine_that_cannot_swap_page_tables_is_refused(
    tmp_path: Path, settings: tuple[str, ...], expected: str
) -> None:
    asked = ("machines.0.vm.pageable_tables=true", *settings)
    assert error_of(tmp_path, FULL, *asked) == f"lab.yaml: {expected}"


def test_a_host_that_would_swap_page_tables_is_refused(tmp_path: Path) -> None:
    asked = ("hosts.0.vm.pageable_tables=true", "hosts.0.hw.paging=32bit")
    expected = (
        "hosts.0: vm.pageable_tables: true is not for hosts, which keep the tables of their guests' memory"
    )
    assert error_of(tmp_path, FULL, *asked) == f"lab.yaml: {expected}"


def test_the_committed_schema_is_up_to_date() -> None:
    # pagefleet validate --schema > scenarios/schema.json
    assert (ROOT / "scenarios" / "schema.json").read_text() == schema_text()


def test_the_schema_accepts_what_the_models_accept(tmp_path: Path) -> None:
    schema = json.loads(schema_text())
    assert schema["additionalProperties"] is False
    assert set(schema["required"]) == {"name", "duration"}
    scenario = load_scenario(write_scenario(tmp_path, document()))
    assert set(scenario.model_dump()) == set(schema["properties"])
