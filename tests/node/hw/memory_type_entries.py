"""What Python calls in tests of memory types."""

from node.hw.memory_type import (
    access_cost_ps,
    is_cached,
    is_valid_pat,
    leaf_pat_index,
    memory_type,
    type_extra_ps,
    write_pat,
)
from node.state import State
from shared.jit import entry


@entry
def do_is_valid_pat(_state: State, value: int) -> int:
    return is_valid_pat(value)


@entry
def do_write_pat(state: State, value: int) -> int:
    return write_pat(state, value)


@entry
def do_leaf_pat_index(_state: State, word: int, is_large: int) -> int:
    return leaf_pat_index(word, is_large)


@entry
def do_memory_type(_state: State, pat: int, index: int) -> int:
    return memory_type(pat, index)


@entry
def do_is_cached(_state: State, kind: int, write: int) -> int:
    return is_cached(kind, write)


@entry
def do_access_cost_ps(state: State, kind: int, write: int) -> int:
    return access_cost_ps(state, kind, write)


@entry
def do_type_extra_ps(state: State, pat_index: int, kind: int) -> int:
    return type_extra_ps(state, pat_index, kind)
