"""``report.html``: what a run found, for people who would rather look than read.

    one sentence with the answer, the figures as tiles, a warning if the run is not whole
    with --compare: differences and overlaid curves
    each host: its memory, KSM, swap, what was merged, and a small chart a guest
    each plain machine: its memory, translations, faults
    each of both: a picture of its physical memory at every sampled time, its frames by kind, how its faults ended
    settings, versions, digest

What stands where is here; ``report_data`` reads, ``report_figures`` computes, ``report_words`` says it,
``report_charts`` and its kin draw, ``report_page`` makes HTML of it. A fleet may be larger than a page:
members beyond the limits below are in the tables only.
"""

from pathlib import Path
from typing import Any, Final

from cluster.checkpoints import write_atomically
from cluster.errors import InputError, one_line
from cluster.report_chart import MAX_POINTS, Colour, Table
from cluster.report_charts import CLASS_PREFIX, guest_charts, host_charts
from cluster.report_compare import difference_table, overlay_charts, setting_table
from cluster.report_data import RunData, read_run
from cluster.report_faults import add_fault_tree
from cluster.report_figures import figures_of, guest_figures
from cluster.report_frames import add_frame_kinds
from cluster.report_machine_charts import machine_charts
from cluster.report_memory import add_memory_picture
from cluster.report_numbers import as_size, as_time
from cluster.report_page import (
    Page,
    answer_paragraph,
    folded,
    heading,
    legend,
    panel,
    paragraph,
    table,
    text,
    tiles,
    warning,
)
from cluster.report_settings import flat_settings
from cluster.report_words import answer, count, headline
from cluster.results import FAILED, FINISHED, INTERRUPTED, RUNNING
from cluster.summary import format_ratio
from shared.constants import PAGE_SIZE

REPORT: Final = "report.html"
MAX_HOSTS: Final = 6  # with charts
MAX_MACHINES: Final = 6  # with charts
MAX_SMALL_CHARTS: Final = 12  # guests of a host with a chart
MAX_ROWS: Final = 200  # of a table of members or events
_GUEST_LEGEND: Final = (
    (Colour.UNIQUE, "unique"),
    (Colour.MERGED, "merged"),
    (Colour.SWAPPED, "swapped"),
    (Colour.INK, "stalled"),
)
_ZERO_LEGEND: Final = (Colour.SAVED_ZERO, "zero page")
_UNFINISHED: Final = {
    INTERRUPTED: "This run was interrupted",
    RUNNING: "This run is still going",
    FAILED: "This run failed",
}


def write_report(run_dir: Path, compare: Path | None = None) -> Path:
    """Write ``report.html`` into a run directory, beside another run if ``compare`` is one.

    Returns the page's path. Raises ``InputError`` if either is no run directory, is damaged, or if the page
    cannot be written.
    """
    run = read_run(run_dir)
    other = None if compare is None else read_run(compare)
    path = run_dir / REPORT
    try:
        write_atomically(path, make_report(run, other).encode())
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror or one_line(error)}") from None
    return path


def make_report(run: RunData, other: RunData | None = None) -> str:
    """Return the page of a run."""
    figures = figures_of(run)
    page = Page(f"{run.manifest['name']} - pagefleet")
    page.add("<header>", _kicker(run), f"<h1>{text(run.manifest['name'])}</h1>")
    description = run.manifest["scenario"].get("description", "")
    if description:
        page.add(paragraph(description))
    page.add(_status_warning(run), answer_paragraph(answer(figures, run)))
    page.add(tiles(headline(figures, run)), "</header>", "<main>")
    page.add(
        "<noscript>", paragraph("Charts need JavaScript; the numbers are in tables below."), "</noscript>"
    )
    if other is not None:
        _add_comparison(page, run, other)
    for host in run.of_kind("host")[:MAX_HOSTS]:
        _add_host(page, run, host)
    _add_machines(page, run)
    _add_events(page, run)
    _add_settings(page, run)
    page.add("</main>", _footer(run))
    return page.html()


# --- the top


def _kicker(run: RunData) -> str:
    status = run.manifest["status"]
    kind = "finished" if status == FINISHED else "unfinished"
    figures = [f"pagefleet run, seed {run.manifest['seed']}", f"{as_time(run.end_ns)} simulated"]
    figures.append(run.manifest["started_at"].replace("T", " ").replace("Z", " UTC"))
    facts = "".join(f"<span>{text(fact)}</span>" for fact in figures)
    return f'<p class="kicker"><span class="badge {kind}">{text(status)}</span>{facts}</p>'


