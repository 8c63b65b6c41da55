"""The answer in figures: what ``summary.json`` holds and the table at the end says.

For a host, from its counters at the end:

    without merging    the pages its guests have: in memory, swapped, or made the zero page by KSM
    with merging       less those that KSM saves: ksm.pages_sharing + ksm.ksm_zero_pages
    saved              from pages of zeroes, and from all others, apart
    slowdown           (run + stall) / run: how much longer the guests' work took than alone

A plain machine also shows what its translation hardware did; its time is that of all its CPUs, idle ones included.

Every figure comes from counters by Linux's names; a counter that a member does not have counts as 0, and
a slowdown without run time is null.
"""

import json
import sys
from typing import Any, Final

from cluster.coordinator import FleetResult
from cluster.plan import Plan
from shared.constants import PAGE_SIZE
from shared.units import format_duration, format_size

Counters = dict[str, int]
Rows = list[list[str]]  # headings first
_SLOWDOWN_DECIMALS: Final = 4
_PLAIN_WIDTH: Final = 160  # characters of a line where there is no terminal
_KSM: Final = (
    "ksm.pages_shared",
    "ksm.pages_sharing",
    "ksm.pages_unshared",
    "ksm.pages_volatile",
    "ksm.full_scans",
    "ksm.pages_scanned",
)
_MEMORY: Final = ("managed_pages", "nr_free_pages", "nr_anon_pages", "nr_swap_used")
_FAULTS: Final = ("pgfault", "pgmajfault", "pswpin", "pswpout", "oom_kill")
_FRAMES: Final = (
    *(f"pgalloc_{zone}" for zone in ("dma", "dma32", "normal", "high", "movable")),
    "pgfree",
    "alloc_failed",
    "mm_page_alloc_extfrag",
    "mm_page_alloc_zone_locked",
    "mm_page_pcpu_drain",
    "pcp_pages",
    "numa_hit",
    "numa_miss",
    "compact_stall",
    "compact_success",
    "compact_fail",
    "compact_daemon_wake",
    "pgmigrate_success",
)
_TRANSLATION: Final = (
    "memory_access",
    "tlb_l1_hit",
    "tlb_l2_hit",
    "tlb_walk",
    "itlb_l1_hit",
    "itlb_l2_hit",
    "itlb_walk",
    "walk_references",
    "refill_trap",
    "cr3_write",
    "cr3_flush",
    "kernel_entry",
    "context_switch",
    "syscall",
    "nr_tlb_remote_flush",
    "nr_tlb_remote_flush_received",
    "nr_tlb_local_flush_all",
    "nr_tlb_local_flush_one",
)
_DATA_CACHE: Final = (
    "dcache_hit",
    "dcache_miss",
    "dcache_synonym",
    "dcache_writeback",
    "dcache_invalidation",
)

_DEVICES: Final = (
    "dma_transfers",
    "dma_segments",
    "dma_bytes",
    "dma_bounced_bytes",
    "dma_errors",
    "dma_bus_cycles",
    "dma_stolen_cycles",
    "dma_longest_stop",
)
# Of machines that ran a program: what their processes have, and what it takes to find who has a page.
_PROGRAMS: Final = (
    "nr_committed",
    "nr_anon_pages",
    "nr_page_table_pages",
    "pgreuse",
    "fault.wp_copied",
    "rmap_walk",
    "rmap_area",
)
_WAYS: Final = ("fast", "own", "shared", "grow")
_ALLOCATIONS: Final = (
    "alloc_count",
    "alloc_free_count",
    "alloc_failures",
    "alloc_asked_bytes",
    "alloc_taken_bytes",
    "alloc_held_bytes",
    "alloc_cycles",
    "alloc_free_cycles",
    *(f"alloc_path_{way}" for way in _WAYS),
    *(f"free_path_{way}" for way in _WAYS[:-1]),
    "alloc_lockless",
    "free_lockless",
    "unusable_order_9",
)


def summarize(plan: Plan, result: FleetResult) -> dict[str, Any]:
    """Return the figures of a run: hosts with their guests, and plain machines. Holds no time of day."""
    hosts, machines = [], []
    for spec, counters in zip(plan.specs, result.counters, strict=True):
        if spec["kind"] == "host":
            hosts.append(_host(spec, counters, result))
        elif spec["kind"] == "machine":
            devices = _DEVICES if spec.get("devices") else ()
            named = _MEMORY + _FAULTS + _FRAMES + _TRANSLATION + _DATA_CACHE + devices
            named += _ALLOCATIONS if "alloc_count" in counters else ()
            named += _PROGRAMS if any("program" in process for process in spec.get("processes", ())) else ()
            machines.append({"name": spec["id"], **_pick(counters, named), **_time(counters)})
    return {"simulated_ns": result.end_ns, "hosts": hosts, "machines": machines}


