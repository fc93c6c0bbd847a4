import inspect
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest

import keras_grow

_SHAPES = ("Dense", "Conv1D", "Conv2D")


def _public_objects():
    for name in keras_grow.__all__:
        thing = getattr(keras_grow, name)
        if inspect.ismodule(thing):
            for inner_name, inner in vars(thing).items():
                is_own = str(getattr(inner, "__module__", "")).startswith(thing.__name__)
                is_public = is_own or inner_name in getattr(thing, "__all__", ())
                is_error = inspect.isclass(inner) and issubclass(inner, Exception)
                is_named = callable(inner) and not is_error and not inner_name.startswith("_")
                if is_public and is_named:
                    yield f"{name}.{inner_name}", inner
        elif name != "__version__":
            yield name, thing


@pytest.mark.parametrize(("name", "thing"), _public_objects())
def test_a_public_name_has_a_docstring_that_names_every_argument(name, thing):
    documented = inspect.getdoc(thing) or ""
    assert len(documented) > 30
    signature = inspect.signature(thing)
    arguments = [a for a in signature.parameters if a not in ("self", "args", "kwargs")]
    missing = [a for a in arguments if a not in documented]
    assert not missing


def test_all_lists_the_public_names_in_order_and_no_other_is_public():
    assert keras_grow.__all__ == sorted(keras_grow.__all__)
    public = {n for n, v in vars(keras_grow).items() if not n.startswith("_")}
    modules = {n for n in public if inspect.ismodule(getattr(keras_grow, n))}
    assert public - modules == set(keras_grow.__all__) - modules - {"__version__"}


def test_another_backend_than_tensorflow_is_refused_in_a_sentence():
    # Other backends need not be installed here: Keras is told that it runs on one.
    code = (
        "import keras; keras.backend.backend = lambda: 'jax'\n"
        "try:\n    import keras_grow\nexcept ImportError as error:\n    print(error)"
    )
    printed = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    assert "Received: KERAS_BACKEND='jax'" in printed
    assert 'KERAS_BACKEND="tensorflow"' in printed


def test_a_model_of_tf_keras_is_refused_by_name():
    tf_keras_model = type("Sequential", (), {"__module__": "tf_keras.src.engine.sequential"})()
    data = (np.zeros((1, 2)), np.zeros((1, 1)))
    for call in (
        keras_grow.report,
        keras_grow.make_growable,
        keras_grow.make_plain,
        lambda model: keras_grow.grow(model, data, count=1),
        lambda model: keras_grow.prune(model, count=1),
        lambda model: keras_grow.export_saved_model(model, "nowhere"),
    ):
        with pytest.raises(TypeError, match="tf_keras, that is Keras 2"):
            call(tf_keras_model)


def test_nothing_imports_the_callbacks_but_the_course_and_the_public_face():
    root = pathlib.Path(keras_grow.__file__).parent
    for path in root.rglob("*.py"):
        if path.parent.name != "callbacks" and path.name not in ("__init__.py", "synthesis.py"):
            assert "keras_grow.callbacks" not in path.read_text(), path


def test_keras_finds_the_layers_by_their_registered_names():
    layers = [f"{kind}{shape}" for kind in ("Growable", "WeightNorm") for shape in _SHAPES]
    for name in (*layers, "SparseDense", "ActiveFanIn"):
        found = keras.saving.get_registered_object(f"keras_grow>{name}")
        assert found is getattr(keras_grow, name)
