"""Every flag of Shapeshifter: its name, type, default and meaning.

Edit a default here and run `python train.py`, or set flags on the command line. `replace(cfg, ...)` and
`override(cfg, {"model.rope.theta": 5e5})` return a changed configuration, checked again. Configurations are frozen.
"""

import math
from dataclasses import field
from functools import partial
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import BeforeValidator

from configuration import model_rules, recurrent, rules
from configuration.checked import CHECKED, flags
from configuration.checks import (
    check_experts,
    require_between,
    require_not_negative,
    require_positive,
    rotated_channels,
)
from configuration.objectives import (
    FACTS,
    NUM_SENTINELS,
    DenoiseConfig,
    DiffuseqConfig,
    DiffusionConfig,
    Facts,
    FimConfig,
    MaskedConfig,
    MultiTokenConfig,
    SpansConfig,
    VectorsConfig,
    facts_of,
)
from configuration.stacks import encoder_of, last_layer_alone, require_both_ways
from configuration.storage import load, save_config
from configuration.tree import build, diff, flat, get, override, replace, to_dict
from configuration.units import in_bfloat16, parse_bytes, parse_seconds

__all__ = [
    "CHECKED", "AlibiConfig", "AttentionConfig", "AttnresConfig", "BigramConfig", "ClampedGluConfig", "Config",
    "DataConfig", "DenoiseConfig", "DiffuseqConfig", "DiffusionConfig", "EngramConfig", "FACTS", "FimConfig",
    "HrmConfig", "HyperConfig", "IndexerConfig", "LatentConfig", "LayerConfig", "LoopConfig", "MaskedConfig",
    "ModelConfig", "MoeConfig", "MultiTokenConfig", "NUM_SENTINELS", "NgptConfig", "ProbeConfig", "RopeConfig",
    "SampleConfig", "SinusoidalConfig", "SpansConfig", "T5Config", "TokenizerConfig", "TrainConfig", "VectorsConfig",
    "diff", "flags", "flat", "from_dict", "get", "load_config", "override", "parse_bytes", "parse_seconds", "replace",
    "require_both_ways", "rotated_channels", "save_config", "to_dict",
]

Mixer = Literal["attention", "cema", "deltanet", "gated_delta", "gdn2", "gla", "gru", "hgrn2", "hyena", "kda", "latent", "lightning", "linear", "long_conv", "lstm", "mamba", "mamba2", "mamba3", "min_gru", "min_lstm", "mlstm", "mlstm_v1", "none", "retnet", "rg_lru", "rwkv7", "short_conv", "slstm"]
Mlp = Literal["mlp", "glu", "clamped_glu", "scaled_glu", "moe", "none"]
Cross = Literal["attention", "none"]
Branch = Literal["mixer", "mlp"]
CanonPlace = Literal["mixer", "qkv", "mlp", "hidden"]
Memory = Literal["none", "bigram", "engram"]
Ahead = Literal["none", "heads", "modules"]
Expert = Literal["mlp", "glu", "clamped_glu"]
ExpertScores = Literal["softmax", "sigmoid", "sparsemixer"]
GATED = ("glu", "clamped_glu", "scaled_glu")  # of Mlp, those with a third matrix
Activation = Literal["relu", "relu2", "gelu", "gelu_tanh", "quick_gelu", "silu", "mish", "xielu", "none"]
Norm = Literal["rms", "layer", "cosine", "l2", "dyt", "none"]
Residual = Literal["pre", "post", "sandwich", "branch_post", "parallel", "parallel_each", "two_hop", "ngpt", "hyper", "mhc", "attnres", "none"]
Stack = Literal["plain", "loop", "hrm", "unet"]
QKNorm = Literal["none", "head", "each_head", "full", "unit"]
OutputGate = Literal["none", "head", "channel"]
ValueResidual = Literal["none", "fixed", "learned"]
Position = Literal["none", "learned", "sinusoidal", "rope", "alibi", "t5"]
RopeLayout = Literal["half", "interleaved"]
RopeScaling = Literal["none", "linear", "ntk", "llama3", "yarn"]
AttentionBackend = Literal["sdpa", "eager"]
Init = Literal["normal", "fan_in", "xavier"]
OutInit = Literal["same", "depth", "zero"]
Scaling = Literal["standard", "mup", "completep"]
TokenizerKind = Literal["char", "byte", "bpe", "unigram", "hf_bpe"]
ObjectiveKind = Literal[
    "next_token", "multi_token", "prefix", "fill_in_the_middle", "masked", "masked_diffusion", "block_diffusion", "diffuseq",
    "seq2seq", "span_corruption"]
Optimizer = Literal["adamw", "muon", "adam", "sgd", "lion", "adafactor", "soap", "schedule_free"]
Schedule = Literal["constant", "linear", "cosine", "restarts", "wsd", "inverse_sqrt", "step"]
ScheduleUnit = Literal["steps", "tokens"]
StepUnit = Literal["steps", "epochs"]
Precision = Literal["auto", "float32", "bfloat16"]
Packing = Literal["stream", "pad", "documents"]
Probe = Literal[
    "mqar", "recall", "noisy_recall", "fuzzy_recall", "memorisation", "induction", "needle", "selective_copying", "copying",
    "ngram_lookup", "parity", "modular_arithmetic", "s3", "a5", "s5", "z60", "depo", "mano"]
TALES = ("tales", "tales-opening", "tales-reversed", "tales-questions")  # the stories, and pairs made of them
Names = Annotated[tuple[str, ...], BeforeValidator(lambda given: (given,) if isinstance(given, str) else given)]
Tracker = Literal["tensorboard", "wandb"]


