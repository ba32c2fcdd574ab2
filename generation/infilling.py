"""Write what is missing between a prompt and the text after the gap."""

from typing import TextIO

from config import SampleConfig
from configuration.command_line import printable
from objective import FillInTheMiddle, Objective
from tokenizer import Tokenizer


def infill(
    objective: Objective, tokenizer: Tokenizer, prompt: str, suffix: str, cfg: SampleConfig,
) -> list[str]:
    """`cfg.num_samples` texts between a prompt and a suffix.

    Raises ValueError if the objective has not learned to fill in, or both do not fit into the context.
    """
    if not isinstance(objective, FillInTheMiddle):
        raise ValueError(f"suffix={suffix!r} is for a run with train.objective=fill_in_the_middle, and this one has "
                         f"learned {objective.own}: leave it out")
    middles = objective.infill(tokenizer.encode(prompt, bos=True), tokenizer.encode(suffix), cfg,
                               eos_id=tokenizer.eos_id, num_ids=tokenizer.vocab_size)
    return [tokenizer.decode(middle) for middle in middles]


def write_infilled(
    objective: Objective, tokenizer: Tokenizer, cfg: SampleConfig, suffix: str, out: TextIO,
) -> None:
    """Write each of cfg.prompts, what is filled in, and the suffix; if there are several, after a line each."""
    shown = printable if out.isatty() else str
    texts = [prompt + middle + suffix for prompt in cfg.prompts
             for middle in infill(objective, tokenizer, prompt, suffix, cfg)]
    for number, text in enumerate(texts, start=1):
        if len(texts) > 1:
            out.write(f"--- {number} of {len(texts)} ---\n")
        out.write(shown(text) + "\n")
