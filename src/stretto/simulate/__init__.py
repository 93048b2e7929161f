"""`simulate`: every instruction of a program on a clock, with contended links and faults."""

from stretto.simulate.fault import Fault, Halt, SlowLink, SlowRank
from stretto.simulate.network import FAIR, Network
from stretto.simulate.simulate import simulate

__all__ = ["FAIR", "Fault", "Halt", "Network", "SlowLink", "SlowRank", "simulate"]