@flags
class AttentionConfig:
    """The numbers of mixer=attention and of cross=attention; mixer=latent has some of them."""

    num_heads: int = 4  # query heads (h)
    num_kv_heads: int | None = None  # key/value heads (g); None = num_heads, 1 = MQA. arXiv:2305.13245
    head_dim: int | None = None  # width of a head (p); None = dim / num_heads
    window: int | None = None  # tokens each query attends to, itself included; None = all previous ones
    dilation: int = 1  # distance between the tokens of a window, which reaches as many times farther back. arXiv:2004.05150
    chunk: int | None = None  # cut the text into chunks of this many tokens; a query attends within its own (block-local, as in Llama 4); None = off
    stride: int | None = None  # beside a window or chunk, attend to every stride-th token before, counted from the query; None = off. arXiv:1904.10509
    global_tokens: int = 0  # beside a window or chunk, the first tokens of a text, to which all attend and which attend to all. arXiv:2004.05150, 2309.17453
    softcap: float | None = None  # c * tanh(scores / c), as in Gemma 2 and Grok-1; None = off
    scale: float | None = None  # factor on q.k; None = head_dim ** -0.5
    temperature_scale: float | None = None  # a: multiply the query at position i, from 0, by 1 + a ln(1 + floor((i + temperature_first) / temperature_len)), for long texts, as in Llama 4; None = off. arXiv:2501.19399
    temperature_len: int = 8192  # tokens over which this factor stays the same
    temperature_first: int = 0  # number of the first token: 1 in Llama 4, 0 in Ministral 3
    dropout: float = 0.0  # probability of dropping an attention weight
    q_bias: bool = False  # bias of the query projection
    k_bias: bool = False  # bias of the key projection
    v_bias: bool = False  # bias of the value projection
    out_bias: bool = False  # bias of the output projection
    qk_norm_kind: Norm | None = None  # the norm of queries and keys; None = as norm
    qk_norm_affine: bool | None = None  # its learned scale; None = as norm_affine
    qk_norm_bias: bool | None = None  # its learned shift; None = as norm_bias
    qk_norm_after_rope: bool = False  # normalise queries and keys after they are rotated, not before
    clip: float | None = None  # clamp queries, keys and values to -clip ... clip before they are rotated, as in OLMo 1 and MPT; None = off
    gate: OutputGate = "none"  # multiply the output by a sigmoid of the input: one number for each head, or for each channel. arXiv:2505.06708
    sinks: bool = False  # a learned score for each head that takes attention and gives nothing, as in gpt-oss. arXiv:2309.17453
    differential: bool = False  # pairs of heads: the attention of one less a learned share of the other's. arXiv:2410.05258
    value_residual: ValueResidual = "none"  # mix the values with those of the first layer: half of each (fixed), or by two learned numbers. arXiv:2410.17897
    exclusive: bool = False  # take from a head's output what points along its own position's value, as far as it learns to (XSA). arXiv:2603.09078
    key_offset: bool = False  # take the second half of each key from the token before, as in modded-nanogpt
    value_embedding: bool = False  # add a learned vector of the token to its values, by a gate of each key/value head, as in nanochat; a table for each layer, by kinds
    value_gate_max: float = 2.0  # largest value of this gate, which is half of it if its weights are 0
    value_gate_dim: int = 32  # first channels of the layer's input that it reads, at most
    share_kv: bool = False  # use the keys and values of the last layer before that has its own and sees the same tokens: neither projections nor a cache. arXiv:2405.12981; by kinds, as in Gemma 3n
    backend: AttentionBackend = "sdpa"  # sdpa: one fused call; eager: scores computed step by step, for reading and tracing

    @property
    def kv_heads(self) -> int:
        return self.num_heads if self.num_kv_heads is None else self.num_kv_heads

    @property
    def pattern(self) -> tuple[int | None, ...]:
        """The flags that say which tokens a query sees."""
        return self.window, self.dilation, self.chunk, self.stride, self.global_tokens

    @property
    def is_fused(self) -> bool:
        """Whether one fused call attends; what it cannot do is done step by step."""
        return self.backend == "sdpa" and self.softcap is None and not self.sinks

    def __post_init__(self):
        require_positive(self, "num_heads", "num_kv_heads", "head_dim", "window", "dilation", "chunk", "stride",
                         "softcap", "scale", "clip", "temperature_scale", "temperature_len", "value_gate_max",
                         "value_gate_dim")
        require_not_negative(self, "global_tokens", "temperature_first")
        require_between(self, "dropout")
        if self.stride == 1:
            raise ValueError("stride=1 is every token: leave it out, and the window or chunk too")


@flags
class LatentConfig:
    """The numbers of mixer=latent, besides those of attention."""

    kv_rank: int = 64  # numbers of the vector of a token from which its keys and values come (r); with rope_dim all that is cached
    q_rank: int | None = None  # numbers of the vector from which its queries come; None = they come from the stream
    nope_dim: int = 32  # width of the part of a query and key that has no position
    rope_dim: int = 16  # width of the part that has one; a token has one such key, which all heads share
    v_dim: int = 32  # width of a head's values
    bias: bool = False  # biases of the projections to these vectors
    norm_eps: float = 1e-6  # of the norms of these vectors

    @property
    def head_dim(self) -> int:
        return self.nope_dim + self.rope_dim

    def __post_init__(self):
        require_positive(self, "kv_rank", "q_rank", "nope_dim", "rope_dim", "v_dim", "norm_eps")


@flags
class IndexerConfig:
    """The numbers of the indexer of mixer=attention or latent, which chooses the keys that a query attends to."""

    top_k: int | None = None  # keys that a query attends to, of those that it sees, by the scores of a small indexer that learns to predict attention; None = all, without an indexer. arXiv:2512.02556
    num_heads: int = 4  # its heads, whose queries meet one key of each token (j)
    head_dim: int = 32  # width of these queries and keys; with mixer=latent the first latent.rope_dim channels have a position
    loss: float = 1.0  # coefficient of its loss, the divergence of its scores from the attention that all heads pay to the chosen keys; 0 = it does not learn

    def __post_init__(self):
        require_positive(self, "top_k", "num_heads", "head_dim")
        require_not_negative(self, "loss")


@flags
class RopeConfig:
    """The numbers of position=rope."""

    theta: float = 10_000.0  # base wavelength
    fraction: float = 1.0  # fraction of each head that is rotated
    layout: RopeLayout = "half"  # half: channel i pairs with i + p/2 (Llama); interleaved: 2i with 2i+1 (GPT-J)
    scaling: RopeScaling = "none"  # change the frequencies for texts `factor` times as long as the model learned from. linear arXiv:2306.15595; ntk, yarn arXiv:2309.00071; llama3 arXiv:2407.21783
    factor: float = 1.0  # scaling: length / original length
    original_len: int = 8192  # llama3, yarn: tokens of the texts that the model learned from before
    low_freq_factor: float = 1.0  # llama3: a pair with fewer turns over original_len is slowed down by the factor
    high_freq_factor: float = 4.0  # llama3: a pair with more turns is left as it is; between the two they are blended
    beta_fast: float = 32.0  # yarn: a pair with more turns over original_len is left as it is
    beta_slow: float = 1.0  # yarn: a pair with fewer turns is slowed down by the factor
    truncate: bool = True  # yarn: round the ends of the blended pairs to whole pairs
    attention_factor: float | None = None  # yarn: factor on rotated queries and keys; None = 0.1 ln(factor) + 1

    @property
    def magnitude(self) -> float:
        """The factor on rotated queries and keys."""
        if self.scaling != "yarn":
            return 1.0
        return 0.1 * math.log(self.factor) + 1 if self.attention_factor is None else self.attention_factor

    def __post_init__(self):
        require_positive(self, "theta", "factor", "original_len", "low_freq_factor", "high_freq_factor", "beta_fast",
                         "beta_slow", "attention_factor")
        if self.scaling == "none" and self.factor != 1:
            raise ValueError(f"factor={self.factor} would change nothing with scaling=none: give a scaling too")
        if self.scaling != "none" and self.factor <= 1:
            raise ValueError(f"scaling={self.scaling} needs a factor above 1, not factor={self.factor}")
        for low, high in (("low_freq_factor", "high_freq_factor"), ("beta_slow", "beta_fast")):
            if getattr(self, low) >= getattr(self, high):
                raise ValueError(f"{low}={getattr(self, low)} must be below {high}={getattr(self, high)}")


