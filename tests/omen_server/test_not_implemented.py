"""What the contract promises and is not there yet says so, and only that."""

from pathlib import Path
from typing import Any

import grpc
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message_factory import GetMessageClass

from contract.errors import ErrorDetails, Reason
from omen.v1 import (
    delivery_service_pb2,
    ledger_service_pb2,
    pipeline_service_pb2,
    signal_service_pb2,
    stats_service_pb2,
)
from tests.omen_server.running import closed_port, omen

SERVICES = {
    "SignalService": signal_service_pb2,
    "PipelineService": pipeline_service_pb2,
    "LedgerService": ledger_service_pb2,
    "DeliveryService": delivery_service_pb2,
    "StatsService": stats_service_pb2,
}

NOT_THERE_YET = {
    "PipelineService.ProcessStream",
    "PipelineService.ListRejections",
    "PipelineService.GetMethodology",
    "StatsService.GetStats",
    "StatsService.ListActivity",
}


def methods() -> list[MethodDescriptor]:
    return [method for name, module in SERVICES.items() for method in module.DESCRIPTOR.services_by_name[name].methods]


async def called(channel: grpc.aio.Channel, method: MethodDescriptor) -> ErrorDetails | None:
    """Calls a method of any kind with an empty request; what it was refused with.

    A stream of requests is opened and nothing is sent on it. When the server refuses a call before it has read all,
    the refusal and the client's next write cross on the way, and grpc.aio lets a write that failed for that reason
    replace the status that has come: INTERNAL without details (grpc/grpc#36066).
    """
    path = f"/{method.containing_service.full_name}/{method.name}"
    request = GetMessageClass(method.input_type)()
    serialise, parse = type(request).SerializeToString, GetMessageClass(method.output_type).FromString
    kind = ("stream_" if method.client_streaming else "unary_") + ("stream" if method.server_streaming else "unary")
    make: Any = getattr(channel, kind)
    callable_ = make(path, serialise, parse)
    call = callable_(timeout=3) if method.client_streaming else callable_(request, timeout=10)
    return await refused(call, method.server_streaming)


async def refused(call: Any, is_streaming: bool) -> ErrorDetails | None:
    try:
        if is_streaming:
            await anext(aiter(call), None)  # what ends without an answer was refused; some streams never end
        else:
            await call
    except grpc.aio.AioRpcError as error:
        return ErrorDetails.from_trailing_metadata(error.trailing_metadata())
    return None


async def test_exactly_the_listed_methods_answer_not_implemented_with_rich_details(tmp_path: Path) -> None:
    absent = {}
    async with omen(tmp_path, closed_port()) as server:
        for method in methods():
            error = await called(server.channel, method)
            if error and error.reason == Reason.NOT_IMPLEMENTED:
                absent[f"{method.containing_service.name}.{method.name}"] = error
    assert set(absent) == NOT_THERE_YET
    for name, error in absent.items():
        assert error.code == grpc.StatusCode.UNIMPLEMENTED.value[0]
        assert error.domain == "omen.v1"
        assert name.rpartition(".")[2] in error.message


async def test_a_method_that_is_in_no_contract_answers_not_implemented_too(tmp_path: Path) -> None:
    async with omen(tmp_path, closed_port()) as server:
        call: Any = server.channel.unary_unary("/omen.v1.SignalService/Forget")
        error = await refused(call(b"", timeout=10), is_streaming=False)
    assert error
    assert (error.code, error.reason) == (grpc.StatusCode.UNIMPLEMENTED.value[0], Reason.NOT_IMPLEMENTED)
