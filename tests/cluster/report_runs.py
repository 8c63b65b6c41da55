"""Run directories for the report's tests: written by cluster/results.py, with samples from formulas."""

import json
from pathlib import Path
from typing import Any

from cluster.cell_run import sorted_samples
from cluster.checkpoints import SNAPSHOTS, CellCheckpoint, CheckpointStore, Event, PackedLook, Sample
from cluster.coordinator import OOM_KILL, FleetResult
from cluster.plan import Plan, Spec, list_members
from cluster.results import RunDirectory, new_manifest
from cluster.scenario_file import load_scenario
from cluster.summary import summarize
from shared.constants import NS_PER_S, PAGE_SIZE
from shared.look import Look, MemoryPicture, PicturedZone, Use, encode_look
from tests.cluster.fleets import plan_of, write_scenario

SECONDS = 60
GUEST_PAGES = 8192
CLASSES = {"file": 5, "anon": 2, "slab": 1, "free": 4, "kernel_other": 1}
MISSING_PID = 1 << 22
DMA_CELLS = 64  # of a picture, one frame each
NR_CELLS = 192


def study(**changes: Any) -> dict[str, Any]:
    """Two hosts, of three guests and one, and two plain machines, for a minute."""
    guest = {"machine": {"memory": "32MiB"}}
    ksm = {"model": "6.18", "pages_to_scan": 500, "use_zero_pages": 1}
    return {
        "name": "study",
        "description": "two hosts and two machines",
        "duration": f"{SECONDS}s",
        "hosts": [
            {
                "name": "big",
                "memory": "96MiB",
                "ksm": ksm,
                "swap": {"size": "64MiB", "device": "ssd"},
                "guests": [{"name": "web", "count": 2, **guest}, {"name": "db", **guest}],
            },
            {"name": "small", "memory": "64MiB", "ksm": {"run": 0}, "guests": [{"name": "lone", **guest}]},
        ],
        "machines": [{"name": "plain", "memory": "64MiB", "count": 2}],
    } | changes


def write_run(
    path: Path, content: dict[str, Any] | None = None, *, faster: int = 1, every_ns: int = NS_PER_S
) -> Path:
    """Write a finished run; ``faster`` times as fast to save memory."""
    plan, run = _begin(path, content or study())
    samples = _samples(plan, SECONDS * NS_PER_S, every_ns, faster)
    last = {number: counters for _, number, counters in samples}
    result = FleetResult(
        end_ns=SECONDS * NS_PER_S,
        digests=["ab"] * len(plan.specs),
        counters=[last[number] for number in range(len(plan.specs))],
        snapshots=[b""] * len(plan.specs),
        samples=samples,
        events=_events(plan),
        cpu_ns=0,
        looks=_looks(plan, SECONDS),
    )
    run.add_cost(12.5, 20.25)
    run.finish(plan, result, summarize(plan, result))
    return path


def write_interrupted_run(path: Path, *, seconds: int, error: str | None = None) -> Path:
    """Write a run whose driver died after its checkpoints at ``seconds``, 0 for none."""
    plan, run = _begin(path, study())
    if seconds:
        store = CheckpointStore(path / SNAPSHOTS)
        samples = _samples(plan, seconds * NS_PER_S, NS_PER_S, 1)
        for index, cell in enumerate(plan.cells):
            members = {number for packed in cell.runners for number in packed} | {cell.host}
            of_cell = [sample for sample in samples if sample[1] in members]
            looks = [look for look in _looks(plan, seconds) if look[1] in members]
            store.save(index, CellCheckpoint(seconds * 10, [], [], [], [], [], of_cell, looks))
    news = {} if error is None else {"error": error}
    run.write_manifest(driver=run.manifest["driver"] | {"pid": MISSING_PID}, **news)
    return path


def change_manifest(path: Path, **news: Any) -> None:
    """Change a manifest behind the program's back."""
    manifest = json.loads((path / "manifest.json").read_text())
    (path / "manifest.json").write_text(json.dumps(manifest | news))


def _begin(path: Path, content: dict[str, Any]) -> tuple[Plan, RunDirectory]:
    path.parent.mkdir(parents=True, exist_ok=True)
    plan = plan_of(path.parent, content)
    file = write_scenario(path.parent, content)
    resolved = load_scenario(file).model_dump(mode="json")
    manifest = new_manifest(resolved, file, "inline") | {"members": list_members(plan)}
    return plan, RunDirectory.create(path, manifest)


def _events(plan: Plan) -> list[Event]:
    killed = next((number for number, spec in enumerate(plan.specs) if spec["id"] == "big.db"), None)
    return [] if killed is None else [(50 * NS_PER_S, killed, OOM_KILL)]


