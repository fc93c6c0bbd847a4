"""What dense layers with a `kernel_mask` share."""

import abc

from keras import ops

from keras_grow.layers.dense_like import DenseLike
from keras_grow.layers.masked import Masked


class MaskedDense(Masked, DenseLike):
    """`activation(inputs @ effective_kernel + bias)`."""

    def _build_kernel(self, shape):
        initializer = self._add_kernel_mask(shape)
        self._add_kernel(shape, initializer)

    @abc.abstractmethod
    def _add_kernel(self, shape, initializer):
        """Creates the trainable variables behind the effective kernel."""

    def _multiply(self, inputs):
        return ops.matmul(inputs, ops.cast(self.effective_kernel(), self.compute_dtype))
