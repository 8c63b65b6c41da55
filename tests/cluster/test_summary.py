from pathlib import Path

import pytest

from cluster.coordinator import FleetResult, Progress
from cluster.progress import progress_text
from cluster.summary import print_summary, summarize
from tests.cluster.fleets import document, plan_of

HOST = {
    "ksm.pages_sharing": 500,
    "ksm.pages_shared": 200,
    "ksm.sharing_zero": 300,
    "ksm.ksm_zero_pages": 50,
    "guest.0.rss_pages": 1000,
    "guest.0.swapped_pages": 24,
    "guest.1.rss_pages": 400,
    "pswpout": 1234,
}
GUEST = {"run_ns": 2000, "stall_ns": 500, "touched_pages": 1024}


def result_of(counters: list[dict[str, int]]) -> FleetResult:
    return FleetResult(
        end_ns=10**9, digests=[], counters=counters, snapshots=[], samples=[], events=[], cpu_ns=0
    )


def test_a_hosts_figures_follow_from_its_counters(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, document(nr_guests=2) | {"machines": []})
    summary = summarize(plan, result_of([HOST, GUEST, {}]))
    host = summary["hosts"][0]
    assert host["needed_without_merging_pages"] == 1474
    assert host["saved_pages"] == 550
    assert host["needed_with_merging_pages"] == 924
    assert (host["saved_from_zero_pages"], host["saved_from_other_pages"]) == (350, 200)
    assert host["slowdown"] == 1.25
    assert host["guests"][0]["slowdown"] == 1.25
    assert host["guests"][1]["slowdown"] is None
    assert host["ksm.pages_scanned"] == 0


def test_the_table_is_plain_where_there_is_no_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = plan_of(tmp_path, document(nr_guests=2))
    nr_machines = len(plan.specs) - 3
    print_summary(summarize(plan, result_of([HOST, GUEST, {}] + [GUEST] * nr_machines)), {"run": "here"})
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert out.isascii()
    for text in (
        "Host h",
        "Guests of h",
        "h.guest-1",
        "Machines",
        "early-1",
        "1.250",
        "1,234",
        "5.76 MiB",
        "run: here",
    ):
        assert text in out


def test_machines_show_what_their_translation_did(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = plan_of(tmp_path, document() | {"hosts": [], "machines": [{"name": "m", "memory": "64MiB"}]})
    counters = {"tlb_walk": 3, "itlb_walk": 1, "walk_references": 10, "cr3_write": 1234, "run_ns": 5_000_000}
    summary = summarize(plan, result_of([counters]))
    assert summary["machines"][0]["walk_references"] == 10
    print_summary(summary, {})
    out = capsys.readouterr().out
    assert "Data caches" not in out
    row = [cell.strip() for cell in out.splitlines()[-2].strip("|").split("|")]
    assert row == ["m", "0", "0", "4", "2.50", "0", "0", "1,234", "0", "0", "5 ms"]
    print_summary(summarize(plan, result_of([{"dcache_hit": 7, "dcache_miss": 2, "dcache_synonym": 1}])), {})
    row = [cell.strip() for cell in capsys.readouterr().out.splitlines()[-2].strip("|").split("|")]
    assert row == ["m", "7", "2", "1", "0", "0"]


def test_progress_is_told_in_one_line() -> None:
    progress = Progress(12_340_000_000, 140_000_000_000, 9, {"ksm.pages_sharing": 2560, "nr_swap_used": 256})
    assert progress_text(progress) == "12.3 s of 2.33 min | 9 guests | KSM saves 10 MiB | swapped 1 MiB"
