"""Texts that the runs of a comparison write after the same prompts."""

from collections.abc import Sequence

from config import SampleConfig
from configuration.command_line import warn
from experiments.comparing.lines import Line
from inference import continue_prompts, prompts_or_opening
from runs import Run
from tokenizer import Tokenizer
from tools import pick_device


def same_prompts(
    lines: Sequence[Line], prompts: Sequence[str] = (), *, num: int = 1, num_bytes: int = 600, temperature: float = 0.8,
    seed: int = 0, checkpoint: str = "best", device: str = "auto",
) -> dict[str, list[dict[str, str]]]:
    """By line, its first member's `num` texts after each prompt, about `num_bytes` long, with the same draws for each.

    Without prompts, those that the runs themselves continued while training, as far as every run's tokenizer knows
    them; where there are none, texts begin from nothing. Foreign logs have no texts. A run whose model cannot be
    loaded, or has diverged, is named on stderr and has none either.
    Raises ValueError for a prompt of the caller's that a run's tokenizer does not know.
    """
    runs = {line.name: line.members[0].run for line in lines if line.members[0].run is not None}
    tokenizers = {name: run.tokenizer() for name, run in runs.items()}
    if prompts:
        _require_known(prompts, tokenizers)
    else:
        prompts = _openings(runs, tokenizers)
    texts = {}
    for name, run in runs.items():
        tokens = max(1, round(num_bytes * run.data["val_tokens_per_byte"]))
        cfg = SampleConfig(prompts=tuple(prompts), num_samples=num, max_new_tokens=tokens, temperature=temperature,
                           seed=seed)
        try:
            texts[name] = _continued(run, tokenizers[name], cfg, checkpoint, device)
        except ValueError as error:
            warn(f"{name} writes no texts: {error}")
    return texts


def _continued(run: Run, tokenizer: Tokenizer, cfg: SampleConfig, checkpoint: str, device: str) -> list[dict[str, str]]:
    """As a run's own samples: the prompt, and the text that begins with it."""
    new = continue_prompts(run.load_model(checkpoint, pick_device(device)), tokenizer, cfg)
    begun = [prompt for prompt in cfg.prompts for _ in range(cfg.num_samples)]
    return [{"prompt": prompt, "text": prompt + text} for prompt, text in zip(begun, new, strict=True)]


def _openings(runs: dict[str, Run], tokenizers: dict[str, Tokenizer]) -> list[str]:
    """The runs' own prompts, each once, that all of them can continue; [""] where there are none."""
    found = dict.fromkeys(prompt for run in runs.values()
                          for prompt in prompts_or_opening(run.config.sample, run.config.data.name))
    return [prompt for prompt in found if all(_knows(one, prompt) for one in tokenizers.values())] or [""]


def _knows(tokenizer: Tokenizer, prompt: str) -> bool:
    try:
        tokenizer.encode(prompt)
    except ValueError:
        return False
    return True


def _require_known(prompts: Sequence[str], tokenizers: dict[str, Tokenizer]) -> None:
    for name, tokenizer in tokenizers.items():
        for prompt in prompts:
            if not _knows(tokenizer, prompt):
                raise ValueError(f"prompts={prompt!r} has characters that the tokenizer of {name} does not know: "
                                 "use others, or leave the run out")
