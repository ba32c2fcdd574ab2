"""Every flag of Shapeshifter, once: its name, type, default and meaning.

Edit a default here and run `python train.py`, or leave the file alone and say what you want on the command line.
`replace(cfg, ...)` and `override(cfg, {"model.rope.theta": 5e5})` give a changed configuration, checked again. The
objects are frozen: a configuration never changes under the code that holds it.
"""

from dataclasses import field
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator

from configuration import model_rules, rules
from configuration.checked import CHECKED, flags
from configuration.checks import require_between, require_positive
from configuration.storage import load, save_config
from configuration.tree import build, diff, flat, get, override, replace, to_dict
from configuration.units import parse_bytes, parse_seconds

__all__ = [
    "CHECKED", "AttentionConfig", "Config", "DataConfig", "LayerConfig", "ModelConfig", "RopeConfig", "SampleConfig",
    "TokenizerConfig", "TrainConfig", "diff", "flags", "flat", "from_dict", "get", "load_config", "override",
    "parse_bytes", "parse_seconds", "replace", "save_config", "to_dict",
]

Mixer = Literal["attention", "none"]
Mlp = Literal["mlp", "glu", "none"]
Activation = Literal["relu", "relu2", "gelu", "gelu_tanh", "silu", "mish"]
Norm = Literal["rms", "layer", "cosine", "dyt", "none"]
Residual = Literal["pre", "post", "sandwich", "branch_post", "parallel", "none"]
QKNorm = Literal["none", "head", "full"]
Position = Literal["none", "learned", "sinusoidal", "rope", "alibi"]
RopeLayout = Literal["half", "interleaved"]
AttentionBackend = Literal["sdpa", "eager"]
Init = Literal["normal", "fan_in", "xavier"]
OutInit = Literal["same", "depth", "zero"]
TokenizerKind = Literal["char", "byte", "bpe", "unigram", "hf_bpe"]
ObjectiveKind = Literal["next_token"]
Optimizer = Literal["adamw", "muon", "adam", "sgd", "lion", "adafactor", "soap", "schedule_free"]
Schedule = Literal["constant", "linear", "cosine", "restarts", "wsd", "inverse_sqrt", "step"]
ScheduleUnit = Literal["steps", "tokens"]
StepUnit = Literal["steps", "epochs"]
Precision = Literal["auto", "float32", "bfloat16"]
Packing = Literal["stream", "pad", "documents"]
Names = Annotated[tuple[str, ...], BeforeValidator(lambda given: (given,) if isinstance(given, str) else given)]
Tracker = Literal["tensorboard", "wandb"]


@flags
class AttentionConfig:
    """The numbers of mixer=attention."""

    num_heads: int = 4  # query heads (h)
    num_kv_heads: int | None = None  # key/value heads (g); None = num_heads, 1 = MQA. arXiv:2305.13245
    head_dim: int | None = None  # width of a head (p); None = dim / num_heads
    window: int | None = None  # tokens each query sees, itself included; None = all the past
    softcap: float | None = None  # c * tanh(scores / c), as Gemma 2 and Grok-1; None = off
    scale: float | None = None  # factor on q.k; None = head_dim ** -0.5
    dropout: float = 0.0  # probability of dropping an attention weight
    q_bias: bool = False  # bias of the query projection
    k_bias: bool = False  # bias of the key projection
    v_bias: bool = False  # bias of the value projection
    out_bias: bool = False  # bias of the projection back to the stream
    backend: AttentionBackend = "sdpa"  # sdpa: one fused call; eager: scores spelled out, for reading and tracing

    @property
    def kv_heads(self) -> int:
        return self.num_heads if self.num_kv_heads is None else self.num_kv_heads

    def __post_init__(self):
        require_positive(self, "num_heads", "num_kv_heads", "head_dim", "window", "softcap", "scale")
        require_between(self, "dropout")


@flags
class RopeConfig:
    """The numbers of position=rope."""

    theta: float = 10_000.0  # base wavelength
    fraction: float = 1.0  # part of each head that is rotated
    layout: RopeLayout = "half"  # half: channel i pairs with i + p/2 (Llama); interleaved: 2i with 2i+1 (GPT-J)

    def __post_init__(self):
        require_positive(self, "theta")


