"""Every flag of Shapeshifter, once: its name, type, default and meaning.

Edit a default here and run `python train.py`, or leave the file alone and say what you want on the
command line. `replace(cfg, ...)` and `override(cfg, {"model.dim": 64})` change a configuration at
run time; both check the result again. The objects are frozen: a configuration never changes under
the code that holds it.
"""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, field, fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BeforeValidator, ByteSize, ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

__all__ = [
    "Config",
    "DataConfig",
    "ModelConfig",
    "SampleConfig",
    "TokenizerConfig",
    "TrainConfig",
    "explain",
    "from_dict",
    "load_config",
    "override",
    "parse_bytes",
    "replace",
    "save_config",
    "to_dict",
]

Mixer = Literal["attention", "none"]
WITHOUT_ATTENTION = {"none"}  # mixers that the flags of attention say nothing to
Mlp = Literal["mlp", "glu", "none"]
Activation = Literal["relu", "relu2", "gelu", "gelu_tanh", "silu", "mish"]
Norm = Literal["rms", "layer", "cosine", "dyt", "none"]
Residual = Literal["pre", "post", "sandwich", "branch_post", "parallel", "none"]
QKNorm = Literal["none", "head", "full"]
Position = Literal["none", "learned", "sinusoidal", "rope", "alibi"]
RopeLayout = Literal["half", "interleaved"]
AttentionKernel = Literal["fused", "explicit"]
Init = Literal["normal", "fan_in", "xavier"]
OutInit = Literal["same", "depth", "zero"]
TokenizerKind = Literal["char", "byte", "bpe", "unigram", "hf_bpe"]
Optimizer = Literal["adamw", "muon", "adam", "sgd", "lion", "adafactor", "soap", "schedule_free"]
Schedule = Literal["constant", "linear", "cosine", "restarts", "wsd", "inverse_sqrt", "step"]
ScheduleUnit = Literal["steps", "tokens"]
StepUnit = Literal["steps", "epochs"]
Precision = Literal["auto", "float32", "bfloat16"]
Packing = Literal["stream", "pad", "documents"]
Names = Annotated[tuple[str, ...], BeforeValidator(lambda given: (given,) if isinstance(given, str) else given)]
Tracker = Literal["tensorboard", "wandb"]

