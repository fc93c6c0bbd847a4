"""What Hebb's rule means in an embedding, whose inputs are tokens."""

import keras
import numpy as np
import tensorflow as tf

import keras_grow


def test_a_tokens_gradient_is_the_sum_of_output_gradients_where_it_stands():
    keras.utils.set_random_seed(0)
    tokens = keras.Input((5,), dtype="int32")
    table = keras_grow.GrowableKernels(
        keras.layers.Embedding(7, 3), initial_density=0.5, seed=1, name="table"
    )
    embedded = table(tokens)
    outputs = keras.layers.Dense(2)(keras.layers.Flatten()(embedded))
    model = keras.Model(tokens, outputs)
    behind = keras.Model(embedded, outputs)
    model.compile("sgd", "mse")
    random = np.random.default_rng(0)
    # Token 6 stands nowhere.
    x, y = random.integers(0, 6, (8, 5)), random.normal(size=(8, 2)).astype("float32")
    with tf.GradientTape() as tape:
        looked_up = tf.convert_to_tensor(table(x))
        tape.watch(looked_up)
        loss = tf.reduce_mean((behind(looked_up) - y) ** 2)
    expected = np.zeros((7, 3), "float32")
    np.add.at(expected, x, tape.gradient(loss, looked_up).numpy())
    (kernel,) = table.masked_kernels
    found = keras_grow.growth_gradients(model, (x, y))[kernel]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)
    assert not found.numpy()[6].any()
    record = keras_grow.grow(model, (x, y), count=4, layers=["table/embeddings"])
    assert not np.isin(record.layers[0].indices // 3, [6]).any()
