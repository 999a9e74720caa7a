"""Requests nobody should send: hostile values wherever a descriptor has a field, and bytes that are no message."""

from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from hypothesis import strategies as st

from tests.hostile.values import DURATION, HOSTILE, RAW, TIMESTAMP, UNKNOWN_FIELDS, kind_of

DEPTH_MAX = 6  # no message of the contract nests deeper
COUNTS = [1, 2, 65, 257, 5000]
ITEM_BYTES_MAX = 1000  # of what is repeated: more of it together than a message may have says nothing new

Path = tuple[FieldDescriptor, ...]
Draw = Callable[["st.SearchStrategy[Any]"], Any]

ANY: dict[int | str, "st.SearchStrategy[Any]"] = {
    FieldDescriptor.CPPTYPE_STRING: st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    FieldDescriptor.CPPTYPE_DOUBLE: st.floats(),
    "bytes": st.binary(max_size=20),
}


@cache
def fields_of(of: Descriptor) -> Sequence[Path]:
    """Every field of a message and of the messages inside it; times and durations are values."""
    return tuple(paths(of, DEPTH_MAX))


def paths(of: Descriptor, depth: int) -> Iterator[Path]:
    for field in of.fields:
        yield (field,)
        if field.message_type and not is_value(field) and depth:
            yield from ((field, *inner) for inner in paths(field.message_type, depth - 1))


def is_value(field: FieldDescriptor) -> bool:
    return field.message_type is None or field.message_type.full_name in (TIMESTAMP, DURATION)


def holder(message: Message, path: Path) -> Any:
    """The message in which the last field of a path stands; of what is repeated, the first."""
    target: Any = message
    for step in path[:-1]:
        inner = getattr(target, step.name)
        target = (inner[0] if len(inner) else inner.add()) if step.is_repeated else inner
    return target


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


def put(draw: Draw, message: Message, path: Path) -> None:
    """Something hostile, or nothing at all; many of the same where many may stand."""
    field = path[-1]
    if not draw(st.integers(0, 9)):
        holder(message, path).ClearField(field.name)
        return
    value = drawn(draw, field)
    if field.is_repeated:
        count = draw(st.sampled_from(COUNTS))
        value = [value] * (count if bytes_of(value) <= ITEM_BYTES_MAX else 1)
    set_value(message, path, value)


def bytes_of(value: Any) -> int:
    if isinstance(value, Message):
        return value.ByteSize()
    return len(value) if isinstance(value, str | bytes) else 8


def drawn(draw: Draw, field: FieldDescriptor) -> Any:
    kind = kind_of(field)
    if kind in HOSTILE:
        return draw(st.one_of(st.sampled_from(HOSTILE[kind]), ANY.get(kind, st.nothing())))
    return any_message(draw, field.message_type, DEPTH_MAX)


def any_message(draw: Draw, of: Any, depth: int) -> Message:
    """Some of its fields are set, each to whatever its type can hold."""
    made: Message = of._concrete_class()
    fields = [field for field in of.fields if depth or is_value(field)]
    if not fields:
        return made
    for field in draw(st.lists(st.sampled_from(fields), max_size=4, unique_by=lambda each: each.name)):
        if is_value(field):
            put(draw, made, (field,))
        else:
            target: Any = getattr(made, field.name)
            inner = any_message(draw, field.message_type, depth - 1)
            (target.add() if field.is_repeated else target).CopyFrom(inner)
    return made


def hostile(draw: Draw, good: Message) -> bytes:
    """A request as it goes over the wire: a good one that was spoiled in a few places, or one made of anything."""
    request = type(good)()
    if (places := fields_of(good.DESCRIPTOR)) and draw(st.integers(0, 5)):
        request.CopyFrom(good)
        for _ in range(draw(st.integers(1, 2))):
            put(draw, request, draw(st.sampled_from(places)))
    else:
        request.CopyFrom(any_message(draw, good.DESCRIPTOR, DEPTH_MAX))
    return request.SerializeToString() + bytes(draw(st.sampled_from(UNKNOWN_FIELDS)))


def garbled(draw: Draw, good: bytes) -> bytes:
    """Bytes: random, known to be trouble, or those of a good message cut, flipped, spliced or gone on."""
    kind = draw(st.sampled_from(["random", "trouble", "cut", "flipped", "spliced", "appended"]))
    if kind == "random" or not good:
        return bytes(draw(st.binary(max_size=64)))
    if kind == "trouble":
        return bytes(draw(st.sampled_from(RAW)))
    at = place_in(draw, good)
    if kind == "cut":
        return good[:at]
    if kind == "flipped":
        return good[:at] + bytes([good[at] ^ draw(st.integers(1, 255))]) + good[at + 1 :]
    if kind == "spliced":
        return good[:at] + good[place_in(draw, good) :]
    return good + bytes(draw(st.sampled_from(RAW)))


def place_in(draw: Draw, good: bytes) -> int:
    """Drawn from the same numbers however long it is: a later message may be longer."""
    return int(draw(st.integers(0, 2**16 - 1))) * len(good) >> 16