@flags
class AlibiConfig:
    """The numbers of position=alibi."""

    scale: float = 1.0  # factor on the slopes

    def __post_init__(self):
        require_positive(self, "scale")


@flags
class T5Config:
    """The numbers of position=t5."""

    num_buckets: int = 32  # learned numbers of each head: half for the nearest keys, one each, half for wider and wider distances; in an encoder half of them for each side
    max_distance: int = 128  # distance from which on all keys share the last number
    shared: bool = True  # one table, that of the first layer, for all layers; off: a table for each

    def __post_init__(self):
        require_positive(self, "num_buckets", "max_distance")
        if self.num_buckets < 2 or self.max_distance <= self.num_buckets // 2:
            raise ValueError(f"num_buckets={self.num_buckets} with max_distance={self.max_distance}: use 2 or more, and "
                             "a distance of more than half as many")


@flags
class SinusoidalConfig:
    """The numbers of position=sinusoidal."""

    theta: float = 10_000.0  # base wavelength
    layout: RopeLayout = "interleaved"  # interleaved: channels 2i and 2i + 1 are the sine and cosine of an angle; half: i and i + d/2 (CTRL, XGLM)
    first: int = 0  # position of the first token (XGLM 2)

    def __post_init__(self):
        require_positive(self, "theta")
        require_not_negative(self, "first")


@flags
class ClampedGluConfig:
    """The numbers of mlp=clamped_glu."""

    limit: float = 7.0  # largest value of a gate before its activation, and of what it multiplies, on both sides
    offset: float = 1.0  # added to what a gate multiplies: the gate alone passes too

    def __post_init__(self):
        require_positive(self, "limit")


@flags
class MoeConfig:
    """The numbers of mlp=moe. Each expert is as wide as hidden_dim."""

    expert: Expert = "glu"  # what the experts are
    num_experts: int = 8  # MLPs of a layer, of which each token goes through a few (e)
    top_k: int = 2  # experts of each token (k)
    scores: ExpertScores = "softmax"  # how the router scores experts: a softmax over all, a sigmoid of each as in DeepSeek-V3, or for each choice a softmax over those near the best that is left, as in Phi-3.5-MoE. arXiv:2409.12136
    margin: float = 0.02  # sparsemixer: an expert is near the best if it is below by no more than this, as a share of the larger of the best and its own size
    renormalise: bool = True  # divide the scores of the chosen experts by their sum, as Mixtral does and OLMoE does not
    scale: float = 1.0  # factor on them
    weigh_inputs: bool = False  # multiply what an expert reads, not what it gives, as in Llama 4
    num_groups: int = 1  # groups of experts; a token chooses in the best of them. arXiv:2405.04434
    top_groups: int = 1  # number of these
    router_bias: bool = False  # bias of the router's scores, as in gpt-oss
    shared_dim: int | None = None  # width of an MLP that every token goes through besides; None = there is none. arXiv:2401.06066
    shared_gate: bool = False  # multiply what it gives by a sigmoid of the token, as in Qwen2-MoE
    balance_loss: float = 0.0  # coefficient of a loss that is 1 if all experts have the same load. arXiv:2101.03961
    router_z_loss: float = 0.0  # coefficient of mean(logsumexp(scores)^2), which keeps the router's numbers small. arXiv:2202.08906
    balance_bias: bool = False  # a number for each expert, added to its score for the choice, that rises while it has too few tokens: balance without a loss. arXiv:2408.15664
    balance_logits: bool = False  # add it before the softmax or sigmoid, as in Kolibri
    bias_rate: float = 0.001  # how far it moves after each step

    def __post_init__(self):
        require_positive(self, "num_experts", "top_k", "scale", "num_groups", "top_groups", "shared_dim")
        require_not_negative(self, "balance_loss", "router_z_loss", "bias_rate", "margin")
        check_experts(self)


@flags
class BigramConfig:
    """The numbers of memory=bigram."""

    factor: int = 5  # rows of the table / ids of the vocabulary
    start: float = 0.1  # factor on its vectors in each layer, at first; learned

    def __post_init__(self):
        require_positive(self, "factor", "start")


@flags
class EngramConfig:
    """The numbers of memory=engram."""

    max_n: int = 3  # tokens of the longest n-grams; the shortest have 2
    num_heads: int = 4  # hashes of an n-gram, each with a table of its own
    head_dim: int = 16  # width of a row; those of all n and heads stand side by side
    rows: int = 4096  # of each table, at least: their sizes are the prime numbers from here on
    conv_len: int = 4  # tokens of the convolution, which are max_n apart
    seed: int = 0  # of the factors that hash; another number in each layer
    eos_id: int | None = None  # id that ends a text: no n-gram reaches beyond it, and before a text all tokens are this one; None = that of the tokenizer
    norm_eps: float = 1e-6  # of its norms

    def __post_init__(self):
        require_positive(self, "num_heads", "head_dim", "rows", "norm_eps")
        require_not_negative(self, "seed", "eos_id")
        if min(self.max_n, self.conv_len) < 2:
            raise ValueError(f"max_n={self.max_n} with conv_len={self.conv_len}: both reach earlier tokens; use 2 or more")


@flags
class NgptConfig:
    """The numbers of residual=ngpt."""

    alpha: float = 0.05  # step of the stream towards what a branch gives, at first; learned for each channel

    def __post_init__(self):
        require_positive(self, "alpha")


@flags
class HyperConfig:
    """The numbers of residual=hyper and mhc."""

    num_streams: int = 4  # residual streams (n), each as wide as the model
    sinkhorn_steps: int = 20  # mhc: times that rows and columns of the mixing weights are normalised
    eps: float = 1e-6  # mhc: added to the weights and to their sums

    def __post_init__(self):
        require_positive(self, "num_streams", "sinkhorn_steps")
        require_not_negative(self, "eps")


@flags
class AttnresConfig:
    """The numbers of residual=attnres."""

    block_len: int = 1  # branches whose outputs are summed before later ones attend to them; 1 = each by itself

    def __post_init__(self):
        require_positive(self, "block_len")


@flags
class LoopConfig:
    """The numbers of stack=loop."""

    num_loops: int = 2  # passes through all layers
    inject: bool = False  # add the embedding to the stream before each further pass

    def __post_init__(self):
        if self.num_loops < 2:
            raise ValueError(f"num_loops={self.num_loops} is no loop: use 2 or more, or stack=plain")


@flags
class HrmConfig:
    """The numbers of stack=hrm, whose first half of layers is the fast one."""

    high_cycles: int = 2  # steps of the slow state
    low_cycles: int = 3  # steps of the fast state before each of them
    grad_cycles: int = 2  # steps of the fast state, before the last of the slow one, through which the gradient passes

    def __post_init__(self):
        require_positive(self, "high_cycles", "low_cycles", "grad_cycles")
        if self.grad_cycles > self.low_cycles:
            raise ValueError(f"grad_cycles={self.grad_cycles} is more than low_cycles={self.low_cycles}")


