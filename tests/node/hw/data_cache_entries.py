"""What Python calls in tests of the data caches."""

from node.hw.cache_lines import drop_page_lines, drop_pcid_lines, line_pfn
from node.hw.data_cache import cache_access, find_virtual_line, translation_hidden_ps, use_line
from node.state import State
from shared.jit import entry


@entry
def do_cache_access(state: State, vaddr: int, pfn: int, write: int) -> int:
    return cache_access(state, vaddr, pfn, write)


@entry
def do_find_virtual_line(state: State, vaddr: int, write: int) -> int:
    return find_virtual_line(state, vaddr, write)


@entry
def do_use_line(state: State, index: int, write: int) -> int:
    return use_line(state, index, write)


@entry
def do_line_pfn(state: State, index: int) -> int:
    return line_pfn(state, index)


@entry
def do_drop_page_lines(state: State, cpu: int, vaddr: int, pcid: int, page_shift: int) -> None:
    drop_page_lines(state, cpu, vaddr, pcid, page_shift)


@entry
def do_drop_pcid_lines(state: State, cpu: int, pcid: int) -> None:
    drop_pcid_lines(state, cpu, pcid)


@entry
def do_translation_hidden_ps(state: State, translation_ps: int) -> int:
    return translation_hidden_ps(state, translation_ps)
