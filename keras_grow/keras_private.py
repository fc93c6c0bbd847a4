"""Every private name of Keras and TensorFlow in use, and what they are used for.

Where there is no public access, and nowhere else. `tests/test_keras_private.py` holds this file to
it over the whole tree, and has a test for each name that fails where a release has moved it. They
were run on Keras 3.10.0, 3.13.0 and 3.15.1, TensorFlow 2.19.0 and 2.21.0.
"""

import contextlib
import dataclasses
import os
import random
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import FrameType
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras.src.backend import AutocastScope
from keras.src.backend.common.stateless_scope import get_stateless_scope
from keras.src.layers.rnn.conv_lstm import ConvLSTMCell
from tensorflow.python.eager import context as eager_context


def layers_in(layer: keras.Layer) -> list[keras.Layer]:
    """The layers directly inside a layer, in the order in which they were added."""
    # Only models have a public list of them; wrappers have not.
    return layer.layers if isinstance(layer, keras.Model) else layer._layers


def add_inside(layer: keras.Layer, name: str, layers: list[keras.Layer]) -> None:
    """Sets an attribute of a layer, built or not, to a list of layers.

    Keras unlocks a layer so to enable LoRA. `tf.train.Checkpoint` passes by what stands in lists.
    """
    layer._tracker.unlock()
    setattr(layer, name, layers)
    layer._tracker.lock()
    for number, inner in enumerate(layers):
        layer._track_trackable(inner, f"{name}_{number}", overwrite=True)


def remove_inside(layer: keras.Layer, name: str) -> None:
    """Undoes `add_inside`."""
    for number, inner in enumerate(getattr(layer, name)):
        layer._tracker.untrack(inner)
        layer._delete_tracking(f"{name}_{number}")
    delattr(layer, name)


def is_keras_own(layer: keras.Layer) -> bool:
    """Whether the class of a layer is one of Keras's own."""
    return type(layer).__module__.split(".")[0] == "keras"


def forget_compiled(model: keras.Model) -> None:
    """Has `fit`, `evaluate` and `predict` trace a model anew."""
    model.train_function = model.test_function = model.predict_function = None


@dataclasses.dataclass(frozen=True)
class Call:
    """One call of a layer or operation: the symbolic tensors that it took and made, flattened.

    Attributes:
        operation: the layer or operation.
        inputs, outputs: the tensors.
        args, kwargs: all that it was called with.
    """

    operation: Any
    inputs: Sequence[Any]
    outputs: Sequence[Any]
    args: Sequence[Any]
    kwargs: Mapping[str, Any]


def call_that_made(tensor: Any) -> Call:
    """The call that a symbolic tensor came from."""
    operation, node_index, _ = tensor._keras_history
    node = operation._inbound_nodes[node_index]
    arguments = node.arguments
    return Call(
        operation, node.input_tensors, node.output_tensors, arguments.args, arguments.kwargs
    )


def operation_type(function: Callable) -> type:
    """The class of the operation that a function of two tensors leaves in a model's graph."""
    tensors = keras.KerasTensor((1, 1)), keras.KerasTensor((1, 1))
    return type(function(*tensors)._keras_history.operation)


def compiled_loss(model: keras.Model) -> Any:
    """The loss object of a compiled model: another one each time that it is compiled."""
    return getattr(model, "_compile_loss", None)


CONV_LSTM_CELL: type[keras.Layer] = ConvLSTMCell
"""The cell of the convolutional LSTMs, which has no public name."""


ATTENTION = {name: f"_{name}_dense" for name in ("query", "key", "value", "gate", "output")}
"""The layers inside an attention of Keras's, by what they make."""


def current_stateless_scope() -> keras.StatelessScope | None:
    """The innermost stateless scope that Keras reads variables through, if any."""
    return get_stateless_scope()


def uncast_variables() -> Any:
    """A context in which variables are read in the type that they are stored in."""
    return AutocastScope(None)


def copy_timestep_mask(tensor: Any, copy: Any) -> Any:
    """Returns `copy` with the mask of timesteps that a tensor carries."""
    mask = getattr(tensor, "_keras_mask", None)
    if mask is not None:
        copy._keras_mask = mask
    return copy


def is_seed(variable: keras.Variable) -> bool:
    """Whether a variable is the state of a `SeedGenerator`: its seed, and how often it drew."""
    return variable.name == "seed_generator_state" and tuple(variable.shape) == (2,)


MODEL_OF_A_CALLBACK = ("_model", "_params", "params")
"""Attributes of a callback that Keras sets for a run of `fit`."""


