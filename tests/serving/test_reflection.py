"""Tools that have no .proto files can find and call every service."""

import asyncio
import functools
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import descriptor_pb2
from grpc_reflection.v1alpha import reflection_pb2

import serving
from contract.errors import ContractError, Reason
from omen.v1 import signal_service_pb2, signal_service_pb2_grpc
from tests.serving.probe import Context

VERSIONS = ["v1alpha", "v1"]
SERVICE = signal_service_pb2.DESCRIPTOR.services_by_name["SignalService"]
LISTED = ["grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection", "omen.v1.SignalService"]
BUF = Path(sys.executable).with_name("buf")


class Signals(signal_service_pb2_grpc.SignalServiceServicer):
    async def GetSignal(
        self, request: signal_service_pb2.GetSignalRequest, _context: Context
    ) -> signal_service_pb2.GetSignalResponse:
        if request.signal_id:
            return signal_service_pb2.GetSignalResponse(stored_event=request.signal_id.encode())
        raise ContractError(Reason.SIGNAL_NOT_FOUND, "no such signal")


@asynccontextmanager
async def signals() -> AsyncIterator[serving.Running]:
    servicer: Any = Signals  # the others of its methods are left to the base
    add = functools.partial(signal_service_pb2_grpc.add_SignalServiceServicer_to_server, servicer())
    async with serving.serve("127.0.0.1:0", [serving.Mount(SERVICE, add)], domain="omen.v1") as running:
        yield running


async def ask(version: str, **request: Any) -> reflection_pb2.ServerReflectionResponse:
    async with signals() as running, serving.channel(running.target) as channel:
        reflect: Any = channel.stream_stream(
            f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
            reflection_pb2.ServerReflectionRequest.SerializeToString,
            reflection_pb2.ServerReflectionResponse.FromString,
        )
        answer: reflection_pb2.ServerReflectionResponse
        [answer] = [each async for each in reflect([reflection_pb2.ServerReflectionRequest(**request)], timeout=10)]
        return answer


@pytest.mark.parametrize("version", VERSIONS)
async def test_the_services_are_listed(version: str) -> None:
    answer = await ask(version, list_services="")
    assert [service.name for service in answer.list_services_response.service] == LISTED


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", [*LISTED, "google.rpc.ErrorInfo", "google.rpc.RetryInfo", "google.rpc.BadRequest"])
async def test_every_listed_service_and_every_detail_of_an_error_is_described(version: str, name: str) -> None:
    answer = await ask(version, file_containing_symbol=name)
    files = [
        descriptor_pb2.FileDescriptorProto.FromString(data)
        for data in answer.file_descriptor_response.file_descriptor_proto
    ]
    described = {f"{file.package}.{service.name}" for file in files for service in file.service}
    described |= {f"{file.package}.{message.name}" for file in files for message in file.message_type}
    assert name in described
    known = {file.name for file in files}
    assert [file.name for file in files if set(file.dependency) - known] == []


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    ("request_field", "value"),
    [
        ("file_containing_symbol", "nobody.v1.Here"),
        ("file_by_filename", "nobody.proto"),
        ("all_extension_numbers_of_type", "nobody.v1.Here"),
    ],
)
async def test_an_unknown_symbol_is_an_answer_and_not_an_error_of_the_call(
    version: str, request_field: str, value: str
) -> None:
    answer = await ask(version, **{request_field: value})
    assert answer.error_response.error_code == grpc.StatusCode.NOT_FOUND.value[0]
    assert answer.error_response.error_message == "not found"


async def buf_curl(*arguments: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of buf, which asks the server for every type it needs."""
    command = [str(BUF), "curl", "--protocol", "grpc", "--http2-prior-knowledge", "--reflect", *arguments]
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await process.communicate()
    return process.returncode or 0, out.decode(), err.decode()


async def test_buf_lists_the_methods_and_calls_one() -> None:
    async with signals() as running:
        url = f"http://{running.target}"
        code, listed, error = await buf_curl("--list-methods", url)
        assert (code, error) == (0, "")
        methods = {f"omen.v1.SignalService/{method.name}" for method in SERVICE.methods}
        assert methods <= set(listed.split())
        code, answer, error = await buf_curl("--data", '{"signal_id": "abc"}', f"{url}/omen.v1.SignalService/GetSignal")
        assert (code, error) == (0, "")
        assert json.loads(answer) == {"storedEvent": "YWJj"}


async def test_buf_shows_the_code_and_the_details_of_an_error() -> None:
    async with signals() as running:
        url = f"http://{running.target}/omen.v1.SignalService/GetSignal"
        code, answer, error = await buf_curl("--data", "{}", url)
        assert code == 8 * grpc.StatusCode.NOT_FOUND.value[0]
        assert answer == ""
        shown = json.loads(error)
        assert (shown["code"], shown["message"]) == ("not_found", "no such signal")
        assert [detail["type"] for detail in shown["details"]] == ["google.rpc.ErrorInfo"]
