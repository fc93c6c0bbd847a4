"""The formats of exports as objects with their options; each is one file, and one line here.

`check_file` tells an export that is damaged from one that is whole.

`keras_grow.measure` measures what is here, and the tests hold it to the contract.
"""

from keras_grow.export.digest import check_file as check_file
from keras_grow.export.litert import LiteRT as LiteRT
from keras_grow.export.onnx import ONNX as ONNX
from keras_grow.export.pipeline import Format as Format
from keras_grow.export.saved_model import SavedModel as SavedModel

FORMATS: tuple[type[Format], ...] = tuple(
    value
    for value in list(globals().values())
    if isinstance(value, type) and issubclass(value, Format) and value is not Format
)
__all__ = ["FORMATS", "Format", "check_file", *(kind.__name__ for kind in FORMATS)]
