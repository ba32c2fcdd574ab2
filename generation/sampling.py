"""Sample texts from a model: token by token, many texts at once, with a cache."""

import hashlib
import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from config import ModelConfig, SampleConfig
from model import Cache, Model

SMALLEST = 1e-30  # float32 makes 0 of much smaller numbers
Given = Callable[[list["Text"], Tensor], dict[str, Any]]  # from texts and positions (t,) or (b, t)
TOKENS_AT_A_TIME = 2**15  # of all texts in a batch, if each is as long as the context


class Text:
    """A text in generation: its tokens, those the model still sees, and its own random generator.

    Once it exceeds `max_len` tokens, the model sees its last half, from position 0 on. What the model sees depends on
    the text alone, so the cache and the other texts of the batch change nothing.
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
    def num_seen(self) -> int:
        return len(self.tokens) - self.start

    @property
    def new(self) -> list[int]:
        return self.tokens[self.num_prompt:]

    def slide(self) -> bool:
        """Drop all but the last half if the model sees more than max_len tokens; return whether it did."""
        if self.num_seen <= self.max_len:
            return False
        self.start = len(self.tokens) - max(1, self.max_len // 2)
        return True


def generate(
    model: Model, prompts: Sequence[Sequence[int]], cfg: SampleConfig, *, eos_id: int,
    on_token: Callable[[int, int], None] | None = None, use_cache: bool = True, num_ids: int | None = None,
) -> list[list[int]]:
    """Continue each prompt; return the new tokens, with the end-of-text token if it was drawn.

    Each prompt is continued as if it were alone: batches (of `rows_at_a_time`), their order and the cache change only
    the rounding. The draws depend on cfg.seed, the prompt, and the number of equal prompts before it.
    `on_token(row, token)` is called for each token. Only ids below `num_ids` are drawn, e.g. the tokenizer's if the
    model's vocabulary is larger.
    Raises ValueError for a prompt that is empty or has ids outside the vocabulary, and for logits that are not finite.
    """
    new = [[] for _ in prompts]
    for texts in in_batches(begin_texts(model.cfg, prompts, cfg.seed), model.cfg):
        for row, token in continue_texts(model, texts, cfg, eos_id=eos_id, use_cache=use_cache, num_ids=num_ids):
            new[row].append(token)
            if on_token is not None:
                on_token(row, token)
    return new


def stream(
    model: Model, prompts: Sequence[Sequence[int]], cfg: SampleConfig, *, eos_id: int,
    use_cache: bool = True, num_ids: int | None = None,
) -> Iterator[tuple[int, int]]:
    """`generate`, all prompts at once, one token at a time: yields (row, token id) for every unfinished row in turn."""
    texts = begin_texts(model.cfg, prompts, cfg.seed)
    return continue_texts(model, texts, cfg, eos_id=eos_id, use_cache=use_cache, num_ids=num_ids)


def rows_at_a_time(cfg: ModelConfig) -> int:
    """The largest batch of texts, which takes less memory than a training step."""
    return max(1, TOKENS_AT_A_TIME // cfg.max_seq_len)


def in_batches(texts: Sequence[Text], cfg: ModelConfig) -> Iterator[list[Text]]:
    """The texts, `rows_at_a_time`."""
    rows = rows_at_a_time(cfg)
    return (list(texts[first : first + rows]) for first in range(0, len(texts), rows))


def continue_texts(
    model: Model, texts: list[Text], cfg: SampleConfig, *, eos_id: int, use_cache: bool = True,
    num_ids: int | None = None, given: Given = lambda texts, positions: {},
    adapt: Callable[[Tensor], Tensor] = lambda logits: logits,
) -> Iterator[tuple[int, int]]:
    """`stream`, of texts that have begun.

    `given` makes what the model takes beside the tokens that are read first: a source, a sight. `adapt` changes the
    logits (b, v) before a draw.
    """
    cache, device = None, next(model.parameters()).device
    with eval_mode(model):
        lean = model.lean()
        while texts:
            if cache is None and use_cache:
                cache = model.make_cache(min(model.cfg.max_seq_len, _longest(texts) + cfg.max_new_tokens))
            logits = adapt(_read(lean, texts, cache, given, device))[:, :num_ids]
            for text, token in zip(texts, next_tokens(logits, cfg, texts), strict=True):
                text.tokens.append(token)
                yield text.row, token
            rows = [row for row, text in enumerate(texts) if not ended(text.new, cfg, eos_id)]
            kept = [texts[row] for row in rows]
            if cache is not None and 0 < len(kept) < len(texts):
                cache.keep_rows(rows, padding=_longest(texts) - _longest(kept))
            texts = kept
            if any([text.slide() for text in texts]):
                cache = None  # a text begins at another token: read all texts again


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """Switch dropout off inside the block, and restore the mode after it."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


def begin_texts(cfg: ModelConfig, prompts: Sequence[Sequence[int]], seed: int) -> list[Text]:
    """A text for each prompt, with a generator of its own. Raises ValueError for a prompt that cannot be read."""
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


def ended(new: list[int], cfg: SampleConfig, eos_id: int) -> bool:
    """Whether a text with these new tokens is complete."""
    return len(new) >= cfg.max_new_tokens or cfg.stop_at_eos and new[-1:] == [eos_id]


def _longest(texts: list[Text]) -> int:
    """The largest number of visible tokens of a text."""
    return max(text.num_seen for text in texts)


