"""Models made of others: growable, sparse, plain, wider, deeper, compact; their optimizers."""
