"""The texts that are judged: prompts, and how each run continues them. These are written once and kept."""

import math
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import chain, pairwise
from pathlib import Path

from rich.console import Console

from config import SampleConfig
from corpora.corpus import load_corpus
from corpora.files import digest
from corpora.shards import JoinedTokenFile, TokenFile, prepare
from experiments.judging.judge_options import NUM_STORIES, JudgeOptions
from inference import continue_prompts, load_objective
from runs import Run
from tokenizer import Tokenizer
from tools import pick_device
from training.setup import require_same_text

SHARE, SHORTEST, LONGEST = 1 / 3, 40, 400  # length of a prompt: share of its text, and limits in characters
STRETCH, LEAST_STRETCH = 2048, 128  # tokens; a longer document gives several prompts
SLACK = 1.5  # x the tokens that a continuation of this length takes
SENTENCE_END = re.compile(r"[.!?][\"'”’)]*\s+|\n+")
WITHIN_SENTENCE = re.compile(r"(?<=[\w,;]) (?=[\w\"'“‘])")  # a space that ends neither a sentence nor a line


def choose_prompts(run: Run, options: JudgeOptions) -> list[str]:
    """The prompts in --prompts, or some from the validation texts of the run. Raises ValueError if they are too few."""
    if options.prompts is None:
        return held_out_prompts(run, options.stories or NUM_STORIES)
    found = read_prompts(options.prompts)
    if len(found) < (options.stories or 1):
        raise ValueError(f"stories={options.stories} is more than the {len(found)} beginnings in {options.prompts}: "
                         f"use {len(found)} or less")
    return found[: options.stories]


def read_prompts(path: Path) -> list[str]:
    """The texts between blank lines, each once. Raises ValueError if there are none."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ValueError(f"prompts={path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"prompts={path} is not UTF-8 text (byte {error.start}): convert it first") from None
    if not text.strip():
        raise ValueError(f"prompts={path} is empty: give at least one beginning")
    return list(dict.fromkeys(part.strip("\n").rstrip() for part in re.split(r"\n[ \t]*\n", text) if part.strip()))


def held_out_prompts(run: Run, count: int) -> list[str]:
    """Prompts spread evenly over the validation texts. Raises ValueError if they are too few or the texts changed."""
    data, tokenizer = run.config.data, run.tokenizer()
    require_texts(run)
    corpus = load_corpus(data)
    require_same_text(run, corpus)
    _, part = prepare(corpus, tokenizer, data.cache_path, workers=data.workers, console=Console(stderr=True))
    length, found = 2 * STRETCH, []
    while len(found) < count and length > LEAST_STRETCH:
        length //= 2
        texts = (text_of(part, tokenizer, *stretch) for stretch in spread(stretches(part, length), 3 * count))
        found = list(dict.fromkeys(filter(None, map(cut_within_sentence, texts))))
    if len(found) < count:
        raise ValueError(f"stories={count} is more than the {len(found)} beginnings that the held-out text of "
                         f"{run.name} has: use less, or give --prompts FILE")
    return spread(found, count)


def require_texts(run: Run) -> None:
    """Raise ValueError if a run was trained on pairs."""
    if run.config.data.is_pairs:
        raise ValueError(f"{run.name} was trained on pairs, and writes targets of sources, not texts: leave it out")


def stretches(part: TokenFile | JoinedTokenFile, length: int) -> list[tuple[int, int, bool]]:
    """Stretches of at most `length` tokens, as (first, end, whether a document begins there)."""
    return [(first, min(first + length, end), first == start)
            for start, end in pairwise(chain(map(int, part.document_starts), [part.num_tokens]))
            for first in range(start, end, length)]


def spread(items: Sequence, count: int) -> list:
    """`count` items, spread evenly; all if there are fewer."""
    count = min(count, len(items))
    return [items[number * len(items) // count] for number in range(count)]


def text_of(part: TokenFile | JoinedTokenFile, tokenizer: Tokenizer, first: int, end: int, is_start: bool) -> str:
    """The text of a stretch from its first full sentence on."""
    text = tokenizer.decode(part.tokens[first:end])
    if is_start:
        return text
    stop = SENTENCE_END.search(text)
    return text[stop.end():] if stop else ""


def cut_within_sentence(text: str) -> str | None:
    """The first third of a text or less, up to a word within a sentence; None if there is no such place."""
    text = text.strip("\n")
    target = min(LONGEST, max(SHORTEST, round(SHARE * len(text))))
    place = WITHIN_SENTENCE.search(text, target, 2 * target)
    return text[: place.start()] if place else None


# ---- continuations ----


@dataclass(frozen=True)
class RunTexts:
    """A run's continuation of each prompt."""

    name: str  # of the run
    step: int  # of the checkpoint
    texts: tuple[str, ...]  # without the prompts


@dataclass(frozen=True)
class Submission:
    """All that is judged: every run's continuations of the same prompts."""

    options: JudgeOptions
    host: str  # of the judge
    prompts: tuple[str, ...]
    writers: tuple[RunTexts, ...]

    def conditions(self) -> str:
        """How the texts were written and judged, in a few sentences."""
        options = self.options
        source = f"from {options.prompts}" if options.prompts else "of held-out texts, cut within a sentence"
        steps = ", ".join(f"{writer.name} at step {writer.step:,}" for writer in self.writers)
        return (f"{len(self.prompts)} beginnings {source}. Each run went on with the same ones, at temperature "
                f"{options.temperature:g} and up to {options.room:,} characters ({steps}). The judge, "
                f"{options.judge_model} at {self.host}, never saw a run's name. In the way of TinyStories "
                "(arXiv:2305.07759).")


def let_write(run: Run, name: str, prompts: list[str], options: JudgeOptions, cache: dict) -> RunTexts:
    """Have a run continue each prompt; `options.room` characters count, for every tokenizer.

    Raises ValueError if there is no such checkpoint, if it has diverged, or if it cannot encode a prompt.
    """
    require_texts(run)
    saved, tokenizer = run.checkpoint(options.checkpoint), run.tokenizer()
    try:
        ids = tokenizer.encode_batch(prompts)
    except ValueError as error:
        raise ValueError(f"{name} cannot encode the beginnings: {error}") from None
    tokens = math.ceil(SLACK * options.room * sum(map(len, ids)) / sum(map(len, prompts)))
    sample = SampleConfig(prompts=tuple(prompts), num_samples=1, temperature=options.temperature, seed=options.seed,
                          max_new_tokens=tokens, denoise=run.config.sample.denoise)
    key = digest(saved.fingerprint, asdict(sample))
    if key not in cache:
        objective = load_objective(run, str(saved.step), pick_device(options.device))
        cache[key] = continue_prompts(objective, tokenizer, sample)
    return RunTexts(name, saved.step, tuple(shorten(text, options.room) for text in cache[key]))


def shorten(text: str, room: int) -> str:
    """Its first characters, up to the end of a word."""
    text = text.rstrip()
    if len(text) <= room:
        return text
    kept, space, _ = text[: room + 1].rpartition(" ")
    return kept if space else text[:room]
