"""Kernels and models as a SavedModel holds and computes them, in TensorFlow alone."""
