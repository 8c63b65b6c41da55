"""Turn a scenario into the members of a fleet: who exists, in which order, and who runs beside whom.

A *member* is one simulated thing with a state of its own. A *cell* is what moves in step: a host with its
guests, or plain machines that share a server. Cells do not wait for one another. A *server* holds members;
on Ray it is one actor.

    hosts:    host0 --> cell 0: servers [g0 g1 g2 g3] [g4 g5 g6 g7] [g8]  and the host's own [host0]
    machines: m0 x6 --> cell 1: server  [m0-0 m0-1 m0-2 m0-3]      cell 2: server [m0-4 m0-5]

Members are numbered in the order of the file, a host before its guests. How they are packed into servers
changes no result: a plain machine stops when it has finished, whatever the others of its server do.

A member's spec is a dict of integers, text and nested such (bytes, nanoseconds), what ``node.machine`` builds
from and what travels to an actor:

    every member  id, name, kind (host, guest, image, machine), seed, machine (its number, which with the seed
                  keys its random streams), epoch_ns, check_invariants
    machine-like  memory_bytes, cpus, vm{}, ksm{}, thp{}, swap{size_bytes, device} or None, era, hw{tlb{}, cost{},
                  clock_mhz, data_cache{mode, sets, ways, line_bytes}, and what else the scenario says of it by
                  the keys of node/hw/hardware.py:resolve_hw}; device is a preset's name or {latency_ns,
                  bandwidth_bytes_per_s, queue_depth}; allocator, slob_policy (None: the era's), slab_debug;
                  numa{nodes, distances}, movablecore_bytes, device_bytes
    host          guests: the specs of its guests, in order
    guest, image  host (its id), guest (its index there), start_offset_ns
    image         image (path), memory_bytes, variant (0: as recorded), presence, replay
    guest,        processes: {workload, memory_bytes, operations, write_percent, cpu, skew_thousandths,
    machine       mergeable, think_ns}, {workload: dma, memory_bytes, operations, device (its index in devices),
                  direction, coherent, cpu, think_ns}, {trace: path, windows, loops, cpu, huge_pages},
                  {allocations: {pattern, operations, cpus, live, trace_seed} or {path}, loops, think_ns} or
                  {program: path, text}; devices: the fields of node.spec.DeviceSpec; trace_bytes: real memory
                  that its traces take
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from cluster.allocations import allocations_spec
from cluster.config import (
    Host,
    ImageGuests,
    Machine,
    MachineBody,
    MachineGuests,
    Program,
    Scenario,
    Trace,
    Workload,
)
from cluster.config_allocations import Allocations
from cluster.config_computer import Computer, Swap, SwapDevice
from cluster.config_devices import Device, Transfers
from cluster.config_hardware import Hardware
from cluster.errors import InputError, one_line
from cluster.scenario_file import read_text
from node.program.names import check_text
from node.program.text import ProgramError
from shared.alloc_traces import AllocTrace, check_cpus, load_alloc_trace
from shared.constants import PAGE_SIZE
from shared.images import check_image
from shared.streams import splitmix64
from shared.traces import WINDOWS, load_trace

Spec = dict[str, Any]

DATA: Final = Path(__file__).resolve().parent.parent / "scenarios" / "data"
TRACES: Final = DATA / "traces"
MAX_MEMBERS: Final = 16384
# DESIGN's budgets: what a member may cost in real memory.
MEMBER_BYTES: Final = 100 << 20
FRAME_BYTES: Final = 80
MERGEABLE_PAGE_BYTES: Final = 64
TRACE_RUN_BYTES: Final = 8
ALLOC_EVENT_BYTES: Final = 20
ALLOC_OBJECT_BYTES: Final = 16
_VARIANT_SHIFT: Final = 1  # a variant is a non-negative int64


@dataclass(frozen=True, slots=True)
class Cell:
    """Members that move in step: numbers of members, packed into servers, and their host's."""

    runners: tuple[tuple[int, ...], ...]
    host: int | None


