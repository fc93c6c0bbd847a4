"""Weights drawn one by one are those of a dense kernel's distribution."""

import keras
import numpy as np
import pytest

from keras_grow.kernel_axes import KernelAxes
from keras_grow.layers.initializers import draw

_SCALING = {
    f"{mode}, {distribution}": keras.initializers.VarianceScaling(2.0, mode, distribution, seed=0)
    for mode in ("fan_in", "fan_out", "fan_avg")
    for distribution in ("normal", "uniform", "truncated_normal")
}
_OTHERS = {
    "normal": keras.initializers.RandomNormal(0.5, 0.2, seed=0),
    "uniform": keras.initializers.RandomUniform(-1, 3, seed=0),
    "constant": keras.initializers.Constant(4.0),
}


@pytest.mark.parametrize("name", [*_SCALING, *_OTHERS])
def test_mean_deviation_and_largest_are_those_of_the_kernel(name):
    initializer = {**_SCALING, **_OTHERS}[name]
    shape = (100, 400)
    kernel = np.asarray(initializer(shape))
    drawn = np.asarray(draw(initializer, KernelAxes(shape), np.arange(0, 40000, 2), "float32"))
    assert drawn.shape == (20000,)
    # Of 20,000 and 40,000 draws, the deviation of a deviation is below 1%.
    assert drawn.std() == pytest.approx(kernel.std(), rel=0.04)
    assert drawn.mean() == pytest.approx(kernel.mean(), abs=float(0.04 * max(kernel.std(), 1e-3)))
    assert np.abs(drawn).max() == pytest.approx(np.abs(kernel).max(), rel=0.2)


def test_nothing_is_drawn_for_no_connections():
    for initializer in (*_SCALING.values(), *_OTHERS.values()):
        assert draw(initializer, KernelAxes((3, 2)), np.zeros(0, int), "float64").shape == (0,)


def test_what_makes_a_kernel_as_a_whole_is_refused():
    with pytest.raises(ValueError, match="draws weights one by one.*Received: kernel_initializer="):
        draw(keras.initializers.Orthogonal(), KernelAxes((3, 2)), np.arange(3), "float32")
