"""Messages: round trips, one encoding each, and nothing but MessageError for wrong bytes."""

from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from shared.constants import INT64_MAX, INT64_MIN
from shared.messages import (
    GuestReport,
    HostAnswer,
    HostPhase,
    Message,
    MessageError,
    RunUntil,
    ViolationKind,
    decode,
    decode_as,
    encode,
    read_flag,
)
from shared.views import View

NATURALS = st.integers(0, INT64_MAX)
INTEGERS = st.integers(INT64_MIN, INT64_MAX)


def arrays(kind: type[np.signedinteger[Any]], length: int) -> st.SearchStrategy[Any]:
    return hnp.arrays(kind, length)


@st.composite
def run_untils(draw: st.DrawFn) -> RunUntil:
    start, end = sorted((draw(NATURALS), draw(NATURALS)))
    return RunUntil(draw(NATURALS), start, end, draw(st.binary(max_size=20)))


@st.composite
def guest_reports(draw: st.DrawFn) -> GuestReport:
    nr_violations, nr_changed, nr_accessed = (draw(st.integers(0, 5)) for _ in range(3))
    return GuestReport(
        epoch=draw(NATURALS),
        guest=draw(NATURALS),
        counters=draw(st.dictionaries(st.text(max_size=8), INTEGERS, max_size=4)),
        violation_time_ps=draw(arrays(np.int64, nr_violations)),
        violation_gfn=draw(arrays(np.int32, nr_violations)),
        violation_vcpu=draw(arrays(np.int16, nr_violations)),
        violation_kind=draw(hnp.arrays(np.int8, nr_violations, elements=st.sampled_from([0, 1]))),
        changed_gfn=draw(arrays(np.int32, nr_changed)),
        changed_content=draw(arrays(np.int64, nr_changed)),
        changed_word=draw(arrays(np.int32, nr_changed)),
        accessed_gfn=draw(arrays(np.int32, nr_accessed)),
        finished=draw(st.booleans()),
    )


@st.composite
def host_phases(draw: st.DrawFn) -> HostPhase:
    start, end = sorted((draw(NATURALS), draw(NATURALS)))
    return HostPhase(draw(NATURALS), start, end, tuple(draw(st.lists(st.binary(max_size=20), max_size=4))))


@st.composite
def host_answers(draw: st.DrawFn) -> HostAnswer:
    nr_views = draw(st.integers(0, 5))
    return HostAnswer(
        epoch=draw(NATURALS),
        guest=draw(NATURALS),
        view_gfn=draw(arrays(np.int32, nr_views)),
        view_level=draw(hnp.arrays(np.int8, nr_views, elements=st.sampled_from([int(v) for v in View]))),
        estimate_ns=draw(NATURALS),
        stall_ps=draw(arrays(np.int64, draw(st.integers(0, 3)))),
        killed=draw(st.booleans()),
    )


MESSAGES: st.SearchStrategy[Message] = st.one_of(run_untils(), guest_reports(), host_phases(), host_answers())


def assert_same(one: Message, other: Message) -> None:
    assert type(one) is type(other)
    for name in one.__dataclass_fields__:
        left, right = getattr(one, name), getattr(other, name)
        assert type(left) is type(right)
        if isinstance(left, np.ndarray):
            assert left.dtype == right.dtype
            assert left.tolist() == right.tolist()
        else:
            assert left == right


@given(MESSAGES)
def test_a_message_survives_its_encoding(message: Message) -> None:
    data = encode(message)
    decoded = decode(data)
    assert_same(decoded, message)
    assert encode(decoded) == data


@pytest.mark.parametrize("flag", [False, True])
def test_a_flag_is_read_without_the_rest(flag: bool) -> None:
    report = encode(GuestReport(1, 0, {"pgfault": 1}, finished=flag))
    assert read_flag(GuestReport, report, "finished") is flag
    answer = encode(HostAnswer(1, 0, killed=flag))
    assert read_flag(HostAnswer, answer, "killed") is flag
    with pytest.raises(MessageError, match="not a HostAnswer"):
        read_flag(HostAnswer, report, "killed")
    for other in (answer, report[:12]):
        with pytest.raises(MessageError):
            read_flag(GuestReport, other, "finished")


def test_the_order_in_which_counters_were_counted_does_not_show() -> None:
    one = GuestReport(1, 0, {"pgfault": 1, "pgalloc": 2})
    other = GuestReport(1, 0, {"pgalloc": 2, "pgfault": 1})
    assert encode(one) == encode(other)


def test_a_strided_array_is_encoded_as_its_elements() -> None:
    every_second = np.arange(6, dtype=np.int32)[::2]
    report = GuestReport(1, 0, {}, accessed_gfn=every_second)
    assert decode_as(GuestReport, encode(report)).accessed_gfn.tolist() == [0, 2, 4]


def test_decoded_arrays_are_views_that_begin_at_whole_words() -> None:
    data = encode(GuestReport(1, 0, {"a": 1}, accessed_gfn=np.arange(3, dtype=np.int32)))
    array = decode_as(GuestReport, data).accessed_gfn
    assert not array.flags.owndata
    assert not array.flags.writeable
    assert (array.ctypes.data - np.frombuffer(data, np.uint8).ctypes.data) % 8 == 0


@settings(max_examples=30)
@given(MESSAGES)
def test_every_truncation_is_refused(message: Message) -> None:
    data = encode(message)
    for length in range(len(data)):
        with pytest.raises(MessageError):
            decode(data[:length])


@given(MESSAGES, st.lists(st.tuples(st.integers(0, 10_000), st.integers(1, 255)), min_size=1, max_size=3))
def test_flipped_bits_are_refused_or_make_another_valid_message(
    message: Message, flips: list[tuple[int, int]]
) -> None:
    data = bytearray(encode(message))
    for position, flip in flips:
        data[position % len(data)] ^= flip
    assert_decodes_or_is_refused(bytes(data))


