"""What becomes of a kernel in an export: the one idea that every format and record shares."""

import abc


class StoredKernel(abc.ABC):
    """The kernel of one layer as a file holds and computes it; where there is a choice, by a rule.

    Attributes:
        is_computed_sparsely: whether its product costs what is active, whatever the batch size.
    """

    is_computed_sparsely: bool = False

    @property
    @abc.abstractmethod
    def words(self) -> str:
        """How it is stored and computed, in words."""