CHECKED = ConfigDict(extra="forbid", validate_default=True)


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class ModelConfig:
    """The architecture. Every published choice is one of these flags."""

    dim: int = 128  # width of the residual stream (d)
    num_layers: int = 3  # blocks (l)
    num_heads: int = 4  # query heads (h)
    num_kv_heads: int | None = None  # key/value heads (g); None = num_heads, 1 = MQA. arXiv:2305.13245
    head_dim: int | None = None  # width of a head (p); None = dim / num_heads
    hidden_dim: int | None = None  # width of the MLP (f); None = from hidden_mult
    hidden_mult: float = 4.0  # MLP width / dim; a GLU takes 2/3 of it. arXiv:2002.05202
    hidden_multiple_of: int = 32  # round the width that hidden_mult gives up to a multiple of this
    vocab_size: int | None = None  # entries of the embedding (v); None = the tokenizer's
    vocab_multiple_of: int = 1  # round the vocabulary up to a multiple of this, for speed on GPUs
    max_seq_len: int = 256  # tokens of context (t)

    mixers: tuple[Mixer, ...] = ("attention",)  # what moves information between positions, tiled over the layers
    mlp: Mlp = "mlp"  # mlp: two matrices; glu: three, gated; none
    activation: Activation = "relu2"  # nonlinearity of the MLP; glu + silu = SwiGLU. relu2: arXiv:2109.08668
    q_bias: bool = False  # bias of the query projection
    k_bias: bool = False  # bias of the key projection
    v_bias: bool = False  # bias of the value projection
    out_bias: bool = False  # bias of the attention's projection back to the stream
    mlp_bias: bool = False  # biases of the MLP
    head_bias: bool = False  # bias of the logits

    norm: Norm = "rms"  # rms arXiv:1910.07467, layer arXiv:1607.06450, cosine arXiv:1910.05895, dyt arXiv:2503.10622
    norm_eps: float = 1e-6  # added to the mean square (rms), the variance (layer) or the length (cosine)
    norm_affine: bool = True  # learned scale per channel (cosine: one for the whole vector)
    norm_bias: bool = False  # learned shift per channel; rms, layer and dyt
    norm_unit_offset: bool = False  # the scale is 1 + w with w starting at 0, as Gemma's; rms and layer
    residual: Residual = "pre"  # where the norms sit and how branches join the stream; none = no skip connections
    final_norm: bool = True  # norm before the head
    embed_norm: bool = False  # norm after the embedding, as BLOOM's

    qk_norm: QKNorm = "head"  # normalise queries and keys: per head, or over the full projection. arXiv:2302.05442
    window: int | None = None  # tokens each query sees, itself included; None = all the past
    window_pattern: str = "S"  # tiled over the layers: S sees the window, F all the past; "SF" alternates
    attn_softcap: float | None = None  # c * tanh(scores / c), as Gemma 2 and Grok-1; None = off
    attn_scale: float | None = None  # factor on q.k; None = head_dim ** -0.5
    attn_kernel: AttentionKernel = "fused"  # fused: one fast call; explicit: scores spelled out, for reading and tracing

    position: Position = "rope"  # learned, sinusoidal arXiv:1706.03762, rope arXiv:2104.09864, alibi arXiv:2108.12409
    rope_theta: float = 10_000.0  # base wavelength of rope
    rope_fraction: float = 1.0  # part of each head that rope turns
    rope_layout: RopeLayout = "half"  # half: channel i pairs with i + p/2 (Llama); interleaved: 2i with 2i+1 (GPT-J)

    pointer: bool = True  # the prediction may copy earlier tokens by attention. arXiv:1609.07843
    pointer_dim: int = 64  # width of the pointer's queries and keys

    tie_embeddings: bool = False  # the head shares the embedding's matrix
    embed_scale: float | Literal["sqrt_dim"] = 1.0  # factor on the embeddings; sqrt_dim = dim ** 0.5 (Gemma)
    logit_softcap: float | None = None  # c * tanh(logits / c); None = off
    logit_scale: float = 1.0  # factor on the logits, before the softcap (Grok-1 0.577)
    residual_scale: float = 1.0  # factor on each branch as it joins the stream (Granite)
    embed_dropout: float = 0.0  # probability of dropping a channel of the embedded input
    attn_dropout: float = 0.0  # of dropping an attention weight
    residual_dropout: float = 0.0  # of dropping a channel of a branch as it joins the stream
    mlp_dropout: float = 0.0  # of dropping a hidden unit of the MLP

    init: Init = "normal"  # normal: std init_std; fan_in: std 1/sqrt(inputs); xavier: std sqrt(2/(inputs + outputs))
    init_std: float = 0.02  # standard deviation of init=normal, and of the embeddings
    out_init: OutInit = "zero"  # projections into the stream: same, depth (std / sqrt(2 * num_layers), GPT-2), zero
    head_zero_init: bool = False  # the head starts at zero, so the first prediction is uniform
    z_loss: float = 0.0  # coefficient of mean(logsumexp(logits)^2), which keeps logits small. arXiv:2204.02311

    @property
    def attends(self) -> bool:
        """Whether a mixer is a kind of attention."""
        return not WITHOUT_ATTENTION.issuperset(self.mixers)

    @property
    def kv_heads(self) -> int:
        return self.num_heads if self.num_kv_heads is None else self.num_kv_heads

    @property
    def head_width(self) -> int:
        return self.head_dim or self.dim // self.num_heads

    @property
    def hidden_width(self) -> int:
        if self.hidden_dim is not None:
            return self.hidden_dim
        width = self.dim * self.hidden_mult * (2 / 3 if self.mlp == "glu" else 1)
        return _round_up(round(width), self.hidden_multiple_of)

    @property
    def padded_vocab_size(self) -> int:
        if self.vocab_size is None:
            raise ValueError("vocab_size=None: the model needs a number; give the tokenizer's")
        return _round_up(self.vocab_size, self.vocab_multiple_of)

    def mixer_at(self, layer: int) -> str:
        return self.mixers[layer % len(self.mixers)]

    def window_at(self, layer: int) -> int | None:
        return self.window if self.window_pattern[layer % len(self.window_pattern)] == "S" else None

    def __post_init__(self):
        for name in ("dim", "num_layers", "num_heads", "num_kv_heads", "head_dim", "hidden_dim",
                     "hidden_mult", "hidden_multiple_of", "vocab_size", "vocab_multiple_of",
                     "max_seq_len", "window", "pointer_dim", "attn_softcap", "logit_softcap", "norm_eps",
                     "rope_theta", "init_std", "embed_scale", "attn_scale"):
            _require_positive(self, name)
        for name in ("embed_dropout", "attn_dropout", "residual_dropout", "mlp_dropout"):
            _require_between(self, name, 0.0, 1.0)
        _check_shapes(self)
        _check_ignored(self, _ACTS_WHEN, _NEUTRAL)


