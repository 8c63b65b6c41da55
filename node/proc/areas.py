"""The areas of a process as files of /proc name them, and the line that /proc/PID/maps has of each.

    7ffff7a00000-7ffff7e00000 rw-p 00000000 00:00 0
    00600000-00700000 rw-p 00000000 00:00 0                                  [heap]
    address           perms offset  dev   inode, and from column 73 on the name

Linux: fs/proc/task_mmu.c (show_vma_header_prefix, show_map_vma, is_stack), mm/shmem.c (shmem_zero_setup).
# Differs from Linux: there is no area of [vvar], [vdso] or [vsyscall]; an inode's number is that of its record, and it
# is on 00:01 if it is shared memory and on the first virtio disk, fe:00, if it is a file.
"""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from node.inode_kind import InodeKind
from node.vm.vma import VmFlag
from shared.constants import NIL, PAGE_SHIFT

if TYPE_CHECKING:
    from node.state import State

NAME_COLUMN: Final = 72  # 25 + 6 * sizeof(void *) - 1, behind which a space and the name stand
SHMEM_DEVICE: Final = (0, 1)
DISK_DEVICE: Final = (254, 0)
NO_DEVICE: Final = (0, 0)
SHARED_ANONYMOUS: Final = "/dev/zero (deleted)"


@dataclass(slots=True)
class Names:
    """What only those know who run programs: processes' names and files' paths."""

    processes: dict[str, int] = field(default_factory=dict)  # pid by name
    paths: dict[int, str] = field(default_factory=dict)  # by inode

    def of_process(self, pid: int) -> str:
        """Return a process's name, or "" if it has none."""
        return next((name for name, its in self.processes.items() if its == pid), "")


@dataclass(frozen=True, slots=True)
class Area:
    """One area: [start, end)."""

    start: int
    end: int
    vm_flags: int
    offset_bytes: int = 0  # in its file; 0 for anonymous memory
    device: tuple[int, int] = NO_DEVICE
    inode: int = 0
    name: str = ""

    def line(self) -> str:
        """Return its line of /proc/PID/maps."""
        flags = self.vm_flags
        rights = "".join(
            letter if flags & flag else "-"
            for letter, flag in (("r", VmFlag.READ), ("w", VmFlag.WRITE), ("x", VmFlag.EXEC))
        )
        shared = "s" if flags & VmFlag.SHARED else "p"
        major, minor = self.device
        prefix = (
            f"{self.start:08x}-{self.end:08x} {rights}{shared} {self.offset_bytes:08x}"
            f" {major:02x}:{minor:02x} {self.inode} "
        )
        return f"{prefix:<{NAME_COLUMN}} {self.name}\n" if self.name else f"{prefix}\n"


def areas_of(state: "State", mm_index: int, names: Names) -> list[Area]:
    """Return the areas of an address space, ascending."""
    areas = []
    index = int(state.mm[mm_index].first_vma)
    while index != NIL:
        areas.append(_area(state, mm_index, index, names))
        index = int(state.vma[index].next)
    return areas


def _area(state: "State", mm_index: int, index: int, names: Names) -> Area:
    vma = state.vma[index]
    start, end, flags, inode = int(vma.start), int(vma.end), int(vma.vm_flags), int(vma.inode)
    if not inode:
        return Area(start, end, flags, name=_anonymous_name(state, mm_index, start, end))
    is_shmem = state.inode[inode].kind == InodeKind.SHMEM
    device = SHMEM_DEVICE if is_shmem else DISK_DEVICE
    name = names.paths.get(inode, SHARED_ANONYMOUS if is_shmem else f"inode:[{inode}]")
    return Area(start, end, flags, int(vma.pgoff) << PAGE_SHIFT, device, inode, name)


def _anonymous_name(state: "State", mm_index: int, start: int, end: int) -> str:
    mm = state.mm[mm_index]
    if start <= mm.brk and end >= mm.brk_start:
        return "[heap]"
    return "[stack]" if start <= mm.start_stack <= end else ""
