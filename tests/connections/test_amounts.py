"""What is asked for is repeated where nothing is left to do, or too much is asked."""

import pytest

from keras_grow import densities, grow, prune
from keras_grow.errors import NothingToChange


@pytest.fixture
def full(blobs, classifier):
    """A classifier all of whose 176 connections are active."""
    grow(classifier, blobs, density=1.0)
    return classifier


@pytest.mark.parametrize(
    ("amount", "said"), [({"count": 5}, "count=5"), ({"density": 0.9}, "density=0.9")]
)
def test_there_is_nothing_to_grow(blobs, full, amount, said):
    message = f"There is nothing to grow. Received: {said}, with 176 of 176 connections active"
    with pytest.raises(NothingToChange, match=message):
        grow(full, blobs, **amount)


def test_there_is_nothing_to_prune(classifier):
    with pytest.raises(NothingToChange, match="nothing to prune. Received: density=0.5, with 44"):
        prune(classifier, density=0.5)


@pytest.mark.parametrize("amount", [{}, {"count": 3, "density": 0.5}])
def test_exactly_one_amount_is_asked_for(blobs, classifier, amount):
    with pytest.raises(ValueError, match=r"exactly one of `count` \(connections to grow\)"):
        grow(classifier, blobs, **amount)


def test_no_distribution_leaves_nothing(classifier):
    class Nothing(densities.DensityDistribution):
        def __call__(self, shapes):
            return [0.0] * len(shapes)

    with pytest.raises(ValueError, match="A density of 0 leaves no connection"):
        prune(classifier, density=Nothing(0.5))


def test_pruning_leaves_each_layer_a_connection(classifier):
    with pytest.raises(ValueError, match="at least one in each layer.*expected at most 42"):
        prune(classifier, count=43)
    prune(classifier, count=42)
    assert [layer.num_active for layer in classifier.layers] == [1, 1]
