"""Which kernels of which layers grow, and what is refused in words."""

import keras
import numpy as np
import pytest

import keras_grow
from keras_grow import GrowableKernels, WeightNormKernels, kernel_types
from keras_grow.kernel_axes import KernelAxes
from tests.layers.kinds import Bilinear, Block

L = keras.layers
X = np.random.default_rng(0).normal(size=(4, 5, 3)).astype("float32")


def _built(layer, x=X):
    layer(x)
    return layer


def _with_lora(layer, x=X):
    _built(layer, x).enable_lora(2)
    return layer


def _quantized(layer):
    _built(layer).quantize("int8")
    return layer


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: _with_lora(L.Dense(4, name="low")), "low"),
        (lambda: _with_lora(L.EinsumDense("abc,cd->abd", (5, 4), name="low")), "low"),
        (lambda: _with_lora(L.Embedding(6, 4, name="low"), X[0] > 0), "low"),
        (lambda: L.Conv1D(4, 2, lora_rank=2, name="low"), "low"),
        (lambda: keras.Sequential([L.LSTM(2), L.Dense(4, lora_rank=2, name="low")]), "low"),
    ],
    ids=["dense", "einsum", "embedding", "conv", "inside"],
)
def test_low_rank_updates_are_refused(make, name):
    x = X[0] > 0 if isinstance(layer := make(), L.Embedding) else X
    with pytest.raises(ValueError, match=f"Received: layer '{name}': LoRA is enabled in it"):
        GrowableKernels(layer)(x)


def test_low_rank_updates_of_a_masked_kernel_are_refused():
    wrapper = _built(GrowableKernels(L.Dense(4, name="low"), initial_density=0.5))
    wrapper.layer.enable_lora(2)
    with pytest.raises(ValueError, match="Received: layer 'low': LoRA is enabled in it"):
        wrapper(X)


def test_quantized_kernels_are_refused():
    with pytest.raises(ValueError, match="Received: layer 'eight': it is quantized"):
        GrowableKernels(_quantized(L.Dense(4, name="eight")))
    inside = keras.Sequential([L.LSTM(2), _built(L.Dense(4, name="eight"), X[0, :, :2])])
    inside.layers[1].quantize("int8")
    with pytest.raises(ValueError, match="Received: layer 'eight': it is quantized"):
        GrowableKernels(inside)(X)


@pytest.mark.parametrize(
    "make",
    [
        lambda: L.Dropout(0.5, name="bare"),
        lambda: keras.Sequential([L.LayerNormalization(), L.ReLU()], name="bare"),
        lambda: keras_grow.GrowableDense(2, name="bare"),
        lambda: GrowableKernels(L.Dense(2), name="bare"),
    ],
    ids=["dropout", "sequential", "growable", "masked"],
)
def test_a_layer_without_a_kernel_to_mask_is_refused(make):
    with pytest.raises(ValueError, match=r"no kernel that can grow\. Received: 'bare', a .*regis"):
        GrowableKernels(make())(X)


def test_a_kernel_is_masked_once():
    layer = L.Dense(2, name="shared")
    GrowableKernels(layer)(X)
    with pytest.raises(ValueError, match="masked once. Received: 'shared/kernel', which is"):
        GrowableKernels(layer)
    tied = L.Embedding(6, 3)
    twice = keras.Sequential([tied, L.Dense(2)])
    twice.read_again = tied
    assert len(_built(GrowableKernels(twice), np.zeros((2, 4), "int32")).masked_kernels) == 2


@pytest.mark.parametrize("layer_class", [GrowableKernels, WeightNormKernels])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"initial_density": 1.5}, "initial_density=1.5"),
        ({"initial_density": "dense"}, "initial_density='dense'"),
        ({"seed": -1}, "seed"),
        ({"layer": "lstm"}, "Expected a Keras layer whose kernels grow. Received: 'lstm'"),
        ({"layer": L.LSTM}, "Expected a Keras layer whose kernels grow. Received: <class"),
    ],
)
def test_arguments_out_of_range_are_refused(layer_class, arguments, message):
    with pytest.raises((ValueError, TypeError), match=message):
        layer_class(**{"layer": L.Dense(2), **arguments})


@pytest.fixture
def recurrent():
    """A compiled network of masked kernels in an LSTM, and its data."""
    layers = [GrowableKernels(L.LSTM(4), initial_density=0.5, seed=0, name="lstm"), L.Dense(2)]
    model = keras.Sequential([keras.Input(X.shape[1:]), *layers])
    model.compile("sgd", "mse")
    return model, (X, np.ones((4, 2)))


def test_what_takes_the_inputs_of_a_kernel_is_refused_and_names_the_kernels(recurrent):
    model, data = recurrent
    before = [kernel.kernel_mask.numpy() for kernel in keras_grow.growable_layers(model)]
    score = keras_grow.scores.ActivationMagnitude()
    for verb in (
        lambda: keras_grow.hebbian_gradients(model, data),
        lambda: keras_grow.prune(model, count=3, score=score, data=data),
        lambda: keras_grow.grow(model, data, count=3, score=score),
    ):
        with pytest.raises(ValueError, match="'kernel', 'recurrent_kernel'.*which other layers"):
            verb()
    for kernel, mask in zip(keras_grow.growable_layers(model), before, strict=True):
        np.testing.assert_array_equal(kernel.kernel_mask, mask)


