"""Attention patterns: a query sees exactly the tokens of a definition written as a plain loop, in every way to run."""

import pytest
import torch
from helpers import assert_close, flops_of, randomise, small_config, small_model, small_tokens

from model import Model
from modules.masks import Pattern
from modules.mixers import attention, latent
from modules.mixers.kv_cache import make_kv_cache

PATTERNS = {
    "window": {"window": 3},
    "dilated window": {"window": 3, "dilation": 2},
    "chunks": {"chunk": 4},
    "a window within chunks": {"window": 3, "chunk": 5},
    "a window and strides": {"window": 2, "stride": 4},
    "chunks and strides": {"chunk": 3, "stride": 5},
    "a window and global tokens": {"window": 3, "global_tokens": 2},
    "all of them": {"window": 2, "dilation": 3, "chunk": 6, "stride": 7, "global_tokens": 1},
}
T = 29  # long enough for blocks


def flags_of(pattern: dict[str, int], **flags) -> dict:
    return {f"attention.{name}": value for name, value in pattern.items()} | {"num_layers": 1, "mlp": "none"} | flags


def seen_by(i: int, *, causal: bool, window=None, dilation=1, chunk=None, stride=None, global_tokens=0) -> set[int]:
    """The tokens that a query at i sees of a text of T tokens, one at a time."""
    found = set()
    for j in range(T):
        steps, apart = divmod(abs(i - j), dilation)
        near = apart == 0 and (window is None or steps < window) and (chunk is None or i // chunk == j // chunk)
        strided = stride is not None and abs(i - j) % stride == 0
        if (near or strided or min(i, j) < global_tokens) and (j <= i or not causal):
            found.add(j)
    return found


def reached(model: Model, **how) -> list[set[int]]:
    """The tokens on which the output at each place depends."""
    tokens = small_tokens(b=1, t=T)
    others = tokens.repeat(T, 1)
    others[range(T), range(T)] = (tokens[0] + 1) % 37  # row j has another token j
    with torch.no_grad():
        changed = (model(others, **how) - model(tokens, **how)).abs().amax(-1) > 1e-7
    return [set(changed[:, i].nonzero().flatten().tolist()) for i in range(T)]


@pytest.mark.parametrize("pattern", PATTERNS.values(), ids=PATTERNS)
@pytest.mark.parametrize("causal", [True, False], ids=["causal", "both sides"])
def test_a_query_sees_the_tokens_of_its_pattern(pattern, causal):
    model = randomise(Model(small_config(**flags_of(pattern)), causal=causal), std=0.5).eval()
    assert reached(model) == [seen_by(i, causal=causal, **pattern) for i in range(T)]


@pytest.mark.parametrize("pattern", PATTERNS.values(), ids=PATTERNS)
@pytest.mark.parametrize("flags", [
    {}, {"attention.backend": "eager", "attention.softcap": 2.0}, {"position": "alibi", "attention.num_kv_heads": 2},
    {"mixer": "latent"}, {"position": "t5", "t5.shared": False, "attention.sinks": True},
    {"position": "t5", "num_layers": 2},
], ids=str)
def test_blocks_change_nothing(pattern, flags, monkeypatch):
    """Nor for documents, one of which is longer than a block, nor for the gradient."""
    model, tokens = small_model(**flags_of(pattern) | flags), small_tokens(t=T)
    documents = torch.tensor([[0] * 3 + [1] * 19 + [2] * 7, [4] * T])

    def results() -> list[torch.Tensor]:
        logits = [model(tokens), model(tokens, documents=documents)]
        return [*logits, *torch.autograd.grad(sum(x.square().mean() for x in logits), list(model.parameters()))]

    found = results()
    for module in (attention, latent):
        monkeypatch.setattr(module, "block_of", lambda *_: None)
    for x, y in zip(results(), found, strict=True):
        assert_close(x, y, "same")


def test_blocks_compute_as_much_as_the_window_asks_for():
    def of_attention(**flags) -> float:
        layer = {"num_layers": 1, "mlp": "none"}
        return flops_of(small_config(**layer, **flags), 1024) - flops_of(
            small_config(**layer, mixer="none"), 1024)

    projections = 6 * 4 * 24 * 24
    full, local, longer = (of_attention(**flags) - projections
                           for flags in ({}, {"attention.window": 64}, {"attention.window": 128}))
    assert full == 3 * 2 * 2 * 24 * 1024  # scores, and the mean of values, in both passes
    assert local == 2 * 64 / 1024 * full and longer == 2 * local


@pytest.mark.parametrize("mixer", ["attention", "latent"])
@pytest.mark.parametrize(("pattern", "room"), [({"window": 3, "dilation": 3}, 8), ({"chunk": 8}, 10),
                                               ({"window": 8, "global_tokens": 2}, 12)], ids=str)
def test_a_cache_has_room_for_what_later_tokens_see_and_a_quarter_more(mixer, pattern, room):
    model = small_model(**flags_of(pattern, num_layers=2, mixer=mixer))
    tokens, cache, sizes = small_tokens(t=48), model.make_cache(48), []
    with torch.no_grad():
        logits = []
        for piece in tokens.split((5, *[1] * 15, 9, *[1] * 19), dim=1):
            logits.append(model(piece, cache=cache))
            sizes += [layer["mixer"].keys.shape[2] for layer in cache.layers]
        assert_close(torch.cat(logits, dim=1), model(tokens), "same")
    assert max(sizes) == room
    with pytest.raises(ValueError, match="the cache holds 48 tokens, not 49"):
        model(tokens[:, :1], cache=cache)


def test_a_stride_needs_the_whole_text():
    assert make_kv_cache(99, Pattern(window=3, stride=5)).max_len == 99