def _check_shapes(cfg: ModelConfig) -> None:
    """Raise ValueError where sizes do not fit together."""
    if not cfg.mixers:
        raise ValueError("mixers=() is empty: name at least one, e.g. attention")
    if cfg.head_dim is None and cfg.dim % cfg.num_heads:
        raise ValueError(f"num_heads={cfg.num_heads} does not divide dim={cfg.dim}: "
                         "choose a divisor, or give head_dim")
    if cfg.num_heads % cfg.kv_heads:
        raise ValueError(f"num_kv_heads={cfg.kv_heads} does not divide num_heads={cfg.num_heads}")
    if not cfg.window_pattern or set(cfg.window_pattern) - set("SF"):
        raise ValueError(f"window_pattern={cfg.window_pattern!r}: use the letters S (sliding window) "
                         "and F (full), e.g. SF")
    if cfg.residual == "none" and cfg.out_init == "zero":
        raise ValueError("residual='none' with out_init='zero' multiplies everything by zero and never learns: "
                         "use out_init='same' or 'depth'")
    turned = cfg.rope_fraction * cfg.head_width
    if cfg.position == "rope" and not (0 < cfg.rope_fraction <= 1 and turned % 2 == 0):
        raise ValueError(f"rope_fraction={cfg.rope_fraction:g} of head_dim={cfg.head_width} is "
                         f"{turned:g} channels: rope turns pairs, so it must be even, and at most all")
    if cfg.position == "sinusoidal" and cfg.dim % 2:
        raise ValueError(f"position='sinusoidal' needs an even dim, not dim={cfg.dim}")


def _has_branches(cfg: ModelConfig) -> bool:
    return set(cfg.mixers) != {"none"} or cfg.mlp != "none"


# flags -> (the condition under which they act, in words and as a test)
_ACTS_WHEN = {
    ("qk_norm", "window", "attn_softcap", "attn_scale", "attn_dropout", "attn_kernel", "head_dim",
     "num_kv_heads", "q_bias", "k_bias", "v_bias", "out_bias"): ("a mixer is attention", lambda c: c.attends),
    ("norm_affine", "embed_norm", "qk_norm"): ("norm is not none", lambda c: c.norm != "none"),
    ("norm_eps",): ("norm is neither dyt nor none", lambda c: c.norm not in ("dyt", "none")),
    ("norm_bias",): ("norm is neither cosine nor none, and norm_affine is on",
                     lambda c: c.norm not in ("cosine", "none") and c.norm_affine),
    ("norm_unit_offset",): ("norm is none of cosine, dyt and none, and norm_affine is on",
                            lambda c: c.norm not in ("cosine", "dyt", "none") and c.norm_affine),
    ("window_pattern",): ("window is given", lambda c: c.window is not None),
    ("rope_theta", "rope_fraction", "rope_layout"): ("position is rope", lambda c: c.position == "rope"),
    ("position",): ("a mixer is attention, or position is learned or sinusoidal",
                    lambda c: c.attends or c.position in ("learned", "sinusoidal")),
    ("activation", "mlp_bias", "mlp_dropout", "hidden_dim"): ("mlp is not none",
                                                              lambda c: c.mlp != "none"),
    ("hidden_mult", "hidden_multiple_of"): ("mlp is not none and hidden_dim is not given",
                                            lambda c: c.mlp != "none" and c.hidden_dim is None),
    ("residual", "residual_scale", "residual_dropout"): ("a layer has a mixer or an MLP", _has_branches),
    ("pointer_dim",): ("pointer is on", lambda c: c.pointer),
    ("head_zero_init",): ("tie_embeddings is off", lambda c: not c.tie_embeddings),
}


# what a flag says when it asks for nothing, where that is not None, False or "none"; these are
# constants, so that editing a default above still refuses the edit that would be ignored
_NEUTRAL = {"attn_kernel": "fused", "norm_affine": True, "norm_eps": 1e-6, "window_pattern": "S",
            "rope_theta": 10_000.0, "rope_fraction": 1.0, "rope_layout": "half", "position": "rope",
            "activation": "relu2", "hidden_mult": 4.0, "hidden_multiple_of": 32, "residual": "pre",
            "residual_scale": 1.0, "pointer_dim": 64}


