"""The weights of one of our models from a folder of theirs: sizes are compared before anything is built."""

import math

import torch
from torch import Tensor

from config import ModelConfig
from exchange.folder import RenamedTensors, require_finite
from families.family import Family
from families.hybrid import together
from families.weights import HEAD, weights_of
from model import Model
from tools import unfilled

MOST_NAMED = 3  # tensors in a sentence


def load_model(family: Family, cfg: ModelConfig, tensors: RenamedTensors) -> Model:
    """Our model with all tensors of a folder, each used once.

    Raises ValueError if one is missing, left over, of another shape or not finite.
    """
    saved = tensors.saved
    require_fitting(family, cfg, tensors)
    require_tied(family, cfg, tensors)
    for name, value in family.weights.constant_buffers(list(saved)).items():
        if name in saved and not math.isclose(float(saved[name]), value, rel_tol=0.01):  # bfloat16 rounds it
            raise ValueError(f"{name} is {float(saved[name]):g}, and only {value:g} is known here")
    model = Model(cfg)
    own = weights_of(model)
    with torch.no_grad():
        for name, tensor in family.weights.to_ours(cfg, own, tensors):
            own[name].copy_(require_finite(name, tensor))
    return model.eval()


def require_fitting(family: Family, cfg: ModelConfig, tensors: RenamedTensors) -> None:
    """Raise ValueError if the names or the shapes are not those that the configuration has; takes no memory."""
    if cfg.num_layers > len(tensors):
        raise ValueError(f"the folder has {len(tensors)} tensors, and config.json says {cfg.num_layers:,} layers")
    expected = expected_shapes(family, cfg)
    spare = {name for name in tensors if cfg.tie_embeddings and name == head_name(family)}
    if missing := expected.keys() - tensors.keys():
        raise ValueError(f"the folder lacks {listed(missing)}, which a {family.architecture} of its config.json has")
    if unknown := tensors.keys() - expected.keys() - spare:
        raise ValueError(f"the folder has {listed(unknown)}, which a {family.architecture} of its config.json lacks")
    found = together({name: tensors.shape(name) for name in expected})
    for name, shape in together(expected).items():
        if found[name] != shape:
            raise ValueError(f"{name} is {found[name]}, and config.json makes it {shape}")


def expected_shapes(family: Family, cfg: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Their names and shapes, of a model on the meta device. Raises ValueError if no such model can be made."""
    try:
        with unfilled():
            model = Model(cfg)
            theirs = family.weights.to_theirs(cfg, weights_of(model))
    except RuntimeError as error:
        raise ValueError(f"config.json describes a model that cannot be made: {str(error).splitlines()[0]}") from None
    return {name: tuple(tensor.shape) for name, tensor in theirs.items()}


def require_tied(family: Family, cfg: ModelConfig, tensors: RenamedTensors) -> None:
    """Raise ValueError if the head is saved too and is not the embedding, with which it is tied."""
    name = head_name(family)
    if not cfg.tie_embeddings or name not in tensors:
        return
    embedding = next(rule.theirs for rule in family.weights.whole if "embed.tokens" in rule.modules) + ".weight"
    if not torch.equal(tensors[name], tensors[embedding]):
        raise ValueError(f"{name} is not {embedding}, and config.json has tie_word_embeddings=True")


def head_name(family: Family) -> str:
    return next(rule.theirs for rule in family.weights.whole if HEAD in rule.modules) + ".weight"


def their_weights(family: Family, cfg: ModelConfig, model: Model) -> dict[str, Tensor]:
    """The tensors to save, tied ones once."""
    with torch.no_grad():
        found = family.weights.to_theirs(cfg, weights_of(model))
        buffers = {name: torch.tensor(value) for name, value in family.weights.constant_buffers(found).items()}
        return {name: tensor.detach().float().contiguous() for name, tensor in (found | buffers).items()}


def listed(names: set[str]) -> str:
    """Some of the names, and the number of the others."""
    first = sorted(names)
    more = len(first) - MOST_NAMED
    return ", ".join(first[:MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
