import pathlib
import re

import keras
import numpy as np
import tensorflow as tf

README = pathlib.Path(__file__).parent.parent / "README.md"


def test_the_code_in_the_readme_runs_as_it_stands(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    x = np.random.default_rng(0).random((200, 784), "float32")
    names = {"x": x, "y": np.arange(200) % 10}
    for block in blocks:
        exec(block, names)
    assert len(blocks) == 8
    assert "in all" in capsys.readouterr().out
    model = names["model"]
    assert isinstance(model, keras.Sequential)
    quantized = keras.models.load_model("small.keras")
    assert {layer.quantization_mode for layer in quantized.layers} == {"int8"}
    loaded = tf.saved_model.load("grown")
    assert loaded.serve(x)[model.layers[-1].name].shape == (200, 10)
