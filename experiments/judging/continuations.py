"""The texts that are judged: how each run continues the prompts. They are written once and kept."""

import math
from dataclasses import asdict, dataclass

from config import SampleConfig
from corpora.files import digest
from experiments.judging.judge_options import JudgeOptions
from inference import continue_prompts
from runs import Run
from tools import pick_device

SLACK = 1.5  # x the tokens that a text of this length takes


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
    saved, tokenizer = run.checkpoint(options.checkpoint), run.tokenizer()
    try:
        ids = tokenizer.encode_batch(prompts)
    except ValueError as error:
        raise ValueError(f"{name} cannot encode the beginnings: {error}") from None
    tokens = math.ceil(SLACK * options.room * sum(map(len, ids)) / sum(map(len, prompts)))
    sample = SampleConfig(prompts=tuple(prompts), num_samples=1, temperature=options.temperature, seed=options.seed,
                          max_new_tokens=tokens)
    key = digest(saved.fingerprint, asdict(sample))
    if key not in cache:
        model = run.load_model(str(saved.step), pick_device(options.device))
        cache[key] = continue_prompts(model, tokenizer, sample)
    return RunTexts(name, saved.step, tuple(shorten(text, options.room) for text in cache[key]))


def shorten(text: str, room: int) -> str:
    """Its first characters, up to the end of a word."""
    text = text.rstrip()
    if len(text) <= room:
        return text
    kept, space, _ = text[: room + 1].rpartition(" ")
    return kept if space else text[:room]
