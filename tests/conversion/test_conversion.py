import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_grow import (
    GrowableConv1D,
    GrowableConv2D,
    GrowableDense,
    WeightNormConv2D,
    WeightNormDense,
    convert_optimizer,
    densities,
    growable_layers,
    make_growable,
    make_plain,
    make_sparse,
    plan_conversion,
    prune,
)
from keras_grow.layers.growable_kernels import GrowableKernels
from keras_grow.layers.paths import nested_layers
from tests.conversion.own_layer import OwnLayer

X = np.random.default_rng(0).normal(size=(32, 8)).astype("float32")


def _sequential():
    return keras.Sequential(
        [
            keras.Input((8,)),
            keras.layers.Dense(16, "relu", kernel_regularizer=keras.regularizers.L2(0.01)),
            keras.layers.BatchNormalization(),
            keras.layers.Dropout(0.5),
            keras.layers.Dense(3, "softmax", use_bias=False, name="classes"),
        ]
    )


def _functional():
    shared = keras.layers.Dense(8, "tanh", activity_regularizer="l2", name="shared")
    inner = keras.Sequential([keras.Input((8,)), keras.layers.Dense(5, name="inner")], name="nest")
    x = keras.Input((8,), name="x")
    h = keras.layers.Add()([shared(shared(x)), x])
    return keras.Model({"x": x}, {"a": inner(h), "b": inner(shared(h))}, name="graph")


def _wrapped():
    x = keras.Input((4, 2))
    timewise = keras.Sequential([keras.Input((2,)), keras.layers.Dense(6, "relu")])
    h = keras.layers.TimeDistributed(timewise)(x)
    h = keras.layers.TimeDistributed(keras.layers.Dense(2, dtype="float64"))(h)
    return keras.Model(x, h)


def _convolutional():
    return keras.Sequential(
        [
            keras.Input((8,)),
            keras.layers.Reshape((2, 2, 2)),
            keras.layers.Conv2D(6, 2, 1, "same", activation="relu", bias_initializer="ones"),
            keras.layers.Conv2D(4, (2, 1), dilation_rate=1, use_bias=False, name="maps"),
            keras.layers.Reshape((2, 4)),
            keras.layers.Conv1D(5, 2, padding="causal"),
            keras.layers.Flatten(),
            keras.layers.Dense(3),
        ]
    )


CASES = [
    (_sequential, X),
    (_functional, {"x": X}),
    (_wrapped, X.reshape(32, 4, 2)),
    (_convolutional, X),
]


def _outputs(model, x):
    return [np.asarray(y) for y in keras.tree.flatten(model(x, training=False))]


def _randomise(model):
    random = np.random.default_rng(1)
    model.set_weights([random.uniform(0.1, 1, size=w.shape) for w in model.get_weights()])


@pytest.mark.parametrize(("build", "x"), CASES)
def test_conversion_at_density_1_keeps_the_function_to_the_bit_both_ways(build, x):
    model = build()
    _randomise(model)
    growable = make_growable(model)
    plain = make_plain(growable)
    kinds = (keras.layers.Dense, keras.layers.Conv1D, keras.layers.Conv2D)
    num_plain = sum(type(layer) in kinds for layer in nested_layers(model))
    assert len(growable_layers(growable)) == num_plain
    assert not any(isinstance(layer, kinds) for layer in nested_layers(growable))
    assert [type(layer) for layer in nested_layers(plain)] == [
        type(layer) for layer in nested_layers(model)
    ]
    for copy in (growable, plain):
        assert type(copy) is type(model)
        for a, b in zip(_outputs(model, x), _outputs(copy, x), strict=True):
            np.testing.assert_array_equal(a, b)


def test_arguments_and_names_of_dense_survive_both_ways():
    model = _functional()
    growable = make_growable(model)
    assert [layer.name for layer in growable.layers] == [layer.name for layer in model.layers]
    assert growable.get_layer("shared").activity_regularizer is not None
    old, new = (m.get_layer("shared").get_config() for m in (model, make_plain(growable)))
    assert old == new


def test_the_original_and_the_copy_share_no_variable():
    model = _sequential()
    before = model.get_weights()
    growable = make_growable(model)
    for variable in growable.variables:
        variable.assign(tf.zeros_like(variable.value))
    for a, b in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_layers_chooses_by_name_by_layer_and_by_function():
    model = _sequential()
    for layers, expected in [
        (["classes"], [False, True]),
        ([model.layers[0]], [True, False]),
        (lambda layer: layer.units > 3, [True, False]),
    ]:
        copy = make_growable(model, layers)
        converted = [isinstance(copy.layers[i], GrowableDense) for i in (0, -1)]
        assert converted == expected


