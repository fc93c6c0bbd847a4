"""What a SavedModel computes once, when it is loaded, instead of holding it on disk."""

import functools
import uuid
from collections.abc import Callable, Sequence

import tensorflow as tf


class AtLoad(tf.Module):
    """Tensors that are computed when the SavedModel is loaded.

    On disk they are empty variables. TensorFlow frees them with the loaded model, as any variable.

    Args:
        compute: returns the tensors, from variables that the SavedModel holds.
        specs: dtype and shape of each, all sizes known.
    """

    def __init__(self, compute: Callable[[], Sequence[tf.Tensor]], specs: Sequence[tf.TensorSpec]):
        super().__init__()
        self._compute, self._specs = compute, list(specs)
        # Of any shape: on disk they have none of their entries.
        self.variables_at_load = [
            tf.Variable(
                tf.zeros([0] * spec.shape.rank, spec.dtype),
                trainable=False,
                shape=[None] * spec.shape.rank,
            )
            for spec in specs
        ]

    def fill(self) -> None:
        """Computes the tensors; the SavedModel does so by itself, through `Initializer`."""
        for variable, tensor in zip(self.variables_at_load, self._compute(), strict=True):
            variable.assign(tensor)

    def read(self, position: int) -> tf.Tensor:
        """One of the tensors, of known shape; after `fill`."""
        tensor = self.variables_at_load[position].read_value()
        if not tf.executing_eagerly():
            # Said to TensorFlow, which need not check it in every call.
            tensor.set_shape(self._specs[position].shape)
        return tensor


class Initializer(tf.saved_model.experimental.TrackableResource):
    """Lets TensorFlow fill tensors whenever the SavedModel that holds it is loaded.

    TensorFlow initializes resources, such as tables, after it has restored variables. This one
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
