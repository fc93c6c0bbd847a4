"""Random models, compacted and exported in every format, compute what they did."""

import pytest

from keras_grow import compact, formats
from keras_grow.areas import PartialAreaConv2D
from keras_grow.layers.paths import nested_layers
from tests.random_models import difference, inputs_of, random_model


def _check_exports(model, folder):
    x = inputs_of(model)
    expected = model(x)
    has_partial_areas = any(isinstance(layer, PartialAreaConv2D) for layer in nested_layers(model))
    for kind in formats.FORMATS:
        for name, source in (("source", model), ("compact", compact(model).model)):
            form = kind()
            is_known = not has_partial_areas or kind not in (formats.LiteRT, formats.ONNX)
            if not is_known:
                with pytest.raises(ValueError, match="LiteRT can't express|ONNX Runtime can't run"):
                    form.export(source, folder / name)
                continue
            record = form.export(source, folder / f"{form.name}-{name}")
            assert record.error < 1e-5
            outputs = form.open(record.path)({model.inputs[0].name: x})
            ordered = [outputs[name] for name in model.output_names]
            assert difference(ordered, expected) < 1e-5


# An odd seed draws a network on images, an even one on vectors.
@pytest.mark.parametrize("seed", range(2))
def test_a_random_model_is_exported_in_every_format(seed, tmp_path):
    _check_exports(random_model(seed), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2, 40))
def test_a_random_model_is_exported_in_every_format_at_length(seed, tmp_path):
    _check_exports(random_model(seed), tmp_path)
