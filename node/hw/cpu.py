"""A CPU: its clock, what it has loaded, and whose turn it is."""

import numpy as np

CPU = np.dtype(
    [
        ("clock_ps", np.int64),  # simulated time that this CPU has reached
        ("stall_ps", np.int64),  # of it, waiting for a device, for reclaim, or for the host
        ("owed_ps", np.int64),  # stall that the host says this vCPU still owes
        ("slice_end_ps", np.int64),  # when the running workload must let the CPU's others run
        ("tlb_tick", np.int64),  # counts look-ups; a TLB entry's stamp is its last one
        ("pcid", np.int32),  # of the address space in CR3
        ("mm", np.int32),  # whose page table CR3 holds, or 0
        ("turn", np.int32),  # one more than the number of the workload that runs; 0: none has run yet
        ("spare", np.int32),
    ],
    align=True,
)
