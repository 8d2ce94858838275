"""The client's window: what is sent, in which order, and what is sent again."""

from concurrent.futures import Future

import pyarrow as pa
import pytest

from actors.window import Window
from sfwriter.batch import EncodedBatch
from sfwriter.flow.vocabulary import Reason
from sfwriter.runtime.channel import Delivery

EVERYTHING = (1 << 30, 1_000)


@pytest.fixture
def window():
    return Window()


def batch():
    return EncodedBatch(pa.table({"run_id": ["r"]}), None, "digest", "r")


def add(window, count=1, *, producer="p", sequence=None, alone=True, fresh=True, now=0.0):
    """Queue batches that the client (or, from `sequence` on, the caller) numbers."""
    return [
        window.add(
            Delivery(
                batch(), producer, None if sequence is None else sequence + index, f"{producer}-{index}", alone=alone
            ),
            Future(),
            now,
            fresh=fresh,
        )
        for index in range(count)
    ]


def numbers(outbounds):
    return [outbound.number for outbound in outbounds]


def test_batches_are_numbered_in_the_order_in_which_they_are_sent(window):
    given = add(window, 3)
    assert window.take(*EVERYTHING) == given
    assert numbers(given) == [0, 1, 2]
    assert window.take(*EVERYTHING) == []


def test_a_producer_that_others_may_have_used_is_asked_about_first(window):
    given = add(window, 2, fresh=False)
    assert window.must_ask() == "p"
    assert window.take(*EVERYTHING) == []
    window.know("p", 4)
    assert window.must_ask() is None
    assert numbers(window.take(*EVERYTHING)) == [5, 6]
    assert numbers(given) == [5, 6]


def test_a_parcel_keeps_to_its_limits(window):
    given = add(window, 3)
    assert window.take(1 << 30, 2) == given[:2]
    assert window.take(*EVERYTHING) == given[2:]


def test_a_batch_larger_than_a_parcel_goes_alone(window):
    given = add(window, 2)
    assert window.take(1, 10) == given[:1]
    assert window.take(1, 10) == given[1:]


def test_lost_batches_are_sent_again_in_order_under_their_numbers(window):
    given = add(window, 4)
    window.take(*EVERYTHING)
    window.lost(given[2:])
    window.lost(given[:2])
    assert window.take(*EVERYTHING) == given
    assert numbers(given) == [0, 1, 2, 3]
    assert all(outbound.resent for outbound in given)


@pytest.mark.parametrize("reason", [Reason.GAP, Reason.OUTCOME_UNKNOWN])
def test_a_batch_that_came_before_its_turn_is_sent_again_behind_those_before_it(window, reason):
    """After a coordinator's death a later parcel may reach the new one first."""
    first, second = add(window, 2)
    window.take(*EVERYTHING)
    window.lost([second])
    assert window.take(*EVERYTHING) == [second]
    window.lost([first])
    assert window.refused(second, reason, 0)
    assert window.take(*EVERYTHING) == [first, second]
    assert numbers([first, second]) == [0, 1]


@pytest.mark.parametrize("reason", [Reason.GAP, Reason.OUTCOME_UNKNOWN])
def test_a_batch_that_came_before_its_turn_keeps_its_number_once_those_before_it_are_committed(window, reason):
    """Calls may reach the coordinator in another order than they were made, and so may their answers."""
    first, second, third = add(window, 3)
    window.take(*EVERYTHING)
    window.committed(first)
    assert window.refused(third, reason, 0)
    assert window.refused(second, reason, 0)
    assert window.take(*EVERYTHING) == [second, third]
    assert numbers([second, third]) == [1, 2]


def test_an_unknown_outcome_is_told_where_nothing_before_it_is_missing(window):
    first, second = add(window, 2)
    window.take(*EVERYTHING)
    window.committed(first)
    window.lost([second])
    window.take(*EVERYTHING)
    assert not window.refused(second, Reason.OUTCOME_UNKNOWN, 1)
    assert window.held == 0


def test_an_unknown_outcome_of_its_own_turn_is_told_whatever_came_before(window):
    first, second = add(window, 2)
    window.take(*EVERYTHING)
    window.lost([first, second])
    window.take(*EVERYTHING)
    assert not window.refused(second, Reason.OUTCOME_UNKNOWN, 1)
    assert window.held == 1


def test_behind_a_refused_number_those_that_stand_alone_are_numbered_anew(window):
    first, second, third = add(window, 3)
    window.take(*EVERYTHING)
    assert not window.refused(first, Reason.STAGING_FAILED, 0)
    assert window.refused(second, Reason.PREDECESSOR, 0)
    assert window.take(*EVERYTHING) == []  # the third is not answered yet
    assert window.refused(third, Reason.PREDECESSOR, 0)
    assert window.take(*EVERYTHING) == [second, third]
    assert numbers([second, third]) == [0, 1]


def test_behind_a_refused_number_a_batch_of_a_series_is_refused_too(window):
    first, second = add(window, 2, alone=False)
    window.take(*EVERYTHING)
    assert not window.refused(first, Reason.STAGING_FAILED, 0)
    assert not window.refused(second, Reason.PREDECESSOR, 0)
    assert window.held == 0


def test_a_number_that_the_caller_chose_is_never_changed(window):
    (given,) = add(window, 1, sequence=7)
    window.take(*EVERYTHING)
    assert not window.refused(given, Reason.GAP, 0)
    assert given.number == 7
    assert window.held == 0


def test_only_what_was_never_sent_can_be_withdrawn(window):
    sent, waiting = add(window, 2)
    window.take(1, 1)
    assert window.withdraw(waiting)
    assert not window.withdraw(sent)
    window.lost([sent])
    assert not window.withdraw(sent)


def test_bytes_are_held_until_a_batch_is_settled(window):
    first, second = add(window, 2)
    size = first.nbytes
    assert (window.held, window.held_bytes, window.queued_bytes) == (2, 2 * size, 2 * size)
    window.take(*EVERYTHING)
    assert (window.held_bytes, window.queued_bytes) == (2 * size, 0)
    window.lost([second])
    assert (window.held_bytes, window.queued_bytes) == (2 * size, size)
    window.committed(first)
    window.take(*EVERYTHING)
    window.committed(second)
    assert (window.held, window.held_bytes, window.queued_bytes) == (0, 0, 0)


def test_lines_do_not_wait_for_one_another(window):
    add(window, 1, producer="asks", fresh=False)
    (other,) = add(window, 1, producer="goes", now=3.0)
    assert window.oldest() == 0.0
    assert window.take(*EVERYTHING) == [other]
    assert window.must_ask() == "asks"
