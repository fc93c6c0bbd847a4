import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_grow
from keras_grow import GrowableDense, SparseDense
from keras_grow.layers.paths import by_layer, layer_paths


def _member(name, layer_class=GrowableDense, seed=0):
    x = keras.Input((8,))
    hidden = layer_class(16, "relu", initial_density=0.5, seed=seed, name="hidden")(x)
    return keras.Model(x, GrowableDense(3, name="classes", seed=seed)(hidden), name=name)


@pytest.fixture
def ensemble():
    """The mean of two functional models of the same layers; `layer.path` is the same in both."""
    x = keras.Input((8,), name="x")
    members = [_member("a"), _member("b", seed=1)]
    outputs = keras.layers.Average(name="mean")([member(x) for member in members])
    model = keras.Model(x, outputs)
    model.compile("adam", "mse")
    return model


PATHS = ["a/hidden", "a/classes", "b/hidden", "b/classes"]


def _data():
    random = np.random.default_rng(0)
    x = random.normal(size=(32, 8)).astype("float32")
    return x, random.normal(size=(32, 3)).astype("float32")


class _Block(keras.layers.Layer):
    """A layer that names two of its own alike, and one as the second could have been numbered."""

    def __init__(self, **options):
        super().__init__(**options)
        self.inner = [keras.layers.Dense(4, name=name) for name in ("dense", "dense", "dense_2")]

    def call(self, x):
        for layer in self.inner:
            x = layer(x)
        return x


def test_paths_are_the_names_from_the_model_down_to_a_layer():
    x = keras.Input((5, 4))
    shared = keras.Sequential([keras.layers.Dense(4, name="dense")], name="shared")
    wrapped = keras.layers.TimeDistributed(keras.layers.Dense(4, name="dense"), name="steps")
    model = keras.Model(x, wrapped(shared(shared(keras.layers.Dense(4, name="dense")(x)))))
    paths = [path for layer, path in layer_paths(model).items() if layer.name == "dense"]
    assert paths == ["dense", "shared/dense", "steps/dense"]
    assert layer_paths(keras.Sequential([model], name="outer"))[shared] == f"{model.name}/shared"


def test_namesakes_in_a_layer_of_ones_own_get_numbers_that_are_free():
    x = keras.Input((4,))
    model = keras.Model(x, _Block(name="two")(_Block(name="one")(x)))
    paths = list(layer_paths(model).values())
    assert paths[-3:] == ["two/dense", "two/dense_3", "two/dense_2"]
    assert len(set(paths)) == len(paths) == 10


def test_values_by_layer_are_those_of_keys_that_name_one_each(ensemble):
    layers = keras_grow.growable_layers(ensemble)
    named = {"b/hidden": 1, layers[0]: 2}
    assert by_layer(ensemble, named, layers, "Need.") == {layers[2]: 1, layers[0]: 2}
    with pytest.raises(ValueError, match=r"Need. Received: \['nowhere'\], expected some of \['a/"):
        by_layer(ensemble, {"a/hidden": 1, "nowhere": 2}, layers, "Need.")
    with pytest.raises(ValueError, match=r"Received: \['a/hidden', <.*, each once"):
        by_layer(ensemble, {"a/hidden": 1, layers[0]: 2}, layers, "Need.")


@pytest.mark.parametrize("reload", [False, True])
def test_paths_are_those_of_copies_and_of_models_that_were_loaded(ensemble, tmp_path, reload):
    if reload:
        ensemble.save(tmp_path / "model.keras")
        ensemble = keras.models.load_model(tmp_path / "model.keras")
    plain = keras_grow.make_plain(ensemble)
    small = keras_grow.compact(ensemble).model
    for model in (plain, small, keras.models.clone_model(ensemble)):
        assert list(layer_paths(model).values()) == list(layer_paths(ensemble).values())


def test_every_record_calls_namesakes_by_their_paths(ensemble, tmp_path):
    x, y = _data()
    history = keras_grow.ConnectionHistory()
    ensemble.fit(x, y, callbacks=[history], verbose=0)
    assert list(history.densities) == list(history.connections) == PATHS
    assert [layer.name for layer in keras_grow.report(ensemble).layers] == PATHS
    assert [change.name for change in keras_grow.grow(ensemble, (x, y), count=5).layers] == PATHS
    assert [change.name for change in keras_grow.prune(ensemble, count=5).layers] == PATHS
    record = keras_grow.remove_dead_neurons(ensemble)
    assert [change.name for change in record.layers] == [x for x in PATHS if "hidden" in x]
    assert list(record.not_followed) == [x for x in PATHS if "classes" in x]
    compaction = keras_grow.compact(ensemble)
    assert [layer.name for layer in compaction.layers] == PATHS
    record = keras_grow.export_saved_model(ensemble, tmp_path / "saved")
    assert list(record.storages) == PATHS


