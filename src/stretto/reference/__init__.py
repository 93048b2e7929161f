"""The reference: a program played for all ranks in one process, on arrays; what it must compute."""

from stretto.reference.play import Batch, Batches, Outcome, Reference

__all__ = ["Batch", "Batches", "Outcome", "Reference"]
