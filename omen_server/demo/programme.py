"""The seven acts in order, and the promise that each shows."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from omen_server.demo import acts
from omen_server.demo.acts import Shown
from omen_server.demo.stage import Stage


@dataclass(frozen=True)
class Act:
    """Playing it raises ExpectationFailed when the promise does not hold, ServerFailed and grpc.aio.AioRpcError."""

    title: str
    promise: str
    play: Callable[[Stage], Awaitable[Shown]]


ACTS = (
    Act(
        "A file of observations becomes signals",
        "A signal is in OMEN's ledger, fsynced, before anything else may see it; then it goes to RiskCast.",
        acts.a_file_becomes_signals,
    ),
    Act(
        "The ids are the same in every run",
        "The same observation under the same rules has the same ids, on any machine, and you can check them by hand.",
        acts.ids_are_the_same_everywhere,
    ),
    Act(
        "RiskCast is killed",
        "OMEN takes signals while RiskCast is down, and says plainly what was not delivered.",
        acts.riskcast_is_killed,
    ),
    Act(
        "RiskCast returns",
        "The backlog delivers itself within seconds of RiskCast's return.",
        acts.the_backlog_delivers_itself,
    ),
    Act(
        "RiskCast loses its database",
        "Reconcile compares what RiskCast holds with the ledger and fetches exactly what is missing.",
        acts.reconcile_refills_riskcast,
    ),
    Act(
        "Everything arrives twice",
        "RiskCast stores each signal exactly once; a repeat is answered with the first acknowledgement.",
        acts.every_signal_is_stored_once,
    ),
    Act(
        "OMEN is killed in the middle of a burst",
        "What OMEN has acknowledged is never lost.",
        acts.omen_is_killed_in_a_burst,
    ),
)
