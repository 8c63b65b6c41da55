"""``python -m benchmarks.convergence``: what the length of an epoch does to swap traffic and stall.

Guests and their host exchange messages at the borders of epochs, so within one a guest acts on what it was
told at the last border. The shorter the epoch, the less that matters; this runs the same hosts at 10, 50, 100
and 500 ms and prints how far each is from the first.

    images     four recorded guests (256 MiB each, 828 MiB touched) for 140 s, as recorded; 5 seeds
    machines   four full machines, each with a Zipf workload over 60 MiB: for 10 s and 5 seeds on the SSD; on the
               disk, which serves 86 reads in a second, for 60 s and, since runs differ more, 20 seeds

Each kind runs on a host that has, besides its own kernel's, half of the memory that its guests touch, with swap
on an SSD and on a disk, and with several seeds. A seed draws other moments of change or other pages, so
what lies between the seeds says how much of a difference is chance: a difference counts as the epoch's only
as far as it is the same for all. KSM is off, so that all that is missing has to be swapped.

Exit status: 0 every difference at the default epoch is within 5 %; 1 one is not; 2 wrong usage.
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any, Final

from node.kmap.physical_map import KERNEL_PAGES
from node.machine import build_member
from shared.constants import MIB, NS_PER_MS, NS_PER_S, PAGE_SIZE
from shared.images import HostState, load_image
from shared.messages import HostPhase, RunUntil

DATA: Final = Path(__file__).resolve().parent.parent / "scenarios" / "data"
IMAGES: Final = ("idle-a", "nginx-a", "python-a", "gcc-a")
DEVICES: Final = ("ssd", "hdd")
EPOCHS_MS: Final = (10, 50, 100, 500)
DEFAULT_EPOCH_MS: Final = 100
LIMIT_PERCENT: Final = 5.0
OVERCOMMIT: Final = 2
NR_MACHINES: Final = 4
MACHINE_BYTES: Final = 128 * MIB
ZIPF_BYTES: Final = 60 * MIB
# Computing between two accesses: 500,000 accesses in a second in which nothing stalls.
THINK_NS: Final = 2_000
# Of guests and device: the simulated span in s, and the number of seeds.
SPANS: Final = {
    ("images", "ssd"): (140, 5),
    ("images", "hdd"): (140, 5),
    ("machines", "ssd"): (10, 5),
    ("machines", "hdd"): (60, 20),
}
SWAP_BYTES: Final = 2048 * MIB
MEASURES: Final = ("pswpin", "pswpout", "stall_s")
PERCENT: Final = 100
MISSED: Final = 1


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one run came to: pages swapped in and out, and the stall of all guests."""

    pswpin: int
    pswpout: int
    stall_s: float


@dataclass(frozen=True, slots=True)
class Row:
    """One epoch length of one case: each measure's mean and deviation, and its difference to the first's.

    ``difference`` is the mean over the seeds of the difference to the same seed's run at the first epoch, in
    percent of that epoch's mean; ``noise`` the standard error of that mean.
    """

    epoch_ms: int
    mean: dict[str, float]
    deviation: dict[str, float]
    difference: dict[str, float]
    noise: dict[str, float]


def image_guests(seed: int) -> tuple[list[dict[str, Any]], int]:
    """Return the recorded guests, and how many bytes they touch."""
    specs, touched = [], 0
    for index, name in enumerate(IMAGES):
        path = DATA / f"{name}.npz"
        image = load_image(path)
        touched += int((image.host_state != HostState.ABSENT).any(axis=0).sum()) * PAGE_SIZE
        specs.append(
            {
                "kind": "image",
                "image": str(path),
                "memory_bytes": image.nr_pages * PAGE_SIZE,
                "seed": seed,
                "machine": index + 1,
                "guest": index,
            }
        )
    return specs, touched


def machine_guests(seed: int) -> tuple[list[dict[str, Any]], int]:
    """Return the full machines, and how many bytes their workloads touch."""
    process = {
        "workload": "zipf",
        "memory_bytes": ZIPF_BYTES,
        "operations": 0,
        "write_percent": 50,
        "think_ns": THINK_NS,
    }
    specs = [
        {
            "kind": "guest",
            "memory_bytes": MACHINE_BYTES,
            "processes": [process],
            "seed": seed,
            "machine": index + 1,
            "guest": index,
        }
        for index in range(NR_MACHINES)
    ]
    return specs, NR_MACHINES * ZIPF_BYTES


GUESTS: Final = {"images": image_guests, "machines": machine_guests}


