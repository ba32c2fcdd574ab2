"""Texts of a block diffusion model: a block of masks after another is filled in, and finished ones are cached."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from config import SampleConfig
from generation.sampling import Text, check_finite, distribution, ended, eval_mode, padded
from model import Model
from modules.rewind import mark, rewind
from objectives.denoising import Canvas, steps_for, taken


class BlockReader:
    """Reads the last block of each text, and keeps the keys and values of the finished ones before it.

    `room` is the most tokens of a text. Tokens and positions are those of `padded`: (b, t), and (t,) or (b, t).
    """

    def __init__(self, model: Model, width: int, *, room: int, use_cache: bool = True):
        self.model, self.width, self.room, self.use_cache = model, width, min(room, model.cfg.max_seq_len), use_cache
        self.device, self.cache = next(model.parameters()).device, None

    @torch.inference_mode()
    def logits(self, tokens: Tensor, positions: Tensor) -> Tensor:
        """The logits of all tokens but the mask at the places of the last block, on the CPU. Shape: (b, width, v - 1).

        The model sees all of that block and of those before it; it forgets the block again.
        """
        places = self.of_rows(tokens, positions)
        if not self.use_cache:
            logits = self.model(tokens.to(self.device), positions=places, sight=self.sight(places))
        else:
            if self.cache is None:
                self.begin(tokens, places)
            marked = mark(self.cache)
            logits = self.model(self.last(tokens), positions=self.last(places), cache=self.cache)
            rewind(marked)
        return self.last(logits)[..., : self.model.cfg.vocab_size - 1].cpu()

    def begin(self, tokens: Tensor, places: Tensor) -> None:
        """Read the finished blocks into a new cache."""
        self.cache, stop = self.model.make_cache(self.room), tokens.shape[1] - self.width
        if stop:
            places = places[:, :stop]
            self.model.read(tokens[:, :stop].to(self.device), positions=places, cache=self.cache,
                            sight=self.sight(places))

    @torch.inference_mode()
    def finish(self, tokens: Tensor, positions: Tensor) -> None:
        """Keep the last block, all of whose tokens are there."""
        if self.use_cache:
            places = self.last(self.of_rows(tokens, positions))
            self.model.read(self.last(tokens), positions=places, cache=self.cache)

    def keep_rows(self, rows: list[int], *, padding: int) -> None:
        """Keep these texts, without their first `padding` tokens, which are padding in all of them."""
        if self.cache is not None:
            self.cache.keep_rows(rows, padding=padding)

    def of_rows(self, tokens: Tensor, positions: Tensor) -> Tensor:
        """Positions of each row, which may begin alike in some batches and not in others. Shape: -> (b, t)."""
        return positions.expand(len(tokens), -1).to(self.device)

    def last(self, x: Tensor) -> Tensor:
        return x[:, x.shape[1] - self.width :].to(self.device)

    def sight(self, places: Tensor) -> Tensor:
        """A block sees itself and those before it. Shape: (b, t) -> (b, t, t)."""
        block = places.div(self.width, rounding_mode="floor")
        return block.unsqueeze(-1) >= block.unsqueeze(-2)


def denoise_blocks(
    model: Model, texts: list[Text], cfg: SampleConfig, *, block_len: int, mask_id: int, eos_id: int,
    num_ids: int | None = None, use_cache: bool = True,
) -> Iterator[tuple[int, int]]:
    """Continue texts as a block diffusion model does; yields (row, token) for every unfinished row in turn.

    Blocks count from the first token that is seen, as in training; what a prompt has of a block is visible in it, and
    the rest is filled in as by `denoise`. Finished blocks are read once more without masks, and cached: Arriola et al.
    2025, arXiv:2503.09573, algorithm 2. A text whose next block does not fit into the context continues from the last
    half of the context. Raises ValueError for logits that are not finite.
    """
    width = min(block_len, model.cfg.max_seq_len)
    room = max(len(text.seen) for text in texts) + cfg.max_new_tokens + width
    reader = BlockReader(model, width, room=room, use_cache=use_cache)
    with eval_mode(model):
        while texts:
            if any([_slide(text, width) for text in texts]):
                reader.cache = None  # a text begins at another token: read all texts again
            canvases = [_canvas(text, width, cfg, mask_id) for text in texts]
            _fill(reader, canvases, cfg, num_ids)
            for text, canvas in zip(texts, canvases, strict=True):
                yield from taken(text, canvas.new, cfg, eos_id)
            rows = [row for row, text in enumerate(texts) if not ended(text.new, cfg, eos_id)]
            texts = [texts[row] for row in rows]
            if texts:
                _finish(reader, canvases, rows)


def _slide(text: Text, width: int) -> bool:
    """Drop all but the last half of the context if the next block does not fit; return whether it did."""
    if _finished(text, width) + width <= text.max_len:
        return False
    text.start = len(text.tokens) - max(1, text.max_len // 2)
    return True


def _finished(text: Text, width: int) -> int:
    """The tokens of the whole blocks that are seen."""
    return len(text.seen) // width * width


def _canvas(text: Text, width: int, cfg: SampleConfig, mask_id: int) -> Canvas:
    """A text and the masks that make its last block whole."""
    block = _finished(text, width) + width - len(text.seen)
    return Canvas(text, block, block=block, steps=steps_for(block, cfg), mask_id=mask_id)


def _fill(reader: BlockReader, canvases: list[Canvas], cfg: SampleConfig, num_ids: int | None) -> None:
    """Fill in the last block of each text."""
    while any(len(canvas.masked) for canvas in canvases):
        found = check_finite(reader.logits(*_padded(canvases)))[..., :num_ids]
        for canvas, logits in zip(canvases, found, strict=True):
            if len(canvas.masked):
                canvas.fill(logits[canvas.masked - len(canvas.tokens) + reader.width], cfg, cfg.denoise.order)


def _finish(reader: BlockReader, canvases: list[Canvas], rows: list[int]) -> None:
    """Cache the block that was filled in, of the texts that go on."""
    reader.finish(*_padded(canvases))
    longest, kept = (max(len(canvas.tokens) for canvas in some) for some in (canvases, [canvases[r] for r in rows]))
    if len(rows) < len(canvases):
        reader.keep_rows(rows, padding=longest - kept)


def _padded(canvases: Sequence[Canvas]) -> tuple[Tensor, Tensor]:
    return padded([canvas.tokens.tolist() for canvas in canvases])


def rehearse_block(model: Model, number: int, length: int, cfg: SampleConfig, block_len: int) -> None:
    """Read as much as it takes to continue so many texts up to a length, and draw from one block."""
    width = min(block_len, model.cfg.max_seq_len)
    whole = min(model.cfg.max_seq_len, length + width) // width * width
    reader = BlockReader(model, width, room=length + width)
    with eval_mode(model):
        tokens, places = torch.zeros(number, whole, dtype=torch.int64), torch.arange(whole)
        logits = reader.logits(tokens, places)
        distribution(logits[0], cfg, [[0]] * width)
        reader.finish(tokens, places)
