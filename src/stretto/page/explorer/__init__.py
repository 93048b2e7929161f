"""The plan explorer: what other devices, batches and networks do, and what is to be had."""

from stretto.page.explorer.section import answer, data, still

__all__ = ["answer", "data", "still"]
