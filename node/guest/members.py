"""The members that run with a host or as one, by the ``kind`` of their spec."""

from collections.abc import Callable, Mapping
from typing import Any, Final

from node.guest.guest_machine import GuestMachine
from node.guest.host import HostMachine
from node.guest.image import ImageGuest
from shared.member import Member

GUEST_KINDS: Final[Mapping[str, Callable[[Mapping[str, Any]], Member]]] = {
    "guest": GuestMachine,
    "image": ImageGuest,
    "host": HostMachine,
}
