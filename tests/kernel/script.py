"""A workload file as the driver reads it: loops unrolled, and before it the lines that prepare the machine.

    0 - load /modules/virtio_blk.ko          12 - spawn A
    0 - set /proc/sys/vm/swappiness 60       13 A mmap h 8M
    0 - begin                                14 A& write h

Every line has its number in the file, 0 if it is not from there. What the driver has no commands for, it is
never sent: cgroups, zram and zswap.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from node.program.text import Command, ProgramError, commands, parse_number, read_text
from tests.kernel.errors import RecordError

# What each command needs behind its verb: a letter a word, n for a number; "*" for any number of words.
CONTROLLER: Final = {
    "spawn": "w",
    "snapshot": "w",
    "watchfile": "w*",
    "sync": "",
    "drop_caches": "n",
    "compact": "",
    "sleep": "n",
    "set": "ww",
    "kill": "w",
    "ksm": "ww*",
    "ksm_scan": "n",
    "ksm_step": "nn",
    "ksm_wait": "n",
    "wait": "w",
}
PROCESS: Final = {
    "mmap": "wn*",
    "munmap": "w",
    "madvise": "ww",
    "mprotect": "ww",
    "mlock": "w",
    "mlockonfault": "w",
    "munlock": "w",
    "msync": "w",
    "mremap": "wn",
    "brk": "wn",
    "brkgrow": "wn",
    "stack": "n",
    "read": "w*",
    "write": "w*",
    "fill": "ww",
    "fork": "w",
    "exit": "",
    "vfork_exec": "",
    "fopen": "ww*",
    "fclose": "w",
    "fsync": "w",
    "ftrunc": "wn",
    "readahead": "wnn",
    "fadvise": "wnnw",
    "fread": "wnn",
    "fwrite": "wnn",
    "frand": "wnn",
    "fwrand": "wnn",
}
NOT_RECORDED: Final = {"cgroup": "cgroups are not recorded", "cg": "cgroups are not recorded"}
TEXT_OPTIONS: Final = frozenset({"file", "oom"})
HEADER: Final = {
    "mem": "512M",
    "smp": "1",
    "cpu": "qemu64",
    "swap": "none",
    "data": "yes",
    "thp": "never",
    "zswap": "off",
    "timeout": "150",
}
OTHER_KEYS: Final = frozenset(
    ["desc", "group", "split", "cmdline", "sysctl", "ra_kb", "fault_around", "rotational", "icount", "watch"]
)
SYSCTLS: Final = {
    # Nothing is written back unless the workload asks.
    "vm.dirty_writeback_centisecs": "360000",
    "vm.dirty_expire_centisecs": "360000",
}
MAX_CPUS: Final = 32  # of the driver's mask of CPUs
HUGE: Final = "/sys/kernel/mm/transparent_hugepage"


@dataclass(frozen=True, slots=True)
class Workload:
    """A workload file, checked."""

    name: str
    lines: tuple[str, ...]  # of the file, without blank ones
    header: Mapping[str, str]  # with defaults
    script: tuple[str, ...]  # the commands, as the driver reads them
    snapshots: tuple[str, ...]

    @property
    def swap_bytes(self) -> int:
        """Size of the swap disk; 0: there is none."""
        return 0 if self.header["swap"] == "none" else parse_number(self.header["swap"].removeprefix("disk:"))

    @property
    def has_data(self) -> bool:
        """Whether there is a data disk."""
        return self.header["data"] != "no"

    @property
    def watch(self) -> tuple[str, ...]:
        """The counters that the case is about, as patterns."""
        return tuple(self.header.get("watch", "").split())


def load_workload(path: Path) -> Workload:
    """Return a workload file. Raises ``RecordError``, in one line, if it is wrong or cannot be recorded."""
    try:
        text = path.read_text()
    except OSError as error:
        raise RecordError(f"{path}: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise RecordError(f"{path}: is not a text") from None
    try:
        return parse_workload(path.stem, text)
    except ProgramError as error:
        raise RecordError(f"{path}: {error}") from None


def parse_workload(name: str, text: str) -> Workload:
    """Return a workload. Raises ``ProgramError`` if it is wrong or cannot be recorded."""
    program = read_text(text)
    header = _header(program.header)
    script, snapshots = [], []
    for command in commands(program):
        script.append(_line(command))
        if command.verb == "snapshot" and not command.process:
            snapshots.append(command.words[0])
    lines = tuple(line.strip() for line in text.splitlines() if line.strip())
    return Workload(name, lines, header, tuple(script), tuple(snapshots))


def _header(given: Mapping[str, str]) -> dict[str, str]:
    header = HEADER | dict(given)
    for key in given:
        if key not in HEADER and key not in OTHER_KEYS:
            raise ProgramError(f"header: {key} is none of {' '.join(sorted({*HEADER, *OTHER_KEYS}))}")
    if header["zswap"] != "off":
        raise ProgramError("header: zswap is not recorded")
    if header["swap"].startswith("zram"):
        raise ProgramError("header: swap on zram is not recorded")
    if not re.fullmatch(r"none|disk:\d+[KMG]", header["swap"]):
        raise ProgramError(f"header: swap: {header['swap']!r} is neither none nor disk:SIZE")
    if not re.fullmatch(r"\d+[MG]", header["mem"]):
        raise ProgramError(f"header: mem: {header['mem']!r} is not a size such as 512M")
    for key in ("smp", "timeout", "ra_kb", "fault_around", "rotational"):
        if key in header and not re.fullmatch(r"[0-9]+", header[key]):
            raise ProgramError(f"header: {key}: {header[key]!r} is not a number")
    if not 1 <= int(header["smp"]) <= MAX_CPUS:
        raise ProgramError(f"header: smp: {header['smp']} is not between 1 and {MAX_CPUS}")
    if header["thp"] not in ("never", "always", "madvise"):
        raise ProgramError(f"header: thp: {header['thp']!r} is none of never always madvise")
    if any("=" not in word for word in header.get("sysctl", "").split()):
        raise ProgramError(f"header: sysctl: {header['sysctl']!r} is not vm.NAME=VALUE ...")
    return header


def _line(command: Command) -> str:
    table = PROCESS if command.process else CONTROLLER
    if command.verb in NOT_RECORDED:
        raise command.fail(NOT_RECORDED[command.verb])
    if command.verb not in table:
        raise command.fail(
            f"there is no command {command.verb!r}{' of a process' if command.process else ''}"
        )
    needs = table[command.verb]
    for index, kind in enumerate(needs.rstrip("*")):
        word = command.word(index, "more words")
        if kind == "n":
            command.parse(word)
    for key, value in command.options.items():
        if key in NOT_RECORDED:
            raise command.fail(f"{key}={value}: {NOT_RECORDED[key]}")
        if key not in TEXT_OPTIONS:
            command.parse(value)
    who = f"{command.process or '-'}{'&' if command.background else ''}"
    words = [command.verb, *command.words, *(f"{key}={value}" for key, value in command.options.items())]
    return f"{command.line} {who} {' '.join(words)}"


def whole_script(workload: Workload, modules: list[str]) -> str:
    """Return what the driver reads: the machine's preparation, ``begin``, and the workload."""
    header = workload.header
    lines = [f"load {module}" for module in modules]
    swap_disk = "vdb" if workload.has_data else "vda"
    disks = ["vda"] * workload.has_data + [swap_disk] * bool(workload.swap_bytes)
    if "rotational" in header:
        lines += [f"set /sys/block/{disk}/queue/rotational {header['rotational']}" for disk in disks]
    if workload.has_data:
        lines += [
            "mount /dev/vda /mnt ext4",
            f"set /sys/block/vda/queue/read_ahead_kb {header.get('ra_kb', '128')}",
        ]
    if workload.swap_bytes:
        lines.append(f"swapon /dev/{swap_disk}")
    lines += [f"set {HUGE}/khugepaged/defrag 0", f"set {HUGE}/enabled {header['thp']}"]
    if "fault_around" in header:
        lines.append(f"set /sys/kernel/debug/fault_around_bytes {header['fault_around']}")
    sysctls = SYSCTLS | dict(word.split("=", 1) for word in header.get("sysctl", "").split())
    lines += [f"set /proc/sys/{key.replace('.', '/')} {value}" for key, value in sysctls.items()]
    lines += [f"cpus {header['smp']}", "begin"]
    return "".join(f"0 - {line}\n" for line in lines) + "".join(f"{line}\n" for line in workload.script)
