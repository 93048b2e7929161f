"""`simulate`: every instruction of a program on a clock, with contended links and faults."""

from stretto.simulate.fault import Fault, Halt, SlowLink, SlowRank
from stretto.simulate.simulate import simulate
from stretto.simulate.timeline import KINDS, Timeline, Wait
from stretto.simulate.usage import Usage, usages

__all__ = [
    "KINDS",
    "Fault",
    "Halt",
    "SlowLink",
    "SlowRank",
    "Timeline",
    "Usage",
    "Wait",
    "simulate",
    "usages",
]
