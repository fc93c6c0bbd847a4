"""Kernels as a SavedModel holds and computes them; `storages` chooses among them."""

import abc
import functools
import math

import numpy as np
import tensorflow as tf

from keras_grow.export.inference import dense_inputs
from keras_grow.export.served import gaps, row_table
from keras_grow.export.served.at_load import AtLoad, shared
from keras_grow.export.stored import StoredKernel
from keras_grow.layers.growable import Growable


class ServedKernel(StoredKernel, tf.Module):
    """The kernel of one layer, in TensorFlow variables alone.

    Args:
        layer: whose kernel is stored, as it is now.
        dtype: of the stored values; `None` stores them in the layer's own.

    Attributes:
        kind: a word for it: "dense", "packed" or "sparse".
        values: what is stored of the kernel.
        at_load: what is computed when the SavedModel is loaded.
    """

    kind: str
    values: tf.Variable

    def __init__(self, layer: Growable, dtype: str | None):
        super().__init__(name=self.kind)
        self.num_inputs, self.num_units = layer.fan_in, layer.kernel_shape[-1]
        self.shape = layer.kernel_shape
        self.compute_dtype = layer.compute_dtype
        self.at_load: list[AtLoad] = []
        self._store(layer, dtype)

    @abc.abstractmethod
    def _store(self, layer: Growable, dtype: str | None) -> None:
        """Creates the variables."""

    @property
    def words(self) -> str:
        return f"{self.kind}, {self.values.dtype.name}"

    @property
    def num_bytes(self) -> int:
        """Of the variables that stand on disk with values."""
        return sum(
            variable.dtype.size * math.prod(variable.shape)
            for variable in self.variables
            if None not in variable.shape
        )

    def kernel(self) -> tf.Tensor | None:
        """The dense kernel in the compute dtype, or `None` where there is none."""
        return self.at_load[0].read(0) if self.at_load else self.values.read_value()

    def product(self, inputs: tf.Tensor) -> tf.Tensor | None:
        """`inputs @ kernel`; `None` where the layer shall multiply with `kernel` itself."""
        return None


class DenseKernel(ServedKernel):
    """The effective kernel as one variable."""

    kind = "dense"

    def _store(self, layer, dtype):
        self.values = _variable(layer.effective_kernel(), dtype, f"{layer.name}/kernel")
        if self.values.dtype != self.compute_dtype:
            spec = tf.TensorSpec(self.shape, self.compute_dtype)
            self.at_load = [AtLoad(lambda: [_computed(self)], [spec])]


class PackedKernel(ServedKernel):
    """Active connections on disk, scattered into a dense kernel when the model is loaded."""

    kind = "packed"

    def _store(self, layer, dtype):
        indices, values = layer.active_connections()
        self.gaps = _gaps_variable(indices.numpy(), layer.name)
        self.values = _variable(values, dtype, f"{layer.name}/values")
        spec = tf.TensorSpec(self.shape, self.compute_dtype)
        self.at_load = [AtLoad(self._scattered, [spec])]

    def _scattered(self):
        stream, values = self.gaps.read_value(), _computed(self)
        scatter = shared(_scattered, stream.dtype, values.dtype, tf.int64)
        return [tf.reshape(scatter(stream, values, [math.prod(self.shape)]), self.shape)]


