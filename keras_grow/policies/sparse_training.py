"""Sparse training: published ways to drop connections and grow as many, as objects.

Each says by which scores connections go and come; `keras_grow.drop_and_grow` does the rest. What
else the papers do, such as the density of each layer, or a schedule, is said where it is given:

```python
model.fit(
    x,
    y,
    epochs=100,
    callbacks=[
        keras_grow.DropAndGrowCallback(
            (x_grow, y_grow),
            fraction=keras.optimizers.schedules.CosineDecay(0.3, 75),
            method=keras_grow.sparse_training.RigL(),
        )
    ],
)
```
"""

from collections.abc import Callable

from keras_grow.policies.scores import (
    GradientMagnitude,
    LinkPrediction,
    Magnitude,
    Random,
    Score,
    SignedMagnitude,
    Soft,
)
from keras_grow.policies.start_values import StartValue, Zero
from keras_grow.policies.statistics import TopologyStatistic


class Method:
    """What drops and what grows; write your own with scores of your choice.

    Args:
        drop: what ranks active connections: those of smallest score go.
        grow: what ranks dormant ones, those just dropped among them: those of largest score come.
        start_value: what grown connections start with, by default `start_values.Zero()`.
        share: what ranks layers: each grows its share of all connections that were dropped, in
            proportion to the mean of this score over its active connections. By default each layer
            grows as many as it dropped.
    """

    def __init__(
        self,
        drop: Score,
        grow: Score,
        *,
        start_value: StartValue | None = None,
        share: Score | None = None,
    ):
        self.drop, self.grow, self.share = drop, grow, share
        self.start_value = Zero() if start_value is None else start_value
        for name, kind in (("drop", Score), ("grow", Score), ("start_value", StartValue)):
            if not isinstance(getattr(self, name), kind):
                raise TypeError(
                    f"`{name}` must be a {kind.__name__}. Received: {getattr(self, name)!r}"
                )
        if share is not None and not isinstance(share, Score):
            raise TypeError(f"`share` must be a Score, or None. Received: {share!r}")

    @property
    def policies(self) -> list[Score | StartValue]:
        """All that it is made of."""
        of_layers = [] if self.share is None else [self.share]
        return [self.drop, self.grow, self.start_value, *of_layers]


class SET(Method):
    """The weights nearest to 0 of each sign go, and connections come at random.

    Args:
        seed: non-negative integer, of the draw.
        start_value: see `Method`; the paper draws new weights as at the start.

    Reference: Mocanu et al., "Scalable training of artificial neural networks with adaptive sparse
    connectivity inspired by network science", arXiv:1707.04780, algorithm 2.
    """

    def __init__(self, seed: int = 0, *, start_value: StartValue | None = None):
        super().__init__(SignedMagnitude(), Random(seed), start_value=start_value)


class RigL(Method):
    """The smallest weights go, and connections of the largest gradient come, at 0.

    Reference: Evci et al., "Rigging the Lottery: Making All Tickets Winners", arXiv:1911.11134,
    algorithm 1.
    """

    def __init__(self):
        super().__init__(Magnitude(), GradientMagnitude())


class SNFS(Method):
    """As RigL, where layers of large gradients grow more than they drop.

    The paper ranks by gradients that are averaged exponentially in training, of dormant connections
    too, which needs memory for all of them; here it is the mean gradient over the growth data.

    Reference: Dettmers, Zettlemoyer, "Sparse Networks from Scratch: Faster Training without Losing
    Performance", arXiv:1907.04840, algorithm 1.
    """

    def __init__(self):
        super().__init__(Magnitude(), GradientMagnitude(), share=GradientMagnitude())


class GraNet(Method):
    """RigL in a network that is pruned by and by: give `density` as a schedule.

    `drop_and_grow(..., density=...)` first prunes to the density, over all layers by magnitude,
    then drops and grows within each layer. The paper's schedule falls with the third power:
    `keras.optimizers.schedules.PolynomialDecay(0.5, epochs, end_learning_rate=0.1, power=3)`.

    Reference: Liu et al., "Sparse Training via Boosting Pruning Plasticity with Neuroregeneration",
    arXiv:2106.10404, algorithm 1.
    """

    def __init__(self):
        super().__init__(Magnitude(), GradientMagnitude())


class CannistraciHebb(Method):
    """What the topology lacks comes, without a gradient: epitopological learning.

    Args:
        predictor: `keras_grow.statistics.CH2L3n()`, the default, or `CH3L3p()`.
        drop: what ranks active connections, by default `scores.Magnitude()`; the papers also take
            `scores.RelativeImportance()`.
        is_soft: whether both halves are drawn in proportion to their scores (CHTs), else ranked
            (CHT).
        sharpness: with `is_soft`, the exponent of what is dropped: a number or a callable of the
            optimizer's step; the paper's goes from 1 to 3.
        seed: non-negative integer, of the draws.

    Reference: Zhang et al., "Epitopological learning and Cannistraci-Hebb network shape
    intelligence brain-inspired theory for ultra-sparse advantage in deep learning", ICLR 2024
    (CHT); "Brain network science modelling of sparse neural networks enables Transformers and LLMs
    to perform as fully connected", arXiv:2501.19107 (CHTs).
    """

    def __init__(
        self,
        predictor: TopologyStatistic | None = None,
        *,
        drop: Score | None = None,
        is_soft: bool = True,
        sharpness: float | Callable[[int], float] = 1.0,
        seed: int = 0,
    ):
        drop = Magnitude() if drop is None else drop
        grow: Score = LinkPrediction(predictor)
        if is_soft:
            # The draws of the two halves must not hang on each other.
            drop, grow = Soft(drop, sharpness, seed=2 * seed), Soft(grow, seed=2 * seed + 1)
        super().__init__(drop, grow)
