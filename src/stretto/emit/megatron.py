"""Megatron-LM: the command line of ``pretrain_gpt.py``."""

from __future__ import annotations

from collections.abc import Iterator

from stretto.emit.job import Job, Stage
from stretto.emit.launch import Argument, Emitted, script, torchrun
from stretto.emit.limits import noted, refused, refused_model, which
from stretto.errors import PlanError, Problem
from stretto.model import Model

ORDERS = (("pp", "dp", "cp", "tp"), ("dp", "pp", "cp", "tp"))
"""The orders of ranks, outermost first: by default, and with ``--use-tp-pp-dp-mapping``."""

WHO = "Megatron-LM"
_SCHEDULES = ("1f1b", "interleaved")
_ABOUT = (
    "Megatron-LM: run on every node, in the root of its repository. --mock-data and NullTokenizer "
    "measure; name your data and tokenizer in their place to train."
)


def emit(job: Job) -> Emitted:
    """Give the command that trains the plan with Megatron-LM.

    Raises:
        PlanError: All that Megatron-LM cannot do as the plan says.
    """
    problems = (
        *refused(job, WHO, orders=ORDERS, schedules=_SCHEDULES),
        *refused_model(job.model, WHO),
        *_refused(job),
        *_refused_model(job.model),
    )
    if problems:
        raise PlanError(problems)
    arguments = [
        *_parallelism(job), *_sharding(job), *_pipeline(job), *_memory(job), *_precision(job),
        *_architecture(job), *_attention(job.model), *_experts(job), *_training(job),
    ]  # fmt: skip
    command = torchrun(job, ("pretrain_gpt.py",), arguments=arguments)
    notes = (*noted(job, WHO), *_notes(job))
    lines = [] if _fsdp(job) else ["export CUDA_DEVICE_MAX_CONNECTIONS=1"]
    text = script(about=_ABOUT, notes=notes, lines=lines, command=command)
    return Emitted((("megatron.sh", text),), notes)


def _fsdp(job: Job) -> bool:
    """Whether Megatron-FSDP shards; its distributed optimizer does no more than ZeRO-1."""
    return job.words.zero >= 2


def _refused(job: Job) -> tuple[Problem, ...]:
    plan, words, memory = job.plan, job.words, job.plan.memory
    part = words.zero > 0 and words.shard < words.dp * words.cp
    shortest = min((len(s.layers) for s in job.stages), default=0)
    layers, last = memory.recompute_layers, words.pp * (plan.pipeline.chunks - 1)
    return which(
        (not _together(job, last) , "pipeline.cut",
         "Megatron-LM keeps all multi-token prediction in one stage, of the last of each rank",
         "cut so, or leave it out"),
        (_fsdp(job) and words.pp > 1, "mesh.pp",
         f"Megatron-FSDP, for zero = {words.zero}, is made for tp, cp and ep, but pp is {words.pp}",
         "use zero = 1, or pp = 1"),
        (_fsdp(job) and part, "shard", "Megatron-FSDP is told to shard over all of dp × cp = "
         f"{words.dp * words.cp}, but the plan does over {words.shard}",
         "use shard = 0, or zero = 1"),
        (words.zero == 3 and not memory.regather, "memory.regather",
         "Megatron-FSDP gathers parameters again for the backward pass",
         "use regather = true, or zero = 2"),
        (plan.communication.tensor_overlap and not (words.tp > 1 and words.sequence),
         "communication.tensor_overlap", "--tp-comm-overlap needs --sequence-parallel",
         "use tp > 1 and sequence = true"),
        (layers is not None and not 1 <= layers <= shortest, "memory.recompute_layers",
         f"must be from 1 to the {shortest} layers of the shortest stage, but is {layers}",
         "use such a number, or recompute = none"),
        (memory.offload > 0 and (words.pp > 1 or memory.recompute != "none"), "memory.offload",
         "--cpu-offloading-num-layers goes with neither pp > 1 nor recomputation",
         "use offload = 0"),
        (memory.offload == 1, "memory.offload", "one layer at least stays on the device",
         f"use at most {job.model.layers - 1} / {job.model.layers}"),
        (memory.optimizer_offload > 0 and words.zero != 1, "memory.optimizer_offload",
         "--optimizer-cpu-offload is for the distributed optimizer, which is zero = 1",
         "use zero = 1"),
    )  # fmt: skip


def _together(job: Job, last: int) -> bool:
    """Whether one stage at most predicts further ahead, and that is number `last` or later."""
    ahead = [i for i, stage in enumerate(job.stages) if stage.ahead]
    return len(ahead) <= 1 and all(i >= last for i in ahead)


