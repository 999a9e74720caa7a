"""The contract as buf sees it: every file with its comments, which generated Python does not have."""

import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
    MethodDescriptorProto,
)

ROOT = Path(__file__).resolve().parents[2]
BUF = Path(sys.executable).with_name("buf")

# Field numbers of descriptor.proto, of which the paths of comments are made.
FILE_MESSAGE, FILE_ENUM, FILE_SERVICE = 4, 5, 6
MESSAGE_FIELD, MESSAGE_NESTED, MESSAGE_ENUM, MESSAGE_ONEOF = 2, 3, 4, 8
ENUM_VALUE, SERVICE_METHOD = 2, 2


class Element(NamedTuple):
    """Something with a name and a comment. `kind` is message, field, oneof, enum, value, service or rpc."""

    kind: str
    name: str
    comment: str


def buf(*arguments: str) -> bytes:
    done = subprocess.run([BUF, *arguments], cwd=ROOT, capture_output=True, check=False)
    assert done.returncode == 0, (done.stdout + done.stderr).decode()
    return done.stdout


@cache
def files() -> tuple[FileDescriptorProto, ...]:
    """The files of omen.v1 and riskcast.v1, in the order of their names."""
    found = FileDescriptorSet.FromString(buf("build", "--as-file-descriptor-set", "--output", "-#format=binpb"))
    return tuple(file for file in found.file if file.package in ("omen.v1", "riskcast.v1"))


@cache
def elements() -> tuple[Element, ...]:
    return tuple(element for file in files() for element in elements_of(file))


def elements_of(file: FileDescriptorProto) -> Iterator[Element]:
    comments = {tuple(one.path): one.leading_comments.strip() for one in file.source_code_info.location}
    for number, message in enumerate(file.message_type):
        yield from message_elements(message, file.package, (FILE_MESSAGE, number), comments)
    for number, enum in enumerate(file.enum_type):
        path, name = (FILE_ENUM, number), f"{file.package}.{enum.name}"
        yield Element("enum", name, comments.get(path, ""))
        for index, value in enumerate(enum.value):
            yield Element("value", f"{name}.{value.name}", comments.get((*path, ENUM_VALUE, index), ""))
    for number, service in enumerate(file.service):
        path, name = (FILE_SERVICE, number), f"{file.package}.{service.name}"
        yield Element("service", name, comments.get(path, ""))
        for index, method in enumerate(service.method):
            yield Element("rpc", f"{name}.{method.name}", comments.get((*path, SERVICE_METHOD, index), ""))


def message_elements(
    message: DescriptorProto, scope: str, path: tuple[int, ...], comments: dict[tuple[int, ...], str]
) -> Iterator[Element]:
    name = f"{scope}.{message.name}"
    yield Element("message", name, comments.get(path, ""))
    for index, field in enumerate(message.field):
        yield Element("field", f"{name}.{field.name}", comments.get((*path, MESSAGE_FIELD, index), ""))
    for index, oneof in enumerate(message.oneof_decl):
        if not oneof.name.startswith("_"):  # what `optional` is made of
            yield Element("oneof", f"{name}.{oneof.name}", comments.get((*path, MESSAGE_ONEOF, index), ""))
    for index, nested in enumerate(message.nested_type):
        yield from message_elements(nested, name, (*path, MESSAGE_NESTED, index), comments)


def comment_of(name: str) -> str:
    """The comment of an element by its full name, in one line."""
    return next(" ".join(element.comment.split()) for element in elements() if element.name == name)


def messages() -> dict[str, DescriptorProto]:
    """Every message by its full name with a leading dot, as fields refer to it."""
    return {f".{file.package}.{message.name}": message for file in files() for message in file.message_type}


def fields() -> Iterator[tuple[str, FieldDescriptorProto]]:
    for name, message in messages().items():
        for field in message.field:
            yield f"{name[1:]}.{field.name}", field


def methods() -> dict[str, MethodDescriptorProto]:
    return {
        f"{file.package}.{service.name}.{method.name}": method
        for file in files()
        for service in file.service
        for method in service.method
    }
