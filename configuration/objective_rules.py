"""Which models, rows and flags go with which objective."""

from dataclasses import fields
from typing import Any

from configuration.checks import Acts, check_ignored, words_of
from configuration.objectives import (
    NUM_SENTINELS,
    DiffuseqConfig,
    FimConfig,
    MaskedConfig,
    MultiTokenConfig,
    SpansConfig,
    VectorsConfig,
)
from configuration.stacks import require_both_ways
from configuration.tree import get

# a group of flags, its class, and the objective that alone reads it
OWN_GROUPS = (("multi_token", MultiTokenConfig, "multi_token"), ("fim", FimConfig, "fill_in_the_middle"),
              ("masked", MaskedConfig, "masked"), ("diffuseq", DiffuseqConfig, "diffuseq"),
              ("spans", SpansConfig, "span_corruption"))


def _acts_of_group(group: str, kind: type, objective: str) -> tuple[tuple[str, ...], Acts]:
    names = tuple(f"{group}.{flag.name}" for flag in fields(kind))
    return names, (f"objective is {objective}", lambda cfg: cfg.objective == objective)


DIFFUSIONS = "masked_diffusion", "block_diffusion"
ACTS_OF_OBJECTIVES: dict[tuple[str, ...], Acts] = {
    tuple(f"diffusion.{flag}" for flag in ("weight", "min_share", "max_share", "estimate", "draws")): (
        "objective is masked_diffusion or block_diffusion", lambda c: c.objective in DIFFUSIONS),
    ("diffusion.shift",): ("objective is masked_diffusion", lambda c: c.objective == "masked_diffusion"),
    ("diffusion.block_len",): ("objective is block_diffusion", lambda c: c.objective == "block_diffusion"),
    **dict(_acts_of_group(*each) for each in OWN_GROUPS),
}
SAMPLE_OF_OBJECTIVE: dict[tuple[str, ...], Acts] = {
    ("sample.denoise.order", "sample.denoise.tokens_per_step"): (
        "train.objective is masked_diffusion, block_diffusion or masked", lambda c: c.train.facts.denoises),
    ("sample.denoise.block_len",): ("train.objective is masked_diffusion or masked", lambda c: (
        c.train.facts.denoises and c.train.objective != "block_diffusion")),
    tuple(f"sample.vectors.{flag.name}" for flag in fields(VectorsConfig)): (
        "train.objective is diffuseq", lambda c: c.train.facts.noised),
    ("sample.drafts",): ("train.objective is multi_token", lambda c: c.train.objective == "multi_token"),
    tuple(f"sample.{flag}" for flag in ("temperature", "top_k", "top_p", "min_p", "repetition_penalty")): (
        "train.objective is not diffuseq, which draws vectors and no tokens", lambda c: not c.train.facts.noised),
}
BY_PLACE = "canon", "token_shift", "memory", "attention.key_offset"  # parts that read the token before


def check_objective(cfg: Any) -> None:
    """Raise ValueError if the model or the rows are not what train.objective needs."""
    facts, name = cfg.train.facts, f"train.objective={cfg.train.objective}"
    _check_source(cfg, name)
    _check_ahead(cfg, name)
    _check_noised(cfg, name)
    if facts.looks_ahead:
        require_both_ways(cfg.model, name)
    if cfg.model.pointer and not facts.causal:
        raise ValueError(f"{name} hides tokens, and model.pointer=True would copy what stands in their place: use "
                         "model.pointer=False")
    if facts.copies > 1:
        _check_copies(cfg.model, name)
    if facts.one_text and cfg.data.packing == "documents":
        raise ValueError(f"{name} reads the tokens of a row as one text: use data.packing=stream or pad")
    if facts.one_text and cfg.data.is_probe:
        raise ValueError(f"{name} predicts the tokens of a row, and data.name={cfg.data.name[0]} asks for answers: use "
                         "another objective or text")
    if cfg.row_len < 1:
        raise ValueError(f"{name} reads rows of {facts.room + 1} tokens at least: "
                         f"model.max_seq_len={cfg.model.max_seq_len}")
    if cfg.train.objective == "span_corruption":
        _check_spans(cfg)
    check_sampling(cfg)