def _refused_model(model: Model) -> tuple[Problem, ...]:
    scaling = model.rope.scaling if model.rope else "none"
    known = ("none", "linear", "llama3", *(("yarn",) if model.latent else ()))
    biases = (model.qkv_bias, model.out_bias, model.ff_bias)
    return which(
        (scaling not in known, "model.rope.scaling", f"{WHO} has no {scaling} for this attention",
         f"use {', '.join(known)}"),
        (biases not in ((False,) * 3, (True,) * 3, (True, False, False)), "model.out_bias",
         f"{WHO} has biases everywhere, nowhere, or in query, key and value", "use one of these"),
    )  # fmt: skip


def _notes(job: Job) -> tuple[Problem, ...]:
    layers = job.plan.memory.offload * job.model.layers
    return which(
        (layers != round(layers), "memory.offload",
         f"{layers:g} layers wait in the host, but {WHO} moves whole ones",
         f"reckon with {round(layers)}"),
        (job.plan.communication.codec == "bfloat16", "communication.codec",
         "with --grad-reduce-in-bf16 gradients accumulate in bfloat16 too", "compare losses"),
    )  # fmt: skip


def _parallelism(job: Job) -> Iterator[Argument]:
    words = job.words
    for name, extent in (
        ("--tensor-model-parallel-size", words.tp),
        ("--pipeline-model-parallel-size", words.pp),
        ("--context-parallel-size", words.cp),
        ("--expert-model-parallel-size", words.ep),
    ):
        yield name, str(extent)
    if job.model.experts:
        yield "--expert-tensor-parallel-size", str(words.etp)
    if words.tp > 1 and words.sequence:
        yield ("--sequence-parallel",)
    if job.plan.communication.tensor_overlap:
        yield ("--tp-comm-overlap",)
    if not job.fits(ORDERS[0]):
        yield ("--use-tp-pp-dp-mapping",)