def _status_warning(run: RunData) -> str:
    status = run.manifest["status"]
    if status == FINISHED:
        return ""
    planned = as_time(run.manifest["scenario"]["duration"])
    lines = [f"The figures reach to {as_time(run.end_ns)} of {planned}: what its checkpoints hold."]
    if not run.end_ns:
        lines = [f"It left no checkpoint of its {planned}."]
    if "error" in run.manifest:
        lines.append(f"It ended with: {run.manifest['error']}")
    if status == INTERRUPTED:
        lines.append("pagefleet run --resume goes on from the last checkpoint.")
    return warning(f"{_UNFINISHED.get(status, status)}. Do not take this for a result.", lines)


# --- sections


def _add_comparison(page: Page, run: RunData, other: RunData) -> None:
    page.add(heading("Beside another run", f"The other: {other.path}, {other.manifest['status']}."))
    page.add(panel(table(difference_table(run, other), label="Differences")))
    settings = setting_table(run, other)
    if settings.rows:
        page.add(panel(table(settings, label="Settings that differ", words=True)))
    else:
        page.add(paragraph("All settings are equal."))
    page.add_charts(overlay_charts(run, other))


def _add_host(page: Page, run: RunData, host: str) -> None:
    guests = run.guests_of(host)
    page.add(heading(host, _host_note(run, host)))
    charts = host_charts(run, host)
    if not charts:
        page.add(paragraph("There are no samples of this host."))
        return
    page.add_charts(charts)
    add_memory_picture(page, run, host)
    history = run.history(host)
    add_frame_kinds(page, host, history)
    add_fault_tree(page, host, history)
    if history.last("ksm.pages_shared") and not history.family(CLASS_PREFIX):
        page.add(paragraph("What the merged pages were to their guests was not recorded in this run."))
    page.add(heading(f"Guests of {host}"))
    ordered = sorted(
        guest_figures(run, guests), key=lambda guest: (-(guest.slowdown or 0.0), guests.index(guest.name))
    )
    slowest = {guest.name for guest in ordered[:MAX_SMALL_CHARTS]}
    charted = [name for name in guests if name in slowest]
    if len(charted) < len(guests):
        page.add(
            paragraph(f"Charts of the {len(charted)} of {len(guests)} guests that were slowed down most.")
        )
    has_zero = any(history.last(f"guest.{index}.zero_pages") for index in range(len(guests)))
    page.add(legend([*_GUEST_LEGEND, _ZERO_LEGEND] if has_zero else _GUEST_LEGEND))
    page.add_charts(guest_charts(run, host, charted).values(), small=True)
    page.add(panel(table(_guest_table(run, host), label=f"Guests of {host}")))


def _host_note(run: RunData, host: str) -> str:
    scenario = next(entry for entry in run.manifest["scenario"]["hosts"] if entry["name"] == host)
    ksm, swap = scenario["ksm"], scenario["swap"]
    parts = [
        f"{as_size(scenario['memory'] // PAGE_SIZE)} of memory",
        count(len(run.guests_of(host)), "guest"),
    ]
    pace = f"{ksm['pages_to_scan']:,} pages every {ksm['sleep_millisecs']} ms"
    parts.append(f"KSM as in Linux {ksm['model']}, {pace}" if ksm["run"] == 1 else "KSM off")
    if swap is None:
        parts.append("no swap")
    else:
        device = swap["device"] if isinstance(swap["device"], str) else "a device of its own kind"
        parts.append(f"{as_size(swap['size'] // PAGE_SIZE)} of swap on {device}")
    return ", ".join(parts) + "."


def _guest_table(run: RunData, host: str) -> Table:
    history = run.history(host)
    rows = []
    for index, guest in enumerate(guest_figures(run, run.guests_of(host))[:MAX_ROWS]):
        sizes = [as_size(history.last(f"guest.{index}.{kind}_pages")) for kind in ("rss", "ksm", "swapped")]
        fate = "killed" if history.last(f"guest.{index}.killed") else format_ratio(guest.slowdown)
        rows.append([guest.name.removeprefix(f"{host}."), *sizes, as_time(guest.stall_ns), fate])
    return Table(["guest", "resident", "of it merged", "swapped", "stalled", "slowdown"], rows)


