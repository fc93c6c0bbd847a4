"""Benchmarks: what keras_grow claims, measured; run with `python -m benchmarks.NAME`."""
