"""The sides of an attention: what it is given, what it computes beside its kernels, its scale."""

import keras
import numpy as np
import pytest
from keras import layers

from keras_grow.structure.wired_layers import wiring_for


def _attention(**options):
    arguments = {"num_heads": 4, "key_dim": 3, "value_dim": 5, **options}
    layer = layers.MultiHeadAttention(**arguments)
    layer.build((None, 6, 8), (None, 7, 9))
    return layer, wiring_for(layer)


def _grouped():
    layer = layers.GroupQueryAttention(3, 6, 2)
    layer.build((None, 6, 8), (None, 7, 8))
    return layer, wiring_for(layer)


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (("query", "value"), {"query": 0, "value": 1, "key": 1}),
        (("query", "value", "key"), {"query": 0, "value": 1, "key": 2}),
        (("query", "key", "value"), {"query": 0, "key": 1, "value": 2}),
        (("query",), {}),
        (("query", "query_mask"), {}),
    ],
)
def test_keys_are_the_values_where_nothing_else_is_given(names, found):
    layer, wiring = _attention()
    assert wiring.inputs(layer, names, {}) == found


@pytest.mark.parametrize(("make", "sizes"), [(_attention, (12, 20)), (_grouped, (18, 18))])
def test_each_query_meets_each_key_and_weighs_each_value(make, sizes):
    layer, wiring = make()
    shapes = {"query": (None, 6, 8), "key": (None, 7, 9), "value": (None, 7, 9)}
    counts = {"heads": 4, "key_size": 3, "value_size": 5, "size": 3}
    if make is _grouped:
        counts["heads"] = 2
    products = wiring.products(layer, shapes)
    for product, size in zip(products, sizes, strict=True):
        axis = [each if isinstance(each, int) else counts[each] for each in product.axis]
        assert np.prod(axis) == size
        assert (product.positions, product.window, product.has_weights) == (42, 1, False)


@pytest.mark.parametrize("is_grouped", [False, True])
def test_scores_are_divided_by_the_root_of_another_size(is_grouped):
    if is_grouped:
        layer, wiring = _grouped()
        copy = layers.GroupQueryAttention(2, 6, 2)
        copy.build((None, 6, 8), (None, 7, 8))
    else:
        layer, wiring = _attention()
        copy, _ = _attention(key_dim=2)
    scales = wiring.scales(layer, copy)
    assert len(scales) == 2
    assert all("query" in name for name in scales)
    np.testing.assert_allclose(list(scales.values()), np.sqrt(2 / 3))
    assert wiring.scales(layer, layer) == {}


def test_heads_of_queries_that_share_keys_are_counted_apart():
    layer, wiring = _grouped()
    makes = {each.attribute: each.makes for each in wiring.kernels(layer)}
    query, key = (next(v for k, v in makes.items() if name in k) for name in ("query", "key"))
    assert query == ("heads", 3, "size")
    assert key == ("heads", "size")
    changes = wiring.changes(layer, {"heads": 1, "size": 2})
    assert changes == {"head_dim": 2, "num_key_value_heads": 1, "num_query_heads": 3}


def test_an_output_of_several_axes_is_not_followed():
    layer, wiring = _attention(output_shape=(2, 4))
    assert wiring.why_not(layer) == "its output has several axes of its own"
    layer, wiring = _attention(output_shape=7)
    assert wiring.why_not(layer) is None
    assert wiring.changes(layer, {"heads": 2})["output_shape"] == 7
    assert keras.ops.shape(layer(np.ones((2, 6, 8)), np.ones((2, 7, 9)))) == (2, 6, 7)
