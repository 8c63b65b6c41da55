"""Members are made by the kind of their spec, as the coordinator has them made."""

from pathlib import Path

import pytest

from node.machine import build_member
from tests.models.recorded_image import columns_of, write_image
from tests.node.guest.drive import image_spec
from tests.node.guest.fleet import MIB, host_spec


def test_each_kind_is_built_from_its_spec(tmp_path: Path) -> None:
    path = write_image(tmp_path / "a.npz", columns_of([[1, 2]]))
    image = image_spec(path, memory_bytes=8192)
    guest = {"kind": "guest", "memory_bytes": 64 * MIB, "guest": 0}
    for spec in (image, guest, host_spec([image, guest]), {"kind": "machine", "memory_bytes": 64 * MIB}):
        member = build_member(spec)
        assert member.kind == spec["kind"]
        assert member.counters()
        twin = build_member(spec)
        twin.restore(member.snapshot())
        assert twin.digest() == member.digest()


def test_an_unknown_kind_is_named() -> None:
    with pytest.raises(ValueError, match="kind: 'toaster' is none of machine, guest, host, image"):
        build_member({"kind": "toaster", "memory_bytes": 64 * MIB})
