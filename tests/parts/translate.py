"""An objective that gives a source: the same rows, read backwards."""

import torch

from data import Batch
from model import Hidden
from objective import NextToken


class Translate(NextToken):
    """The decoder's next token, given what the encoder makes of the same rows read backwards."""

    def stream(self, prompts, cfg, *, eos_id, num_ids=None):
        tokens = torch.tensor(prompts)
        with torch.no_grad():
            source = self.model.encode(tokens.flip(1))
            for _ in range(cfg.max_new_tokens):
                new = self.model(tokens, source=source, last_only=True).argmax(-1)
                tokens = torch.cat((tokens, new), dim=1)
                yield from enumerate(new[:, 0])

    def read(self, batch: Batch) -> Hidden:
        return self.model.read(batch.x, source=self.model.encode(batch.x.flip(1)))
