"""Derives weight_norm.json with PyTorch 2.13.0 (CPU, float64): python derive_weight_norm.py.

PyTorch stores the weight of a linear layer as (outputs, inputs) and normalises along dim=0, one
norm per output; keras_grow stores (inputs, units). The file has Keras's layout. `x` and the loss's
weights `dy` are fixed literals, and the loss is sum(dy * y).
"""

import json
import pathlib

import torch
from torch.nn.utils.parametrizations import weight_norm

X = [[1.0, -2.0, 0.5, 3.0], [0.25, 0.75, -1.5, -0.5], [-1.0, 2.0, 1.0, 0.0]]
V = [[0.5, -1.0, 2.0], [0.25, 0.0, -0.5], [-1.5, 0.75, 1.0], [1.0, 2.0, -0.125]]
G = [1.5, -0.5, 2.0]
BIAS = [0.1, -0.2, 0.3]
DY = [[1.0, -0.5, 0.25], [0.5, 1.5, -1.0], [-2.0, 0.75, 1.0]]


def _tensor(values):
    return torch.tensor(values, dtype=torch.float64)


def main():
    layer = weight_norm(torch.nn.Linear(4, 3, dtype=torch.float64), dim=0)
    g, v = layer.parametrizations.weight.original0, layer.parametrizations.weight.original1
    with torch.no_grad():
        v.copy_(_tensor(V).T)
        g.copy_(_tensor(G)[:, None])
        layer.bias.copy_(_tensor(BIAS))
    y = layer(_tensor(X))
    (_tensor(DY) * y).sum().backward()
    golden = {
        "torch": torch.__version__.split("+")[0],
        "x": X,
        "v": V,
        "g": G,
        "bias": BIAS,
        "dy": DY,
        "w": layer.weight.T.tolist(),
        "y": y.tolist(),
        "dv": v.grad.T.tolist(),
        "dg": g.grad[:, 0].tolist(),
        "dbias": layer.bias.grad.tolist(),
    }
    lines = [f'  "{name}": {json.dumps(value)}' for name, value in golden.items()]
    path = pathlib.Path(__file__).with_name("weight_norm.json")
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()