def test_reasons_of_namesakes_do_not_overwrite_each_other():
    def member(name):
        x = keras.Input((8,))
        hidden = GrowableDense(4, "relu", initial_density=0.0, name="hidden")(x)
        return keras.Model(x, keras.layers.LayerNormalization(name="norm")(hidden), name=name)

    x = keras.Input((8,))
    model = keras.Model(x, keras.layers.Add()([member("a")(x), member("b")(x)]))
    assert set(keras_grow.compact(model).reasons) >= {"a/norm", "b/norm"}


@pytest.mark.parametrize("export", [keras_grow.export_litert, keras_grow.export_onnx])
def test_records_of_other_formats_name_every_namesake(ensemble, tmp_path, export):
    assert list(export(ensemble, tmp_path / "file").storages) == PATHS


def test_storages_are_chosen_by_path_or_by_a_name_that_one_layer_has(ensemble, tmp_path):
    dense = keras_grow.storages.Dense()
    storage = {"a/hidden": dense, "b/classes": keras_grow.storages.Packed()}
    stored = keras_grow.export_saved_model(ensemble, tmp_path / "saved", storage=storage).storages
    assert stored["a/hidden"].startswith("dense")
    assert stored["b/hidden"].startswith("packed")
    with pytest.raises(ValueError, match="'hidden'.*'a/hidden', 'b/hidden'"):
        keras_grow.export_saved_model(ensemble, tmp_path / "saved", storage={"hidden": dense})
    one = _member("one")
    stored = keras_grow.export_saved_model(one, tmp_path / "one", storage={"hidden": dense})
    assert stored.storages["hidden"].startswith("dense")


def test_a_mapping_can_not_name_a_layer_twice(ensemble, tmp_path):
    dense = keras_grow.storages.Dense()
    x = keras.Input((8,))
    model = keras.Model(x, _member("a")(x))
    with pytest.raises(ValueError, match=r"\['a/hidden', 'hidden'\].*each once"):
        keras_grow.export_saved_model(
            model, tmp_path / "saved", storage={"a/hidden": dense, "hidden": dense}
        )


def test_verbs_take_paths_and_refuse_a_name_of_several_layers(ensemble):
    x, y = _data()
    for act in (
        lambda layers: keras_grow.grow(ensemble, (x, y), count=1, layers=layers),
        lambda layers: keras_grow.prune(ensemble, count=1, layers=layers),
    ):
        assert [change.name for change in act(["b/hidden"]).layers] == ["b/hidden"]
        with pytest.raises(ValueError, match=r"Use one of their paths: \['a/hidden', 'b/hidden'\]"):
            act(["hidden"])
        with pytest.raises(ValueError, match="Received: layers='a/hidden', expected some of"):
            act("a/hidden")


def test_keras_own_path_is_taken_where_it_means_one_layer():
    inner = [
        keras.Sequential([GrowableDense(8, name="hidden")], name=name) for name in ("one", "two")
    ]
    model = keras.Sequential([keras.Input((8,)), *inner], name="outer")
    hidden = inner[1].layers[0]
    assert hidden.path == "outer/two/hidden"
    change = keras_grow.prune(model, count=1, layers=[hidden.path])
    assert [layer.name for layer in change.layers] == ["two/hidden"]


def test_a_layer_of_the_model_itself_is_meant_by_its_name_whatever_stands_in_nested_models():
    x = keras.Input((8,))
    outputs = GrowableDense(2, name="hidden")(_member("a")(x))
    change = keras_grow.prune(keras.Model(x, outputs), count=1, layers=["hidden"])
    assert [layer.name for layer in change.layers] == ["hidden"]
    assert change.num_connections == 3 * 2


def test_conversions_choose_by_path(ensemble):
    sparse = keras_grow.make_sparse(ensemble, layers=["a/hidden"], capacity={"a/hidden": 100})
    found = {path: layer for layer, path in layer_paths(sparse).items()}
    assert isinstance(found["a/hidden"], SparseDense)
    assert found["a/hidden"].capacity == 100
    assert isinstance(found["b/hidden"], GrowableDense)
    with pytest.raises(ValueError, match="paths"):
        keras_grow.make_sparse(ensemble, capacity={"hidden": 100})
    plain = keras_grow.make_plain(ensemble)
    with pytest.raises(ValueError, match="paths"):
        keras_grow.make_growable(plain, layers=["hidden"])
    found = layer_paths(keras_grow.make_growable(plain, layers=["b/hidden"])).items()
    assert [path for layer, path in found if isinstance(layer, GrowableDense)] == ["b/hidden"]


def test_errors_name_the_namesake_that_they_mean(ensemble):
    hidden = ensemble.get_layer("b").get_layer("hidden")
    hidden.kernel.assign(tf.fill(hidden.kernel.shape, np.nan))
    with pytest.raises(ValueError, match="'b/hidden' stores weights that are NaN"):
        keras_grow.prune(ensemble, count=1)
    hidden.trainable = False
    with pytest.raises(ValueError, match=r"layers \['b/hidden'\] with trainable=False"):
        keras_grow.prune(ensemble, count=1, layers=["b/hidden"])
