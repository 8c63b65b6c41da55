"""What Python calls in tests of the block device."""

from node.hw.disk import begin_epoch_of_disk, disk_io, mean_service_ps
from node.state import State
from shared.jit import entry


@entry
def do_disk_io(state: State, first_page: int, nr_pages: int, write: int) -> int:
    return disk_io(state, first_page, nr_pages, write)


@entry
def do_mean_service_ps(state: State) -> int:
    return mean_service_ps(state)


@entry
def do_begin_epoch(state: State) -> None:
    begin_epoch_of_disk(state)
