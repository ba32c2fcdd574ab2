"""Load a run, and continue texts with it or measure how well it predicts one.

    python inference.py RUN "Once upon a time" --temperature 0.7 --min-p 0.05
    python inference.py RUN "Once upon a time" --suffix "The end."
    python inference.py RUN --score FILE

RUN is a name in models/ or a path. Without a prompt the run's own prompts are continued.
"""

import sys

if __name__ == "__main__":  # before the imports: help and mistakes need no torch, whose import takes seconds
    from configuration import garbage, startup  # noqa: F401, before all that needs a package

    garbage.wait()
    from generation.command import parse

    command = parse(sys.argv[1:], __doc__)

import codecs
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple, TextIO

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

import runs
from config import SampleConfig, replace
from configuration.command_line import fail, printable
from data import eval_batches
from generation.command import Options, parse
from generation.sampling import ended, eval_mode
from model import Model
from objective import FillInTheMiddle, Objective, as_objective, make_objective
from runs import Run
from tokenizer import Tokenizer
from tools import pick_device

OPENINGS = {"tales": "Once"}  # how a corpus begins each text

# ---- prompts ----


def prompts_or_opening(cfg: SampleConfig, corpora: tuple[str, ...]) -> tuple[str, ...]:
    """The texts to continue: cfg.prompts, or if there are none, the opening of the first corpus ("" = unknown)."""
    return cfg.prompts or (OPENINGS.get(corpora[0], ""),)


def encode_prompts(tokenizer: Tokenizer, cfg: SampleConfig, *, are_sources: bool = False) -> list[list[int]]:
    """Encode each of cfg.prompts after a begin-of-text token, cfg.num_samples times in a row.

    A source of a pair ends with an end-of-text token.
    """
    return [tokenizer.encode(prompt, bos=True, eos=are_sources)
            for prompt in cfg.prompts for _ in range(cfg.num_samples)]


def load_objective(
    run: Run, checkpoint: str = "best", device: str | torch.device = "cpu", *, ema: bool = False,
) -> Objective:
    """What a run has learned, to generate and to score with; the options are those of Run.load_model."""
    return make_objective(run.load_model(checkpoint, device, ema=ema), run.config.train)


def continue_prompts(
    objective: Objective | Model, tokenizer: Tokenizer, cfg: SampleConfig, *, are_sources: bool = False,
) -> list[str]:
    """Continue each of cfg.prompts with cfg.num_samples texts, in batches; with `are_sources` these are targets."""
    prompts = encode_prompts(tokenizer, cfg, are_sources=are_sources)
    ids = as_objective(objective).generate(prompts, cfg, eos_id=tokenizer.eos_id, num_ids=tokenizer.vocab_size)
    return [tokenizer.decode(new) for new in ids]


def fill_in(objective: Objective, tokenizer: Tokenizer, prompt: str, suffix: str, cfg: SampleConfig) -> list[str]:
    """`cfg.num_samples` texts between a prompt and a suffix.

    Raises ValueError if the objective has not learned to fill in, or both do not fit into the context.
    """
    if not isinstance(objective, FillInTheMiddle):
        raise ValueError(f"suffix={suffix!r} is for a run with train.objective=fill_in_the_middle, and this one has "
                         f"learned {objective.own}: leave it out")
    ids = objective.infill(tokenizer.encode(prompt, bos=True), tokenizer.encode(suffix), cfg, eos_id=tokenizer.eos_id,
                           num_ids=tokenizer.vocab_size)
    return [tokenizer.decode(new) for new in ids]


# ---- scoring ----


@dataclass(frozen=True)
class Score:
    """How well a text is predicted, or the part of it that the objective predicts.

    The end-of-text token counts, the begin-of-text token does not.
    """

    loss: float  # nats per token
    bits_per_byte: float  # of UTF-8
    accuracy: dict[int, float]  # k -> fraction of tokens that are among the k likeliest
    num_tokens: int
    num_bytes: int

    @property
    def perplexity(self) -> float:
        return math.exp(self.loss)


class EncodedText(NamedTuple):
    """Documents of a text, as data.eval_batches takes a token file."""

    tokens: np.ndarray
    document_starts: np.ndarray
    num_tokens: int
    pad_id: int

    @property
    def targets(self) -> np.ndarray:
        return self.tokens

    @classmethod
    def of(cls, documents: Sequence[str], tokenizer: Tokenizer) -> "EncodedText":
        encoded = [tokenizer.encode(document, bos=True, eos=True) for document in documents]
        ids = np.concatenate(encoded)
        return cls(ids, np.cumsum([0, *map(len, encoded[:-1])]), len(ids), tokenizer.pad_id)


