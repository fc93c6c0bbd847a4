"""What is served: files that need neither keras_grow nor Keras."""