def _sharding(job: Job) -> Iterator[Argument]:
    words, communication = job.words, job.plan.communication
    yield ("--overlap-grad-reduce",)
    yield "--ddp-bucket-size", str(max(1, communication.bucket_bytes // 4))
    if words.zero:
        yield ("--use-distributed-optimizer",)
        yield ("--overlap-param-gather",)
    if words.zero == 1 and words.shard < words.dp * words.cp:
        instances = words.dp * words.cp // words.shard
        yield "--num-distributed-optimizer-instances", str(instances)
    if _fsdp(job):
        strategy = {2: "optim_grads", 3: "optim_grads_params"}[words.zero]
        yield ("--use-megatron-fsdp",)
        yield "--data-parallel-sharding-strategy", strategy
        yield ("--no-gradient-accumulation-fusion",)
        yield ("--init-model-with-meta-device",)
        yield "--ckpt-format", "fsdp_dtensor"
    if communication.codec == "bfloat16":
        yield ("--grad-reduce-in-bf16",)


def _pipeline(job: Job) -> Iterator[Argument]:
    if not job.even:
        yield "--pipeline-model-parallel-layout", "|".join(_letters(s) for s in job.stages)
    elif job.plan.pipeline.chunks > 1:
        yield "--num-virtual-stages-per-pipeline-rank", str(job.plan.pipeline.chunks)


def _letters(stage: Stage) -> str:
    """Give a stage in the letters of ``--pipeline-model-parallel-layout``."""
    layers, ahead = len(stage.layers), stage.ahead
    middle = (f"t*{layers}" if layers else "") + (f"m*{ahead}" if ahead else "")
    return "E" * stage.embedding + middle + "L" * stage.head


def _memory(job: Job) -> Iterator[Argument]:
    memory = job.plan.memory
    match memory.recompute:
        case "selective":
            yield "--recompute-granularity", "selective"
            yield "--recompute-modules", "core_attn"
        case "full":
            layers = memory.recompute_layers
            yield "--recompute-granularity", "full"
            yield "--recompute-method", "uniform" if layers is None else "block"
            yield "--recompute-num-layers", str(1 if layers is None else layers)
        case "none":
            pass
    if round(memory.offload * job.model.layers):
        yield "--cpu-offloading-num-layers", str(round(memory.offload * job.model.layers))
    if memory.optimizer_offload:
        yield ("--use-precision-aware-optimizer",)
        yield ("--optimizer-cpu-offload",)
        yield "--optimizer-offload-fraction", str(memory.optimizer_offload)


def _precision(job: Job) -> Iterator[Argument]:
    if job.plan.numerics.dtype == "bfloat16":
        yield ("--bf16",)
    match job.plan.numerics.matrix:
        case "float8":
            yield "--fp8-format", "hybrid"
            yield "--fp8-recipe", "tensorwise"
        case "float4":
            yield "--fp4-format", "e2m1"
            yield "--fp4-recipe", "nvfp4"
        case "same":
            pass


def _architecture(job: Job) -> Iterator[Argument]:
    model = job.model
    yield "--num-layers", str(model.layers)
    yield "--hidden-size", str(model.embed)
    yield "--ffn-hidden-size", str(model.ff)
    yield "--max-position-embeddings", str(max(model.positions, job.plan.batch.seq))
    yield "--normalization", {"rms": "RMSNorm", "layer": "LayerNorm"}[model.norm]
    yield "--norm-epsilon", str(model.norm_eps)
    yield "--init-method-std", str(model.init_std)
    yield "--attention-dropout", "0.0"
    yield "--hidden-dropout", "0.0"
    if model.activation == "silu":
        yield ("--swiglu",)
    if model.activation == "relu2":
        yield ("--squared-relu",)
    if not model.ff_bias:
        yield ("--disable-bias-linear",)
    if model.qkv_bias and not model.ff_bias:
        yield ("--add-qkv-bias",)
    if not model.tied:
        yield ("--untie-embeddings-and-output-weights",)
    if model.mtp_layers:
        yield "--mtp-num-layers", str(model.mtp_layers)


def _attention(model: Model) -> Iterator[Argument]:
    yield "--num-attention-heads", str(model.heads)
    yield "--kv-channels", str(model.head_dim)
    if model.kv_heads < model.heads:
        yield ("--group-query-attention",)
        yield "--num-query-groups", str(model.kv_heads)
    if model.qk_norm:
        yield ("--qk-layernorm",)
    if model.window:
        yield "--window-size", f"{model.window - 1},0"
        local = [int(i not in model.full_layers) for i in range(model.layers)]
        yield "--window-attn-skip-freq", str(local).replace(" ", "")
    if latent := model.latent:
        yield ("--multi-latent-attention",)
        if latent.q_rank:
            yield "--q-lora-rank", str(latent.q_rank)
        yield "--kv-lora-rank", str(latent.kv_rank)
        yield "--qk-head-dim", str(latent.nope_dim)
        yield "--qk-pos-emb-head-dim", str(latent.rope_dim)
        yield "--v-head-dim", str(latent.value_dim)
    yield from _positions(model)


def _positions(model: Model) -> Iterator[Argument]:
    rope = model.rope
    yield "--position-embedding-type", "rope" if rope else "learned_absolute"
    if rope is None:
        return
    yield "--rotary-base", str(round(rope.theta))
    if model.latent:
        yield "--rope-type", "yarn" if rope.scaling == "yarn" else "rope"
    match rope.scaling:
        case "linear":
            yield "--rotary-seq-len-interpolation-factor", str(round(rope.factor))
        case "llama3":
            yield ("--use-rope-scaling",)
            yield "--rope-scaling-factor", str(rope.factor)
        case "yarn":
            yield "--rotary-scaling-factor", str(rope.factor)
            yield "--mscale", str(rope.mscale or 1.0)
            yield "--mscale-all-dim", str(rope.mscale_all_dim)
        case _:
            pass


def _experts(job: Job) -> Iterator[Argument]:
    model = job.model
    if not model.experts:
        return
    yield "--num-experts", str(model.experts)
    yield "--moe-router-topk", str(model.top_k)
    yield "--moe-ffn-hidden-size", str(model.expert_ff)
    yield "--moe-token-dispatcher-type", "alltoall"
    if model.shared_ff:
        yield "--moe-shared-expert-intermediate-size", str(model.shared_ff)
    if model.dense_layers:
        sparse = [int(i not in model.dense_layers) for i in range(model.layers)]
        yield "--moe-layer-freq", str(sparse).replace(" ", "")
    if job.plan.numerics.dtype == "bfloat16":
        yield ("--moe-grouped-gemm",)


def _training(job: Job) -> Iterator[Argument]:
    recipe, batch = job.recipe, job.plan.batch
    style = {"cosine": "cosine", "wsd": "WSD", "constant": "constant"}[recipe.schedule]
    for name, value in (
        ("--seq-length", batch.seq), ("--micro-batch-size", batch.micro_batch),
        ("--global-batch-size", batch.sequences), ("--train-iters", recipe.steps),
        ("--lr", recipe.lr), ("--min-lr", job.final_lr), ("--lr-decay-style", style),
        ("--lr-warmup-iters", job.warmup_steps), ("--weight-decay", recipe.weight_decay),
        ("--clip-grad", recipe.clip), ("--adam-beta1", recipe.beta1),
        ("--adam-beta2", recipe.beta2), ("--adam-eps", recipe.eps),
        ("--seed", recipe.seed or 1),  # it takes no 0
        ("--vocab-size", job.model.vocab - 1),  # NullTokenizer adds the end of a document
        ("--tokenizer-type", "NullTokenizer"), ("--log-interval", 1), ("--eval-iters", 0),
    ):  # fmt: skip
        yield name, str(value)
    if recipe.schedule == "wsd":
        yield "--lr-wsd-decay-style", "linear"
        yield "--lr-wsd-decay-iters", str(job.decay_steps)
    yield ("--mock-data",)
    yield ("--log-throughput",)
