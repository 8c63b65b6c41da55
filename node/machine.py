r"""A machine: a spec, its state, and what one does with it from Python.

    machine = Machine(MachineSpec(memory_bytes=512 * MIB, cpus=2))
    machine.run_program("spawn A\nA: mmap h 4M\nA: write h\nsnapshot written\n")
    machine.counters()["nr_anon_pages"]

This is the one module of ``node`` that others import; everything behind it works on ``machine.state``.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from node import checkpoint, procfs
from node.alloc_counters import alloc_counters
from node.build import build_state
from node.counters import Current, HwEvent, KsmRun
from node.dma_setup import device_counters
from node.fault.diagram import counter_name
from node.fault.outcome import FaultOutcome
from node.frame_kinds import frame_kinds
from node.golden_harness import Recorded
from node.ksm.ksmd import ksm_set_run
from node.phys.memory_picture import draw_memory
from node.proc.areas import Names
from node.proc.files import proc_bytes, proc_text, proc_texts
from node.proc.zones import populated_zones
from node.program.program import Program
from node.program.run import ProgramResult
from node.sched import run_until
from node.spec import MachineSpec
from node.workloads import start_works
from shared.constants import PS_PER_NS
from shared.look import Look, PicturedZone, encode_look
from shared.member import Member
from shared.messages import GuestReport, HostPhase, RunUntil, encode


class Machine:
    """One simulated computer.

    Raises ValueError, in one line, for a spec that cannot be built. ``state`` is for experts: its tables are
    numpy arrays and may be read at any time between two calls.
    """

    kind = "machine"

    def __init__(self, spec: MachineSpec | Mapping[str, Any]) -> None:
        self.spec = spec if isinstance(spec, MachineSpec) else MachineSpec.from_dict(spec)
        self.state = build_state(self.spec)
        start_works(self.state, self.spec)
        if self.spec.ksm.run == KsmRun.MERGE:
            ksm_set_run(self.state, KsmRun.MERGE)
        self.finished = False
        self.names = Names()  # that the last program gave

    # --- running ------------------------------------------------------------------------------------------

    def run_program(self, text: str, *, as_recorded: bool = False) -> ProgramResult:
        """Run a workload program (docs/programs.md) to its end; return what its snapshots saw.

        ``as_recorded`` adds what the harness cost that recorded tests/golden. Raises
        ``node.program.text.ProgramError``, in one line, for a program that is wrong.
        """
        result = Program(text).run(self.state, Recorded() if as_recorded else None)
        self.names = Names(result.pids, result.paths)
        return result

    def run_until(self, ns: int) -> None:
        """Run the machine's workloads and kernel threads up to simulated time ``ns``."""
        self.run_until_ps(ns * PS_PER_NS)

    def run_until_ps(self, ps: int) -> None:
        """Run up to simulated time ``ps``, in picoseconds."""
        self.state.current[Current.END_PS] = ps
        self.finished = bool(run_until(self.state, ps))

    # --- looking ------------------------------------------------------------------------------------------

    def counters(self) -> dict[str, int]:
        """Return all counters: those that are kept, and how many frames are of which kind, counted now."""
        return self.kept_counters() | frame_kinds(self.state)

    def kept_counters(self) -> dict[str, int]:
        """Return the counters that cost little to read: /proc/vmstat, /sys/kernel/mm/ksm, and the hardware's own.

        Names are Linux's where it has them; ``fault.X`` counts how faults ended (docs/faults.md).
        """
        state = self.state
        values = procfs.vmstat(state)
        for name, value in procfs.ksm(state).items():
            values[f"ksm.{name}"] = value
        values["ksm.sharing_zero"] = procfs.sharing_zero(state)
        for event in HwEvent:
            if event is not HwEvent.NR:
                values[event.name.lower()] = int(state.hw_event[event])
        values |= {
            counter_name(outcome): int(state.fault_outcome[outcome])
            for outcome in FaultOutcome
            if outcome is not FaultOutcome.NR
        }
        values |= device_counters(state, self.spec)
        values |= alloc_counters(state, self.spec.clock_ghz)
        values["managed_pages"] = sum(state.zone[zone].managed for zone in range(len(state.zone)))
        values["pcp_pages"] = int(state.pcp["count"].sum())
        values["operations"] = int(state.work["counter"].sum())
        values["run_ns"] = int((state.cpu["clock_ps"] - state.cpu["stall_ps"]).sum()) // PS_PER_NS
        values["stall_ns"] = int(state.cpu["stall_ps"].sum()) // PS_PER_NS
        return values

    def proc(self, path: str) -> str:
        """Return the text of a file of /proc as Linux prints it. Raises KeyError for one that is not there.

        A process's files are in /proc/PID, or /proc/NAME for one of the last program's.
        """
        return proc_text(self.state, path, self.names)

    def proc_bytes(self, path: str, offset: int, length: int) -> bytes:
        """Return part of a binary file of /proc (pagemap of a process, kpageflags, kpagecount), as pread does.

        Raises KeyError for one that is not there, ValueError for an offset or a length that is no multiple of 8.
        """
        return proc_bytes(self.state, path, self.names, (offset, length))

    def look(self) -> bytes:
        """Return all files of /proc and a picture of the memory, encoded."""
        state = self.state
        zones = [
            PicturedZone(zone.node, zone.name, zone.start_pfn, zone.end_pfn)
            for zone in populated_zones(state)
        ]
        return encode_look(Look(proc_texts(state, self.names), draw_memory(state, zones)))

    def digest(self) -> str:
        """Return a hash of the whole state."""
        return checkpoint.digest(self.state)

    def audit(self, _contents: Sequence[bytes]) -> bytes:
        """Check the machine's invariants; return b"". Raises ``InvariantError`` with the first contradiction."""
        from node.invariants import InvariantError, violations

        found = violations(self.state)
        if found:
            raise InvariantError(f"{found[0]} ({len(found)} contradictions)")
        return b""

    def explain_translation(self, question: Mapping[str, Any]) -> dict[str, Any]:
        """Make one access and return what it met step by step: all that docs/explain.md lists.

        ``question`` has the fields of ``node.explain.translate.Question``. Raises ValueError, in one line, for a
        question about something that the machine lacks.
        """
        from node.explain.translate import Question, explain_translation

        return explain_translation(self, Question(**question))

    # --- keeping ------------------------------------------------------------------------------------------

    def snapshot(self) -> bytes:
        """Return all of the machine as bytes that ``restore`` takes."""
        return checkpoint.snapshot(self.state, {"finished": self.finished})

    def restore(self, data: bytes) -> None:
        """Become the machine that ``data`` was taken of. Raises ``checkpoint.CheckpointError`` if it is damaged."""
        self.state, header = checkpoint.restore(data)
        self.finished = bool(header["finished"])

    # --- as a member of a fleet ---------------------------------------------------------------------------

    def run_epoch(self, order: RunUntil) -> bytes:
        """Run one epoch; return the encoded GuestReport, which of a plain machine is its counters."""
        self.run_until(order.end_ns)
        return encode(GuestReport(order.epoch, 0, self.kept_counters(), finished=self.finished))

    def host_phase(self, order: HostPhase) -> list[bytes]:
        """Refuse: a plain machine has no guests."""
        raise TypeError(f"epoch {order.epoch}: a plain machine has no host phase")


def build_member(spec: Mapping[str, Any]) -> Member:
    """Build a member of a fleet from its spec (``cluster/plan.py`` says what is in it).

    Raises ValueError, in one line, for a spec that cannot be built.
    """
    kind = spec["kind"]
    if kind == "machine":
        return Machine(spec)
    from node.guest.members import GUEST_KINDS

    if kind not in GUEST_KINDS:
        raise ValueError(f"kind: {kind!r} is none of machine, {', '.join(sorted(GUEST_KINDS))}")
    return GUEST_KINDS[kind](spec)


def build_machine(spec: Mapping[str, Any]) -> Machine:
    """Build the machine of a member's spec alone, to look at it: a guest without its host, a host with idle guests.

    Raises ValueError, in one line, for a spec that cannot be built, or a member that has no machine.
    """
    if spec["kind"] == "image":
        raise ValueError(f"{spec['id']}: an image guest replays memory, it has no page tables")
    if spec["kind"] == "host":
        from node.guest.host import HostMachine

        return HostMachine(spec).machine
    return Machine(spec)


__all__ = ["Machine", "MachineSpec", "build_machine", "build_member"]