@torch.inference_mode()
def score(
    objective: Objective | Model, tokenizer: Tokenizer, text: str, *, separator: str | None = None,
    packing: str = "stream", batch_size: int = 8, top_k: Sequence[int] = (1, 5),
) -> Score:
    """Predict each token of a text, from those before it or as the objective does, in windows of max_seq_len tokens.

    A separator splits the text into documents, each read from its start; separators do not count. `packing` is how
    documents share a row, as in the model's training: see data.packing.
    Raises ValueError if the text is empty.
    """
    documents = [part for part in text.split(separator) if part.strip()] if separator else [text]
    if not any(documents):
        raise ValueError("text='' is empty: give at least one character to score")
    encoded = EncodedText.of(documents, tokenizer)
    objective = as_objective(objective)
    seq_len = min(objective.row_len, encoded.num_tokens - 1)
    num_windows = -(-(encoded.num_tokens - 1) // seq_len)
    device = next(objective.model.parameters()).device
    byte_lengths = torch.from_numpy(tokenizer.byte_lengths)
    nats, count, num_bytes, hits = 0.0, 0, 0, dict.fromkeys(top_k, 0)
    with eval_mode(objective.model):
        for batch in eval_batches(encoded, min(batch_size, num_windows), seq_len, packing):
            scores = objective.score(batch.to(device), top_k=max(top_k))
            counted = scores.counted.cpu()
            count += int(counted.sum())
            num_bytes += int(byte_lengths[batch.y[counted]].sum())
            nats += scores.nats.double().sum().item()
            for k in top_k:
                hits[k] += scores.right[..., :k][..., -1].double().sum().item()
    return Score(loss=nats / count, bits_per_byte=nats / math.log(2) / num_bytes, num_tokens=count,
                 num_bytes=num_bytes, accuracy={k: n / count for k, n in hits.items()})


# ---- command line ----

def write_texts(
    objective: Objective | Model, tokenizer: Tokenizer, cfg: SampleConfig, out: TextIO, *, are_sources: bool = False,
) -> None:
    """Write each of cfg.prompts and its continuation in order, token by token; a target on a line below its source.

    If there are several, a line precedes each. A character is written once all its bytes are generated. On a terminal
    control characters are spelled out.
    """
    shown = printable if out.isatty() else str
    prompts = encode_prompts(tokenizer, cfg, are_sources=are_sources)
    decoders = [codecs.getincrementaldecoder("utf-8")(errors="replace") for _ in prompts]
    waiting, new = [tokenizer.decode(ids) + "\n" * are_sources for ids in prompts], [[] for _ in prompts]
    tokens = as_objective(objective).stream(prompts, cfg, eos_id=tokenizer.eos_id, num_ids=tokenizer.vocab_size)
    for row in range(len(prompts)):
        if len(prompts) > 1:
            out.write(f"--- {row + 1} of {len(prompts)} ---\n")
        out.write(shown(waiting[row]))
        while not ended(new[row], cfg, tokenizer.eos_id):
            other, token = next(tokens)
            new[other].append(token)
            last = ended(new[other], cfg, tokenizer.eos_id)
            text = decoders[other].decode(tokenizer.token_bytes[token], final=last)
            if other == row:
                out.write(shown(text))
                out.flush()
            else:
                waiting[other] += text
        out.write("\n")


def write_filled(objective: Objective, tokenizer: Tokenizer, cfg: SampleConfig, out: TextIO, suffix: str) -> None:
    """Write each of cfg.prompts, what is filled in, and the suffix; if there are several, after a line each."""
    shown = printable if out.isatty() else str
    texts = [prompt + middle + suffix for prompt in cfg.prompts
             for middle in fill_in(objective, tokenizer, prompt, suffix, cfg)]
    for number, text in enumerate(texts, start=1):
        out.write(f"--- {number} of {len(texts)} ---\n" * (len(texts) > 1) + shown(text) + "\n")


def score_table(result: Score, sign: str = "") -> Table:
    """The figures; `sign` stands before those that are bounds."""
    table = Table(show_header=False)
    table.add_row("loss", f"{sign}{result.loss:.4f} nats/token")
    table.add_row("perplexity", f"{sign}{result.perplexity:.3f}")
    table.add_row("bits per byte", f"{sign}{result.bits_per_byte:.4f}")
    for k, share in result.accuracy.items():
        table.add_row(f"top-{k} accuracy", f"{share:.2%}")
    table.add_row("text", f"{result.num_tokens:,} tokens, {result.num_bytes:,} bytes")
    return table


def read_text(name: str) -> str:
    """Read a UTF-8 file, or standard input for "-". Raises ValueError if that is impossible or the text is empty."""
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
    """Score a text, or continue prompts, as the options say. Documents are separated as in the run's own text."""
    if options.score is not None and (options.sample != run.config.sample or options.suffix is not None):
        raise ValueError(f"score={options.score!r} generates nothing: leave out prompts, suffix and sampling flags")
    data = run.config.data
    if data.is_pairs and options.score is not None:
        raise ValueError(f"score={options.score!r} has no sources, and {run.name} was trained on pairs: give a run on "
                         "texts")
    if data.is_pairs and not options.sample.prompts:
        raise ValueError(f"{run.name} was trained on pairs: give a source as the prompt")
    text = None if options.score is None else read_text(options.score)
    tokenizer = run.tokenizer()
    objective = load_objective(run, options.checkpoint, pick_device(options.device), ema=options.ema)
    if text is None:
        write = (partial(write_texts, are_sources=data.is_pairs) if options.suffix is None
                 else partial(write_filled, suffix=options.suffix))
        write(objective, tokenizer, replace(options.sample, prompts=prompts_or_opening(options.sample, data.name)),
              sys.stdout)
    else:
        found = score(objective, tokenizer, text, separator=data.separator, packing=data.packing)
        Console().print(score_table(found, run.config.facts.sign))


def main(argv: Sequence[str], command: tuple[Path, Options] | None = None) -> None:
    """`python inference.py RUN ["prompt" ...] [flags]`; a user's mistake exits with 2, Ctrl-C with 130."""
    path, options = command or parse(argv, __doc__, runs.MODELS)
    try:
        run_command(Run(path), options)
    except ValueError as error:
        fail(error)
    except KeyboardInterrupt:
        raise SystemExit(130) from None


if __name__ == "__main__":
    garbage.begin()
    main(sys.argv[1:], command)
