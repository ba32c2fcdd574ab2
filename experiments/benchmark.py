"""Measured claims, reproducible: `python experiments/benchmark.py NAME --help` for each.

    tokens-to-loss   how many training tokens a recipe needs to reach a validation loss
    optimizer-steps  how long an optimizer's step takes, compared with its library's own, and training steps with it
    tokenizer        MB of text per second, of each kind of tokenizer compared with the bare library beneath it
    encode           tokens per second from text to files compared with the bare library, and peak memory
    memory           predicted memory compared with what a fresh process took
    loader           how much of a training step waits for its batch
    saving           how long a checkpoint stops training
    tracing          what a forward costs while it is traced, and what a marked method costs while it is not
    experts          training steps of mixtures of experts compared with a dense model of the same active size
    speculation      tokens per forward pass and speed of texts written with drafts, compared with token by token
    vectors          targets written from noise that are right, in more and fewer steps
    length           a training step of each mixer in longer and longer texts, and decoding, as a page
    ideas            what ablations of ideas found and what each costs, as a page
    startup          how long commands take until they answer, and a run until its first step
    gallery          the presets at one scale on tales: bits per byte, speed compared with gpt2, cache
    train            training steps beside those of other libraries, of the same models, and the machine's limit
    generate         greedy texts beside those of other libraries, from the same weights
    beside           a picture of what the two measured
"""

import sys

if not __package__:  # run as a file, from any folder
    import _project  # noqa: F401

    from configuration import heap

    heap.restart()  # as train.py does, which it measures

from importlib import import_module

from rich.console import Console

from configuration.command_line import parse_words
from experiments.benchmarks import benchmark_options as options
from experiments.benchmarks import peer_options
from experiments.common.program import one_sentence

BENCHMARKS = {  # name -> its flags, and the module whose `run` measures
    "tokens-to-loss": (options.TokensToLoss, "tokens_to_loss"), "tracing": (options.Tracing, "tracing_cost"),
    "optimizer-steps": (options.OptimizerSteps, "optimizer_steps"), "memory": (options.Memory, "memory_accuracy"),
    "tokenizer": (options.Tokenizers, "tokenizer_speed"), "encode": (options.Encode, "encoding"),
    "loader": (options.Loader, "loader_wait"), "experts": (options.Experts, "experts_speed"),
    "length": (options.Length, "length"), "speculation": (options.Speculation, "speculation"),
    "vectors": (options.Vectors, "noised_texts"), "startup": (options.Startup, "start_up"),
    "saving": (options.Saving, "saving_stop"),
    "gallery": (options.Gallery, "gallery_table"), "ideas": (options.Ideas, "ideas_table"),
    "train": (peer_options.Train, "training_beside"), "generate": (peer_options.Generate, "generation_beside"),
    "beside": (peer_options.Beside, "beside_picture")}
WIDTH = 120  # of a table in a file


def main() -> None:
    """Run a benchmark; exit with 1 if it misses what it claims."""
    name, *words = sys.argv[1:] or ["--help"]
    if name in ("-h", "--help"):
        print(__doc__)
        return
    with one_sentence(interrupted=""):
        if name not in BENCHMARKS:
            raise ValueError(f"benchmark={name!r} is not known: use one of {', '.join(BENCHMARKS)}")
        kind, module = BENCHMARKS[name]
        flags = parse_words(words, kind, f"python experiments/benchmark.py {name}")
        measure = import_module(f"experiments.benchmarks.{module}").run  # torch takes seconds
        reached = measure(flags, Console(width=None if sys.stdout.isatty() else WIDTH))
    raise SystemExit(0 if reached else 1)


if __name__ == "__main__":
    main()
