"""Connections that are grown and pruned: how many, which, all or nothing."""
