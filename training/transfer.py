"""Initialise a model with saved weights: copy the tensors that fit, name those that do not."""

from pathlib import Path
from typing import NamedTuple

import torch
from rich.console import Console
from safetensors import SafetensorError, safe_open
from torch import Tensor

from config import Config, replace
from configuration.command_line import print_line
from model import Model
from run_store.atomic_files import CHECKPOINT, SUMS
from run_store.checkpoint import Checkpoint
from runs import Run, there_are
from tokenizer import Tokenizer

WEIGHTS = CHECKPOINT[0]
BY_TOKEN = ("embed.tokens.weight", "head.unembed.weight", "head.unembed.bias",
            "value_embedding.table.weight")  # ends of names: one row for each token
BY_HASH = ("memory.table.weight", "memory.ngrams.table.weight")  # rows by hashes of ids in a vocabulary of this size
MAX_NAMED = 8  # tensors of one kind in an error


def begin_with_weights(cfg: Config, model: Model, tokenizer: Tokenizer, console: Console) -> Config:
    """Copy the weights that train.init_from names; return the configuration with the resolved path of the file."""
    source = find_source(cfg.train.init_from)
    misfits = load_weights(source, model, tokenizer, allow_partial=cfg.train.allow_partial,
                           new_ids=cfg.train.facts.num_ids)
    fresh = f"; what does not fit begins fresh ({misfits})" if misfits else ""
    print_line(console, f"weights of {source.path}{fresh}")
    return replace(cfg, train=replace(cfg.train, init_from=str(source.path)))


class Source(NamedTuple):
    """Saved weights, and the tokenizer they were trained with if it is known."""

    path: Path  # of the safetensors file
    tokenizer: Tokenizer | None


def find_source(name: str) -> Source:
    """Find the weights of a run (its best checkpoint), a folder or a file.

    Raises ValueError if there are none, or if the checkpoint is damaged.
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
        raise ValueError(f"train.init_from={name} is not a run, nor a folder or file with {WEIGHTS}; there are "
                         f"{there_are(name)}") from None
    return find_source(str(run.checkpoint("best").path))


def load_weights(
    source: Source, model: Model, tokenizer: Tokenizer, *, allow_partial: bool, new_ids: int = 0,
) -> str | None:
    """Copy the weights into the model; return a sentence on what does not fit and begins fresh, or None.

    Tables with a row for each token may lack the last `new_ids`, which the objective needs: these begin fresh.
    Raises ValueError, and changes nothing, if no tensor fits, or if one does not and `allow_partial` is off.
    """
    agree = None if source.tokenizer is None else same_ids(source.tokenizer, tokenizer)
    fits, rows, misfits = compare(model.state_dict(), read_weights(source.path), agree, new_ids=new_ids)
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
    wanted: dict[str, Tensor], saved: dict[str, Tensor], agree: bool | None, *, new_ids: int = 0,
) -> tuple[dict[str, Tensor], dict[str, Tensor], "Misfits"]:
    """(tensors that fit, first rows that fit if the vocabulary has another size, names of what does not fit).

    `agree`: whether both tokenizers use the same ids; None = unknown.
    """
    fits, rows, misfits = {}, {}, Misfits([], [], [], [])
    same_hashes = agree if wanted[BY_TOKEN[0]].shape == saved.get(BY_TOKEN[0], torch.empty(0)).shape else False
    owners: dict[int, str] = {}  # the first name of each piece of memory: tied tensors have several
    for name, ours in wanted.items():
        owner, theirs = owners.setdefault(ours.data_ptr(), name), saved.get(name)
        if theirs is None and owner in fits:
            continue
        hashed = same_hashes if name.endswith(BY_HASH) else agree
        found = find_misfit(name, ours, theirs, tied_to=(owner, fits.get(owner)), agree=hashed)
        if found is None:
            fits[name] = theirs
            continue
        reason, description = found
        if new_ids and reason == "reshaped" and name.endswith(BY_TOKEN) and len(ours) - len(theirs) == new_ids:
            rows[name] = theirs
            continue
        getattr(misfits, reason).append(description)
        if reason == "reshaped" and name.endswith(BY_TOKEN) and agree and ours.shape[1:] == theirs.shape[1:]:
            rows[name] = theirs[: len(ours)]
    misfits.unknown.extend(name for name in saved if name not in wanted)
    return fits, rows, misfits


def find_misfit(
    name: str, ours: Tensor, theirs: Tensor | None, *, tied_to: tuple[str, Tensor | None], agree: bool | None,
) -> tuple[str, str] | None:
    """(field of Misfits, description) of a tensor that does not fit; None if it fits."""
    owner, of_owner = tied_to
    if theirs is None:
        return "missing", name
    if name.endswith(BY_TOKEN + BY_HASH) and agree is False:
        return "other_ids", name
    if of_owner is not None and not torch.equal(of_owner, theirs):
        return "unknown", f"{name} (here it is {owner})"
    if ours.shape != theirs.shape:
        return "reshaped", f"{name} {tuple(theirs.shape)} instead of {tuple(ours.shape)}"
    return None


class Misfits(NamedTuple):
    """Names of tensors that do not fit, by reason."""

    missing: list[str]
    unknown: list[str]
    reshaped: list[str]
    other_ids: list[str]

    def __str__(self) -> str:
        words = ("missing there", "unknown here", "of another shape", "of other token ids")
        return "; ".join(f"{word}: {listed(names)}" for word, names in zip(words, self, strict=True) if names)


def listed(names: list[str]) -> str:
    """The names, or the first few and the number of the others."""
    more = len(names) - MAX_NAMED
    return ", ".join(names[:MAX_NAMED]) + (f" and {more} more" if more > 0 else "")


def same_ids(a: Tokenizer, b: Tokenizer) -> bool:
    """Whether every id that both tokenizers have stands for the same bytes."""
    common = min(a.vocab_size, b.vocab_size)
    specials = [(t.pad_id, t.bos_id, t.eos_id) for t in (a, b)]
    return specials[0] == specials[1] and a.token_bytes[:common] == b.token_bytes[:common]


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a safetensors file, shared ones under each of their names.

    Raises ValueError if it is not such a file.
    """
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, it is not a dict
            shared = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise ValueError(f"train.init_from={path} cannot be read: {error}") from None
    return tensors | {name: tensors[kept] for name, kept in shared.items() if kept in tensors}
