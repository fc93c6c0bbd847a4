"""What a SavedModel computes once, when it is loaded, instead of holding it on disk."""

import functools
import uuid
from collections.abc import Callable, Sequence

import tensorflow as tf


class AtLoad(tf.Module):
    """A tensor that is computed when the SavedModel is loaded.

    On disk it is an empty variable. TensorFlow frees it with the loaded model, as any variable.

    Args:
        compute: returns the tensor, from variables that the SavedModel holds.
        dtype: its dtype.
        shape: its shape, all sizes known.
    """

    def __init__(
        self, compute: Callable[[], tf.Tensor], dtype: tf.DType | str, shape: Sequence[int]
    ):
        super().__init__()
        self._compute = compute
        self._static_shape = tuple(shape)
        empty = tf.zeros([0] * len(shape), dtype)
        # Of any shape: on disk it has none of its entries.
        free = tf.TensorShape([None] * len(shape))
        self.variable = tf.Variable(empty, trainable=False, shape=free)

    def fill(self) -> None:
        """Computes the tensor; the SavedModel does so by itself, through `Initializer`."""
        self.variable.assign(self._compute())

    def empty(self) -> None:
        """Undoes `fill`."""
        self.variable.assign(tf.zeros([0] * len(self._static_shape), self.variable.dtype))

    def read(self) -> tf.Tensor:
        """The tensor, of known shape; after `fill`."""
        tensor = self.variable.read_value()
        if not tf.executing_eagerly():
            tensor.set_shape(self._static_shape)
        return tensor


class Initializer(tf.saved_model.experimental.TrackableResource):
    """Lets TensorFlow fill tensors whenever the SavedModel that holds it is loaded.

    TensorFlow initialises resources, such as tables, after it has restored variables. This one
    holds nothing itself.

    Args:
        tensors: what to fill, in this order.
    """

    def __init__(self, tensors: Sequence[AtLoad]):
        super().__init__()
        self._tensors = list(tensors)
        # Serving without Python finds a resource by its name, which must be no other's.
        self._shared_name = f"keras_grow_{uuid.uuid4().hex}"

    def _create_resource(self):
        return tf.raw_ops.VarHandleOp(dtype=tf.float32, shape=[], shared_name=self._shared_name)

    def _initialize(self):
        for tensor in self._tensors:
            tensor.fill()


@functools.cache
def shared(function: Callable[..., tf.Tensor], *dtypes: tf.DType) -> Callable[..., tf.Tensor]:
    """`function` of tensors of rank 1, which a graph holds once, however often it calls it.

    Args:
        function: pure, and at the top of its module.
        dtypes: of its arguments.
    """
    signature = [tf.TensorSpec([None], dtype) for dtype in dtypes]
    # TensorFlow would count a function of several dtypes as one that is traced again and again.
    function = functools.partial(function)
    return tf.function(function, input_signature=signature, autograph=False)