@dataclass(frozen=True, slots=True)
class Plan:
    """A fleet, ready to be built."""

    specs: tuple[Spec, ...]
    cells: tuple[Cell, ...]
    duration_ns: int
    epoch_ns: int
    checkpoint_every_ns: int
    metrics_every_ns: int
    check_invariants: bool = False

    @property
    def nr_guests(self) -> int:
        """How many members are guests or plain machines."""
        return sum(spec["kind"] != "host" for spec in self.specs)


def make_plan(scenario: Scenario, file: Path) -> Plan:
    """List the members of ``scenario``, with the images and programs it names found and checked.

    Paths are relative to ``file``. Raises ``InputError`` for an image or program that is missing or
    wrong, two members of one name, or too many members.
    """
    planner = _Planner(scenario, file)
    for index, host in enumerate(scenario.hosts):
        planner.add_host(host, f"hosts.{index}")
    for index, machine in enumerate(scenario.machines):
        planner.add_machines(machine, f"machines.{index}")
    return Plan(
        specs=tuple(planner.specs),
        cells=tuple(planner.cells),
        duration_ns=scenario.duration,
        epoch_ns=scenario.epoch,
        checkpoint_every_ns=scenario.checkpoint_every,
        metrics_every_ns=scenario.metrics_every,
        check_invariants=scenario.check_invariants,
    )


def list_members(plan: Plan) -> list[dict[str, str | None]]:
    """Return who is in a fleet, in order: name, kind, and a guest's host."""
    return [{"name": spec["id"], "kind": spec["kind"], "host": spec.get("host")} for spec in plan.specs]


def real_bytes_needed(plan: Plan) -> int:
    """Estimate the real memory that the fleet takes, from the budget of each kind of member."""
    total = 0
    for spec in plan.specs:
        nr_frames = (spec["memory_bytes"] + spec.get("device_bytes", 0)) // PAGE_SIZE
        total += MEMBER_BYTES + nr_frames * FRAME_BYTES + spec.get("trace_bytes", 0)
        for guest in spec.get("guests", ()):
            total += guest["memory_bytes"] // PAGE_SIZE * MERGEABLE_PAGE_BYTES
    return total


