"""The engine's own tests, on PostgreSQL: the same verdicts, the same money."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.journal.postgres import PostgresJournal
from gateway.journal.postgres_reader import PostgresReader
from tests.gateway.engine import test_engine as engine_tests
from tests.gateway.engine.world import World

SELECTED = (
    "test_debit_then_credit",
    "test_nothing_is_told_before_it_is_durable",
    "test_a_decline_takes_nothing",
    "test_an_issuer_that_stays_silent_is_reversed_when_it_is_back",
    "test_a_declining_acquirer_is_replaced",
    "test_when_all_acquirers_decline_the_payer_gets_the_money_back",
    "test_a_lost_credit_is_barred_before_the_next_acquirer_is_tried",
    "test_a_late_approval_survives_a_kill_before_it_is_undone",
    "test_cancel_in_flight_gives_back",
    "test_one_key_many_times_has_one_effect",
    "test_a_key_with_another_payload_is_refused",
    "test_one_code_has_one_winner",
    "test_a_loser_of_a_code_leaves_nothing_behind",
    "test_a_code_is_not_lost_to_a_payment_that_is_refused",
    "test_a_counter_is_never_exceeded_and_is_given_back",
    "test_a_failing_second_counter_gives_the_first_back",
    "test_refunds_never_exceed_the_payment",
    "test_a_refund_that_fails_frees_its_amount",
    "test_only_a_payment_that_succeeded_is_refunded",
    "test_a_kill_after_any_tick_loses_nothing",
)


@pytest.fixture
def world(tmp_path: Path, url: str) -> Iterator[World]:
    world = World(
        tmp_path,
        open_journal=lambda: PostgresJournal(url, 1, holder="world"),
        open_reader=lambda: PostgresReader(url),
    )
    yield world
    world.close()


globals().update({name: getattr(engine_tests, name) for name in SELECTED})
