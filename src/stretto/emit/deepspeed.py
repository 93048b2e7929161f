"""DeepSpeed: ``ds_config.json``, and the command line of Megatron-DeepSpeed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from stretto.emit.job import Job
from stretto.emit.launch import Argument, Emitted, script, torchrun
from stretto.emit.limits import noted, refused, refused_model, which
from stretto.errors import PlanError, Problem
from stretto.model import Model

ORDERS = (("pp", "dp", "cp", "tp"),)

WHO = "Megatron-DeepSpeed"
_SCHEDULES = ("1f1b", "zb-1p")
_ABOUT = (
    "Megatron-DeepSpeed: run on every node, in the root of its repository, with ds_config.json "
    "beside. DATA names a preprocessed dataset; name your tokenizer in place of NullTokenizer."
)


def emit(job: Job) -> Emitted:
    """Give the configuration and the command that train the plan with DeepSpeed.

    Raises:
        PlanError: All that DeepSpeed cannot do as the plan says.
    """
    problems = (
        *refused(job, WHO, orders=ORDERS, schedules=_SCHEDULES),
        *refused_model(job.model, WHO),
        *_refused(job),
        *_refused_host(job),
        *_refused_model(job.model),
    )
    if problems:
        raise PlanError(problems)
    notes = (*noted(job, WHO), *_notes(job))
    config = json.dumps(_config(job), indent=2) + "\n"
    arguments = [
        *_parallelism(job), *_memory(job), *_precision(job), *_architecture(job), *_training(job),
    ]  # fmt: skip
    command = torchrun(job, ("pretrain_gpt.py",), arguments=arguments)
    command = command.removesuffix("\n") + ' \\\n  --data-path "${DATA:?prefix of a dataset}"\n'
    lines = ["export CUDA_DEVICE_MAX_CONNECTIONS=1"]
    text = script(about=_ABOUT, notes=notes, lines=lines, command=command)
    return Emitted((("ds_config.json", config), ("deepspeed.sh", text)), notes)


def _refused(job: Job) -> tuple[Problem, ...]:
    plan, words, heads = job.plan, job.words, job.model.heads
    bubble = plan.pipeline.schedule == "zb-1p" and words.pp > 1
    ranks, bf16 = words.dp * words.cp, plan.numerics.dtype == "bfloat16"
    return which(
        (words.zero == 0 and bf16, "zero",
         "DeepSpeed accumulates gradients of bfloat16 in float32 with ZeRO only, but zero is 0",
         "use zero = 1"),
        (bubble and words.tp > 1 and words.sequence, "sequence",
         "--enable-zbh1-pipeline does not go with --sequence-parallel", "use sequence = false"),
        (bool(plan.pipeline.cut) and words.pp > 1, "pipeline.cut", f"{WHO} deals layers out evenly",
         "leave it empty"),
        (words.zero > 1 and words.pp > 1, "zero",
         f"DeepSpeed's pipeline goes with ZeRO-1 at most, but zero is {words.zero}",
         "use zero = 1, or pp = 1"),
        (words.zero > 0 and words.shard < ranks, "shard",
         f"DeepSpeed shards over all of dp × cp = {ranks}, but the plan does over {words.shard}",
         "use shard = 0"),
        (words.cp > 1 and words.tp * words.pp > 1, "mesh.cp", "DeepSpeed splits sequences without "
         f"tensor and pipeline parallelism, but tp × pp is {words.tp * words.pp}",
         "use tp = 1 and pp = 1"),
        (heads % words.cp > 0, "mesh.cp",
         f"DeepSpeed deals out whole heads, but {heads} % {words.cp} is not 0", "use a divisor"),
        (plan.communication.tensor_overlap, "communication.tensor_overlap",
         f"{WHO} does not overlap tensor parallelism", "leave it out"),
        (plan.numerics.matrix == "float4", "numerics.matrix", f"{WHO} has no float4",
         "use float8 or same"),
        (job.recipe.schedule == "wsd", "recipe.schedule", f"{WHO} has no wsd",
         "use cosine or constant"),
    )  # fmt: skip


def _refused_host(job: Job) -> tuple[Problem, ...]:
    """Give what of recomputation and offload DeepSpeed cannot do."""
    zero, memory = job.words.zero, job.plan.memory
    share, rest = memory.offload, memory.optimizer_offload
    return which(
        (zero == 3 and not memory.regather, "memory.regather",
         "ZeRO-3 gathers parameters again for the backward pass",
         "use regather = true, or zero = 2"),
        (memory.recompute_layers is not None, "memory.recompute_layers",
         f"{WHO} runs all layers again or none", "leave it out"),
        (share > 0 and (share < 1 or memory.recompute != "full"), "memory.offload",
         "DeepSpeed moves to the host what recomputation starts from, and all of it",
         "use offload = 0, or 1 with recompute = full"),
        (rest > 0 and zero == 0, "memory.optimizer_offload",
         "DeepSpeed offloads optimizer state with ZeRO only", "use zero = 1 or more"),
        (0 < rest < 1 and zero < 3, "memory.optimizer_offload",
         "DeepSpeed offloads a part of optimizer state with ZeRO-3 only",
         "use 0 or 1, or zero = 3"),
    )  # fmt: skip


def _refused_model(model: Model) -> tuple[Problem, ...]:
    other = "use --emit megatron"
    scaling = model.rope.scaling if model.rope else "none"
    more = model.latent is not None or model.mtp_layers > 0 or model.qk_norm or model.window > 0
    return which(
        (model.experts > 0, "model.experts", "experts have the width of a dense layer in "
         f"{WHO}, and Stretto writes none for it", other),
        (more, "model", f"{WHO} has no window, normalised heads, latent attention or multi-token "
         "prediction", other),
        (scaling != "none", "model.rope.scaling", f"{WHO} does not scale rotary positions", other),
        (len({model.qkv_bias, model.out_bias, model.ff_bias}) > 1, "model.out_bias",
         f"{WHO} has biases everywhere or nowhere", other),
    )  # fmt: skip


def _notes(job: Job) -> tuple[Problem, ...]:
    words = job.words
    return which(
        (words.pp > 1, "pipeline.cut",
         f"{WHO} deals layers out evenly, whatever embedding and head cost",
         "compare its log with the plan's stages"),
        (job.plan.pipeline.schedule == "zb-1p" and words.pp > 1, "pipeline.schedule",
         "its zero-bubble schedule is ZB-H1, with the memory of zb-1p and a larger bubble",
         "expect a slower step"),
        (words.cp > 1, "mesh.cp", "DeepSpeed exchanges heads (Ulysses) where keys would go round",
         "expect all-to-all in place of a ring"),
    )  # fmt: skip


def _config(job: Job) -> dict[str, Any]:
    plan, words, memory = job.plan, job.words, job.plan.memory
    elements = max(1, plan.communication.bucket_bytes // 4)
    zero: dict[str, Any] = {
        "stage": words.zero,
        "overlap_comm": True,
        "contiguous_gradients": True,
        "reduce_bucket_size": elements,
        "allgather_bucket_size": elements,
    }
    if words.zero == 3:
        zero |= {"stage3_prefetch_bucket_size": elements, "stage3_param_persistence_threshold": 0}
    if memory.optimizer_offload:
        ratio = {"ratio": memory.optimizer_offload} if words.zero == 3 else {}
        zero["offload_optimizer"] = {"device": "cpu", "pin_memory": True, **ratio}
    codec = "bf16" if plan.communication.codec == "bfloat16" else "fp32"
    return {
        "train_batch_size": plan.batch.sequences,
        "train_micro_batch_size_per_gpu": plan.batch.micro_batch,
        "gradient_accumulation_steps": plan.micro_batches,
        "gradient_clipping": job.recipe.clip,
        "steps_per_print": 1,
        "bf16": {"enabled": plan.numerics.dtype == "bfloat16"},
        "data_types": {"grad_accum_dtype": "fp32"},
        "communication_data_type": codec,
        "zero_optimization": zero,
        "activation_checkpointing": {"cpu_checkpointing": memory.offload > 0},
    }


def _parallelism(job: Job) -> Iterator[Argument]:
    words = job.words
    yield ("--deepspeed",)
    yield "--deepspeed_config", "ds_config.json"
    yield "--zero-stage", str(words.zero)
    yield "--tensor-model-parallel-size", str(words.tp)
    yield "--pipeline-model-parallel-size", str(words.pp)
    yield "--ds-sequence-parallel-size", str(words.cp)
    if words.pp == 1:
        yield ("--no-pipeline-parallel",)
    elif job.plan.pipeline.schedule == "zb-1p":
        yield ("--enable-zbh1-pipeline",)
    if words.tp > 1 and words.sequence:
        yield ("--sequence-parallel",)


def _memory(job: Job) -> Iterator[Argument]:
    memory = job.plan.memory
    match memory.recompute:
        case "selective":
            yield "--recompute-granularity", "selective"
        case "full":
            yield ("--checkpoint-activations",)
            yield ("--deepspeed-activation-checkpointing",)
        case "none":
            pass
    if memory.offload:
        yield ("--checkpoint-in-cpu",)
    if memory.optimizer_offload:
        yield ("--cpu-optimizer",)


def _precision(job: Job) -> Iterator[Argument]:
    if job.plan.numerics.dtype == "bfloat16":
        yield ("--bf16",)
    if job.plan.numerics.matrix == "float8":
        yield ("--fp8-hybrid",)
        yield "--transformer-impl", "transformer_engine"


def _architecture(job: Job) -> Iterator[Argument]:
    model = job.model
    yield "--num-layers", str(model.layers)
    yield "--hidden-size", str(model.embed)
    yield "--ffn-hidden-size", str(model.ff)
    yield "--num-attention-heads", str(model.heads)
    yield "--num-key-value-heads", str(model.kv_heads)
    yield "--kv-channels", str(model.head_dim)
    yield "--max-position-embeddings", str(max(model.positions, job.plan.batch.seq))
    yield "--normalization", {"rms": "rmsnorm", "layer": "layernorm"}[model.norm]
    yield "--layernorm-epsilon", str(model.norm_eps)
    yield "--init-method-std", str(model.init_std)
    yield "--attention-dropout", "0.0"
    yield "--hidden-dropout", "0.0"
    yield from _switches(model)


def _switches(model: Model) -> Iterator[Argument]:
    if model.rope is not None:
        yield ("--use-rotary-position-embeddings",)
        yield "--rotary-position-embeddings-theta", str(round(model.rope.theta))
    if model.activation == "silu":
        yield ("--swiglu",)
    if model.activation == "relu2":
        yield ("--squared-relu",)
    if not model.ff_bias:
        yield ("--disable-bias-linear",)
    if not model.tied:
        yield ("--untie-embeddings-and-output-weights",)
    yield ("--no-query-key-layer-scaling",)
    yield ("--use-flash-attn-v2",)


def _training(job: Job) -> Iterator[Argument]:
    recipe, batch = job.recipe, job.plan.batch
    for name, value in (
        ("--seq-length", batch.seq), ("--micro-batch-size", batch.micro_batch),
        ("--global-batch-size", batch.sequences), ("--train-iters", recipe.steps),
        ("--lr", recipe.lr), ("--min-lr", job.final_lr),
        ("--lr-decay-style", recipe.schedule), ("--lr-warmup-iters", job.warmup_steps),
        ("--weight-decay", recipe.weight_decay), ("--clip-grad", recipe.clip),
        ("--adam-beta1", recipe.beta1), ("--adam-beta2", recipe.beta2),
        ("--adam-eps", recipe.eps), ("--seed", recipe.seed or 1),  # it takes no 0
        ("--log-interval", 1), ("--eval-iters", 0), ("--tokenizer-type", "NullTokenizer"),
        ("--vocab-size", job.model.vocab - 1),  # NullTokenizer adds the end of a document
    ):  # fmt: skip
        yield name, str(value)