@flags
class ModelConfig:
    """The architecture: each choice is one word, and the numbers of a part form a group."""

    dim: int = 128  # width of the residual stream (d)
    num_layers: int = 3  # blocks (l)
    hidden_dim: int | None = None  # width of the MLP (f); None = from hidden_mult
    hidden_mult: float = 4.0  # hidden_dim / dim; a GLU takes 2/3 of it. arXiv:2002.05202
    hidden_multiple_of: int = 32  # round the hidden_dim from hidden_mult up to a multiple of this
    vocab_size: int | None = None  # size of the vocabulary (v); None = the tokenizer's
    vocab_multiple_of: int = 1  # round the vocabulary up to a multiple of this, for speed on GPUs
    max_seq_len: int = 256  # length of the context in tokens (t)

    mixer: Mixer = "attention"  # how information moves between positions: attention, latent arXiv:2405.04434, or a recurrence over the text: cema (moving averages, then attention within chunks; Megalodon) arXiv:2404.08801, deltanet arXiv:2406.06484, gated_delta arXiv:2412.06464, gdn2 arXiv:2605.22791, gla arXiv:2312.06635, gru arXiv:1406.1078, hgrn2 arXiv:2404.07904, hyena arXiv:2302.10866, kda arXiv:2510.26692, lightning arXiv:2501.08313, linear arXiv:2006.16236, long_conv arXiv:2302.06646, lstm (Hochreiter & Schmidhuber 1997), mamba arXiv:2312.00752, mamba2 arXiv:2405.21060, mamba3 arXiv:2603.15569, min_gru and min_lstm arXiv:2410.01201, mlstm, mlstm_v1 (with an up-projection) and slstm arXiv:2405.04517, retnet arXiv:2307.08621, rg_lru arXiv:2402.19427, rwkv7 arXiv:2503.14456, short_conv (of the last tokens only) arXiv:2511.23404
    beside: Mixer = "none"  # a second mixer, another one, which reads the same input as the first; what both give is added, as in Hymba arXiv:2411.13676 and Falcon-H1 arXiv:2507.22448
    cross: Cross = "none"  # attention to a source beside the text, between mixer and mlp; by kinds in some layers only. arXiv:1706.03762
    encoder_layers: int | None = None  # layers of an encoder that makes the source: the same flags without cross, not causal; it shares the embedding. None = the source comes from elsewhere
    mlp: Mlp = "mlp"  # mlp: two matrices; glu: three, gated; clamped_glu: gated and limited, with activation=quick_gelu that of gpt-oss; scaled_glu: with a learned scale for each hidden unit (nGPT); moe: a mixture of experts; none
    activation: Activation = "relu2"  # nonlinearity of the MLP; glu + silu = SwiGLU. relu2: arXiv:2109.08668; xielu: arXiv:2411.13010
    norm: Norm = "rms"  # rms arXiv:1910.07467, layer arXiv:1607.06450, cosine arXiv:1910.05895, l2 (unit length), dyt arXiv:2503.10622
    residual: Residual = "pre"  # position of the norms, and how branches join the residual stream; parallel: one norm for all branches, parallel_each: one for each; two_hop: the skip of the MLP begins before the mixer, arXiv:2404.08801; ngpt: steps on the sphere, arXiv:2410.01131; hyper: several streams, arXiv:2409.19606; mhc: the same with weights that keep their size, arXiv:2512.24880; attnres: attention over what earlier branches gave, arXiv:2603.15031; none = no skip connections
    position: Position = "rope"  # learned, sinusoidal arXiv:1706.03762, rope arXiv:2104.09864, alibi arXiv:2108.12409, t5 (learned numbers for distances) arXiv:1910.10683
    qk_norm: QKNorm = "head"  # normalise queries and keys per head, per head with a scale of its own for each, over the full projection, or to unit length with one learned scale for both (nGPT). arXiv:2302.05442
    pointer: bool = False  # add attention that copies earlier tokens into the prediction: it moves information too. arXiv:1609.07843
    pointer_dim: int = 64  # width of the pointer's queries and keys
    noised: bool = False  # read narrow vectors of tokens with noise, and how much of it, in place of tokens, and give the vectors without it: train.objective=diffuseq. arXiv:2210.08933
    noised_dim: int = 64  # width of these vectors (u), which are those of the head too
    noised_steps: int = 2000  # from a little noise to noise alone

    stack: Stack = "plain"  # the way through the layers: each once (plain); all several times with the same weights (loop), arXiv:1807.03819; a fast and a slow half in cycles (hrm), arXiv:2506.21734; with skips from the first half to the second (unet), as in modded-nanogpt
    memory: Memory = "none"  # add learned vectors of the last tokens to the stream before a layer, by kinds. bigram: of the last two, from one table of all layers, as in nanochat; engram: of hashed n-grams, which the stream gates, arXiv:2601.07372

    ahead: Ahead = "none"  # parts that predict tokens beyond the next, learned with train.objective=multi_token. heads: a block each, beside the last layer, arXiv:2404.19737; modules: one after another, each of which reads what the one before made and the next token, arXiv:2412.19437
    ahead_depth: int = 1  # number of these parts: the last predicts the token so many beyond the next

    layers: tuple[str, ...] = ("base",)  # the kind of each layer, repeated over the depth: base, a name in kinds, or a mixer
    kinds: dict[str, dict[str, Any]] = field(default_factory=dict)  # kind -> the flags in which it differs from the model: {"local": {"attention.window": 512}}

    attention: AttentionConfig = field(default_factory=AttentionConfig)  # mixer=attention or latent, and cross=attention
    latent: LatentConfig = field(default_factory=LatentConfig)  # mixer=latent: multi-head latent attention. arXiv:2405.04434
    indexer: IndexerConfig = field(default_factory=IndexerConfig)  # mixer=attention or latent: a few keys of each query (sparse attention that is learned). arXiv:2512.02556
    cema: recurrent.CemaConfig = field(default_factory=recurrent.CemaConfig)  # mixer=cema
    deltanet: recurrent.DeltaNetConfig = field(default_factory=recurrent.DeltaNetConfig)  # mixer=deltanet
    gated_delta: recurrent.GatedDeltaConfig = field(default_factory=recurrent.GatedDeltaConfig)  # mixer=gated_delta
    gdn2: recurrent.Gdn2Config = field(default_factory=recurrent.Gdn2Config)  # mixer=gdn2
    gla: recurrent.GlaConfig = field(default_factory=recurrent.GlaConfig)  # mixer=gla
    gru: recurrent.GruConfig = field(default_factory=recurrent.GruConfig)  # mixer=gru
    hgrn2: recurrent.Hgrn2Config = field(default_factory=recurrent.Hgrn2Config)  # mixer=hgrn2
    hyena: recurrent.HyenaConfig = field(default_factory=recurrent.HyenaConfig)  # mixer=hyena
    kda: recurrent.KdaConfig = field(default_factory=recurrent.KdaConfig)  # mixer=kda
    lightning: recurrent.LightningConfig = field(default_factory=recurrent.LightningConfig)  # mixer=lightning
    linear: recurrent.LinearConfig = field(default_factory=recurrent.LinearConfig)  # mixer=linear
    long_conv: recurrent.LongConvConfig = field(default_factory=recurrent.LongConvConfig)  # mixer=long_conv
    lstm: recurrent.LstmConfig = field(default_factory=recurrent.LstmConfig)  # mixer=lstm
    mamba: recurrent.MambaConfig = field(default_factory=recurrent.MambaConfig)  # mixer=mamba
    mamba2: recurrent.Mamba2Config = field(default_factory=recurrent.Mamba2Config)  # mixer=mamba2
    mamba3: recurrent.Mamba3Config = field(default_factory=recurrent.Mamba3Config)  # mixer=mamba3
    min_gru: recurrent.MinGruConfig = field(default_factory=recurrent.MinGruConfig)  # mixer=min_gru
    min_lstm: recurrent.MinLstmConfig = field(default_factory=recurrent.MinLstmConfig)  # mixer=min_lstm
    mlstm: recurrent.MlstmConfig = field(default_factory=recurrent.MlstmConfig)  # mixer=mlstm
    mlstm_v1: recurrent.MlstmV1Config = field(default_factory=recurrent.MlstmV1Config)  # mixer=mlstm_v1
    retnet: recurrent.RetnetConfig = field(default_factory=recurrent.RetnetConfig)  # mixer=retnet
    rg_lru: recurrent.RgLruConfig = field(default_factory=recurrent.RgLruConfig)  # mixer=rg_lru
    rwkv7: recurrent.Rwkv7Config = field(default_factory=recurrent.Rwkv7Config)  # mixer=rwkv7
    short_conv: recurrent.ShortConvConfig = field(default_factory=recurrent.ShortConvConfig)  # mixer=short_conv
    slstm: recurrent.SlstmConfig = field(default_factory=recurrent.SlstmConfig)  # mixer=slstm
    rope: RopeConfig = field(default_factory=RopeConfig)  # position=rope
    alibi: AlibiConfig = field(default_factory=AlibiConfig)  # position=alibi
    clamped_glu: ClampedGluConfig = field(default_factory=ClampedGluConfig)  # mlp=clamped_glu, or experts of that kind
    moe: MoeConfig = field(default_factory=MoeConfig)  # mlp=moe
    bigram: BigramConfig = field(default_factory=BigramConfig)  # memory=bigram
    engram: EngramConfig = field(default_factory=EngramConfig)  # memory=engram
    ngpt: NgptConfig = field(default_factory=NgptConfig)  # residual=ngpt
    hyper: HyperConfig = field(default_factory=HyperConfig)  # residual=hyper or mhc
    loop: LoopConfig = field(default_factory=LoopConfig)  # stack=loop
    hrm: HrmConfig = field(default_factory=HrmConfig)  # stack=hrm
    attnres: AttnresConfig = field(default_factory=AttnresConfig)  # residual=attnres
    t5: T5Config = field(default_factory=T5Config)  # position=t5
    sinusoidal: SinusoidalConfig = field(default_factory=SinusoidalConfig)  # position=sinusoidal

    mlp_bias: bool = False  # biases of the MLP
    head_bias: bool = False  # bias of the logits
    norm_eps: float = 1e-6  # added to the mean square (rms), the variance (layer) or the length (cosine)
    norm_affine: bool = True  # learned scale per channel (cosine: one for all channels)
    norm_bias: bool = False  # learned shift per channel; rms, layer and dyt
    norm_unit_offset: bool = False  # the scale is 1 + w, and w starts at 0, as in Gemma; rms and layer
    depth_scaled_norms: bool = False  # divide what the norms before the branches of layer l give by sqrt(l), from 1 (LayerNorm scaling). arXiv:2502.05795
    inner_norm: bool = False  # norm within each branch, before its output projection (sub-LN). arXiv:2210.06423
    final_norm: bool = True  # norm before the head
    final_norm_groups: int | None = None  # groups of channels whose mean and variance over all tokens so far normalise before the head, in place of `norm` (TimestepNorm); None = off. arXiv:2404.08801
    embed_norm: bool = False  # norm after the embedding, as in BLOOM
    skip_first_norm: bool = False  # no norm before the first branch, which reads the embedding as it is, as in ModernBERT
    head_dense: Activation = "none"  # a square matrix, this activation and a norm before the logits, as in BERT and ModernBERT; none = none of these

    tie_embeddings: bool = False  # the head shares the embedding's matrix
    embed_scale: float | Literal["sqrt_dim", "sqrt_dim_bfloat16"] = 1.0  # factor on the embeddings; sqrt_dim = dim ** 0.5 (Gemma); sqrt_dim_bfloat16: rounded to bfloat16 (RecurrentGemma)
    logit_softcap: float | None = None  # c * tanh(logits / c); None = off
    logit_scale: float | Literal["rsqrt_dim"] = 1.0  # factor on the logits, before the softcap (Grok-1 0.577); rsqrt_dim = dim ** -0.5 (T5)
    token_scale: bool = False  # a learned factor on the logit of each token, as in nGPT
    skip_scale: float = 1.0  # factor on the stream as a branch joins it, before its norm; residual=post (DeepNorm; MiniMax-01 3.56). arXiv:2203.00555
    mixer_scales: tuple[float, ...] = (1.0, 1.0)  # with beside: constant factors on what the mixer reads and on what it gives (Falcon-H1)
    beside_scales: tuple[float, ...] = (1.0, 1.0)  # the same of the second mixer
    mlp_scales: tuple[float, ...] = (1.0, 1.0)  # constant factors on what the MLP's activation reads and on what the MLP gives (Falcon-H1)
    residual_scale: float = 1.0  # factor on each branch as it joins the stream (Granite)
    layer_scale: float | None = None  # start of a learned factor on each channel of what a branch adds (LayerScale); None = off. arXiv:2103.17239
    drop_branch: float = 0.0  # probability of leaving out a branch for a row, in the last layer; less in earlier ones (stochastic depth). arXiv:1603.09382
    canon: tuple[CanonPlace, ...] = ()  # places in which a short causal convolution adds earlier tokens (Canon layers): before the mixer (A), on queries, keys and values (qkv, B), before the mlp (C), before its nonlinearity (hidden, D). Allen-Zhu 2025, Physics of Language Models 4.1
    canon_len: int = 4  # tokens of it
    token_shift: tuple[Branch, ...] = ()  # branches whose input is mixed with that of the token before, by a learned share of each channel. arXiv:2305.13048
    token_shift_power: float = 1.0  # this share is 1 - (i / d)^((1 - l / num_layers)^power) at first, for channel i of layer l, from 0 (4 in the MLPs of RWKV-7)
    smear: bool = False  # add the embedding of the token before, by a learned gate, as in nanochat
    smear_dim: int = 12  # first channels of the embedding that this gate reads, at most
    backout: float | None = None  # start of a learned factor on the stream after a middle layer, which is subtracted from the last one before the final norm, as in nanochat; None = off
    backout_depth: float = 0.5  # of this layer: its number, from 0, is this share of all that act, rounded down; at most the last but one
    skip_to_embedding: bool = False  # before each layer x becomes a x + b x_0, with the embedding x_0 and two learned numbers of the layer, 1 and 0 at first, as in nanochat
    embed_dropout: float = 0.0  # probability of dropping a channel of the embedding
    residual_dropout: float = 0.0  # probability of dropping a channel of a branch as it joins the stream
    mlp_dropout: float = 0.0  # probability of dropping a hidden unit of the MLP

    init: Init = "normal"  # normal: std init_std; fan_in: std 1/sqrt(inputs); xavier: std sqrt(2/(inputs + outputs))
    init_std: float = 0.02  # standard deviation of init=normal, and of the embeddings
    out_init: OutInit = "zero"  # output projections: same, depth (std / sqrt(2 * num_layers), GPT-2), zero
    head_zero_init: bool = False  # start the head at zero, so that the first prediction is uniform
    unit_weights: bool = False  # keep the vectors of each matrix that meet the residual stream at length 1, after every step (nGPT)
    scaling: Scaling = "standard"  # what changes with the width and the depth besides the sizes; see docs/scaling.md. standard: nothing; mup: initialisation, learning rates, decay and factors, so that the rates of a narrow model serve wide ones, arXiv:2203.03466; completep: mup, and branches that add less in deep models, whose rates are those of shallow ones, arXiv:2505.01618
    base_dim: int = 128  # mup and completep: the width at which they change nothing, but for the scale of attention's scores without a qk_norm, 1 / head_dim; rates are those of a model as wide
    base_layers: int = 3  # completep: the number of layers at which it changes nothing
    z_loss: float = 0.0  # coefficient of mean(logsumexp(logits)^2) in the loss, which keeps logits small. arXiv:2204.02311

    @property
    def head_width(self) -> int:
        return self.attention.head_dim or self.dim // self.attention.num_heads

    @property
    def width_ratio(self) -> float:
        """m, by which scaling=mup and completep go: dim / base_dim; 1 with scaling=standard."""
        return 1.0 if self.scaling == "standard" else self.dim / self.base_dim

    @property
    def depth_ratio(self) -> float:
        """l, by which scaling=completep goes: num_layers / base_layers; 1 with another scaling."""
        return self.num_layers / self.base_layers if self.scaling == "completep" else 1.0

    @property
    def has_qk_norm(self) -> bool:
        """Whether attention normalises queries and keys."""
        return self.qk_norm == "unit" or self.qk_norm != "none" and (self.attention.qk_norm_kind or self.norm) != "none"

    def score_scale(self, width: int, *, normalised: bool) -> float:
        """The factor on the product of a query and a key of this width, unless a flag gives it.

        With a scaling 1 / width, for those that are not normalised point the same way once they have learned.
        """
        return width**-0.5 if self.scaling == "standard" or normalised else 1 / width

    @property
    def embed_factor(self) -> float:
        root = self.dim**0.5
        words = {"sqrt_dim": root, "sqrt_dim_bfloat16": in_bfloat16(root)}
        return words.get(self.embed_scale, self.embed_scale)

    @property
    def hidden_width(self) -> int:
        if self.hidden_dim is not None:
            return self.hidden_dim
        gated = (self.moe.expert if self.mlp == "moe" else self.mlp) in GATED
        width = self.dim * self.hidden_mult * (2 / 3 if gated else 1)
        return _round_up(round(width), self.hidden_multiple_of)

    @property
    def padded_vocab_size(self) -> int:
        if self.vocab_size is None:
            raise ValueError("vocab_size=None: the model needs a number; give the tokenizer's")
        return _round_up(self.vocab_size, self.vocab_multiple_of)

    @property
    def encoder(self) -> "ModelConfig | None":
        """The configuration of the encoder's layers; None if there is none."""
        return None if self.encoder_layers is None else encoder_of(self)

    @property
    def last_alone(self) -> "ModelConfig":
        """The configuration of a model whose only layer is like the last one."""
        return last_layer_alone(self)

    def kind_at(self, layer: int) -> str:
        """The kind of a layer, from 0."""
        return self.layers[layer % len(self.layers)]

    def at(self, layer: int) -> "LayerConfig":
        """The flags of a layer, from 0: the model's, overridden by those of its kind. They know their place."""
        return model_rules.placed(self.by_kind[self.kind_at(layer)], self, layer)

    def __post_init__(self):
        model_rules.check_model(self, LayerConfig)