def test_a_score_of_inputs_ranks_the_layers_that_show_them(recurrent):
    _, data = recurrent
    dense = keras_grow.GrowableDense(2, name="dense")
    layers = [GrowableKernels(L.LSTM(4), name="lstm"), dense]
    model = keras.Sequential([keras.Input(X.shape[1:]), *layers])
    model.compile("sgd", "mse")
    score = keras_grow.scores.ActivationMagnitude()
    keras_grow.prune(model, count=3, score=score, data=data, layers=["dense"])
    assert dense.num_active == 8 - 3
    *inner, shown = keras_grow.report(model, data).layers
    assert [layer.scaled_flops for layer in inner] == [None, None]
    assert shown.scaled_flops == 2 * 5


def test_rows_of_an_inner_kernel_are_refused(recurrent):
    kernel = recurrent[0].layers[0].masked_kernels[1]
    with pytest.raises(ValueError, match="'recurrent_kernel' is applied by the LSTMCell that has"):
        kernel.as_rows(X)


def test_a_stored_nan_is_refused_by_the_kernels_path(recurrent):
    model, data = recurrent
    variable = model.layers[0].masked_kernels[1].inner.variable
    variable.assign(np.full(variable.shape, np.nan))
    with pytest.raises(ValueError, match="'lstm/recurrent_kernel' stores weights that are NaN"):
        keras_grow.growth_gradients(model, data)


def test_only_classes_of_layers_and_functions_of_axes_are_registered():
    for wrong in ("Dense", keras.Model.compile, Bilinear(2), int):
        with pytest.raises(TypeError, match="Kernels are registered for a class of layers"):
            kernel_types.register(wrong, kernel=lambda layer, shape: KernelAxes(shape))
    for kernels in ({}, {"kernel": KernelAxes((2, 2))}):
        with pytest.raises(TypeError, match="as a function of the layer and the kernel's shape"):
            kernel_types.register(Bilinear, **kernels)


def test_a_subclass_counts_where_it_computes_the_same():
    class Initialized(Bilinear):
        def build(self, input_shape):
            super().build(input_shape)
            self.left.assign(np.ones(self.left.shape))

    class Doubled(L.Dense):
        def call(self, x):
            return super().call(x) + super().call(x)

    names = [k.name for k in _built(GrowableKernels(Initialized(2))).masked_kernels]
    assert names == ["left", "right"]
    with pytest.raises(ValueError, match="a Doubled. Say which of its variables are kernels"):
        GrowableKernels(Doubled(2))(X)
    kernel_types.register(Doubled, kernel=lambda layer, shape: KernelAxes(shape))
    assert len(_built(GrowableKernels(Doubled(2))).masked_kernels) == 1
    del kernel_types._KERNELS[Doubled]


def test_a_block_that_builds_its_layers_as_it_is_called_is_built_by_a_shape():
    wrapper = GrowableKernels(Block(4), initial_density=0.5, seed=1)
    wrapper.build(X.shape)
    masks = [kernel.kernel_mask.numpy() for kernel in wrapper.masked_kernels]
    assert len(masks) == 4
    wrapper(X)
    for kernel, mask in zip(wrapper.masked_kernels, masks, strict=True):
        np.testing.assert_array_equal(kernel.kernel_mask, mask)


def test_a_built_layer_is_masked_at_once_and_keeps_the_weights_that_are_active():
    layer = _built(L.GRU(4))
    before = [variable.numpy() for variable in layer.trainable_variables]
    wrapper = GrowableKernels(layer, initial_density=0.5, seed=1)
    masks = [kernel.kernel_mask.numpy() for kernel in wrapper.masked_kernels]
    for variable, start, mask in zip(layer.trainable_variables, before, masks):
        np.testing.assert_array_equal(variable, np.where(mask, start, 0))
    np.testing.assert_array_equal(layer.trainable_variables[2], before[2])


def test_a_frozen_layer_has_frozen_kernels():
    layer = L.Bidirectional(L.LSTM(2))
    wrapper = _built(GrowableKernels(layer))
    layer.forward_layer.trainable = False
    assert [kernel.trainable for kernel in wrapper.masked_kernels] == [False, False, True, True]
    wrapper.trainable = False
    assert not any(kernel.trainable for kernel in wrapper.masked_kernels)


def test_densities_and_seeds_are_each_kernels_own():
    fan_in = keras_grow.densities.FanIn(2)
    layers = [GrowableKernels(L.LSTM(4), initial_density=fan_in, seed=s) for s in (3, 3, 4)]
    masks = [[k.kernel_mask.numpy() for k in _built(each).masked_kernels] for each in layers]
    assert [kernel.num_active for kernel in layers[0].masked_kernels] == [32, 32]
    np.testing.assert_array_equal(masks[0][1], masks[1][1])
    assert (masks[0][1] != masks[2][1]).any()
    assert (masks[0][0] != masks[0][1][:3]).any()
    again = GrowableKernels.from_config(layers[0].get_config())
    assert again.get_config() == layers[0].get_config()
    assert again.initial_density == fan_in
