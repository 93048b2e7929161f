"""The best plan for a model on a cluster: what can be, what it takes, and why not another."""

from stretto.search.answer import TOKENS_PER_PARAMETER, Answer, Training, answer
from stretto.search.candidates import Candidates, Priced, families, family_name
from stretto.search.change import Change, fleets, rescues, sensitivity
from stretto.search.constraint import KEYS, Constraint
from stretto.search.explain import PARTS, USES, Part, WhyNot, more, parts, uses, why_not
from stretto.search.found import ERROR, MEMORY_ERROR, OBJECTIVES, Found, Objective, Rejection
from stretto.search.front import against_energy, against_memory, staircase, thinned
from stretto.search.impossible import nothing
from stretto.search.options import Options
from stretto.search.row import CODECS, ORDERS, Row, choice_of, plan_of
from stretto.search.search import offloaded, search, search_with_host
from stretto.search.task import RECOMPUTES, Task
from stretto.search.words import line, words

__all__ = [
    "CODECS",
    "ERROR",
    "KEYS",
    "MEMORY_ERROR",
    "OBJECTIVES",
    "ORDERS",
    "PARTS",
    "RECOMPUTES",
    "TOKENS_PER_PARAMETER",
    "USES",
    "Answer",
    "Candidates",
    "Change",
    "Constraint",
    "Found",
    "Objective",
    "Options",
    "Part",
    "Priced",
    "Rejection",
    "Row",
    "Task",
    "Training",
    "WhyNot",
    "against_energy",
    "against_memory",
    "answer",
    "choice_of",
    "families",
    "family_name",
    "fleets",
    "line",
    "more",
    "nothing",
    "offloaded",
    "parts",
    "plan_of",
    "rescues",
    "search",
    "search_with_host",
    "sensitivity",
    "staircase",
    "thinned",
    "uses",
    "why_not",
    "words",
]
