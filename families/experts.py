"""The fields of config.json on mixtures of experts, and the names of their weights."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from config import LayerConfig, ModelConfig
from families.fields import Field, PerLayer, Theirs
from families.weights import PRE, Numbered, Same, WeightMap, llama_weights, renamed

TOP_K = "num_experts_per_tok"
TRAINING = ("output_router_logits",)  # fields that change no logit


def experts(num: str, number: int | None, top_k: int | None, *, top: str = TOP_K) -> tuple[Field, ...]:
    """The number of experts and of those of a token, with the defaults of a family."""
    return Field(num, "moe.num_experts", number), Field(
        top, "moe.top_k", top_k, lambda given: top_k if given is None else given)


def renormalised(default: bool) -> Field:
    return Field("norm_topk_prob", "moe.renormalise", default)


def routed(groups: int, top_groups: int, scale: float) -> tuple[Field, ...]:
    """The groups of experts and the factor on scores, by the names of DeepSeek-V3, with the defaults of a family."""
    return (Field("n_group", "moe.num_groups", groups), Field("topk_group", "moe.top_groups", top_groups),
            Field("routed_scaling_factor", "moe.scale", scale))


def expert_layer(cfg: ModelConfig) -> LayerConfig:
    """The flags of the layers with experts, or of the first layer if none has any."""
    return next((layer for layer in cfg.by_kind.values() if layer.mlp == "moe"), cfg.at(0))


@dataclass(frozen=True)
class BalanceLoss:
    """router_aux_loss_coef, of a loss that is top_k if the load is equal, where ours is 1."""

    coefficient: float
    name: str = "router_aux_loss_coef"
    top: str = TOP_K

    @property
    def names(self) -> tuple[str, ...]:
        return (self.name,)

    @property
    def defaults(self) -> dict[str, Any]:
        return {self.name: self.coefficient}

    def read(self, theirs: Theirs) -> dict[str, Any]:
        return {"moe.balance_loss": theirs[self.name] * theirs[self.top]}

    def write(self, cfg: ModelConfig) -> dict[str, Any]:
        own = expert_layer(cfg).moe
        return {self.name: own.balance_loss / own.top_k}


@dataclass(frozen=True)
class SparseLayers:
    """Which layers have experts, and the widths of these and of the others: Qwen's fields.

    Those in mlp_only_layers have none, and of the others every decoder_sparse_step-th has.
    """

    dense: int
    expert: int
    dense_name: str = "intermediate_size"
    expert_name: str = "moe_intermediate_size"

    @property
    def names(self) -> tuple[str, ...]:
        return self.dense_name, self.expert_name, "decoder_sparse_step", "mlp_only_layers"

    @property
    def defaults(self) -> dict[str, Any]:
        return {self.dense_name: self.dense, self.expert_name: self.expert}

    def sparse(self, theirs: Theirs, layer: int) -> bool:
        return (layer not in (theirs.get("mlp_only_layers") or ())
                and (layer + 1) % theirs.get("decoder_sparse_step", 1) == 0)

    def read(self, theirs: Theirs) -> dict[str, Any]:
        found = [self.sparse(theirs, layer) for layer in range(theirs["num_hidden_layers"])]
        return {"mlp": PerLayer("moe" if sparse else "glu" for sparse in found),
                "hidden_dim": PerLayer(theirs[self.expert_name if sparse else self.dense_name] for sparse in found)}

    def write(self, cfg: ModelConfig) -> dict[str, Any]:
        layers = [cfg.at(i) for i in range(cfg.num_layers)]
        widths = {self.dense_name: self.dense, self.expert_name: self.expert}
        widths |= {self.expert_name if layer.mlp == "moe" else self.dense_name: layer.hidden_width for layer in layers}
        return widths | self.pattern([layer.mlp == "moe" for layer in layers])

    def pattern(self, sparse: list[bool]) -> dict[str, Any]:
        return {"decoder_sparse_step": 1, "mlp_only_layers": [i for i, there in enumerate(sparse) if not there]}


@dataclass(frozen=True)
class FirstDense(SparseLayers):
    """The first layers have no experts, as many as first_k_dense_replace says."""

    first: int = 3
    first_name: str = "first_k_dense_replace"

    @property
    def names(self) -> tuple[str, ...]:
        return self.dense_name, self.expert_name, self.first_name

    @property
    def defaults(self) -> dict[str, Any]:
        return super().defaults | {self.first_name: self.first}

    def sparse(self, theirs: Theirs, layer: int) -> bool:
        return layer >= theirs[self.first_name]

    def pattern(self, sparse: list[bool]) -> dict[str, Any]:
        return {self.first_name: sparse.index(True) if True in sparse else len(sparse)}


@dataclass(frozen=True)
class ListedLayers(FirstDense):
    """mlp_layer_types has a word for each layer: dense or sparse. Without it the first layers have no experts."""

    first: int = 1
    first_name: str = ""  # of a field that says how many; none = the class has no such field

    @property
    def names(self) -> tuple[str, ...]:
        return (self.dense_name, self.expert_name, "mlp_layer_types") + ((self.first_name,) if self.first_name else ())

    @property
    def defaults(self) -> dict[str, Any]:
        return {self.dense_name: self.dense, self.expert_name: self.expert}

    def sparse(self, theirs: Theirs, layer: int) -> bool:
        listed = theirs.get("mlp_layer_types")
        if not listed:
            return layer >= theirs.get(self.first_name, self.first)
        if len(listed) != theirs["num_hidden_layers"] or set(listed) - {"dense", "sparse"}:
            raise ValueError(f"mlp_layer_types is not a list of dense or sparse for each of the "
                             f"{theirs['num_hidden_layers']} layers")
        return listed[layer] == "sparse"

    def pattern(self, sparse: list[bool]) -> dict[str, Any]:
        listed = {"mlp_layer_types": ["sparse" if there else "dense" for there in sparse]}
        return super().pattern(sparse) | listed if self.first_name else listed


@dataclass(frozen=True)
class SharedExperts:
    """n_shared_experts, each as wide as one of the others, are one of that width together."""

    number: int | None
    name: str = "n_shared_experts"

    @property
    def names(self) -> tuple[str, ...]:
        return (self.name,)

    @property
    def defaults(self) -> dict[str, Any]:
        return {self.name: self.number}

    def read(self, theirs: Theirs) -> dict[str, Any]:
        return {"moe.shared_dim": theirs[self.name] * theirs["moe_intermediate_size"] or None}

    def write(self, cfg: ModelConfig) -> dict[str, Any]:
        own = expert_layer(cfg)
        return {self.name: (own.moe.shared_dim or 0) // own.hidden_width}


class SharedAsWide:
    """The expert of all tokens has the width of the others."""

    names: tuple[str, ...] = ()
    defaults: dict[str, Any] = {}

    def read(self, theirs: Theirs) -> dict[str, Any]:
        return {"moe.shared_dim": theirs["intermediate_size"]}

    def write(self, cfg: ModelConfig) -> dict[str, Any]:
        return {}


def shared_width(name: str, default: int) -> Field:
    """The width of the expert of all tokens; 0 = there is none."""
    return Field(name, "moe.shared_dim", default, lambda given: given or None,
                 lambda cfg: expert_layer(cfg).moe.shared_dim or 0)


GLU = {"gate": "gate_proj", "up": "up_proj", "out": "down_proj"}


def expert_weights(
    *rules: Same, norms: Mapping[str, str] = PRE, room: str = "mlp", names: Mapping[str, str] = GLU,
) -> WeightMap:
    """The names of Llama, with a router `gate` and a module of each expert for each of its matrices.

    `rules` replace those of a module.
    """
    usual = [Same("mlp.branch.router.logits", f"{room}.gate"), Same("mlp.branch.router", f"{room}.gate")]
    usual += [Numbered(f"mlp.branch.experts.{ours}", f"{room}.experts.{{}}.{theirs}") for ours, theirs in names.items()]
    replaced = {module for rule in rules for module in rule.modules}
    return llama_weights(norms, *(rule for rule in usual if rule.ours not in replaced), *rules)


def shared_expert(room: str) -> tuple[Same, ...]:
    """The names of the expert of all tokens."""
    return renamed({f"mlp.branch.shared.mlp.{ours}": f"{room}.{theirs}" for ours, theirs in GLU.items()})
