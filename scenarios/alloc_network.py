"""Network buffers: bursts of packets, each a head and data, allocated by an interrupt that cannot wait.

    packet   head   sk_buff, from its cache                     }  allocated where the interrupt came,
             data   kmalloc of 512, 960 or 1,920 bytes          }  freed where the receiver runs
    every 16th packet: a block of 2**3 frames that the fragments of as many packets are cut from

A burst is what NAPI takes at once, up to 64 packets, on one CPU. Half of the packets are received on the CPU
that they came to, the others on one drawn.

Sources: Linux 6.1 net/core/skbuff.c (__alloc_skb: data and the 320 bytes of skb_shared_info in one piece;
__napi_alloc_skb; page_frag_alloc), include/linux/skbuff.h (NET_SKB_PAD 64), include/linux/mm_types.h
(PAGE_FRAG_CACHE_MAX_ORDER: 32 KiB), include/linux/netdevice.h (NAPI_POLL_WEIGHT 64); J. Brouer, Network stack
challenges at increasing speeds, linux.conf.au 2015 (what the allocator costs a packet). The mix of sizes,
small, middle and full packets as 2:1:1, is a guess at the two peaks that link traces show.
"""

from typing import Final

import numpy as np

from scenarios.alloc_events import Demand, Draws, Lives, What
from shared.alloc_kind import AllocKind
from shared.gfp_flags import GFP_ATOMIC, Gfp

SK_BUFF_BYTES: Final = 232
DATA: Final = (
    What(AllocKind.KMALLOC, 512, GFP_ATOMIC, 2),  # 128 bytes, 64 of headroom, 320 of shared info
    What(AllocKind.KMALLOC, 960, GFP_ATOMIC, 1),  # 576
    What(AllocKind.KMALLOC, 1920, GFP_ATOMIC, 1),  # 1,514, to whole cache lines
)
FRAGMENT_ORDER: Final = 3
FRAGMENT_GFP: Final = GFP_ATOMIC | Gfp.COMP | Gfp.NOWARN | Gfp.NORETRY
PACKETS_PER_BLOCK: Final = 16  # 32 KiB in pieces of 2 KiB
BURST: Final = 64


def lives(draws: Draws, demand: Demand) -> Lives:
    """Return at least as many objects as the trace has events."""
    nr_packets = demand.operations // 2 + 1
    packet = np.arange(nr_packets, dtype=np.int64)
    # The end of a burst is drawn: it is what had come since the last.
    first_of_burst = draws.below(BURST // 2, nr_packets) == 0
    burst = np.cumsum(first_of_burst)
    cpus = np.array(demand.cpus, np.int64)
    cpu = cpus[draws.below(len(cpus), int(burst[-1]) + 1)][burst]
    moved = draws.below(2, nr_packets) == 1
    free_cpu = np.where(moved, cpus[draws.below(len(cpus), nr_packets)], cpu)
    life = draws.lifetimes(demand.live // 2, nr_packets)
    kind, size, gfp = draws.choose(DATA, nr_packets)
    # A burst's packets come at once: they are born at the time of its last.
    time = np.searchsorted(burst, burst, side="right") - 1
    blocks = packet[::PACKETS_PER_BLOCK]
    # A block goes with the last of its packets.
    block_end = np.maximum.reduceat(time + life, blocks)
    born = np.concatenate([time, time, time[blocks]])
    order = np.argsort(born, kind="stable")

    def joined(of_head: np.ndarray, of_data: np.ndarray, of_block: np.ndarray) -> np.ndarray:
        return np.concatenate([of_head, of_data, of_block])[order]

    def all_heads(value: int) -> np.ndarray:
        return np.full(nr_packets, value, np.int64)

    def all_blocks(value: int) -> np.ndarray:
        return np.full(len(blocks), value, np.int64)

    return Lives(
        born[order],
        joined(life, life, block_end - time[blocks]),
        joined(cpu, cpu, cpu[blocks]),
        joined(free_cpu, free_cpu, cpu[blocks]),
        joined(all_heads(AllocKind.OBJECT), kind, all_blocks(AllocKind.FRAMES)),
        joined(all_heads(SK_BUFF_BYTES), size, all_blocks(FRAGMENT_ORDER)),
        joined(all_heads(GFP_ATOMIC), gfp, all_blocks(FRAGMENT_GFP)),
    )
