"""Settings that every test shares."""

from hypothesis import settings

# A slow machine is no failure. On CI, Hypothesis itself draws the same cases every time.
settings.register_profile("stretto", parent=settings(), deadline=None)
settings.load_profile("stretto")
