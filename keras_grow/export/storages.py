"""Storages: how a SavedModel holds and computes the kernels of growable layers."""

import abc
import dataclasses
import math

from keras_grow.export.served.kernels import (
    DenseKernel,
    PackedKernel,
    ServedKernel,
    SparseKernel,
)
from keras_grow.integers import checked_integer
from keras_grow.layers.conv_like import ConvLike
from keras_grow.layers.growable import Growable

# A kernel with more connections than this is not made dense where the layer never did.
_LARGEST_DENSE = 2**27
# What a dense kernel of TensorFlow can have at most.
_MOST_CONNECTIONS = 2**31


class Storage(abc.ABC):
    """Chooses how the kernel of a layer is stored; write your own by overriding `__call__`.

    Example:

    ```python
    class SparseIfWide(keras_grow.storages.Storage):
        def __call__(self, layer, dtype=None):
            is_wide = layer.num_connections > 10**6 and len(layer.kernel_shape) == 2
            chosen = keras_grow.storages.Sparse() if is_wide else keras_grow.storages.Packed()
            return chosen(layer, dtype)


    keras_grow.export_saved_model(model, "grown", storage=SparseIfWide())
    ```
    """

    @abc.abstractmethod
    def __call__(self, layer: Growable, dtype: str | None = None) -> ServedKernel:
        """Returns the kernel as it is served.

        Args:
            layer: a built layer.
            dtype: of the stored values; `None` for the layer's own.

        Raises:
            ValueError: where the layer's kernel can't be stored so.
        """


class Dense(Storage):
    """The effective kernel as one array, dormant connections as zeros.

    The largest on disk, unless most connections are active, and as fast as a plain layer.
    """

    def __call__(self, layer: Growable, dtype: str | None = None) -> ServedKernel:
        _check_fits_dense(layer, self)
        return DenseKernel(layer, dtype)


class Packed(Storage):
    """Active connections on disk, a dense kernel in memory: about as fast as a plain layer.

    A value and, mostly, one byte for each active connection: its distance from the one before.
    When the SavedModel is loaded they are scattered, once, into a dense kernel. They stay in
    memory beside it, because a model that was loaded can be saved again. Three layers of 1024
    units took 1.2 times as long as stored dense for one sample, 1.07 times for 32, on one thread.
    """

    def __call__(self, layer: Growable, dtype: str | None = None) -> ServedKernel:
        _check_fits_dense(layer, self)
        return PackedKernel(layer, dtype)


class Smallest(Storage):
    """`Packed` or `Dense`, whichever takes fewer bytes on disk."""

    def __call__(self, layer: Growable, dtype: str | None = None) -> ServedKernel:
        packed = Packed()(layer, dtype)
        dense_bytes = layer.num_connections * packed.values.dtype.size
        return packed if packed.num_bytes < dense_bytes else Dense()(layer, dtype)


class Sparse(Storage):
    """Active connections on disk and in memory, which alone are multiplied; for dense layers.

    On disk as `Packed`; in memory some 30 bytes for each active connection. Batches are
    multiplied as a compressed sparse matrix, which TensorFlow builds in every call, so that
    small batches gain little. A single row is multiplied by a function that XLA compiles when
    the first one is served, in some tenths of a second.
    """

    def __call__(self, layer: Growable, dtype: str | None = None) -> ServedKernel:
        if not _can_be_sparse(layer):
            raise ValueError(
                "TensorFlow has no sparse convolution: only dense layers can be stored as "
                f"Sparse(). Received: layer {layer.name!r} with a kernel of shape "
                f"{layer.kernel_shape}. Leave it to the rule, with a mapping that names the dense "
                'layers: `storage={"dense": keras_grow.storages.Sparse()}`.'
            )
        return SparseKernel(layer, dtype)


@dataclasses.dataclass(frozen=True)
class Rule(Storage):
    r"""Chooses by the numbers of connections, and so the same on every machine.

    A dense layer is stored as `Sparse` where its product is estimated to take less than two
    thirds of the dense one's time; SparseDense layers of more than 2^27 connections always are.
    Any other is stored as `Packed`, or as `Dense` where that takes fewer bytes. With $n$
    connections, $a$ active ones, $u$ units and $b$ rows at a time, in nanoseconds:

    - dense, one row: $0.02 n$ up to 2^20 connections, which stay in a processor's cache, and
      $0.1 n$ from 2^23, between them in proportion; more rows: $0.0095 b n$, and no less.
    - sparse, one row: $60,000 + 0.3 (1.5 a + 8 u)$: the call of a compiled function, and a table
      that pads the connections.
    - sparse, more rows: $60,000 + (11.5 + 0.07 b) a$: building the matrix, and multiplying it;
      $0.5 b$ where the inputs of the batch, more than 2^21 numbers, leave the cache.

    The constants were measured on two cores of an AMD EPYC (Zen 4), TensorFlow 2.21, on kernels
    of 300 x 100 to 4096 x 4096, 65536 x 64 and 64 x 65536 at densities of 1 to 10%: dense ones are
    the lowest, sparse ones the highest, so that a layer that is chosen to be sparse is hardly
    ever slower for it.

    Args:
        batch_size: positive integer, how many rows a layer multiplies at a time when it is
            served: the samples, times the steps where a layer is applied to each step.

    Raises:
        ValueError: for a batch size that is not a positive integer.

    Example:

    >>> import keras_grow
    >>> layer = keras_grow.GrowableDense(4096, initial_density=0.01)
    >>> layer.build((None, 4096))
    >>> keras_grow.storages.Rule(batch_size=1)(layer).words
    'sparse, float32'
    >>> small = keras_grow.GrowableDense(300, initial_density=0.01)
    >>> small.build((None, 784))
    >>> keras_grow.storages.Rule(batch_size=1)(small).words
    'packed, float32'
    """

    batch_size: int = 1

    def __post_init__(self):
        checked_integer(self.batch_size, "batch_size")

    def __call__(self, layer: Growable, dtype: str | None = None) -> ServedKernel:
        if _can_be_sparse(layer):
            is_too_large = layer.is_sparse and layer.num_connections > _LARGEST_DENSE
            if is_too_large or 1.5 * self._sparse_time(layer) < self._dense_time(layer):
                return SparseKernel(layer, dtype)
        return Smallest()(layer, dtype)

    def _dense_time(self, layer: Growable) -> float:
        connections, batch_size = layer.num_connections, self.batch_size
        share = min(1.0, max(0.0, (math.log2(connections) - 20) / 3)) if connections else 0.0
        one_row = (0.02 + 0.08 * share) * connections
        return max(one_row, 0.0095 * batch_size * connections if batch_size > 1 else 0.0)

    def _sparse_time(self, layer: Growable) -> float:
        active, batch_size = layer.num_active, self.batch_size
        if batch_size == 1:
            return 60_000 + 0.3 * (1.5 * active + 8 * layer.kernel_shape[-1])
        is_in_cache = batch_size * layer.fan_in <= 2**21
        return 60_000 + (11.5 + (0.07 if is_in_cache else 0.5) * batch_size) * active


def _can_be_sparse(layer: Growable) -> bool:
    return not isinstance(layer, ConvLike) and len(layer.kernel_shape) == 2


def _check_fits_dense(layer: Growable, storage: Storage) -> None:
    if layer.num_connections > _MOST_CONNECTIONS:
        raise ValueError(
            f"{type(storage).__name__}() serves a layer with a dense kernel, which can have 2^31 "
            f"connections at most. Received: layer {layer.name!r} with {layer.num_connections:,}. "
            "Expected keras_grow.storages.Sparse() for it."
        )
