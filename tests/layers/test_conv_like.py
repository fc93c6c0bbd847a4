"""Shapes of convolutions, and what is refused of them."""

import keras
import numpy as np
import pytest

from keras_grow import GrowableConv1D, GrowableConv2D


@pytest.mark.parametrize("size", [1, 2])
@pytest.mark.parametrize("axis", [1, 2])
def test_inputs_smaller_than_the_window_are_refused(size, axis):
    shape = [None, 5, 5, 1]
    shape[axis] = size
    layer = GrowableConv2D(2, 3, name="small")
    with pytest.raises(ValueError, match="'small' has no position in its inputs"):
        layer.build(tuple(shape))
    with pytest.raises(ValueError, match="no position in its inputs"):
        layer.compute_output_shape((None, *shape[1:3], 1))
    GrowableConv2D(2, 3, padding="same").build(tuple(shape))


def test_sizes_that_are_not_known_are_taken():
    assert GrowableConv2D(2, 3).compute_output_shape((None, None, 7, 3)) == (None, None, 5, 2)


@pytest.mark.parametrize("name", ["kernel_size", "strides", "dilation_rate"])
@pytest.mark.parametrize("sizes", [(3,), (3, 3, 3), (3, 0), (0, 3), (3, None), -1, "three"])
def test_sizes_must_be_positive_one_for_each_axis(name, sizes):
    with pytest.raises(ValueError, match=name):
        GrowableConv2D(**{"filters": 2, "kernel_size": 3, name: sizes})


@pytest.mark.parametrize(("strides", "dilation"), [((2, 1), (1, 2)), ((1, 2), (2, 1)), (3, 3)])
def test_strides_and_dilation_do_not_go_together(strides, dilation):
    with pytest.raises(ValueError, match="dilation_rate"):
        GrowableConv2D(2, 3, strides, dilation_rate=dilation)
    GrowableConv2D(2, 3, strides)
    GrowableConv2D(2, 3, dilation_rate=dilation)


@pytest.mark.parametrize("rank", [1, 2])
def test_inputs_of_another_rank_are_refused(rank):
    layer = (GrowableConv1D if rank == 1 else GrowableConv2D)(2, 1)
    layer.build((None, *[5] * rank, 3))
    assert layer.input_spec.ndim == rank + 2
    for other in (rank - 1, rank + 1):
        with pytest.raises(ValueError, match="ndim|rank"):
            layer(np.ones((2, *[5] * other, 3)))


def test_by_default_a_window_moves_by_one_undilated_and_unpadded():
    ours, kerass = GrowableConv2D(2, 3).get_config(), keras.layers.Conv2D(2, 3).get_config()
    names = ("strides", "padding", "dilation_rate", "groups", "activation", "use_bias")
    assert [ours[name] for name in names] == [kerass[name] for name in names]


@pytest.mark.parametrize("dilation", [1, 2, 3])
@pytest.mark.parametrize("window", [1, 2, 4])
def test_causal_outputs_hang_on_nothing_that_comes_later(dilation, window):
    layer = GrowableConv1D(2, window, padding="causal", dilation_rate=dilation)
    x = np.random.default_rng(0).normal(size=(1, 9, 3)).astype("float32")
    whole = np.asarray(layer(x))
    later = x.copy()
    later[:, 5:] += 1
    outputs = np.asarray(layer(later))
    np.testing.assert_array_equal(outputs[:, :5], whole[:, :5])
    assert np.all(outputs[:, 5] != whole[:, 5])
    kerass = keras.layers.Conv1D(2, window, padding="causal", dilation_rate=dilation)
    kerass.build(x.shape)
    kerass.kernel.assign(layer.kernel)
    np.testing.assert_allclose(kerass(x), whole, rtol=1e-5, atol=1e-6)
