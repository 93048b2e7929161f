"""`simulate`: every instruction of a program on a clock, with contended links and faults."""

from stretto.simulate.fault import Fault, Halt, SlowLink, SlowRank
from stretto.simulate.simulate import simulate

__all__ = ["Fault", "Halt", "SlowLink", "SlowRank", "simulate"]
