"""nanotron: the YAML that ``run_train.py`` reads."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from stretto.emit.job import Job
from stretto.emit.launch import Emitted, script, torchrun
from stretto.emit.limits import noted, refused, refused_model, which
from stretto.errors import PlanError, Problem
from stretto.model import Model

ORDERS = (("pp", "dp", "cp", "tp"),)

WHO = "nanotron"
_ENGINES = {"1f1b": "1f1b", "gpipe": "afab"}
_ABOUT = (
    "nanotron: run on every node, in the root of its repository, with nanotron.yaml beside. "
    "`dataset: null` measures; name your data in its place to train."
)


def emit(job: Job) -> Emitted:
    """Give the configuration that trains the plan with nanotron.

    Raises:
        PlanError: All that nanotron cannot do as the plan says.
    """
    problems = (
        *refused(job, WHO, orders=ORDERS, schedules=_ENGINES),
        *refused_model(job.model, WHO, kinds=((True, "silu"),)),
        *_refused(job),
        *_refused_model(job),
    )
    if problems:
        raise PlanError(problems)
    notes = (*noted(job, WHO), *_notes(job))
    tree = {
        "general": {"project": "stretto", "run": job.model.name, "seed": job.recipe.seed},
        "parallelism": _parallelism(job),
        "model": _model(job),
        "tokens": _tokens(job),
        "optimizer": _optimizer(job),
        "data_stages": [
            {
                "name": "stable", "start_training_step": 1,
                "data": {"dataset": None, "seed": job.recipe.seed, "num_loading_workers": 1},
            }
        ],
        "checkpoints": {"checkpoints_path": "checkpoints", "checkpoint_interval": job.recipe.steps},
        "logging": {"log_level": "info", "iteration_step_info_interval": 1},
    }  # fmt: skip
    arguments = [("--config-file", "nanotron.yaml")]
    command = torchrun(job, ("run_train.py",), arguments=arguments)
    lines = ["export CUDA_DEVICE_MAX_CONNECTIONS=1"]
    text = script(about=_ABOUT, notes=notes, lines=lines, command=command)
    return Emitted((("nanotron.yaml", yaml(tree)), ("nanotron.sh", text)), notes)


def _refused(job: Job) -> tuple[Problem, ...]:
    plan, words, memory = job.plan, job.words, job.plan.memory
    some = memory.recompute == "selective" or memory.recompute_layers is not None
    return which(
        (bool(plan.pipeline.cut) and words.pp > 1, "pipeline.cut",
         "nanotron cuts stages by a count of its own", "leave it empty"),
        (words.zero > 1, "zero", f"nanotron shards optimizer state alone, but zero is {words.zero}",
         "use zero = 0 or 1"),
        (words.zero == 1 and words.cp > 1, "zero",
         "nanotron shards over dp alone, but the plan over context-parallel ranks too",
         "use zero = 0, or cp = 1"),
        (words.zero == 1 and words.shard < words.dp, "shard",
         f"nanotron shards over all of dp = {words.dp}, but the plan does over {words.shard}",
         "use shard = 0"),
        (some, "memory.recompute", "nanotron runs all layers again or none", "use none or full"),
        (memory.offload > 0, "memory.offload", "nanotron keeps activations on the device",
         "use offload = 0"),
        (memory.optimizer_offload > 0, "memory.optimizer_offload",
         "nanotron keeps optimizer state on the device", "use optimizer_offload = 0"),
        (plan.communication.codec == "bfloat16", "communication.codec",
         "nanotron reduces gradients as they accumulate", "use none"),
        (plan.numerics.matrix != "same", "numerics.matrix",
         f"nanotron has no option for {plan.numerics.matrix}", "use same"),
        (plan.communication.tensor_overlap and not words.sequence, "communication.tensor_overlap",
         "tp_linear_async_communication needs tp_mode REDUCE_SCATTER", "use sequence = true"),
    )  # fmt: skip


def _refused_model(job: Job) -> tuple[Problem, ...]:
    model, tp, other = job.model, job.words.tp, "use --emit megatron"
    positions = model.rope.scaling if model.rope else "learned"
    usual = model.norm == "rms" and not (model.out_bias or model.ff_bias or model.qk_norm)
    more = model.latent is not None or model.mtp_layers > 0
    width = model.heads * model.head_dim
    return which(
        (not usual, "model", "nanotron's Llama and Qwen 2 have RMSNorm, plain heads, and biases in "
         "query, key and value at most", other),
        (more, "model", "nanotron has neither latent attention nor multi-token prediction", other),
        (positions != "none", "model.rope",
         f"nanotron has rotary positions as they are, not {positions}", other),
        (model.experts > 0, "model.experts", "nanotron has no option for the width of an expert, "
         "and counts expert ranks apart from data ranks", other),
        (width != model.embed, "model.head_dim", f"nanotron's heads fill the width, but "
         f"{model.heads} × {model.head_dim} is not {model.embed}", other),
        (model.window > 0 and bool(model.full_layers), "model.full_layers",
         "nanotron has one window for all layers", other),
        (model.kv_heads % tp > 0, "mesh.tp",
         f"nanotron deals out whole key heads, but {model.kv_heads} % {tp} is not 0",
         "use a divisor"),
    )  # fmt: skip


def _notes(job: Job) -> tuple[Problem, ...]:
    return which(
        (job.words.pp > 1, "pipeline.cut", "nanotron balances stages by a count of its own",
         "compare its log with the plan's stages"),
    )  # fmt: skip


def _parallelism(job: Job) -> dict[str, Any]:
    words, plan = job.words, job.plan
    return {
        "dp": words.dp,
        "pp": words.pp,
        "tp": words.tp,
        "context_parallel_size": words.cp,
        "expert_parallel_size": 1,
        "pp_engine": _ENGINES.get(plan.pipeline.schedule, "1f1b"),
        "tp_mode": "REDUCE_SCATTER" if words.sequence else "ALL_REDUCE",
        "tp_linear_async_communication": plan.communication.tensor_overlap,
        "recompute_layer": plan.memory.recompute == "full",
    }


def _model(job: Job) -> dict[str, Any]:
    bucket = max(1, round(job.plan.communication.bucket_bytes / 2**20))
    return {
        "dtype": job.plan.numerics.dtype,
        "ddp_bucket_cap_mb": bucket,
        "make_vocab_size_divisible_by": 1,
        "init_method": {"std": job.model.init_std},
        "model_config": _architecture(job.model, seq=job.plan.batch.seq),
    }


def _architecture(model: Model, *, seq: int) -> dict[str, Any]:
    """Give nanotron's Llama, or its Qwen 2 where a bias or a window asks for it."""
    assert model.rope is not None, "refused before"
    qwen = model.qkv_bias or model.window > 0
    kind = {"is_qwen2_config": True} if qwen else {"is_llama_config": True}
    window = {"sliding_window_size": model.window} if model.window else {}
    return {
        **kind,
        "hidden_act": "silu",
        "hidden_size": model.embed,
        "initializer_range": model.init_std,
        "intermediate_size": model.ff,
        "max_position_embeddings": max(model.positions, seq),
        "num_attention_heads": model.heads,
        "num_hidden_layers": model.layers,
        "num_key_value_heads": model.kv_heads,
        "attention_bias": model.qkv_bias,
        "rms_norm_eps": model.norm_eps,
        "rope_theta": float(model.rope.theta),
        "tie_word_embeddings": model.tied,
        "vocab_size": model.vocab,
        **window,
    }


