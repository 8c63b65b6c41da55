"""Every scenario of the lecture runs, and shows what it is there to show."""

from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from cluster.explain_faults import explain_faults, lines_of
from cluster.run import RunRequest, run_scenario
from shared.constants import MIB

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


def metrics(folder: Path) -> dict[str, Counter[str]]:
    """Return all counters of the run's machines at its end."""
    rows = sorted(
        pq.read_table(folder / "run" / "metrics.parquet").to_pylist(), key=lambda row: row["time_ns"]
    )
    found: dict[str, Counter[str]] = {}
    for row in rows:
        found.setdefault(row["machine"], Counter())[row["counter"]] = row["value"]
    return found


def of_each(machines: Machines, *names: str) -> dict[str, tuple[int, ...]]:
    return {machine: tuple(counters[name] for name in names) for machine, counters in machines.items()}


def test_15_a_heap_has_a_frame_for_each_page_written_and_a_fault_for_each_first_touch(tmp_path: Path) -> None:
    machines = run("15-heap", tmp_path)
    pages = 64 * MIB // 4096
    # A table has 512 entries of the last level; one more table has the 64 MiB's entries of the level above.
    tables = pages // 512 + 1
    left = pages // 4  # 48 of 64 MiB are given back
    assert of_each(machines, "nr_committed", "pgfault", "nr_anon_pages", "nr_page_table_pages") == {
        "grown": (pages, 0, 0, 0),
        "read": (pages, pages, 0, tables),
        "written": (pages, pages, pages, tables),
        "read-written": (pages, 2 * pages, pages, tables),
        "shrunk": (left, pages, left, left // 512 + 1),
    }
    ends = metrics(tmp_path)
    assert ends["read"]["fault.anon_zero_page"] == ends["read-written"]["fault.wp_copied_zero"] == pages


def test_16_the_first_to_write_after_a_fork_copies_and_the_last_keeps(tmp_path: Path) -> None:
    machines = run("16-fork-cow", tmp_path)
    pages = 32 * MIB // 4096
    # The mapping ends a page below a border of 2 MiB, so it needs one table more than 32 MiB do, and one above.
    tables = pages // 512 + 1 + 1
    assert of_each(
        machines, "pgfault", "nr_anon_pages", "fault.wp_copied", "pgreuse", "nr_page_table_pages"
    ) == {
        "forked": (pages, pages, 0, 0, 2 * tables),
        "reads": (pages, pages, 0, 0, 2 * tables),
        "writes": (pages + pages // 2, pages + pages // 2, pages // 2, 0, 2 * tables),
        "both": (3 * pages, 2 * pages, pages, pages, 2 * tables),
        "exits": (2 * pages, pages, 0, pages, tables),
    }


def test_17_faults_end_as_the_program_has_them_end(tmp_path: Path) -> None:
    run("17-fault-tree", tmp_path)
    end = metrics(tmp_path)["box"]
    old, stack, locked = 512, 256 // 4, 24 * MIB // 4096
    by_hand = {
        "anon_zero_page": 8,
        "anon_new_page": old + 8 + stack + 8 + 4 + locked,  # old, a, the stack, c, k, f
        "wp_copied_zero": 4 + 1,  # a; h, whose huge page of zeroes was split
        "bad_area": 1,
        "bad_access": 2,
        "kernel_fixup": 1,
        "file_around": 256 // 16 + 1 + 1,  # r; what p has not written yet; w
        "file_copied": 4,
        "wp_copied_file": 2,
        "wp_shared": 4,
        "file_written": 2 + 4,  # v, s
        "file_read": 4,  # of s: there are no pages around to map
        "wp_copied": 4 + 1,  # B's of c; C's of h, whose entry was split for it
        "wp_reused": 4 + 4,  # c, what B had copied and what B left
        "wp_copied_merged": 2,
        "huge_new_page": 2,
        "huge_zero_page": 1,
        "huge_zero_written": 1,
        "huge_split": 1,
        "huge_reused": 1,
    }
    found = {name.removeprefix("fault."): n for name, n in end.items() if name.startswith("fault.") and n}
    swapped_in = (found.pop("swap_major"), found.pop("swap_minor"))
    assert found == by_hand
    # Each read from the device brings its neighbours, 8 pages at most.
    assert sum(swapped_in) == end["pswpin"] == old
    assert old // 8 <= swapped_in[0] == end["pgmajfault"] < old // 4
    assert end["pgreuse"] == by_hand["wp_reused"] + by_hand["wp_shared"]
    # What no area allows is no fault of Linux's count; a huge entry that is split is come by on the way to another end.
    refused = sum(by_hand[name] for name in ("bad_area", "bad_access", "kernel_fixup"))
    on_the_way = by_hand["huge_split"] + by_hand["huge_zero_written"]
    assert end["pgfault"] == sum(by_hand.values()) + old - refused - on_the_way


def test_17_the_tree_of_a_run_is_printed(tmp_path: Path) -> None:
    run("17-fault-tree", tmp_path)
    lines = list(lines_of(explain_faults(tmp_path / "run", "box")))
    assert [line.split(maxsplit=1)[0] for line in lines if "yes: a frame of zeroes" in line] == ["6,740"]
    page = (ROOT / "docs" / "lecture.md").read_text()
    shown = page.split("scenarios/lecture/17-fault-tree.yaml")[1].split("```")[1].strip("\n")
    assert shown in "\n".join(lines)


def test_18_a_list_makes_a_walk_look_at_areas_that_do_not_hold_the_page(tmp_path: Path) -> None:
    machines = run("18-reverse-mapping", tmp_path)
    # shared: 64 areas map each page. own: the first area looked at is the only one that does. pieces: it is the last.
    expected = {
        "shared": {"tree": 64, "list": 64},
        "own": {"tree": 1, "list": 1},
        "pieces": {"tree": 1, "list": 64},
    }
    for case, by_way in expected.items():
        tree, listed = machines[f"{case}-tree"], machines[f"{case}-list"]
        # Two looks, of which the first finds the page used, and the end; what is not swapped out was looked at less.
        assert 0 < 3 * tree["pswpout"] <= tree["rmap_walk"] <= 3 * 2048
        for way, machine in (("tree", tree), ("list", listed)):
            assert machine["rmap_area"] == by_way[way] * machine["rmap_walk"]
            assert machine["oom_kill"] == 0
        # How the areas are found changes nothing else.
        assert of_each({case: tree}, "rmap_walk", "pswpout", "pgfault", "nr_free_pages") == of_each(
            {case: listed}, "rmap_walk", "pswpout", "pgfault", "nr_free_pages"
        )


def test_every_scenario_of_the_lecture_is_explained_and_tested() -> None:
    names = [path.stem for path in sorted(LECTURE.glob("*.yaml"))]
    assert len(names) >= 12
    page = (ROOT / "docs" / "lecture.md").read_text()
    tests = Path(__file__).read_text()
    for name in names:
        assert f"scenarios/lecture/{name}.yaml" in page
        assert f'run("{name}", tmp_path)' in tests
