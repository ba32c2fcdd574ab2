"""The flags of each benchmark."""

from dataclasses import dataclass
from typing import Literal

from corpora.encoder import num_cores


@dataclass(frozen=True, kw_only=True)
class TokensToLoss:
    """Train on a text from scratch and count the tokens until the validation loss is reached.

    The loss is that of the whole validation part, the last tenth of the text. A recipe's weights are all its parameters
    but those of tables, of which a token reads a row.
    """

    data: str  # a .txt file
    target: float = 1.88  # validation loss to reach, nats per token
    presets: tuple[str, ...] = ("char",)  # recipes: char-soon takes the fewest tokens; nanogpt-char is the one to beat
    budget: int | None = None  # training tokens; None = those of the preset's steps
    seeds: int = 1  # repetitions, with seeds 0, 1, ...
    evaluations: int = 20  # spread over the run
    device: str = "auto"  # auto = cuda, else mps, else cpu


@dataclass(frozen=True, kw_only=True)
class OptimizerSteps:
    """Time the steps of each optimizer on a preset's weights, alone and in whole training steps, in turns.

    A training step is forward, backward and the optimizer's step, on tales. Beside each stands its library's bare
    optimizer of all parameters. The best of several rounds counts. On a CPU, time is processor time.
    """

    preset: str = "default"
    scale: str | None = None  # parameters in the blocks, e.g. 1M; None = the preset's own size
    batch_size: int = 8  # rows of a training step
    steps: int = 20  # of an optimizer alone, in a round
    rounds: int = 5
    optimizers: tuple[str, ...] = ()  # words of train.optimizer besides adamw; none given = all
    device: str = "auto"  # auto = cuda, else mps, else cpu


@dataclass(frozen=True, kw_only=True)
class Tokenizers:
    """Encode a batch of documents by our tokenizers and by the libraries, in turns, and compare the best times.

    The libraries read the files that ours saved, and are called in their fastest way that gives the ids as lists; for
    char and byte, Python does the work. One thread, processor time.
    """

    kinds: tuple[str, ...] = ("char", "byte", "bpe", "unigram", "hf_bpe")  # trained on the text
    paths: tuple[str, ...] = ()  # others to measure: folders, or OWNER/NAME on the Hugging Face Hub
    data: str | None = None  # a UTF-8 file; None = tales
    separator: str = "\n\n"  # between the file's documents
    vocab_size: int = 2048  # of bpe, unigram and hf_bpe
    megabytes: float = 4.0  # of text
    repeats: int = 7  # turns; the fastest counts
    least: float = 0.8  # of the library's speed: below it, the benchmark fails


@dataclass(frozen=True, kw_only=True)
class Encode:
    """Encode generated stories, each way in a process of its own that does not hold the text in memory.

    The bare library is SentencePiece on the same groups of documents; its time is without reading the text, and nothing
    is written. Ours counts everything, from the path of the text to the files on disk.
    """

    megabytes: int = 300  # of text
    tokenizer: str = "tales_4096"  # a SentencePiece tokenizer's folder, or a built one
    workers: tuple[int, ...] = (1, num_cores())  # our processes, the library's threads
    repetitions: int = 1  # of each way, in turn; the fastest counts, and the largest memory


@dataclass(frozen=True, kw_only=True)
class Loader:
    """Train on generated stories and measure how long a step waits for its batch, for each packing.

    With 0 batches ahead the step makes its own batch, else a thread does during the step before. Medians over steps.
    """

    preset: str = "default"  # the model, and its batch size
    steps: int = 30  # of each measurement, after one that does not count
    stories: int = 3000  # to train on, about 170 tokens each
    max_seq_len: int = 512  # tokens a row
    prefetch: tuple[int, ...] = (0, 2)  # batches ahead
    read_ms: float = 0.0  # additional time for each batch, as on a slow disk
    device: str = "auto"  # auto = cuda, else mps, else cpu


