"""Units that come and go: births, feature maps, pruning, and what is left of dead ones."""
