"""The simulator against counters that a real Linux 6.1 kernel showed for the same programs."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from node.check import (
    CaseResult,
    GoldenError,
    Verdict,
    check_golden,
    load_golden,
    prepare,
    run_case,
    verdict_of,
)
from node.check_report import Telling, check_files

GOLDEN = Path(__file__).resolve().parent.parent / "golden"
CASES = sorted(GOLDEN.glob("*.json.gz"))
MODELLED = [path for path in CASES if not prepare(path).not_modelled]
PLAIN = Telling()


def off_rows(result: CaseResult) -> list[str]:
    return [
        f"{row.snapshot} {row.counter}: {row.kernel} {row.ours}"
        for row in result.rows
        if row.verdict.isupper()
    ]


def write_case(tmp_path: Path, golden: dict[str, Any]) -> Path:
    path = tmp_path / "case.json"
    path.write_text(json.dumps(golden))
    return path


def test_every_recorded_case_is_there_and_no_fewer_are_modelled_than_were() -> None:
    assert len(CASES) == 32
    assert len(MODELLED) >= 11


@pytest.mark.parametrize("path", MODELLED, ids=lambda path: path.name.removesuffix(".json.gz"))
def test_every_watched_counter_is_as_the_kernel_had_it(path: Path) -> None:
    result = check_golden(path)
    assert result.rows
    assert off_rows(result) == []
    assert result.warnings == ()
    assert result.passed


@pytest.mark.three_ways
@pytest.mark.parametrize("name", ["ksm_batch", "ksm_zero", "ksm_max_sharing2"])
def test_compiled_checked_and_uncompiled_runs_agree_with_the_kernel(name: str) -> None:
    assert off_rows(check_golden(GOLDEN / f"{name}.json.gz")) == []


def test_a_counter_that_differs_by_one_is_wrong(tmp_path: Path) -> None:
    golden = load_golden(GOLDEN / "ksm_batch.json.gz")
    golden["snapshots"][12]["key"]["ksm.pages_unshared"] += 1
    result = check_golden(write_case(tmp_path, golden))
    assert [(row.snapshot, row.counter, row.verdict) for row in result.rows if row.verdict.isupper()] == [
        (golden["snapshots"][12]["name"], "ksm.pages_unshared", Verdict.WRONG)
    ]


def test_a_counter_that_we_do_not_have_is_missing_not_zero(tmp_path: Path) -> None:
    golden = load_golden(GOLDEN / "ksm_batch.json.gz")
    golden["snapshots"][1]["key"] = {"vmstat.nr_of_unicorns": 0}
    result = check_golden(write_case(tmp_path, golden))
    assert any(row.verdict is Verdict.MISSING and row.ours is None for row in result.rows)
    assert not result.passed


@pytest.mark.parametrize(
    ("recorded", "ours", "good"),
    [
        ([300, 300, 301], 294, True),  # 2 % of the median: 6
        ([300, 300, 301], 307, True),
        ([300, 300, 301], 293, False),
        ([200, 250, 300], 100, True),  # its width: 100
        ([200, 250, 300], 400, True),
        ([200, 250, 300], 99, False),
        ([200, 250, 300], 401, False),
        ([59, 60, 60], 58, True),  # width 1, and 2 % are 1.2: not 2
        ([59, 60, 60], 57, False),
        ([0, 0, 1], 2, True),
        ([0, 0, 1], 3, False),
        ([-300, -300, -299], -306, True),
    ],
)
def test_a_range_is_met_within_its_width_or_two_percent(recorded: list[int], ours: int, good: bool) -> None:
    assert verdict_of(recorded, ours) is (Verdict.IN_RANGE if good else Verdict.OUT_OF_RANGE)


def test_all_that_is_not_modelled_is_named_and_nothing_passed(tmp_path: Path) -> None:
    golden = load_golden(GOLDEN / "ksm_batch.json.gz")
    golden["header"] |= {"swap": "zram:128M", "sysctl": "vm.swappiness=10 vm.dirty_ratio=5"}
    golden["workload"] += ["A: fopen f /mnt/f4", "A: fread f 0 1M", "A: fread f 0 1M", "set /proc/x 1"]
    written: list[str] = []
    assert check_files([write_case(tmp_path, golden)], written.append, PLAIN) == 1
    assert written == [
        "ksm_batch: not modelled yet: swap zram, sysctl vm.dirty_ratio, fopen, fread, set /proc/x\n",
        "in all: exact 0/0 (of them non-zero 0/0), in range 0/0; 1 case not modelled, not counted\n",
    ]
    assert not check_golden(tmp_path / "case.json").passed


def test_a_case_that_is_not_modelled_is_no_failure_beside_one_that_passes(tmp_path: Path) -> None:
    golden = load_golden(GOLDEN / "ksm_batch.json.gz")
    golden["workload"].append("sync")
    written: list[str] = []
    paths = [GOLDEN / "ksm_batch.json.gz", write_case(tmp_path, golden)]
    assert check_files(paths, written.append, PLAIN) == 0
    assert "exact 135/135" in written[-1]
    assert written[-1].endswith("; 1 case not modelled, not counted\n")


def test_check_files_says_what_is_off_and_returns_one(tmp_path: Path) -> None:
    golden = load_golden(GOLDEN / "ksm_batch.json.gz")
    golden["snapshots"][2]["key"]["ksm.pages_volatile"] = 7
    written: list[str] = []
    assert check_files([write_case(tmp_path, golden)], written.append, PLAIN) == 1
    assert "WRONG" in "".join(written)
    assert "exact 134/135" in written[-1]
    assert len("".join(written).splitlines()) == 3


def test_verbose_shows_every_counter(tmp_path: Path) -> None:
    written: list[str] = []
    assert check_files([GOLDEN / "ksm_batch.json.gz"], written.append, Telling(verbose=True)) == 0
    assert sum(line.endswith("exact") for line in "".join(written).splitlines()) == 135


def test_check_files_gives_json() -> None:
    written: list[str] = []
    paths = [GOLDEN / f"{name}.json.gz" for name in ("ksm_batch", "buddy_big", "zswap")]
    assert check_files(paths, written.append, Telling(json=True)) == 0
    whole, part, missing = json.loads("".join(written))
    assert whole["passed"] is True
    assert len(whole["rows"]) == 135
    assert whole["partial"] is None
    assert part["partial"]["up_to"] == "populated96M"
    assert part["partial"]["passed_over"].keys() == {"fopen", "fread", "drop_caches"}
    assert missing["passed"] is False
    assert missing["not_modelled"][0] == "zswap enabled=1"


def test_our_counters_are_written_as_a_recording_that_we_meet_exactly(tmp_path: Path) -> None:
    paths = [GOLDEN / f"{name}.json.gz" for name in ("ksm_batch", "buddy_big")]
    assert check_files(paths, lambda _: None, Telling(folder=tmp_path / "new" / "ours")) == 0
    written = sorted((tmp_path / "new" / "ours").iterdir())
    assert [path.name for path in written] == ["buddy_big.json", "ksm_batch.json"]
    for path in written:
        result = check_golden(path)
        assert {row.verdict for row in result.rows} == {Verdict.EXACT}
        assert result.partial is None
        assert result.warnings == ()
    ours = load_golden(written[1])
    theirs = load_golden(paths[0])
    assert ours["workload"] == theirs["workload"]
    assert [snapshot["name"] for snapshot in ours["snapshots"]] == [
        snapshot["name"] for snapshot in theirs["snapshots"]
    ]
    last = ours["snapshots"][-1]
    assert last["key"] == theirs["snapshots"][-1]["key"]
    assert last["level"]["ksm.pages_sharing"] == theirs["snapshots"][-1]["level"]["ksm.pages_sharing"]
    assert "vmstat.pgfault" not in last["level"]
    assert ours["snapshots"][1]["delta_from_previous"]["vmstat.pgfault"] > 0
    again = tmp_path / "again"
    check_files(written, lambda _: None, Telling(folder=again))
    assert [path.read_bytes() for path in sorted(again.iterdir())] == [path.read_bytes() for path in written]


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda path: path.write_text("a file"), "File exists"),
        (lambda path: path.symlink_to("nowhere/at/all"), "File exists"),
    ],
)
def test_a_folder_that_cannot_be_written_is_refused_before_anything_runs(
    tmp_path: Path, make: Any, complaint: str
) -> None:
    folder = tmp_path / "folder"
    make(folder)
    written: list[str] = []
    with pytest.raises(GoldenError, match=complaint):
        check_files([GOLDEN / "ksm_batch.json.gz"], written.append, Telling(folder=folder))
    assert written == []


def test_recordings_are_not_written_over(tmp_path: Path) -> None:
    path = write_case(tmp_path, load_golden(GOLDEN / "ksm_batch.json.gz"))
    with pytest.raises(GoldenError, match=r"case\.json: is itself checked"):
        check_files([path], lambda _: None, Telling(folder=tmp_path))
    with pytest.raises(GoldenError, match="two recordings of this name"):
        check_files([path, path], lambda _: None, Telling(folder=tmp_path / "out"))


# --- parts ----------------------------------------------------------------------------------------------


def part_of(tmp_path: Path, golden: dict[str, Any], **entry: Any) -> Path:
    (tmp_path / "partial.json").write_text(json.dumps({golden["name"]: {"reason": "a test", **entry}}))
    return write_case(tmp_path, golden)


def test_a_part_ends_behind_a_snapshot_and_needs_nothing_of_what_follows(tmp_path: Path) -> None:
    golden = load_golden(GOLDEN / "ksm_batch.json.gz")
    golden["workload"].append("sync")
    result = check_golden(part_of(tmp_path, golden, up_to="batch3"))
    assert result.not_modelled == ()
    assert result.rows[-1].snapshot == "batch3"
    assert result.passed


def test_a_part_leaves_out_counters_and_words_that_it_names(tmp_path: Path) -> None:
    golden = load_golden(GOLDEN / "ksm_batch.json.gz")
    golden["workload"] = [
        line.replace("spawn A", "spawn A cg=g") for line in ["cgroup g memory.max=48M", *golden["workload"]]
    ]
    for snapshot in golden["snapshots"][1:]:
        snapshot["key"]["cg.g.stat.anon"] = 7
    reasons = {"cgroup": "no reclaim", "spawn cg=": "no reclaim"}
    path = part_of(tmp_path, golden, passed_over=reasons, without={"cg.*": "no cgroups"})
    assert check_golden(path).passed
    written: list[str] = []
    check_files([path], written.append, PLAIN)
    assert written[0].splitlines()[1:] == [
        "  without cg.*: no cgroups",
        "  passing over cgroup: no reclaim",
        "  passing over spawn cg=: no reclaim",
    ]
    assert run_case(prepare(path))[1]["workload"][0] == "spawn A"
    del reasons["cgroup"]
    assert check_golden(part_of(tmp_path, golden, passed_over=reasons)).not_modelled == ("cgroup",)


@pytest.mark.parametrize(
    ("entry", "complaint"),
    [
        ({"up_to": "nowhere"}, "the recording has no snapshot 'nowhere'"),
        ({"snapshots": ["batch1", "nowhere"]}, "the recording has no snapshot 'nowhere'"),
        ({"upto": "batch1"}, "upto is none of"),
        ({"counters": 3}, "is no list of snapshots and counters"),
    ],
)
def test_a_list_of_parts_that_is_wrong_is_refused_in_one_line(
    tmp_path: Path, entry: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(GoldenError, match=complaint) as error:
        check_golden(part_of(tmp_path, load_golden(GOLDEN / "ksm_batch.json.gz"), **entry))
    assert "\n" not in str(error.value)


# --- bad input ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (
            {"format": "a bare number = identical; [min, q1, median, q3, max]"},
            "a newer one than this program",
        ),
        ({"format": 2}, "its format is 2: a newer one"),
        ({"header": {"mem": "8M"}}, "memory: 8MiB is less than the 62MiB that its kernel needs"),
        ({"header": {"mem": "lots"}}, "header.mem: 'lots' is not a number"),
        ({"header": {"smp": "0"}}, "cpus: 0 is outside 1"),
        ({"header": {"swap": "disk:many"}}, "header.swap: 'many' is not a number"),
        ({"machine": {"sysctl_vm": {"swappiness": "high"}}}, "sysctl_vm.swappiness: 'high' is not a number"),
        ({"machine": 3}, "its machine is no object"),
        ({"machine": {"zones": [{"zone": "DMA", "low": "much"}]}}, "its machine.zones is no list of zones"),
        ({"workload": [3]}, "a line of its workload is no text"),
        ({"workload": ["spawn A", "A: mmap h"]}, "line 2: mmap needs a size"),
        ({"workload": ["spawn A", "A: mmap h 4G populate"]}, "line 2: .* the machine is too small for it"),
        ({"workload": ["spawn A", "snapshot other"]}, "its snapshots are not those of its workload"),
        ({"snapshots": [3]}, r"snapshots\[0\] has no name"),
        (
            {"snapshots": [{"name": "boot", "key": {"x": [1, 2]}}]},
            r"x of snapshot boot is \[1, 2\]: expected",
        ),
        ({"snapshots": [{"name": "boot", "key": {"x": [3, 2, 1]}}]}, "expected a number or"),
        ({"snapshots": [{"name": "boot", "key": {"x": 1.5}}]}, "expected a number or"),
        (
            {"snapshots": [{"name": "boot", "key": {"buddy.DMA.order0": 1}}]},
            "it lacks 'initial_pagetypeinfo'",
        ),
    ],
)
def test_a_recording_that_is_wrong_is_refused_in_one_line(
    tmp_path: Path, change: dict[str, Any], complaint: str
) -> None:
    golden = load_golden(GOLDEN / "ksm_batch.json.gz")
    del golden["machine"]["initial_pagetypeinfo"]
    path = write_case(tmp_path, golden | change)
    with pytest.raises(GoldenError, match=complaint) as error:
        check_golden(path)
    assert "\n" not in str(error.value)
    assert str(error.value).startswith(f"{path}: ")


def test_nothing_is_run_if_the_last_recording_is_wrong(tmp_path: Path) -> None:
    golden = load_golden(GOLDEN / "ksm_batch.json.gz")
    golden["workload"].append("A: read nothing")
    written: list[str] = []
    paths = [GOLDEN / "ksm_batch.json.gz", write_case(tmp_path, golden)]
    with pytest.raises(GoldenError, match="A has no mapping nothing"):
        check_files(paths, written.append, PLAIN)
    assert written == []


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "not a recording"),
        (b"{", "not a recording"),
        (b"[]", "it has no workload"),
        (b'{"workload": []}', "it has no snapshots"),
    ],
)
def test_a_file_that_is_no_recording_is_refused_in_one_line(
    tmp_path: Path, content: bytes, complaint: str
) -> None:
    path = tmp_path / "broken.json"
    path.write_bytes(content)
    with pytest.raises(GoldenError, match=complaint) as error:
        check_golden(path)
    assert "\n" not in str(error.value)


def test_a_truncated_compressed_recording_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "broken.json.gz"
    whole = gzip.compress(b'{"workload": [], "snapshots": []}')
    for data in (whole[:-6], whole[:12], whole[:10] + b"xxxxxxxx" + whole[18:]):
        path.write_bytes(data)
        with pytest.raises(GoldenError, match="not a recording"):
            load_golden(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(GoldenError, match=r"nowhere\.json: No such file"):
        load_golden(tmp_path / "nowhere.json")
