"""Servers that parse a message and answer, no more: bare on grpc.aio, or behind what each call of ours passes."""

import argparse
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import grpc
from prometheus_client import CollectorRegistry

import serving
from contract.scopes import SCOPES, Scope
from omen.v1 import signal_service_pb2 as pb
from serving.security import Security

SERVICE = pb.DESCRIPTOR.services_by_name["SignalService"]
CPU = f"/{SERVICE.full_name}/Cpu"  # seconds of processor time that the server has taken

Context = grpc.aio.ServicerContext[Any, Any]


async def emit(request: pb.EmitRequest, context: Context) -> pb.EmitResponse:
    return pb.EmitResponse(emission=pb.Emission(signal_id=request.event.signal_id))


async def emit_stream(requests: AsyncIterator[pb.EmitStreamRequest], context: Context) -> AsyncIterator[Any]:
    async for request in requests:
        results = [pb.EmitResult(emission=pb.Emission(signal_id=each.signal_id)) for each in request.events]
        yield pb.EmitStreamResponse(results=results)


async def cpu(request: bytes, context: Context) -> bytes:
    return str(time.process_time()).encode()


def add_handlers(server: grpc.aio.Server) -> None:
    handlers: dict[str, Any] = {
        "Emit": grpc.unary_unary_rpc_method_handler(emit, pb.EmitRequest.FromString, pb.EmitResponse.SerializeToString),
        "EmitStream": grpc.stream_stream_rpc_method_handler(
            emit_stream, pb.EmitStreamRequest.FromString, pb.EmitStreamResponse.SerializeToString
        ),
        "Cpu": grpc.unary_unary_rpc_method_handler(cpu),
    }
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(SERVICE.full_name, handlers)])


async def serve(on_ready: Callable[[int], None]) -> None:
    server = grpc.aio.server()
    add_handlers(server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    on_ready(port)
    async with serving.stop_signals() as stop:
        await stop.wait()
    await server.stop(None)


async def serve_guarded(on_ready: Callable[[int], None], keys_file: Path) -> None:
    """With keys, metrics, and a log line for each call."""
    serving.configure_logging()
    scopes = {**SCOPES, CPU: Scope.STATS_READ}
    async with (
        serving.stop_signals() as stop,
        serving.serve(
            "127.0.0.1:0",
            [serving.Mount(SERVICE, add_handlers)],
            domain="omen.v1",
            security=Security(keys_file),
            scopes=scopes,
            registry=CollectorRegistry(),
        ) as running,
    ):
        on_ready(running.port)
        await stop.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("command", choices=["serve"])
    parser.add_argument("--port-file", type=Path, required=True)
    parser.add_argument("--keys-file", type=Path, help="serve behind the guard, for those who have these keys")
    given = parser.parse_args()

    def on_ready(port: int) -> None:
        serving.write_port_file(given.port_file, port)

    serving.run(serve_guarded(on_ready, given.keys_file) if given.keys_file else serve(on_ready))


if __name__ == "__main__":
    main()
