"""Each mutant is killed by ordinary tests: were one of these bugs in delivery, `make test` would say so.

That the simulation notices them too is said in tests/simulation/test_mutants.py.
"""

from collections.abc import Sequence
from random import Random

import pytest

from tests.mutation import assert_killed
from tests.omen_server.mutants import MUTANTS

TABLE = "tests.omen_server.mutants"
BACKLOG = "delivery/test_backlog.py"
CONFLICT = "test_conflict.py"

KILLED_BY: dict[str, Sequence[str]] = {
    "settled as soon as it is sent": [
        f"{BACKLOG}::test_bytes_are_counted_where_all_was_seen_and_estimated_for_the_rest_of_a_segment"
    ],
    "repeats answered before the fsync": [
        f"{CONFLICT}::test_the_second_of_two_events_that_really_collide_goes_under_32_digits_at_once"
    ],
    "delivered without an ack_id": [
        f"{CONFLICT}::test_a_conflict_is_emitted_again_under_32_digits_and_emit_answers_delivered_with_that_id"
    ],
    "every repeat delivered": [
        "test_repeats.py::test_a_twin_waits_for_the_record_that_is_on_its_way_and_one_of_them_is_delivered"
    ],
    "old records starve new ones": [f"{BACKLOG}::test_new_and_old_records_take_turns_and_fill_what_the_other_leaves"],
    "breaker never half open": [
        "delivery/test_contact.py"
        "::test_five_failures_open_the_breaker_and_a_connection_made_anew_lets_the_next_call_through"
    ],
    "answers taken for those of another message": [
        "delivery/test_stream.py::test_an_answer_is_that_of_the_oldest_message_without_one"
    ],
    "newest records taken for others": [
        "delivery/test_newest.py::test_a_run_gets_its_own_records_as_far_as_they_are_here_without_a_gap_and_once"
    ],
    "dead letter not written": [
        "test_dead_letter_service.py::test_rejected_listed_redriven_in_vain_and_once_more_it_is_stored_and_gone"
    ],
    "sent again from memory alone": [
        "test_delivery.py::test_what_was_in_the_ledger_before_the_start_is_delivered_in_order"
    ],
    "breaker never open": [
        "delivery/test_breaker.py::test_only_a_failure_too_many_opens_it_and_only_the_connection_or_time_half_opens_it"
    ],
}
# Each waits in vain until its deadline, for some twenty seconds: too long for every run.
SLOWLY_KILLED_BY: dict[str, Sequence[str]] = {
    "nothing of an older process sent": [
        "test_delivery.py::test_what_was_in_the_ledger_before_the_start_is_delivered_in_order"
    ],
    "in-flight records forgotten on a break": [
        "test_delivery.py::test_what_was_under_way_when_a_stream_broke_is_sent_again_though_nobody_waits_for_it"
    ],
    "conflict swallowed": [
        f"{CONFLICT}::test_a_conflict_is_emitted_again_under_32_digits_and_emit_answers_delivered_with_that_id"
    ],
    "what cannot be read taken again for ever": [
        "test_delivery.py::test_a_record_that_rots_while_all_around_it_is_settled_holds_nothing_up"
    ],
    "silence waited out": [
        "test_backpressure.py::test_a_riskcast_that_falls_silent_is_given_up_with_its_connection_and_asked_again"
    ],
}


def test_every_mutant_has_its_tests() -> None:
    assert KILLED_BY.keys() | SLOWLY_KILLED_BY.keys() == MUTANTS.keys()
    assert all((KILLED_BY | SLOWLY_KILLED_BY).values())


def at(tests: Sequence[str]) -> list[str]:
    return [f"tests/omen_server/{test}" for test in tests]


@pytest.mark.parametrize(("mutant", "tests"), KILLED_BY.items(), ids=KILLED_BY)
def test_the_mutant_is_killed(mutant: str, tests: Sequence[str]) -> None:
    assert_killed(TABLE, mutant, at(tests))


@pytest.mark.soak
def test_the_mutants_are_killed_that_make_tests_wait(soak_seed: int) -> None:
    for mutant, tests in Random(soak_seed).sample([*SLOWLY_KILLED_BY.items()], len(SLOWLY_KILLED_BY)):
        assert_killed(TABLE, mutant, at(tests))
