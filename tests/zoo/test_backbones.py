"""Of models as they are published, nearly all weights grow, and every way out computes the same."""

import keras
import numpy as np
import pytest

import keras_grow
from tests.quick import among
from tests.zoo.backbones import BACKBONES

# Tables that stand for places, and what is added to inputs: no layer multiplies by them.
_NAMED = ("position", "class_token")
# What the formats can't express, whatever is in the kernels.
_NOT_EXPRESSED = {
    "export_litert": ("bidirectional tagger", "lstm classifier", "video", "Gemma", "Llama 3"),
}


def _loss(model, x, y, sample_weight):
    outputs = keras.tree.flatten(model(x, training=True))
    return sum(keras.ops.mean(keras.ops.square(output - 1.0)) for output in outputs)


def _outputs(model, x):
    return [np.asarray(output) for output in keras.tree.flatten(model(x, training=False))]


def _assert_same(ours, theirs):
    for mine, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-4, atol=1e-5 * np.abs(other).max())


@pytest.mark.parametrize(
    "make",
    among(
        BACKBONES,
        quick=("text transformer", "lstm classifier", "u net", "recommender", "MobileNetV2", "ViT"),
    ),
)
def test_it_is_pruned_and_grown_in_a_line_each_and_computes_the_same_in_every_form(make):
    keras.utils.set_random_seed(1)
    model, x = make()
    plan = keras_grow.plan_conversion(model)
    left = [path for path in plan.left if not any(name in path for name in _NAMED)]
    assert left == []
    growable = keras_grow.make_growable(model, verify=x)
    _assert_same(_outputs(growable, x), _outputs(model, x))
    assert keras_grow.report(growable).num_connections == plan.num_reached
    keras_grow.prune(growable, density=keras_grow.densities.ErdosRenyi(0.2))
    # Each kernel's count is a whole number.
    slack = len(keras_grow.report(growable).layers) / plan.num_reached
    assert keras_grow.report(growable).density == pytest.approx(0.2, abs=slack)
    y = np.zeros(len(keras.tree.flatten(x)[0]), "float32")
    meter = keras_grow.GradientMeter(loss=_loss)
    keras_grow.grow(growable, (x, y), density=0.3, meter=meter)
    report = keras_grow.report(growable)
    assert report.density == pytest.approx(0.3, abs=slack)
    assert report.reach == plan.share
    plain = keras_grow.make_plain(growable, verify=x)
    _assert_same(_outputs(plain, x), _outputs(growable, x))
    again = keras_grow.make_growable(plain, zeros_are_dormant=True, verify=x)
    # What has grown at 0 is dormant again, until it is trained.
    assert keras_grow.report(again).density == pytest.approx(0.2, abs=slack)


@pytest.mark.slow
@pytest.mark.parametrize(
    "export",
    [keras_grow.export_saved_model, keras_grow.export_litert, keras_grow.export_onnx],
    ids=lambda export: export.__name__,
)
@pytest.mark.parametrize("name", BACKBONES)
def test_its_file_computes_the_same(name, export, tmp_path):
    keras.utils.set_random_seed(1)
    model, x = BACKBONES[name]()
    growable = keras_grow.make_growable(model, initial_density=0.5, seed=0, verify=False)
    if name in _NOT_EXPRESSED.get(export.__name__, ()):
        with pytest.raises(ValueError, match="can't express the model|can't run the file"):
            export(growable, tmp_path / "grown", data=(x,))
        return
    record = export(growable, tmp_path / "grown", data=(x,), tolerance=1e-4)
    assert record.error <= 1e-4
