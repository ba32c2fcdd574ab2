"""The benchmark generate: greedy texts of ours beside those of other libraries, from the same weights."""

from collections.abc import Callable, Iterator
from functools import cache, partial
from itertools import product
from typing import NamedTuple

import torch
from rich.console import Console
from torch import Tensor, nn

from config import ModelConfig, SampleConfig, override
from configuration.command_line import print_line
from experiments.benchmarks.beside import OURS, Book, Cell, Kind, counted, counted_alone, in_turns, require_some
from experiments.benchmarks.machine_limits import (
    cached_bytes,
    copy_rate,
    flops_of_reading,
    in_words,
    matmul_rate,
)
from experiments.benchmarks.peer_options import Generate
from experiments.benchmarks.peers import Peer, family_of, installed, peers_of, without_dropout
from memory_prediction.process import choose_allocator
from model import Model
from objective import as_objective
from tools import pick_device, seed_everything

Write = Callable[[], list[list[int]]]  # the new tokens of each text


class Setting(NamedTuple):
    """A cell of the benchmark."""

    preset: str
    scale: str
    threads: int
    texts: int
    prompt: int

    def __str__(self) -> str:
        return (f"{self.preset} {self.scale}, {self.threads} thread{'s' * (self.threads > 1)}, "
                f"{self.texts} text{'s' * (self.texts > 1)} after {self.prompt} tokens")


def run(options: Generate, console: Console) -> bool:
    """Measure all settings; whether all texts are equal and none is slower than in the earlier file."""
    require_some(options)
    device = pick_device(options.device)
    models = {model: configured(*model, options) for model in product(options.presets, options.scales)}
    names = [named(setting, options, device) for model in models for setting in settings(*model, options)]
    book = Book("generate", names, new=options.json, old=options.against, console=console)
    say = cache(partial(print_line, console))  # each sentence once
    libraries = installed(options.libraries, say)
    threads, equal = torch.get_num_threads(), True
    if device.type == "cpu":
        choose_allocator("fast")
    try:
        for (preset, scale), cfg in models.items():
            seed_everything(0)
            ours = Model(cfg).to(device).eval()
            peers = peers_of(ours, family_of(preset), libraries, say)
            for setting in settings(preset, scale, options):
                torch.set_num_threads(setting.threads)
                writers = writers_of(ours, peers, setting, options)
                equal &= all_equal(writers, console)
                book.add(measure(setting, ours, peers, writers, options))
    finally:
        torch.set_num_threads(threads)
    return equal and not book.is_slower


def settings(preset: str, scale: str, options: Generate) -> Iterator[Setting]:
    return map(Setting._make, product((preset,), (scale,), options.threads, options.texts, options.prompts))


def named(setting: Setting, options: Generate, device: torch.device) -> str:
    return f"{setting}, {options.new_tokens} new, vocabulary {options.vocab_size}, {device.type}"


def configured(preset: str, scale: str, options: Generate) -> ModelConfig:
    """The model, with a context as long as the longest text."""
    cfg = without_dropout(preset, scale, vocab_size=options.vocab_size).model
    return override(cfg, {"max_seq_len": max(options.prompts) + options.new_tokens})


def measure(setting: Setting, ours: Model, peers: list[Peer], writers: dict[str, Write], options: Generate) -> Cell:
    device = next(ours.parameters()).device
    numbers = {OURS: ours.num_parameters()} | {peer.name: peer.num_parameters for peer in peers}
    limit, words = limit_of(setting, ours, options.new_tokens, counted_alone(device, setting.threads))
    return Cell(
        name=named(setting, options, device), tokens=setting.texts * options.new_tokens, limit=limit, machine=words,
        by=counted(device, setting.threads), times=in_turns(writers, options.rounds, device),
        parameters={name: numbers[name.partition(",")[0]] for name in writers})


def limit_of(setting: Setting, model: Model, number: int, by: Kind) -> tuple[float, str]:
    """The seconds that the texts take at least, and the speed of the machine with single tokens, in words."""
    texts, copied = setting.texts, copy_rate(next(model.parameters()).device, by)
    first = flops_of_reading(model.cfg, texts, setting.prompt) / matmul_rate(
        model, texts * setting.prompt, torch.float32, by)
    length = setting.prompt + number // 2  # on average
    rate = matmul_rate(model, texts, torch.float32, by)
    other = flops_of_reading(model.cfg, texts, 1, cached=length) / rate
    return first + (number - 1) * (other + texts * length * cached_bytes(model.cfg) / copied), in_words(rate, copied)


# ---- writers ----


def writers_of(ours: Model, peers: list[Peer], setting: Setting, options: Generate) -> dict[str, Write]:
    """What writes the texts, by name."""
    device = next(ours.parameters()).device
    prompts = torch.randint(ours.cfg.vocab_size, (setting.texts, setting.prompt), device=device,
                            generator=torch.Generator(device).manual_seed(setting.prompt))
    sample = SampleConfig(temperature=0.0, max_new_tokens=options.new_tokens, stop_at_eos=False)
    found: dict[str, Write] = {OURS: partial(as_objective(ours).generate, prompts.tolist(), sample, eos_id=-1)}
    for peer in peers:
        found |= WRITERS[peer.name](peer.model.eval(), prompts, options.new_tokens)
    return found


def of_transformers(model: nn.Module, prompts: Tensor, number: int) -> dict[str, Write]:
    seen = torch.ones_like(prompts)

    def write(cache: str) -> list[list[int]]:
        with torch.inference_mode():
            ids = model.generate(prompts, attention_mask=seen, do_sample=False, max_new_tokens=number, use_cache=True,
                                 pad_token_id=0, eos_token_id=None, bos_token_id=None, cache_implementation=cache)
        return ids[:, prompts.shape[1]:].tolist()

    return {f"transformers, {cache}": partial(write, cache) for cache in ("dynamic", "static")}


def of_litgpt(model: nn.Module, prompts: Tensor, number: int) -> dict[str, Write]:
    """One text by `generate`, several by `batched_generate_fn`; the cache is made beforehand, as their manual does."""
    from litgpt.generate.base import batched_generate_fn, generate

    texts, length = prompts.shape
    model.clear_kv_cache()
    model.max_seq_length = length + number
    model.set_kv_cache(batch_size=texts, device=prompts.device)

    def one() -> list[list[int]]:
        return [generate(model, prompts[0], length + number, temperature=0.0, include_prompt=False).tolist()]

    def several() -> list[list[int]]:
        tokens = batched_generate_fn(model, prompts, length + number, sample_args={"temperature": 0.0},
                                     include_prompt=False, include_eos=True)
        return torch.stack([torch.cat(each) for each in tokens], dim=1).tolist()

    return {"litgpt": one if texts == 1 else several}


WRITERS: dict[str, Callable[[nn.Module, Tensor, int], dict[str, Write]]] = {
    "transformers": of_transformers, "litgpt": of_litgpt}


def all_equal(writers: dict[str, Write], console: Console) -> bool:
    """Whether all write the same; says who does not."""
    texts = {name: write() for name, write in writers.items()}
    others = [name for name, found in texts.items() if found != texts[OURS]]
    if others:
        console.print(f"not the same texts as {OURS}: {', '.join(others)}")
    return not others
