"""What a driver noted in one boot, read into numbers by the goldens' names.

= file vmstat            vmstat.pgfault, vmstat.nr_anon_pages ...
= proc A stat            proc.A.minflt, proc.A.majflt
= map A h                proc.A.map.h.present ...
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from tests.kernel.errors import BootError

MINFLT: Final = 7  # of the words of /proc/PID/stat behind the name
MAJFLT: Final = 9
BLOCK_STATS: Final = {"reads": 0, "read_sectors": 2, "writes": 4, "write_sectors": 6}  # of a disk's stat file
SNAPSHOT_WORDS: Final = 4


@dataclass(slots=True)
class Snapshot:
    """Every counter at one moment of one run."""

    name: str
    t_ms: int
    values: dict[str, int] = field(default_factory=dict)
    resident: dict[str, list[list[int]]] = field(default_factory=dict)  # by file: ranges [start, length]


@dataclass(slots=True)
class Run:
    """One boot."""

    machine: dict[tuple[str, ...], list[str]] = field(default_factory=dict)  # by heading: lines
    snapshots: list[Snapshot] = field(default_factory=list)
    deaths: list[dict[str, str | int]] = field(default_factory=list)


def parse_run(text: str) -> Run:
    """Return what a driver noted. Raises ``BootError`` if it gave up or did not get to its end."""
    run = Run()
    for heading, lines in _sections(text.replace("\r", "")):
        match heading:
            case ["end"]:
                return run
            case ["error", number]:
                where = f"line {number}: " if number != "0" else ""
                raise BootError(f"{where}{lines[0] if lines else 'the driver gave up'}")
            case ["snapshot", name, t_ms]:
                run.snapshots.append(Snapshot(name, int(t_ms)))
            case ["died", name, signal]:
                after = run.snapshots[-1].name if run.snapshots else ""
                run.deaths.append({"process": name, "signal": int(signal), "after": after})
            case ["proc", name, "dead"] if all(death["process"] != name for death in run.deaths):
                pass  # it ended by itself
            case _ if run.snapshots:
                _note(run.snapshots[-1], heading, lines)
            case _:
                run.machine[tuple(heading)] = lines
    raise BootError("the driver's output has no end: the machine stopped before")


def _sections(text: str) -> Iterator[tuple[list[str], list[str]]]:
    heading: list[str] = []
    lines: list[str] = []
    for line in text.split("\n"):
        if line.startswith("= "):
            if heading:
                yield heading, lines
            heading, lines = line.split()[1:], []
        elif line or heading[:1] == ["machine"]:
            lines.append(line)
    if heading:
        yield heading, lines


def _note(snapshot: Snapshot, heading: list[str], lines: list[str]) -> None:
    values = snapshot.values
    match heading:
        case ["file", "vmstat"]:
            values |= {f"vmstat.{key}": value for key, value in _pairs(lines)}
        case ["file", "meminfo"]:
            values |= {f"meminfo.{key}": value for key, value in meminfo(lines).items()}
        case ["file", "buddyinfo"]:
            for line in lines:
                words = line.split()
                values |= {f"buddy.{words[3]}.order{i}": int(count) for i, count in enumerate(words[4:])}
        case ["file", "swaps"]:
            for line in lines[1:]:
                path, _, _, used, _ = line.split()
                values[f"swaps.{path.rsplit('/', 1)[-1]}.used_kb"] = int(used)
        case ["ksm", name]:
            values[f"ksm.{name}"] = int(lines[0])
        case ["blk", disk, "stat"]:
            words = lines[0].split()
            values |= {f"blk.{disk}.{name}": int(words[at]) for name, at in BLOCK_STATS.items()}
        case ["proc", name, what]:
            values |= {f"proc.{name}.{key}": value for key, value in _process(what, lines)}
        case ["map", name, mapping]:
            values |= {f"proc.{name}.map.{mapping}.{key}": value for key, value in _pairs(lines)}
        case ["mincore", path]:
            ranges = [[int(word) for word in line.split()] for line in lines]
            snapshot.resident[path] = ranges
            name = path.rsplit("/", 1)[-1]
            values[f"mincore.{name}.resident"] = sum(length for _, length in ranges)
            values[f"mincore.{name}.nruns"] = len(ranges)
        case _:
            raise BootError(f"the driver's output has a section that is not known: {' '.join(heading)}")


def _pairs(lines: list[str]) -> Iterator[tuple[str, int]]:
    for line in lines:
        key, value = line.split()
        yield key, int(value)


def meminfo(lines: list[str]) -> dict[str, int]:
    """Return /proc/meminfo's values in kB."""
    return {line.split(":")[0]: int(line.split(":")[1].split()[0]) for line in lines}


def _process(what: str, lines: list[str]) -> Iterator[tuple[str, int]]:
    match what:
        case "dead":
            yield "dead", 1
        case "stat":
            # The name may hold anything, so what counts is behind its last parenthesis.
            words = lines[0].rsplit(")", 1)[1].split()
            yield "dead", 0
            yield "minflt", int(words[MINFLT])
            yield "majflt", int(words[MAJFLT])
        case "status":
            for line in lines:
                if match := re.match(r"((?:Vm|Rss)\w+):\s+(\d+) kB", line):
                    yield match[1], int(match[2])
        case "smaps_rollup":
            for line in lines[1:]:
                key, value, _ = line.split()
                yield f"smaps.{key.rstrip(':')}", int(value)
        case _:
            yield what, int(lines[0])
