"""Small models for the tests, and the one table of tolerances."""

import weakref
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from config import Config, ModelConfig, TrainConfig, override
from data import IGNORED, Batch
from model import Cache, Hidden, Model
from modules.stream import Source
from objective import MultiToken, NextToken
from training.flops import flops_per_token

# atol and rtol of torch.testing.assert_close, float32 unless the name says otherwise
TOLERANCES = {
    "same": {"atol": 1e-5, "rtol": 1e-5},  # one computation in another order, or against a formula
    "rounding": {"atol": 1e-6, "rtol": 1e-6},  # one sum in another order
    "parity": {"atol": 2e-5, "rtol": 1e-5},  # logits of other people's code
    "parity_grad": {"atol": 2e-5, "rtol": 1e-4},  # gradients of other people's code
    "bfloat16": {"atol": 0.05, "rtol": 0.05},
    "rounded weights": {"atol": 0.3, "rtol": 0.1},  # all of a model in bfloat16
}
SMALL = {"dim": 24, "num_layers": 2, "attention.num_heads": 4, "vocab_size": 37, "max_seq_len": 16,
         "out_init": "same", "qk_norm": "none"}


def assert_close(actual: Any, expected: Any, tolerance: str) -> None:
    torch.testing.assert_close(actual, expected, **TOLERANCES[tolerance])


class ReadingModel(Model):
    """A model whose texts all read one source, if a layer has cross-attention: see `one_source`."""

    def read(
        self, tokens: Tensor, *, source: Source | None = None, cache: Cache | None = None, **options: Any,
    ) -> Hidden:
        if self.reads_source and source is None and (cache is None or cache.length == 0):
            source = one_source(self, len(tokens))
        return super().read(tokens, source=source, cache=cache, **options)


def one_source(model: Model, rows: int) -> Source:
    """For each row the same source of 5 tokens after 2 of padding: what an encoder makes of tokens, or noise."""
    positions = (torch.arange(7) - 2).expand(rows, -1)
    if model.encoder is not None:
        tokens = small_tokens(1, 7, vocab_size=model.cfg.padded_vocab_size, seed=3).expand(rows, -1)
        return model.encode(tokens, positions=positions)
    states = torch.randn(1, 7, model.cfg.dim, generator=torch.Generator().manual_seed(3))
    return Source(states.expand(rows, -1, -1).type_as(model.embed.tokens.weight), positions)


def flops_of(cfg: ModelConfig, t: int, *, objective: str = "next_token") -> float:
    """FLOPs of a token in training, in rows of t tokens."""
    return flops_per_token(Config(model=override(cfg, {"max_seq_len": t}), train=TrainConfig(objective=objective)))


def small_config(**flags: Any) -> ModelConfig:
    """A model whose sizes differ from one another, so that mixed-up axes fail; `flags` win."""
    key = repr(flags)
    if key not in _CONFIGS:  # many tests ask for the same, and to check one takes as long as to build its model
        _CONFIGS[key] = override(ModelConfig(), SMALL | flags)
    return _CONFIGS[key]


_CONFIGS: dict[str, ModelConfig] = {}


def loss_of(
    model: Model, tokens: Tensor, targets: Tensor, *, documents: Tensor | None = None, loss_chunk: int | None = None,
) -> Tensor:
    """The next-token loss of a batch, with those of the tokens beyond if the model predicts them."""
    batch = Batch(tokens, targets, documents, int((targets != IGNORED).sum()))
    return (MultiToken if model.ahead else NextToken)(model, loss_chunk=loss_chunk)(batch).total


def randomise(model: nn.Module, *, std: float = 0.2, seed: int = 0) -> nn.Module:
    """Draw every parameter and the biases of routers anew: zeros and ones of the init would hide mistakes."""
    generator, saved = torch.Generator().manual_seed(seed), model.state_dict()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=std, generator=generator)
        for name, buffer in model.named_buffers():
            if name in saved and name.endswith(("balance", "bias")):  # others are constants
                buffer.normal_(std=std, generator=generator)
    return model


def small_model(**flags: Any) -> Model:
    """A small model with random weights, in eval mode."""
    cfg = small_config(**flags)
    reads = any(layer.cross != "none" for layer in cfg.by_kind.values())
    return randomise((ReadingModel if reads else Model)(cfg)).eval()


def small_tokens(b: int = 2, t: int = 13, *, vocab_size: int = 37, seed: int = 0) -> Tensor:
    """Random ids (b, t)."""
    return torch.randint(vocab_size, (b, t), generator=torch.Generator().manual_seed(seed))


class LiveBytes(TorchDispatchMode):
    """The most bytes of tensors alive at a time, of those made inside the `with` block."""

    def __init__(self):
        super().__init__()
        self.live = self.peak = 0
        self.storages = weakref.WeakSet()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for x in tree_leaves(result):
            if isinstance(x, Tensor) and (storage := x.untyped_storage()) not in self.storages:
                self.storages.add(storage)
                self.live += storage.nbytes()
                weakref.finalize(storage, self.free, storage.nbytes())
        self.peak = max(self.peak, self.live)
        return result

    def free(self, num_bytes: int) -> None:
        self.live -= num_bytes
