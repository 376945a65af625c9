"""Convolutional networks on an image folder, in JAX and Flax."""

__version__ = "0.1.0"
