"""A CPU: its clock, its registers, what Linux keeps for each CPU about them, and whose turn it is.

The registers of translation are explained in node/hw/registers.py, Linux's ASIDs in node/kmap/asid.py.
"""

import numpy as np

CPU = np.dtype(
    [
        ("clock_ps", np.int64),  # simulated time that this CPU has reached
        ("stall_ps", np.int64),  # of it, waiting for a device, for reclaim, or for the host
        ("owed_ps", np.int64),  # stall that the host says this vCPU still owes
        ("slice_end_ps", np.int64),  # when the running workload must let the CPU's others run
        ("tlb_tick", np.int64),  # counts look-ups; a TLB entry's stamp is its last one
        ("tlb_tag", np.int64),  # what CR3 gives every key of the TLBs: the PCID, and that the entry is valid
        ("fast_tag", np.int64),  # the same, or NO_TAG while every access must be looked at with care
        ("cr0", np.int64),
        ("cr2", np.int64),  # address of the last page fault
        ("cr3", np.int64),
        ("cr4", np.int64),
        ("efer", np.int64),
        ("pkru", np.int64),  # 0..2**32-1
        ("pat", np.int64),  # IA32_PAT
        (
            "tlb_variants",
            np.int32,
        ),  # which kinds of entries the TLBs may hold: of user addresses, then the kernel's
        ("cpl", np.int16),  # current privilege level: 0 or 3
        ("ac", np.int16),  # EFLAGS.AC, which lets the kernel touch user pages under SMAP
        ("fault_vector", np.int16),  # of the last access that failed: FaultVector
        ("error_code", np.int16),  # FaultCode bits
        ("asid", np.int16),  # of the address space in CR3
        ("next_asid", np.int16),
        ("user_flush_mask", np.int16),  # ASIDs whose user PCID is flushed on the way back to user mode
        ("lazy", np.int16),  # 1: a kernel thread runs on the address space of whoever ran before
        ("nid", np.int32),  # its NUMA node
        ("mm", np.int32),  # whose page table CR3 holds, or 0
        ("turn", np.int32),  # one more than the number of the workload that runs; 0: none has run yet
    ],
    align=True,
)
