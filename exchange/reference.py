"""The same model in transformers, if that is installed: its logits are compared before a success is reported."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from families.family import Family, with_floats
from model import Model

NUM_TOKENS = 48  # of the text that both read
TOLERANCE = 1e-4  # of the largest logit
# fields of a config.json by which transformers would choose other code
CHOICES = ("auto_map", "attn_implementation", "experts_implementation", "quantization_config")


class NotThere(Exception):
    """transformers, or its class of a model, is not installed."""


def build(family: Family, theirs: Mapping[str, Any], weights: Mapping[str, Tensor]) -> torch.nn.Module:
    """Their model of a config.json with these weights, in float32; made by their library alone.

    Raises NotThere, and ValueError if their class refuses it.
    """
    try:
        import transformers

        kind = getattr(transformers, family.architecture)
        known = transformers.CONFIG_MAPPING[family.model_type]  # which may be another than the class's own
    except (ImportError, AttributeError, KeyError):
        raise NotThere from None
    transformers.logging.set_verbosity_error()
    fields = {name: with_floats(value) for name, value in theirs.items()
              if name not in CHOICES and not name.startswith("_")}
    try:
        config = known.from_dict(fields | {"dtype": "float32", "torch_dtype": None, "use_cache": False})
        model, found = load(kind, config, {name: tensor.float() for name, tensor in weights.items()})
        model.tie_weights()
    except Exception as error:  # of their many classes
        raise ValueError(f"transformers refuses the model: {' '.join(str(error).split())[:200]}") from None
    lacking = [name for name in found["missing_keys"] if name in dict(model.named_parameters())]
    if lacking or found["unexpected_keys"]:
        raise ValueError(f"transformers has other weights: {', '.join([*lacking, *found['unexpected_keys']][:3])}")
    return model.eval()


def load(kind: Any, config: Any, weights: dict[str, Tensor]) -> tuple[torch.nn.Module, dict[str, Any]]:
    """Their model with weights, and its "missing_keys" and "unexpected_keys".

    Those of files may have other names than the model's, e.g. if it has experts: then their library converts them.
    """
    options = {"attn_implementation": "eager", "dtype": torch.float32}
    model = kind._from_config(config, **options)
    if weights.keys() <= model.state_dict().keys():
        return model, model.load_state_dict(weights, strict=False)._asdict()
    from transformers.utils import logging

    logging.disable_progress_bar()
    return kind.from_pretrained(None, config=config, state_dict=weights, output_loading_info=True, **options)


@torch.no_grad()
def compare(ours: Model, theirs: torch.nn.Module) -> float:
    """The largest difference between their logits on one text of random tokens.

    Raises ValueError if it is more than rounding.
    """
    length = min(NUM_TOKENS, ours.cfg.max_seq_len)
    tokens = torch.randint(ours.cfg.vocab_size, (1, length), generator=torch.Generator().manual_seed(0))
    logits, expected = ours(tokens), theirs(tokens).logits
    difference, largest = (logits - expected).abs().max().item(), expected.abs().max().item()
    if not difference <= TOLERANCE * max(1.0, largest):
        raise ValueError(f"its logits differ by {difference:.2g} from those of transformers (the largest is "
                         f"{largest:.2g}): nothing is written")
    return difference


def sentence(ours: Model, family: Family, theirs: Mapping[str, Any], weights: Mapping[str, Tensor]) -> str:
    """What a comparison with transformers says. Raises ValueError if the logits differ."""
    try:
        return f"logits equal those of transformers to {compare(ours, build(family, theirs, weights)):.1g}"
    except NotThere:
        return f"its logits are not compared: transformers with {family.architecture} is not installed"
