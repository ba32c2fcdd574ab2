"""The fields of config.json on mixtures of experts, and the names of their weights."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from config import ModelConfig
from families.fields import Field, PerLayer, Theirs
from families.weights import PRE, Numbered, Rule, Same, WeightMap, llama_weights, renamed

TRAINING = ("output_router_logits",)  # fields that change no logit


def experts(num: str, number: int, top_k: int, *, chosen: str = "num_experts_per_tok") -> tuple[Field, ...]:
    """The number of experts and of those of a token, with the defaults of a family."""
    return Field(num, "moe.num_experts", number), Field(
        chosen, "moe.top_k", top_k, lambda given: top_k if given is None else given)


def renormalised(default: bool) -> Field:
    return Field("norm_topk_prob", "moe.renormalise", default)


@dataclass(frozen=True)
class BalanceLoss:
    """router_aux_loss_coef, of a loss that is top_k if the load is equal, where ours is 1."""

    coefficient: float
    name: str = "router_aux_loss_coef"

    @property
    def names(self) -> tuple[str, ...]:
        return (self.name,)

    @property
    def defaults(self) -> dict[str, Any]:
        return {self.name: self.coefficient}

    def read(self, theirs: Theirs) -> dict[str, Any]:
        return {"moe.balance_loss": theirs[self.name] * theirs["num_experts_per_tok"]}

    def write(self, cfg: ModelConfig) -> dict[str, Any]:
        own = next((layer.moe for layer in cfg.by_kind.values() if layer.mlp == "moe"), cfg.moe)
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


GLU = {"gate": "gate_proj", "up": "up_proj", "out": "down_proj"}


def expert_weights(
    *rules: Rule, norms: Mapping[str, str] = PRE, room: str = "mlp", names: Mapping[str, str] = GLU,
) -> WeightMap:
    """The names of Llama, with a router `gate` and a module of each expert for each of its matrices."""
    stacks = [Numbered(f"mlp.branch.experts.{ours}", f"{room}.experts.{{}}.{theirs}") for ours, theirs in names.items()]
    router = Same("mlp.branch.router.logits", f"{room}.gate"), Same("mlp.branch.router", f"{room}.gate")
    return llama_weights(norms, *router, *stacks, *rules)


def shared_expert(room: str) -> tuple[Same, ...]:
    """The names of the expert of all tokens."""
    return renamed({f"mlp.branch.shared.mlp.{ours}": f"{room}.{theirs}" for ours, theirs in GLU.items()})