def _tokens(job: Job) -> dict[str, Any]:
    return {
        "sequence_length": job.plan.batch.seq,
        "train_steps": job.recipe.steps,
        "micro_batch_size": job.plan.batch.micro_batch,
        "batch_accumulation_per_replica": job.plan.micro_batches,
    }


def _optimizer(job: Job) -> dict[str, Any]:
    recipe = job.recipe
    falls = recipe.steps - job.decay_steps if recipe.schedule == "wsd" else job.warmup_steps
    return {
        "zero_stage": job.words.zero,
        "weight_decay": float(recipe.weight_decay),
        "clip_grad": float(recipe.clip) or None,
        "accumulate_grad_in_fp32": job.plan.numerics.dtype == "bfloat16",
        "optimizer_factory": {
            "name": "adamW",
            "adam_eps": float(recipe.eps),
            "adam_beta1": float(recipe.beta1),
            "adam_beta2": float(recipe.beta2),
            "torch_adam_is_fused": True,
        },
        "learning_rate_scheduler": {
            "learning_rate": float(recipe.lr),
            "lr_warmup_steps": job.warmup_steps,
            "lr_warmup_style": "linear",
            "lr_decay_style": "cosine" if recipe.schedule == "cosine" else "linear",
            "lr_decay_starting_step": falls,
            "lr_decay_steps": max(1, recipe.steps - falls),
            "min_decay_lr": float(job.final_lr),
        },
    }


def yaml(tree: Mapping[str, Any]) -> str:
    """Give a tree of mappings, lists and plain values as YAML."""
    return "\n".join(_yaml_lines(tree)) + "\n"


def _yaml_lines(tree: Mapping[str, Any]) -> Iterator[str]:
    for key, value in tree.items():
        match value:
            case Mapping():
                yield f"{key}:"
                yield from (f"  {line}" for line in _yaml_lines(value))
            case list():
                yield f"{key}:"
                for item in value:
                    first, *rest = _yaml_lines(item)
                    yield f"  - {first}"
                    yield from (f"    {line}" for line in rest)
            case _:
                yield f"{key}: {_yaml_value(value)}"


def _yaml_value(value: Any) -> str:
    """Give a plain value as JSON, which is YAML, but for 1e-05, a string to YAML 1.1."""
    text = json.dumps(value)
    if isinstance(value, float) and "e" in text and "." not in text:
        return text.replace("e", ".0e")
    return text
