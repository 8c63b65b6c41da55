from pathlib import Path

import numpy as np
import pytest

from cluster.errors import InputError
from cluster.plan import DATA, TRACES, Plan, make_plan, real_bytes_needed
from cluster.scenario_file import load_scenario
from tests.cluster.fleets import document, plan_of


def plan_text(folder: Path, text: str) -> Plan:
    path = folder / "lab.yaml"
    path.write_text(text)
    return make_plan(load_scenario(path), path)


HOST = "name: lab\nduration: 1s\nhosts:\n  - name: h\n    memory: 64MiB\n    guests:\n"


def test_members_are_numbered_in_the_order_of_the_file_and_packed(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, document(nr_guests=3, packed=2))
    names = [spec["id"] for spec in plan.specs]
    assert names == ["h", "h.guest-0", "h.guest-1", "h.guest-2", "m-0", "m-1", "m-2", "early-0", "early-1"]
    assert [spec["machine"] for spec in plan.specs] == list(range(9))
    assert [(cell.runners, cell.host) for cell in plan.cells] == [
        (((1, 2), (3,)), 0),
        (((4, 5),), None),
        (((6,),), None),
        (((7, 8),), None),
    ]
    assert plan.nr_guests == 8


def test_packing_does_not_show_in_the_specs(tmp_path: Path) -> None:
    assert plan_of(tmp_path, document(packed=1)).specs == plan_of(tmp_path, document(packed=4)).specs


def test_clones_of_an_image_have_variants_and_the_first_is_the_recording(tmp_path: Path) -> None:
    entries = "      - {image: idle-a, count: 3}\n      - {image: idle-a, count: 1, variant_seed: 5}\n"
    specs = plan_text(tmp_path, HOST + entries).specs
    assert [spec["id"] for spec in specs] == ["h", "h.idle-a-0", "h.idle-a-1", "h.idle-a-2", "h.idle-a"]
    variants = [spec["variant"] for spec in specs[1:]]
    assert variants[0] == 0
    assert len(set(variants)) == 4
    assert all(0 <= variant < 1 << 63 for variant in variants)
    assert {spec["memory_bytes"] for spec in specs[1:]} == {256 << 20}
    assert specs[0]["guests"] == list(specs[1:])
    assert specs[1]["image"] == str(DATA / "idle-a.npz")


def test_a_scenarios_own_image_comes_before_the_projects(tmp_path: Path) -> None:
    (tmp_path / "idle-a.npz").write_bytes((DATA / "idle-b.npz").read_bytes())
    specs = plan_text(tmp_path, HOST + "      - {image: idle-a}\n").specs
    assert specs[1]["image"] == str(tmp_path / "idle-a.npz")


def test_programs_travel_as_text(tmp_path: Path) -> None:
    (tmp_path / "one.txt").write_text("spawn A\n")
    specs = plan_text(
        tmp_path,
        "name: lab\nduration: 1s\nmachines: [{name: m, memory: 64MiB, processes: [{program: one.txt}]}]\n",
    ).specs
    assert specs[0]["processes"] == [{"program": "one.txt", "text": "spawn A\n"}]


def test_a_program_that_is_wrong_is_refused_before_anything_is_built(tmp_path: Path) -> None:
    (tmp_path / "one.txt").write_text("spawn A\nA: read h\n")
    with pytest.raises(
        InputError, match=r"machines.0.processes.0.program: .*one.txt: line 2: A has no mapping h$"
    ):
        plan_text(tmp_path, MACHINE + "      - {program: one.txt}\n")


def test_settings_reach_the_spec_in_plain_units(tmp_path: Path) -> None:
    text = """
name: lab
duration: 1s
seed: 7
machines:
  - name: m
    memory: 64MiB
    swap: {size: 8MiB, device: {latency: 1ms, bandwidth: 2MB/s}}
    hw: {tlb: {l1_entries: 32}, cost: {walk: 5}, clock_ghz: 2.5}
    processes: [{workload: zipf, memory: 4MiB, operations: 2k, skew: "0.8"}]
"""
    spec = plan_text(tmp_path, text).specs[0]
    assert spec["seed"] == 7
    device = {"latency_ns": 10**6, "bandwidth_bytes_per_s": 2 * 10**6, "queue_depth": 1}
    assert spec["swap"] == {"size_bytes": 8 << 20, "device": device}
    assert spec["hw"] == {"tlb": {"l1_entries": 32}, "cost": {"walk": 5}, "clock_mhz": 2500}
    assert spec["processes"][0]["skew_thousandths"] == 800
    assert spec["processes"][0]["operations"] == 2000


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ("{image: nobody}", "hosts.0.guests.0.image: 'nobody': no nobody.npz in"),
        (
            "{image: idle-a, name: g}\n      - {image: idle-a, name: g}\n      - {image: idle-b, name: g-0}",
            None,
        ),
        (
            "{machine: {memory: 16MiB, processes: [{program: gone.txt}]}}",
            "hosts.0.guests.0.machine.processes.0.program:",
        ),
    ],
)
def test_what_the_scenario_names_must_exist(tmp_path: Path, entry: str, expected: str | None) -> None:
    if expected is None:
        assert len({spec["id"] for spec in plan_text(tmp_path, f"{HOST}      - {entry}\n").specs}) == 4
        return
    with pytest.raises(InputError, match=expected):
        plan_text(tmp_path, f"{HOST}      - {entry}\n")


