"""Beginnings for the runs to go on with: of texts that were held out from training, cut within a sentence."""

import re
from pathlib import Path

import numpy as np
from rich.console import Console

from corpora.corpus import load_corpus
from corpora.shards import JoinedTokenFile, TokenFile, prepare
from experiments.judging.judge_options import NUM_STORIES, JudgeOptions
from runs import Run
from train import require_same_text

SHARE, SHORTEST, LONGEST = 1 / 3, 40, 400  # of a text, and in characters: how long a beginning is
STRETCH, LEAST_STRETCH = 2048, 128  # tokens: a longer document gives several beginnings
SENTENCE_END = re.compile(r"[.!?][\"'”’)]*\s+|\n+")
WITHIN_SENTENCE = re.compile(r"(?<=[\w,;]) (?=[\w\"'“‘])")  # a space that ends neither a sentence nor a line


def choose_prompts(run: Run, options: JudgeOptions) -> list[str]:
    """The beginnings that --prompts holds, or those of the texts that the run was validated on.

    Raises ValueError where there are fewer than are to be judged.
    """
    if options.prompts is None:
        return held_out_prompts(run, options.stories or NUM_STORIES)
    found = read_prompts(options.prompts)
    if len(found) < (options.stories or 1):
        raise ValueError(f"stories={options.stories} is more than the {len(found)} beginnings in {options.prompts}: "
                         f"use {len(found)} or less")
    return found[: options.stories]


def read_prompts(path: Path) -> list[str]:
    """The texts between blank lines, each once. Raises ValueError where there are none to read."""
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
    """So many beginnings, evenly spread over the texts. Raises ValueError where they are too few, or have changed."""
    data, tokenizer = run.config.data, run.tokenizer()
    corpus = load_corpus(data)
    require_same_text(run, corpus)
    _, part = prepare(corpus, tokenizer, data.cache_path, workers=data.workers, console=Console(stderr=True))
    length, found = 2 * STRETCH, []
    while len(found) < count and length > LEAST_STRETCH:
        length //= 2
        found = [beginning for span in spread(spans(part, length), 3 * count)
                 if (beginning := cut_within_sentence(whole_text(part, tokenizer, *span)))]
        found = list(dict.fromkeys(found))
    if len(found) < count:
        raise ValueError(f"stories={count} is more than the {len(found)} beginnings that the held-out text of "
                         f"{run.name} has: use less, or give --prompts FILE")
    return spread(found, count)


def spans(part: TokenFile | JoinedTokenFile, length: int) -> list[tuple[int, int, bool]]:
    """Stretches of at most so many tokens, as (first, end, whether a document begins there)."""
    starts = np.asarray(part.document_starts)
    ends = np.append(starts[1:], part.num_tokens)
    documents = zip(starts.tolist(), ends.tolist(), strict=True)
    return [(first, min(first + length, end), first == start)
            for start, end in documents for first in range(start, end, length)]


def spread(items: list, count: int) -> list:
    """So many of them, evenly spread; all where there are fewer."""
    return [items[number * len(items) // count] for number in range(count)] if len(items) > count else items


def whole_text(part, tokenizer, first: int, end: int, is_start: bool) -> str:
    """The text of a stretch, from its first new sentence on."""
    text = tokenizer.decode(part.tokens[first:end])
    if is_start:
        return text
    stop = SENTENCE_END.search(text)
    return text[stop.end():] if stop else ""


def cut_within_sentence(text: str) -> str | None:
    """The first third of a text or less, up to a word within a sentence; None where there is no such place."""
    text = text.strip("\n")
    target = min(LONGEST, max(SHORTEST, round(SHARE * len(text))))
    place = WITHIN_SENTENCE.search(text, target, 2 * target)
    return text[: place.start()] if place else None
