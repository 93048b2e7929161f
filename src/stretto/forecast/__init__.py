"""Weeks of training: failures, recovery, and when it ends, played many times over."""

from stretto.forecast.failures import Component, Failures, Needs, Per, Shows
from stretto.forecast.play import play
from stretto.forecast.result import PARTS, Forecast, quantiles
from stretto.forecast.setup import Checkpoint, Elastic, Job, Recovery, Setup, Spares

__all__ = [
    "PARTS",
    "Checkpoint",
    "Component",
    "Elastic",
    "Failures",
    "Forecast",
    "Job",
    "Needs",
    "Per",
    "Recovery",
    "Setup",
    "Shows",
    "Spares",
    "play",
    "quantiles",
]