def test_density_and_seed_choose_an_exact_random_share_that_keeps_its_weights():
    model = _sequential()
    a, b = (make_growable(model, initial_density=0.25, seed=3) for _ in range(2))
    for layer, twin, dense in zip(
        growable_layers(a), growable_layers(b), (model.layers[0], model.layers[-1]), strict=True
    ):
        assert layer.num_active == layer.num_connections // 4
        mask = layer.kernel_mask.numpy()
        np.testing.assert_array_equal(mask, twin.kernel_mask.numpy())
        np.testing.assert_array_equal(layer.kernel.numpy(), np.where(mask, dense.kernel, 0))


def test_a_distribution_shares_the_density_among_the_converted_layers():
    copy = make_growable(_sequential(), initial_density=densities.ErdosRenyi(0.3))
    expected = densities.ErdosRenyi(0.3)([(8, 16), (16, 3)])
    got = [layer.density for layer in growable_layers(copy)]
    np.testing.assert_allclose(got, expected, atol=0.5 / 48)


def test_zeros_of_a_model_pruned_elsewhere_become_dormant():
    model = _sequential()
    kernel = model.layers[0].kernel
    kernel.assign(np.where(np.abs(kernel.numpy()) > 0.2, kernel.numpy(), 0))
    copy = make_growable(model, zeros_are_dormant=True)
    np.testing.assert_array_equal(copy.layers[0].kernel_mask.numpy(), kernel.numpy() != 0)
    np.testing.assert_array_equal(model(X), copy(X))


def test_a_pruned_model_with_weight_normalization_becomes_plain_with_zeros():
    model = keras.Sequential(
        [keras.Input((8,)), WeightNormDense(16, "relu"), GrowableDense(3, "softmax")]
    )
    prune(model, density=0.2)
    plain = make_plain(model)
    for layer, dense in zip(model.layers, plain.layers, strict=True):
        assert type(dense) is keras.layers.Dense
        np.testing.assert_array_equal(dense.kernel.numpy() != 0, layer.kernel_mask.numpy())
    np.testing.assert_allclose(plain(X), model(X), rtol=0, atol=1e-7)


def test_a_converted_model_trains_and_a_frozen_layer_stays_frozen():
    model = _sequential()
    model.layers[0].trainable = False
    copy = make_growable(model)
    copy.compile("sgd", "sparse_categorical_crossentropy")
    before = copy.layers[0].kernel.numpy()
    copy.fit(X, np.arange(32) % 3, verbose=0)
    np.testing.assert_array_equal(before, copy.layers[0].kernel.numpy())


def test_convolutions_keep_their_arguments_weights_and_slots_both_ways():
    model = _convolutional()
    model.compile(keras.optimizers.Adam(0.01), "mse")
    y = X[:, :3]
    model.fit(X, y, verbose=0)
    growable = make_growable(model)
    kinds = [type(layer) for layer in growable_layers(growable)]
    assert kinds == [GrowableConv2D, GrowableConv2D, GrowableConv1D, GrowableDense]
    growable.compile(convert_optimizer(model, growable), "mse")
    for each in (model, growable):
        each.reset_metrics()
    # Plain and masked layers take the same steps, so that slots must have come over.
    assert [growable.train_on_batch(X, y) for _ in range(3)] == [
        model.train_on_batch(X, y) for _ in range(3)
    ]
    prune(growable, density=0.5)
    growable.train_on_batch(X, y)
    plain = make_plain(growable)
    plain.compile(convert_optimizer(growable, plain), "mse")
    assert plain.get_layer("maps").get_config() == model.get_layer("maps").get_config()
    np.testing.assert_array_equal(
        plain.get_layer("maps").kernel.numpy() != 0, growable.get_layer("maps").kernel_mask
    )
    np.testing.assert_array_equal(plain(X), growable(X))
    assert plain.optimizer.iterations == growable.optimizer.iterations


def test_convolutions_at_a_density_and_with_zeros_keep_their_weights():
    model = _convolutional()
    kernel = model.get_layer("maps").kernel
    halved = make_growable(model, ["maps"], initial_density=0.5, seed=1).get_layer("maps")
    assert halved.num_active == 24
    np.testing.assert_array_equal(halved.kernel, np.where(halved.kernel_mask, kernel, 0))
    kernel.assign(np.where(np.abs(kernel.numpy()) > 0.2, kernel.numpy(), 0))
    copy = make_growable(model, zeros_are_dormant=True)
    np.testing.assert_array_equal(copy.get_layer("maps").kernel_mask, kernel.numpy() != 0)
    np.testing.assert_array_equal(model(X), copy(X))


def test_weight_normalized_convolutions_become_plain():
    layers = [WeightNormConv2D(3, 2, initial_density=0.5), keras.layers.Flatten()]
    model = keras.Sequential([keras.Input((4, 4, 2)), *layers])
    plain = make_plain(model)
    assert type(plain.layers[0]) is keras.layers.Conv2D
    images = np.random.default_rng(0).normal(size=(5, 4, 4, 2)).astype("float32")
    np.testing.assert_allclose(plain(images), model(images), rtol=0, atol=1e-6)
    model.compile("adam", "mse")
    model.optimizer.build(model.trainable_variables)
    with pytest.raises(ValueError, match="a WeightNormConv2D that was converted to Conv2D"):
        convert_optimizer(model, plain)


def test_convolutions_of_other_kinds_stay_what_they_are_and_their_kernels_grow():
    class Own(keras.layers.Conv2D):
        pass

    layers = [
        keras.layers.Conv2D(4, 1, groups=2, name="grouped"),
        keras.layers.SeparableConv2D(4, 1),
        Own(4, 1),
        keras.layers.Conv2D(4, 1, name="plain"),
        keras.layers.Flatten(),
        GrowableDense(2, initial_density=0.5),
    ]
    model = keras.Sequential([keras.Input((2, 2, 4)), *layers])
    growable = make_growable(model)
    kinds = [type(layer) for layer in growable.layers[:4]]
    assert kinds == [GrowableConv2D, GrowableKernels, GrowableKernels, GrowableConv2D]
    inside = [type(layer.layer) for layer in growable.layers[1:3]]
    assert inside == [keras.layers.SeparableConv2D, Own]
    np.testing.assert_array_equal(growable(np.ones((1, 2, 2, 4))), model(np.ones((1, 2, 2, 4))))
    assert type(make_sparse(model).get_layer("plain")) is keras.layers.Conv2D


class _Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = keras.layers.Dense(2)

    def call(self, x):
        return self.dense(x)


def test_what_cannot_be_converted_is_refused_in_words():
    subclassed = _Subclassed()
    subclassed(X)
    own = keras.Sequential([keras.Input((8,)), OwnLayer(name="own"), keras.layers.Dense(2)])
    with pytest.raises(ValueError, match="Only Sequential and functional models"):
        make_growable(subclassed)
    with pytest.raises(
        ValueError, match="inside a layer of another kind .* Received: layer '.*own"
    ):
        make_growable(own, [own.layers[0].dense])
    assert isinstance(make_growable(own, [own.layers[-1]]).layers[-1], GrowableDense)
    with pytest.raises(ValueError, match="unbuilt"):
        make_growable(keras.Sequential([keras.layers.Dense(2)]))
    with pytest.raises(ValueError, match="no layer to convert"):
        make_growable(keras.Sequential([keras.Input((8,)), keras.layers.ReLU()]))
    with pytest.raises(ValueError, match="Received: layers=\\['absent'\\]"):
        make_growable(_sequential(), ["absent"])
    with pytest.raises(ValueError, match="zeros_are_dormant=True, initial_density=0.5"):
        make_growable(_sequential(), initial_density=0.5, zeros_are_dormant=True)
    with pytest.raises(ValueError, match="initial_density=1.5"):
        make_growable(_sequential(), initial_density=1.5)
    with pytest.raises(ValueError, match="no growable layer"):
        make_plain(_sequential())
    with pytest.raises(TypeError, match=r"expected a `keras\.Model`"):
        make_plain("model.keras")


def test_what_is_left_as_it_is_is_said_once_with_its_share_and_the_reason():
    inputs = keras.Input((8,))
    x = keras.layers.Dense(8, name="adapted")(inputs)
    x = OwnLayer(name="own")(x)
    x = keras.layers.BatchNormalization()(x)
    model = keras.Model(inputs, keras.layers.Dense(4, name="classes")(x))
    model.get_layer("adapted").enable_lora(2)
    with pytest.warns(UserWarning, match="Not all of the model can grow") as told:
        make_growable(model)
    assert len(told) == 1
    plan = plan_conversion(model)
    assert str(plan) in str(told[0].message)
    # 8 x 8 + 8 x 2 + 2 x 8 with LoRA, 8 x 2 inside the block, 2 x 4 in the classes.
    assert (plan.num_reached, plan.num_weights, plan.reached) == (24, 120, ("own", "classes"))
    assert plan.share == 24 / 120
    assert plan.left["adapted"].startswith("LoRA is enabled in it")
    assert plan_conversion(model, lambda layer: False).left["classes"] == "not asked for"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        make_growable(model, ["classes"])


def test_lora_is_refused_rather_than_lost_where_it_is_asked_for():
    model = _sequential()
    model.layers[0].enable_lora(2)
    with pytest.raises(ValueError, match="can't be converted: LoRA is enabled in it"):
        make_growable(model, [model.layers[0]])
