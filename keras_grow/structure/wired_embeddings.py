"""How embeddings are wired, those that make words of units again among them."""

import dataclasses

import numpy as np

from keras_grow.structure.wirings import OUTPUT, Axis, Between, Layout, Wiring


class Embedding(Wiring):
    """A table whose rows are looked up."""

    def inputs(self, layer, names, options):
        return {}

    def kernels(self, layer):
        layout: Layout = ((layer.input_dim,), (OUTPUT,))
        return [Between("embeddings", (layer.input_dim,), (OUTPUT,), layout, positions=None)]

    def changes(self, layer, counts):
        return {"output_dim": counts[OUTPUT]} if OUTPUT in counts else {}

    def constants(self, layer, kernels, given):
        (kernel,) = kernels.values()
        return {OUTPUT: kernel.outputs_of(np.full(layer.input_dim, np.nan))}


class ReversibleEmbedding(Embedding):
    """A table whose rows are looked up and, with `reverse=True`, multiply what a call is given."""

    def inputs(self, layer, names, options):
        return {OUTPUT: 0} if options.get("reverse") else {}

    def outputs(self, layer, options, count):
        return [None] if options.get("reverse") else [OUTPUT]

    def kernels(self, layer):
        (table,) = super().kernels(layer)
        words: Axis = (layer.input_dim,)
        if layer.tie_weights:
            return [
                table,
                dataclasses.replace(
                    table, reads=(OUTPUT,), makes=words, is_reversed=True, positions=OUTPUT
                ),
            ]
        return [table, Between("reverse_embeddings", (OUTPUT,), words, ((OUTPUT,), words))]

    def in_call(self, layer, options):
        table, reverse = self.kernels(layer)
        return [reverse] if options.get("reverse") else [table]

    def constants(self, layer, kernels, given):
        table = kernels.get("embeddings")
        return (
            {}
            if table is None or OUTPUT in given
            else super().constants(layer, {"embeddings": table}, given)
        )
