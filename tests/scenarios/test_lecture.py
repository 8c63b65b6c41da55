"""Every scenario of the lecture runs, and shows what it is there to show."""

from pathlib import Path
from typing import Any

import pytest

from cluster.run import RunRequest, run_scenario

pytestmark = pytest.mark.slow  # two seconds each

ROOT = Path(__file__).resolve().parents[2]
LECTURE = ROOT / "scenarios" / "lecture"

Machines = dict[str, dict[str, Any]]


def run(name: str, folder: Path) -> Machines:
    """Run a scenario in this process; return the counters of its machines at the end."""
    request = RunRequest(
        scenario=LECTURE / f"{name}.yaml",
        settings=(),
        seed=None,
        out=folder / "run",
        executor="inline",
        address=None,
        resume=False,
        report=False,
    )
    return {machine["name"]: machine for machine in run_scenario(request).summary["machines"]}


def test_01_a_walk_reads_one_entry_a_level(tmp_path: Path) -> None:
    machines = run("01-translation", tmp_path)
    per_walk = {
        name: machine["walk_references"] / machine["tlb_walk"]
        for name, machine in machines.items()
        if machine["tlb_walk"]
    }
    assert per_walk == pytest.approx({"32bit": 2, "4level": 4, "5level": 5}, abs=0.01)
    assert machines["none"]["pgfault"] == machines["none"]["tlb_walk"] == 0
    assert {machines[name]["pgfault"] for name in per_walk} == {1024}
    assert len({machines[name]["tlb_walk"] for name in per_walk}) == 1


def test_02_a_loop_larger_than_the_tlb_always_misses_under_lru(tmp_path: Path) -> None:
    machines = run("02-tlb", tmp_path)
    walks = {name: machine["tlb_walk"] + machine["itlb_walk"] for name, machine in machines.items()}
    assert walks["textbook"] >= machines["textbook"]["memory_access"]
    assert walks["textbook"] > 2 * walks["random"]
    assert walks["random"] > 100 * walks["larger"]
    assert walks["larger"] == walks["direct"] == walks["skylake"]
    assert machines["skylake"]["tlb_l2_hit"] > machines["skylake"]["tlb_l1_hit"]
    assert walks["cc1-direct"] > 2 * walks["cc1"]


def test_03_isolation_writes_cr3_and_pcids_keep_what_that_would_drop(tmp_path: Path) -> None:
    machines = run("03-kpti", tmp_path)
    calls = machines["isolated"]["syscall"]
    assert {machine["syscall"] for machine in machines.values()} == {200_000}
    for name in ("isolated", "isolated-pcid"):
        assert machines[name]["cr3_write"] >= 2 * calls
        assert machines[name.replace("isolated", "open")]["cr3_write"] < calls // 1000
    assert machines["isolated"]["cr3_flush"] == machines["isolated"]["cr3_write"]
    assert machines["isolated-pcid"]["cr3_flush"] < 10
    walks = {name: machine["tlb_walk"] + machine["itlb_walk"] for name, machine in machines.items()}
    assert walks["isolated"] > 2 * calls
    assert walks["open-pcid"] < walks["isolated-pcid"] < walks["open"] < walks["isolated"]
    times = [machines[name]["run_ns"] for name in ("open-pcid", "isolated-pcid", "isolated")]
    assert times == sorted(set(times))


def test_04_huge_pages_need_few_walks_and_much_memory(tmp_path: Path) -> None:
    machines = run("04-huge-pages", tmp_path)
    walks = {name: machine["tlb_walk"] + machine["itlb_walk"] for name, machine in machines.items()}
    assert walks["small"] > 1000 * walks["huge"]
    assert walks["small"] > 10 * walks["small-skylake"] > 100 * walks["huge-skylake"]
    assert machines["huge"]["pgfault"] == 0 < machines["small"]["pgfault"]
    assert machines["huge"]["nr_free_pages"] < 0.6 * machines["small"]["nr_free_pages"]


def test_05_software_refills_trap_at_every_miss(tmp_path: Path) -> None:
    machines = run("05-software-refill", tmp_path)
    walks = {name: machine["tlb_walk"] + machine["itlb_walk"] for name, machine in machines.items()}
    assert machines["r3000"]["refill_trap"] == walks["r3000"] == walks["hardware"]
    assert machines["hardware"]["refill_trap"] == 0
    assert machines["hardware"]["run_ns"] < machines["r3000"]["run_ns"] < machines["lru"]["run_ns"]
    assert walks["lru"] > 2 * walks["r3000"]


def test_06_only_a_cpu_that_runs_the_address_space_is_interrupted(tmp_path: Path) -> None:
    machines = run("06-shootdown", tmp_path)
    interrupts = {name: machine["nr_tlb_remote_flush_received"] for name, machine in machines.items()}
    assert interrupts["running"] > machines["running"]["pswpout"] // 2
    assert interrupts["here"] == interrupts["idle"] == 0
    assert interrupts["switched"] < 10
    assert all(machine["pswpout"] > 2000 for machine in machines.values())
    # The idle CPU has the tables loaded, so the flushes looked there.
    assert machines["idle"]["nr_tlb_remote_flush"] > 1000 > machines["here"]["nr_tlb_remote_flush"]


def test_07_a_virtual_cache_translates_nothing_but_its_misses(tmp_path: Path) -> None:
    machines = run("07-caches", tmp_path)
    times = {name: machine["run_ns"] for name, machine in machines.items()}
    assert times["virtual"] < times["overlapped"] < times["serial"] == times["extra-stage"]
    assert machines["virtual"]["tlb_walk"] < 100 < machines["overlapped"]["tlb_walk"] // 1000
    assert {
        name: machine["dcache_synonym"] for name, machine in machines.items() if machine["dcache_synonym"]
    } == {"synonyms": 7}


def test_every_scenario_of_the_lecture_is_explained_and_tested() -> None:
    names = [path.stem for path in sorted(LECTURE.glob("*.yaml"))]
    assert len(names) == 7
    page = (ROOT / "docs" / "lecture.md").read_text()
    tests = Path(__file__).read_text()
    for name in names:
        assert f"scenarios/lecture/{name}.yaml" in page
        assert f'run("{name}", tmp_path)' in tests
