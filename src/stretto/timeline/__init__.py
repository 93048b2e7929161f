"""A step on a clock: what the simulator foretells and what a run recorded, as one value."""

from stretto.timeline.usage import Usage, usages
from stretto.timeline.value import KINDS, Timeline, Wait

__all__ = ["KINDS", "Timeline", "Usage", "Wait", "usages"]
