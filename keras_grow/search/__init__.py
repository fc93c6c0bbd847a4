"""Exact choice of the largest of many numbers, and of sparse layers' without all of them."""
