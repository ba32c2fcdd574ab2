"""Load a run, continue texts with it, or measure how well it predicts one.

    python inference.py RUN "Once upon a time" --temperature 0.7 --min-p 0.05
    python inference.py RUN --score FILE

RUN is a name in models/ or a path; without a prompt the run's own are continued.
"""

import codecs
import hashlib
import math
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TextIO

import numpy as np
import torch
import tyro
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from config import SampleConfig, replace
from data import IGNORED, eval_batches
from model import Cache, Model
from presets import fail, parse_flags
from runs import Run, saved_runs
from tokenizer import Tokenizer
from tools import pick_device

OPENINGS = {"tales": "Once"}  # how a corpus begins each text

# ---- generation ----


class Text:
    """A text that grows: its tokens, those the model still sees, and its own random stream.

    Past `max_len` tokens the model sees the last half of them, from position 0 on; what it sees
    depends on the text alone, so a cache and other texts in the batch change nothing.
    """

    def __init__(self, row: int, prompt: Sequence[int], *, max_len: int, seed: int):
        self.row, self.max_len = row, max_len
        self.tokens, self.num_prompt, self.start = list(prompt), len(prompt), 0
        self.random = torch.Generator().manual_seed(seed)
        self.slide()

    @property
    def seen(self) -> list[int]:
        return self.tokens[self.start:]

    @property
    def new(self) -> list[int]:
        return self.tokens[self.num_prompt:]

    def slide(self) -> bool:
        """Begin anew with the last half where the text is past max_len; true where it did."""
        if len(self.tokens) - self.start <= self.max_len:
            return False
        self.start = len(self.tokens) - max(1, self.max_len // 2)
        return True


def generate(
    model: Model, prompts: Sequence[Sequence[int]], cfg: SampleConfig, *, eos_id: int,
    on_token: Callable[[int, int], None] | None = None, use_cache: bool = True,
) -> list[list[int]]:
    """Continue each prompt; its new tokens, with the end-of-text token where one was drawn.

    A prompt is continued as if it were alone: batches, their order and the cache change only the
    rounding. The draws of a text follow from cfg.seed, its prompt, and how many prompts before it
    are the same. `on_token(row, token)` is called as they come.
    Raises ValueError for a prompt without tokens, or with ids that the model does not have.
    """
    new = [[] for _ in prompts]
    for row, token in stream(model, prompts, cfg, eos_id=eos_id, use_cache=use_cache):
        new[row].append(token)
        if on_token is not None:
            on_token(row, token)
    return new


def stream(
    model: Model, prompts: Sequence[Sequence[int]], cfg: SampleConfig, *, eos_id: int,
    use_cache: bool = True,
) -> Iterator[tuple[int, int]]:
    """`generate` one token at a time: (row, token id), a token for every unfinished row in turn."""
    texts = _start(model.cfg, prompts, cfg.seed)
    was_training, cache = model.training, None
    model.eval()
    try:
        while texts:
            room = min(model.cfg.max_seq_len, max(len(t.seen) for t in texts) + cfg.max_new_tokens)
            if cache is None and use_cache:
                cache = model.make_cache(room)
            chances = distribution(_read(model, texts, cache), cfg, [t.tokens for t in texts])
            slid = False
            for text, p in zip(texts, chances, strict=True):
                text.tokens.append(int(torch.multinomial(p, 1, generator=text.random)))
                slid |= text.slide()
                yield text.row, text.tokens[-1]
            kept = [text for text in texts if not _ended(text.new, cfg, eos_id)]
            if slid or len(kept) < len(texts):
                cache = None  # the rows no longer match: read them all again
            texts = kept
    finally:
        model.train(was_training)


def _start(cfg, prompts: Sequence[Sequence[int]], seed: int) -> list[Text]:
    texts, copies = [], Counter()
    for row, prompt in enumerate(prompts):
        prompt = tuple(int(token) for token in prompt)
        if not prompt:
            raise ValueError(f"prompts[{row}] has no tokens: begin it with the begin-of-text token")
        if not 0 <= min(prompt) <= max(prompt) < cfg.vocab_size:
            raise ValueError(f"prompts[{row}] has ids outside the model's vocab_size={cfg.vocab_size}: "
                             "use the tokenizer that the model was trained with")
        key = hashlib.sha256(repr((seed, copies[prompt], prompt)).encode()).digest()
        texts.append(Text(row, prompt, max_len=cfg.max_seq_len, seed=int.from_bytes(key[:8])))
        copies[prompt] += 1
    return texts


def _ended(new: list[int], cfg: SampleConfig, eos_id: int) -> bool:
    return len(new) >= cfg.max_new_tokens or cfg.stop_at_eos and new[-1:] == [eos_id]


@torch.inference_mode()
def _read(model: Model, texts: list[Text], cache: Cache | None) -> Tensor:
    """Logits of the token after each text: (b, v), on the CPU. Reads what the cache does not have."""
    longest = max(len(text.seen) for text in texts)
    padding = torch.tensor([longest - len(text.seen) for text in texts])
    first = 0 if cache is None or cache.length == 0 else longest - 1
    tokens = torch.tensor([([0] * (longest - len(text.seen)) + text.seen)[first:] for text in texts])
    positions = torch.arange(first, longest) - padding[:, None]  # (b, t), negative on the padding
    if not padding.any():
        positions = positions[0]  # attention is faster where all rows stand at the same place
    device = next(model.parameters()).device
    logits = model(tokens.to(device), positions=positions.to(device), cache=cache)
    return logits[:, -1, : model.cfg.vocab_size].cpu()


def distribution(logits: Tensor, cfg: SampleConfig, seen: Sequence[Sequence[int]]) -> Tensor:
    """The probabilities that tokens are drawn with, from the logits and the tokens already there.

    Repetition penalty, temperature, top-k, top-p and min-p act in this order, each on what those
    before it left; sources stand at the flags of SampleConfig.
    Shape: logits (b, v), seen b lists of ids -> (b, v), each row adding up to 1.
    """
    if cfg.repetition_penalty != 1:
        there = torch.zeros_like(logits, dtype=torch.bool)
        for row, tokens in enumerate(seen):
            there[row, torch.as_tensor(tokens)] = True
        weaker = torch.where(logits > 0, logits / cfg.repetition_penalty, logits * cfg.repetition_penalty)
        logits = logits.where(~there, weaker)
    if cfg.temperature == 0:
        return nn.functional.one_hot(logits.argmax(-1), logits.shape[-1]).float()
    p, ids = (logits / cfg.temperature).softmax(-1).sort(descending=True, stable=True)
    if cfg.top_k is not None:
        p[:, cfg.top_k :] = 0
    if cfg.top_p is not None:
        likelier = p.cumsum(-1) - p  # the sum of all tokens before this one
        p = p.where(likelier < cfg.top_p * p.sum(-1, keepdim=True), 0)
    if cfg.min_p is not None:
        p = p.where(p >= cfg.min_p * p[:, :1], 0)
    return torch.zeros_like(p).scatter(-1, ids, p / p.sum(-1, keepdim=True))


def encode_prompts(tokenizer: Tokenizer, cfg: SampleConfig) -> list[list[int]]:
    """Each of cfg.prompts as ids after the begin-of-text token, cfg.num_samples times in a row."""
    return [tokenizer.encode(prompt, bos=True) for prompt in cfg.prompts for _ in range(cfg.num_samples)]


def continue_prompts(model: Model, tokenizer: Tokenizer, cfg: SampleConfig) -> list[str]:
    """What the model writes after cfg.prompts, cfg.num_samples texts after each, in one batch."""
    ids = generate(model, encode_prompts(tokenizer, cfg), cfg, eos_id=tokenizer.eos_id)
    return [tokenizer.decode(new) for new in ids]


# ---- scoring ----


@dataclass(frozen=True)
class Score:
    """How well a text is predicted; the end-of-text token counts, the begin-of-text does not."""

    loss: float  # nats per token
    bits_per_byte: float  # of UTF-8
    accuracy: dict[int, float]  # k: share of tokens among the k likeliest
    num_tokens: int
    num_bytes: int

    @property
    def perplexity(self) -> float:
        return math.exp(self.loss)


class EncodedText(NamedTuple):
    """One document, as data.eval_batches takes a token file."""

    tokens: np.ndarray
    document_starts: np.ndarray
    num_tokens: int
    pad_id: int


@torch.inference_mode()
def score(
    model: Model, tokenizer: Tokenizer, text: str, *, batch_size: int = 8, top_k: Sequence[int] = (1, 5),
) -> Score:
    """Predict each token of a text from those before it, in windows of max_seq_len tokens.

    Raises ValueError where the text is empty.
    """
    if not text:
        raise ValueError("text='' is empty: give at least one character to score")
    ids = np.array(tokenizer.encode(text, bos=True, eos=True))
    encoded = EncodedText(ids, np.zeros(1, dtype=np.int64), len(ids), tokenizer.pad_id)
    seq_len = min(model.cfg.max_seq_len, len(ids) - 1)
    num_windows = -(-(len(ids) - 1) // seq_len)
    device, was_training = next(model.parameters()).device, model.training
    nats, hits = 0.0, dict.fromkeys(top_k, 0)
    model.eval()
    for x, y in eval_batches(encoded, min(batch_size, num_windows), seq_len):
        logits, targets = model(x.to(device)).flatten(0, 1), y.to(device).flatten()
        logits, targets = logits[targets != IGNORED], targets[targets != IGNORED]
        nats += nn.functional.cross_entropy(logits, targets, reduction="sum").item()
        likeliest = logits.topk(min(max(top_k), logits.shape[-1])).indices == targets[:, None]
        for k in top_k:
            hits[k] += int(likeliest[:, :k].sum())
    model.train(was_training)
    count, num_bytes = len(ids) - 1, len(text.encode())
    return Score(loss=nats / count, bits_per_byte=nats / math.log(2) / num_bytes, num_tokens=count,
                 num_bytes=num_bytes, accuracy={k: n / count for k, n in hits.items()})


# ---- command line ----


PROGRAM = "inference.py RUN [prompt ...]"


@dataclass(frozen=True, kw_only=True)
class Options:
    sample: tyro.conf.OmitArgPrefixes[SampleConfig]
    checkpoint: str = "best"  # best, last, or the step of a checkpoint
    device: str = "auto"  # auto = cuda, else mps, else cpu
    score: str | None = None  # a text file to predict, - = standard input; nothing is generated


def write_texts(model: Model, tokenizer: Tokenizer, cfg: SampleConfig, out: TextIO) -> None:
    """Write cfg.prompts and what follows each, one under the other: as the tokens come, in their order.

    Several texts have a line above each. A character is written when all its bytes are there.
    """
    prompts = encode_prompts(tokenizer, cfg)
    decoders = [codecs.getincrementaldecoder("utf-8")(errors="replace") for _ in prompts]
    waiting, new = [tokenizer.decode(ids) for ids in prompts], [[] for _ in prompts]
    tokens = stream(model, prompts, cfg, eos_id=tokenizer.eos_id)
    for row in range(len(prompts)):
        if len(prompts) > 1:
            out.write(f"--- {row + 1} of {len(prompts)} ---\n")
        out.write(waiting[row])
        while not _ended(new[row], cfg, tokenizer.eos_id):
            other, token = next(tokens)
            new[other].append(token)
            last = _ended(new[other], cfg, tokenizer.eos_id)
            text = decoders[other].decode(tokenizer.token_bytes[token], final=last)
            if other == row:
                out.write(text)
                out.flush()
            else:
                waiting[other] += text
        out.write("\n")


def score_table(result: Score) -> Table:
    table = Table(show_header=False)
    table.add_row("loss", f"{result.loss:.4f} nats/token")
    table.add_row("perplexity", f"{result.perplexity:.3f}")
    table.add_row("bits per byte", f"{result.bits_per_byte:.4f}")
    for k, share in result.accuracy.items():
        table.add_row(f"top-{k} accuracy", f"{share:.2%}")
    table.add_row("text", f"{result.num_tokens:,} tokens, {result.num_bytes:,} bytes")
    return table


def read_text(name: str) -> str:
    """A UTF-8 file's text, or standard input's for "-". Raises ValueError where it cannot be read."""
    try:
        return sys.stdin.read() if name == "-" else Path(name).read_text(encoding="utf-8")
    except OSError as error:
        raise ValueError(f"score={name!r} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"score={name!r} is not UTF-8 text (byte {error.start}): convert it first") from None


def run_command(run: Run, options: Options) -> None:
    """Score a text, or continue prompts, as the options say."""
    if options.score is not None and options.sample != run.config.sample:
        raise ValueError(f"score={options.score!r} generates nothing: leave out prompts and sampling flags")
    text = None if options.score is None else read_text(options.score)
    tokenizer = run.tokenizer()
    model = run.load_model(options.checkpoint, pick_device(options.device))
    if text is None:
        prompts = options.sample.prompts or (OPENINGS.get(run.config.data.name, ""),)
        write_texts(model, tokenizer, replace(options.sample, prompts=prompts), sys.stdout)
    else:
        Console().print(score_table(score(model, tokenizer, text)))


def main(argv: list[str]) -> None:
    """`python inference.py RUN ["prompt" ...] [flags]`; a user's mistake exits 2, Ctrl-C exits 130."""
    if not argv or argv[0].startswith("-"):
        if {"-h", "--help"} & set(argv):
            parse_flags(["--help"], Options(sample=SampleConfig()), PROGRAM, __doc__)
        fail(f"RUN is missing: name one of {', '.join(saved_runs()) or 'models/ (no runs yet)'}, or give a path")
    num_texts = next((i for i, word in enumerate(argv[1:]) if word.startswith("-")), len(argv) - 1)
    texts, flags = argv[1 : 1 + num_texts], argv[1 + num_texts :]
    if texts:
        flags = ["--prompts", *texts, *flags]
    try:
        run = Run(argv[0])
        options = parse_flags(flags, Options(sample=run.config.sample), PROGRAM, __doc__)
        run_command(run, options)
    except ValueError as error:
        fail(error)
    except KeyboardInterrupt:
        raise SystemExit(130) from None


if __name__ == "__main__":
    main(sys.argv[1:])
