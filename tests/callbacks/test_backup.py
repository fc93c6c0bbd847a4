"""A training that is killed around its backups goes on as if nothing had been."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_grow


class _Killed(BaseException):
    """What nothing catches."""


class _Writes:
    """Lets a process die before, in the middle of, or after the n-th of some calls."""

    def __init__(self, monkeypatch, last, moment):
        self._left, self._moment = last, moment
        for owner, name in (
            (keras.Model, "save_weights"),
            (tf.io.gfile, "rename"),
            (tf.io.gfile, "remove"),
            (tf.io.gfile, "rmtree"),
        ):
            monkeypatch.setattr(owner, name, self._deadly(getattr(owner, name)))

    def _deadly(self, call):
        def one(*arguments, **keywords):
            self._left -= 1
            if self._left == 0 and self._moment == "before":
                raise _Killed
            call(*arguments, **keywords)
            if self._left == 0:
                path = next((x for x in arguments if str(x).endswith(".h5")), None)
                path = keywords.get("filepath", path)
                if self._moment == "within" and path is not None:
                    with open(path, "r+b") as file:
                        file.truncate(500)
                raise _Killed

        return one


def _model():
    keras.utils.set_random_seed(3)
    model = keras.Sequential(
        [
            keras.Input((8,)),
            keras_grow.GrowableDense(16, "relu", initial_density=0.2, seed=1),
            keras_grow.WeightNormDense(3, "softmax", initial_density=0.3, seed=2),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy")
    return model


def _fit(data, folder):
    model = _model()
    model.fit(
        *data,
        epochs=4,
        batch_size=48,
        shuffle=False,
        verbose=0,
        callbacks=[
            keras_grow.GrowthCallback(data, count=5),
            keras_grow.BackupAndRestore(folder),
        ],
    )
    return [*model.get_weights(), *(x.numpy() for x in model.optimizer.variables)]


@pytest.fixture(scope="module")
def left_alone(tmp_path_factory):
    """What comes of a training by its data, made once."""
    ends = []

    def end(data):
        if not ends:
            ends.append(_fit(data, tmp_path_factory.mktemp("whole")))
        return ends[0]

    return end


# Weights are written first, third and sixth; the last is the removal at the end.
@pytest.mark.parametrize(
    ("last", "moment"),
    [
        *((last, moment) for last in (1, 2, 3, 4, 5, 12) for moment in ("before", "after")),
        (1, "within"),
        (3, "within"),
    ],
)
def test_killed_around_a_backup_a_training_ends_the_same(
    blobs, tmp_path, monkeypatch, left_alone, last, moment
):
    expected = left_alone(blobs)
    with monkeypatch.context() as patched:
        _Writes(patched, last, moment)
        with pytest.raises(_Killed):
            _fit(blobs, tmp_path / "killed")
    found = _fit(blobs, tmp_path / "killed")
    for one, other in zip(expected, found, strict=True):
        np.testing.assert_array_equal(one, other)
    assert not list(tmp_path.iterdir())


def test_what_keras_itself_left_is_gone_on_with(blobs, tmp_path):
    model = _model()
    kerass = keras.callbacks.BackupAndRestore(tmp_path / "backup", delete_checkpoint=False)
    model.fit(*blobs, epochs=2, batch_size=48, verbose=0, callbacks=[kerass])
    other = _model()
    ours = keras_grow.BackupAndRestore(tmp_path / "backup", delete_checkpoint=False)
    epochs = other.fit(*blobs, epochs=3, batch_size=48, verbose=0, callbacks=[ours]).epoch
    assert epochs == [2]
    assert sorted(x.name for x in (tmp_path / "backup").iterdir()) == ["0", "latest"]
    # And then with what this one left.
    again = _model()
    assert again.fit(*blobs, epochs=3, batch_size=48, verbose=0, callbacks=[ours]).epoch == []
    for one, same in zip(other.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(one, same)


def test_a_backup_that_is_gone_is_not_passed_over(blobs, tmp_path):
    backup = keras_grow.BackupAndRestore(tmp_path, delete_checkpoint=False)
    _model().fit(*blobs, epochs=3, verbose=0, callbacks=[backup])
    assert sorted(x.name for x in tmp_path.iterdir()) == ["2", "latest"]
    (tmp_path / "2").rename(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match="names '2', which is not there"):
        _model().fit(*blobs, epochs=4, verbose=0, callbacks=[backup])
