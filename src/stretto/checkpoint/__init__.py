"""Checkpoints: boxes in global coordinates, readable under any plan."""
