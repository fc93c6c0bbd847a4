"""How layers are wired, and copies of models in which layers are exchanged or resized."""
