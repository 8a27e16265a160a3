"""Training tool-using agents inside their live loop, natively in JAX."""

__version__ = "0.1.0"