def check_sampling(cfg: Any) -> None:
    """Raise ValueError if a flag of `sample` asks for something by which texts of the objective are not made."""
    check_ignored(cfg, SAMPLE_OF_OBJECTIVE, {})
    if cfg.train.facts.noised and cfg.sample.vectors.steps > cfg.model.noised_steps:
        raise ValueError(f"sample.vectors.steps={cfg.sample.vectors.steps} is more than model.noised_steps="
                         f"{cfg.model.noised_steps}: use at most as many")


def _check_source(cfg: Any, name: str) -> None:
    """Raise ValueError unless there is an encoder exactly if the objective gives it a source."""
    encodes, reads = cfg.train.facts.encodes, any(cfg.model.by_kind[kind].cross != "none" for kind in cfg.model.layers)
    if reads and not encodes:
        raise ValueError(f"{name} gives no source, which a layer with model.cross=attention reads: leave model.cross "
                         "out, or use train.objective=seq2seq or span_corruption")
    if encodes and cfg.model.encoder_layers is None:
        raise ValueError(f"{name} is of an encoder and a decoder: give model.cross=attention and model.encoder_layers, "
                         "or a preset such as t5-small")


def _check_ahead(cfg: Any, name: str) -> None:
    """Raise ValueError unless there are parts that predict further tokens exactly if the objective trains them."""
    if cfg.train.objective == "multi_token" and cfg.model.ahead == "none":
        raise ValueError(f"{name} predicts tokens beyond the next, and model.ahead=none has no parts for them: use "
                         "model.ahead=heads or modules")
    if cfg.train.objective != "multi_token" and cfg.model.ahead != "none":
        raise ValueError(f"{name} would train nothing of model.ahead={cfg.model.ahead}: use "
                         "train.objective=multi_token, leave model.ahead out, or look at it with python model.py")


def _check_noised(cfg: Any, name: str) -> None:
    """Raise ValueError unless the model reads vectors with noise exactly if the objective gives them."""
    facts = cfg.train.facts
    if cfg.model.noised and not facts.noised:
        raise ValueError(f"model.noised=True reads vectors with noise, which {name} does not give: use "
                         "train.objective=diffuseq, or leave it out")
    if facts.noised and not cfg.model.noised:
        raise ValueError(f"{name} gives vectors with noise: use model.noised=True and model.tie_embeddings=True")
    if not facts.noised:
        return
    if cfg.model.z_loss:
        raise ValueError(f"model.z_loss={cfg.model.z_loss} would change nothing: the loss of {name} has no such term: "
                         "leave it out")
    if cfg.train.log_accuracy:
        raise ValueError(f"train.log_accuracy=True: {name} learns vectors, and has no likeliest token in training: "
                         "leave it out, an evaluation has it")


def _check_copies(cfg: Any, name: str) -> None:
    """Raise ValueError if a part of the model goes by the places of tokens in a row and not by their positions.

    An objective that reads several copies of a row in one pass cannot have one.
    """
    kinds = [(flag, get(layer, flag)) for layer in cfg.by_kind.values() for flag in BY_PLACE]
    for flag, value in [*kinds, ("smear", cfg.smear)]:
        if value not in (False, (), "none"):
            said = words_of(value) if isinstance(value, tuple) else value
            raise ValueError(f"{name} reads two copies of a row in one pass, and model.{flag}={said} goes by the "
                             "places of tokens in it: leave it out")
    if any(layer.position == "learned" for layer in cfg.by_kind.values()):
        raise ValueError(f"{name} reads two copies of a row in one pass, which model.position=learned takes for one "
                         "that is too long: use another position")


def _check_spans(cfg: Any) -> None:
    """Raise ValueError if there are not enough sentinels for the spans of a row, or a target may be too long."""
    length = cfg.row_len + 1
    hidden, spans = cfg.train.spans.counts(length)
    hides = (f"train.spans.rate={cfg.train.spans.rate:g} with train.spans.mean_len={cfg.train.spans.mean_len:g} hides "
             f"{hidden} of model.max_seq_len={length} tokens in {spans} spans")
    if spans > NUM_SENTINELS:
        raise ValueError(f"{hides}, and there are {NUM_SENTINELS} sentinels: give longer spans, or a lower rate")
    if hidden + spans + 1 > length:
        raise ValueError(f"{hides}: these make a target of {hidden + spans + 1} tokens, which must fit in "
                         "model.max_seq_len too; give a lower rate, or longer spans")
