"""Settings that every test shares."""

import gc

import torch
from hypothesis import settings

# A slow machine is no failure. On CI, Hypothesis itself draws the same cases every time.
settings.register_profile("stretto", parent=settings(), deadline=None)
settings.load_profile("stretto")

# Ranks are forked from here, and a thread pool of this process would not exist in theirs.
torch.set_num_threads(1)


def pytest_collection_finish() -> None:
    """Leave out what all tests have been imported with, where garbage is looked for."""
    gc.collect()
    gc.freeze()
