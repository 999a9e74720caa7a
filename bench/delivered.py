"""P1 to P4 and P14: what OMEN and RiskCast together do of what they are for, and what others do, in one run.

An event is synced twice before it is answered: in the ledger, and in RiskCast's store. Of the others none does as much:
an echo parses and answers, JetStream and PostgreSQL keep a message once.
"""

import statistics
from contextlib import ExitStack
from dataclasses import dataclass

from bench import echo
from bench.coalesced import Coalescing
from bench.databases import postgres_below
from bench.emit import Emitting, Paced, is_answer, is_delivered
from bench.emit_stream import EmitStreaming
from bench.jetstream import Publishing, jetstream
from bench.ledger_append import RawSync
from bench.pair import Pair, pair
from bench.processes import server
from bench.rounds import Figure, Measured, Scale, alternated, measure

CALLS = 3_000
MESSAGES = 40
SHARE_OF_RATE = 0.7
PACED_CALLS = 3_000  # thirty above the 99th percentile

OURS = "3 processes, keys, metrics, JSON lines; ledger and SQLite synced before each answer"


@dataclass(frozen=True, slots=True)
class Rates:
    """A second, by round."""

    unary: list[float]
    unary_echo: list[float]
    stream: list[float]
    stream_echo: list[float]
    synced: list[float]
    published: list[float]
    inserted: list[float]


def figures(scale: Scale) -> list[Figure]:
    with ExitStack() as stack:
        both = stack.enter_context(pair(scale.folder / "delivered"))
        echoing = stack.enter_context(server(scale.folder / "echo-port", echo.__name__))
        rates = _rates(scale, stack, both, echoing)
        per_s = statistics.median(rates.unary) * SHARE_OF_RATE
        taken_ms = measure(
            Paced(both.omen.target, both.security, is_delivered, per_s, scale.of(PACED_CALLS)),
            scale.rounds,
            Paced(echoing, both.security, is_answer, per_s, scale.of(PACED_CALLS)),
        )
    return [*_unary_figures(scale, rates, taken_ms, per_s), *_stream_figures(scale, rates)]


def _rates(scale: Scale, stack: ExitStack, both: Pair, echoing: str) -> Rates:
    database = stack.enter_context(postgres_below(scale.folder))
    address = stack.enter_context(jetstream(scale.folder / "jetstream"))
    of_omen = (both.omen.target, both.security, is_delivered)
    of_echo = (echoing, both.security, is_answer)
    calls, messages = scale.of(CALLS), scale.of(MESSAGES)
    rounds = alternated(
        scale.rounds,
        Emitting(*of_omen, calls),
        Emitting(*of_echo, calls),
        EmitStreaming(*of_omen, messages),
        EmitStreaming(*of_echo, messages),
        RawSync(scale.folder, 2_000),
        Publishing(address, calls),
        Coalescing(database.url(database.new_database()), 10 * calls),
    )
    return Rates(*rounds)


def _unary_figures(scale: Scale, rates: Rates, taken_ms: Measured, per_s: float) -> list[Figure]:
    name, settings = "Emit, unary, delivered, 64 in flight", f"{scale.of(CALLS):,} events of about 700 bytes, {OURS}"
    return [
        Figure(
            name,
            "calls/s",
            settings,
            Measured(rates.unary, rates.unary_echo),
            compared_with="grpc.aio unary echo of the same",
            at_least=0.5,
        ),
        Figure(
            name,
            "calls/s",
            settings,
            Measured(rates.unary, rates.published),
            compared_with="JetStream, sync always, 64 in flight",
            at_least=0.5,
        ),
        Figure(
            f"Emit, unary, delivered, p99 at {per_s:,.0f}/s",
            "ms",
            f"{scale.of(PACED_CALLS):,} events, {SHARE_OF_RATE:.0%} of the rate above, each timed from when it is due",
            taken_ms,
            compared_with="the echo at the same rate",
            at_most=5.0,
        ),
    ]


def _stream_figures(scale: Scale, rates: Rates) -> list[Figure]:
    name = "EmitStream, delivered, 256 a message"
    settings = f"{scale.of(MESSAGES)} messages, 4 in flight, {OURS}"
    compared = [
        ("one write + fdatasync of 1 KiB each", rates.synced, 4.0),
        ("grpc.aio bidi echo of the same", rates.stream_echo, 0.25),
        ("JetStream, sync always, 64 in flight", rates.published, 5.0),
        ("PostgreSQL, 64 in flight, coalesced", rates.inserted, 0.6),
    ]
    return [
        Figure(name, "events/s", settings, Measured(rates.stream, theirs), compared_with=whom, at_least=least)
        for whom, theirs, least in compared
    ]
