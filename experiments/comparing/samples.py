"""Texts that the runs of a comparison write after the same prompts."""

from collections.abc import Sequence

from config import SampleConfig
from configuration.command_line import warn
from experiments.comparing.lines import Line
from inference import prompts_or_opening
from tokenizer import Tokenizer
from tools import pick_device
from training.report import write_samples


def same_prompts(
    lines: Sequence[Line], prompts: Sequence[str] = (), *, num: int = 1, num_bytes: int = 600, seed: int = 0,
    device: str = "auto",
) -> dict[str, list[dict[str, str]]]:
    """`num` texts by the first member of each line after each prompt, about `num_bytes` long, with the same draws.

    The default prompts are those that the runs continued during training, as far as every tokenizer can encode them;
    if there are none, texts begin from nothing. Foreign logs have no texts, and neither has a run whose model cannot
    be loaded or has diverged: a warning names it. Raises ValueError for a given prompt that a tokenizer cannot encode.
    """
    runs = {line.name: line.members[0].run for line in lines if line.members[0].run is not None}
    tokenizers = {name: run.tokenizer() for name, run in runs.items()}
    for prompt in prompts:
        if name := _at_a_loss(prompt, tokenizers):
            raise ValueError(f"prompts={prompt!r} has characters that the tokenizer of {name} does not know: "
                             "use others, or leave the run out")
    own = dict.fromkeys(prompt for run in runs.values()
                        for prompt in prompts_or_opening(run.config.sample, run.config.data.name))
    prompts = prompts or [prompt for prompt in own if not _at_a_loss(prompt, tokenizers)] or [""]
    repeated, texts = [prompt for prompt in prompts for _ in range(num)], {}
    for name, run in runs.items():
        tokens = max(1, round(num_bytes * run.data["val_tokens_per_byte"]))
        cfg = SampleConfig(max_new_tokens=tokens, temperature=0.8, seed=seed)
        try:
            model = run.load_model("best", pick_device(device))
            texts[name] = write_samples(model, tokenizers[name], repeated, cfg)
        except ValueError as error:
            warn(f"{name} writes no texts: {error}")
    return texts


def _at_a_loss(prompt: str, tokenizers: dict[str, Tokenizer]) -> str | None:
    """The first run that has no tokens for a prompt; None = all have."""
    for name, tokenizer in tokenizers.items():
        try:
            tokenizer.encode(prompt)
        except ValueError:
            return name
    return None