def _check_ignored(cfg: Any, conditions: Mapping, neutral_values: Mapping[str, Any]) -> None:
    """Raise ValueError where a flag asks for something but would change nothing."""
    for names, (condition, acts) in conditions.items():
        for name in names:
            value, neutral = getattr(cfg, name), neutral_values.get(name)
            if value not in (neutral, _default(cfg, name), None, False, "none") and not acts(cfg):
                raise ValueError(f"{name}={value} would change nothing: it acts only when {condition}; "
                                 f"otherwise leave it at {neutral or 'none, or off'}")


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class DataConfig:
    """The text to learn from."""

    name: Names = ("tales",)  # tales (built in), tinystories, tinystories-v2, fineweb-edu, wikipedia, a Hub dataset (owner/name, owner/name:split), or files: .txt, .jsonl, .csv, .parquet, each also .gz or .zst, a folder or a glob of them. Several are mixed
    weights: tuple[float, ...] = ()  # each name's share of the training tokens, any scale; none given = all tokens count alike
    val_name: Names = ()  # texts to validate on, named as above; none given = a part of each name's own
    val_ratio: float = 0.1  # part held out for validation: of text files the last documents, or the end of a single one; of tables and Hub datasets documents evenly spread
    separator: str | None = None  # text files: what stands between documents, e.g. "\n\n"; None = a file is one document
    column: str | None = None  # tables and Hub datasets: the column with the text; None = text (Tweets_cricket: tweet)
    subset: str | None = None  # Hub datasets: which configuration; None = its default (fineweb-edu: sample-10BT, wikipedia: 20231101.en)
    revision: str | None = None  # Hub datasets: a branch, tag or commit; None = main, as it was when first used here
    streaming: bool = False  # Hub datasets: read over the network while encoding, and store no download
    sample_ratio: float = 1.0  # share of the documents that is used, drawn by the seed; not of tales
    max_documents: int | None = None  # use at most so many documents of each name, the first ones; not of tales
    num_stories: int = 60_000  # tales: stories to train on; about 0.5 kB each
    seed: int = 0  # tales: which stories; sample_ratio: which documents. The same seed is the same corpus
    workers: int | None = None  # processes that encode; changes no token. None = one a core, and none for short texts
    cache_dir: str = ".cache/data"  # where downloads and encoded text are kept; may be deleted at any time
    packing: Packing = "stream"  # a row of max_seq_len tokens is contiguous text (stream), a document and padding (pad), or several whole documents that do not see each other (documents, arXiv:2404.10830)
    prefetch: int = 2  # batches that a thread makes ready ahead of their use; 0 = no thread. Changes no result

    def __post_init__(self):
        _require_between(self, "val_ratio", 0.0, 1.0, open_ends=True)
        for name in ("num_stories", "sample_ratio", "max_documents", "workers"):
            _require_positive(self, name)
        for name in ("seed", "prefetch"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}={getattr(self, name)} is below 0")
        if self.sample_ratio > 1:
            raise ValueError(f"sample_ratio={self.sample_ratio} must lie between 0 and 1")
        if self.separator == "":
            raise ValueError("separator='' is empty: leave it out, or give e.g. a blank line")
        if self.separator is not None:  # a shell hands "\n" on as two characters
            object.__setattr__(self, "separator", self.separator.replace("\\n", "\n").replace("\\t", "\t"))
        if not self.name:
            raise ValueError("name=() names no text: give a file, a Hub dataset, or tales")
        for name in (*self.name, *self.val_name):
            if (self.name + self.val_name).count(name) > 1:
                raise ValueError(f"name={' '.join(self.name + self.val_name)} has {name} twice: leave one out")
        if self.weights and len(self.weights) != len(self.name):
            raise ValueError(f"weights={_words(self.weights)} must be one for each data.name: give {len(self.name)}, or none")
        if not all(0 < weight < math.inf for weight in self.weights):
            raise ValueError(f"weights={_words(self.weights)} must all be above 0, and finite")
        _check_ignored(self, _DATA_ACTS_WHEN, {"val_ratio": 0.1, "num_stories": 60_000, "seed": 0, "weights": ()})

    @property
    def cache_path(self) -> Path:
        """The cache's folder: cache_dir, from the project's folder where it is relative."""
        return Path(__file__).resolve().parent / self.cache_dir


def _has_tales(cfg: DataConfig) -> bool:
    return "tales" in cfg.name + cfg.val_name


