"""Messages nobody should send: any message with hostile values put anywhere that its descriptor allows, and raw bytes."""

from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import strategies as st

MIB = 1024 * 1024
DEPTH_MAX = 6  # no message of the contract nests deeper

Path = tuple[FieldDescriptor, ...]
Draw = Callable[["st.SearchStrategy[Any]"], Any]

TEXTS = [
    "",
    "\0",
    "a\0b",
    "e\u0301",  # é in two code points: not NFC
    "x" * MIB,
    "🚢" * 501,
    "x" * 129,
    "a|b",
    "a\nb\x7f",
    "\u202e\ufeff\ufffe\ufdd0",
    "\ud7ff\ue000\U0010ffff",
    "١.٠.٠",  # digits, but not those of ASCII
    "9" * 5000,
    "2.0.0",
    "2026-02-30",
    "2026-01-29-late",
    "../../etc/passwd",
    "'; DROP TABLE signals; --",
    "%s%n{0}{self}",
    "W" * 4000,  # base64 of "[[[[…" is not far from it
    "W1tb" * 20_000,  # and this is it: JSON nested deeper than a parser goes
    "OMEN-000000000000",
]
DOUBLES = [float("nan"), float("inf"), float("-inf"), -0.0, 5e-324, -5e-324, 1.0000000000000002, 1.8e308, -1e300, 2.0]
INTEGERS = [0, 1, -1, 1000, 1001, 2**31 - 1, -(2**31), 2**32, 2**32 + 1, 2**63 - 1, -(2**63), 2**64 - 1]
BYTES = [b"", b"\0" * 16, b"\xff" * 16, b"\xff" * 17, b"\x0a\x05abc", b"\x00" * (65 * 1024), b"{" * 4096]
SECONDS = [0, -1, 946_684_799, 1_769_000_000, 4_102_444_800, 253_402_300_800, 2**63 - 1, -(2**63)]
NANOS = [0, -1, 999_999_999, 10**9, 2**31 - 1, -(2**31)]
COUNTS = [1, 2, 65, 257, 5000]

# Fields that no message has: none, a number, a text, a group that holds one.
UNKNOWN_FIELDS = [
    b"",
    b"\xf8\xff\xff\xff\x0f\x01",
    b"\xfa\xff\xff\xff\x0f\x03abc",
    b"\x83\xf8\x07\x08\x01\x84\xf8\x07",
]
# Bytes that parsers have stumbled over.
RAW = [
    b"",
    b"\x00",
    b"\xff" * 64,
    b"\x0a\xff\xff\xff\xff\x0f",  # a text of 4 GiB that does not come
    b"\x0a" + b"\x80" * 11 + b"\x01",  # a number that never ends
    b"\x0a\x03\xed\xa0\x80",  # half of a surrogate pair
    b"\x0b" * 2000,  # groups in groups
    b"\x84\xf8\x07",  # the end of a group that never began
    b"\x0a\x80\x01" * 500,
    b'{"event": {}}',
    b"\x1f\x8b\x08\x00" + b"\0" * 20,
]

texts = st.one_of(st.sampled_from(TEXTS), st.text(max_size=20))
numbers = st.one_of(st.sampled_from(DOUBLES), st.floats())

BAD_VALUES: dict[int | str, list[Any]] = {
    FieldDescriptor.CPPTYPE_STRING: ["a\0b", "e\u0301", "x" * MIB],
    FieldDescriptor.CPPTYPE_DOUBLE: [float("nan"), float("inf"), float("-inf")],
    "google.protobuf.Timestamp": [Timestamp(), Timestamp(seconds=10**17), Timestamp(seconds=1_769_000_000, nanos=-1)],
    "google.protobuf.Duration": [Duration(seconds=-1), Duration(nanos=2**31 - 1), Duration(seconds=10**17)],
}


def integers(low: int, high: int) -> "st.SearchStrategy[int]":
    return st.sampled_from([each for each in INTEGERS if low <= each <= high])