class _Planner:
    """Collects members and cells in the order of the file."""

    def __init__(self, scenario: Scenario, file: Path) -> None:
        self.scenario = scenario
        self.file = file
        self.specs: list[Spec] = []
        self.cells: list[Cell] = []
        self._image_pages: dict[Path, int] = {}
        self._trace_runs: dict[Path, list[int]] = {}  # of each window
        self._alloc_traces: dict[Path, AllocTrace] = {}
        self._taken: set[str] = set()

    def add_host(self, host: Host, place: str) -> None:
        spec = self._add(host.name, "host", place)
        guests: list[Spec] = []
        for index, entry in enumerate(host.guests):
            at = f"{place}.guests.{index}"
            for copy in range(entry.count):
                base = entry.name or (Path(entry.image).stem if isinstance(entry, ImageGuests) else "guest")
                name = self._free_name(f"{host.name}.{base}", copy, entry.count)
                kind = "image" if isinstance(entry, ImageGuests) else "guest"
                guest = self._add(name, kind, at)
                guest |= {"host": spec["id"], "guest": len(guests), "start_offset_ns": entry.start_offset}
                guest |= (
                    self._image(entry, copy, at) if isinstance(entry, ImageGuests) else self._guest(entry, at)
                )
                self.specs[guest["machine"]] = guest
                guests.append(guest)
        spec |= {"memory_bytes": host.memory, "cpus": host.cpus, **self._kernel(host), "guests": guests}
        numbers = [guest["machine"] for guest in guests]
        self.cells.append(Cell(runners=self._packed(numbers), host=spec["machine"]))

    def add_machines(self, machine: Machine, place: str) -> None:
        numbers = []
        for copy in range(machine.count):
            spec = self._add(self._free_name(machine.name, copy, machine.count), "machine", place)
            spec |= self._body(machine, place)
            numbers.append(spec["machine"])
        self.cells.extend(Cell(runners=(packed,), host=None) for packed in self._packed(numbers))

    def _add(self, name: str, kind: str, place: str) -> Spec:
        if name in self._taken:
            raise InputError(f"{self.file}: {place}.name: {name!r} stands for more than one member")
        if len(self.specs) == MAX_MEMBERS:
            raise InputError(f"{self.file}: {place}.count: more than {MAX_MEMBERS} members")
        self._taken.add(name)
        spec: Spec = {
            "id": name,
            "name": name,
            "kind": kind,
            "seed": self.scenario.seed,
            "machine": len(self.specs),
            "epoch_ns": self.scenario.epoch,
            "check_invariants": self.scenario.check_invariants,
        }
        self.specs.append(spec)
        return spec

    def _free_name(self, base: str, copy: int, count: int) -> str:
        """Return the name of a copy: numbered where there are several, or where the plain name is taken."""
        if count == 1 and base not in self._taken:
            return base
        number = copy
        while f"{base}-{number}" in self._taken:
            number += 1
        return f"{base}-{number}"

    def _packed(self, numbers: list[int]) -> tuple[tuple[int, ...], ...]:
        size = self.scenario.machines_per_actor
        return tuple(tuple(numbers[at : at + size]) for at in range(0, len(numbers), size))

    def _guest(self, entry: MachineGuests, place: str) -> Spec:
        return self._body(entry.machine, f"{place}.machine")

    def _body(self, body: MachineBody, place: str) -> Spec:
        processes = []
        for index, process in enumerate(body.processes):
            at = f"{place}.processes.{index}"
            if isinstance(process, Program):
                processes.append(self._program(process, f"{at}.program"))
            elif isinstance(process, Trace):
                processes.append(self._trace(process, f"{at}.trace"))
            elif isinstance(process, Allocations):
                processes.append(self._allocations(process, body.cpus, f"{at}.allocations"))
            elif isinstance(process, Transfers):
                processes.append(_transfers(process, body.devices))
            else:
                processes.append(_workload(process))
        return {
            "memory_bytes": body.memory,
            "cpus": body.cpus,
            **self._kernel(body),
            "devices": [device.spec() for device in body.devices],
            "processes": processes,
            "trace_bytes": self._trace_bytes(processes) + self._allocations_bytes(processes),
        }

    def _kernel(self, body: Computer) -> Spec:
        return {
            "vm": body.vm.model_dump(),
            "numa": body.numa.spec(),
            "movablecore_bytes": body.movablecore,
            "device_bytes": body.device_memory,
            "ksm": body.ksm.model_dump(),
            "thp": body.thp.model_dump(),
            "swap": _swap(body.swap),
            "hw": _hardware(body.hw),
            "era": body.era or self.scenario.era,
            "allocator": body.allocator,
            "slob_policy": body.slob_policy,
            "slab_debug": body.slab_debug,
        }

    def _program(self, process: Program, place: str) -> Spec:
        path = self.file.parent / process.program
        try:
            text = read_text(path)
            check_text(text)
        except InputError as error:
            raise InputError(f"{self.file}: {place}: {error}") from None
        except ProgramError as error:
            raise InputError(f"{self.file}: {place}: {path}: {error}") from None
        return {"program": process.program, "text": text}

    def _trace(self, process: Trace, place: str) -> Spec:
        path = self._find(process.trace, TRACES, place)
        if path not in self._trace_runs:
            try:
                self._trace_runs[path] = [len(window.page) for window in load_trace(path).windows]
            except ValueError as error:
                raise InputError(f"{self.file}: {place}: {one_line(error)}") from None
        return {
            "trace": str(path),
            "windows": list(WINDOWS) if process.window == "both" else [process.window],
            "loops": process.loops,
            "cpu": process.cpu,
            "huge_pages": process.huge_pages,
        }

    def _trace_bytes(self, processes: list[Spec]) -> int:
        """Return what the runs of a machine's traces take; processes that replay the same share them."""
        replayed = {(spec["trace"], *spec["windows"]) for spec in processes if "trace" in spec}
        return TRACE_RUN_BYTES * sum(
            self._trace_runs[Path(path)][window] for path, *windows in replayed for window in windows
        )

    def _allocations(self, process: Allocations, nr_cpus: int, place: str) -> Spec:
        if process.is_generated:
            return allocations_spec(process, None)
        path = self._find(process.allocations, TRACES, place)
        try:
            if path not in self._alloc_traces:
                self._alloc_traces[path] = load_alloc_trace(path)
            check_cpus(str(path), self._alloc_traces[path], nr_cpus)
        except ValueError as error:
            raise InputError(f"{self.file}: {place}: {one_line(error)}") from None
        return allocations_spec(process, path)

    def _allocations_bytes(self, processes: list[Spec]) -> int:
        """Return what the events and objects of a machine's allocation traces take."""
        total = 0
        for spec in processes:
            source = spec.get("allocations")
            if source is None:
                continue
            recorded = self._alloc_traces[Path(source["path"])] if "path" in source else None
            # Each object of a generated trace has one event at least.
            nr_events = source["operations"] if recorded is None else recorded.nr_events
            nr_objects = source["operations"] if recorded is None else recorded.nr_allocations
            total += ALLOC_EVENT_BYTES * nr_events + ALLOC_OBJECT_BYTES * nr_objects
        return total

    def _image(self, entry: ImageGuests, copy: int, place: str) -> Spec:
        path = self._find_image(entry.image, f"{place}.image")
        variant = 0
        if entry.variant_seed or copy:
            variant = splitmix64(entry.variant_seed, copy) >> _VARIANT_SHIFT
        return {
            "image": str(path),
            "memory_bytes": self._image_pages[path] * PAGE_SIZE,
            "variant": variant,
            "presence": entry.presence,
            "replay": entry.replay,
        }

    def _find_image(self, image: str, place: str) -> Path:
        path = self._find(image, DATA, place)
        if path not in self._image_pages:
            try:
                self._image_pages[path] = check_image(path)
            except ValueError as error:
                raise InputError(f"{self.file}: {place}: {one_line(error)}") from None
        return path

    def _find(self, name: str, folder: Path, place: str) -> Path:
        """Return the recording that a scenario calls ``name``: beside itself, or one of the project's."""
        file_name = name if name.endswith((".npz", ".csv")) else f"{name}.npz"
        tried = [self.file.resolve().parent / file_name, folder / file_name]
        path = next((candidate for candidate in tried if candidate.is_file()), None)
        if path is None:
            folders = " or ".join(str(candidate.parent) for candidate in tried)
            raise InputError(f"{self.file}: {place}: {name!r}: no {tried[0].name} in {folders}")
        return path


