"""Print the architecture of a model, its parameters, and the trace of one forward."""

import shutil
import textwrap

import torch
from rich.console import Console
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from config import Config, diff, override
from configuration.command_line import printable
from corpora.corpus import load_corpus
from corpora.shards import encoded_part
from model import Model, some_source, spelled_out
from runs import Run
from showing.command import ShowCommand, in_words
from tools import seed_everything, trace
from tracing.module_tables import parameter_table

REAL_SIZE = 300_000_000  # parameters; a larger untrained model is shown without data
NUM_TOKENS = 64  # of the held-out text
TITLE_TEXT = 70  # characters of a text in the title
WIDTH = 120  # of a trained model's trace, at least: its statistics need room


def show(command: ShowCommand) -> None:
    """Print what the command line names. Raises ValueError for what the user can fix."""
    if command.run is None:
        show_untrained(command.cfg, command.title)
    else:
        show_trained(Run(command.run), command)


def show_untrained(cfg: Config, title: str) -> None:
    """A model as it is before training, on two rows of random tokens; a large one without its weights."""
    vocab_size = cfg.model.vocab_size or cfg.tokenizer.vocab_size or 4096
    spelled = spelled_out(override(cfg.model, {"vocab_size": vocab_size}))
    with torch.device("meta"):
        num_parameters = Model(spelled).num_parameters()
    if num_parameters > REAL_SIZE:
        with FakeTensorMode():
            print_model(Model(spelled).eval(), torch.randint(vocab_size, (2, 16)), title)
    else:
        seed_everything(cfg.train.seed)
        seq_len = min(16, spelled.max_seq_len)
        print_model(Model(spelled).eval(), torch.randint(vocab_size, (2, seq_len)), title)


def show_trained(run: Run, command: ShowCommand) -> None:
    """A run's model with its trained weights, on one row of real tokens."""
    saved = run.checkpoint(command.checkpoint)
    model = load_model(run, command)
    ids, what = read_text(run, command.text) if command.text else held_out(run)
    if max(ids) >= model.cfg.vocab_size:
        raise ValueError(f"{run.path / 'tokenizer'} has ids outside the model's vocab_size={model.cfg.vocab_size}: it "
                         "is not the tokenizer that the model was trained with")
    ids = ids[: model.cfg.max_seq_len]
    text = textwrap.shorten(run.tokenizer().decode(ids), TITLE_TEXT, placeholder=" ...")
    title = f"{command.title}, step {saved.step:,}, on {len(ids)} tokens of {what}: {text!r}"
    width = max(WIDTH, shutil.get_terminal_size().columns)
    print_model(model, torch.tensor([ids]), title, width=width, fold=False)  # layers differ in their statistics


def load_model(run: Run, command: ShowCommand) -> Model:
    """The trained model, with attention spelled out. Raises ValueError if the flags do not fit its weights."""
    try:
        return run.load_model(command.checkpoint, cfg=spelled_out(command.cfg.model))
    except ValueError:
        changes = diff(run.config, command.cfg)
        if not changes:
            raise
    run.load_model(command.checkpoint)  # if the weights do not even fit the run's own configuration, this says so
    raise ValueError(f"{', '.join(in_words(changes))} does not fit the weights of {run.name}: leave it out, or train "
                     f"it anew with --config {run.path / 'config.json'}")


def read_text(run: Run, text: str) -> tuple[list[int], str]:
    """The ids of a text after a begin-of-text token, and whose text it is."""
    return run.tokenizer().encode(text, bos=True), "your text"


def held_out(run: Run) -> tuple[list[int], str]:
    """The first ids of the run's held-out text, of one document, and whose text it is.

    Raises ValueError if the text is missing or has changed since the training.
    """
    data = run.config.data
    try:
        if "imported" in run.data:
            raise ValueError(f"{run.name} was imported, without a text")
        corpus = load_corpus(data)
        if corpus.fingerprint != run.data["fingerprint"]:
            raise ValueError(f"data.name={corpus.name} has changed since {run.name} was trained")
        part = encoded_part(*corpus.held_out[0], run.tokenizer(), data.cache_path, data.workers,
                            Console(stderr=True), run.config.max_pair_len)
    except ValueError as error:
        raise ValueError(f"{error}; --text TEXT shows {run.name} on a text of yours") from None
    end = min(NUM_TOKENS, *part.document_starts[1:2], part.num_tokens)
    return part.tokens[:end].tolist(), "its held-out text"


def print_model(model: Model, tokens: Tensor, title: str, *, width: int | None = None, fold: bool = True) -> None:
    """Print the title, the architecture, the parameters, and the trace of a forward; a source is shorter than the text.

    Shape: tokens (b, t) int64.
    """
    with torch.no_grad(), trace(model) as t:
        model(tokens, source=some_source(model, tokens[:, tokens.shape[1] // 4:]))
    print(printable("\n\n".join([title, str(model), parameter_table(model), t.text(width, fold=fold)])))
