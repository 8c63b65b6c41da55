"""The command line, up to the point where a machine would boot, and a machine that does not end."""

import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from tests.kernel import kernel_image, qemu, record
from tests.kernel.errors import BootError, RecordError


@pytest.fixture
def workload(tmp_path: Path) -> Path:
    path = tmp_path / "case.pf"
    path.write_text("#! data: no\nspawn A\nsnapshot one\n")
    return path


def one_line(capsys: pytest.CaptureFixture[str]) -> str:
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return error


def test_a_missing_workload_is_exit_status_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert record.main([str(tmp_path / "none.pf"), "--out", str(tmp_path)]) == 2
    assert "none.pf: No such file or directory" in one_line(capsys)


def test_a_line_that_does_not_parse_is_named_with_its_file(
    tmp_path: Path, workload: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    workload.write_text("spawn A\nA: mmap h lots\n")
    assert record.main([str(workload), "--out", str(tmp_path)]) == 2
    assert "case.pf: line 2: 'lots' is not a number" in one_line(capsys)


def test_runs_must_be_some(tmp_path: Path, workload: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert record.main([str(workload), "--out", str(tmp_path), "--runs", "0"]) == 2
    assert "--runs: 0 is not between 1 and" in one_line(capsys)


def test_without_a_compiler_it_says_what_to_install(
    tmp_path: Path, workload: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(shutil, "which", lambda _name: None)
    assert record.main([str(workload), "--out", str(tmp_path)]) == 2
    assert "there is no gcc: apt-get install gcc libc6-dev" in one_line(capsys)


def test_without_qemu_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _name: None)
    with pytest.raises(RecordError, match="apt-get install qemu-system-x86"):
        qemu.boot(qemu.BootSpec(tmp_path / "k", tmp_path / "i"), tmp_path)


def test_without_apt_the_kernel_cannot_be_downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _name: None)
    with pytest.raises(RecordError, match="the kernel cannot be downloaded: there is no apt-get"):
        kernel_image.kernel_image(tmp_path)


def test_a_kernel_that_apt_does_not_have_is_said_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PAGEFLEET_KERNEL", "linux-image-of-no-such-name")
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(subprocess, "run", refusing)
    with pytest.raises(RecordError, match=r"^linux-image-of-no-such-name cannot be downloaded: E: no such"):
        kernel_image.kernel_image(tmp_path)


def test_a_downloaded_kernel_keeps_the_modules_of_disks_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unpacking(command: list[str], **options: object) -> subprocess.CompletedProcess[str]:
        if command[0] == "apt-get":
            (Path(str(options["cwd"])) / "kernel.deb").touch()
        elif command[0] == "dpkg-deb":
            for name in ("drivers/virtio/virtio.ko", "drivers/net/e1000.ko", "fs/ext4/ext4.ko"):
                module = Path(command[-1]) / "lib" / "modules" / "6.1" / "kernel" / name
                module.parent.mkdir(parents=True)
                module.touch()
            (Path(command[-1]) / "boot").mkdir()
            (Path(command[-1]) / "boot" / "vmlinuz-6.1").touch()
        return subprocess.CompletedProcess(command, 0, "Package: linux-image", "")

    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(subprocess, "run", unpacking)
    cache = tmp_path / "kernel"  # a folder of the name that the modules lie in too
    image = kernel_image.kernel_image(cache)
    assert sorted(path.name for path in image.modules.rglob("*.ko")) == ["ext4.ko", "virtio.ko"]
    assert image.image.name == "vmlinuz-6.1"


def refusing(command: list[str], **_options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.CompletedProcess(command, 100, "", "W: something\nE: no such package\n")


def test_a_module_comes_behind_those_that_it_needs(tmp_path: Path) -> None:
    for name, needs in (("virtio_blk", "virtio,virtio_ring"), ("virtio-ring", "virtio"), ("virtio", "")):
        folder = tmp_path / "kernel" / name
        folder.mkdir(parents=True)
        (folder / f"{name}.ko").write_bytes(
            b"\x7fELF\0license=GPL\0depends=" + needs.encode() + b"\0name=x\0"
        )
    image = kernel_image.KernelImage(tmp_path / "vmlinuz", tmp_path)
    assert [path.name for path in image.with_needed("virtio_blk", "virtio")] == [
        "virtio.ko",
        "virtio-ring.ko",
        "virtio_blk.ko",
    ]


def test_a_boot_that_hangs_is_killed_and_its_last_message_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hanging = tmp_path / "qemu"
    # The first -serial file: argument is the console.
    hanging.write_text(
        '#!/bin/sh\nfor a in "$@"; do case $a in file:*console*) echo "rcu: stall" >"${a#file:}";; esac; done\n'
        "exec sleep 60\n"
    )
    hanging.chmod(hanging.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr(qemu, "QEMU", str(hanging))
    with pytest.raises(BootError, match="not off after 1 s; its last message: rcu: stall"):
        qemu.boot(qemu.BootSpec(tmp_path / "k", tmp_path / "i", timeout_s=1), tmp_path)


def test_disks_and_header_reach_the_command(tmp_path: Path) -> None:
    spec = qemu.BootSpec(
        Path("k"), Path("i"), memory="768M", cpus=2, extra_command_line="pti=on", disks=(Path("d"),)
    )
    command = qemu.arguments(spec, tmp_path / "console", tmp_path / "output")
    assert command[command.index("-append") + 1].endswith("rootfstype=ramfs pti=on")
    assert command[command.index("-m") + 1] == "768M"
    assert command[command.index("-drive") + 1] == "file=d,format=raw,if=virtio,snapshot=on"
