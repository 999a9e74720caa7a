"""The bare grpc.aio server that Emit is compared with: it parses the message and answers, no more."""

import argparse
from pathlib import Path
from typing import Any

import grpc

import serving
from omen.v1 import signal_service_pb2 as pb


async def echo(request: pb.EmitRequest, context: "grpc.aio.ServicerContext[Any, Any]") -> pb.EmitResponse:
    return pb.EmitResponse(emission=pb.Emission(signal_id=request.event.signal_id))


async def serve(port_file: Path) -> None:
    server = grpc.aio.server()
    handler = grpc.unary_unary_rpc_method_handler(
        echo, request_deserializer=pb.EmitRequest.FromString, response_serializer=pb.EmitResponse.SerializeToString
    )
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("omen.v1.SignalService", {"Emit": handler})])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    serving.write_port_file(port_file, port)
    async with serving.stop_signals() as stop:
        await stop.wait()
    await server.stop(None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("command", choices=["serve"])
    parser.add_argument("--port-file", type=Path, required=True)
    serving.run(serve(parser.parse_args().port_file))


if __name__ == "__main__":
    main()
