"""`omen demo --keep`: the requests to try on the two servers, as grpcurl and buf curl commands that work as printed."""

import shlex
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from google.protobuf.json_format import MessageToJson
from google.protobuf.message import Message

from omen.v1.pipeline_service_pb2 import ProcessRequest
from omen_server.demo.expected import another
from omen_server.demo.servers import Server
from omen_server.demo.stage import Stage
from riskcast.v1.ingest_service_pb2 import IngestRequest
from riskcast.v1.reconcile_service_pb2 import ReconcileRequest
from riskcast.v1.signal_service_pb2 import CountSignalsRequest

BUF_EXIT_ALREADY_EXISTS = 48  # buf's exit code is the gRPC code times 8


@dataclass(frozen=True)
class Try:
    """Something to try, by either tool."""

    about: str
    grpcurl: str
    buf: str


@dataclass(frozen=True)
class Kept:
    """What stays up after the last act, and where."""

    directory: Path
    omen_target: str
    riskcast_target: str
    things_to_try: list[Try]

    @property
    def facts(self) -> dict[str, object]:
        return {
            "directory": str(self.directory),
            "omen": self.omen_target,
            "riskcast": self.riskcast_target,
            "commands": [asdict(thing) for thing in self.things_to_try],
        }


async def things_to_try(stage: Stage) -> list[Try]:
    """What --keep prints. Longer requests are written to files in the stage's directory."""
    signal_id, stored = next(iter((await stage.stored(list(await stage.ledger())[:1])).items()))
    process = ProcessRequest(observation=another(stage.signalling[1], "tried-by-hand"))
    count = CountSignalsRequest(ledger_id=await stage.ledger_id())
    ingest = IngestRequest(event=stored.event, position=stored.position)
    by_id, ready = f'{{"signal_id": "{signal_id}"}}', '{"service": "readiness"}'
    return [
        *(listing(server) for server in (stage.omen, stage.riskcast)),
        *(
            call(f"Is {server.name} ready?", server, "grpc.health.v1.Health/Check", ready)
            for server in (stage.omen, stage.riskcast)
        ),
        call(
            "One observation through the rules, into the ledger, to RiskCast",
            stage.omen,
            "omen.v1.PipelineService/Process",
            file_of(process, stage.directory / "process.json"),
        ),
        call("A signal as it stands in the ledger", stage.omen, "omen.v1.SignalService/GetSignal", by_id),
        call("The same signal in RiskCast", stage.riskcast, "riskcast.v1.SignalService/GetSignal", by_id),
        call(
            "How many signals of this ledger RiskCast holds",
            stage.riskcast,
            "riskcast.v1.SignalService/CountSignals",
            one_line(count),
        ),
        call(
            f"A repeat: ALREADY_EXISTS, the first ack_id in its details (buf: exit code {BUF_EXIT_ALREADY_EXISTS})",
            stage.riskcast,
            "riskcast.v1.IngestService/Ingest",
            file_of(ingest, stage.directory / "ingest.json"),
        ),
        call(
            "RiskCast compares itself with the ledger",
            stage.riskcast,
            "riskcast.v1.ReconcileService/Reconcile",
            one_line(ReconcileRequest(include_open=True)),
        ),
    ]


def listing(server: Server) -> Try:
    buf = f"{buf_curl()} --list-services http://{server.target}"
    return Try(f"What {server.name} serves", f"grpcurl -plaintext {server.target} list", buf)


def call(about: str, server: Server, method: str, data: str | Path) -> Try:
    """`data` is the request in JSON, or the file that holds it."""
    if isinstance(data, Path):
        from_file = shlex.quote(f"@{data}")
        grpcurl = f"grpcurl -plaintext -d @ {server.target} {method} < {shlex.quote(str(data))}"
        return Try(about, grpcurl, f"{buf_curl()} -d {from_file} http://{server.target}/{method}")
    inline = shlex.quote(data)
    grpcurl = f"grpcurl -plaintext -d {inline} {server.target} {method}"
    return Try(about, grpcurl, f"{buf_curl()} -d {inline} http://{server.target}/{method}")


def buf_curl() -> str:
    """The buf beside this Python, as it can be called from here; otherwise whichever is on the path."""
    beside = Path(sys.executable).with_name("buf")
    if not beside.exists():
        buf = "buf"
    elif beside.is_relative_to(Path.cwd()):
        buf = shlex.quote(str(beside.relative_to(Path.cwd())))
    else:
        buf = shlex.quote(str(beside))
    return f"{buf} curl --protocol grpc --http2-prior-knowledge"


def one_line(request: Message) -> str:
    return MessageToJson(request, preserving_proto_field_name=True, indent=None)


def file_of(request: Message, path: Path) -> Path:
    path.write_text(MessageToJson(request, preserving_proto_field_name=True), "utf-8")
    return path