_DATA_ACTS_WHEN = {
    ("weights",): ("data.name has several texts", lambda c: len(c.name) > 1),
    ("val_ratio",): ("val_name is not given", lambda c: not c.val_name),
    ("num_stories",): ("a text is tales", _has_tales),
    ("seed",): ("a text is tales, or sample_ratio is below 1", lambda c: _has_tales(c) or c.sample_ratio < 1),
    ("sample_ratio", "max_documents", "separator", "column", "subset", "revision", "streaming"): (
        "a text is not tales", lambda c: {*c.name, *c.val_name} != {"tales"}),
}


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class TokenizerConfig:
    """How text becomes tokens."""

    kind: TokenizerKind = "bpe"  # char, byte, SentencePiece's bpe and unigram, or hf_bpe: bytes merged within words as GPT-4 draws them; trained on the corpus, on an even sample of 100 MB at most
    vocab_size: int | None = None  # entries of a bpe, unigram or hf_bpe vocabulary; None = 4096 for bpe on tales, else 2048
    path: str | None = None  # a tokenizer's folder (saved here, GPT-2's vocab.json and merges.txt, or with a tokenizer.json), a built one (tales_4096), or OWNER/NAME on the Hugging Face Hub (openai-community/gpt2); None = by kind and vocab_size

    def __post_init__(self):
        _require_positive(self, "vocab_size")
        if self.vocab_size is not None and self.kind in ("char", "byte"):
            raise ValueError(f"vocab_size={self.vocab_size} would change nothing: a {self.kind} "
                             "tokenizer's size follows from its kind; leave it out, or use kind=bpe")
        if self.path is not None and (self.kind != "bpe" or self.vocab_size is not None):
            raise ValueError(f"path={self.path!r} already fixes the tokenizer: leave out kind and "
                             "vocab_size")


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class TrainConfig:
    """The optimisation, and what is written down along the way."""

    name: str | None = None  # the run's folder in models/; None = the preset's name, numbered where taken
    steps: int = 2000  # optimizer steps; more of them with --resume: from there on the learning rate is that of the longer run's schedule
    time_limit: str | None = None  # save and stop before so much time is over: 90s, 50m or 1.5h; --resume goes on, with a fresh limit
    memory_limit: str | None = None  # refuse to begin what would take more than e.g. 2GB in all, and end what does; None = what is free
    init_from: str | None = None  # begin with the weights of a run (its best), or of a folder or file with model.safetensors
    allow_partial: bool = False  # init_from: tensors that do not fit this model begin fresh, and are named
    batch_size: int = 8  # rows of max_seq_len tokens in a forward pass
    accumulation: int = 1  # forward passes added up in a step
    seed: int = 0  # of the weights, the order of the data, dropout

    optimizer: Optimizer = "muon"  # adamw arXiv:1711.05101; muon arXiv:2502.16982 and soap arXiv:2409.11321 on matrices, adamw on the rest; adam arXiv:1412.6980; sgd; lion arXiv:2302.06675; adafactor arXiv:1804.04235; schedule_free (AdamW) arXiv:2405.15682
    lr: float = 6e-3  # peak learning rate of the matrices
    embed_lr_mult: float = 1.0  # the embedding's rate / lr
    head_lr_mult: float = 1.0  # the head's rate / lr
    vector_lr_mult: float = 1.0  # norms' and biases' rate / lr
    beta1: float = 0.9  # decay of the mean gradient; schedule_free: share of the average in the weights that are trained
    beta2: float = 0.95  # decay of the mean square gradient; lion: of the mean gradient, beta1 weighs it in a step
    adam_eps: float = 1e-8  # adam, adamw and their kin: floor of the denominator
    momentum: float = 0.95  # muon and sgd: momentum (Nesterov)
    precondition_every: int = 10  # soap: steps between updates of its bases
    weight_decay: float | None = None  # decoupled, times the learning rate; matrices and embeddings only; None = 0.1. adam and sgd add it to the gradient (L2), None = 0
    grad_clip: float | None = 1.0  # largest norm of the gradient; None = no limit

    ema_decay: float | None = None  # keep a moving average of the weights, with this decay a step; evaluated and saved besides; None = off

    schedule: Schedule = "wsd"  # after the warmup: constant, linear, cosine, restarts (cosines in a row), wsd (flat, then linear decay), inverse_sqrt, step
    schedule_unit: ScheduleUnit = "steps"  # what warmup and schedule are counted in; they differ where the batch grows
    warmup_steps: int | None = None  # steps from 0 to the peak rate; None = 2 % of the steps
    warmup_tokens: int | None = None  # the same in tokens, for schedule_unit=tokens; None = 2 % of the run's
    ramp_tokens: int | None = None  # a step's forward passes grow from 1 to accumulation over the first so many tokens; None = all from the start. arXiv:2005.14165
    min_lr_ratio: float = 0.0  # last rate / peak rate; linear, cosine, restarts and wsd
    flat_fraction: float = 0.0  # last part of the run, at the last rate; linear, cosine, restarts and wsd
    num_cycles: int = 4  # restarts: cosines in a row, each from the peak. arXiv:1608.03983
    cycle_growth: float = 1.0  # restarts: length of a cycle / that of the one before
    decay_fraction: float = 0.5  # wsd: last part of the steps that decays. arXiv:2404.06395
    step_size: int = 1  # step: the rate falls every so many step_units
    step_unit: StepUnit = "epochs"  # step: counted in steps or in epochs (passes over the training part)
    step_gamma: float = 0.9  # step: factor of each fall

    precision: Precision = "auto"  # bfloat16: forward under autocast, weights stay float32; auto = where it is fast
    compile: bool = False  # torch.compile the model: slow start, then faster steps
    checkpoint_activations: bool = False  # keep only what goes from block to block, compute the rest again for the gradient: less memory, slower steps, same results. arXiv:1604.06174
    loss_chunk: int | None = None  # positions of each row that have logits at a time, made again for the gradient: less memory with a large vocabulary; None = all
    device: str = "auto"  # auto = cuda, else mps, else cpu
    deterministic: bool = False  # only algorithms that repeat their bits, or an error; on a GPU they repeat with the same model of GPU, driver and torch only

    log_every: int = 10  # steps between lines of the log
    eval_every: int = 250  # steps between evaluations on the validation part; the last step is always one
    eval_tokens: int | None = 100_000  # tokens of the validation part used for it; None = all. The last step uses all
    sample_every: int = 250  # steps between samples
    checkpoint_every: int = 250  # steps between checkpoints; the last step is always one
    keep_checkpoints: int = 2  # newest ones kept; the best one is kept besides
    log_grad_norms: bool = False  # columns in the log: the gradient's norm in each layer
    log_noise_scale: bool = False  # columns in the log: the batch size, in tokens, at which noise equals signal. arXiv:1812.06162
    graded_stories: int = 100  # tales: stories sampled at the end at temperature 0.8 and graded; 0 = none
    trackers: tuple[Tracker, ...] = ()  # where the log goes besides log.csv: tensorboard (in the run's folder), wandb (without a network: WANDB_MODE=offline)

    @property
    def time_limit_seconds(self) -> float | None:
        return None if self.time_limit is None else parse_seconds(self.time_limit)

    @property
    def memory_limit_bytes(self) -> int | None:
        return None if self.memory_limit is None else parse_bytes(self.memory_limit)

    @property
    def decay(self) -> float:
        """What weight_decay comes to."""
        if self.weight_decay is not None:
            return self.weight_decay
        return 0.0 if self.optimizer in ("adam", "sgd") else 0.1

    def __post_init__(self):
        for name in ("steps", "batch_size", "accumulation", "lr", "embed_lr_mult", "head_lr_mult",
                     "vector_lr_mult", "adam_eps", "grad_clip", "step_size", "step_gamma", "precondition_every",
                     "ramp_tokens", "num_cycles", "cycle_growth",
                     "log_every", "eval_every", "eval_tokens", "sample_every", "checkpoint_every",
                     "keep_checkpoints", "loss_chunk"):
            _require_positive(self, name)
        for name in ("beta1", "beta2", "momentum", "min_lr_ratio", "decay_fraction", "flat_fraction"):
            _require_between(self, name, 0.0, 1.0)
        if self.ema_decay is not None:
            _require_between(self, "ema_decay", 0.0, 1.0, open_ends=True)
        for name in ("warmup_steps", "warmup_tokens", "weight_decay", "graded_stories"):
            value = getattr(self, name) or 0
            if not 0 <= value < math.inf:
                raise ValueError(f"{name}={value} is {'below 0' if value < 0 else 'not finite'}")
        _check_optimizer(self)
        if self.warmup_steps == 0 and self.schedule_unit == "tokens":  # 0 asks for something, unlike other flags'
            raise ValueError("warmup_steps=0 would change nothing with schedule_unit=tokens: use warmup_tokens=0")
        if self.time_limit is not None and not 0 < parse_seconds(self.time_limit) < math.inf:
            raise ValueError(f"time_limit={self.time_limit} is no time: use e.g. 90s, 50m or 1.5h")
        if self.memory_limit is not None and not self.memory_limit_bytes:
            raise ValueError(f"memory_limit={self.memory_limit} is no size: use e.g. 800MB or 2GB")
        if len(set(self.trackers)) < len(self.trackers):
            raise ValueError(f"trackers={' '.join(self.trackers)} names one twice: name each once")
        _check_ignored(self, _TRAIN_ACTS_WHEN, _TRAIN_NEUTRAL)
        if self.name is not None and not _is_folder_name(self.name):
            raise ValueError(f"name={self.name!r} is no folder name: use letters, digits, '.', '_', '-'")