def _host(spec: dict[str, Any], counters: Counters, result: FleetResult) -> dict[str, Any]:
    guests = []
    for index, guest in enumerate(spec["guests"]):
        own = result.counters[guest["machine"]]
        guests.append(
            {
                "name": guest["id"],
                "touched_pages": own.get("touched_pages", 0),
                "rss_pages": counters.get(f"guest.{index}.rss_pages", 0),
                "ksm_pages": counters.get(f"guest.{index}.ksm_pages", 0),
                "swapped_pages": counters.get(f"guest.{index}.swapped_pages", 0),
                **_time(own),
            }
        )
    zero_pages = counters.get("ksm.ksm_zero_pages", 0)  # use_zero_pages: mapped to the kernel's zero page
    needed = zero_pages + sum(guest["rss_pages"] + guest["swapped_pages"] for guest in guests)
    saved = zero_pages + counters.get("ksm.pages_sharing", 0)
    from_zero = zero_pages + counters.get("ksm.sharing_zero", 0)
    run_ns = sum(guest["run_ns"] for guest in guests)
    stall_ns = sum(guest["stall_ns"] for guest in guests)
    return {
        "name": spec["id"],
        "memory_pages": spec["memory_bytes"] // PAGE_SIZE,
        "needed_without_merging_pages": needed,
        "needed_with_merging_pages": needed - saved,
        "saved_pages": saved,
        "saved_from_zero_pages": from_zero,
        "saved_from_other_pages": saved - from_zero,
        **_pick(counters, _KSM + _MEMORY + _FAULTS),
        "run_ns": run_ns,
        "stall_ns": stall_ns,
        "slowdown": _slowdown(run_ns, stall_ns),
        "guests": guests,
    }


def _pick(counters: Counters, names: tuple[str, ...]) -> Counters:
    return {name: counters.get(name, 0) for name in names}


def _time(counters: Counters) -> dict[str, Any]:
    run_ns, stall_ns = counters.get("run_ns", 0), counters.get("stall_ns", 0)
    return {"run_ns": run_ns, "stall_ns": stall_ns, "slowdown": _slowdown(run_ns, stall_ns)}


def _slowdown(run_ns: int, stall_ns: int) -> float | None:
    return round((run_ns + stall_ns) / run_ns, _SLOWDOWN_DECIMALS) if run_ns > 0 else None


def print_summary(summary: dict[str, Any], footer: dict[str, str]) -> None:
    """Print the tables of a run to stdout."""
    print_tables(_tables(summary), footer)