def _add_machines(page: Page, run: RunData) -> None:
    machines = run.of_kind("machine")
    if not machines:
        return
    page.add(heading("Machines", f"{count(len(machines), 'machine')} without a host."))
    page.add(panel(table(_machine_table(run, machines[:MAX_ROWS]), label="Machines")))
    for machine in machines[:MAX_MACHINES]:
        charts = machine_charts(run, machine)
        page.add(heading(machine, "" if charts else "There are no samples of this machine."))
        page.add_charts(charts)
        add_memory_picture(page, run, machine)
        add_frame_kinds(page, machine, run.history(machine))
        add_fault_tree(page, machine, run.history(machine))
    if len(machines) > MAX_MACHINES:
        page.add(paragraph(f"Charts and pictures of the first {MAX_MACHINES} machines only."))


def _machine_table(run: RunData, machines: list[str]) -> Table:
    rows = []
    for machine in guest_figures(run, machines):
        history = run.history(machine.name)
        counted = [f"{history.last(name):,}" for name in ("operations", "pgfault", "pgmajfault", "tlb_walk")]
        free = as_size(history.last("nr_free_pages"))
        rows.append([machine.name, free, *counted, format_ratio(machine.slowdown)])
    headings = ["machine", "free", "operations", "page faults", "major faults", "page walks", "slowdown"]
    return Table(headings, rows)


def _add_events(page: Page, run: RunData) -> None:
    if not run.events:
        return
    rows = [[as_time(event.time_ns), event.member, event.what.replace("_", " ")] for event in run.events]
    page.add(heading("Events"))
    page.add(panel(table(Table(["time", "who", "what"], rows[:MAX_ROWS]), label="Events", words=True)))
    if len(rows) > MAX_ROWS:
        page.add(paragraph(f"The first {MAX_ROWS} of {len(rows):,}; events.jsonl has them all."))


def _add_settings(page: Page, run: RunData) -> None:
    page.add(heading("Settings", "Every key as the run resolved it; --set takes the same keys."))
    groups: dict[str, list[list[str]]] = {}
    scenario = run.manifest["scenario"]
    for key, value in flat_settings(scenario).items():
        groups.setdefault(_group(key, scenario), []).append([key, value])
    for position, (title, rows) in enumerate(groups.items()):
        content = table(Table(["key", "value"], rows), label=title, words=True)
        page.add(folded(title, content, is_open=position == 0))
    page.add(heading("This run"))
    page.add(panel(table(Table([], _facts(run)), label="This run", words=True)))
    versions = [[name, str(version)] for name, version in run.manifest["versions"].items()]
    page.add(folded("Versions", table(Table([], versions), label="Versions", words=True)))


def _group(key: str, scenario: dict[str, Any]) -> str:
    folder, _, rest = key.partition(".")
    if folder not in ("hosts", "machines") or not rest:
        return "The experiment"
    index = rest.partition(".")[0]
    return f"{folder.removesuffix('s').capitalize()} {scenario[folder][int(index)]['name']}"


def _facts(run: RunData) -> list[list[str]]:
    manifest = run.manifest
    facts = [
        ("status", manifest["status"]),
        ("digest", manifest.get("digest", "none: it has not finished")),
        ("scenario file", manifest["scenario_file"]),
        ("seed", manifest["seed"]),
        ("executor", manifest["executor"]),
        ("started", manifest["started_at"]),
        ("finished", manifest.get("finished_at", "-")),
        ("wall time", f"{manifest.get('wall_seconds', 0.0):.1f} s"),
        ("CPU time", f"{manifest.get('cpu_seconds', 0.0):.1f} s"),
        ("members restored after a loss", manifest.get("restorations", 0)),
        ("resumed", manifest.get("resumed", 0)),
    ]
    return [[label, str(value)] for label, value in facts]


def _footer(run: RunData) -> str:
    thinned = any(len(history.times_ns) > MAX_POINTS for history in run.histories.values())
    note = f" Curves show {MAX_POINTS} of the samples, evenly spread; figures use all." if thinned else ""
    return (
        "<footer><p>Sizes are in binary units, a page is 4 KiB, times are simulated unless they say wall or"
        f" CPU.{note} This page loads nothing from anywhere.</p></footer>"
    )