class TensorBoardOfWeights(keras.callbacks.TensorBoard):
    """Keras's TensorBoard callback, with a say in what is drawn of each weight."""

    def weight_as_image(self, weight: Any) -> Any:
        """What is drawn of a weight with `write_images=True`, `None` if it is not."""
        return weight

    def _log_weight_as_image(self, weight, weight_name, epoch):
        image = self.weight_as_image(weight)
        if image is not None:
            super()._log_weight_as_image(image, weight_name, epoch)


class BackupIn(keras.callbacks.BackupAndRestore):
    """Keras's BackupAndRestore callback, with a say in where backups stand."""

    def write_backup(self, folder: str) -> None:
        """Writes a backup into a folder that is there."""
        self._look_in(folder)
        super()._save_model()

    def read_backup(self, folder: str) -> None:
        """Restores the backup of a folder, if there is one."""
        self._look_in(folder)
        super()._load_model()

    def _look_in(self, folder: str) -> None:
        self._weights_path = os.path.join(folder, "latest.weights.h5")
        self._training_metadata_path = os.path.join(folder, "training_metadata.json")

    def backup(self) -> None:
        """Makes a backup, at the end of an epoch or of a batch."""
        raise NotImplementedError

    def restore(self) -> None:
        """Restores what there is, at the begin of a training."""
        raise NotImplementedError

    def _save_model(self):
        self.backup()

    def _load_model(self):
        self.restore()


# Slots of an optimizer.
AVERAGE = "_model_variables_moving_average"
"""The slot that averages weights (`use_ema=True`)."""
SECOND_MOMENTS = ("_velocities", "_velocity_hats", "adam_velocities", "_accumulators", "_u")
"""The slots that Adam and its relatives divide by: a running mean of the squared gradient."""
MOMENTS = "_momentums"
_NO_SLOTS = ("_trainable_variables", "_variables")


def step_counter(optimizer: keras.Optimizer) -> keras.Variable:
    """The variable that counts the steps the optimizer was asked to make.

    The public `iterations` is this one only without gradient accumulation; with it, a quotient.
    """
    return getattr(optimizer, "inner_optimizer", optimizer)._iterations


def has_slots_for(optimizer: keras.Optimizer, variable: keras.Variable) -> bool:
    """Whether a built optimizer updates a variable itself."""
    try:
        optimizer._get_variable_index(variable)
    except KeyError:
        return False
    return True


def slots_of(
    optimizer: keras.Optimizer, variable: keras.Variable
) -> Iterator[tuple[str, keras.Variable]]:
    """The slots of one of an optimizer's variables, of any shape, by name.

    By one convention of Keras's optimizers: a slot is an entry of a list attribute that is as long
    as the list of variables.
    """
    index = optimizer._get_variable_index(variable)
    num_variables = len(optimizer._trainable_variables)
    for name, slot_list in vars(optimizer).items():
        is_slot_list = isinstance(slot_list, (list, tuple)) and len(slot_list) == num_variables
        if not is_slot_list or name in _NO_SLOTS:
            continue
        slot = slot_list[index]
        if isinstance(slot, keras.Variable) and slot is not variable:
            yield name, slot


EXPORTERS = {
    "keras.src.export.onnx": "export_onnx",
    "keras.src.export.litert": "export_litert",
    "tf2onnx": "export_onnx",
    "tensorflow.lite.python.lite": "export_litert",
}
"""Modules of other exporters to ONNX and LiteRT, and ours for the same format."""


def exporter_at_work() -> tuple[str, str] | None:
    """The exporter that traces what is called now: its module, and ours for the same format.

    A layer is told nothing of why it is traced. The modules of exporters stand on the stack then.
    """
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        module = frame.f_globals.get("__name__", "")
        ours = EXPORTERS.get(module, EXPORTERS.get(module.split(".")[0]))
        if ours is not None:
            return module, ours
        frame = frame.f_back
    return None


@contextlib.contextmanager
def same_random_numbers() -> Iterator[None]:
    """The same random numbers each time, for layers without a generator of their own.

    TensorFlow has no public access to the state of its global generator.
    """
    tensorflow = eager_context.context()
    seed, generator = tensorflow._seed, getattr(tensorflow, "_rng", None)
    state = None if generator is None else generator.getstate()
    states = random.getstate(), np.random.get_state()
    random.seed(0)
    np.random.seed(0)
    tf.random.set_seed(0)
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        tf.random.set_seed(seed)
        if state is not None:
            tensorflow._rng.setstate(state)


def output_shapes(node: Any) -> list[Any]:
    """The shapes of what an operation of a graph puts out, as TensorFlow's graphs say them."""
    return node.attr["_output_shapes"].list.shape


def declared_shape(store: Any, name: str) -> tuple[int, ...] | None:
    """The shape of an array in a weights file, before it is read; `None` where it is not known."""
    group = getattr(store, "_h5_entry_group", store)
    array = group.get(name)
    shape = getattr(array, "shape", None)
    return None if shape is None else tuple(shape)
