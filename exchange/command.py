"""`python runs.py import` and `export`, read without torch."""

from pathlib import Path
from typing import Annotated

import tyro

from configuration.command_line import printable

Folder = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FOLDER")]
Name = Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="NAME")]


def import_model(folder: Folder, name: Name, *, tokenizer: str | None = None, check: bool = True) -> None:
    """Make a run of a folder of Hugging Face: config.json, safetensors, tokenizer. Nothing in it is run.

    Args:
        folder: a folder that save_pretrained wrote, or a download of one.
        name: the run's name.
        tokenizer: another tokenizer than the folder's: a folder, a file, a built one such as tales_1024.
        check: compare the logits with those of transformers, if it is installed.
    """
    from exchange.importing import import_folder

    say(import_folder(folder, name, tokenizer=tokenizer, check=check))


def export_model(
    run: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")], folder: Folder, *,
    checkpoint: str = "best", ema: bool = False, check: bool = True,
) -> None:
    """Write a run as a folder that transformers loads, if a family can express it.

    Args:
        run: the run's name or path.
        folder: the folder to write, which is not there yet.
        checkpoint: best, last or a step.
        ema: the moving average of the weights.
        check: compare the logits with those of transformers, if it is installed.
    """
    from exchange.exporting import export_run
    from runs import Run

    say(export_run(Run(run), folder, checkpoint=checkpoint, ema=ema, check=check))


def say(sentences: list[str]) -> None:
    for sentence in sentences:
        print(printable(sentence))


COMMANDS = {"import": import_model, "export": export_model}
