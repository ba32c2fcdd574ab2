"""How well the best checkpoints of several runs predict the same text."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, pairwise
from pathlib import Path

import numpy as np
import torch

from config import ModelConfig
from corpora.corpus import load_corpus
from corpora.files import digest, text_blocks
from corpora.shards import prepare
from data import eval_batches
from experiments.common.caches import cached
from experiments.comparing.lines import Line, members, try_each
from experiments.comparing.sources import CurveSource
from inference import EncodedText, load_objective
from model import Model
from objective import Objective, as_objective
from runs import Run
from tokenizer import Tokenizer
from tools import pick_device

CACHE = "held_out.json"
BLOCK_BYTES = 2048  # a longer document counts as several blocks
MAX_VALUES = 2**22  # of the logits, or of the widest layer, in memory at a time
TOP = (1, 5)
CHANNELS, HEADS = 8, 8  # x the width of the model: a gated MLP's; rows of scores of a token


@dataclass(frozen=True)
class HeldOut:
    """A text to measure on."""

    documents: tuple[str, ...]
    origin: str  # in words, e.g. "held out for base"

    def __str__(self) -> str:
        return (f"The same text for all, in the columns that say so: {self.num_bytes:,} bytes {self.origin}, "
                "as the best checkpoints predict them.")

    @cached_property
    def num_bytes(self) -> int:
        """Bytes of UTF-8."""
        return int(self.block_bytes.sum())

    @cached_property
    def blocks(self) -> tuple[np.ndarray, ...]:
        """The bytes of each document's blocks: the document, or equal pieces of a long one."""
        sizes = [len(document.encode()) for document in self.documents]
        return tuple(np.diff(np.linspace(0, size, max(1, size // BLOCK_BYTES) + 1).astype(int)) for size in sizes)

    @cached_property
    def block_bytes(self) -> np.ndarray:
        """Shape: (blocks,)."""
        return np.concatenate(self.blocks)

    def blocks_of(self, tokenizer: Tokenizer, encoded: Sequence[Sequence[int]]) -> np.ndarray:
        """The block in which each token of all documents begins. Shape: (tokens,)."""
        found, first = [], 0
        for ids, sizes in zip(encoded, self.blocks, strict=True):
            lengths = tokenizer.byte_lengths[list(ids)]
            begins = np.cumsum(lengths) - lengths
            place = np.searchsorted(np.cumsum(sizes), begins, side="right")
            found.append(first + np.minimum(place, len(sizes) - 1))  # the end-of-text token lies behind the last block
            first += len(sizes)
        return np.concatenate(found)


@dataclass(frozen=True)
class Measures:
    """A checkpoint's predictions of a text; end-of-text tokens count."""

    step: int  # of the checkpoint
    num_tokens: int
    accuracy: dict[int, float]  # k -> share of tokens that are among the k most likely
    block_nats: tuple[float, ...]  # of each block of the text

    def bits_per_byte(self, text: HeldOut) -> float:
        return sum(self.block_nats) / math.log(2) / text.num_bytes


def held_out(lines: Sequence[Line], max_bytes: int, path: Path | None = None) -> tuple[HeldOut | None, list[str]]:
    """The file's text, or the held-out text of the first run that still has it; and why other runs do not.

    None if `max_bytes` is 0 or no run has it, as runs on synthetic tasks and pairs. Raises ValueError if the file has
    no text.
    """
    problems = []
    if path is not None:
        return text_file(path, max_bytes), problems
    runs = (member.run for member in members(lines) if max_bytes)
    for run in (run for run in runs if not (run.config.data.is_probe or run.config.data.is_pairs)):
        try:
            return held_out_text(run, max_bytes), problems
        except ValueError as error:
            problems.append(f"What is held out for {run.name} cannot be had: {error}.")
    return None, problems


def measure_all(
    lines: Sequence[Line], text: HeldOut | None, *, device: str = "auto",
) -> tuple[dict[CurveSource, Measures], list[str]]:
    """Each run's best checkpoint on the text, if there is one; and a sentence on each that cannot be measured."""
    return try_each(lines if text else (), lambda run: measure(run, text, device=device), "{} is not measured: {}.")


def held_out_text(run: Run, max_bytes: int) -> HeldOut:
    """The first held-out documents of a run, up to `max_bytes`.

    Raises ValueError if the text is missing or has changed since the training.
    """
    corpus, tokenizer = load_corpus(run.config.data), run.tokenizer()
    if corpus.fingerprint != run.data["fingerprint"]:
        raise ValueError(f"data.name={corpus.name} has changed since {run.name} was trained: put the text back as it "
                         "was, or give a text to measure on")
    _, part = prepare(corpus, tokenizer, run.config.data.cache_path, workers=run.config.data.workers)
    documents = (tokenizer.decode(part.tokens[begin:end])
                 for begin, end in pairwise(chain(part.document_starts, [part.num_tokens])))
    return HeldOut(_up_to(documents, max_bytes), f"held out for {run.name}")


def text_file(path: Path, max_bytes: int) -> HeldOut:
    """A UTF-8 file's first `max_bytes` as one document. Raises ValueError or OSError if there is none."""
    with path.open("rb") as file:
        text = "".join(text_blocks(file, path))
    if not text.strip():
        raise ValueError(f"text={path} is empty: give a file with some text to measure on")
    return HeldOut(_up_to([text], max_bytes), f"of {path.name}")


def _up_to(documents: Iterable[str], max_bytes: int) -> tuple[str, ...]:
    """The first documents that fit; if none does, the start of the first."""
    taken, room = [], max_bytes
    for document in documents:
        data = document.encode()
        if len(data) > room:
            break
        taken.append(document)
        room -= len(data)
    return tuple(taken) or (data[:max_bytes].decode(errors="ignore"),)


def measure(run: Run, text: HeldOut, *, checkpoint: str = "best", device: str = "auto") -> Measures:
    """Measure a checkpoint on the text, in rows as in the run's own evaluations; results are kept in its folder.

    Raises ValueError if there is no such checkpoint, if the tokenizer cannot encode the text, or if the run or
    its objective predicts a part of the text only.
    """
    if of := run.config.facts.of:
        raise ValueError(f"train.objective={run.config.train.objective} predicts {of}")
    if run.config.data.is_pairs:
        raise ValueError("it predicts targets after their sources")
    saved = run.checkpoint(checkpoint)
    key = digest(saved.fingerprint, digest(*text.documents), BLOCK_BYTES, TOP)

    def measure_now() -> dict:
        objective = load_objective(run, str(saved.step), pick_device(device))
        return {"step": saved.step, **predict(objective, run.tokenizer(), text, packing=run.config.data.packing)}

    found = cached(run.path / CACHE, key, measure_now)
    return Measures(**found | {"accuracy": {int(k): share for k, share in found["accuracy"].items()}})


def num_rows(cfg: ModelConfig, num_tokens: int, seq_len: int) -> int:
    """The rows of a batch: no more than the text fills, nor than MAX_VALUES allow of logits, channels and scores."""
    widest = max(cfg.padded_vocab_size, CHANNELS * cfg.dim, HEADS * seq_len)
    return max(1, min(MAX_VALUES // (seq_len * widest), math.ceil(num_tokens / seq_len)))


def predict(objective: Objective | Model, tokenizer: Tokenizer, text: HeldOut, *, packing: str) -> dict:
    """The fields of Measures, without the step."""
    encoded = EncodedText.of(text.documents, tokenizer)
    blocks = text.blocks_of(tokenizer, np.split(encoded.tokens, encoded.document_starts[1:]))
    objective = as_objective(objective)
    seq_len = min(objective.row_len, encoded.num_tokens - 1)
    rows = num_rows(objective.model.cfg, encoded.num_tokens, seq_len)
    # the same rows twice: of the tokens, and of their blocks
    batches, places = (eval_batches(encoded._replace(tokens=tokens), rows, seq_len, packing)
                       for tokens in (encoded.tokens, blocks))
    device, found = next(objective.model.parameters()).device, []
    for batch, place in zip(batches, places, strict=True):
        scores = objective.score(batch.to(device), top_k=max(TOP))
        counts = scores.counted.cpu()
        found.append((place.y[counts], scores.nats.cpu()[counts], scores.right.cpu()[counts]))
    where, nats, right = map(torch.cat, zip(*found, strict=True))
    return {"num_tokens": len(nats), "accuracy": {str(k): right[:, :k][:, -1].double().mean().item() for k in TOP},
            "block_nats": np.bincount(where, nats.double(), len(text.block_bytes)).tolist()}
