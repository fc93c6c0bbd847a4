"""What is measured of a model on data, without changing the model."""
