"""A member that simulates nothing but is strict: its state is a hash of everything it was told, in order.

If a run's digest is right with these, every order reached every member once, in order, with the right answer
in it, whatever died on the way. ``hw.cost`` of a machine or host asks for misbehaviour:

    finish_at_epoch   its report of that epoch says finished
    fail_at_epoch     it raises there
    kill_at_epoch     a host kills its guest 0 there
    build_fails       it cannot be built
    sleep_us          real time that an epoch takes
    audit_fails_after_epoch   with --check, something is wrong then
"""

import hashlib
import json
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from shared.look import Look, MemoryPicture, PicturedZone, Use, encode_look
from shared.messages import GuestReport, HostAnswer, HostPhase, RunUntil, decode_as, encode

CELL_ORDER = 8
NR_CELLS = 64
_MAGIC = b"FAKE"


class FakeMember:
    def __init__(self, spec: dict[str, Any]) -> None:
        self.kind: str = spec["kind"]
        self.index: int = spec.get("guest", 0)
        self.nr_guests = len(spec.get("guests", ()))
        self.wish: dict[str, int] = spec.get("hw", {}).get("cost", {})
        if "build_fails" in self.wish:
            raise ValueError(f"{spec['memory_bytes']} bytes is less than the kernel needs")
        self.history = hashlib.sha256(json.dumps(spec, sort_keys=True).encode()).hexdigest()
        self.epoch = 0
        self.finished = False

    def run_epoch(self, order: RunUntil) -> bytes:
        if order.answer:
            answer = decode_as(HostAnswer, order.answer)
            assert (answer.epoch, answer.guest) == (order.epoch - 1, self.index)
        self._hear(order.epoch, encode(order))
        self.finished |= order.epoch == self.wish.get("finish_at_epoch")
        changed = np.frombuffer(bytes.fromhex(self.history), "<i8")
        return encode(
            GuestReport(
                epoch=order.epoch,
                guest=self.index,
                counters=self.counters(),
                changed_gfn=np.arange(len(changed), dtype=np.int32),
                changed_content=changed,
                changed_word=np.zeros(len(changed), np.int32),
                finished=self.finished,
            )
        )

    def host_phase(self, order: HostPhase) -> list[bytes]:
        assert len(order.reports) == self.nr_guests
        for guest, data in enumerate(order.reports):
            report = decode_as(GuestReport, data)
            assert (report.epoch, report.guest) == (order.epoch, guest)
        self._hear(order.epoch, encode(order))
        killed = order.epoch >= self.wish.get("kill_at_epoch", 1 << 40)
        return [
            encode(
                HostAnswer(
                    epoch=order.epoch,
                    guest=guest,
                    estimate_ns=int(self.history[:8], 16),
                    stall_ps=np.array([guest], np.int64),
                    killed=killed and guest == 0,
                )
            )
            for guest in range(self.nr_guests)
        ]

    def _hear(self, epoch: int, order: bytes) -> None:
        assert epoch == self.epoch, f"order {epoch} came where {self.epoch} was due"
        if epoch == self.wish.get("fail_at_epoch"):
            raise RuntimeError("asked to fail\nhere")
        time.sleep(self.wish.get("sleep_us", 0) / 1e6)
        self.history = hashlib.sha256(self.history.encode() + order).hexdigest()
        self.epoch += 1

    def counters(self) -> dict[str, int]:
        own = {"run_ns": self.epoch * 1000, "stall_ns": self.epoch * 250, "epochs": self.epoch}
        if self.kind == "host":
            own |= {f"guest.{guest}.rss_pages": 100 + guest for guest in range(self.nr_guests)}
            own |= {
                "ksm.pages_shared": 10,
                "ksm.pages_sharing": 30,
                "ksm.sharing_zero": 20,
                "pswpout": int(self.history[:6], 16),
            }
        return own

    def look(self) -> bytes:
        """Nothing of an image guest; of the others one file, and a picture of two zones that fill up."""
        if self.kind == "image":
            return b""
        zones = (PicturedZone(0, "DMA", 0, 4096), PicturedZone(0, "DMA32", 4096, 16384))
        used = min(self.epoch, NR_CELLS)
        picture = MemoryPicture(
            cell_order=CELL_ORDER,
            zones=zones,
            uses=bytes([Use.USER] * used + [Use.FREE] * (NR_CELLS - used)),
            orders=bytes([0] * used + [10] * (NR_CELLS - used)),
        )
        return encode_look(Look({"/proc/buddyinfo": f"epoch {self.epoch}\n"}, picture))

    def audit(self, contents: Sequence[bytes]) -> bytes:
        """A guest holds its history; the host has heard from the guests what they hold."""
        if self.kind == "host":
            assert len(contents) == self.nr_guests
            assert len(set(contents)) == self.nr_guests
        if self.epoch > self.wish.get("audit_fails_after_epoch", 1 << 40):
            raise AssertionError("frame 7:\nnothing is as it was")
        return b"" if self.kind != "guest" else self.history.encode()

    def snapshot(self) -> bytes:
        return _MAGIC + json.dumps([self.history, self.epoch, self.finished]).encode()

    def restore(self, data: bytes) -> None:
        if not data.startswith(_MAGIC):
            raise ValueError("not a snapshot of a fake member")
        self.history, self.epoch, self.finished = json.loads(data.removeprefix(_MAGIC))

    def digest(self) -> str:
        return hashlib.sha256(self.snapshot()).hexdigest()


def build_member(spec: dict[str, Any]) -> FakeMember:
    return FakeMember(spec)