def _check_optimizer(cfg: TrainConfig) -> None:
    """Raise ValueError where flags ask for what the optimizer cannot do."""
    for name in ("beta1", "beta2", "momentum"):
        if getattr(cfg, name) == 1:
            raise ValueError(f"{name}=1.0 never lets a gradient in: use less than 1")
    if cfg.optimizer == "schedule_free":
        if cfg.schedule != "constant":
            raise ValueError(f"schedule={cfg.schedule!r} does not go with optimizer=schedule_free, which averages the "
                             "weights in place of lowering the rate: use schedule=constant")
        if cfg.beta1 == 0:
            raise ValueError("beta1=0 leaves optimizer=schedule_free without its average: use e.g. 0.9")
        if cfg.ema_decay is not None:
            raise ValueError(f"ema_decay={cfg.ema_decay} would average what optimizer=schedule_free has averaged: "
                             "leave it out, or use another optimizer")


def _ends_low(cfg: TrainConfig) -> bool:
    return cfg.schedule in ("linear", "cosine", "restarts", "wsd")


_TRAIN_ACTS_WHEN = {
    ("step_size", "step_unit", "step_gamma"): ("schedule is step", lambda c: c.schedule == "step"),
    ("momentum",): ("optimizer is muon or sgd", lambda c: c.optimizer in ("muon", "sgd")),
    ("beta1", "beta2"): ("optimizer is neither sgd nor adafactor", lambda c: c.optimizer not in ("sgd", "adafactor")),
    ("adam_eps",): ("optimizer is none of sgd, adafactor and lion",
                    lambda c: c.optimizer not in ("sgd", "adafactor", "lion")),
    ("precondition_every",): ("optimizer is soap", lambda c: c.optimizer == "soap"),
    ("decay_fraction",): ("schedule is wsd", lambda c: c.schedule == "wsd"),
    ("min_lr_ratio", "flat_fraction"): ("schedule is linear, cosine, restarts or wsd", _ends_low),
    ("num_cycles",): ("schedule is restarts", lambda c: c.schedule == "restarts"),
    ("cycle_growth",): ("schedule is restarts and num_cycles is above 1",
                        lambda c: c.schedule == "restarts" and c.num_cycles > 1),
    ("schedule_unit",): ("schedule is not step, and warmup_tokens or ramp_tokens is given",
                         lambda c: c.schedule != "step" and (c.warmup_tokens is not None or c.ramp_tokens)),
    ("warmup_steps",): ("schedule_unit is steps", lambda c: c.schedule_unit == "steps"),
    ("warmup_tokens",): ("schedule_unit is tokens", lambda c: c.schedule_unit == "tokens"),
    ("ramp_tokens", "log_noise_scale"): ("accumulation is above 1", lambda c: c.accumulation > 1),
    ("allow_partial",): ("init_from is given", lambda c: c.init_from is not None),
}
_TRAIN_NEUTRAL = {"step_size": 1, "step_unit": "epochs", "step_gamma": 0.9, "momentum": 0.95, "beta1": 0.9,
                  "beta2": 0.95, "adam_eps": 1e-8, "precondition_every": 10, "decay_fraction": 0.5, "num_cycles": 4,
                  "cycle_growth": 1.0, "schedule_unit": "steps"}


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class SampleConfig:
    """How text is drawn from a model."""

    prompts: tuple[str, ...] = ()  # texts to continue; none given = how the corpus opens (tales: "Once")
    num_samples: int = 3  # continuations of each prompt
    max_new_tokens: int = 250  # tokens added at most
    temperature: float = 0.8  # divides the logits; 0 = greedy
    top_k: int | None = None  # keep the k likeliest tokens; None = all
    top_p: float | None = None  # keep the likeliest tokens that add up to p. arXiv:1904.09751
    min_p: float | None = None  # keep tokens at least min_p times as likely as the likeliest. arXiv:2407.01082
    repetition_penalty: float = 1.0  # divides positive and multiplies negative logits of tokens already there. arXiv:1909.05858
    stop_at_eos: bool = True  # end a text at the end-of-text token
    seed: int = 0  # of the draws; each text has its own stream, so a batch changes nothing

    def __post_init__(self):
        for name in ("num_samples", "max_new_tokens", "top_k", "repetition_penalty"):
            _require_positive(self, name)
        if not 0 <= self.temperature < math.inf:
            raise ValueError(f"temperature={self.temperature} is {'below 0' if self.temperature < 0 else 'not finite'}: "
                             "use 0 for greedy")
        for name in ("top_p", "min_p"):
            if getattr(self, name) is not None:
                _require_between(self, name, 0.0, 1.0)
        if self.top_p == 0:
            raise ValueError("top_p=0 keeps no token: use temperature=0 for greedy")


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class Config:
    """A whole experiment: model, data, tokenizer, training, sampling."""

    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    sample: SampleConfig = field(default_factory=SampleConfig)