@torch.inference_mode()
def _read(model: Model, texts: list[Text], cache: Cache | None, given: Given, device: torch.device) -> Tensor:
    """The logits of the token after each text, on the CPU. Reads only what is not in the cache. Shape: (b, v)."""
    goes_on = cache is not None and cache.length > 0
    tokens, positions = _last(texts) if goes_on else padded([text.seen for text in texts])
    tokens, positions = tokens.to(device), positions.to(device)
    beside = {} if goes_on else given(texts, positions)
    logits = model(tokens, positions=positions, cache=cache, last_only=True, **beside)
    return check_finite(logits[:, 0, : model.cfg.vocab_size].cpu())


def _last(texts: list[Text]) -> tuple[Tensor, Tensor]:
    """The last column of what `padded` makes of all that the model sees. Shape: -> (b, 1), and (b, 1) or (1,)."""
    places = [text.num_seen - 1 for text in texts]
    positions = torch.tensor(places[:1]) if len(set(places)) == 1 else torch.tensor(places).unsqueeze(1)
    return torch.tensor([text.tokens[-1] for text in texts]).unsqueeze(1), positions


def padded(texts: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Texts as rows, with padding before the shorter ones, and their positions, which are negative there.

    Shape: -> tokens (b, t), positions (b, t), or (t,) if there is no padding, for which attention is faster.
    """
    longest = max(map(len, texts))
    padding = [longest - len(text) for text in texts]
    tokens = torch.tensor([[0] * empty + [*text] for empty, text in zip(padding, texts, strict=True)])
    positions = torch.arange(longest)
    return tokens, positions - torch.tensor(padding)[:, None] if any(padding) else positions


def check_finite(logits: Tensor) -> Tensor:
    """The logits. Raises ValueError if one is NaN or infinite."""
    if not math.isfinite(logits.sum().item()) and not logits.isfinite().all():  # finite ones may have an infinite sum
        raise ValueError("the model's logits are not finite: its training diverged; use an earlier checkpoint")
    return logits


def next_tokens(logits: Tensor, cfg: SampleConfig, texts: Sequence[Text]) -> list[int]:
    """A token for each text, from its logits (b, v): drawn, or with a temperature of 0 the likeliest."""
    seen = [text.tokens for text in texts]
    if cfg.temperature == 0:
        return likeliest(penalised(logits, cfg, seen))
    return draw(distribution(logits, cfg, seen), texts)


def likeliest(logits: Tensor) -> list[int]:
    """The token with the largest logit of each row, the first if there are several. Shape: (b, v)."""
    has_numbers = type(logits) is Tensor  # a dry run has none
    return (logits.numpy() if has_numbers else logits).argmax(-1).tolist()  # numpy takes a tenth of the time of torch


def penalised(logits: Tensor, cfg: SampleConfig, seen: Sequence[Sequence[int]]) -> Tensor:
    """The logits, weaker for tokens already in a text. Shape: (b, v), seen b lists of ids -> (b, v)."""
    if cfg.repetition_penalty == 1:
        return logits
    there = torch.zeros_like(logits, dtype=torch.bool)
    for row, tokens in enumerate(seen):
        ids = torch.as_tensor(tokens)
        there[row, ids[ids < logits.shape[-1]]] = True
    weaker = torch.where(logits > 0, logits / cfg.repetition_penalty, logits * cfg.repetition_penalty)
    return logits.where(~there, weaker.nan_to_num())  # finite with a tiny and with a huge penalty


def distribution(logits: Tensor, cfg: SampleConfig, seen: Sequence[Sequence[int]]) -> Tensor:
    """The probabilities to draw tokens with, from the logits and the tokens already in each text.

    Applies repetition penalty, temperature, top-k, top-p and min-p, in this order; SampleConfig names their sources.
    Shape: logits (b, v), seen b lists of ids -> (b, v), each row summing to 1.
    """
    logits = penalised(logits, cfg, seen)
    if cfg.temperature == 0:
        return nn.functional.one_hot(logits.argmax(-1), logits.shape[-1]).float()
    temperature = max(cfg.temperature, SMALLEST)
    p = ((logits - logits.amax(-1, keepdim=True)) / temperature).softmax(-1)  # no inf - inf at a tiny one
    if cfg.top_k is not None:
        likeliest, ids = p.topk(min(cfg.top_k, p.shape[-1]))
        p = torch.zeros_like(p).scatter(-1, ids, likeliest)
    if cfg.top_p is not None:
        falling, ids = p.sort(descending=True, stable=True)
        likelier = falling.cumsum(-1) - falling  # the sum of the tokens before each
        kept = falling.where(likelier < max(cfg.top_p, SMALLEST) * p.sum(-1, keepdim=True), 0)
        p = torch.zeros_like(p).scatter(-1, ids, kept)
    if cfg.min_p is not None:
        p = p.where(p >= cfg.min_p * p.amax(-1, keepdim=True), 0)
    return p / p.sum(-1, keepdim=True)


def draw(p: Tensor, texts: Sequence[Text]) -> list[int]:
    """Draw a token for each text from its row of p (b, v), by one number of the text's own generator."""
    share = torch.stack([torch.rand(1, generator=text.random, dtype=torch.float64) for text in texts])  # (b, 1)
    reached = p.double().cumsum(-1)
    return torch.searchsorted(reached, share * reached[:, -1:], right=True).flatten().tolist()
