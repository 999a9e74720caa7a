"""Values that servers have stumbled over, by the type of the field they are put into."""

from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message_factory import GetMessageClass
from google.protobuf.timestamp_pb2 import Timestamp

MIB = 1024 * 1024
TIMESTAMP, DURATION = "google.protobuf.Timestamp", "google.protobuf.Duration"

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
    "\u0661.\u0660.\u0660",  # digits, but not those of ASCII
    "9" * 5000,
    "2.0.0",
    "2026-02-30",
    "2026-01-29-late",
    "../../etc/passwd",
    "'; DROP TABLE signals; --",
    "%s%n{0}{self}",
    "W1tb" * 20_000,  # base64 of JSON that nests deeper than a parser goes
    "WyIiLCAiIl0=",  # base64 of JSON that nobody's token is
    "OMEN-000000000000",
]
DOUBLES = [float("nan"), float("inf"), float("-inf"), -0.0, 5e-324, -5e-324, 1.0000000000000002, -1e300, 2.0]
INTEGERS = [0, 1, -1, 1000, 1001, 2**31 - 1, -(2**31), 2**32, 2**32 + 1, 2**63 - 1, -(2**63), 2**64 - 1]
BYTES = [b"", b"\0" * 16, b"\xff" * 16, b"\xff" * 17, b"\x0a\x05abc", b"\x00" * (65 * 1024), b"{" * 4096]
SECONDS = [0, -1, 946_684_799, 1_769_000_000, 4_102_444_800, 253_402_300_800, 2**63 - 1, -(2**63)]
NANOS = [-1, 999_999_999, 10**9, 2**31 - 1, -(2**31)]
TIMES = [*((each, 0) for each in SECONDS), *((1_769_000_000, each) for each in NANOS)]

# Fields that no message has: none, a number, a text, a group that holds one.
UNKNOWN_FIELDS = [
    b"",
    b"\xf8\xff\xff\xff\x0f\x01",
    b"\xfa\xff\xff\xff\x0f\x03abc",
    b"\x83\xf8\x07\x08\x01\x84\xf8\x07",
]
# Bytes instead of a message.
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


def integers(low: int, high: int) -> list[int]:
    return [each for each in INTEGERS if low <= each <= high]


def kind_of(field: FieldDescriptor) -> int | str:
    """What the tables below name the type of a field."""
    if field.message_type:
        return str(field.message_type.full_name)
    return "bytes" if field.type == FieldDescriptor.TYPE_BYTES else int(field.cpp_type)


# Some are good somewhere.
HOSTILE: dict[int | str, list[Any]] = {
    FieldDescriptor.CPPTYPE_STRING: TEXTS,
    FieldDescriptor.CPPTYPE_DOUBLE: DOUBLES,
    FieldDescriptor.CPPTYPE_BOOL: [False, True],
    FieldDescriptor.CPPTYPE_ENUM: [0, 1, 2, 999, -1, 2**31 - 1, -(2**31)],
    FieldDescriptor.CPPTYPE_INT32: integers(-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_INT64: integers(-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT32: integers(0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_UINT64: integers(0, 2**64 - 1),
    "bytes": BYTES,
    TIMESTAMP: [Timestamp(seconds=seconds, nanos=nanos) for seconds, nanos in TIMES],
    DURATION: [Duration(seconds=seconds, nanos=nanos) for seconds, nanos in TIMES],
}
# What no field of an event or an observation may hold, whatever it means.
BAD: dict[int | str, list[Any]] = {
    FieldDescriptor.CPPTYPE_STRING: ["a\0b", "e\u0301", "x" * MIB],
    FieldDescriptor.CPPTYPE_DOUBLE: [float("nan"), float("inf"), float("-inf")],
    TIMESTAMP: [Timestamp(), Timestamp(seconds=10**17), Timestamp(seconds=1_769_000_000, nanos=-1)],
    DURATION: [Duration(seconds=-1), Duration(nanos=2**31 - 1), Duration(seconds=10**17)],
}
ITEMS = 65  # one more than anything of an event or an observation may have
MANY_ITEMS = 5000


def hostile_values(field: FieldDescriptor) -> list[Any]:
    """Of a field that is repeated, lists: of one, and of very many."""
    values = HOSTILE.get(kind_of(field), [])
    return [[each] * (MANY_ITEMS if each is values[0] else 1) for each in values] if field.is_repeated else values


def bad_values(field: FieldDescriptor) -> list[Any]:
    """Of a field that is repeated, lists: with one of them, and one that is too long."""
    bad = BAD.get(kind_of(field), [])
    if not field.is_repeated:
        return bad
    one = GetMessageClass(field.message_type)() if field.message_type else "x"
    return [[each] for each in bad] + [[one] * ITEMS]
