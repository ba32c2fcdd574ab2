"""Weights of one run as the beginning of another: what fits is copied, what does not is named."""

from pathlib import Path
from typing import NamedTuple

import torch
from rich.console import Console
from safetensors import SafetensorError, safe_open
from torch import Tensor

from config import Config, replace
from model import Model
from run_store.atomic_files import CHECKPOINT, SUMS
from run_store.checkpoint import Checkpoint
from runs import Run, there_are
from tokenizer import Tokenizer

WEIGHTS = CHECKPOINT[0]
BY_TOKEN = ("embed.tokens.weight", "head.unembed.weight", "head.unembed.bias")  # one row for each token
MAX_NAMED = 8  # tensors of one kind in an error


def begin_with_weights(cfg: Config, model: Model, tokenizer: Tokenizer, console: Console) -> Config:
    """Copy the weights that train.init_from names; the configuration then names the very file's folder."""
    source = find_source(cfg.train.init_from)
    misfits = load_weights(source, model, tokenizer, allow_partial=cfg.train.allow_partial)
    fresh = f"; what does not fit begins fresh ({misfits})" if misfits else ""
    console.print(f"weights of {source.path}{fresh}", highlight=False, soft_wrap=True, markup=False)
    return replace(cfg, train=replace(cfg.train, init_from=str(source.path)))


class Source(NamedTuple):
    """Saved weights, and the tokenizer they were trained with where it is known."""

    path: Path  # of the safetensors file
    tokenizer: Tokenizer | None


def find_source(name: str) -> Source:
    """The weights of a run (its best checkpoint), or of a folder or a file.

    Raises ValueError where there are none, or a checkpoint is damaged.
    """
    path = Path(name).resolve()
    if path.is_dir() and (path / WEIGHTS).is_file():
        path = path / WEIGHTS
    if path.is_file():
        run = path.parents[2] if (path.parent / SUMS).is_file() else None
        if run and (problem := Checkpoint(path.parent).problem()):
            raise ValueError(f"train.init_from={name}: {problem}")
        return Source(path, Run(run).tokenizer() if run and (run / "config.json").is_file() else None)
    try:
        run = Run(name)
    except ValueError:
        raise ValueError(f"train.init_from={name} is no run, and no folder or file with {WEIGHTS}; there are "
                         f"{there_are(name)}") from None
    checkpoint = run.checkpoint("best")
    return find_source(str(checkpoint.path))


def load_weights(source: Source, model: Model, tokenizer: Tokenizer, *, allow_partial: bool) -> str | None:
    """Copy the weights into the model; a sentence on what does not fit and begins fresh, None = all fits.

    Raises ValueError, and changes nothing, where a tensor does not fit and `allow_partial` is off, or none fits.
    """
    agree = None if source.tokenizer is None else same_ids(source.tokenizer, tokenizer)
    fits, rows, misfits = compare(model.state_dict(), read_weights(source.path), agree)
    if any(misfits) and not allow_partial:
        hint = f", --tokenizer.path {source.path.parents[2] / 'tokenizer'} keeps its ids" * bool(misfits.other_ids)
        raise ValueError(f"train.init_from={source.path} does not fit ({misfits}): --allow-partial begins "
                         f"these fresh{hint}")
    if not fits:
        raise ValueError(f"train.init_from={source.path} has no tensor that fits: use the model flags that it was "
                         "trained with")
    model.load_state_dict(model.state_dict() | fits)
    for name, part in rows.items():
        model.state_dict()[name][: len(part)] = part
    kept = "".join(f"; the first {len(part):,} rows of {name} are kept" for name, part in rows.items())
    return f"{misfits}{kept}" if any(misfits) else None


def compare(
    wanted: dict[str, Tensor], saved: dict[str, Tensor], agree: bool | None,
) -> tuple[dict[str, Tensor], dict[str, Tensor], "Misfits"]:
    """(what fits, first rows that fit where a vocabulary has another size, the names of what does not).

    `agree`: whether both tokenizers mean the same by the ids that both have; None = not known.
    """
    fits, rows, misfits = {}, {}, Misfits([], [], [], [])
    owners: dict[int, str] = {}  # of each piece of memory: tied tensors have two names
    for name, ours in wanted.items():
        owner, theirs = owners.setdefault(ours.data_ptr(), name), saved.get(name)
        if theirs is None and owner not in fits:
            misfits.missing.append(name)
        elif theirs is None:
            continue
        elif name in BY_TOKEN and agree is False:
            misfits.other_ids.append(name)
        elif owner in fits and not torch.equal(fits[owner], theirs):
            misfits.unknown.append(f"{name} (here it is {owner})")
        elif ours.shape == theirs.shape:
            fits[name] = theirs
        else:
            misfits.reshaped.append(f"{name} {tuple(theirs.shape)} instead of {tuple(ours.shape)}")
            if name in BY_TOKEN and agree and ours.shape[1:] == theirs.shape[1:]:
                rows[name] = theirs[: len(ours)]
    misfits.unknown.extend(name for name in saved if name not in wanted)
    return fits, rows, misfits


class Misfits(NamedTuple):
    """Names of tensors that do not fit, by the reason."""

    missing: list[str]
    unknown: list[str]
    reshaped: list[str]
    other_ids: list[str]

    def __str__(self) -> str:
        words = ("missing there", "unknown here", "of another shape", "of other token ids")
        return "; ".join(f"{word}: {listed(names)}" for word, names in zip(words, self, strict=True) if names)


def listed(names: list[str]) -> str:
    """The names, or the first few and how many there are besides."""
    more = len(names) - MAX_NAMED
    return ", ".join(names[:MAX_NAMED]) + (f" and {more} more" if more > 0 else "")


def same_ids(a: Tokenizer, b: Tokenizer) -> bool:
    """Whether every id that both have stands for the same bytes."""
    common = min(a.vocab_size, b.vocab_size)
    specials = [(t.pad_id, t.bos_id, t.eos_id) for t in (a, b)]
    return specials[0] == specials[1] and a.token_bytes[:common] == b.token_bytes[:common]


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file, shared ones under each of their names.

    Raises ValueError where it is none.
    """
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, it is no dict
            shared = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise ValueError(f"train.init_from={path} cannot be read: {error}") from None
    return tensors | {name: tensors[kept] for name, kept in shared.items() if kept in tensors}
