"""Every conversion of every model of the zoo computes the same, or names the layer that can't."""

import warnings

import keras
import numpy as np
import pytest

import keras_grow
from keras_grow.layers.paths import nested_layers
from keras_grow.structure.graph import UnitsNotFollowed
from tests.quick import among
from tests.zoo.models import ZOO, stirred

QUICK = [
    "normalization",
    "text_vectorization",
    "string_lookup",
    "feature_space",
    "stateful_rnn",
    "transformer",
    "residual",
    "nested",
    "functions_of_the_users",
    "layers_of_the_users",
    "spectral_norm",
    "quantized",
    "mixed_precision",
    "randomness_at_inference",
    "own_class",
]
# What can't be: a layer that there is no other form of in the model.
REFUSED = {
    ("autoencoder", "sparse"): "no layer to convert",
    ("stateful_rnn", "compact"): "no layer whose units could be removed",
    ("stateful_rnn", "pruned and compact"): "no layer whose units could be removed",
}


def _growable(model):
    if any(isinstance(layer, keras_grow.GrowableDense) for layer in nested_layers(model)):
        return model
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Not all of the model can grow")
        return keras_grow.make_growable(model)


def _widened(model):
    growable = _growable(model)
    for layer in nested_layers(growable):
        if isinstance(layer, keras_grow.GrowableDense):
            try:
                return keras_grow.widen(growable, layer, layer.units + 3)
            except UnitsNotFollowed:
                continue
    return growable


def _compacted(model):
    growable = _growable(model)
    keras_grow.prune(growable, density=0.3)
    compacted = keras_grow.compact(growable).model
    return growable, compacted


CONVERSIONS = {
    "growable": lambda model: (model, _growable(model)),
    "plain": lambda model: (model, keras_grow.make_plain(_growable(model))),
    # Back again, since XLA takes seconds to compile each sparse layer that is called as it is.
    "sparse": lambda model: (
        model,
        keras_grow.make_plain(keras_grow.make_sparse(_growable(model))),
    ),
    "widened": lambda model: (model, _widened(model)),
    "compact": lambda model: (model, keras_grow.compact(model).model),
    "pruned and compact": _compacted,
}


@pytest.mark.parametrize("make", among(ZOO, quick=QUICK))
@pytest.mark.filterwarnings("error:The copy was not checked")
@pytest.mark.filterwarnings("ignore:The structure of `inputs` doesn't match")
def test_every_conversion_computes_the_same(make):
    model, inputs = make()
    stirred(model)
    for name, convert in CONVERSIONS.items():
        refusal = REFUSED.get((make.__name__, name))
        if refusal is not None:
            with pytest.raises(ValueError, match=refusal):
                convert(model)
            continue
        original, copy = convert(model)
        shared = set(map(id, nested_layers(original))) & set(map(id, nested_layers(copy)))
        assert original is copy or not shared
        _assert_same(copy, original, inputs, name)


def test_a_copy_of_state_of_all_sorts_is_the_same_after_saving_too(tmp_path):
    for make in (ZOO["normalization"], ZOO["string_lookup"], ZOO["feature_space"]):
        model, inputs = make()
        copy = _growable(model)
        copy.save(tmp_path / "copy.keras")
        _assert_same(keras.saving.load_model(tmp_path / "copy.keras"), model, inputs, "saved")


def _assert_same(copy, model, inputs, name):
    tolerance = 1e-2 if "16" in model.layers[-2].compute_dtype else 1e-5
    pairs = zip(
        keras.tree.flatten(copy(inputs, training=False)),
        keras.tree.flatten(model(inputs, training=False)),
        strict=True,
    )
    for ours, expected in pairs:
        ours, expected = np.asarray(ours, "float64"), np.asarray(expected, "float64")
        assert np.isfinite(expected).all()
        error = np.abs(ours - expected).max() / np.abs(expected).max()
        assert error < tolerance, f"{name}: {error:.1e}"
