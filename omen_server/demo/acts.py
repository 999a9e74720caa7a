"""What happens in each act, on the state that the act before has left. programme.py names them in order."""

import asyncio
import hashlib
from dataclasses import dataclass
from itertools import count

import grpc

from omen_server.demo.expectation import ExpectationFailed, expect, until
from omen_server.demo.expected import another, expected_ids
from omen_server.demo.stage import Stage, status_of
from riskcast.v1.reconcile_service_pb2 import ReconcileStatus

AT_ONCE = 20
BURST_IN_FLIGHT = 32
KILL_AFTER = 120  # acknowledgements; no multiple of what is in flight, so that some calls are always under way


@dataclass(frozen=True)
class Finding:
    sentence: str
    details: tuple[str, ...] = ()


@dataclass(frozen=True)
class Shown:
    """What an act has shown: findings for people, facts for machines. All of it held, or the act would have raised."""

    findings: list[Finding]
    facts: dict[str, object]


async def a_file_becomes_signals(stage: Stage) -> Shown:
    answers = [await stage.process(observation) for observation in stage.observations]
    rejections = [answer.rejection for answer in answers if answer.HasField("rejection")]
    emitted = [answer for answer in answers if answer.HasField("emission")]
    expect("signals", len(emitted), len(expected_ids()))
    expect("statuses of the signals", {status_of(answer) for answer in emitted}, {"DELIVERED"})
    in_ledger, in_riskcast = len(await stage.ledger()), await stage.stored_count()
    expect("signals that OMEN counts in its ledger", in_ledger, len(emitted))
    expect("signals that RiskCast counts in its store", in_riskcast, len(emitted))
    by_rule: dict[str, list[str]] = {}
    for rejection in rejections:
        by_rule.setdefault(rejection.rule_name, []).append(rejection.source_event_id)
    return Shown(
        [
            Finding(
                f"{len(answers)} observations: {len(emitted)} became signals, a rule rejected {len(rejections)}",
                tuple(f"{rule}: {', '.join(ids)}" for rule, ids in by_rule.items()),
            ),
            Finding(f"ledger {in_ledger} = RiskCast {in_riskcast}, each counted by its own server"),
        ],
        {
            "observations": len(answers),
            "signals": len(emitted),
            "rejections": [
                {"source_event_id": each.source_event_id, "rule": each.rule_name, "reasoning": each.reasoning}
                for each in rejections
            ],
            "ledger": in_ledger,
            "riskcast": in_riskcast,
        },
    )


async def ids_are_the_same_everywhere(stage: Stage) -> Shown:
    events = await stage.ledger_events()
    seen = {event.source_event_id: event.signal_id for event in events}
    for source_event_id, signal_id in expected_ids().items():
        expect(f"signal_id of {source_event_id}", seen.get(source_event_id), signal_id)
    event = events[0]
    input_hash = f"sha256:{hashlib.sha256(event.canonical_observation).hexdigest()}"
    expect("input_event_hash by hand", input_hash, event.input_event_hash)
    joined = f"{event.source_event_id}|{input_hash}|{event.ruleset_version}"
    digest = hashlib.sha256(joined.encode()).hexdigest()
    trace_id, signal_id = digest[:16], f"OMEN-{digest[:12].upper()}"
    expect("deterministic_trace_id by hand", trace_id, event.deterministic_trace_id)
    expect("signal_id by hand", signal_id, event.signal_id)
    return Shown(
        [
            Finding(f"all {len(seen)} ids are the committed ones"),
            Finding(
                "one of them by hand, with SHA-256 alone",
                (
                    f"sha256 of {len(event.canonical_observation)} bytes of canonical JSON is the input event hash",
                    input_hash,
                    f"sha256 of {event.source_event_id}|<that hash>|{event.ruleset_version}",
                    digest,
                    f"first 16 digits: the trace id {trace_id}; first 12: the signal id {signal_id}",
                ),
            ),
        ],
        {
            "ids": seen,
            "by_hand": {
                "source_event_id": event.source_event_id,
                "canonical_observation": event.canonical_observation.decode(),
                "input_event_hash": input_hash,
                "ruleset_version": event.ruleset_version,
                "digest": digest,
                "deterministic_trace_id": trace_id,
                "signal_id": signal_id,
            },
        },
    )


async def riskcast_is_killed(stage: Stage) -> Shown:
    before = len(await stage.ledger())
    await stage.riskcast.kill()
    answers = [await stage.process(another(each, "during-the-outage")) for each in stage.signalling[:2]]
    expect("statuses of the two signals", [status_of(answer) for answer in answers], ["LEDGER_ONLY"] * 2)
    reason = answers[-1].emission.ledger_only_reason
    expect("whether OMEN says that RiskCast cannot be reached", "RiskCast cannot be reached" in reason, True)
    in_ledger, (phase, backlog) = len(await stage.ledger()), await stage.delivery()
    expect("signals in OMEN's ledger", in_ledger, before + 2)
    expect("OMEN's delivery and its backlog", (phase, backlog), ("CONNECTING", 2))
    return Shown(
        [
            Finding(
                f"RiskCast killed with -9; 2 more signals are LEDGER_ONLY: safe in the ledger, which holds {in_ledger}"
            ),
            Finding(f'OMEN says why: "{reason.partition(";")[0]}"'),
            Finding(f"and what waits: {backlog} records, delivery {phase}"),
        ],
        {"status": "LEDGER_ONLY", "reason": reason, "ledger": in_ledger, "backlog": backlog, "phase": phase},
    )


