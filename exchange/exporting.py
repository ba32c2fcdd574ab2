"""Export a run as a folder that transformers loads."""

import json
import os
from itertools import islice
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from tokenizers import Tokenizer as Backend

import tales
from config import ModelConfig, override
from configuration.scaling import in_standard_form
from exchange.folder import WHOLE
from exchange.reference import sentence
from exchange.weights import their_weights
from families import FAMILIES
from families.family import Family
from model import Model, spell_parameters
from run_store.unfinished import private_folder, publish
from runs import Run
from tokenization.as_json import describe, to_backend
from tokenizer import Tokenizer

NUM_STORIES, MOST_SUPPRESSED = 50, 1024


def export_run(run: Run, folder: Path, *, checkpoint: str = "best", ema: bool = False, check: bool = True) -> list[str]:
    """Write a run's model and tokenizer in the form of Hugging Face; return sentences on what was done.

    Raises ValueError, and writes nothing, if no family can express it or its logits differ from transformers'.
    """
    if os.path.lexists(folder):
        raise ValueError(f"{folder} is there already: give another folder")
    if run.config.train.facts.looks_ahead:
        raise ValueError(f"{run.name} has learned train.objective={run.config.train.objective}: its model sees later "
                         "tokens, and no class of a family does")
    imported, tokenizer = run.data.get("imported") or {}, run.tokenizer()
    family = choose_family(in_standard_form(without_ahead(run.config.model)), imported.get("model_type"), run.name)
    model = with_plain_factors(trunk_of(run.load_model(checkpoint, ema=ema)))
    cfg = model.cfg
    backend = to_backend(tokenizer, real_texts(run), bos=imported.get("adds_bos", True))
    theirs, weights = their_config(family, cfg, tokenizer), their_weights(family, cfg, model)
    compared = sentence(model, family, theirs, weights) if check else "its logits are not compared: --no-check"
    with private_folder(folder) as unfinished:
        saved = {family.weights.saved_name(name): tensor for name, tensor in weights.items()}
        save_file(saved, unfinished / WHOLE, metadata={"format": "pt"})
        write_json(unfinished / "config.json", theirs)
        write_json(unfinished / "generation_config.json", generation(tokenizer, cfg))
        write_tokenizer(unfinished, tokenizer, backend, cfg.max_seq_len)
        try:
            publish(unfinished, folder)
        except FileExistsError:
            raise ValueError(f"{folder} is there already: give another folder") from None
    return [f"{folder} is a {family.architecture} of {spell_parameters(model)}; {compared}",
            "its tokenizer gives the ids of the run's", *[
                "the parts of model.ahead stay behind: it predicts the next token alone"] * (
                    run.config.model.ahead != "none")]


def without_ahead(cfg: ModelConfig) -> ModelConfig:
    return cfg if cfg.ahead == "none" else override(cfg, {"ahead": "none", "ahead_depth": 1})


def trunk_of(model: Model) -> Model:
    """A model without the parts of model.ahead, which no class of a family has."""
    if model.cfg.ahead == "none":
        return model
    trunk = Model(without_ahead(model.cfg)).eval()
    trunk.load_state_dict({name: x for name, x in model.state_dict().items() if not name.startswith("ahead.")})
    return trunk


def with_plain_factors(model: Model) -> Model:
    """A model that computes the same with scaling=standard, whose factors are flags that families may have."""
    if model.cfg.scaling == "standard":
        return model
    plain = Model(in_standard_form(model.cfg)).eval()
    plain.load_state_dict(model.state_dict())
    if model.cfg.head_bias:  # the factor on what the head reads becomes one on the logits
        plain.head.unembed.bias.data *= model.cfg.width_ratio
    return plain


def choose_family(cfg: ModelConfig, origin: str | None, name: str) -> Family:
    """The family that a run was imported from, or else the first that can express it.

    Raises ValueError with the flags in the way of the nearest one.
    """
    names = [origin] * (origin in FAMILIES) + [kind for kind in FAMILIES if kind != origin]
    found: dict[str, list[str]] = {}
    for kind in names:
        found[kind] = FAMILIES[kind].misfits(cfg)
        if not found[kind]:
            return FAMILIES[kind]
    broken = {kind for kind, said in found.items() if not said[0].startswith("model.")}
    nearest = min(found, key=lambda kind: (kind in broken, len(found[kind])))
    raise ValueError(f"{name} is a model that no family in families/ can express; the nearest is {nearest}: "
                     f"{'; '.join(found[nearest])}")


def their_config(family: Family, cfg: ModelConfig, tokenizer: Tokenizer) -> dict[str, Any]:
    return family.write(cfg) | special_ids(tokenizer) | {"dtype": "float32", "use_cache": True}


def special_ids(tokenizer: Tokenizer) -> dict[str, int]:
    return {f"{role}_token_id": getattr(tokenizer, f"{role}_id") for role in ("bos", "eos", "pad")}


def generation(tokenizer: Tokenizer, cfg: ModelConfig) -> dict[str, Any]:
    """generation_config.json: where a text ends, and ids that stand for nothing."""
    unused = list(range(tokenizer.vocab_size, cfg.padded_vocab_size))
    return special_ids(tokenizer) | ({"suppress_tokens": unused} if 0 < len(unused) <= MOST_SUPPRESSED else {})


def real_texts(run: Run) -> list[str]:
    """Texts on which the tokenizer's form is compared: the run's samples and the built-in stories."""
    return [*(sample["text"] for sample in run.samples()),
            *(story.text for story in islice(tales.stories(0), NUM_STORIES))]


def write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def write_tokenizer(folder: Path, tokenizer: Tokenizer, backend: Backend, max_len: int) -> None:
    (folder / "tokenizer.json").write_text(backend.to_str(), encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(describe(tokenizer, backend, max_len), encoding="utf-8")
