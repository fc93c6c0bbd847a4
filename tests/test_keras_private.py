"""Private names of Keras and TensorFlow: in one file, and each where it is said to be.

They were run on Keras 3.10.0, 3.13.0 and 3.15.1, TensorFlow 2.19.0 and 2.21.0.
"""

import ast
import importlib.util
import inspect
import pathlib

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_grow
from keras_grow import keras_private

_PACKAGE = pathlib.Path(keras_grow.__file__).parent
_OWN = ("self", "cls")
_MODULES = ("keras.src", "tensorflow.python")


def _private_names(path):
    """Private attributes of other objects, and private modules, that a file uses."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom | ast.Import):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names]
            yield from (name for name in names if name.startswith(_MODULES))
        text = node.value if isinstance(node, ast.Constant) else None
        if isinstance(text, str) and (text in _STRINGS or text.startswith(_MODULES)):
            yield text
        if not (isinstance(node, ast.Attribute) and node.attr.startswith("_")):
            continue
        is_own = isinstance(node.value, ast.Name) and node.value.id in _OWN
        is_super = isinstance(node.value, ast.Call) and ast.unparse(node.value) == "super()"
        # `_replace` is the public method of a named tuple.
        if not (is_own or is_super or node.attr.startswith("__") or node.attr == "_replace"):
            yield node.attr


_STRINGS = {
    keras_private.AVERAGE,
    keras_private.MOMENTS,
    *keras_private.SECOND_MOMENTS,
    *keras_private.MODEL_OF_A_CALLBACK[:2],
    "_compile_loss",
    "_keras_mask",
    "_layers",
    "_output_shapes",
    "_trainable_variables",
    "_variables",
    "seed_generator_state",
}


@pytest.mark.parametrize("path", sorted(_PACKAGE.rglob("*.py")), ids=lambda path: path.name)
def test_private_names_stand_in_one_file(path):
    found = set(_private_names(path))
    if path.name == "keras_private.py":
        assert {"_layers", "_keras_history", "_inbound_nodes", "_get_variable_index"} <= found
    else:
        assert not found


def test_layers_in_wrappers_are_found():
    inner = keras.layers.Dense(2)
    assert keras_private.layers_in(keras.layers.TimeDistributed(inner)) == [inner]


def test_layers_that_are_added_to_a_built_layer_are_its_own_and_in_checkpoints_until_removed(
    tmp_path,
):
    layer, inner = keras.layers.Dense(2), [keras.layers.Dense(3), keras.layers.Dense(4)]
    for each in (layer, *inner):
        each.build((None, 5))
    before = [variable.path for variable in layer.variables]
    for _ in range(2):
        keras_private.add_inside(layer, "others", inner)
        assert layer.others == inner
        assert keras_private.layers_in(layer) == inner
        assert len(layer.variables) == 6
        path = tf.train.Checkpoint(layer).save(str(tmp_path / "with"))
        shapes = [shape for _, shape in tf.train.list_variables(path)]
        assert [5, 3] in shapes
        assert [5, 4] in shapes
        with pytest.raises(ValueError, match="cannot add new elements of state"):
            layer.more = keras.layers.Dense(2)
        keras_private.remove_inside(layer, "others")
        assert not hasattr(layer, "others")
        assert keras_private.layers_in(layer) == []
        assert [variable.path for variable in layer.variables] == before
        path = tf.train.Checkpoint(layer).save(str(tmp_path / "without"))
        assert [5, 3] not in [shape for _, shape in tf.train.list_variables(path)]


def test_keras_own_layers_are_told_from_others():
    class Own(keras.layers.Dense):
        pass

    assert keras_private.is_keras_own(keras.layers.Dense(2))
    assert keras_private.is_keras_own(keras.layers.LSTMCell(2))
    assert not keras_private.is_keras_own(Own(2))
    assert not keras_private.is_keras_own(keras_grow.GrowableDense(2))


def test_a_model_that_forgets_what_it_compiled_traces_anew():
    class Counting(keras.Sequential):
        traces = 0

        def train_step(self, data):
            self.traces += 1
            return super().train_step(data)

        def test_step(self, data):
            self.traces += 1
            return super().test_step(data)

        def predict_step(self, data):
            self.traces += 1
            return super().predict_step(data)

    model = Counting([keras.Input((3,)), keras.layers.Dense(2)])
    model.compile("sgd", "mse")
    x, y = np.ones((4, 3), "float32"), np.ones((4, 2), "float32")
    for run in (
        lambda: model.fit(x, y, verbose=0),
        lambda: model.evaluate(x, y, verbose=0),
        lambda: model.predict(x, verbose=0),
    ):
        run()
        before = model.traces
        run()
        assert model.traces == before
        keras_private.forget_compiled(model)
        run()
        assert model.traces > before


def test_the_innermost_stateless_scope_is_found():
    assert keras_private.current_stateless_scope() is None
    with keras.StatelessScope() as outer:
        assert keras_private.current_stateless_scope() is outer
        with keras.StatelessScope() as inner:
            assert keras_private.current_stateless_scope() is inner
        assert keras_private.current_stateless_scope() is outer
    assert keras_private.current_stateless_scope() is None


def test_variables_are_read_as_they_are_stored_where_keras_would_cast():
    seen = []

    class Read(keras.Layer):
        def build(self, shape):
            self.w = self.add_weight(shape=(2,), name="w")

        def call(self, x):
            with keras_private.uncast_variables():
                seen.append(tf.convert_to_tensor(self.w).dtype)
            seen.append(tf.convert_to_tensor(self.w).dtype)
            return x

    Read(dtype="mixed_float16")(np.ones(2, "float32"))
    assert seen == [tf.float32, tf.float16]


def test_a_copy_carries_the_mask_of_timesteps():
    masked = keras.layers.Masking()(np.array([[[1.0], [0.0]]], "float32"))
    copy = keras_private.copy_timestep_mask(masked, tf.identity(masked))
    summed = keras.layers.GlobalAveragePooling1D()(copy + 1)
    np.testing.assert_array_equal(summed, [[1.5]])
    np.testing.assert_array_equal(keras.layers.GlobalAveragePooling1D()(copy), [[1.0]])
    plain = keras_private.copy_timestep_mask(tf.ones((1, 2, 1)), tf.identity(masked))
    np.testing.assert_array_equal(keras.layers.GlobalAveragePooling1D()(plain), [[0.5]])


def test_a_symbolic_tensor_knows_what_made_it():
    x, layer = keras.Input((3,)), keras.layers.Dense(2)
    call = keras_private.call_that_made(y := layer(x))
    operation, inputs, outputs = call.operation, call.inputs, call.outputs
    assert operation is layer
    assert inputs[0] is x
    assert outputs[0] is y
    assert keras_private.call_that_made(y).outputs is outputs  # It is what calls are told apart by.


def test_operations_have_types():
    x = keras.Input((1,))
    made = keras_private.call_that_made(x + x).operation
    assert type(made) is keras_private.operation_type(keras.ops.add)


def test_a_model_that_is_compiled_anew_has_another_loss():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    losses = []
    for _ in range(2):
        model.compile("sgd", "mse")
        losses.append(keras_private.compiled_loss(model))
    assert losses[0] is not None
    assert losses[0] is not losses[1]


def test_seeds_are_told_from_other_variables():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dropout(0.5), keras.layers.Dense(2)])
    assert [keras_private.is_seed(v) for v in model.variables].count(True) == 1


def test_a_callback_gets_its_model_under_these_names():
    callback = keras.callbacks.Callback()
    callback.set_model(keras.Sequential())
    callback.set_params({})
    changed = set(vars(callback)) - {"validation_data"}
    assert changed <= set(keras_private.MODEL_OF_A_CALLBACK)
    assert callback._model is not None


def test_tensorboard_asks_what_to_draw(tmp_path):
    seen = []

    class Board(keras_private.TensorBoardOfWeights):
        def weight_as_image(self, weight):
            seen.append(tuple(weight.shape))

    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    model.compile("sgd", "mse")
    board = Board(str(tmp_path), histogram_freq=1, write_images=True)
    model.fit(np.ones((4, 3)), np.ones((4, 2)), verbose=0, callbacks=[board])
    assert seen == [(3, 2), (2,)]


def test_backups_are_asked_where_they_stand(tmp_path):
    done = []

    class Backup(keras_private.BackupIn):
        def backup(self):
            (tmp_path / "made").mkdir(exist_ok=True)
            self.write_backup(str(tmp_path / "made"))
            done.append(sorted(path.name for path in (tmp_path / "made").iterdir()))

        def restore(self):
            self.read_backup(str(tmp_path / "made"))
            done.append(self.model.get_weights()[0].shape)

    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    model.compile("sgd", "mse")
    backup = Backup(str(tmp_path / "backup"))
    x, y = np.ones((4, 3)), np.ones((4, 2))
    model.fit(x, y, epochs=2, verbose=0, callbacks=[backup])
    assert done == [(3, 2), *[["latest.weights.h5", "training_metadata.json"]] * 2]
    assert model.fit(x, y, epochs=3, verbose=0, callbacks=[backup]).epoch == [2]


def _trained(optimizer):
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    model.compile(optimizer, "mse")
    model.train_on_batch(np.ones((4, 3)), np.ones((4, 2)))
    kernel = model.layers[0].kernel
    assert keras_private.has_slots_for(optimizer, kernel)
    assert not keras_private.has_slots_for(optimizer, keras.Variable(np.ones((3, 2))))
    return dict(keras_private.slots_of(optimizer, kernel))


@pytest.mark.parametrize(
    ("make", "names"),
    [
        (lambda o: o.SGD(0.1, momentum=0.9, use_ema=True), {keras_private.AVERAGE, "momentums"}),
        (lambda o: o.Adam(amsgrad=True), {"_momentums", "_velocities", "_velocity_hats"}),
        (lambda o: o.Adagrad(), {"_accumulators"}),
        (lambda o: o.Adamax(), {"_m", "_u"}),
        (lambda o: o.Muon(exclude_layers=["dense"]), {"adam_velocities"}),
    ],
)
def test_slots_have_these_names(make, names):
    assert names <= set(_trained(make(keras.optimizers)))


def test_steps_are_counted_with_gradient_accumulation_too():
    accumulating = keras.optimizers.SGD(0.1, gradient_accumulation_steps=2)
    scaling = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.1))
    for optimizer in (accumulating, scaling):
        model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
        model.compile(optimizer, "mse")
        for _ in range(3):
            model.train_on_batch(np.ones((4, 3)), np.ones((4, 2)))
        assert int(keras_private.step_counter(optimizer)) == 3


def test_exporters_are_modules_of_these_names():
    found = {name for name in keras_private.EXPORTERS if importlib.util.find_spec(name) is not None}
    # Keras got the export to LiteRT in 3.12; tf2onnx need not be installed.
    assert found >= {"keras.src.export.onnx", "tensorflow.lite.python.lite"}
    assert keras_private.exporter_at_work() is None


def test_random_numbers_are_the_same_inside_and_go_on_outside_as_if_nothing_had_been():
    tf.random.set_seed(3)
    expected = [tf.random.normal([2]).numpy() for _ in range(2)]
    tf.random.set_seed(3)
    drawn = [tf.random.normal([2]).numpy()]
    inside = []
    for _ in range(2):
        with keras_private.same_random_numbers():
            inside.append(tf.random.normal([2]).numpy())
    drawn.append(tf.random.normal([2]).numpy())
    np.testing.assert_array_equal(drawn, expected)
    np.testing.assert_array_equal(inside[0], inside[1])


def test_a_graph_says_the_shapes_of_what_its_operations_put_out():
    function = tf.function(lambda x: tf.matmul(x, tf.ones((3, 2))))
    graph = function.get_concrete_function(tf.TensorSpec((4, 3))).graph.as_graph_def(
        add_shapes=True
    )
    shapes = [
        [dimension.size for dimension in shape.dim]
        for node in graph.node
        for shape in keras_private.output_shapes(node)
    ]
    assert [4, 2] in shapes


def test_tensorflows_generator_has_a_state_that_can_be_set():
    context = keras_private.eager_context.context()
    tf.random.set_seed(3)
    assert context._seed == 3
    state = context._rng.getstate()
    drawn = tf.random.normal([2])
    tf.random.set_seed(3)  # Kernels keep a state too, and start afresh.
    context._rng.setstate(state)
    np.testing.assert_array_equal(tf.random.normal([2]), drawn)


def test_the_cell_of_convolutional_lstms_has_this_name():
    for layer in (keras.layers.ConvLSTM1D, keras.layers.ConvLSTM2D, keras.layers.ConvLSTM3D):
        assert type(layer(1, 1).cell) is keras_private.CONV_LSTM_CELL


@pytest.mark.parametrize(
    "layer", [keras.layers.MultiHeadAttention(2, 3), keras.layers.GroupQueryAttention(3, 4, 2)]
)
def test_the_layers_inside_an_attention_have_these_names(layer):
    layer(np.ones((1, 5, 4)), np.ones((1, 5, 4)))
    shapes = {
        name: tuple(getattr(layer, attribute).kernel.shape)
        for name, attribute in keras_private.ATTENTION.items()
        if name != "gate"
    }
    num_heads = 2 if isinstance(layer, keras.layers.MultiHeadAttention) else 4
    assert shapes["query"] == (4, num_heads, 3)
    assert shapes["key"] == shapes["value"] == (4, 2, 3)
    assert shapes["output"] == (num_heads, 3, 4)


def test_a_gated_attention_has_one_layer_more():
    if "use_gate" not in inspect.signature(keras.layers.MultiHeadAttention).parameters:
        pytest.skip("this Keras has no gates")
    layer = keras.layers.MultiHeadAttention(2, 3, use_gate=True)
    layer(np.ones((1, 5, 4)), np.ones((1, 5, 4)))
    assert getattr(layer, keras_private.ATTENTION["gate"]).kernel.shape == (4, 2, 3)
