"""Layers whose connections can be dormant."""