@flags
class LayerConfig(ModelConfig):
    """The flags of one layer, for building its parts; see ModelConfig.at, which gives `index` and `model`."""

    index: ClassVar[int]  # of the layer, from 0
    model: ClassVar[ModelConfig]  # of all layers: model.at(index - 1) is the layer before

    def __post_init__(self):
        model_rules.check_layer(self)


@flags
class ProbeConfig:
    """The numbers of a synthetic task in data.name. A row has as many symbols as model.max_seq_len, less one."""

    symbols: int | None = None  # names in its vocabulary: keys and values, letters, residues, nodes; None = the task's own number
    items: int | None = None  # its difficulty: pairs, symbols to copy, symbols of an n-gram, steps; None = the task's own number
    noise: float | None = None  # noisy_recall: probability of a noise in place of a pair; None = the task's own
    longer: tuple[int, ...] = ()  # evaluate also on rows this many times as long, e.g. 2 4: columns of the log

    def __post_init__(self):
        rules.check_probe(self)


@flags
class DataConfig:
    """The training and validation text."""

    name: Names = ("tales",)  # tales (built in), pairs made of them (tales-opening, tales-reversed, tales-questions: see docs/data.md), a synthetic task (mqar, parity, ...: see docs/data.md), tinystories, tinystories-v2, fineweb-edu, wikipedia, a Hub dataset (owner/name, owner/name:split), or files: .txt, .jsonl, .csv, .parquet, each also .gz or .zst, a folder or a glob of them. Several texts are mixed
    weights: tuple[float, ...] = ()  # share of each name in the training tokens, in any scale; none given = by size
    val_name: Names = ()  # validation texts, named as above; none given = a part of each text in name
    val_ratio: float = 0.1  # fraction held out for validation: the last documents of text files, or the end of a single one; evenly spread documents of tables and Hub datasets
    separator: str | None = None  # text files: separates documents, e.g. "\n\n"; None = a file is one document
    column: str | None = None  # tables and Hub datasets: the column with the text (body), one inside another (data.body), or one of chats (messages); None = text (Tweets_cricket: tweet)
    source_column: str | None = None  # tables and Hub datasets: the column with the source of each row's text, named as column is: the text is a target, learned from its source. None = no pairs
    subset: str | None = None  # Hub datasets: the configuration; None = its default (fineweb-edu: sample-10BT, wikipedia: 20231101.en)
    revision: str | None = None  # Hub datasets: a branch, tag or commit; None = main, as it was at its first use here
    streaming: bool = False  # Hub datasets: read over the network while encoding, without storing a download
    sample_ratio: float = 1.0  # fraction of the documents to use, drawn by the seed; not for tales and synthetic tasks
    max_documents: int | None = None  # use only the first documents of each name, at most this many; not for tales and synthetic tasks
    num_stories: int = 60_000  # tales: training stories of about 0.5 kB each
    seed: int = 0  # tales: of the stories; sample_ratio: of the choice of documents; a synthetic task: of its rows, besides train.seed
    workers: int | None = None  # processes that encode; None = one per core, and none for short texts. Does not change the tokens
    cache_dir: str = ".cache/data"  # folder for downloads and encoded text; may be deleted at any time
    packing: Packing = "stream"  # a row of max_seq_len tokens holds contiguous text (stream), one document and padding (pad), or several whole documents that do not attend to each other (documents, arXiv:2404.10830). A synthetic task and pairs need pad
    prefetch: int = 2  # batches that a thread prepares in advance; 0 = no thread. Does not change results
    probe: ProbeConfig = field(default_factory=ProbeConfig)  # a synthetic task in name

    def __post_init__(self):
        rules.check_data(self)

    @property
    def is_probe(self) -> bool:
        """Whether there is a synthetic task in name or val_name."""
        return not {*self.name, *self.val_name}.isdisjoint(get_args(Probe))

    @property
    def stories(self) -> set[str]:
        """The names of built-in stories, and of pairs made of them, in name or val_name."""
        return {*TALES} & {*self.name, *self.val_name}

    @property
    def is_pairs(self) -> bool:
        """Whether documents are pairs of a source and a target."""
        return self.source_column is not None or bool(self.stories - {"tales"})

    @property
    def cache_path(self) -> Path:
        """The folder of the cache: cache_dir, relative to the project's folder."""
        return Path(__file__).resolve().parent / self.cache_dir