class SparseKernel(ServedKernel):
    """Active connections on disk and in memory, multiplied as a sparse matrix.

    Batches are multiplied by TensorFlow's compressed sparse rows, which it makes in every call
    from the connections: it can't save or load such a matrix. A single row is multiplied by
    `row_table`, which XLA compiles when the first one is served.
    """

    kind = "sparse"
    is_computed_sparsely = True

    def _store(self, layer, dtype):
        indices, values = layer.active_connections()
        # Sorted by unit: the product wants the kernel as (units, inputs).
        indices = indices.numpy() % self.num_units * self.num_inputs + (
            indices.numpy() // self.num_units
        )
        order = np.argsort(indices)
        indices = indices[order]
        self.gaps = _gaps_variable(indices, layer.name)
        self.values = _variable(tf.gather(values, order), dtype, f"{layer.name}/values")
        # TensorFlow multiplies sparse matrices in float32 and float64 only.
        self._dtype = tf.float64 if self.compute_dtype == "float64" else tf.float32
        self._count = count = len(indices)
        if not count:
            return
        fan_in = np.bincount(indices // self.num_inputs, minlength=self.num_units)
        self._plan = plan = row_table.TablePlan.of(fan_in)
        values, *tables = row_table.table_shapes(plan)
        specs = [
            tf.TensorSpec([count, 2], tf.int64),
            tf.TensorSpec(values, self._dtype),
            *(tf.TensorSpec(table, tf.int32) for table in tables),
        ]
        self.at_load = [AtLoad(self._places_and_tables, specs)]

    def kernel(self):
        return None

    def _values(self):
        return tf.cast(_computed(self), self._dtype)

    def _places_and_tables(self):
        stream = self.gaps.read_value()
        flat = shared(gaps.decode, stream.dtype)(stream)
        units, inputs = flat // self.num_inputs, flat % self.num_inputs
        tables = row_table.tables(self._plan, inputs, units, self._values(), self.num_inputs)
        return [tf.stack([units, inputs], axis=1), *tables]

    def product(self, inputs):
        inputs = dense_inputs(inputs, self.compute_dtype)
        if inputs.shape.rank == 2:  # Of a single row, each operation more is felt.
            return tf.cast(self._product(tf.cast(inputs, self._dtype)), self.compute_dtype)
        rows = tf.reshape(tf.cast(inputs, self._dtype), [-1, self.num_inputs])
        outputs_shape = tf.concat([tf.shape(inputs)[:-1], [self.num_units]], axis=0)
        outputs = tf.cast(tf.reshape(self._product(rows), outputs_shape), self.compute_dtype)
        return tf.ensure_shape(outputs, [*inputs.shape[:-1], self.num_units])

    def _product(self, rows):
        if not self._count:
            return tf.zeros([tf.shape(rows)[0], self.num_units], self._dtype)
        if rows.shape[0] is not None:
            return (self._of_one_row if rows.shape[0] == 1 else self._of_rows)(rows)
        outputs = tf.cond(
            tf.equal(tf.shape(rows)[0], 1),
            lambda: self._of_one_row(rows),
            lambda: self._of_rows(rows),
        )
        outputs.set_shape([None, self.num_units])
        return outputs

    def _of_one_row(self, rows):
        product = functools.partial(row_table.row_product, self._plan)
        compiled = tf.function(product, jit_compile=True, autograph=False)
        # All but the first are the tables.
        tables = [self.at_load[0].read(i + 1) for i in range(len(self._plan.levels) + 2)]
        # Not a reshape: TensorFlow would conclude from it that there is always one row, outside
        # of this branch too.
        return compiled(rows[0], *tables)[None]

    def _of_rows(self, rows):
        kernel = tf.raw_ops.SparseTensorToCSRSparseMatrix(
            indices=self.at_load[0].read(0),
            values=self._values(),
            dense_shape=[self.num_units, self.num_inputs],
        )
        return tf.transpose(tf.raw_ops.SparseMatrixMatMul(a=kernel, b=tf.transpose(rows)))


def _scattered(stream: tf.Tensor, values: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    return tf.scatter_nd(gaps.decode(stream)[:, None], values, size)


def _computed(kernel: ServedKernel) -> tf.Tensor:
    """The stored values, rounded as the layer rounds its kernel."""
    return tf.cast(kernel.values.read_value(), kernel.compute_dtype)


def _variable(values: tf.Tensor, dtype: str | None, name: str) -> tf.Variable:
    values = tf.cast(values, values.dtype if dtype is None else dtype)
    return tf.Variable(values, trainable=False, name=name)


def _gaps_variable(indices: np.ndarray, name: str) -> tf.Variable:
    return tf.Variable(gaps.encode(indices), trainable=False, name=f"{name}/gaps")
