"""Models of other libraries with the sizes of one of ours, and where they have its parts with its weights."""

import contextlib
import io
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec

from torch import Tensor, nn

from config import Config, ModelConfig, override
from exchange.reference import NotThere, build
from exchange.weights import their_weights
from families import FAMILIES
from families.family import Family
from model import Model
from presets import at_scale, load_preset

FAMILY_OF = {preset: family for family in FAMILIES.values() for preset in family.presets}
Say = Callable[[str], object]
DROPOUTS = ("embed_dropout", "attention.dropout", "residual_dropout", "mlp_dropout")
ALIKE = 0.01  # how far the number of parameters may be from ours: x-transformers has a bias where Llama has none


class LeftOut(Exception):
    """A library has no such model."""


@dataclass(frozen=True)
class Peer:
    """A model of another library, on the device of ours."""

    name: str
    model: nn.Module
    logits: Callable[[Tensor], Tensor]  # (b, t) -> (b, t, v)
    has_our_weights: bool

    @property
    def num_parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.model.parameters())


def family_of(preset: str) -> Family:
    """Raises ValueError if the preset is not a model of transformers."""
    if preset not in FAMILY_OF:
        raise ValueError(f"presets={preset} is no preset of a family of transformers: use e.g. gpt2 or llama2")
    return FAMILY_OF[preset]


def without_dropout(preset: str, scale: str, *, vocab_size: int) -> Config:
    """A preset at a scale, as other libraries compute it. Raises ValueError if transformers does not."""
    family_of(preset)
    cfg = at_scale(load_preset(preset), scale)
    return override(cfg, {"model": dict.fromkeys(DROPOUTS, 0.0) | {"vocab_size": vocab_size}})


def installed(libraries: Sequence[str], say: Say) -> list[str]:
    """Those that can be imported; says which cannot. Raises ValueError if none can."""
    missing = [name for name in libraries if find_spec(name.replace("-", "_")) is None]
    if len(missing) == len(libraries):
        raise ValueError(f"there is nothing to compare with: pip install {' '.join(EXTRA)}, or one of them")
    if missing:
        say(f"left out, as not installed: {', '.join(missing)}")
    return [name for name in libraries if name not in missing]


def peers_of(ours: Model, family: Family, libraries: Sequence[str], say: Say) -> list[Peer]:
    """The models of these libraries that are like ours; says which libraries have none."""
    found = []
    for name in libraries:
        try:
            with quiet():
                peer = MAKERS[name](ours, family)
            found.append(alike(peer, ours))
        except LeftOut as why:
            say(f"left out of {family.model_type}: {name}, {why}")
        except ImportError as error:
            say(f"left out: {name}, which cannot be imported ({' '.join(str(error).split())})")
    return found


def alike(peer: Peer, ours: Model) -> Peer:
    """The peer, where ours is. Raises LeftOut if it has another number of parameters."""
    number, own = peer.num_parameters, ours.num_parameters()
    if abs(number - own) > (0 if peer.has_our_weights else ALIKE * own):
        raise LeftOut(f"whose {number:,} parameters are not our {own:,}")
    peer.model.to(next(ours.parameters()).device)
    return peer


@contextlib.contextmanager
def quiet():
    """Without what libraries print and log while they are imported and make models."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.disable(before)


def of_transformers(ours: Model, family: Family) -> Peer:
    """Their class of the family, with our weights, their attention by torch's fused call."""
    try:
        theirs = build(family, family.write(ours.cfg), their_weights(family, ours.cfg, ours))
        theirs.set_attn_implementation("sdpa")
    except NotThere:
        raise LeftOut(f"in which there is no {family.architecture}") from None
    except ValueError as error:  # of classes without that call
        raise LeftOut(str(error)) from None
    return Peer("transformers", theirs, lambda tokens: theirs(tokens, use_cache=False).logits, True)


def of_litgpt(ours: Model, family: Family) -> Peer:
    """litgpt's GPT as a Llama, with our weights by its own converter."""
    from litgpt import GPT
    from litgpt.config import Config as TheirConfig
    from litgpt.scripts.convert_hf_checkpoint import copy_weights_hf_llama

    cfg = ours.cfg
    if family.model_type != "llama" or cfg.tie_embeddings or cfg.rope.scaling != "none":
        raise LeftOut("which has no such positions or head")
    theirs = TheirConfig(
        block_size=cfg.max_seq_len, n_layer=cfg.num_layers, n_embd=cfg.dim, n_head=cfg.attention.num_heads,
        n_query_groups=cfg.attention.kv_heads, head_size=cfg.at(0).head_width, vocab_size=cfg.vocab_size,
        padded_vocab_size=cfg.padded_vocab_size, intermediate_size=cfg.at(0).hidden_width, bias=False,
        parallel_residual=False, norm_class_name="RMSNorm", norm_eps=cfg.norm_eps, mlp_class_name="LLaMAMLP",
        rotary_percentage=1.0, rope_base=int(cfg.rope.theta))
    weights: dict[str, Tensor] = {}
    copy_weights_hf_llama(theirs, {}, weights, their_weights(family, cfg, ours))
    model = GPT(theirs)
    model.load_state_dict(weights)
    return Peer("litgpt", model, model, True)


def of_x_transformers(ours: Model, family: Family) -> Peer:
    """x-transformers' decoder with its fused attention; its weights are its own."""
    from x_transformers import Decoder, TransformerWrapper

    if family.model_type not in X_FORMS:
        raise LeftOut("of which only the forms of gpt2 and llama are known here")
    cfg = ours.cfg
    layers = Decoder(
        dim=cfg.dim, depth=cfg.num_layers, heads=cfg.attention.num_heads, attn_dim_head=cfg.at(0).head_width,
        attn_kv_heads=cfg.attention.kv_heads, attn_flash=True, verbose=False,
        ff_mult=(cfg.at(0).hidden_width + 0.5) / cfg.dim, **X_FORMS[family.model_type](cfg))  # it rounds down
    model = TransformerWrapper(num_tokens=cfg.padded_vocab_size, max_seq_len=cfg.max_seq_len, attn_layers=layers,
                               use_abs_pos_emb=cfg.position == "learned", tie_embedding=cfg.tie_embeddings)
    return Peer("x-transformers", model, model, False)


X_FORMS: dict[str, Callable[[ModelConfig], dict]] = {
    "gpt2": lambda cfg: {"ff_custom_activation": nn.GELU(approximate="tanh")},
    "llama": lambda cfg: {"rotary_pos_emb": True, "rotary_emb_dim": cfg.at(0).head_width, "use_rmsnorm": True,
                          "ff_glu": True, "ff_swish": True, "ff_no_bias": True},
}
MAKERS: dict[str, Callable[[Model, Family], Peer]] = {
    "transformers": of_transformers, "litgpt": of_litgpt, "x-transformers": of_x_transformers}
EXTRA = tuple(MAKERS)  # what pyproject.toml calls the extra `peers`