@flags
class TokenizerConfig:
    """How text becomes tokens."""

    kind: TokenizerKind = "bpe"  # char, byte, SentencePiece's bpe or unigram, or hf_bpe (bytes, merged within words as GPT-4 splits them); trained on an even sample of the corpus, of 100 MB at most
    vocab_size: int | None = None  # vocabulary size of bpe, unigram or hf_bpe; None = 4096 for bpe on tales, else 2048
    path: str | None = None  # a tokenizer's folder (saved by this project, or with a tokenizer.json, a SentencePiece tokenizer.model, or vocab.json and merges.txt), such a .json or .model file, a built one (tales_4096), or OWNER/NAME on the Hugging Face Hub (openai-community/gpt2); None = use kind and vocab_size

    def __post_init__(self):
        rules.check_tokenizer(self)


@flags
class TrainConfig:
    """The objective, the optimisation, and what is logged and saved."""

    objective: ObjectiveKind = "next_token"  # what the model learns: the next token of the text; besides, by the parts of model.ahead, those after it (multi_token, arXiv:2404.19737); the next one after a prefix that is read in both directions (prefix, arXiv:1910.10683), or in part of the rows a middle after what is around it (fill_in_the_middle, arXiv:2207.14255); masked tokens from all others, a fixed share (masked, arXiv:1810.04805) or as many as chance masks (masked_diffusion, arXiv:2406.07524), or of a block from it and the text before it (block_diffusion, arXiv:2503.09573); vectors of tokens without noise from those with it (diffuseq, arXiv:2210.08933); with an encoder, a target from its source (seq2seq) or hidden spans from the rest (span_corruption, arXiv:1910.10683)
    multi_token: MultiTokenConfig = field(default_factory=MultiTokenConfig)  # objective=multi_token
    fim: FimConfig = field(default_factory=FimConfig)  # objective=fill_in_the_middle
    masked: MaskedConfig = field(default_factory=MaskedConfig)  # objective=masked
    diffusion: DiffusionConfig = field(default_factory=DiffusionConfig)  # objective=masked_diffusion or block_diffusion
    diffuseq: DiffuseqConfig = field(default_factory=DiffuseqConfig)  # objective=diffuseq
    spans: SpansConfig = field(default_factory=SpansConfig)  # objective=span_corruption
    name: str | None = None  # the run's folder in models/; None = the preset's name (and --scale), with a number if it is taken
    steps: int = 2000  # optimizer steps, unless tokens or epochs is given. With --resume it can grow: the rest follows the schedule of the longer run
    tokens: int | None = None  # length of training in tokens in place of `steps`, to the nearest step
    epochs: float | None = None  # length of training in passes over the text in place of `steps`, to the nearest step
    time_limit: str | None = None  # save and stop before this time is over: 90s, 50m or 1.5h; --resume continues, with a new limit
    memory_limit: str | None = None  # memory of the process, e.g. 2GB: refuse a run that would take more, and end one that does; None = the free memory
    init_from: str | None = None  # start from the weights of a run (its best checkpoint), or of a folder or file with model.safetensors
    allow_partial: bool = False  # init_from: initialise tensors that do not fit this model as usual, and list them
    batch_size: int = 8  # rows of max_seq_len tokens in a forward pass, of all processes together
    accumulation: int = 1  # forward passes per optimizer step
    seed: int = 0  # of the weights, the order of the data, and dropout

    optimizer: Optimizer = "muon"  # adamw arXiv:1711.05101; muon arXiv:2502.16982 and soap arXiv:2409.11321 on matrices with adamw on the rest; adam arXiv:1412.6980; sgd; lion arXiv:2302.06675; adafactor arXiv:1804.04235; schedule_free (AdamW) arXiv:2405.15682
    lr: float = 6e-3  # peak learning rate
    embed_lr_mult: float | None = None  # learning rate of the embedding / lr; None = 4 with muon, else 1
    head_lr_mult: float = 1.0  # learning rate of the head / lr
    vector_lr_mult: float = 1.0  # learning rate of norms and biases / lr
    beta1: float | None = None  # decay of the mean gradient; schedule_free: weight of the average in the point where gradients are taken; None = 0.8 with muon, else 0.9
    beta2: float | None = None  # decay of the mean square gradient; lion: of the mean gradient, which beta1 weighs in a step; None = 0.98 with muon, else 0.95
    adam_eps: float = 1e-8  # adam and its variants: added to the denominator
    momentum: float = 0.9  # muon and sgd: momentum (Nesterov)
    precondition_every: int = 10  # soap: steps between updates of its bases
    weight_decay: float | None = None  # decoupled, times the learning rate, for all but norms and biases; None = 0.1. adam and sgd add it to the gradient (L2); None = 0
    grad_clip: float | None = 1.0  # clip the norm of the gradient to this; None = no limit

    ema_decay: float | None = None  # keep a moving average of the weights with this decay per step, evaluated and saved besides the weights; None = off

    schedule: Schedule = "wsd"  # after the warmup: constant, linear, cosine, restarts (cosines in a row), wsd (flat, then linear decay), inverse_sqrt, step
    schedule_unit: ScheduleUnit = "steps"  # unit of warmup and schedule; steps and tokens differ if the batch grows
    warmup_steps: int | None = None  # steps from rate 0 to the peak rate; None = 2 % of all steps
    warmup_tokens: int | None = None  # the same in tokens, for schedule_unit=tokens; None = 2 % of all tokens
    ramp_tokens: int | None = None  # grow the forward passes per step from 1 to accumulation over this many tokens; None = all from the start. arXiv:2005.14165
    min_lr_ratio: float = 0.0  # final rate / peak rate; linear, cosine, restarts and wsd
    flat_fraction: float = 0.0  # final fraction of the run at the final rate; linear, cosine, restarts and wsd
    num_cycles: int = 4  # restarts: number of cosine cycles, each from the peak. arXiv:1608.03983
    cycle_growth: float = 1.0  # restarts: length of a cycle / length of the one before
    decay_fraction: float = 0.5  # wsd: final fraction of the steps, in which the rate decays. arXiv:2404.06395
    step_size: int = 1  # step: step_units between drops of the rate
    step_unit: StepUnit = "epochs"  # step: steps, or epochs (passes over the training text)
    step_gamma: float = 0.9  # step: factor of each drop

    precision: Precision = "auto"  # bfloat16: forward under autocast, weights stay float32; auto = bfloat16 if the device has it in hardware
    compile: bool = False  # torch.compile the model: a slow start, then faster steps
    checkpoint_activations: bool = False  # keep only what flows between blocks and recompute the rest for the gradient: less memory, slower steps, same results. arXiv:1604.06174
    shard: bool = False  # of several processes each holds a part of the weights, gradients and optimizer states, and the others' for a moment, instead of all: less memory, more to send. arXiv:1910.02054
    loss_chunk: int | None = None  # positions of each row whose logits exist at a time, with their gradient: fewer take less memory; None = as many as are fast. With compile None = all, and a number computes them twice
    device: str = "auto"  # auto = cuda, else mps, else cpu
    deterministic: bool = False  # use only deterministic algorithms, or raise an error; on a GPU the bits repeat only with the same GPU model, driver and torch

    log_every: int = 10  # steps between lines of the log
    eval_every: int = 250  # steps between evaluations on the validation part; the last step always has one
    eval_tokens: int | None = 30_000  # tokens of the validation part per evaluation, at most, in rows spread evenly over it; None = all
    final_eval_share: float | None = 0.05  # the evaluation after the last step takes as many tokens as training, times this, or eval_tokens if that is more; None = all
    sample_every: int = 250  # steps between samples
    checkpoint_every: int = 250  # steps between checkpoints; the last step always has one
    keep_checkpoints: int = 2  # number of newest checkpoints to keep; the best one is kept besides
    log_accuracy: bool = False  # add a column to the log: train_accuracy, the share of training targets that were the likeliest token
    log_grad_norms: bool = False  # add columns to the log: the norm of the gradient in each layer
    log_expert_load: bool = False  # add columns to the log: the load of each expert, 1 = the mean of its layer; the largest is always there
    log_noise_scale: bool = False  # add columns to the log: the batch size in tokens at which gradient noise equals the signal. arXiv:1812.06162
    graded_stories: int = 100  # tales: stories to sample at temperature 0.8 and grade at the end; pairs: validation targets to write greedily and compare; 0 = none
    trackers: tuple[Tracker, ...] = ()  # write the log also to: tensorboard (in the run's folder), wandb (without a network: WANDB_MODE=offline)

    @property
    def facts(self) -> Facts:
        """What the objective is like."""
        return facts_of(self.objective, block_len=self.diffusion.block_len)

    @property
    def time_limit_seconds(self) -> float | None:
        return None if self.time_limit is None else parse_seconds(self.time_limit)

    @property
    def memory_limit_bytes(self) -> int | None:
        return None if self.memory_limit is None else parse_bytes(self.memory_limit)

    @property
    def decay(self) -> float:
        """The weight decay, with its default for the optimizer."""
        return self.of_optimizer("weight_decay")

    @property
    def betas(self) -> tuple[float, float]:
        """beta1 and beta2, with their defaults for the optimizer."""
        return self.of_optimizer("beta1"), self.of_optimizer("beta2")

    def of_optimizer(self, name: str) -> float:
        """A flag, or if it is None its default for the optimizer."""
        value, defaults = getattr(self, name), rules.OF_OPTIMIZERS[name]
        return defaults.get(self.optimizer, defaults["others"]) if value is None else value

    def __post_init__(self):
        rules.check_train(self)