@settings(max_examples=20)
@given(MESSAGES)
def test_each_single_flipped_byte_is_refused_or_makes_another_valid_message(message: Message) -> None:
    data = encode(message)
    for position in range(len(data)):
        for flip in (0x01, 0x80, 0xFF):
            assert_decodes_or_is_refused(
                data[:position] + bytes([data[position] ^ flip]) + data[position + 1 :]
            )


@given(st.binary(max_size=100))
def test_random_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(MessageError):
        decode(data)
    header = b"PFM1" + len(data).to_bytes(4, "little") + data
    assert_decodes_or_is_refused(header)


def assert_decodes_or_is_refused(data: bytes) -> None:
    try:
        again = encode(decode(data))
    except MessageError as error:
        said = str(error)
    else:
        said = ""
        assert again == data
    assert "\n" not in said


def with_header(*header: object) -> bytes:
    packed: bytes = msgpack.packb(list(header))
    data = b"PFM1" + len(packed).to_bytes(4, "little") + packed
    return data + bytes(-len(data) % 8)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "message: 0 bytes is below the minimum of 8"),
        (b"PFM2" + bytes(4), "message: starts with b'PFM2', not b'PFM1'"),
        (b"PFM1\xff\xff\xff\x7f", "cut short: a header of 2147483647 bytes"),
        (b"PFM1\x01\x00\x00\x00\xc1", "message header: not msgpack"),
        (with_header(), "message header: not a list"),
        (with_header(9), "message tag: 9 is not one of 1, 2, 3, 4"),
        (with_header("RunUntil"), "message tag: 'RunUntil' is not one of"),
        (with_header(True, 0, 0, 0, 0), "message tag: True is not one of"),
        (with_header(1, 0, 0), "RunUntil: 2 fields, but it has 4"),
        (with_header(1, 0, 0, 0, 5), "RunUntil.answer: 5 bytes announced, 0 left"),
        (with_header(1, 0, 0, 0, -1), "RunUntil.answer: -1 is not a length"),
        (with_header(1, 0, 0, 0, 0)[:-1] + b"x", "padding before it is not zero"),
        (with_header(1, 0, 0, 0, 0) + bytes(10), "10 bytes too many"),
        (with_header(1, 2**63, 0, 0, 0), "RunUntil.epoch: 9223372036854775808 does not fit in 64 bits"),
        (with_header(1, 1.0, 0, 0, 0), "RunUntil.epoch: 1.0 is a float, not an int"),
        (with_header(1, False, 0, 0, 0), "RunUntil.epoch: False is a bool, not an int"),
        (with_header(1, 0, 5, 4, 0), "end_ns: 4 is before start_ns, 5"),
        (with_header(3, 0, 0, 0, 7), "HostPhase.reports: 7 is not a list of lengths"),
        (with_header(4, 0, 0, ["<i8", 0]), "HostAnswer: 3 fields, but it has 7"),
        (
            with_header(4, 0, 0, ["<i8", 0], ["|i1", 0], 0, ["<i8", 0], False),
            "HostAnswer.view_gfn: ['<i8', 0] is not ['<i4', length]",
        ),
        (
            with_header(4, 0, 0, ["<i4", 2**60], ["|i1", 0], 0, ["<i8", 0], False),
            "HostAnswer.view_gfn: 4611686018427387904 bytes announced",
        ),
    ],
)
def test_wrong_bytes_are_refused_with_what_is_wrong(data: bytes, said: str) -> None:
    with pytest.raises(MessageError) as caught:
        decode(data)
    assert said in str(caught.value)


def test_a_message_of_another_type_is_refused() -> None:
    with pytest.raises(MessageError, match="a RunUntil where a HostPhase is needed"):
        decode_as(HostPhase, encode(RunUntil(0, 0, 1)))


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"epoch": -1}, "epoch: -1 is below 0"),
        ({"counters": {"pgfault": 1.5}}, r"counters\['pgfault'\]: 1.5 is a float"),
        ({"counters": {3: 1}}, "counters: 3 is not a name"),
        ({"finished": 1}, "finished: 1 is a int, not a bool"),
        ({"accessed_gfn": np.zeros(2, np.int64)}, "accessed_gfn: elements are <i8, not <i4"),
        ({"accessed_gfn": np.zeros((2, 2), np.int32)}, "accessed_gfn: .* one-dimensional"),
        ({"accessed_gfn": [1, 2]}, r"accessed_gfn: \[1, 2\] is not a one-dimensional array"),
        ({"changed_gfn": np.zeros(2, np.int32)}, "lengths differ: changed_gfn 2, changed_content 0"),
    ],
)
def test_a_message_cannot_be_made_of_wrong_fields(fields: dict[str, Any], said: str) -> None:
    right: dict[str, Any] = {"epoch": 0, "guest": 0, "counters": {}}
    with pytest.raises(MessageError, match=said):
        GuestReport(**(right | fields))


def test_an_unknown_kind_of_violation_is_refused() -> None:
    with pytest.raises(MessageError, match=r"violation_kind: values 0..2 are outside 0..1"):
        GuestReport(
            0,
            0,
            {},
            violation_time_ps=np.zeros(2, np.int64),
            violation_gfn=np.zeros(2, np.int32),
            violation_vcpu=np.zeros(2, np.int16),
            violation_kind=np.array([ViolationKind.READ, 2], np.int8),
        )


def test_an_unknown_view_level_is_refused() -> None:
    with pytest.raises(MessageError, match=r"view_level: values 4..4 are outside 0..3"):
        HostAnswer(0, 0, view_gfn=np.zeros(1, np.int32), view_level=np.array([4], np.int8))
