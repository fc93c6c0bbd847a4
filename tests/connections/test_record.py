"""Records say in a line what was done, and how long it took."""

import pytest
import tensorflow as tf

import keras_grow
from keras_grow.connections.record import ChangeRecord, ExchangeRecord, LayerChange


def _change(indices, num_active=40):
    return LayerChange("dense", tf.constant(indices, tf.int64), num_active)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ({}, "2 connections changed, 40 of 50 active (80.00%), 1.50 s"),
        ({"loss": 0.25}, "2 connections changed, 40 of 50 active (80.00%), loss 0.25, 1.50 s"),
        (
            {"is_complete": False},
            "2 connections changed, 40 of 50 active (80.00%), search incomplete, 1.50 s",
        ),
        (
            {"num_rounded": 1234},
            "2 connections changed (1,234 fewer than asked), 40 of 50 active (80.00%), 1.50 s",
        ),
    ],
)
def test_a_change_is_said_in_a_line(arguments, line):
    record = ChangeRecord((_change([3, 8]),), 40, 50, 1.5, **{"loss": None, **arguments})
    assert str(record) == line
    assert record.is_complete == arguments.get("is_complete", True)


def test_an_exchange_is_said_in_a_line():
    changes = (_change([3, 8]),), (_change([1, 2, 4]), _change([]))
    line = "2 connections pruned, 3 grown, 40 of 50 active (80.00%)"
    assert str(ExchangeRecord(*changes, 40, 50, 1.5, None)) == f"{line}, 1.50 s"
    record = ExchangeRecord(*changes, 40, 50, 0.126, 2.0, is_complete=False)
    assert str(record) == f"{line}, loss 2, search incomplete, 0.13 s"
    assert (record.count, record.density) == (3, 0.8)


def test_seconds_are_those_from_the_call_to_the_end(clock, blobs, classifier):
    calls = []

    class Slow(keras_grow.scores.EffectiveMagnitude):
        def __call__(self, connections):
            clock.spend(3)
            calls.append(connections)
            return super().__call__(connections)

    clock.spend(100)
    slow = Slow()
    for change in (
        lambda: keras_grow.grow(classifier, blobs, count=4, score=slow),
        lambda: keras_grow.prune(classifier, count=4, score=slow),
        lambda: keras_grow.drop_and_grow(
            classifier, blobs, method=keras_grow.sparse_training.Method(slow, slow)
        ),
    ):
        calls.clear()
        record = change()
        assert record.seconds == 3 * len(calls) > 0
        assert record.is_complete