def override(cfg: Config, changes: Mapping[str, Any]) -> Config:
    """Return `cfg` with flags changed by their dotted names, e.g. {"model.dim": 64}; checked again.

    Nested mappings work too: {"model": {"dim": 64}}. Raises ValueError naming an unknown flag.
    """
    tree = to_dict(cfg)
    for dotted, value in _flatten(changes).items():
        section, _, name = dotted.partition(".")
        if name not in tree.get(section, {}):
            raise ValueError(f"{dotted} is no flag: see --help for all of them")
        tree[section][name] = value
    return from_dict(tree)


def to_dict(cfg: Config) -> dict[str, dict[str, Any]]:
    """A configuration as plain nested dicts, for JSON."""
    return asdict(cfg)


def from_dict(tree: Mapping[str, Any]) -> Config:
    """The configuration that `to_dict` gave; missing flags take their defaults.

    Raises ValueError with one sentence for each unknown flag or wrong value.
    """
    try:
        return TypeAdapter(Config).validate_python(dict(tree))
    except ValidationError as error:
        raise ValueError(explain(error)) from None


def save_config(cfg: Config, path: Path) -> None:
    path.write_text(json.dumps(to_dict(cfg), indent=2) + "\n", encoding="utf-8")


def load_config(path: Path) -> Config:
    """Read a configuration from JSON or YAML. Raises ValueError naming the file and what is wrong."""
    try:
        tree = yaml.safe_load(Path(path).read_text(encoding="utf-8"))  # JSON is YAML too
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is neither JSON nor YAML: {' '.join(str(error).split())}") from None
    if not isinstance(tree, dict):
        raise ValueError(f"{path} holds no configuration: expected sections such as model and train")
    try:
        return from_dict(tree)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def explain(error: ValidationError) -> str:
    """What pydantic found wrong, in one sentence per flag."""
    return "; ".join(_sentence(problem) for problem in error.errors())


