"""Other numbers for every test: `pytest --seed N` moves each seed that a test writes down."""

import pathlib
import sys

import keras
import numpy as np

_TESTS = str(pathlib.Path(__file__).parent)
# Further than seeds that tests count up lie apart.
_STRIDE = 1_000_003
_make_generator, _set_keras_seed = np.random.default_rng, keras.utils.set_random_seed


def move_seeds(by: int) -> None:
    """Moves seeds given to NumPy's generators and to Keras, if a test gives them.

    What the package draws with seeds of its own stays, and so do seeds that are arguments of
    layers, initializers and scores.
    """

    def default_rng(seed=None):
        is_of_a_test = isinstance(seed, int) and _is_a_test(sys._getframe(1))
        return _make_generator(seed + by * _STRIDE if is_of_a_test else seed)

    def set_random_seed(seed):
        _set_keras_seed(seed + by * _STRIDE if _is_a_test(sys._getframe(1)) else seed)

    np.random.default_rng, keras.utils.set_random_seed = default_rng, set_random_seed


def _is_a_test(frame):
    return frame.f_code.co_filename.startswith(_TESTS)
