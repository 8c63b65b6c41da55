"""The zones of the machine that recorded tests/golden: 512 MiB, one CPU, Debian's Linux 6.1.0-56-amd64."""

from node.phys.zone import ZoneId
from node.proc.zones import PerCpuSet, ZoneView

DMA = ZoneView(
    index=0,
    kind=ZoneId.DMA,
    node=0,
    start_pfn=1,
    spanned=4095,
    present=3998,
    managed=3840,
    free=3808,
    boost=0,
    min=22,
    low=27,
    high=32,
    protection=(0, 442, 442, 442, 442),
    free_blocks=(0, 0, 0, 0, 0, 1, 1, 1, 0, 1, 3),
    sets=(PerCpuSet(cpu=0, count=0, high=27, batch=1),),
)
DMA32 = ZoneView(
    index=1,
    kind=ZoneId.DMA32,
    node=0,
    start_pfn=4096,
    spanned=126941,
    present=126941,
    managed=113261,
    free=104205,
    boost=0,
    min=658,
    low=822,
    high=986,
    protection=(0, 0, 0, 0, 0),
    free_blocks=(3, 1, 2, 2, 9, 5, 3, 4, 7, 4, 97),
    sets=(PerCpuSet(cpu=0, count=5, high=822, batch=31),),
)
NORMAL = ZoneView(  # has no frames
    index=2,
    kind=ZoneId.NORMAL,
    node=0,
    start_pfn=0,
    spanned=0,
    present=0,
    managed=0,
    free=0,
    boost=0,
    min=0,
    low=0,
    high=0,
    protection=(0, 0, 0, 0, 0),
    free_blocks=(0,) * 11,
    sets=(),
)
