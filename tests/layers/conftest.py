"""The growable layers that have Dense's arguments, and layers with masks one can read."""

import numpy as np
import pytest

from keras_grow import GrowableDense, WeightNormDense


@pytest.fixture(params=[GrowableDense, WeightNormDense])
def layer_class(request):
    return request.param


@pytest.fixture
def literal(layer_class):
    """Function: a layer with the given kernel (`None` is dormant), and no bias."""

    def make(kernel):
        mask = np.array([[weight is not None for weight in row] for row in kernel])
        kernel = np.array([[0.0 if weight is None else weight for weight in row] for row in kernel])
        layer = layer_class(mask.shape[1], use_bias=False, initial_density=0.0, name="literal")
        layer.build((None, len(mask)))
        indices = np.flatnonzero(mask)
        layer.grow_connections(indices, kernel.flat[indices])
        return layer

    return make