def _swap(swap: Swap | None) -> Spec | None:
    if swap is None:
        return None
    return {"size_bytes": swap.size, "device": _device(swap.device)}


def _device(device: str | SwapDevice) -> str | Spec:
    if isinstance(device, str):
        return device
    return {
        "latency_ns": device.latency,
        "bandwidth_bytes_per_s": device.bandwidth,
        "queue_depth": device.queue_depth,
    }


def _hardware(hw: Hardware) -> Spec:
    """Return what the scenario says of the hardware; what it does not say, node/hw/hardware.py knows."""
    spec = {"tlb": {}, **hw.keys(), "cost": dict(hw.cost), "clock_mhz": hw.clock_ghz}
    if "data_cache" in hw.model_fields_set:
        cache = hw.data_cache
        spec["data_cache"] = {
            "mode": cache.mode,
            "sets": cache.sets,
            "ways": cache.ways,
            "line_bytes": cache.line_bytes,
        }
    return spec


def _transfers(process: Transfers, devices: tuple[Device, ...]) -> Spec:
    return {
        "workload": process.workload,
        "memory_bytes": process.memory,
        "operations": process.operations,
        "device": [device.name for device in devices].index(process.device),
        "direction": process.direction,
        "coherent": process.buffer == "coherent",
        "cpu": process.cpu,
        "think_ns": process.think_ns,
    }


def _workload(process: Workload) -> Spec:
    return {
        "workload": process.workload,
        "memory_bytes": process.memory,
        "operations": process.operations,
        "write_percent": process.write_percent,
        "cpu": process.cpu,
        "skew_thousandths": process.skew,
        "mergeable": process.mergeable,
        "think_ns": process.think_ns,
    }