def test_a_truncated_image_is_refused(tmp_path: Path) -> None:
    (tmp_path / "cut.npz").write_bytes((DATA / "idle-a.npz").read_bytes()[:100_000])
    with pytest.raises(InputError, match=r"hosts.0.guests.0.image: .*cut.npz: not a whole .npz file"):
        plan_text(tmp_path, HOST + "      - {image: cut}\n")


def test_real_memory_grows_with_frames_and_mergeable_pages(tmp_path: Path) -> None:
    specs = HOST + "      - {machine: {memory: 64MiB}}\n"
    frames = (64 << 20) // 4096
    assert real_bytes_needed(plan_text(tmp_path, specs)) == 2 * (100 << 20) + 2 * 80 * frames + 64 * frames


MACHINE = "name: lab\nduration: 1s\nmachines:\n  - name: m\n    memory: 64MiB\n    processes:\n"


def test_traces_are_found_and_their_runs_counted_once(tmp_path: Path) -> None:
    entries = """\
      - {trace: sqlite3}
      - {trace: sqlite3, loops: 5}
      - {trace: sqlite3, window: both, huge_pages: 2M}
      - {trace: sort.npz, window: 0, loops: 1k}
"""
    plan = plan_text(tmp_path, MACHINE + entries)
    spec = plan.specs[0]
    sqlite3 = {"trace": str(TRACES / "sqlite3.npz"), "loops": 1, "cpu": 0, "huge_pages": "none"}
    assert spec["processes"] == [
        sqlite3 | {"windows": [1]},
        sqlite3 | {"windows": [1], "loops": 5},
        sqlite3 | {"windows": [0, 1], "huge_pages": "2M"},
        sqlite3 | {"trace": str(TRACES / "sort.npz"), "windows": [0], "loops": 1000},
    ]
    assert spec["trace_bytes"] == 8 * (1926847 + (525090 + 1926847) + 413509)
    assert real_bytes_needed(plan) == (100 << 20) + 80 * ((64 << 20) // 4096) + spec["trace_bytes"]


def test_a_scenarios_own_trace_comes_before_the_projects(tmp_path: Path) -> None:
    (tmp_path / "sort.npz").write_bytes((TRACES / "sqlite3.npz").read_bytes())
    spec = plan_text(tmp_path, MACHINE + "      - {trace: sort}\n").specs[0]
    assert spec["processes"][0]["trace"] == str(tmp_path / "sort.npz")


def test_a_trace_that_is_missing_or_damaged_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"machines.0.processes.1.trace: 'gone': no gone.npz in .* or .*traces$"
    ):
        plan_text(tmp_path, MACHINE + "      - {trace: sort}\n      - {trace: gone}\n")
    (tmp_path / "cut.npz").write_bytes((TRACES / "sort.npz").read_bytes()[:50_000])
    with pytest.raises(InputError, match=r"machines.0.processes.0.trace: .*cut.npz: not a whole .npz file"):
        plan_text(tmp_path, MACHINE + "      - {trace: cut}\n")
    with np.load(TRACES / "sort.npz", allow_pickle=False) as columns:
        np.savez_compressed(
            tmp_path / "less.npz", **{name: columns[name] for name in columns if name != "w1_kind"}
        )
    with pytest.raises(
        InputError, match=r"machines.0.processes.0.trace: .*less.npz: column w1_kind is missing$"
    ):
        plan_text(tmp_path, MACHINE + "      - {trace: less.npz}\n")


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ("{trace: sort, window: 2}", "processes.0.window: 2 is not one of 0, 1 or 'both'"),
        ("{trace: sort, huge_pages: 4k}", "processes.0.huge_pages: \"4k\" is not one of 'none' or '2M'"),
        ("{trace: sort, cpu: 1}", "processes.0.cpu: 1, but there are 1 CPUs"),
        ("{trace: sort, loops: -1}", "processes.0.loops: -1 is below the minimum of 0"),
        ("{trace: sort, memory: 1MiB}", "processes.0.memory: unknown key"),
    ],
)
def test_a_traces_settings_have_limits(tmp_path: Path, entry: str, expected: str) -> None:
    with pytest.raises(InputError) as caught:
        plan_text(tmp_path, f"{MACHINE}      - {entry}\n")
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)
