"""LiteRT files taken apart and put together again, with kernels in other forms."""
