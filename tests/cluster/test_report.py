"""What the report says. tests/cluster/test_report_in_browser.py looks at how it is drawn."""

import json
import re
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from cluster.errors import InputError
from cluster.report import MAX_SMALL_CHARTS, write_report
from cluster.report_chart import MAX_POINTS
from cluster.report_numbers import as_percent, as_size, as_time
from cluster.results import new_manifest
from shared.constants import NS_PER_MS, NS_PER_S
from tests.cluster import programs
from tests.cluster.fleets import document, write_scenario
from tests.cluster.report_runs import (
    CLASSES,
    SECONDS,
    change_manifest,
    study,
    write_interrupted_run,
    write_run,
)

EVIL = "<script>alert(1)</script><img src=x onerror=alert(2)>&amp;\"'"


class Elements(HTMLParser):
    """The tags of a page, and what people read on it."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self._silent = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag in ("script", "style"):
            self._silent = tag

    def handle_endtag(self, tag: str) -> None:
        if tag == self._silent:
            self._silent = ""

    def handle_data(self, data: str) -> None:
        if not self._silent:
            self.words.append(data)

    def text(self) -> str:
        return re.sub(r"[ \n]+", " ", " ".join(self.words))  # unbreakable spaces stay

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def page_of(run: Path, compare: Path | None = None) -> str:
    return write_report(run, compare).read_text()


def words(page: str) -> str:
    return Elements(page).text()


def answer(page: str) -> str:
    found = re.search(r'<p class="answer">(.*?)</p>', page)
    assert found is not None
    return unescape(re.sub(r"</?strong>", "", found[1]))


def figures(page: str) -> dict[str, Any]:
    found = re.search(r'id="figures">(.*?)</script>', page)
    assert found is not None
    parsed: dict[str, Any] = json.loads(found[1])
    return parsed


def rows(page: str, label: str) -> list[list[str]]:
    """Return the cells of the table with this label."""
    found = re.search(rf'aria-label="{re.escape(label)}"><table.*?</table>', page)
    assert found is not None, label
    return [
        [unescape(cell) for cell in re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row)]
        for row in re.findall(r"<tr>(.*?)</tr>", found[0])
    ]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("report") / "run")


@pytest.fixture(scope="module")
def page(run: Path) -> str:
    return page_of(run)


def sampled(run: Path, counter: str, machine: str) -> dict[int, int]:
    table = pq.read_table(run / "metrics.parquet").to_pylist()
    return {
        row["time_ns"]: row["value"]
        for row in table
        if row["counter"] == counter and row["machine"] == machine
    }


def test_the_answer_holds_the_figures_of_the_samples(run: Path, page: str) -> None:
    merged, zero = sampled(run, "ksm.pages_sharing", "big"), sampled(run, "ksm.ksm_zero_pages", "big")
    saved = {time: merged[time] + zero[time] for time in merged}
    final = saved[SECONDS * NS_PER_S]
    assert final > 0
    told = answer(page)
    assert f"gave back {as_size(final)} of the " in told
    for percent in (50, 90, 99):
        reached = min(time for time, value in saved.items() if value >= final * percent / 100)
        assert re.search(rf"{percent}\s%[a-z ]* after {re.escape(as_time(reached))}[,.]", told)
    swapped_out = sampled(run, "pswpout", "big")[SECONDS * NS_PER_S]
    assert f"{as_size(swapped_out)} were swapped out" in told
    assert f"{as_size(swapped_out // 2)} back in" in told


def test_the_worst_slowdown_is_the_largest_of_all_members(page: str) -> None:
    # The third guest of "big" waits a twelfth of its time.
    assert "The guest that suffered most, big.db, took 1.091 times as long" in answer(page)


def test_the_answer_agrees_with_the_summary(run: Path, page: str) -> None:
    hosts = json.loads((run / "summary.json").read_text())["hosts"]
    needed = sum(host["needed_without_merging_pages"] for host in hosts)
    saved = sum(host["saved_pages"] for host in hosts)
    assert (
        f"{as_size(saved)} of the {as_size(needed)} that 4 guests use ({as_percent(saved / needed)})"
        in answer(page)
    )
    assert as_size(sum(host["saved_from_zero_pages"] for host in hosts)) in words(page)


def test_a_killed_guest_is_told(page: str) -> None:
    assert "1 guest died because no memory was left." in answer(page)
    assert ["50\u00a0s", "big.db", "oom kill"] in rows(page, "Events")


def test_each_guest_and_machine_has_its_row(page: str) -> None:
    assert [row[0] for row in rows(page, "Guests of big")[1:]] == ["web-0", "web-1", "db"]
    assert [row[0] for row in rows(page, "Machines")[1:]] == ["plain-0", "plain-1"]
    assert rows(page, "Guests of big")[3][-1] == "1.091"


def test_charts_cover_what_was_measured(page: str) -> None:
    titles = re.findall(r"<h3>(.*?)</h3>", page)
    for title in (
        "What is in the host&#x27;s memory",
        "What the guests have, and where it is",
        "How fast memory comes back",
        "What ksmd knows of the pages",
        "How fast ksmd goes",
        "Swap traffic",
        "What the merged pages were",
        "web-0",
        "lone",
        "Where translations came from",
        "Page faults",
        "Time spent waiting",
    ):
        assert title in titles
    assert titles.count("What ksmd knows of the pages") == 2  # both hosts have counters
    assert titles.count("Swap traffic") == 1  # only one swaps


def test_every_axis_has_a_title_with_its_unit(page: str) -> None:
    nr_axes = 0
    for name, figure in figures(page).items():
        for key, axis in figure["layout"].items():
            if re.fullmatch(r"[xy]axis\d*", key):
                title = axis["title"]["text"]
                is_category = figure["data"][0]["type"] == "bar" and key == "yaxis"
                assert title.endswith(")") or is_category, (name, key)
                nr_axes += 1
    assert nr_axes > 40


def test_every_chart_has_words_and_numbers_for_those_who_do_not_see_it(page: str) -> None:
    charts = [attributes for attributes in Elements(page).named("div") if attributes.get("class") == "chart"]
    assert len(charts) == len(figures(page)) > 20
    for chart in charts:
        assert chart["role"] == "img"
        assert len(chart["aria-label"] or "") > len("Chart: . ")
    assert page.count('aria-label="Numbers of the chart') == len(charts)


def test_page_classes_are_bars_by_size(page: str) -> None:
    bars = next(figure["data"][0] for figure in figures(page).values() if figure["data"][0]["type"] == "bar")
    assert bars["y"][:3] == ["page cache", "free in the guest", "anonymous"]
    assert bars["x"] == sorted(bars["x"], reverse=True)
    assert len(bars["x"]) == len(CLASSES)


def test_a_run_without_page_classes_says_so(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    table = pq.read_table(run / "metrics.parquet")
    kept = pc.invert(pc.match_substring(pc.cast(table["counter"], "string"), "merged_class."))
    pq.write_table(table.filter(kept), run / "metrics.parquet")
    assert "What the merged pages were to their guests was not recorded" in words(page_of(run))


def test_the_page_shows_settings_versions_and_digest(run: Path, page: str) -> None:
    manifest = json.loads((run / "manifest.json").read_text())
    assert ["digest", manifest["digest"]] in rows(page, "This run")
    assert ["wall time", "12.5 s"] in rows(page, "This run")
    assert ["numpy", manifest["versions"]["numpy"]] in rows(page, "Versions")
    settings = rows(page, "Host big")
    assert ["hosts.0.memory", "96 MiB"] in settings
    assert ["hosts.0.ksm.pages_to_scan", "500"] in settings
    assert ["hosts.0.swap.device", "ssd"] in settings
    assert ["duration", "1 min"] in rows(page, "The experiment")


def test_nothing_is_loaded_from_anywhere(page: str) -> None:
    elements = Elements(page)
    policy = next(meta for meta in elements.named("meta") if "http-equiv" in meta)["content"] or ""
    assert policy.startswith("default-src 'none';")
    assert "http" not in policy
    for _, attributes in elements.tags:
        assert "src" not in attributes
        assert attributes.get("href") in (None, "data:,")
    style = re.search(r"<style>(.*?)</style>", page, re.DOTALL)
    assert style is not None
    assert "url(" not in style[1]
    assert "@import" not in style[1]
    assert page.count("plotly.js v") == 1


def test_text_of_users_is_shown_not_obeyed(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", study(description=EVIL))
    manifest = json.loads((run / "manifest.json").read_text())
    members = [member | {"name": member["name"].replace("plain-1", EVIL)} for member in manifest["members"]]
    change_manifest(run, name=EVIL, scenario_file=EVIL, error=EVIL, status="failed", members=members)
    page = page_of(run)
    elements = Elements(page)
    assert not elements.named("img")
    assert len(elements.named("script")) == 5
    assert elements.text().count(EVIL) >= 5  # title, heading, description, error, machine


def test_a_run_that_was_interrupted_says_so_and_shows_its_checkpoints(tmp_path: Path) -> None:
    run = write_interrupted_run(tmp_path / "run", seconds=30, error="sigterm")
    page = page_of(run)
    said = words(page)
    assert "This run was interrupted. Do not take this for a result." in said
    assert "reach to 30\u00a0s of 60\u00a0s" in page
    assert "It ended with: sigterm" in said
    assert "finished" not in re.findall(r'class="badge[^>]*>([^<]*)<', page)
    saved = sum(sampled_before(run, counter, 30) for counter in ("ksm.pages_sharing", "ksm.ksm_zero_pages"))
    assert f"gave back {as_size(saved)} of" in answer(page)


def sampled_before(run: Path, counter: str, seconds: int) -> int:
    """Return a counter of the host "big" of a whole run at a time."""
    whole = run.with_name("whole")
    if not whole.exists():
        write_run(whole)
    return sampled(whole, counter, "big")[seconds * NS_PER_S]


def test_a_run_without_a_single_sample_still_has_a_page(tmp_path: Path) -> None:
    page = page_of(write_interrupted_run(tmp_path / "run", seconds=0))
    assert "There are no figures" in answer(page)
    assert "There are no samples of this host." in words(page)
    assert "hosts.0.ksm.pages_to_scan" in page


def test_a_run_that_is_going_on_says_so(tmp_path: Path) -> None:
    run = write_interrupted_run(tmp_path / "run", seconds=30)
    driver = new_manifest({"name": "", "seed": 0}, Path(), "inline")["driver"]
    change_manifest(run, driver=driver)
    assert "This run is still going." in words(page_of(run))


def test_plain_machines_alone_have_a_report(tmp_path: Path) -> None:
    page = page_of(write_run(tmp_path / "run", study(hosts=[])))
    assert "2 machines did 120\u00a0million memory operations" in answer(page)
    assert "the TLBs held 90\u00a0% of the translations" in answer(page)
    assert "The machine that suffered most, plain-1, took 1.010 times as long" in answer(page)
    assert "ksmd" not in words(page)


def test_ksm_that_was_off_is_told(tmp_path: Path) -> None:
    hosts = study()["hosts"][1:]
    page = page_of(write_run(tmp_path / "run", study(hosts=hosts, machines=[])))
    assert "KSM was off, so no memory came back: 1 guest use" in answer(page)
    assert "Nothing was swapped." in answer(page)


def test_a_comparison_tells_every_difference(tmp_path: Path, run: Path) -> None:
    other = write_run(tmp_path / "fast", study(seed=7), faster=2)
    page = page_of(run, other)
    differences = {row[0]: row[1:] for row in rows(page, "Differences")}
    half = "time to 50\u00a0% of the saving"
    assert differences[half] == ["25\u00a0s", "13\u00a0s", "+12\u00a0s (+92.3\u00a0%)"]
    assert differences["saved by merging"][2] == "equal"
    assert rows(page, "Settings that differ")[1:] == [["seed", "1", "7"]]
    overlays = [figure for figure in figures(page).values() if figure["data"][0]["name"] == "this run"]
    assert len(overlays) == 4
    for figure in overlays:
        assert [trace["line"]["dash"] for trace in figure["data"]] == ["solid", "dash"]


def test_a_run_beside_itself_is_equal(run: Path) -> None:
    page = page_of(run, run)
    assert {row[3] for row in rows(page, "Differences")[1:]} == {"equal"}
    assert "All settings are equal." in words(page)


def test_long_runs_are_thinned_in_charts_but_not_in_figures(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", every_ns=100 * NS_PER_MS)
    page = page_of(run)
    longest = max(len(trace["x"]) for figure in figures(page).values() for trace in figure["data"])
    assert MAX_POINTS / 2 < longest <= MAX_POINTS
    merged = sampled(run, "ksm.pages_sharing", "big")
    final = merged[SECONDS * NS_PER_S]
    first = min(time for time, value in merged.items() if value * 2 >= final)
    assert f"after {as_time(first)}" in answer(page)
    assert "Curves show" in words(page)


def test_a_large_fleet_is_charted_in_part_and_listed_in_full(tmp_path: Path) -> None:
    host = study()["hosts"][0] | {"guests": [{"machine": {"memory": "32MiB"}, "name": "g", "count": 4}]}
    host["guests"][0]["count"] = MAX_SMALL_CHARTS + 3
    page = page_of(write_run(tmp_path / "run", study(hosts=[host], machines=[])))
    assert f"Charts of the {MAX_SMALL_CHARTS} of {MAX_SMALL_CHARTS + 3} guests" in words(page)
    assert len(rows(page, "Guests of big")) == MAX_SMALL_CHARTS + 3 + 1


def test_what_is_no_run_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for name in ("empty", "nowhere"):
        done = programs.run("report", name, cwd=tmp_path)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr == f"pagefleet: {name}: not a run directory: there is no manifest.json in it\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty"]
    assert not list((tmp_path / "empty").iterdir())


def test_damage_is_told_with_the_file(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    whole = (run / "metrics.parquet").read_bytes()
    (run / "metrics.parquet").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"metrics\.parquet: damaged: "):
        write_report(run)
    (run / "metrics.parquet").write_bytes(whole)
    (run / "events.jsonl").write_text("{}\n")
    with pytest.raises(InputError, match=r"events\.jsonl: damaged: "):
        write_report(run)
    change_manifest(run, members=None)
    with pytest.raises(InputError, match=r"manifest\.json: does not say what ran"):
        write_report(run)
    assert not (run / "report.html").exists()


def test_a_run_ends_with_its_report(tmp_path: Path) -> None:
    scenario = write_scenario(tmp_path, document())
    done = programs.run("run", str(scenario), "--executor", "inline", "--out", "result", cwd=tmp_path)
    assert done.returncode == 0
    assert "report: result/report.html" in done.stdout
    assert "3 guests" in answer((tmp_path / "result" / "report.html").read_text())
    (tmp_path / "result" / "report.html").unlink()
    again = programs.run("report", "result", "--compare", "result", "--json", cwd=tmp_path)
    assert json.loads(again.stdout) == {"path": "result/report.html"}
    assert "Beside another run" in (tmp_path / "result" / "report.html").read_text()


def test_a_run_may_do_without_a_report(tmp_path: Path) -> None:
    scenario = write_scenario(tmp_path, document())
    command = ("run", str(scenario), "--executor", "inline", "--out", "result", "--no-report")
    done = programs.run(*command, cwd=tmp_path)
    assert done.returncode == 0
    assert "report:" not in done.stdout
    assert not (tmp_path / "result" / "report.html").exists()
