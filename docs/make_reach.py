"""Writes what_grows.md: of published networks, and of such as people build, what share can grow.

    python docs/make_reach.py

Networks of keras.applications have their published sizes; others are small, as they are in the
tests (tests/zoo/backbones.py), which also prune, grow, convert and export each of them.
"""

import pathlib

import keras

import keras_grow
from tests.zoo import backbones

FILE = pathlib.Path(__file__).parent / "what_grows.md"
HEAD = """\
# What of a network can grow

`keras_grow.plan_conversion(model)` says it of any model: how many of the weights in variables of
two axes and more (kernels and embeddings, not biases or what normalizes) become growable, and what
is left. Every network below is pruned to 20% and grown by the gradient to 30% in a line each by
`tests/zoo/test_backbones.py`, and computes the same after `make_growable`, `make_plain` and, where
the format has operators for its layers, each export. `python docs/make_reach.py` makes this table.

| network | weights | can grow | left |
| --- | ---: | ---: | --- |
"""


def row(name: str, model: keras.Model) -> str:
    """A line of the table."""
    plan = keras_grow.plan_conversion(model)
    left = ", ".join(f"`{path}`" for path in plan.left)
    return f"| {name} | {plan.num_weights:,} | {plan.share:.2%} | {left} |\n"


def main() -> None:
    """Writes the file."""
    rows = [row(name, make()[0]) for name, make in backbones.OWN.items()]
    for name in backbones.APPLICATION_CLASSES.values():
        rows.append(row(name, getattr(keras.applications, name)(weights=None)))
        keras.utils.clear_session()
    rows += [row(f"{name}, small", make()[0]) for name, make in backbones.HUB.items()]
    FILE.write_text(HEAD + "".join(rows), encoding="utf-8")


if __name__ == "__main__":
    main()
