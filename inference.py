"""Load a run, continue texts with it, or measure how well it predicts one.

    python inference.py RUN "Once upon a time" --temperature 0.7 --min-p 0.05
    python inference.py RUN --score FILE

RUN is a name in models/ or a path; without a prompt the run's own are continued.
"""

import sys

if __name__ == "__main__":  # first of all: help and mistakes need no torch, whose import takes seconds
    from generation.command import parse

    command = parse(sys.argv[1:], __doc__)

import codecs
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TextIO

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import nn

import runs
from config import SampleConfig, replace
from configuration.command_line import fail
from data import IGNORED, eval_batches
from generation.command import Options, parse
from generation.sampling import ended, eval_mode, generate, stream
from model import Model
from runs import Run
from tokenizer import Tokenizer
from tools import pick_device

OPENINGS = {"tales": "Once"}  # how a corpus begins each text

# ---- prompts ----


def prompts_or_opening(cfg: SampleConfig, corpora: tuple[str, ...]) -> tuple[str, ...]:
    """The texts to continue: cfg.prompts, or where there are none, how the first corpus opens ("" = no known way)."""
    return cfg.prompts or (OPENINGS.get(corpora[0], ""),)


def encode_prompts(tokenizer: Tokenizer, cfg: SampleConfig) -> list[list[int]]:
    """Each of cfg.prompts as ids after the begin-of-text token, cfg.num_samples times in a row."""
    return [tokenizer.encode(prompt, bos=True) for prompt in cfg.prompts for _ in range(cfg.num_samples)]


def continue_prompts(model: Model, tokenizer: Tokenizer, cfg: SampleConfig) -> list[str]:
    """What the model writes after cfg.prompts, cfg.num_samples texts after each, in one batch."""
    ids = generate(model, encode_prompts(tokenizer, cfg), cfg, eos_id=tokenizer.eos_id, num_ids=tokenizer.vocab_size)
    return [tokenizer.decode(new) for new in ids]


# ---- scoring ----


@dataclass(frozen=True)
class Score:
    """How well a text is predicted; the end-of-text token counts, the begin-of-text does not."""

    loss: float  # nats per token
    bits_per_byte: float  # of UTF-8
    accuracy: dict[int, float]  # k: share of tokens among the k likeliest
    num_tokens: int
    num_bytes: int

    @property
    def perplexity(self) -> float:
        return math.exp(self.loss)


class EncodedText(NamedTuple):
    """One document, as data.eval_batches takes a token file."""

    tokens: np.ndarray
    document_starts: np.ndarray
    num_tokens: int
    pad_id: int


