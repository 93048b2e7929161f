"""Models in the format of Hugging Face: ``config.json`` in and out, and where weights lie.

A config is read of every family (``model_type``) in `FAMILIES`; those in `RUNNABLE` are written
too, and their weights read and written. What a config leaves out has the value that `transformers`
gives it, but for sizes, which it must state. Dropout is not read: Stretto has none.
"""

from stretto.huggingface.read import FAMILIES, read_config
from stretto.huggingface.weights import Source, sources, tensor_shapes
from stretto.huggingface.write import RUNNABLE, write_config

__all__ = [
    "FAMILIES",
    "RUNNABLE",
    "Source",
    "read_config",
    "sources",
    "tensor_shapes",
    "write_config",
]
