"""Stretto beside stock PyTorch, in one run, in turn: ``python -m benchmarks --help``."""
