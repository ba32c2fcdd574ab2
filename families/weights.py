"""Our parameters and theirs: rules that hold in both directions, for weights and for gradients.

Rules name modules. A weight is a weight in both; our norms have a scale and a bias, theirs a weight and a bias.
`split` gives our tensors from theirs, `join` theirs from ours. Works on the tensors of torch, also on its meta device;
needs no import of it.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, NamedTuple

from einops import pack, rearrange, unpack

from config import ModelConfig

# of the names of parameters: ours, theirs
ENDS = (
    ("weight", "weight"), ("scale", "weight"), ("bias", "bias"), *((name, name) for name in (
        "A_log", "D", "alpha_p", "alpha_n", "dt_bias", "lambda_q1", "lambda_k1", "lambda_q2", "lambda_k2", "sinks")),
    ("rate", "recurrent_param"),
    ("balance", "e_score_correction_bias"), ("table", "weight"))
HEAD = "head.unembed"
Tensors = Mapping[str, Any]


@dataclass(frozen=True)
class Same:
    """One module of ours is one of theirs; the rules below are for several of ours, or for other shapes.

    With `beside` it is a rule for layers that have this module of ours too, with `end` for this parameter of ours.
    """

    ours: str | tuple[str, ...]
    theirs: str
    beside: str = field(default="", kw_only=True)
    end: str = field(default="", kw_only=True)
    by_rows: ClassVar[bool] = False  # whether one of ours is cut by rows into several modules of theirs

    @property
    def modules(self) -> tuple[str, ...]:
        return (self.ours,) if isinstance(self.ours, str) else self.ours

    def names(self, prefix: str, end: str, shape: Sequence[int]) -> list[str]:
        """The names of theirs; `shape` is that of ours."""
        return [f"{prefix}{self.theirs}.{end}"]

    def whole(self, theirs: Sequence[Any]) -> Any:
        """Their tensors in one, for `split`."""
        return rearrange(theirs, "row ... -> row ...") if self.by_rows else theirs[0]

    def split(self, theirs: Any, shapes: Sequence, cfg: ModelConfig) -> list[Any]:
        return [theirs]

    def join(self, ours: Sequence[Any], cfg: ModelConfig) -> Any:
        return ours[0]


@dataclass(frozen=True)
class Transposed(Same):
    """Their matrix has inputs in its rows (Conv1D of GPT-2)."""

    def split(self, theirs: Any, shapes: Sequence, cfg: ModelConfig) -> list[Any]:
        return [theirs.t()]

    def join(self, ours: Sequence[Any], cfg: ModelConfig) -> Any:
        return ours[0].t()


@dataclass(frozen=True)
class SwappedHalves(Same):
    """The channels of each head in halves, which their model has in the other order: it rotates backwards."""

    def split(self, theirs: Any, shapes: Sequence, cfg: ModelConfig) -> list[Any]:
        halves = rearrange(theirs, "(h two c) ... -> h two c ...", two=2, c=cfg.head_width // 2)
        return [rearrange(halves.flip(1), "h two c ... -> (h two c) ...")]

    def join(self, ours: Sequence[Any], cfg: ModelConfig) -> Any:
        return self.split(ours[0], (), cfg)[0]


@dataclass(frozen=True)
class Rows(Same):
    """Their table has `skipped` rows before ours, which no token reads."""

    skipped: int

    def split(self, theirs: Any, shapes: Sequence, cfg: ModelConfig) -> list[Any]:
        return [theirs[self.skipped:]]

    def join(self, ours: Sequence[Any], cfg: ModelConfig) -> Any:
        return pack([ours[0].new_zeros(self.skipped, *ours[0].shape[1:]), ours[0]], "* d")[0]


@dataclass(frozen=True)
class Numbered(Same):
    """Each row of ours, that of a head or an expert, is a module of theirs with a number, for which theirs has {}."""

    by_rows = True

    def names(self, prefix: str, end: str, shape: Sequence[int]) -> list[str]:
        return [f"{prefix}{self.theirs.format(number)}.{end}" for number in range(shape[0])]


@dataclass(frozen=True)
class Bare(Same):
    """Theirs is a parameter of this name."""

    def names(self, prefix: str, end: str, shape: Sequence[int]) -> list[str]:
        return [prefix + self.theirs]


@dataclass(frozen=True)
class Transposing(Same):
    """Their stack of matrices is a parameter, with inputs in its rows; a bias is another one, `theirs`_bias."""

    def names(self, prefix: str, end: str, shape: Sequence[int]) -> list[str]:
        return [prefix + self.theirs + ("_bias" if end == "bias" else "")]

    def split(self, theirs: Any, shapes: Sequence, cfg: ModelConfig) -> list[Any]:
        return [theirs.mT if theirs.dim() == 3 else theirs]

    def join(self, ours: Sequence[Any], cfg: ModelConfig) -> Any:
        return ours[0].mT if ours[0].dim() == 3 else ours[0]


@dataclass(frozen=True)
class Taps(Same):
    """A convolution of each channel: their weights are (channels, 1, taps), and the last is that of the same token."""

    def split(self, theirs: Any, shapes: Sequence, cfg: ModelConfig) -> list[Any]:
        return [rearrange(theirs, "d 1 i -> i d").flip(0) if theirs.dim() == 3 else theirs]

    def join(self, ours: Sequence[Any], cfg: ModelConfig) -> Any:
        return rearrange(ours[0].flip(0), "i d -> d 1 i") if ours[0].dim() == 2 else ours[0]


@dataclass(frozen=True)
class Fused(Same):
    """Several modules of ours below one another in one of theirs, each of any height.

    With `parts`, theirs is a row of so many parts, each with a share of all modules: parts="kv_heads" has the queries
    that share a key below one another, then this key and its value, then those of the next key.
    """

    transposed: bool = False
    parts: int | Literal["kv_heads"] | Callable[[ModelConfig], int] = 1

    def number(self, cfg: ModelConfig) -> int:
        if callable(self.parts):
            return self.parts(cfg)
        return cfg.attention.kv_heads if self.parts == "kv_heads" else self.parts

    def split(self, theirs: Any, shapes: Sequence, cfg: ModelConfig) -> list[Any]:
        parts = rearrange(theirs.t() if self.transposed else theirs, "(n h) ... -> n h ...", n=self.number(cfg))
        shares = unpack(parts, [[shape[0] // len(parts)] for shape in shapes], "n * d"[:2 * parts.dim() - 1])
        return [rearrange(share, "n h ... -> (n h) ...") for share in shares]

    def join(self, ours: Sequence[Any], cfg: ModelConfig) -> Any:
        shares = [rearrange(module, "(n h) ... -> n h ...", n=self.number(cfg)) for module in ours]
        joined = rearrange(pack(shares, "n * d"[:2 * shares[0].dim() - 1])[0], "n h ... -> (n h) ...")
        return joined.t() if self.transposed else joined


@dataclass(frozen=True)
class Alternating(Transposing):
    """Two stacks of ours are one of theirs, their outputs in turns (gpt-oss)."""

    def split(self, theirs: Any, shapes: Sequence, cfg: ModelConfig) -> list[Any]:
        return [super(Alternating, self).split(theirs[..., start::2], shapes, cfg)[0] for start in (0, 1)]

    def join(self, ours: Sequence[Any], cfg: ModelConfig) -> Any:
        turns = [super(Alternating, self).join([stack], cfg) for stack in ours]
        return rearrange(turns, "two ... f -> ... (f two)")


@dataclass(frozen=True)
class StackedRows(Same):
    """Several stacks of ours are one of theirs, the outputs of a matrix of each below one another.

    With `bare` theirs is a parameter, and not the weight of a module; with `transposed` it has inputs in its rows.
    """

    bare: bool = False
    transposed: bool = False

    def names(self, prefix: str, end: str, shape: Sequence[int]) -> list[str]:
        return [prefix + self.theirs] if self.bare else super().names(prefix, end, shape)

    def split(self, theirs: Any, shapes: Sequence, cfg: ModelConfig) -> list[Any]:
        return list((theirs.mT if self.transposed else theirs).split([shape[1] for shape in shapes], 1))

    def join(self, ours: Sequence[Any], cfg: ModelConfig) -> Any:
        joined = pack(ours, "e * d")[0]
        return joined.mT if self.transposed else joined


class Pair(NamedTuple):
    """Parameters of ours, and the one of theirs that holds them, or those that hold the rows of one of ours."""

    ours: list[str]
    theirs: list[str]
    rule: Same


@dataclass(frozen=True)
class WeightMap:
    """The rules of a family: those of each layer, and those of the whole model."""

    layer: str  # what stands before a layer's number in their names
    rules: tuple[Same, ...]
    whole: tuple[Same, ...]
    prefix: str = "model."  # their names may lack it: those of a model without its head
    head: str = "lm_head"
    buffers: tuple[str, ...] = (".rotary_emb.inv_freq",)  # ends of names that are saved and are not weights
    saved_head: str = ""  # the name of the head in files, if it is another than in the model
    constants: tuple[tuple[str, str, float], ...] = ()  # end of a weight's name, that of a buffer beside it, its value
    encoder_layer: str = ""  # what stands before the number of an encoder's layer; "" = there is no encoder
    encoder_rules: tuple[Same, ...] = ()
    aliases: tuple[tuple[str, str], ...] = ()  # parts of names in some files -> what stands for them in the rules

    def pairs(self, cfg: ModelConfig, own: Tensors) -> Iterator[Pair]:
        """All pairs, for a model with these parameters. Raises ValueError if one of them has no place."""
        left, rules = set(own), [("", "", rule) for rule in self.whole]
        rules += [(f"blocks.{i}.", f"{self.layer}{i}.", rule) for i in range(cfg.num_layers) for rule in self.rules]
        rules += [(f"encoder.blocks.{i}.", f"{self.encoder_layer}{i}.", rule)
                  for i in range(cfg.encoder_layers or 0) for rule in self.encoder_rules]
        for ours, theirs, rule in rules:
            if rule.beside and not any(name.startswith(f"{ours}{rule.beside}.") for name in own):
                continue
            for our_end, their_end in ENDS:
                names = [f"{ours}{module}.{our_end}" for module in rule.modules]
                if rule.end in ("", our_end) and all(name in left for name in names):  # of several rules, the first
                    left -= set(names)
                    yield Pair(names, rule.names(theirs, their_end, own[names[0]].shape), rule)
        if left:
            raise ValueError(f"{', '.join(sorted(left)[:3])} has no place in the weights of this family")

    def to_theirs(self, cfg: ModelConfig, own: Tensors) -> dict[str, Any]:
        """Their tensors from all of ours, tied ones once."""
        found = {}
        for pair in self.pairs(cfg, own):
            joined = pair.rule.join([own[name] for name in pair.ours], cfg)
            found |= dict(zip(pair.theirs, joined if pair.rule.by_rows else [joined], strict=True))
        return found

    def to_ours(self, cfg: ModelConfig, own: Tensors, theirs: Tensors) -> Iterator[tuple[str, Any]]:
        """Each of our tensors from theirs, one pair at a time; `own` gives the shapes."""
        for pair in self.pairs(cfg, own):
            whole = pair.rule.whole([theirs[name] for name in pair.theirs])
            parts = pair.rule.split(whole, [own[name].shape for name in pair.ours], cfg)
            yield from zip(pair.ours, parts, strict=True)

    def constant_buffers(self, names: Iterable[str]) -> dict[str, float]:
        """The buffers that stand beside these weights of theirs, and the one value that each has here."""
        return {name.removesuffix(weight) + buffer: value for name in names
                for weight, buffer, value in self.constants if name.endswith(weight)}

    def saved_name(self, name: str) -> str:
        """The name of a weight in files."""
        module, _, end = name.rpartition(".")
        return f"{self.saved_head}.{end}" if self.saved_head and module == self.head else name

    def full_names(self, names: Sequence[str]) -> dict[str, str]:
        """{name with the prefix: name as it is saved}, without buffers."""
        kept = [name for name in names if not name.endswith(self.buffers)]
        bare = not any(name.startswith(self.prefix) for name in kept)
        found = {}
        for name in kept:
            module, _, end = name.rpartition(".")
            full = f"{self.head}.{end}" if self.saved_head and module == self.saved_head else name
            for other, usual in self.aliases:
                full = full.replace(other, usual)
            found[self.prefix + full if bare and not full.startswith(self.head) else full] = name
        return found


def weights_of(model: Any) -> dict[str, Any]:
    """All that is saved of a model of ours, or of theirs, tied weights once."""
    saved = model.state_dict()
    return dict(model.named_parameters()) | {name: buffer for name, buffer in model.named_buffers() if name in saved}


LINEARS = {"mixer.branch.q": "self_attn.q_proj", "mixer.branch.k": "self_attn.k_proj",
           "mixer.branch.v": "self_attn.v_proj", "mixer.branch.out": "self_attn.o_proj",
           "mlp.branch.gate": "mlp.gate_proj", "mlp.branch.up": "mlp.up_proj", "mlp.branch.out": "mlp.down_proj",
           "mixer.branch.q_norm": "self_attn.q_norm", "mixer.branch.k_norm": "self_attn.k_norm"}
PRE = {"mixer.norm": "input_layernorm", "mlp.norm": "post_attention_layernorm"}
QKV = tuple(f"mixer.branch.{name}" for name in "qkv")


def renamed(names: Mapping[str, str]) -> tuple[Same, ...]:
    return tuple(Same(ours, theirs) for ours, theirs in names.items())


def llama_weights(norms: Mapping[str, str] = PRE, *rules: Same) -> WeightMap:
    """The names of Llama, which most later families have. `norms` are a layer's; `rules` replace those of a module.

    Those for some layers come first, and replace none of other layers.
    """
    some, rest = [rule for rule in rules if rule.beside], [rule for rule in rules if not rule.beside]
    replaced = {module for rule in rest for module in rule.modules}
    names = {ours: theirs for ours, theirs in (LINEARS | norms).items() if ours not in replaced}
    return WeightMap("model.layers.", (*some, *renamed(names), *rest), renamed({
        "embed.tokens": "model.embed_tokens", "norm": "model.norm", HEAD: "lm_head"}))
