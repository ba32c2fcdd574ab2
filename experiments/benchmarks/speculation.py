"""The benchmark speculation: what drafts of further tokens save in writing texts."""

from collections.abc import Callable

from rich.console import Console
from rich.table import Table

from config import SampleConfig
from experiments.benchmarks.benchmark_options import Speculation
from experiments.benchmarks.measuring import best_seconds, clock_of
from generation.sampling import begin_texts, continue_texts
from inference import OPENINGS, load_objective
from model import Model
from objectives.speculation import speculate
from runs import Run
from tools import pick_device


def run(options: Speculation, console: Console) -> bool:
    """Print a row for each number of texts; whether both ways wrote the same."""
    trained, device = Run(options.run), pick_device(options.device)
    if trained.config.train.objective != "multi_token":
        raise ValueError(f"run={options.run} has learned train.objective={trained.config.train.objective}, and has no "
                         "parts that draft: use a run of multi_token")
    model, tokenizer = load_objective(trained, device=device).model.eval(), trained.tokenizer()
    prompt = tokenizer.encode(OPENINGS.get(trained.config.data.name[0], ""), bos=True)
    cfg = SampleConfig(temperature=options.temperature, max_new_tokens=options.max_new_tokens, stop_at_eos=False)
    table, same = Table("texts", "tokens a pass", "token by token, ms a token", "with drafts", "x faster"), True
    clock = clock_of(device.type)
    for number in options.texts:
        found: dict[str, list[tuple[int, int]]] = {}

        def way(write: Callable, number: int = number, found: dict = found) -> Callable[[], None]:
            def call() -> None:
                texts = begin_texts(model.cfg, [prompt] * number, cfg.seed)
                found[write.__name__] = list(write(model, texts, cfg, eos_id=tokenizer.eos_id,
                                                   num_ids=tokenizer.vocab_size))

            return call

        ways = {"plain": way(continue_texts), "drafts": way(speculate)}
        passes = count_passes(model, ways["drafts"])
        best = best_seconds(ways, options.rounds, clock)
        plain, drafts = (1e3 * best[name] / (number * cfg.max_new_tokens) for name in ("plain", "drafts"))
        same = same and found["speculate"] == found["continue_texts"]
        table.add_row(str(number), f"{cfg.max_new_tokens / passes:.2f}", f"{plain:.2f}", f"{drafts:.2f}",
                      f"{plain / drafts:.2f}")
    console.print(table)
    return same


def count_passes(model: Model, call: Callable[[], None]) -> int:
    """The forward passes of a model in a call."""
    passes, read = [], model.read
    model.read = lambda *args, **options: passes.append(1) or read(*args, **options)
    try:
        call()
    finally:
        del model.read
    return len(passes)
