"""Models made of others: growable, sparse or plain, wider, compact; and their optimizers."""
