"""Stretto plans, predicts, runs and recovers the training of large transformers."""

__version__ = "0.1.0"