SCALARS: dict[int, "st.SearchStrategy[Any]"] = {
    FieldDescriptor.CPPTYPE_STRING: texts,
    FieldDescriptor.CPPTYPE_DOUBLE: numbers,
    FieldDescriptor.CPPTYPE_BOOL: st.booleans(),
    FieldDescriptor.CPPTYPE_ENUM: st.sampled_from([0, 1, 2, 999, -1, 2**31 - 1, -(2**31)]),
    FieldDescriptor.CPPTYPE_INT32: integers(-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_INT64: integers(-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT32: integers(0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_UINT64: integers(0, 2**64 - 1),
}


def paths(of: Descriptor, depth: int = DEPTH_MAX) -> Iterator[Path]:
    """Every field of a message and of the messages inside it; times and durations are values."""
    for field in of.fields:
        yield (field,)
        if field.message_type and not is_value(field.message_type) and depth:
            yield from ((field, *inner) for inner in paths(field.message_type, depth - 1))


@cache
def fields_of(of: Descriptor) -> Sequence[Path]:
    return tuple(paths(of))


def is_value(of: Descriptor) -> bool:
    return of.full_name in ("google.protobuf.Timestamp", "google.protobuf.Duration")


def spoil(draw: Draw, message: Message, places: Sequence[Path]) -> None:
    """Puts one hostile value somewhere."""
    path = draw(st.sampled_from(places))
    put(draw, holder(message, path), path[-1])


def holder(message: Message, path: Path) -> Any:
    """The message in which the last field of a path stands; of what is repeated, the first."""
    target: Any = message
    for step in path[:-1]:
        inner = getattr(target, step.name)
        target = (inner[0] if len(inner) else inner.add()) if step.is_repeated else inner
    return target


def bad_values(field: FieldDescriptor) -> list[Any]:
    """What no field of an event or an observation may hold, whatever it means; a list is too long."""
    if field.message_type:
        bad = list(BAD_VALUES.get(field.message_type.full_name, []))
    else:
        bad = list(BAD_VALUES.get(field.cpp_type, [])) if field.type != FieldDescriptor.TYPE_BYTES else []
    if field.is_repeated:
        one = field.message_type._concrete_class() if field.message_type else "x"
        return [[each] for each in bad] + [[one] * 65]
    return bad


def set_value(message: Message, path: Path, value: Any) -> None:
    """Puts a value, or a list of them, where a path points."""
    target, name = holder(message, path), path[-1].name
    if isinstance(value, list):
        target.ClearField(name)
        getattr(target, name).extend(value)
    elif isinstance(value, Message):
        getattr(target, name).CopyFrom(value)
    else:
        setattr(target, name, value)


def put(draw: Draw, target: Any, field: FieldDescriptor) -> None:
    """Many of the same value where many may stand; nothing at all is a hostile value too."""
    if not draw(st.integers(0, 9)):
        target.ClearField(field.name)
    elif field.is_repeated:
        count = draw(st.sampled_from(COUNTS))
        value = drawn(draw, field)
        repeated = getattr(target, field.name)
        repeated.extend([value] * (count if len(sized(value)) < 1000 else 1))
    elif field.message_type:
        getattr(target, field.name).CopyFrom(drawn(draw, field))
    else:
        setattr(target, field.name, drawn(draw, field))


def sized(value: Any) -> Any:
    if isinstance(value, Message):
        return value.SerializeToString()
    return value if isinstance(value, str | bytes) else ()


def drawn(draw: Draw, field: FieldDescriptor) -> Any:
    if field.message_type:
        return any_message(draw, field.message_type)
    if field.type == FieldDescriptor.TYPE_BYTES:
        return draw(st.one_of(st.sampled_from(BYTES), st.binary(max_size=20)))
    return draw(SCALARS[field.cpp_type])


def any_message(draw: Draw, of: Descriptor, depth: int = DEPTH_MAX) -> Message:
    """A message of which some fields are set, each to whatever its type can hold."""
    if of.full_name == "google.protobuf.Timestamp":
        return Timestamp(seconds=draw(st.sampled_from(SECONDS)), nanos=draw(st.sampled_from(NANOS)))
    if of.full_name == "google.protobuf.Duration":
        return Duration(seconds=draw(st.sampled_from(SECONDS)), nanos=draw(st.sampled_from(NANOS)))
    made: Message = of._concrete_class()
    if not of.fields:
        return made
    for field in draw(st.lists(st.sampled_from(list(of.fields)), max_size=4, unique_by=lambda each: each.name)):
        if field.message_type and depth:
            inner = any_message(draw, field.message_type, depth - 1)
            target: Any = getattr(made, field.name)
            (target.add() if field.is_repeated else target).CopyFrom(inner)
        elif not field.message_type:
            put(draw, made, field)
    return made


def hostile(draw: Draw, good: Message) -> bytes:
    """A request as it goes over the wire: a good one that was spoiled in a few places, or one made of anything."""
    request = type(good)()
    if (places := fields_of(good.DESCRIPTOR)) and draw(st.integers(0, 5)):
        request.CopyFrom(good)
        for _ in range(draw(st.integers(1, 2))):
            spoil(draw, request, places)
    else:
        request.CopyFrom(any_message(draw, good.DESCRIPTOR))
    return request.SerializeToString() + draw(st.sampled_from(UNKNOWN_FIELDS))


def garbled(draw: Draw, good: bytes) -> bytes:
    """Bytes: random, known to be trouble, or those of a good message cut, flipped, doubled or cut short inside."""
    kind = draw(st.sampled_from(["random", "trouble", "cut", "flipped", "spliced", "appended"]))
    if kind == "random" or not good:
        return draw(st.binary(max_size=64))
    if kind == "trouble":
        return draw(st.sampled_from(RAW))
    at = place_in(draw, good)
    if kind == "cut":
        return good[:at]
    if kind == "flipped":
        return good[:at] + bytes([good[at] ^ draw(st.integers(1, 255))]) + good[at + 1 :]
    if kind == "spliced":
        return good[:at] + good[place_in(draw, good) :]
    return good + draw(st.sampled_from(RAW))


def place_in(draw: Draw, good: bytes) -> int:
    """Drawn from the same numbers however long it is, since a later message may be longer."""
    return draw(st.integers(0, 2**16 - 1)) * len(good) >> 16
