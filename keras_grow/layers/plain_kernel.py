"""A masked kernel that is stored as it is."""

from keras_grow.layers.growable import StorageChange
from keras_grow.layers.masked import ActiveConstraint, Masked, keep_active, scatter


class PlainKernel(Masked):
    """A masked layer with one variable `kernel`: the effective kernel, and 0 where dormant."""

    def _add_kernel(self, shape, initializer):
        self.kernel = self.add_weight(
            name="kernel",
            shape=shape,
            initializer=initializer,
            regularizer=self._effective_kernel_regularizer(),
            constraint=ActiveConstraint(self.kernel_mask, self.kernel_constraint),
        )

    @property
    def kernel_variables(self):
        return (self.kernel, self.kernel_mask)

    @property
    def _stored_kernel(self):
        return self.kernel

    def _compute_effective_kernel(self):
        return keep_active(self.kernel, self.kernel_mask)

    def _wake(self, indices, values, gradient):
        self.kernel.assign(scatter(self._compute_effective_kernel(), indices, values))
        return [StorageChange(self.kernel, indices)]

    def _cut(self, indices):
        self.kernel.assign(scatter(self._compute_effective_kernel(), indices, 0.0))
        return [StorageChange(self.kernel, indices)]
