"""Predict how much memory a training run takes, without taking it.

    python memory.py [preset] [--section.flag value ...] [--limit 2GB] [--device cuda] [--processes 8]

The run's own code builds the model and takes its steps on tensors that have shapes and no data (see
memory_prediction/dry_run.py), so this works for any architecture and allocates nothing large. `predict` does the same
from Python.
"""

import signal
import sys

if __name__ == "__main__":  # before the imports: help and mistakes need no torch, whose import takes seconds
    from configuration import garbage, heap, startup  # noqa: F401, before all that needs a package

    heap.restart()  # as train.py does, of which it tells
    garbage.wait()
    from memory_prediction.command import parse

    if hasattr(signal, "SIGPIPE"):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `| head` ends the program silently
    command = parse(sys.argv[1:])
    import torch._dynamo  # fake tensors do at their first use, when garbage is looked for: a sixth longer

import torch
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from config import Config, override
from configuration.command_line import fail, spell_bytes
from memory_prediction.baseline import LASTLY, trainer_baseline_bytes
from memory_prediction.command import Command, parse
from memory_prediction.dry_run import PARTS, sequence_bytes
from memory_prediction.prediction import Prediction, predict
from memory_prediction.suggestions import COUNTS, Room, cards, cheaper, in_words, largest
from model import Model

__all__ = ["Prediction", "Room", "cheaper", "largest", "predict"]

CONTEXT = "300 to 500 MB for the context of CUDA, and about a tenth for blocks that are kept free"  # nvidia-smi shows
WIDTH = 100  # of the table, in characters


def main(command: Command | None = None) -> None:
    """Predict the run of the command line, or of a command that is already parsed."""
    cfg, limit, device, processes = command or parse(sys.argv[1:])
    try:
        if cfg.model.vocab_size is None:
            cfg = override(cfg, {"model.vocab_size": cfg.tokenizer.vocab_size or 4096})
        console = Console(highlight=False, soft_wrap=True)
        console.width = max(console.width, WIDTH)
        prediction = predict(cfg, device=device, processes=processes)
        base = base_bytes(prediction) if device == "cpu" else 0
        show(console, prediction, base, processes)
        if device == "cuda" and limit is None and processes == 1:
            show_cards(console, cfg, prediction)
        if limit is not None:
            show_room(console, cfg, prediction, Room(limit, base + LASTLY * (device == "cpu")), processes)
    except ValueError as error:
        fail(error)


def base_bytes(prediction: Prediction) -> int:
    """What a process that trains holds besides the run; 0 if the system does not tell. Measured on this one."""
    held = trainer_baseline_bytes()
    return 0 if held is None else held - prediction.imported_bytes


def show(console: Console, prediction: Prediction, base: int, processes: int) -> None:
    """Print the total, what is alive at the peak, and the memory of generation."""
    cfg, train = prediction.cfg, prediction.train
    each = f"each of {processes} processes{', sharded' * train.shard}: " if processes > 1 else ""
    console.print(f"{each}{train.batch_size} rows of {cfg.model.max_seq_len:,} tokens, {train.optimizer}, "
                  f"{'bfloat16' if prediction.bfloat16 else 'float32'}, on {prediction.device}")
    console.print(f"most is alive in the {prediction.peak_name}: "
                  f"[bold]{spell_bytes(prediction.peak_bytes)}[/] of tensors")
    if prediction.device == "cpu":
        copied = prediction.checkpoint_bytes
        low, high = base + prediction.least_bytes, base + LASTLY + prediction.high_bytes + copied
        console.print(f"the process will take {spell_bytes(low)} to {spell_bytes(high)}, of which {spell_bytes(base)} "
                      "are Python and its libraries; how much depends on what the allocator keeps, and on whether "
                      f"checkpoints ({spell_bytes(copied)}) are copied")
    else:
        console.print(f"torch will allocate {spell_bytes(prediction.low_bytes)}; add {CONTEXT}")
    if prediction.how != "exact":
        console.print(f"predicted {prediction.how}")
    console.print(parts_table(prediction))
    weights, state = sum_of_weights(cfg), sequence_bytes(cfg)
    size = "what its tokens decide" if state is None else spell_bytes(state)
    console.print(f"generation: {spell_bytes(weights)} of weights, and {size} for each text of "
                  f"{cfg.model.max_seq_len:,} tokens")


def parts_table(prediction: Prediction) -> Table:
    """The table of what is alive at the peak, by module and part."""
    shown = [part for part in PARTS if prediction.by_part[part]]
    table = Table("MB at the peak", *shown, "total", box=SIMPLE_HEAD)
    for column in table.columns[1:]:
        column.justify = "right"

    def row(name: str, numbers: list[int]) -> None:
        cells = [f"{number / 1e6:,.1f}" if number >= 5e4 else "" for number in numbers]
        table.add_row(name, *cells, f"{sum(numbers) / 1e6:,.1f}")

    for module in sorted(prediction.by_module, key=prediction.by_module.get, reverse=True):
        row(module or "none of them", [prediction.peak.parts[module, part] for part in shown])
    table.add_section()
    row("all", [prediction.by_part[part] for part in shown])
    return table


def show_cards(console: Console, cfg: Config, prediction: Prediction) -> None:
    """Print on which cards a run fits, one or several."""
    found = cards(cfg, prediction)
    alone = [f"one card of {size} GB" for number, size in found if number == 1]
    sharded = [f"{number} of {size} GB" for number, size in found if number > 1]
    ways = alone + [f"with --train.shard on {', '.join(sharded)}"] * bool(sharded)
    console.print(f"fits on {'; '.join(ways)}" if ways else f"fits on no {COUNTS[-1]} cards of any size")


def show_room(console: Console, cfg: Config, prediction: Prediction, room: Room, processes: int) -> None:
    """Print whether a run fits, what would make it fit, and how large it may become."""
    device = prediction.device
    allocator, limit = room.allocator_for(prediction), spell_bytes(room.limit)
    if allocator is None:
        console.print(f"[bold]does not fit[/] into {limit}")
        for sentence in in_words(cfg, room, device, processes=processes):
            console.print(f"  it would with {sentence}")
    else:
        slower = "" if allocator == "fast" else ", if freed memory goes back at once: steps take longer"
        console.print(f"[bold]fits[/] into {limit}{slower}")
    heads = 1 if cfg.model.attention.head_dim else 2 * cfg.model.attention.num_heads
    for flag, step in (("train.batch_size", 1), ("model.dim", heads)):
        number = largest(cfg, flag, step, lambda other: room.allocator_for(other) is not None, device,
                         processes=processes)
        console.print(f"largest {flag} that fits: {'none' if number is None else f'{number:,}'}")


def sum_of_weights(cfg: Config) -> int:
    with torch.device("meta"):
        return 4 * Model(cfg.model).num_parameters()


if __name__ == "__main__":
    garbage.begin()
    main(command)
