"""Texts that the runs of a comparison write after the same prompts."""

from collections.abc import Sequence

from config import SampleConfig
from configuration.command_line import warn
from experiments.comparing.lines import Line
from inference import prompts_or_opening
from runs import Run
from tokenizer import Tokenizer
from tools import pick_device
from training.report import write_samples


def same_prompts(
    lines: Sequence[Line], prompts: Sequence[str] = (), *, num: int = 1, num_bytes: int = 600, temperature: float = 0.8,
    seed: int = 0, checkpoint: str = "best", device: str = "auto",
) -> dict[str, list[dict[str, str]]]:
    """`num` texts by the first member of each line after each prompt, about `num_bytes` long, with the same draws.

    The default prompts are those that the runs continued during training, as far as every tokenizer can encode them;
    if there are none, texts begin from nothing. Foreign logs have no texts, and neither has a run whose model cannot
    be loaded or has diverged: a warning names it. Raises ValueError for a given prompt that a tokenizer cannot encode.
    """
    runs = {line.name: line.members[0].run for line in lines if line.members[0].run is not None}
    tokenizers = {name: run.tokenizer() for name, run in runs.items()}
    if prompts:
        _require_known(prompts, tokenizers)
    else:
        prompts = _openings(runs, tokenizers)
    repeated, texts = [prompt for prompt in prompts for _ in range(num)], {}
    for name, run in runs.items():
        tokens = max(1, round(num_bytes * run.data["val_tokens_per_byte"]))
        cfg = SampleConfig(max_new_tokens=tokens, temperature=temperature, seed=seed)
        try:
            model = run.load_model(checkpoint, pick_device(device))
            texts[name] = write_samples(model, tokenizers[name], repeated, cfg)
        except ValueError as error:
            warn(f"{name} writes no texts: {error}")
    return texts


def _openings(runs: dict[str, Run], tokenizers: dict[str, Tokenizer]) -> list[str]:
    """The runs' own prompts that all of them can continue, each once; [""] if there are none."""
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