def print_tables(tables: list[tuple[str, Rows]], footer: dict[str, str]) -> None:
    """Print titled tables to stdout: with rules and colours on a terminal, plain text elsewhere."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    on_terminal = sys.stdout.isatty()
    console = Console(file=sys.stdout, highlight=False, width=None if on_terminal else _PLAIN_WIDTH)
    for title, rows in tables:
        style = box.ROUNDED if on_terminal else box.ASCII2
        console.print(title)
        table = Table(box=style)
        for column, heading in enumerate(rows[0]):
            table.add_column(heading, justify="right" if column else "left", no_wrap=True)
        for row in rows[1:]:
            table.add_row(*row)
        console.print(table)
    for name, value in footer.items():
        sys.stdout.write(f"{name}: {value}\n")


def print_json(value: object) -> None:
    """Print a result for programs: one JSON document, nothing else."""
    sys.stdout.write(json.dumps(value, indent=2) + "\n")


def _tables(summary: dict[str, Any]) -> list[tuple[str, Rows]]:
    tables = []
    for host in summary["hosts"]:
        tables.append((f"Host {host['name']}", _host_rows(host)))
        tables.append((f"Guests of {host['name']}", _guest_rows(host["guests"])))
    if summary["machines"]:
        tables.append(("Machines", _machine_rows(summary["machines"])))
        tables.append(("Address translation", _translation_rows(summary["machines"])))
        if any(machine["dcache_hit"] + machine["dcache_miss"] for machine in summary["machines"]):
            tables.append(("Data caches", _data_cache_rows(summary["machines"])))
        with_programs = [machine for machine in summary["machines"] if "nr_committed" in machine]
        if with_programs:
            tables.append(("Memory of programs", _program_rows(with_programs)))
        with_devices = [machine for machine in summary["machines"] if "dma_transfers" in machine]
        if with_devices:
            tables.append(("Devices", _device_rows(with_devices)))
        with_traces = [machine for machine in summary["machines"] if "alloc_count" in machine]
        if with_traces:
            tables.append(("Allocations of the kernel", _allocation_rows(with_traces)))
    return tables


def _host_rows(host: dict[str, Any]) -> Rows:
    counted = [
        ("merged pages (pages_shared)", "ksm.pages_shared"),
        ("mappings of them beyond the first (pages_sharing)", "ksm.pages_sharing"),
        ("swapped in, pages (pswpin)", "pswpin"),
        ("swapped out, pages (pswpout)", "pswpout"),
        ("guests killed for memory (oom_kill)", "oom_kill"),
    ]
    sizes = [
        ("memory", "memory_pages"),
        ("needed without merging", "needed_without_merging_pages"),
        ("needed with merging", "needed_with_merging_pages"),
        ("saved by merging pages of zeroes", "saved_from_zero_pages"),
        ("saved by merging other pages", "saved_from_other_pages"),
        ("swap in use", "nr_swap_used"),
    ]
    rows = [["", "at the end"]]
    rows += [[label, format_pages(host[key])] for label, key in sizes]
    rows += [[label, f"{host[key]:,}"] for label, key in counted]
    rows.append(["slowdown of its guests", format_ratio(host["slowdown"])])
    return rows


def _guest_rows(guests: list[dict[str, Any]]) -> Rows:
    rows = [["guest", "touched", "resident", "merged", "swapped", "stalled", "slowdown"]]
    for guest in guests:
        sizes = [
            format_pages(guest[key]) for key in ("touched_pages", "rss_pages", "ksm_pages", "swapped_pages")
        ]
        rows.append(
            [guest["name"], *sizes, format_duration(guest["stall_ns"]), format_ratio(guest["slowdown"])]
        )
    return rows


def _machine_rows(machines: list[dict[str, Any]]) -> Rows:
    rows = [["machine", "free", "faults", "major faults", "swapped in", "swapped out", "slowdown"]]
    for machine in machines:
        counted = [f"{machine[key]:,}" for key in ("pgfault", "pgmajfault", "pswpin", "pswpout")]
        rows.append(
            [
                machine["name"],
                format_pages(machine["nr_free_pages"]),
                *counted,
                format_ratio(machine["slowdown"]),
            ]
        )
    return rows


def _translation_rows(machines: list[dict[str, Any]]) -> Rows:
    rows = [
        [
            "machine",
            "accesses",
            "second level",
            "walks",
            "entries a walk",
            "refill traps",
            "into the kernel",
            "CR3 writes",
            "that flush",
            "flush IPIs",
            "time",
        ]
    ]
    counted = ("refill_trap", "kernel_entry", "cr3_write", "cr3_flush", "nr_tlb_remote_flush_received")
    for machine in machines:
        walks = machine["tlb_walk"] + machine["itlb_walk"]
        rows.append(
            [
                machine["name"],
                f"{machine['memory_access']:,}",
                f"{machine['tlb_l2_hit'] + machine['itlb_l2_hit']:,}",
                f"{walks:,}",
                f"{machine['walk_references'] / walks:.2f}" if walks else "-",
                *[f"{machine[key]:,}" for key in counted],
                format_duration(machine["run_ns"]),
            ]
        )
    return rows


def _data_cache_rows(machines: list[dict[str, Any]]) -> Rows:
    rows = [["machine", "hits", "misses", "of them synonyms", "write-backs", "lines invalidated"]]
    return rows + [[machine["name"], *[f"{machine[key]:,}" for key in _DATA_CACHE]] for machine in machines]


def _program_rows(machines: list[dict[str, Any]]) -> Rows:
    rows = [
        [
            "machine",
            "faults",
            "committed",
            "anonymous",
            "page tables",
            "copied",
            "reused",
            "reverse walks",
            "areas a walk",
        ]
    ]
    for machine in machines:
        walks = machine["rmap_walk"]
        counted = ("nr_committed", "nr_anon_pages", "nr_page_table_pages", "fault.wp_copied", "pgreuse")
        rows.append(
            [
                machine["name"],
                *[f"{machine[key]:,}" for key in ("pgfault", *counted, "rmap_walk")],
                f"{machine['rmap_area'] / walks:.2f}" if walks else "-",
            ]
        )
    return rows


def _device_rows(machines: list[dict[str, Any]]) -> Rows:
    rows = [
        [
            "machine",
            "transfers",
            "segments",
            "bytes",
            "bounced",
            "errors",
            "bus cycles",
            "stolen",
            "longest stop",
            "waited",
        ]
    ]
    for machine in machines:
        counted = [f"{machine[key]:,}" for key in _DEVICES]
        rows.append([machine["name"], *counted, format_duration(machine["stall_ns"])])
    return rows


def _allocation_rows(machines: list[dict[str, Any]]) -> Rows:
    rows = [["machine", "allocated", "freed", "failed", "asked for", "held", "cycles each", *_WAYS]]
    for machine in machines:
        nr_operations = max(machine["alloc_count"] + machine["alloc_free_count"], 1)
        ways = [machine[f"alloc_path_{way}"] + machine.get(f"free_path_{way}", 0) for way in _WAYS]
        rows.append(
            [
                machine["name"],
                *[f"{machine[key]:,}" for key in ("alloc_count", "alloc_free_count", "alloc_failures")],
                *[format_size(machine[key]) for key in ("alloc_asked_bytes", "alloc_held_bytes")],
                f"{(machine['alloc_cycles'] + machine['alloc_free_cycles']) // nr_operations:,}",
                *[f"{count:,}" for count in ways],
            ]
        )
    return rows


def format_pages(pages: int) -> str:
    """Write a number of pages as a size."""
    return format_size(pages * PAGE_SIZE)


def format_ratio(slowdown: float | None) -> str:
    """Write a slowdown; a dash where nothing ran."""
    return "-" if slowdown is None else f"{slowdown:.3f}"
