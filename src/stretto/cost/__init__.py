"""What a plan takes, in closed form: seconds, bytes, joules and money, for one plan or for 10⁵."""

from stretto.cost.choice import PRECISIONS, SCHEDULES, Choice
from stretto.cost.energy import Bill
from stretto.cost.estimate import Estimate, cost, estimate
from stretto.cost.machine import Link, Machine
from stretto.cost.memory import MemoryUse
from stretto.cost.numbers import Number, gathered, record, taken
from stretto.cost.pricing import Pricing
from stretto.cost.shape import Shape
from stretto.cost.stack import Stack
from stretto.cost.stacks import stack
from stretto.cost.step import StepTime

__all__ = [
    "PRECISIONS",
    "SCHEDULES",
    "Bill",
    "Choice",
    "Estimate",
    "Link",
    "Machine",
    "MemoryUse",
    "Number",
    "Pricing",
    "Shape",
    "Stack",
    "StepTime",
    "cost",
    "estimate",
    "gathered",
    "record",
    "stack",
    "taken",
]
