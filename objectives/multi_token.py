"""Predict the next token, and those after it by parts of the model."""

from collections.abc import Iterator

from torch import Tensor

from config import SampleConfig, TrainConfig
from data import IGNORED, Batch
from generation.sampling import Text, continue_texts
from model import Model
from modules.ahead import shifted
from objectives.base import Losses, num_targets
from objectives.next_token import NextToken
from objectives.speculation import MOST_TEXTS, speculate
from tools import log_io


class MultiToken(NextToken):
    """The loss of the next token, and `weight` times the mean over depths of those of the tokens after it.

    Each sum of nats is divided by the number of next tokens, so that all tokens weigh the same in every batch; the part
    ahead_k of the losses is the mean over the targets of depth k. A target is always within the document. Scores are
    those of the next token. Gloeckle et al. 2024, arXiv:2404.19737; DeepSeek-AI 2024, arXiv:2412.19437, equation 25.
    """

    own = "multi_token"

    def __init__(self, model: Model, *, weight: float = 0.3, **options):
        super().__init__(model, **options)
        self.weight = weight

    @classmethod
    def from_config(cls, model: Model, cfg: TrainConfig) -> "MultiToken":
        return cls(model, weight=cfg.multi_token.weight, loss_chunk=cfg.loss_chunk, log_accuracy=cfg.log_accuracy)

    @log_io
    def forward(self, batch: Batch) -> Losses:
        hidden, count = self.read(batch), num_targets(batch.y)
        lasts, auxiliary = self.model.look_ahead(hidden)
        merged = {name: hidden.losses.get(name, 0.0) + loss for name, loss in auxiliary.items()}
        total, parts = self.losses(hidden._replace(losses=hidden.losses | merged), batch.y)
        for k, last in enumerate(lasts, 1):
            targets = shifted(batch.y, hidden.context.positions, k, fill=IGNORED)
            nats = self.nats(last, targets)
            total = total + self.weight / len(lasts) * nats / count
            parts[f"ahead_{k}"] = nats.detach() / num_targets(targets)
        return Losses(total, parts)

    def nats(self, last: Tensor, targets: Tensor) -> Tensor:
        """The sum of the nats of further targets. Shape: (b, t, d), (b, t) -> a scalar."""
        return self.summed(self.nats_of_chunk, last, targets)[0]

    def nats_of_chunk(self, last: Tensor, targets: Tensor) -> list[Tensor]:
        nats, _ = self.loss(self.model.head(last), targets)
        return [nats.sum()]

    def continue_texts(
        self, texts: list[Text], cfg: SampleConfig, *, eos_id: int, num_ids: int | None = None,
    ) -> Iterator[tuple[int, int]]:
        """A few texts with drafts of further tokens, which the model checks, unless cfg says no; many without."""
        write = speculate if cfg.drafts and len(texts) <= MOST_TEXTS else continue_texts
        return write(self.model, texts, cfg, eos_id=eos_id, num_ids=num_ids)
