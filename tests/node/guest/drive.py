"""What tests do with members: run them epoch by epoch."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from node.guest.image import ImageGuest
from shared.messages import GuestReport, HostAnswer, RunUntil, decode_as, encode

MS = 10**6
S = 10**9


def image_spec(path: object, **more: Any) -> dict[str, Any]:
    """Return the spec of an image guest."""
    return {"kind": "image", "image": str(path), "seed": 3, "machine": 5, "guest": 0} | more


def epochs(end_ns: int, epoch_ns: int) -> Iterator[tuple[int, int, int]]:
    """Yield (number, start, end) of the epochs up to ``end_ns``."""
    for number, start in enumerate(range(0, end_ns, epoch_ns)):
        yield number, start, min(start + epoch_ns, end_ns)


def run(guest: ImageGuest, end_ns: int, epoch_ns: int, start_ns: int = 0) -> list[GuestReport]:
    """Run a guest alone; its host raises every view that it asks for."""
    reports = []
    for number, start, end in epochs(end_ns, epoch_ns):
        if start >= start_ns:
            reports.append(decode_as(GuestReport, guest.run_epoch(RunUntil(number, start, end))))
    return reports


def answer(
    *,
    view_gfn: Sequence[int] | np.ndarray[Any, Any] = (),
    view_level: Sequence[int] = (),
    stall_ps: Sequence[int] = (),
    estimate_ns: int = 0,
    killed: bool = False,
) -> bytes:
    """Return an encoded answer to guest 0."""
    return encode(
        HostAnswer(
            epoch=0,
            guest=0,
            view_gfn=np.array(view_gfn, np.int32),
            view_level=np.array(view_level, np.int8),
            estimate_ns=estimate_ns,
            stall_ps=np.array(stall_ps, np.int64),
            killed=killed,
        )
    )
