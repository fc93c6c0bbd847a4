"""The classes of LiteRT's file format, from whichever package has them."""

try:
    from tensorflow.lite.python import schema_py_generated as schema
except ImportError:  # LiteRT is moving out of TensorFlow.
    from ai_edge_litert import schema_py_generated as schema

__all__ = ["schema"]
