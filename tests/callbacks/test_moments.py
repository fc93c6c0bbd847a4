import pytest

from keras_grow import Epochs, Steps


@pytest.mark.parametrize(
    ("moments", "due"),
    [
        (Epochs(), [1, 2, 3, 4, 5, 6, 7]),
        (Epochs(every=3), [1, 4, 7]),
        (Epochs(start=0, every=2, stop=6), [0, 2, 4]),
        (Epochs(start=2, stop=3), [2]),
        (Epochs(start=3, stop=3), []),
    ],
)
def test_epochs_are_due_from_start_in_steps_of_every_before_stop(moments, due):
    assert [epoch for epoch in range(8) if moments.is_due(epoch)] == due


@pytest.mark.parametrize(
    ("moments", "due"),
    [
        (Steps(4), [4, 8, 12]),
        (Steps(5, start=1), [1, 6, 11]),
        (Steps(3, start=0, stop=7), [0, 3, 6]),
    ],
)
def test_steps_are_due_from_start_in_steps_of_every_before_stop(moments, due):
    assert [step for step in range(13) if moments.is_due(step)] == due


def test_a_step_inside_an_execution_is_due_at_the_next_execution_and_only_there():
    # Executions begin at 0, 4, 8, ...; steps 6, 12 and 18 fall due at 8, 12 and 20.
    begins = range(0, 24, 4)
    assert [step for step in begins if Steps(6).is_due(step, 4)] == [8, 12, 20]


def test_the_last_step_before_stop_is_not_lost_inside_an_execution():
    begins = range(0, 24, 4)
    assert [step for step in begins if Steps(6, stop=13).is_due(step, 4)] == [8, 12]
    assert [step for step in begins if Steps(7, stop=15).is_due(step, 4)] == [8, 16]


@pytest.mark.parametrize(
    "arguments",
    [{"every": 0}, {"every": 1.5}, {"every": True}, {"start": -1}, {"stop": "3"}],
)
def test_moments_out_of_range_are_refused_with_what_was_received(arguments):
    (name, value), *_ = arguments.items()
    with pytest.raises(ValueError, match=f"Received: {name}={value!r}"):
        Epochs(**arguments)
    with pytest.raises(ValueError, match=f"Received: {name}={value!r}"):
        Steps(**{"every": 1, **arguments})
