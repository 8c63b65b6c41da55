"""Every scenario of the lecture runs, and shows what it is there to show."""

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
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


def test_08_zones_are_filled_from_the_highest_down_and_keep_a_reserve(tmp_path: Path) -> None:
    machines = run("08-zones", tmp_path)
    pc, greedy, high = machines["pc"], machines["greedy"], machines["high"]
    managed_dma = 3840
    reserve = pc["managed_pages"] // 256 - managed_dma // 256
    assert managed_dma - pc["pgalloc_dma"] >= reserve > managed_dma - greedy["pgalloc_dma"]
    assert (pc["oom_kill"], greedy["oom_kill"]) == (1, 0)
    # HIGHMEM goes to the program, NORMAL to its page tables and to what HIGHMEM has not.
    assert high["pgalloc_high"] > high["pgalloc_normal"] > 0 == high["pgalloc_dma"]
    movable = machines["movable"]
    assert movable["pgalloc_movable"] > movable["pgalloc_dma32"] > movable["pgalloc_dma"] > 0
    assert {name for name, machine in machines.items() if machine["numa_miss"]} == {"numa"}


def test_09_blocks_are_split_and_merge_again(tmp_path: Path) -> None:
    run("09-buddy", tmp_path)
    proc = pq.read_table(tmp_path / "run" / "proc.parquet").to_pylist()
    texts = [row["text"] for row in proc if row["file"] == "/proc/buddyinfo"]
    free = [tuple(map(int, text.splitlines()[1].split()[8:])) for text in texts]
    assert free == [
        (2, 2, 2, 1, 1, 3, 14),
        (1, 2, 2, 1, 1, 3, 14),
        (2, 1, 2, 1, 1, 3, 14),
        (3, 1, 2, 1, 1, 3, 14),
        (2, 2, 2, 1, 1, 3, 14),
        (1, 1, 1, 0, 0, 2, 15),
    ]


def test_10_long_lists_seldom_need_the_zone(tmp_path: Path) -> None:
    machines = run("10-per-cpu-lists", tmp_path)
    blocks = {name: machine["mm_page_alloc_zone_locked"] for name, machine in machines.items()}
    given_back = {name: machine["mm_page_pcpu_drain"] for name, machine in machines.items()}
    assert blocks["long"] < blocks["two"] < blocks["short"]
    assert given_back["long"] == 0 < given_back["two"] < given_back["short"]
    assert machines["short"]["pcp_pages"] < machines["long"]["pcp_pages"] < machines["two"]["pcp_pages"]
    assert machines["long"]["pgalloc_dma32"] == machines["short"]["pgalloc_dma32"] > 10 * blocks["long"]


def test_13_vmalloc_needs_no_block(tmp_path: Path) -> None:
    machines = run("13-vmalloc", tmp_path)
    assert machines["kmalloc"]["nr_free_pages"] > 6000  # half of the memory
    assert (machines["kmalloc"]["alloc_failures"], machines["vmalloc"]["alloc_failures"]) == (32, 0)
    assert machines["kmalloc"]["compact_stall"] > 0 == machines["kmalloc"]["compact_success"]


def test_12_three_allocators_serve_the_same_trace_by_other_ways(tmp_path: Path) -> None:
    machines = run("12-allocators", tmp_path)
    counts = {(machine["alloc_count"], machine["alloc_free_count"]) for machine in machines.values()}
    assert [sum(pair) for pair in counts] == [400_000]
    assert {machine["alloc_failures"] for machine in machines.values()} == {0}
    held = {name: machine["alloc_held_bytes"] for name, machine in machines.items()}
    assert held["slob"] < min(held["slub"], held["slab"])
    each = {
        name: machine["alloc_cycles"] + machine["alloc_free_cycles"] for name, machine in machines.items()
    }
    assert max(each["slub"], each["slab"]) < each["slob"]
    # SLUB alone does most of its work without a lock, and with interrupts on.
    lockless = {
        name: machine["alloc_lockless"] + machine["free_lockless"] for name, machine in machines.items()
    }
    assert lockless.pop("slub") > 200_000
    assert set(lockless.values()) == {0}
    assert machines["slab"]["alloc_path_fast"] > 0.99 * machines["slab"]["alloc_count"]
    assert machines["slob"]["alloc_path_fast"] == machines["slob"]["free_path_fast"] == 0


def test_14_what_a_transfer_costs_the_cpu_depends_on_how_the_bus_is_shared(tmp_path: Path) -> None:
    machines = run("14-dma", tmp_path)
    burst, stealing, transparent = (machines[name] for name in ("burst", "stealing", "transparent"))
    assert {machine["dma_bytes"] for machine in machines.values()} == {20 * 64 * 1024}
    # The sooner the transfer is over, the longer the CPU stands still at once.
    assert burst["dma_bus_cycles"] < stealing["dma_bus_cycles"] < transparent["dma_bus_cycles"]
    assert burst["dma_longest_stop"] > 10_000 * stealing["dma_longest_stop"] > 0
    assert transparent["dma_longest_stop"] == transparent["dma_stolen_cycles"] == 0
    assert stealing["dma_stolen_cycles"] > burst["dma_stolen_cycles"] == burst["dma_bus_cycles"]
    assert burst["stall_ns"] == 0 < stealing["stall_ns"] < transparent["stall_ns"]
    # Out of reach, everything is copied into reach and back, unless the buffer was made there.
    bounced = {name: machine["dma_bounced_bytes"] for name, machine in machines.items()}
    assert bounced.pop("isa") == 2 * 20 * 64 * 1024
    assert set(bounced.values()) == {0}
    # Memory to memory: each word twice, but one grant of the bus for both.
    assert machines["memory"]["dma_bus_cycles"] == 2 * burst["dma_bus_cycles"] - 20 * 4


def test_every_scenario_of_the_lecture_is_explained_and_tested() -> None:
    names = [path.stem for path in sorted(LECTURE.glob("*.yaml"))]
    assert len(names) >= 12
    page = (ROOT / "docs" / "lecture.md").read_text()
    tests = Path(__file__).read_text()
    for name in names:
        assert f"scenarios/lecture/{name}.yaml" in page
        assert f'run("{name}", tmp_path)' in tests
