"""Record goldens: run workload files on a real Linux 6.1 in QEMU and write what every counter was.

    python -m tests.kernel.record WORKLOAD.pf [WORKLOAD2.pf ...] --out DIR [--runs 3] [--keep]

docs/recording.md says how. Exit status: 0 done; 2 if something is wrong before a machine boots; 1 if a machine
does not get to the end of its workload.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from tests.kernel.calibration import WORKLOAD, harness_figures
from tests.kernel.disks import data_disk, swap_disk
from tests.kernel.driver_program import compile_driver
from tests.kernel.errors import BootError, RecordError
from tests.kernel.golden import make_golden
from tests.kernel.initramfs import cpio_archive
from tests.kernel.kernel_image import CACHE, KernelImage, kernel_image
from tests.kernel.qemu import Boot, BootSpec, boot, last_message
from tests.kernel.recording import Run, parse_run
from tests.kernel.script import Workload, load_workload, parse_workload, whole_script

DISK_MODULES: Final = ("virtio_pci", "virtio_blk")
FILESYSTEM_MODULES: Final = ("crc32c_generic", "ext4")
MAX_RUNS: Final = 99
# Of a workload's header, what the driver's own cost may depend on.
MACHINE_KEYS: Final = ("mem", "smp", "cpu", "cmdline", "icount")


class Recorder:
    """Boots machines, and keeps what several cases share: the kernel, the driver and its measured cost.

    Raises ``RecordError`` if a tool or the kernel is missing.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.driver = compile_driver(folder)
        self.kernel: KernelImage = kernel_image()
        self._harness: dict[tuple[str, ...], dict[str, int]] = {}

    def record(self, workload: Workload, nr_runs: int, keep: Path | None = None) -> dict[str, Any]:
        """Return the golden of a workload. Raises ``BootError`` if a machine does not get to its end."""
        harness = self.harness(workload)
        runs, wall_s = [], []
        for index in range(nr_runs):
            run, booted = self._run(workload)
            runs.append(run)
            wall_s.append(booted.wall_s)
            if keep is not None:
                (keep / f"{workload.name}.{index + 1}.console.txt").write_text(booted.console)
                (keep / f"{workload.name}.{index + 1}.output.txt").write_text(booted.output)
        return make_golden(workload, runs, wall_s, harness)

    def harness(self, workload: Workload) -> dict[str, int]:
        """Return what the driver costs on such a machine; measured once."""
        key = tuple(workload.header.get(name, "") for name in MACHINE_KEYS)
        if key not in self._harness:
            header = "".join(
                f"#! {name}: {value}\n" for name, value in zip(MACHINE_KEYS, key, strict=True) if value
            )
            calibration = parse_workload("calibration", f"{header}#! data: no\n{WORKLOAD}")
            run, _ = self._run(calibration)
            self._harness[key] = harness_figures(run)
        return self._harness[key]

    def _run(self, workload: Workload) -> tuple[Run, Boot]:
        header = workload.header
        wanted = DISK_MODULES * bool(workload.has_data or workload.swap_bytes)
        wanted += FILESYSTEM_MODULES * workload.has_data
        modules = self.kernel.with_needed(*wanted)
        files = {
            "init": self.driver,
            "script": whole_script(workload, [f"/modules/{path.name}" for path in modules]).encode(),
        }
        files |= {f"modules/{path.name}": path.read_bytes() for path in modules}
        archive = self.folder / "initramfs"
        archive.write_bytes(cpio_archive(files, frozenset({"init"})))
        spec = BootSpec(
            self.kernel.image,
            archive,
            memory=header["mem"],
            cpus=int(header["smp"]),
            cpu_model=header["cpu"],
            extra_command_line=header.get("cmdline", ""),
            icount=header.get("icount", ""),
            disks=tuple(self._disks(workload)),
            timeout_s=int(header["timeout"]),
        )
        try:
            booted = boot(spec, self.folder)
        except BootError as error:
            raise BootError(f"{workload.name}: {error}") from None
        try:
            return parse_run(booted.output), booted
        except BootError as error:
            hint = (
                ""
                if "line " in str(error)
                else f"; the kernel's last message: {last_message(booted.console)}"
            )
            raise BootError(f"{workload.name}: {error}{hint}") from None

    def _disks(self, workload: Workload) -> list[Path]:
        disks = []
        if workload.has_data:
            disks.append(data_disk(CACHE))
        if workload.swap_bytes:
            disks.append(swap_disk(self.folder / "swap", workload.swap_bytes))
        return disks


def main(arguments: Sequence[str] | None = None) -> int:
    """Record what the command line names; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.kernel.record", description=__doc__.splitlines()[0]
    )
    parser.add_argument("workloads", nargs="+", type=Path, metavar="WORKLOAD.pf")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="folder for NAME.json")
    parser.add_argument("--runs", type=int, default=3, help="boots of each case (default 3)")
    parser.add_argument(
        "--keep", action="store_true", help="also write each run's console and raw counters to DIR"
    )
    options = parser.parse_args(arguments)
    try:
        if not 1 <= options.runs <= MAX_RUNS:
            raise RecordError(f"--runs: {options.runs} is not between 1 and {MAX_RUNS}")
        workloads = [load_workload(path) for path in options.workloads]
        _make_folder(options.out)
        with tempfile.TemporaryDirectory() as temporary:
            recorder = Recorder(Path(temporary))
            for workload in workloads:
                golden = recorder.record(workload, options.runs, options.out if options.keep else None)
                path = options.out / f"{workload.name}.json"
                path.write_text(json.dumps(golden, indent=1) + "\n")
                seconds = " ".join(f"{wall:.1f}" for wall in golden["wall_s"])
                sys.stderr.write(f"{path}: {len(golden['snapshots'])} snapshots; seconds a boot: {seconds}\n")
    except RecordError as error:
        sys.stderr.write(f"record: {error}\n")
        return 2
    except BootError as error:
        sys.stderr.write(f"record: {error}\n")
        return 1
    return 0


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RecordError(f"{folder}: {error.strerror or error}") from None


if __name__ == "__main__":
    raise SystemExit(main())