@torch.inference_mode()
def score(
    model: Model, tokenizer: Tokenizer, text: str, *, separator: str | None = None,
    packing: str = "stream", batch_size: int = 8, top_k: Sequence[int] = (1, 5),
) -> Score:
    """Predict each token of a text from those before it, in windows of max_seq_len tokens.

    Between separators stand several documents, each read from its start; the separators do not count. `packing` is
    how the model was trained to see them in a row: see data.packing.
    Raises ValueError where the text is empty.
    """
    documents = [part for part in text.split(separator) if part.strip()] if separator else [text]
    if not any(documents):
        raise ValueError("text='' is empty: give at least one character to score")
    encoded_documents = [tokenizer.encode(document, bos=True, eos=True) for document in documents]
    ids = np.concatenate(encoded_documents)
    starts = np.cumsum([0, *map(len, encoded_documents[:-1])])
    encoded = EncodedText(ids, starts, len(ids), tokenizer.pad_id)
    seq_len = min(model.cfg.max_seq_len, len(ids) - 1)
    num_windows = -(-(len(ids) - 1) // seq_len)
    device, nats, count, hits = next(model.parameters()).device, 0.0, 0, dict.fromkeys(top_k, 0)
    with eval_mode(model):
        for batch in eval_batches(encoded, min(batch_size, num_windows), seq_len, packing):
            batch = batch.to(device)
            counts = batch.y != IGNORED
            logits, targets = model(batch.x, documents=batch.documents)[counts], batch.y[counts]  # (n, v), (n,)
            count += batch.num_targets
            nats += nn.functional.cross_entropy(logits, targets, reduction="sum").item()
            right = logits.topk(min(max(top_k), logits.shape[-1])).indices == targets[:, None]
            for k in top_k:
                hits[k] += int(right[:, :k].sum())
    num_bytes = sum(len(document.encode()) for document in documents)
    return Score(loss=nats / count, bits_per_byte=nats / math.log(2) / num_bytes, num_tokens=count,
                 num_bytes=num_bytes, accuracy={k: n / count for k, n in hits.items()})


# ---- command line ----

def write_texts(model: Model, tokenizer: Tokenizer, cfg: SampleConfig, out: TextIO) -> None:
    """Write cfg.prompts and what follows each, one under the other: as the tokens come, in their order.

    Several texts have a line above each. A character is written when all its bytes are there.
    """
    prompts = encode_prompts(tokenizer, cfg)
    decoders = [codecs.getincrementaldecoder("utf-8")(errors="replace") for _ in prompts]
    waiting, new = [tokenizer.decode(ids) for ids in prompts], [[] for _ in prompts]
    tokens = stream(model, prompts, cfg, eos_id=tokenizer.eos_id, num_ids=tokenizer.vocab_size)
    for row in range(len(prompts)):
        if len(prompts) > 1:
            out.write(f"--- {row + 1} of {len(prompts)} ---\n")
        out.write(waiting[row])
        while not ended(new[row], cfg, tokenizer.eos_id):
            other, token = next(tokens)
            new[other].append(token)
            last = ended(new[other], cfg, tokenizer.eos_id)
            text = decoders[other].decode(tokenizer.token_bytes[token], final=last)
            if other == row:
                out.write(text)
                out.flush()
            else:
                waiting[other] += text
        out.write("\n")


def score_table(result: Score) -> Table:
    table = Table(show_header=False)
    table.add_row("loss", f"{result.loss:.4f} nats/token")
    table.add_row("perplexity", f"{result.perplexity:.3f}")
    table.add_row("bits per byte", f"{result.bits_per_byte:.4f}")
    for k, share in result.accuracy.items():
        table.add_row(f"top-{k} accuracy", f"{share:.2%}")
    table.add_row("text", f"{result.num_tokens:,} tokens, {result.num_bytes:,} bytes")
    return table


def read_text(name: str) -> str:
    """A UTF-8 file's text, or standard input's for "-". Raises ValueError where there is none to read."""
    try:
        text = (sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()).decode()
    except OSError as error:
        raise ValueError(f"score={name!r} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"score={name!r} is not UTF-8 text (byte {error.start}): convert it first") from None
    if not text:
        raise ValueError(f"score={name!r} is empty: give at least one character to score")
    return text


def run_command(run: Run, options: Options) -> None:
    """Score a text, in documents as the run's own, or continue prompts, as the options say."""
    if options.score is not None and options.sample != run.config.sample:
        raise ValueError(f"score={options.score!r} generates nothing: leave out prompts and sampling flags")
    text = None if options.score is None else read_text(options.score)
    tokenizer = run.tokenizer()
    model = run.load_model(options.checkpoint, pick_device(options.device), ema=options.ema)
    if text is None:
        prompts = prompts_or_opening(options.sample, run.config.data.name)
        write_texts(model, tokenizer, replace(options.sample, prompts=prompts), sys.stdout)
    else:
        data = run.config.data
        Console().print(score_table(score(model, tokenizer, text, separator=data.separator, packing=data.packing)))


def main(argv: Sequence[str], command: tuple[Path, Options] | None = None) -> None:
    """`python inference.py RUN ["prompt" ...] [flags]`; a user's mistake exits 2, Ctrl-C exits 130."""
    path, options = command or parse(argv, __doc__, runs.MODELS)
    try:
        run_command(Run(path), options)
    except ValueError as error:
        fail(error)
    except KeyboardInterrupt:
        raise SystemExit(130) from None


if __name__ == "__main__":
    main(sys.argv[1:], command)
