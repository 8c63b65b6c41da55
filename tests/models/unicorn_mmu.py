"""The MMU of another CPU: Unicorn 2.1.4, which is QEMU 5.0's x86 without a machine around it.

Page tables lie in its memory, registers are set, and an access is a real instruction: ``mov`` from or to the
address, or a jump to it. Its own TLB is emptied by each write of CR3, as the manual says.

What it can show, each tried:

    4-level, 5-level (CR4.LA57), 32-bit with 4 MiB pages and PSE-36, 1 GiB pages (always there)
    CR0.WP, SMEP, SMAP with EFLAGS.AC, EFER.NXE, protection keys with PKRU, user and supervisor mode
    vector, CR2, the error code, A and D bits in the tables, the physical address to 40 bits

and what it cannot:

    Its physical addresses are 40 bits wide, always: reserved bits of other widths need the model.
    It keeps no PCIDs and no paging-structure caches; global pages leave its TLB with all others.
    A table outside its memory reads as zeroes, where a real bus reads as ones. No test has one.
    Memory types are ignored.
    An entry that maps 1 GiB gets A even if the access is then denied, or its address has reserved bits; those of
    2 MiB and 4 KiB do not. (QEMU sets A in that level's entries before it looks at PS.)

How it is done:

- The physical memory behind the tables is not mapped, so every data access that the MMU lets through ends in a
  hook for unmapped memory, which is told the *physical* address. So pages may lie anywhere in 40 bits, but
  not in the tables' own memory.
- A fault ends in the interrupt hook. Delivery stops there, before an interrupt table is needed. QEMU keeps the
  first exception as one in flight, and turns the next one into a double fault; the context saved before the
  first access, put back after each fault, makes it forget.
- The error code is no register of Unicorn's. It is in the saved context; where, four faults with known codes
  tell.
- A register write of CS does not change the privilege level. SYSEXIT does, run on tables of the harness's own,
  and a context saved before it is the way back: SYSENTER and SYSCALL only call hooks. PKRU is set by
  WRPKRU, run there too. Control registers, EFER and EFLAGS can be written.
  The processor must be a model that has SMAP; this one is an Ice Lake.
- Where an emulation is to end, Unicorn fetches from once it has ended, with all that follows: a fault would be
  the one that is seen. So every emulation, a jump elsewhere too, is said to end within the code.
- The code must be mapped by the tables under test: their entry CODE_SLOT leads to pages of code, one of them for
  the user, one for the supervisor (SMEP forbids it the user's), with A and D set so that nothing changes there.
"""

import ctypes
import itertools
import mmap
import struct
from typing import Final

import numpy as np
import numpy.typing as npt
import unicorn
from unicorn import x86_const as x86

from tests.models.paging import GP, PF, RW, US, A, Access, D, Fault, P, Registers

PHYSICAL_BITS: Final = 40  # TCG_PHYS_ADDR_BITS of qemu/target/i386/cpu.h
PAGE: Final = 4096
NR_OWN_FRAMES: Final = 6  # at the end of the memory: home table, four tables to the code, the code
CODE_SLOT: Final = -2  # of every top-level table, counted from its end

CR0_PE: Final = 1 << 0
CR0_WP: Final = 1 << 16
CR0_PG: Final = 1 << 31
CR4_PSE: Final = 1 << 4
CR4_PAE: Final = 1 << 5
CR4_PGE: Final = 1 << 7
CR4_LA57: Final = 1 << 12
CR4_PCIDE: Final = 1 << 17
CR4_SMEP: Final = 1 << 20
CR4_SMAP: Final = 1 << 21
CR4_PKE: Final = 1 << 22
EFER_LME: Final = 1 << 8
EFER_LMA: Final = 1 << 10
EFER_NXE: Final = 1 << 11
FLAGS_ONE: Final = 1 << 1  # always set
FLAGS_AC: Final = 1 << 18
MSR_SYSENTER_CS: Final = 0x174
MSR_EFER: Final = 0xC000_0080
A_SELECTOR: Final = 8  # anything but 0: SYSEXIT loads flat segments without a table

