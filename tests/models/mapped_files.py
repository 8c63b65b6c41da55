"""Files, shared memory and private copies: a dict from page to byte for each object, one for each process's copies."""

from dataclasses import dataclass, field


@dataclass
class MappedObject:
    """A file or an object of shared memory; a page that nobody has used is not there."""

    base: str  # what its untouched pages hold: "file" or "zeroes"
    has_name: bool
    bytes_of: dict[int, int] = field(default_factory=dict)

    def byte(self, index: int) -> int:
        """Use a page, and return its first byte, as written last."""
        return self.bytes_of.setdefault(index, 0)


@dataclass
class Place:
    """What one page of an address space maps."""

    object: MappedObject
    index: int
    is_shared: bool


class MappedProcess:
    """One process: what each of its pages maps, and the pages that it has copies of."""

    def __init__(self) -> None:
        self.places: dict[int, Place] = {}
        self.copies: dict[int, int] = {}

    def fork(self) -> "MappedProcess":
        """Return a child, which has the same places and copies of its own."""
        child = MappedProcess()
        child.places = dict(self.places)
        child.copies = dict(self.copies)
        return child

    def map(self, first: int, nr_pages: int, place: Place) -> None:
        """Map pages over whatever is there."""
        self.unmap(first, nr_pages)
        for page in range(nr_pages):
            self.places[first + page] = Place(place.object, place.index + page, place.is_shared)

    def unmap(self, first: int, nr_pages: int) -> None:
        """Forget pages, and the copies of them."""
        for page in range(first, first + nr_pages):
            self.places.pop(page, None)
        self.drop(first, nr_pages)

    def drop(self, first: int, nr_pages: int) -> None:
        """Forget the copies of pages: the next use sees the object again."""
        for page in range(first, first + nr_pages):
            self.copies.pop(page, None)

    def read(self, page: int) -> tuple[str, int] | None:
        """Return what a page holds, as the object's kind and the byte written last; None: nothing is mapped."""
        if page not in self.places:
            return None
        place = self.places[page]
        if page in self.copies:
            return place.object.base, self.copies[page]
        return place.object.base, place.object.byte(place.index)

    def write(self, page: int, byte: int) -> bool:
        """Write a page; return whether it is mapped."""
        if page not in self.places:
            return False
        place = self.places[page]
        place.object.byte(place.index)
        if place.is_shared:
            place.object.bytes_of[place.index] = byte
        else:
            self.copies[page] = byte
        return True