def _samples(plan: Plan, end_ns: int, every_ns: int, faster: int) -> list[Sample]:
    make = {"host": _host, "guest": _runner, "image": _runner, "machine": _machine}
    return sorted_samples(
        [
            (time_ns, number, make[spec["kind"]](spec, time_ns * faster))
            for time_ns in range(every_ns, end_ns + 1, every_ns)
            for number, spec in enumerate(plan.specs)
        ]
    )


def _looks(plan: Plan, seconds: int) -> list[PackedLook]:
    """Every ten seconds of all but guests: memory of 192 cells that fills up, four cells a second."""
    zones = (PicturedZone(0, "DMA", 0, DMA_CELLS), PicturedZone(0, "DMA32", DMA_CELLS, NR_CELLS))
    looks = []
    for number, spec in enumerate(plan.specs):
        for time_s in range(10, seconds + 1, 10) if "host" not in spec else ():
            used = min(4 * time_s, NR_CELLS - 1)
            free = NR_CELLS - used - 1
            uses = bytes([Use.RESERVED] + [Use.USER] * used + [Use.FREE] * free)
            orders = bytes([0] * (used + 1) + [cell % 11 for cell in range(used + 1, NR_CELLS)])
            picture = MemoryPicture(0, zones, uses, orders)
            looks.append((time_s * NS_PER_S, number, encode_look(Look({"/proc/buddyinfo": "\n"}, picture))))
    return looks


def _host(spec: Spec, time_ns: int) -> dict[str, int]:
    """Guests fill up in 10 s, then ksmd halves them within 30 s, where it runs."""
    filled = min(time_ns, 10 * NS_PER_S) * GUEST_PAGES // (10 * NS_PER_S)
    merging = spec["ksm"]["run"] == 1
    merged = min(max(time_ns - 10 * NS_PER_S, 0), 30 * NS_PER_S) * 4000 // (30 * NS_PER_S) if merging else 0
    nr_guests = len(spec["guests"])
    sharing, swapped = merged * nr_guests, filled // 16 if merging else 0
    zero, shared = sharing // 8, sharing // 20
    counters = {
        "managed_pages": spec["memory_bytes"] // PAGE_SIZE - 500,
        "ksm.pages_shared": shared,
        "ksm.pages_sharing": sharing,
        "ksm.sharing_zero": sharing // 4,
        "ksm.ksm_zero_pages": zero,
        "ksm.pages_unshared": filled,
        "ksm.pages_volatile": filled // 3,
        "ksm.full_scans": time_ns // (7 * NS_PER_S) if merging else 0,
        "ksm.pages_scanned": time_ns // 40_000 if merging else 0,
        "ksm.pages_skipped": time_ns // 400_000 if merging else 0,
        "nr_swap_used": swapped * nr_guests,
        "pswpout": 2 * swapped * nr_guests,
        "pswpin": swapped * nr_guests,
    }
    used = 0
    for guest in range(nr_guests):
        resident = filled - swapped - zero // nr_guests
        counters |= {
            f"guest.{guest}.rss_pages": resident,
            f"guest.{guest}.ksm_pages": (sharing + shared) // nr_guests,
            f"guest.{guest}.swapped_pages": swapped,
            f"guest.{guest}.zero_pages": zero // nr_guests,
            f"guest.{guest}.killed": 0,
        }
        used += resident
    counters["nr_free_pages"] = max(counters["managed_pages"] - used + sharing - 200, 0)
    if merging:
        counters |= {f"merged_class.{name}": sharing * parts // 13 for name, parts in CLASSES.items()}
    return counters


def _runner(spec: Spec, time_ns: int) -> dict[str, int]:
    waited = time_ns // (20 - 4 * (spec["guest"] % 4))
    return {"run_ns": time_ns - waited, "stall_ns": waited, "touched_pages": GUEST_PAGES}


def _machine(spec: Spec, time_ns: int) -> dict[str, int]:
    operations = time_ns // 1000
    return {
        "managed_pages": 16000,
        "nr_free_pages": 9000,
        "nr_anon_pages": min(time_ns // 10**7, 6000),
        "operations": operations,
        "pgfault": operations // 500,
        "pgmajfault": operations // 50_000,
        "tlb_l1_hit": operations * 8 // 10,
        "tlb_l2_hit": operations // 10,
        "tlb_walk": operations - operations * 8 // 10 - operations // 10,
        "walk_references": operations // 3,
        "run_ns": time_ns,
        "stall_ns": time_ns // 100 * (spec["machine"] % 2),
    }