@flags
class SampleConfig:
    """How text is sampled from a model."""

    prompts: tuple[str, ...] = ()  # texts to continue; none given = the opening of the corpus (tales: "Once")
    num_samples: int = 3  # continuations of each prompt
    max_new_tokens: int = 250  # most tokens to add
    temperature: float = 0.8  # divides the logits; 0 = greedy
    top_k: int | None = None  # keep the k likeliest tokens; None = all
    top_p: float | None = None  # keep the likeliest tokens whose probabilities add up to p. arXiv:1904.09751
    min_p: float | None = None  # keep tokens at least min_p times as likely as the likeliest. arXiv:2407.01082
    repetition_penalty: float = 1.0  # divides positive and multiplies negative logits of tokens already in the text. arXiv:1909.05858
    stop_at_eos: bool = True  # end a text at the end-of-text token
    seed: int = 0  # of the draws; each text has its own generator, so batching changes nothing
    drafts: bool = True  # of a run with objective=multi_token: write few texts with drafts of its parts; off: token by token, the same texts, which a model of few layers writes faster
    denoise: DenoiseConfig = field(default_factory=DenoiseConfig)  # of a run with objective=masked_diffusion, block_diffusion or masked
    vectors: VectorsConfig = field(default_factory=VectorsConfig)  # of a run with objective=diffuseq

    def __post_init__(self):
        rules.check_sample(self)


@flags
class Config:
    """A whole experiment: model, data, tokenizer, training, sampling."""

    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    sample: SampleConfig = field(default_factory=SampleConfig)

    @property
    def facts(self) -> Facts:
        """What the objective is like on this text."""
        return self.train.facts.on(pairs=self.data.is_pairs)

    @property
    def row_len(self) -> int:
        """The tokens of a row of a batch; the model reads as many more as the objective says."""
        return self.model.max_seq_len - self.train.facts.room

    @property
    def max_pair_len(self) -> int | None:
        """The most tokens of a pair, which has to fit into a row; None = the text is no pairs."""
        return self.row_len + 1 if self.data.is_pairs else None

    @property
    def num_graded(self) -> int:
        """The texts that are written and graded after the last step."""
        return self.train.graded_stories if "tales" in self.data.name or self.data.is_pairs else 0


from_dict = partial(build, Config)  # a configuration from nested values; missing flags take their defaults
load_config = partial(load, Config)  # from a JSON or YAML file; ValueError names the file and what is wrong


def _round_up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple
