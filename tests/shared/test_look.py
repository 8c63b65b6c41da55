"""Looks as bytes."""

import pytest

from shared.look import Look, MemoryPicture, PicturedZone, Use, decode_look, encode_look

PICTURE = MemoryPicture(
    cell_order=4,
    zones=(PicturedZone(0, "DMA", 1, 40), PicturedZone(1, "Normal", 40, 64)),
    uses=bytes([Use.RESERVED, Use.FREE, Use.USER, Use.FREE, Use.SLAB]),
    orders=bytes([0, 3, 0, 1, 0]),
)


def test_a_look_survives_its_encoding() -> None:
    look = Look({"/proc/buddyinfo": "Node 0, zone\n"}, PICTURE)
    assert decode_look(encode_look(look)) == look
    assert decode_look(encode_look(Look())) == Look()


def test_a_zone_s_first_and_last_cells_may_be_parts() -> None:
    assert [zone.nr_cells(4) for zone in PICTURE.zones] == [3, 2]


@pytest.mark.parametrize("data", [b"", b"no look", encode_look(Look({}, PICTURE))[:-9]])
def test_other_bytes_are_refused_in_one_line(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"^not a look at a machine: [^\n]*$"):
        decode_look(data)


def test_a_picture_whose_cells_do_not_fit_its_zones_is_refused() -> None:
    wrong = MemoryPicture(PICTURE.cell_order, PICTURE.zones, PICTURE.uses[1:], PICTURE.orders)
    with pytest.raises(ValueError, match="4 uses and 5 orders for 5 cells"):
        decode_look(encode_look(Look({}, wrong)))
