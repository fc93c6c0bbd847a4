"""While a model is measured nothing of it changes, and what it draws is drawn afresh."""

import keras
import pytest

from keras_grow.measuring.loss import check_loss, untouched


def test_every_step_and_batch_has_draws_of_its_own():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dropout(0.5, seed=3)])
    optimizer = keras.optimizers.SGD()
    state = model.layers[0].seed_generator.state
    found = set()
    for step in (*range(12), 200, 6000):
        optimizer.iterations.assign(step)
        for draw in (*range(12), 200, 65536):
            with untouched(model, optimizer, draw):
                first, second = state.value.numpy().tolist()
            assert first == state.numpy()[0]
            found.add(second)
    assert len(found) == 14 * 14
    assert state.numpy()[1] == 0


def test_updates_inside_are_dropped():
    model = keras.Sequential([keras.Input((4,)), keras.layers.BatchNormalization()])
    mean = model.layers[0].moving_mean
    with untouched(model):
        mean.assign([1, 2, 3, 4])
        assert mean.value.numpy().tolist() == [1, 2, 3, 4]
    assert mean.numpy().tolist() == [0, 0, 0, 0]


def test_every_form_of_a_loss_is_taken_and_others_are_refused(classifier):
    own = keras.losses.MeanSquaredError()
    assert check_loss(classifier, own) is own
    assert isinstance(check_loss(classifier, "mse"), keras.losses.Loss | type(own))

    def whole(model, x, y, sample_weight):
        return 0.0

    assert check_loss(classifier, whole) is whole
    with pytest.raises(ValueError, match="`loss` must be"):
        check_loss(classifier, lambda y: y)