def run(kind: str, device: str, epoch_ms: int, seed: int, seconds: int) -> Outcome:
    """Run a host and its guests in this process, epoch by epoch."""
    specs, touched = GUESTS[kind](seed)
    host = build_member(
        {
            "kind": "host",
            "memory_bytes": (touched // OVERCOMMIT + KERNEL_PAGES * PAGE_SIZE) // MIB * MIB,
            "cpus": 2,
            "guests": specs,
            "seed": seed,
            "machine": 0,
            "swap": {"size_bytes": SWAP_BYTES, "device": device},
        }
    )
    guests = [build_member(spec) for spec in specs]
    answers = [b""] * len(guests)
    epoch_ns = epoch_ms * NS_PER_MS
    for epoch in range(seconds * NS_PER_S // epoch_ns):
        start, end = epoch * epoch_ns, (epoch + 1) * epoch_ns
        reports = tuple(
            guest.run_epoch(RunUntil(epoch, start, end, answer))
            for guest, answer in zip(guests, answers, strict=True)
        )
        answers = host.host_phase(HostPhase(epoch, start, end, reports))
    counters = host.counters()
    stall_ns = sum(guest.counters()["stall_ns"] for guest in guests)
    return Outcome(counters["pswpin"], counters["pswpout"], stall_ns / NS_PER_S)


def compare(outcomes: dict[int, list[Outcome]]) -> list[Row]:
    """Return a row for each epoch length; ``outcomes`` has the runs of all seeds by epoch, the shortest first."""
    first = next(iter(outcomes.values()))
    rows = []
    for epoch_ms, runs in outcomes.items():
        row = Row(epoch_ms, {}, {}, {}, {})
        for name in MEASURES:
            values = [getattr(run, name) for run in runs]
            base = [getattr(run, name) for run in first]
            scale = PERCENT / mean(base) if mean(base) else 0.0
            differences = [(value - at_first) * scale for value, at_first in zip(values, base, strict=True)]
            row.mean[name] = mean(values)
            row.deviation[name] = stdev(values)
            row.difference[name] = mean(differences)
            row.noise[name] = stdev(differences) / len(differences) ** 0.5
        rows.append(row)
    return rows


def describe(row: Row) -> str:
    """Lay a row out for the table."""
    cells = [f"{row.epoch_ms:>6}"]
    for name in MEASURES:
        digits = 2 if name == "stall_s" else 0
        level = f"{row.mean[name]:,.{digits}f} ±{row.deviation[name]:,.{digits}f}"
        cells.append(f"{level:>19} {row.difference[name]:+6.1f} ±{row.noise[name]:3.1f} %")
    return "".join(cells)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the command line asks for; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.convergence", description="What the length of an epoch changes."
    )
    parser.add_argument("--guests", choices=tuple(GUESTS), action="append", help="only these (both)")
    parser.add_argument("--device", choices=DEVICES, action="append", help="only this device (both)")
    parser.add_argument("--seeds", type=int, help="how many, from 2 (5 or 20)")
    parser.add_argument("--seconds", type=int, help="simulated span (140; machines 10 or 60)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to FILE too")
    options = parser.parse_args(arguments)
    if options.seeds is not None and options.seeds <= 1:
        parser.error("--seeds is at least 2: without a second one there is no deviation")
    if options.seconds is not None and options.seconds < 1:
        parser.error("--seconds is at least 1")
    worst, found = 0.0, []
    begin = time.monotonic()
    for kind in options.guests or tuple(GUESTS):
        for device in options.device or DEVICES:
            seconds, nr_seeds = SPANS[kind, device]
            seconds, nr_seeds = options.seconds or seconds, options.seeds or nr_seeds
            print(f"{kind} on {device}: {seconds} s, {nr_seeds} seeds", flush=True)
            heads = "".join(f"{name:>19} {'to first':>14}" for name in MEASURES)
            print(f"{'ms':>6}{heads}", flush=True)
            seeds = range(1, nr_seeds + 1)
            rows = compare(
                {
                    epoch_ms: [run(kind, device, epoch_ms, seed, seconds) for seed in seeds]
                    for epoch_ms in EPOCHS_MS
                }
            )
            for row in rows:
                print(describe(row), flush=True)
                if row.epoch_ms == DEFAULT_EPOCH_MS:
                    worst = max(worst, *(abs(value) for value in row.difference.values()))
            found.append({"guests": kind, "device": device, "rows": [asdict(row) for row in rows]})
    print(
        f"largest difference at {DEFAULT_EPOCH_MS} ms: {worst:.1f} % of {LIMIT_PERCENT:.0f} %; "
        f"{time.monotonic() - begin:.0f} s"
    )
    if options.json is not None:
        options.json.write_text(json.dumps(found, indent=2) + "\n")
    return MISSED if worst > LIMIT_PERCENT else 0


if __name__ == "__main__":
    sys.exit(main())