async def the_backlog_delivers_itself(stage: Stage) -> Shown:
    in_ledger = len(await stage.ledger())
    await stage.riskcast.start()
    await until("signals in RiskCast after its return", stage.stored_count, in_ledger)
    in_riskcast = await stage.stored_count()
    return Shown(
        [Finding(f"RiskCast started again, nobody asked for anything: ledger {in_ledger} = RiskCast {in_riskcast}")],
        {"ledger": in_ledger, "riskcast": in_riskcast},
    )


async def reconcile_refills_riskcast(stage: Stage) -> Shown:
    acks = await stage.ack_ids()
    await stage.pause_delivery("the demo shows that Reconcile needs no delivery")
    await stage.riskcast.stop()
    for path in stage.database.parent.glob(f"{stage.database.name}*"):
        path.unlink()
    await stage.riskcast.start()
    expect("signals in RiskCast without its database", await stage.stored_count(), 0)
    replayed, run = await stage.reconcile()
    status = ReconcileStatus.Name(run.status).removeprefix("RECONCILE_STATUS_")
    expect("status of the run", status, "COMPLETED")
    expect("signals replayed", len(replayed), len(acks))
    expect("ack_ids that differ from before", {key for key in acks if replayed.get(key) != acks[key]}, set())
    in_riskcast = await stage.stored_count()
    expect("signals in RiskCast", in_riskcast, len(acks))
    return Shown(
        [
            Finding("RiskCast stopped, its database deleted, started empty, OMEN's delivery paused: RiskCast holds 0"),
            Finding(
                f"Reconcile fetched {len(replayed)} and ended {status}: RiskCast {in_riskcast}, every ack_id as before"
            ),
        ],
        {"replayed": len(replayed), "status": status, "riskcast": in_riskcast, "ack_ids_as_before": True},
    )


async def every_signal_is_stored_once(stage: Stage) -> Shown:
    signal_id, stored = next(iter((await stage.stored(list(await stage.ledger())[:1])).items()))
    repeat, repeat_ack = await stage.ingest(stored.event, stored.position)
    expect("answer to a repeated Ingest", (repeat, repeat_ack), ("ALREADY_EXISTS", stored.ack_id))
    before = await stage.stored_count_of_all()
    # Delivery is still paused, so that the twenty come first.
    new = await stage.process_to_ledger(another(stage.signalling[0], "twenty-at-once"))
    answers = await asyncio.gather(*(stage.ingest(new.event, new.emission.position) for _ in range(AT_ONCE)))
    statuses, acks = [status for status, _ in answers], {ack for _, ack in answers}
    counts = {status: statuses.count(status) for status in sorted(set(statuses), reverse=True)}
    expect("answers to the same Ingest at once", counts, {"OK": 1, "ALREADY_EXISTS": AT_ONCE - 1})
    expect("different ack_ids among the answers", len(acks), 1)
    rows = await stage.stored_count_of_all() - before
    expect("rows added", rows, 1)
    await stage.resume_delivery()
    return Shown(
        [
            Finding(f"{signal_id} ingested again: {repeat}, with the ack_id of the first time"),
            Finding(
                f"a new one ingested {AT_ONCE} times at once: 1 OK, {AT_ONCE - 1} ALREADY_EXISTS, 1 ack_id, {rows} row"
            ),
        ],
        {"repeat": repeat, "ack_id": repeat_ack, "at_once": counts, "different_ack_ids": len(acks), "rows": rows},
    )


async def omen_is_killed_in_a_burst(stage: Stage) -> Shown:
    acknowledged, cut = await burst_until_killed(stage)
    await stage.omen.start()
    ledger = await stage.ledger()
    lost = acknowledged - ledger.keys()
    expect("acknowledged signals that the ledger lacks", lost, set())
    await until("signals in RiskCast after OMEN's return", stage.stored_count, len(ledger))
    stored = await stage.stored(acknowledged)
    expect("stored otherwise than in the ledger", {i for i in stored if stored[i].stored_event != ledger[i]}, set())
    in_riskcast = await stage.stored_count()
    return Shown(
        [
            Finding(f"OMEN killed with -9 after {len(acknowledged)} acknowledgements, {cut} calls under way were cut"),
            Finding(f"started again: all {len(acknowledged)} are in the ledger and in RiskCast, byte for byte"),
            Finding(
                f"ledger {len(ledger)} = RiskCast {in_riskcast} (a cut call may or may not have reached the ledger)"
            ),
        ],
        {
            "acknowledged": len(acknowledged),
            "cut": cut,
            "lost": len(lost),
            "ledger": len(ledger),
            "riskcast": in_riskcast,
        },
    )


async def burst_until_killed(stage: Stage) -> tuple[set[str], int]:
    """Calls side by side, and OMEN is killed among them: what it acknowledged, and how many calls it never answered."""
    burst = (another(stage.signalling[0], f"burst-{number}") for number in count(1))
    acknowledged: set[str] = set()

    async def call_until_killed() -> int:
        for observation in burst:
            try:
                answer = await stage.process_to_ledger(observation)
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.UNAVAILABLE:
                    raise
                return 1
            acknowledged.add(answer.emission.signal_id)
            if len(acknowledged) == KILL_AFTER:
                await stage.omen.kill()
            if len(acknowledged) >= KILL_AFTER:
                break
        return 0

    cut = sum(await asyncio.gather(*(call_until_killed() for _ in range(BURST_IN_FLIGHT))))
    expect(f"whether OMEN gave {KILL_AFTER} acknowledgements before it died", len(acknowledged) >= KILL_AFTER, True)
    if not cut:
        raise ExpectationFailed("the burst: expected calls under way when OMEN died, saw every call answered")
    return acknowledged, cut
