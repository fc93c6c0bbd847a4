"""Growth gradients in the precisions that models are trained in, against float64."""

import keras
import numpy as np
import pytest

from keras_grow import GrowableDense, growth_gradients


def _cast(data, precision):
    return keras.tree.map_structure(
        lambda a: a.astype(precision) if a.dtype.kind == "f" else a, data
    )


def test_float32_agrees_with_float64(in_precision, network, assert_close):
    in_precision("float64")
    model, data = network()
    expected = growth_gradients(model, data)
    in_precision("float32")
    single, _ = network()
    single.set_weights(model.get_weights())
    got = growth_gradients(single, _cast(data, "float32"))
    assert {gradient.dtype.name for gradient in got.values()} == {"float32"}
    assert_close(got, expected, 1e-4)


def _classifier(optimizer, loss_weight=1.0):
    layers = [GrowableDense(16, "tanh", initial_density=0.5), GrowableDense(3, "softmax")]
    model = keras.Sequential([keras.Input((8,)), *layers])
    loss = "sparse_categorical_crossentropy"
    model.compile(optimizer, loss, loss_weights=[loss_weight])
    return model


@pytest.mark.parametrize("loss_weight", [1.0, 1e-6])
@pytest.mark.parametrize("initial_scale", [2.0**15, 2.0**40])
def test_mixed_float16_agrees_with_float64_whatever_the_loss_weight_and_the_loss_scale(
    in_precision, blobs, assert_close, loss_weight, initial_scale
):
    in_precision("float64")
    model = _classifier("sgd")
    expected = growth_gradients(model, blobs)
    in_precision("mixed_float16")
    optimizer = keras.optimizers.LossScaleOptimizer(
        keras.optimizers.SGD(), initial_scale=initial_scale
    )
    half = _classifier(optimizer, loss_weight)
    half.set_weights(model.get_weights())
    got = growth_gradients(half, blobs)
    assert_close({layer: g / loss_weight for layer, g in got.items()}, expected, 1e-2)


def test_a_loss_scale_that_overflows_is_lowered_for_the_measurement_only(
    in_precision, blobs, assert_close
):
    in_precision("mixed_float16")
    # Keras gives a half-precision model a loss-scaling optimizer by itself.
    model = _classifier("adam")
    assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
    expected = growth_gradients(model, blobs)
    model.optimizer.build(model.trainable_variables)
    model.optimizer.dynamic_scale.assign(2.0**30)
    chunks = growth_gradients(model, blobs, batch_size=40)
    assert float(model.optimizer.dynamic_scale) == 2.0**30
    assert_close(chunks, expected, 1e-2)


def test_gradients_that_stay_infinite_at_every_loss_scale_are_refused(in_precision, blobs):
    in_precision("mixed_float16")
    model = _classifier("adam")
    x, y = blobs
    with pytest.raises(ValueError, match="Growth gradients must be finite"):
        growth_gradients(model, (np.where(np.arange(8) == 3, np.inf, x), y))
