"""BackupAndRestore: a training that was killed at any moment goes on as if nothing had been."""

import os

import tensorflow as tf

from keras_grow.callbacks.scheduled import take_back
from keras_grow.keras_private import BackupIn

_LATEST = "latest"


class BackupAndRestore(BackupIn):
    """`keras.callbacks.BackupAndRestore`, whose backups are there whole or not at all.

    Keras's own writes weights over the earlier ones, and then which epoch they are of. Killed in
    between, a training goes on with the weights of one epoch and the number of another, without a
    word; killed while it writes weights, or removes them at the end, it goes on not at all, or is
    over with the weights of its begin. Here each backup has a folder of its own, and becomes the
    latest in one step.

    Connections, neurons and the state of the optimizer are part of the weights, and schedules are
    functions of the epoch or step: what grows goes on as it would have. Not restored are
    generators of random numbers whose seeds Keras's files don't hold, such as that of Dropout.

    Put it last: what callbacks behind it write at the end of an epoch, such as the rows of a
    CSVLogger, is missing where the training was killed in between.

    Backups are made at the ends of epochs. Of one made within, the epoch would be begun anew, and
    what is due at its begin would happen twice.

    Args:
        backup_dir: the folder of the backups, of this training alone. One in which Keras's own left
            a backup is gone on with.
        delete_checkpoint: whether `backup_dir` is removed at the end of the training.

    Raises:
        ValueError: at the begin of a training, where the latest backup is not there, as somebody
            removed it.

    Example:

    ```python
    backup = keras_grow.BackupAndRestore("backup")
    model.fit(x, y, epochs=100, callbacks=[growth, backup])  # Again, where it was killed.
    ```
    """

    def __init__(self, backup_dir: str | os.PathLike, *, delete_checkpoint: bool = True):
        super().__init__(os.fspath(backup_dir), delete_checkpoint=delete_checkpoint)
        self._pointer = os.path.join(self.backup_dir, _LATEST)

    def backup(self):
        # Callbacks that stand behind this one have not done so yet.
        take_back(self.model)
        earlier = self._latest()
        number = "0" if earlier is None else str(int(earlier) + 1)
        folder = os.path.join(self.backup_dir, number)
        # One that was killed may have left a part of it.
        _remove(folder)
        tf.io.gfile.makedirs(folder)
        self.write_backup(folder)
        unfinished = f"{self._pointer}.unfinished"
        with tf.io.gfile.GFile(unfinished, "w") as file:
            file.write(number)
        tf.io.gfile.rename(unfinished, self._pointer, overwrite=True)
        for name in tf.io.gfile.listdir(self.backup_dir):
            if name.rstrip("/") not in (number, _LATEST):
                _remove(os.path.join(self.backup_dir, name))

    def restore(self):
        latest = self._latest()
        if latest is not None and not tf.io.gfile.exists(os.path.join(self.backup_dir, latest)):
            raise ValueError(
                f"A backup is not where it should be. Received: backup_dir={self.backup_dir!r}, "
                f"whose file {_LATEST!r} names {latest!r}, which is not there. Remove the folder "
                "to begin anew."
            )
        self.read_backup(os.path.join(self.backup_dir, latest or ""))

    def on_train_end(self, logs=None):
        if self.delete_checkpoint and tf.io.gfile.exists(self._pointer):
            # First, lest a part of a backup be taken for one.
            tf.io.gfile.remove(self._pointer)
        super().on_train_end(logs)

    def _latest(self) -> str | None:
        if not tf.io.gfile.exists(self._pointer):
            return None
        with tf.io.gfile.GFile(self._pointer) as file:
            return file.read()


def _remove(path: str) -> None:
    if tf.io.gfile.isdir(path):
        tf.io.gfile.rmtree(path)
    elif tf.io.gfile.exists(path):
        tf.io.gfile.remove(path)
