"""How a run goes on with the beginnings: written once, and kept."""

import math
from dataclasses import asdict, dataclass

from config import SampleConfig
from corpora.files import digest
from experiments.judging.judge_options import JudgeOptions
from experiments.judging.reply_cache import ReplyCache
from inference import continue_prompts
from runs import Run
from tools import pick_device

SLACK = 1.5  # times the tokens that text of this length takes


@dataclass(frozen=True)
class RunTexts:
    """A run, and how it goes on with each beginning."""

    name: str
    step: int  # of the checkpoint
    texts: tuple[str, ...]  # without the beginnings


@dataclass(frozen=True)
class Exam:
    """What is to be judged: each writer's texts to the same beginnings."""

    options: JudgeOptions
    beginnings: tuple[str, ...]
    writers: tuple[RunTexts, ...]

    def conditions(self, host: str) -> str:
        """How it was judged, in a few sentences."""
        options = self.options
        source = f"from {options.prompts}" if options.prompts else "of held-out texts, cut within a sentence"
        steps = ", ".join(f"{writer.name} at step {writer.step:,}" for writer in self.writers)
        return (f"{len(self.beginnings)} beginnings {source}. Each run went on with the same ones, at temperature "
                f"{options.temperature:g} and up to {options.room:,} characters ({steps}). The judge, "
                f"{options.judge_model} at {host}, never saw a run's name. In the way of TinyStories "
                "(arXiv:2305.07759).")


def let_write(run: Run, name: str, beginnings: list[str], options: JudgeOptions, notes: ReplyCache) -> RunTexts:
    """Have a run go on with each beginning; up to `options.room` characters count, whatever its tokenizer.

    Raises ValueError where it has no such checkpoint, has diverged, or cannot encode a beginning.
    """
    saved, tokenizer = run.checkpoint(options.checkpoint), run.tokenizer()
    try:
        ids = tokenizer.encode_batch(beginnings)
    except ValueError as error:
        raise ValueError(f"{name} cannot read the beginnings: {error}") from None
    tokens = math.ceil(SLACK * options.room * sum(map(len, ids)) / sum(map(len, beginnings)))
    sample = SampleConfig(prompts=tuple(beginnings), num_samples=1, temperature=options.temperature,
                          seed=options.seed, max_new_tokens=tokens)
    key = digest(saved.fingerprint, asdict(sample))
    if key not in notes:
        model = run.load_model(str(saved.step), pick_device(options.device))
        notes[key] = continue_prompts(model, tokenizer, sample)
    return RunTexts(name, saved.step, tuple(shorten(text, options.room) for text in notes[key]))


def shorten(text: str, room: int) -> str:
    """Its first characters, up to the end of a word."""
    text = text.rstrip()
    if len(text) <= room:
        return text
    kept, space, _ = text[: room + 1].rpartition(" ")
    return kept if space else text[:room]