@flags
class ModelConfig:
    """The architecture: every choice of the published models is one word, and a part's numbers are a group."""

    dim: int = 128  # width of the residual stream (d)
    num_layers: int = 3  # blocks (l)
    hidden_dim: int | None = None  # width of the MLP (f); None = from hidden_mult
    hidden_mult: float = 4.0  # MLP width / dim; a GLU takes 2/3 of it. arXiv:2002.05202
    hidden_multiple_of: int = 32  # round the width that hidden_mult gives up to a multiple of this
    vocab_size: int | None = None  # entries of the embedding (v); None = the tokenizer's
    vocab_multiple_of: int = 1  # round the vocabulary up to a multiple of this, for speed on GPUs
    max_seq_len: int = 256  # tokens of context (t)

    mixer: Mixer = "attention"  # what moves information between positions
    mlp: Mlp = "mlp"  # mlp: two matrices; glu: three, gated; none
    activation: Activation = "relu2"  # nonlinearity of the MLP; glu + silu = SwiGLU. relu2: arXiv:2109.08668
    norm: Norm = "rms"  # rms arXiv:1910.07467, layer arXiv:1607.06450, cosine arXiv:1910.05895, dyt arXiv:2503.10622
    residual: Residual = "pre"  # where the norms sit and how branches join the stream; none = no skip connections
    position: Position = "rope"  # learned, sinusoidal arXiv:1706.03762, rope arXiv:2104.09864, alibi arXiv:2108.12409
    qk_norm: QKNorm = "head"  # normalise queries and keys: per head, or over the full projection. arXiv:2302.05442
    pointer: bool = False  # the prediction may copy earlier tokens by attention: a mixer besides `mixer`. arXiv:1609.07843
    pointer_dim: int = 64  # width of the pointer's queries and keys

    layers: tuple[str, ...] = ("base",)  # the kind of each layer, tiled over the depth: base, a name in kinds, or a mixer
    kinds: dict[str, dict[str, Any]] = field(default_factory=dict)  # the flags in which a kind of layer differs: {"local": {"attention.window": 512}}

    attention: AttentionConfig = field(default_factory=AttentionConfig)  # mixer=attention
    rope: RopeConfig = field(default_factory=RopeConfig)  # position=rope

    mlp_bias: bool = False  # biases of the MLP
    head_bias: bool = False  # bias of the logits
    norm_eps: float = 1e-6  # added to the mean square (rms), the variance (layer) or the length (cosine)
    norm_affine: bool = True  # learned scale per channel (cosine: one for the whole vector)
    norm_bias: bool = False  # learned shift per channel; rms, layer and dyt
    norm_unit_offset: bool = False  # the scale is 1 + w with w starting at 0, as Gemma's; rms and layer
    final_norm: bool = True  # norm before the head
    embed_norm: bool = False  # norm after the embedding, as BLOOM's

    tie_embeddings: bool = False  # the head shares the embedding's matrix
    embed_scale: float | Literal["sqrt_dim"] = 1.0  # factor on the embeddings; sqrt_dim = dim ** 0.5 (Gemma)
    logit_softcap: float | None = None  # c * tanh(logits / c); None = off
    logit_scale: float = 1.0  # factor on the logits, before the softcap (Grok-1 0.577)
    residual_scale: float = 1.0  # factor on each branch as it joins the stream (Granite)
    embed_dropout: float = 0.0  # probability of dropping a channel of the embedded input
    residual_dropout: float = 0.0  # of dropping a channel of a branch as it joins the stream
    mlp_dropout: float = 0.0  # of dropping a hidden unit of the MLP

    init: Init = "normal"  # normal: std init_std; fan_in: std 1/sqrt(inputs); xavier: std sqrt(2/(inputs + outputs))
    init_std: float = 0.02  # standard deviation of init=normal, and of the embeddings
    out_init: OutInit = "zero"  # projections into the stream: same, depth (std / sqrt(2 * num_layers), GPT-2), zero
    head_zero_init: bool = False  # the head starts at zero, so the first prediction is uniform
    z_loss: float = 0.0  # coefficient of mean(logsumexp(logits)^2), which keeps logits small. arXiv:2204.02311

    @property
    def head_width(self) -> int:
        return self.attention.head_dim or self.dim // self.attention.num_heads

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

    def kind_at(self, layer: int) -> str:
        """The kind of a layer, from 0."""
        return self.layers[layer % len(self.layers)]

    def at(self, layer: int) -> "LayerConfig":
        """The flags of a layer, from 0: the model's, with those of its kind laid over them."""
        return self.by_kind[self.kind_at(layer)]

    def __post_init__(self):
        model_rules.check_model(self, LayerConfig)


@flags
class LayerConfig(ModelConfig):
    """The flags of one layer, from which its parts are made; see ModelConfig.at."""

    def __post_init__(self):
        model_rules.check_layer(self)


@flags
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
        rules.check_data(self)

    @property
    def cache_path(self) -> Path:
        """The cache's folder: cache_dir, from the project's folder where it is relative."""
        return Path(__file__).resolve().parent / self.cache_dir


@flags
class TokenizerConfig:
    """How text becomes tokens."""

    kind: TokenizerKind = "bpe"  # char, byte, SentencePiece's bpe and unigram, or hf_bpe: bytes merged within words as GPT-4 draws them; trained on the corpus, on an even sample of 100 MB at most
    vocab_size: int | None = None  # entries of a bpe, unigram or hf_bpe vocabulary; None = 4096 for bpe on tales, else 2048
    path: str | None = None  # a tokenizer's folder (saved here, GPT-2's vocab.json and merges.txt, or with a tokenizer.json), a built one (tales_4096), or OWNER/NAME on the Hugging Face Hub (openai-community/gpt2); None = by kind and vocab_size

    def __post_init__(self):
        rules.check_tokenizer(self)


@flags
class TrainConfig:
    """The optimisation, and what is written down along the way."""

    objective: ObjectiveKind = "next_token"  # what is learned: the token that follows
    name: str | None = None  # the run's folder in models/; None = the preset's name, numbered where taken
    steps: int = 2000  # optimizer steps, unless tokens or epochs say how long; more of them with --resume: from there on the learning rate is that of the longer run's schedule
    tokens: int | None = None  # train on so many tokens in place of `steps`, to the nearest step
    epochs: float | None = None  # train for so many passes over the text in place of `steps`, to the nearest step
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
        rules.check_train(self)


@flags
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
        rules.check_sample(self)


@flags
class Config:
    """A whole experiment: model, data, tokenizer, training, sampling."""

    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    sample: SampleConfig = field(default_factory=SampleConfig)


from_dict = partial(build, Config)  # the configuration of nested values; missing flags take their defaults
load_config = partial(load, Config)  # from a JSON or YAML file; ValueError names the file and what is wrong


def _round_up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple
