"""What docs/what_it_declines.md says is refused is refused, in words that say what to do."""

import keras
import numpy as np
import pytest

import keras_grow


class Subclassed(keras.Model):
    """A model without a graph."""

    def __init__(self):
        super().__init__()
        self.hidden, self.classes = keras.layers.Dense(4), keras.layers.Dense(2)

    def call(self, inputs):
        return self.classes(self.hidden(inputs))


@pytest.fixture
def chain():
    """A function that makes a plain network with a layer "hidden", and one behind it."""

    def make(*behind):
        hidden = keras.layers.Dense(4, name="hidden")
        return keras.Sequential([keras.Input((6,)), hidden, *behind, keras.layers.Dense(2)])

    return make


def test_layers_with_lora_are_passed_by_and_refused_when_asked_for(chain):
    model = chain()
    model.get_layer("hidden").enable_lora(2)
    assert keras_grow.plan_conversion(model).left == {"hidden": "LoRA is enabled in it"}
    with pytest.raises(ValueError, match="LoRA is enabled in it"):
        keras_grow.make_growable(model, layers=["hidden"])


def test_quantized_layers_are_passed_by_and_refused_when_asked_for(chain):
    model = chain()
    model.get_layer("hidden").quantize("int8")
    with pytest.raises(ValueError, match="it is quantized"):
        keras_grow.make_growable(model, layers=["hidden"])


@pytest.mark.parametrize("in_place", [False, True])
def test_where_no_layer_can_be_converted_it_is_said_why(chain, in_place):
    model = chain(keras.layers.Dropout(0.1, name="dropout"))
    for layer in (model.layers[0], model.layers[-1]):
        layer.quantize("int8")
    with pytest.raises(
        ValueError, match=rf"it is quantized: \['hidden', '{model.layers[-1].name}'"
    ):
        keras_grow.make_growable(model, in_place=in_place)


def test_a_plain_model_can_be_quantized_after_growth(chain):
    plain = keras_grow.make_plain(keras_grow.make_growable(chain()))
    plain.get_layer("hidden").quantize("int8")
    assert plain(np.ones((3, 6), "float32")).shape == (3, 2)


def test_subclassed_models_have_no_graph_to_change():
    model = Subclassed()
    x = np.ones((3, 6), "float32")
    model(x)
    growable = keras_grow.make_growable(model, in_place=True)
    for change in (
        lambda: keras_grow.prune_neurons(growable, count=1, data=(x,)),
        lambda: keras_grow.widen(growable, "hidden", 6),
        lambda: keras_grow.grow_depth(growable, "hidden"),
        lambda: keras_grow.compact(growable),
        lambda: keras_grow.make_sparse(growable),
    ):
        with pytest.raises(ValueError, match="subclassed"):
            change()
    assert keras_grow.prune(growable, density=0.5, per_layer=True).count == 16


@pytest.mark.parametrize(
    "normalization", [keras.layers.LayerNormalization, lambda: keras.layers.GroupNormalization(2)]
)
def test_what_normalizes_over_units_keeps_them_and_is_named(chain, normalization):
    model = keras_grow.make_growable(chain(normalization()))
    with pytest.raises(keras_grow.errors.UnitsNotFollowed, match="normalization"):
        keras_grow.prune_neurons(model, layers=["hidden"], count=1, data=(np.ones((3, 6)),))


def test_keras_saves_no_seeds_which_states_beside_the_file_mend(chain, tmp_path):
    model = chain(keras.layers.Dropout(0.5, seed=1))
    model.compile("sgd", "mse")
    model.fit(np.ones((4, 6)), np.ones((4, 2)), verbose=0)
    states = [each.numpy() for each in model.variables if "seed_generator" in each.path]
    assert [state.tolist() for state in states] == [[1, 1]]
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    seeds = [each for each in loaded.variables if "seed_generator" in each.path]
    assert [seed.numpy().tolist() for seed in seeds] == [[1, 0]]  # If not, Keras saves them now.
    for seed, state in zip(seeds, states, strict=True):
        seed.assign(state)
    assert [seed.numpy().tolist() for seed in seeds] == [[1, 1]]


def test_convolutions_have_no_sparse_form():
    model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(3, 3, name="conv")])
    with pytest.raises(ValueError, match="Conv2D has no sparse form"):
        keras_grow.make_sparse(model, layers=["conv"])


def test_an_optimizer_of_whole_kernels_is_refused_with_sparse_layers():
    sparse = keras_grow.SparseDense(4, initial_density=0.5, capacity=1.0)
    model = keras.Sequential([keras.Input((6,)), sparse])
    model.compile(keras.optimizers.Lamb(), "mse")
    with pytest.raises(ValueError, match="Use an optimizer that updates weight by weight"):
        keras_grow.prune(model, density=0.2)


def test_connections_of_frozen_layers_do_not_change(chain):
    model = keras_grow.make_growable(chain())
    model.get_layer("hidden").trainable = False
    with pytest.raises(ValueError, match=r"Set `layer\.trainable = True` first"):
        keras_grow.prune(model, layers=["hidden"], density=0.5)
