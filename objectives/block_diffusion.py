"""Masked diffusion within blocks of a text, one block after another from left to right."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from config import SampleConfig, TrainConfig
from data import IGNORED
from generation.sampling import Text
from model import Hidden, Model
from objectives.block_denoising import denoise_blocks, rehearse_block
from objectives.masked_diffusion import MaskedDiffusion
from objectives.rows import Row


class BlockDiffusion(MaskedDiffusion):
    """Block diffusion: the masked tokens of a block are predicted from its others and from all blocks before it.

    Arriola et al. 2025, arXiv:2503.09573 (BD3-LM). Blocks of `block_len` tokens count from the first token of the row,
    which is visible, as is the source of a pair. One pass reads the masked row and the clean one, at the same
    positions: see `two_halves`. The share of masked tokens is drawn for each block, and spread evenly over the blocks
    of a batch. All else is as in masked diffusion, which this is with a block as long as the row; with blocks of one
    token the score is exact.
    """

    own = "block_diffusion"

    def __init__(self, model: Model, *, block_len: int = 4, **options):
        super().__init__(model, **options)
        self.block_len = block_len

    @classmethod
    def options_of(cls, cfg: TrainConfig) -> dict[str, Any]:
        return super().options_of(cfg) | {"block_len": cfg.diffusion.block_len}

    def read(self, row: Row, shown: Tensor, wanted: Tensor) -> tuple[Hidden, Tensor]:
        t = row.tokens.shape[1]
        hidden = self.model.read(torch.cat([shown, row.tokens], dim=1), positions=row.positions.repeat(1, 2),
                                 sight=two_halves(t, self.block_len, device=shown.device))
        return hidden._replace(last=hidden.last[:, 1:t]), row.tokens.where(wanted, IGNORED)[:, 1:]

    def continue_texts(
        self, texts: list[Text], cfg: SampleConfig, *, eos_id: int, num_ids: int | None = None, use_cache: bool = True,
    ) -> Iterator[tuple[int, int]]:
        return denoise_blocks(self.model, texts, cfg, block_len=self.block_len, mask_id=self.mask_id, eos_id=eos_id,
                              num_ids=num_ids, use_cache=use_cache)

    def rehearse(self, prompts: Sequence[Sequence[int]], cfg: SampleConfig) -> None:
        rehearse_block(self.model, len(prompts), max(map(len, prompts)) + cfg.max_new_tokens, cfg, self.block_len)


def two_halves(t: int, block_len: int, *, device: torch.device | None = None) -> Tensor:
    """What is seen of a masked row of t tokens and the clean one after it.

    A masked block sees itself and the clean blocks before it; a clean one itself and the clean blocks before it.
    Arriola et al. 2025, arXiv:2503.09573, section 3.2. Shape: -> (2 t, 2 t) bool.
    """
    index = torch.arange(2 * t, device=device)
    is_clean, block = index >= t, index % t // block_len
    q, k = block.unsqueeze(-1), block
    return (q == k) & (is_clean.unsqueeze(-1) == is_clean) | (k < q) & is_clean
