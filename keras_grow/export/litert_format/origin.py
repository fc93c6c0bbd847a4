"""Which constants of a LiteRT file were made of which layer's kernel."""

import numpy as np

from keras_grow.export.inference import Inference
from keras_grow.export.litert_format.constants import Constant, StoredConstant
from keras_grow.layers.paths import paths_of


def by_layer(inference: Inference, packed: list[StoredConstant]) -> dict[str, list[StoredConstant]]:
    """The constants that were made of each growable layer's kernel, by the layer's path.

    Recognized by their values: the converter leaves no name that could be trusted.
    """
    paths = paths_of(inference.model, inference.layers)
    kernels = [layer.effective_kernel().numpy() for layer in inference.layers]
    return {
        path: [each for each in packed if _is_made_of(each.constant, kernel)]
        for path, kernel in zip(paths, kernels, strict=True)
    }


def _is_made_of(constant: Constant, kernel: np.ndarray) -> bool:
    """Whether a constant of the file is a layer's kernel.

    Its axes are in LiteRT's order. The converter folds a batch normalization before or behind a
    layer into its kernel, and multiplies inputs or units with it: zeros stay where they are.
    """
    axis, values = constant.unit_axis, constant.values
    if values.size != kernel.size or values.shape[axis] != kernel.shape[-1]:
        return False
    kernel = np.moveaxis(kernel, -1, axis).reshape(values.shape)
    in_file, in_layer = values != 0, kernel != 0
    if not in_layer.all():
        # In int8, the smallest weights become 0.
        common, either = np.sum(in_file & in_layer), np.sum(in_file | in_layer)
        return bool(common >= 0.9 * either)
    return bool(np.max(np.abs(_profile(values, axis) - _profile(kernel, axis))) < 0.01)


def _profile(values: np.ndarray, axis: int) -> np.ndarray:
    """Absolute values relative to the largest of each unit."""
    magnitudes = np.abs(values.astype(np.float32))
    others = tuple(i for i in range(values.ndim) if i != axis)
    return magnitudes / magnitudes.max(axis=others, keepdims=True)