def _sentence(problem: Mapping[str, Any]) -> str:
    # a union reports each of its members; their names are no part of the flag
    flag = ".".join(str(part) for part in problem["loc"] if not str(part).startswith(("literal[", "float")))
    given = problem["input"]
    match problem["type"]:
        case "value_error":
            return f"{flag}.{problem['ctx']['error']}" if flag else str(problem["ctx"]["error"])
        case "literal_error":
            choices = problem["ctx"]["expected"].replace("'", "")
            return f"{flag}={given!r} is not known: use one of {choices}"
        case "unexpected_keyword_argument" | "extra_forbidden":
            return f"{flag} is no flag: see --help for all of them"
        case _:
            return f"{flag}={given!r} is wrong: {problem['msg'][0].lower()}{problem['msg'][1:]}"


def _flatten(changes: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat = {}
    for key, value in changes.items():
        nested = isinstance(value, Mapping)
        flat |= _flatten(value, f"{prefix}{key}.") if nested else {prefix + key: value}
    return flat


def _default(cfg: Any, name: str) -> Any:
    return next(f.default for f in fields(cfg) if f.name == name)


def _words(values: tuple[Any, ...]) -> str:
    return " ".join(map(str, values))


def _round_up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple


def parse_bytes(size: str) -> int:
    """The bytes in e.g. "800MB", "2GB" or "1.5GiB"; 0 where it is no size."""
    try:
        return TypeAdapter(ByteSize).validate_python(size)
    except ValidationError:
        return 0


def parse_seconds(duration: str) -> float:
    """The seconds in e.g. "50m"; 0 where it is no duration."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", duration)
    return float(found[1]) * {"s": 1, "m": 60, "h": 3600}[found[2]] if found else 0.0


def _is_folder_name(name: str) -> bool:
    return name not in ("", ".", "..") and all(c.isalnum() or c in "._-" for c in name)


def _require_positive(cfg: Any, name: str) -> None:
    value = getattr(cfg, name)
    if isinstance(value, int | float) and not 0 < value < math.inf:
        raise ValueError(f"{name}={value} must be above 0{', and finite' if not value <= 0 else ''}")


def _require_between(cfg: Any, name: str, low: float, high: float, *, open_ends: bool = False) -> None:
    value = getattr(cfg, name)
    if not (low < value < high if open_ends else low <= value <= high):
        raise ValueError(f"{name}={value} must lie between {low:g} and {high:g}")
