"""Why a step took longer than predicted: causes by name, each with its cost."""

from stretto.diagnose.compare import Comparison, Costly, compare
from stretto.diagnose.diagnose import diagnose
from stretto.diagnose.finding import Cause, Finding, likely

__all__ = ["Cause", "Comparison", "Costly", "Finding", "compare", "diagnose", "likely"]