ALL_RIGHTS: Final = P | RW | US | A | D
NOT_AN_ADDRESS: Final = 0x5EED_5EED  # CR2 before each access

# The code, the same on both pages: pieces at offsets. Zeroes between them are instructions, and never run.
LOAD: Final = 0
STORE: Final = 16
WRITE_PKRU: Final = 32
LEAVE_KERNEL: Final = 48
BEHIND: Final = 64
PIECES: Final = {
    64: {
        LOAD: "48 8b 18",  # mov rbx, [rax]
        STORE: "48 89 18",  # mov [rax], rbx
        WRITE_PKRU: "0f 01 ef",
        LEAVE_KERNEL: "48 0f 35",  # sysexit to 64-bit code at rdx
    },
    32: {
        LOAD: "8b 18",  # mov ebx, [eax]
        STORE: "89 18",  # mov [eax], ebx
        LEAVE_KERNEL: "0f 35",
    },
}

_READ_CONTEXT: Final = struct.Struct("<i")


class UnicornMmu:
    """A CPU with ``nr_frames`` of memory for page tables; more behind them is the harness's own.

    ``bits`` is 64 (4- and 5-level paging) or 32. ``words`` is that memory: ``words[paddr // entry_bytes]``.
    """

    def __init__(self, bits: int, nr_frames: int) -> None:
        self.bits = bits
        self.entry_bytes = bits // 8
        self.nr_frames = nr_frames
        size = (nr_frames + NR_OWN_FRAMES) * PAGE
        self._buffer = mmap.mmap(-1, size)  # at a page boundary, which Unicorn asks for
        self._memory: npt.NDArray[np.int64 | np.uint32] = np.frombuffer(
            self._buffer, dtype=np.int64 if bits == 64 else np.uint32
        )
        self.words = self._memory[: nr_frames * PAGE // self.entry_bytes]
        mode = unicorn.UC_MODE_64 if bits == 64 else unicorn.UC_MODE_32
        self._cpu = unicorn.Uc(unicorn.UC_ARCH_X86, mode, x86.UC_CPU_X86_ICELAKE_SERVER)
        self._cpu.ctl_set_tlb_mode(unicorn.UC_TLB_CPU)
        self._cpu.mem_map_ptr(0, size, unicorn.UC_PROT_ALL, self._memory.ctypes.data)
        self._cpu.hook_add(unicorn.UC_HOOK_INTR, self._note_exception)
        self._cpu.hook_add(unicorn.UC_HOOK_MEM_UNMAPPED, self._note_memory)
        self._vector: int | None = None
        self._paddr: int | None = None
        self._code = 0
        self._write_code()
        self._start_paging()
        self._home = self._cpu.context_save()
        self._before = self._cpu.context_save()
        self._behind = self._cpu.context_save()
        self._error_code_offset = self._find_error_code()

    # --- memory -----------------------------------------------------------------------------------------

    def _own_frame(self, number: int) -> int:
        return (self.nr_frames + number) * PAGE

    def _slot(self, table: int, index: int) -> int:
        """Return the place in memory of an entry; negative indexes count from the table's end."""
        per_table = PAGE // self.entry_bytes
        return table // self.entry_bytes + index % per_table

    def _write_code(self) -> None:
        """Write the code, and the tables from which a path to it can begin at 5, 4 or 2 levels."""
        code = self._own_frame(5)
        for offset, text in PIECES[self.bits].items():
            self._cpu.mem_write(code + offset, bytes.fromhex(text))
        tables = [self._own_frame(number) for number in (1, 2, 3, 4)]  # PML4, PDPT, PD, PT
        for above, below in itertools.pairwise(tables):
            self._memory[self._slot(above, 0)] = below | ALL_RIGHTS
        self._memory[self._slot(tables[-1], 0)] = code | ALL_RIGHTS
        self._memory[self._slot(tables[-1], 1)] = code | ALL_RIGHTS & ~US
        self.map_code(self._own_frame(0), 4 if self.bits == 64 else 2)

    def map_code(self, root: int, nr_levels: int) -> int:
        """Let the top-level table at ``root`` lead to the code; tables must be given this before ``load``.

        Returns the place of the entry in ``words``.
        """
        below = {5: 1, 4: 2, 2: 4}[nr_levels]
        slot = self._slot(root, CODE_SLOT)
        self._memory[slot] = self._own_frame(below) | ALL_RIGHTS
        return slot

    def _code_address(self, nr_levels: int) -> int:
        """Return where ``map_code`` puts the code: the upper half's last slot but one."""
        shift = {5: 48, 4: 39, 2: 22}[nr_levels]
        return (CODE_SLOT << shift) % (1 << self.bits)

    # --- registers --------------------------------------------------------------------------------------

    def _start_paging(self) -> None:
        """Turn paging on for good: clearing CR0.PG would leave 64-bit mode."""
        write = self._cpu.reg_write
        write(x86.UC_X86_REG_CR3, self._own_frame(0))
        write(x86.UC_X86_REG_CR4, self._home_cr4())
        write(x86.UC_X86_REG_CR0, CR0_PE | CR0_PG)
        write(x86.UC_X86_REG_MSR, (MSR_SYSENTER_CS, A_SELECTOR))

    def _home_cr4(self) -> int:
        return CR4_PAE | CR4_PKE if self.bits == 64 else 0

    def load(self, registers: Registers) -> None:
        """Set all registers and drop all translations; the tables at CR3 must map the code."""
        write = self._cpu.reg_write
        self._cpu.context_restore(self._home)
        write(x86.UC_X86_REG_CR3, self._own_frame(0))  # which empties the TLB; the context does not hold that
        if self.bits == 64:
            efer = EFER_LME | EFER_LMA | (EFER_NXE if registers.nxe else 0)
            write(x86.UC_X86_REG_MSR, (MSR_EFER, efer))
            self._write_pkru(registers.pkru)
        if registers.is_user:
            self._leave_kernel()
        bits = {
            CR4_PSE: registers.pse,
            CR4_PAE: registers.pae,
            CR4_PGE: registers.pge,
            CR4_LA57: registers.la57,
            CR4_PCIDE: registers.pcide,
            CR4_SMEP: registers.smep,
            CR4_SMAP: registers.smap,
            CR4_PKE: registers.pke,
        }
        write(x86.UC_X86_REG_CR0, CR0_PE | CR0_PG | (CR0_WP if registers.wp else 0))
        write(x86.UC_X86_REG_CR4, sum(bit for bit, is_set in bits.items() if is_set))
        write(x86.UC_X86_REG_CR3, registers.cr3)
        write(x86.UC_X86_REG_EFLAGS, FLAGS_ONE | (FLAGS_AC if registers.ac else 0))
        write(x86.UC_X86_REG_CR2, NOT_AN_ADDRESS)
        self._code = self._code_address(registers.nr_levels) + (0 if registers.cpl else PAGE)
        self._cpu.context_update(self._before)

    def _end_of(self, offset: int) -> int:
        return offset + len(bytes.fromhex(PIECES[self.bits][offset]))

    def _emulate(self, begin: int, until: int) -> None:
        """Run until an address, an exception or a memory access that ends it, which the hooks then have noted."""
        self._vector = self._paddr = None
        try:
            self._cpu.emu_start(begin, until)
        except unicorn.UcError:
            if self._paddr is None:
                raise

    def _run_at_home(self, offset: int, leave_at: int) -> None:
        code = self._code_address(4 if self.bits == 64 else 2)
        self._emulate(code + offset, code + leave_at)
        if self._vector is not None:
            raise ValueError(f"the harness's own code raised exception {self._vector}")

    def _leave_kernel(self) -> None:
        """Go on in user mode."""
        behind = self._code_address(4 if self.bits == 64 else 2) + BEHIND
        self._cpu.reg_write(x86.UC_X86_REG_RDX if self.bits == 64 else x86.UC_X86_REG_EDX, behind)
        self._run_at_home(LEAVE_KERNEL, BEHIND)

    def _write_pkru(self, pkru: int) -> None:
        for register, value in (
            (x86.UC_X86_REG_RAX, pkru),
            (x86.UC_X86_REG_RCX, 0),
            (x86.UC_X86_REG_RDX, 0),
        ):
            self._cpu.reg_write(register, value)
        self._run_at_home(WRITE_PKRU, self._end_of(WRITE_PKRU))

    # --- accesses ---------------------------------------------------------------------------------------

    def _note_exception(self, cpu: unicorn.Uc, vector: int, _: object) -> None:
        self._vector = vector
        cpu.emu_stop()

    def _note_memory(
        self, _cpu: unicorn.Uc, _kind: int, paddr: int, _size: int, _value: int, _: object
    ) -> bool:
        self._paddr = paddr
        return False

    def access(self, vaddr: int, access: Access) -> int | Fault:
        """Make one access; return the physical address, or the fault.

        ``vaddr`` is a multiple of 8: nothing may cross a page.
        """
        begin = vaddr
        until = self._code + BEHIND
        if access is not Access.EXECUTE:
            self._cpu.reg_write(x86.UC_X86_REG_RAX if self.bits == 64 else x86.UC_X86_REG_EAX, vaddr)
            begin = self._code + (LOAD if access is Access.READ else STORE)
            until = self._code + self._end_of(begin - self._code)
        self._emulate(begin, until)
        if self._paddr is not None:
            return self._paddr
        if self._vector is None:
            raise ValueError(f"{access.name} {vaddr:#x} reached the memory of the page tables")
        cr2 = self._cpu.reg_read(x86.UC_X86_REG_CR2)
        fault = Fault(self._vector, cr2 if self._vector == PF else None, self._error_code())
        if fault.vector not in (GP, PF) or (fault.vector == GP and cr2 != NOT_AN_ADDRESS):
            raise ValueError(f"{access.name} {vaddr:#x} raised {fault}, CR2 is {cr2:#x}")
        self._cpu.context_restore(self._before)
        return fault

    # --- the error code ---------------------------------------------------------------------------------

    def _context(self) -> bytes:
        self._cpu.context_update(self._behind)
        return ctypes.string_at(self._behind.context, self._behind.size)

    def _error_code(self) -> int:
        return int(_READ_CONTEXT.unpack_from(self._context(), self._error_code_offset)[0])

    def _find_error_code(self) -> int:
        """Return the only place of the context that holds the codes 6, 2, 0 and 4 after faults with those."""
        self._error_code_offset = 0
        candidates: set[int] | None = None
        for cpl, access, code in (
            (3, Access.WRITE, 6),
            (0, Access.WRITE, 2),
            (0, Access.READ, 0),
            (3, Access.READ, 4),
        ):
            home = Registers(cr3=self._own_frame(0), cpl=cpl, nxe=False, pae=self.bits == 64)
            self.load(home)
            self.access(0, access)  # nothing is mapped there; restores all but our copy of the context
            context = ctypes.string_at(self._behind.context, self._behind.size)
            places = range(0, len(context) - _READ_CONTEXT.size + 1, _READ_CONTEXT.size)
            here = {place for place in places if _READ_CONTEXT.unpack_from(context, place)[0] == code}
            candidates = here if candidates is None else candidates & here
        if candidates is None or len(candidates) != 1:
            raise ValueError(f"the error code may be at {candidates} in Unicorn's context")
        return candidates.pop()
