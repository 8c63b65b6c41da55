"""What Python calls in tests of segmentation."""

from node.hw.segments import (
    in_64bit_mode,
    load_code,
    load_data,
    load_error_code,
    load_stack,
    segment_access,
    segment_base,
    segment_dpl,
    segment_limit,
    segment_type,
)
from node.state import State
from shared.jit import entry


@entry
def do_segment_base(_state: State, descriptor: int) -> int:
    return segment_base(descriptor)


@entry
def do_segment_limit(_state: State, descriptor: int) -> int:
    return segment_limit(descriptor)


@entry
def do_segment_type(_state: State, descriptor: int) -> int:
    return segment_type(descriptor)


@entry
def do_segment_dpl(_state: State, descriptor: int) -> int:
    return segment_dpl(descriptor)


@entry
def do_in_64bit_mode(_state: State, descriptor: int, is_long: int) -> int:
    return in_64bit_mode(descriptor, is_long)


@entry
def do_load_error_code(_state: State, selector: int) -> int:
    return load_error_code(selector)


@entry
def do_load_data(_state: State, selector: int, descriptor: int, cpl: int) -> int:
    return load_data(selector, descriptor, cpl)


@entry
def do_load_stack(_state: State, selector: int, descriptor: int, cpl: int, is_64bit: int) -> int:
    return load_stack(selector, descriptor, cpl, is_64bit)


@entry
def do_load_code(_state: State, selector: int, descriptor: int, cpl: int, is_long: int) -> int:
    return load_code(selector, descriptor, cpl, is_long)


@entry
def do_segment_access(state: State, register: int, offset: int, kind: int) -> int:
    return segment_access(state, register, offset, kind)