@dataclass(frozen=True, kw_only=True)
class Saving:
    """Save models of several sizes, and measure how long a checkpoint stops training.

    Once written before training goes on, once copied and written by a thread; a step lies between two rounds. On the
    disk of models/. The first save of each kind, and the quickest of the later ones.
    """

    preset: str = "llama3"
    scales: tuple[str, ...] = ("1M", "50M")  # parameters in the blocks
    optimizer: str = "adamw"
    rounds: int = 6
    device: str = "auto"  # auto = cuda, else mps, else cpu


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Predict the memory of configurations, train each for some steps in a fresh process, and read its peak.

    30 of them span the menus; --random adds some, drawn by the seed. With the tight allocator the prediction must be
    right to 2 % (median), 5 % (nine of ten) and 10 % or 16 MB (all); with the fast one a process must stay between the
    low and the high prediction in 19 of 20; on a GPU the prediction must be right to 10 %. A prediction may take 0.6 s
    (median), and 1 s for GPT-2.
    --runs draws runs of train.py instead, a quarter of them compiled: nine of ten must peak in the range that they
    announce, and none more than 5 % above it.
    """

    runs: int = 0  # runs of train.py drawn by the seed, in place of all else
    random: int = 0  # configurations drawn at random, besides the named ones
    seed: int = 0  # of the draw
    only: str | None = None  # the named ones that have this in their names; "" = all, "drawn" = none
    allocator: Literal["tight", "fast"] = "tight"  # the fast one keeps freed memory
    threads: int = 1  # of torch
    steps: int = 5  # of each process
    device: Literal["cpu", "cuda"] = "cpu"  # cuda: its allocator's peak is compared


@dataclass(frozen=True, kw_only=True)
class Tracing:
    """Measure marked methods without a trace, forwards in each mode, memory, and shapes(); two minutes on one core."""


@dataclass(frozen=True, kw_only=True)
class Gallery:
    """Train the presets at one scale on tales, and write a page with their losses, speeds and caches; about an hour.

    Speed is compared with gpt2's: steps of both take turns in one process. The page is written after each preset.
    """

    presets: tuple[str, ...] = ()  # the rows to measure; the page's others stay. None given = all but the ladder's
    scale: str = "1M"  # parameters in the blocks
    steps: int = 300  # of training
    rounds: int = 8  # timed steps of each preset and of gpt2; the fastest count, on a CPU in processor time
    eval_tokens: int = 100_000  # held-out tokens, at most
    page: str = "docs/gallery.md"  # relative to the project's folder
    device: str = "auto"  # auto = cuda, else mps, else cpu


@dataclass(frozen=True, kw_only=True)
class Length:
    """Time training steps of one mixer on texts of several lengths and decoding, and write a page with the tables.

    A step has the same number of tokens at each length. All mixers and lengths take turns in one process, on one thread
    of a CPU, and the fastest steps count, in processor time.
    """

    mixers: tuple[str, ...] = ()  # words of the menu, compared with attention; none given = all
    lengths: tuple[int, ...] = (128, 256, 512, 1024, 2048, 4096, 8192)  # tokens of a text
    cached: tuple[int, int] = (128, 4096)  # tokens before those that are decoded
    tokens: int = 8192  # of a step, in as many texts as this makes
    dim: int = 256
    rounds: int = 3  # after one that does not count
    page: str = "docs/length.md"  # relative to the project's folder


@dataclass(frozen=True, kw_only=True)
class Startup:
    """Start commands in fresh processes, on one thread, and measure processor time and the clock; the fastest counts.

    Each has a bar in seconds of processor time: help and mistakes 0.5, the first token of a run 2, a prediction of
    memory 3, a run's first step 4, by the clock too. Other programs that run meanwhile make both times longer.
    """

    rounds: int = 5


@dataclass(frozen=True, kw_only=True)
class Ideas:
    """Write a page of what ablations of ideas found, and of what each idea costs in parameters and time.

    The ablations are those of `python experiments/ablate.py --config experiments/bases/ideas.yaml --ideas all`, by the
    names of their results. Costs are measured on their bases, at the same sizes: steps of both take turns in one
    process. Prose that stands above the tables is kept.
    """

    ablations: tuple[str, ...] = ("ideas-tales-small", "ideas-tales-medium", "ideas-shakespeare-small",
                                  "ideas-shakespeare-medium")
    rounds: int = 8  # timed steps; the fastest count, on a CPU in processor time
    page: str = "docs/ideas.md"  # relative to the project's folder
    device: str = "auto"  # auto = cuda, else mps, else cpu


@dataclass(frozen=True, kw_only=True)
class Speculation:
    """Write texts with a run of train.objective=multi_token, with the drafts of its parts and token by token, in turns.

    The fastest of several rounds counts, on a CPU in processor time. Both ways must write the same texts.
    """

    run: str  # a name in models/, or a path
    texts: tuple[int, ...] = (1, 3)  # texts at a time
    temperature: float = 0.0  # 0 = greedy
    max_new_tokens: int = 200  # of each text
    rounds: int = 5
    device: str = "auto"  # auto = cuda, else mps, else cpu


@dataclass(frozen=True, kw_only=True)
class Vectors:
    """Write targets of validation pairs with a run of train.objective=diffuseq, in more and fewer steps.

    Counts the targets that are exactly right, and of tales-opening the stories that are grammatical and consistent.
    With several candidates the one is taken that is most like the others. On a CPU, time is processor time.
    """

    run: str  # a name in models/, or a path
    steps: tuple[int, ...] = (2000, 200, 20, 5)  # forward passes of each text
    candidates: tuple[int, ...] = (1, 10)
    texts: int = 100
    device: str = "auto"  # auto = cuda, else mps, else cpu


@dataclass(frozen=True, kw_only=True)
class Experts:
    """Time training steps on tales of mixtures of experts and of a dense model with as many active parameters.

    The dense model's MLP is as wide as the experts of a token together. All take turns in one process, and the fastest
    steps count, on a CPU in processor time. A mixture of 16 experts must reach 0.6 of the dense model's tokens/s.
    """

    experts: tuple[int, ...] = (4, 16, 64)  # numbers of experts to measure
    top_k: int = 2  # experts of a token
    dim: int = 320
    num_layers: int = 7
    hidden_dim: int = 512  # of an expert; with the others 10M active parameters in the blocks
    precision: str = "auto"  # as train.precision
    optimizer: str = "adamw"  # as train.optimizer; a step of muon takes as much longer as there are more matrices
    rounds: int = 8
    device: str = "auto"  # auto = cuda, else mps, else cpu
