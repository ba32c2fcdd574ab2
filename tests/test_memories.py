"""Memories of n-grams and value embeddings: their formulas, transformers, their tables."""

from types import SimpleNamespace

import pytest
import torch
from helpers import assert_close, randomise, small_config, small_model, small_tokens
from torch.nn import functional as F
from transformers.models.qwen4_exp import modeling_qwen4_exp as qwen4

from config import Config, override
from model import Model
from modules.memory import BigramMemory, BigramTable, Engram, NgramEmbedding
from modules.ngrams import hash_multipliers, primes
from modules.stream import Context, Stream
from optim import roles
from tokenizer import train_tokenizer
from training.setup import fit_vocabulary
from training.transfer import compare

ENGRAM = {"memory": "engram", "engram.rows": 20, "engram.num_heads": 2, "engram.head_dim": 5}
EOS = 5


# ---- bigrams ----


def test_a_bigram_adds_a_row_of_one_table_to_the_stream_before_each_layer():
    model = small_model(memory="bigram", num_layers=3)
    plain, tokens = small_model(num_layers=3), small_tokens()
    plain.load_state_dict(model.state_dict(), strict=False)
    table = model.blocks[0]["memory"].table.weight
    assert table.shape == (5 * 37, 24)
    rows = [[184, *((36313 * int(b) ^ 27191 * int(a)) % 184 for a, b in zip(row, row[1:], strict=False))]
            for row in tokens]
    added, x = table[torch.tensor(rows)], model.embed(tokens, torch.arange(13))
    for block, other in zip(model.blocks, plain.blocks, strict=True):
        x = other(Stream(x + block["memory"].factor * added), Context(torch.arange(13))).x
    assert_close(model(tokens), model.head(model.norm(x)), "same")
    assert [block["memory"].table is None for block in model.blocks] == [False, True, True]


def test_bigrams_begin_at_zero_with_a_tenth_of_their_rows():
    model = Model(small_config(memory="bigram"))
    assert model.blocks[0]["memory"].table.weight.abs().max() == 0
    assert_close(torch.cat([block["memory"].factor for block in model.blocks]), torch.tensor([0.1, 0.1]), "same")


def test_a_bigram_goes_to_each_of_several_streams():
    memory, x = randomise(BigramMemory(BigramTable(37, dim=6, factor=2), start=0.1)), torch.randn(2, 13, 3, 6)
    context = Context(torch.arange(13), tokens=small_tokens())
    y = memory(Stream(x), context).x
    assert_close(y, x + memory.factor * memory.table(context).unsqueeze(2), "same")


# ---- hashed n-grams ----


@pytest.mark.parametrize(("vocab_size", "seed", "index"), [(37, 0, 0), (4096, 1234, 1), (248_320, 7, 3)])
def test_hashes_are_those_of_transformers(vocab_size, seed, index):
    expected = qwen4._build_layer_multipliers(vocab_size, 4, index, seed)
    assert hash_multipliers(vocab_size, 4, seed=seed, index=index) == expected.tolist()
    assert primes(20, number=9) == [qwen4._find_nth_prime_after(19, i) for i in range(1, 10)]
    assert primes(2, number=3) == [2, 3, 5]


def engram_pair(num_streams: int) -> tuple[Engram, torch.nn.Module]:
    """Ours, and that of transformers with the same random weights: the second layer that has it."""
    cfg = SimpleNamespace(
        hidden_size=24, hc_count=num_streams, ple_embed_dim=20, ple_conv_kernel_size=4, ngram_size=3, heads_per_ngram=2,
        vocab_size=37, ngram_vocab_size_base=20, make_ngram_vocab_size_divisible_by=8, seed=7, eos_token_id=EOS,
        rms_norm_eps=1e-5)
    theirs = randomise(qwen4.Qwen4ExpTextPLELayer(cfg, 0, 1), std=0.5)
    ngrams = NgramEmbedding(37, max_n=3, num_heads=2, head_dim=5, rows=20, seed=7, eos_id=EOS, index=1, num_before=4)
    ours = Engram(24, ngrams=ngrams, conv_len=4, dilation=3, eps=1e-5, num_streams=num_streams)
    with torch.no_grad():
        for name, weight in matching(theirs, num_streams).items():
            ours.get_parameter(name).copy_(weight)
    return ours, theirs


def matching(theirs: torch.nn.Module, num_streams: int, *, grad: bool = False) -> dict[str, torch.Tensor]:
    """The weights of theirs, or their gradients, by our names and in our layout."""
    def of(name: str) -> torch.Tensor:
        return theirs.get_parameter(name).grad if grad else theirs.get_parameter(name)

    rows = sum(theirs.ple_embedding.head_vocab_sizes)
    norms = {"q_norm": "norm_query", "k_norm": "norm_key", "v_norm": "norm_conv"}
    return {"k.weight": of("key_proj.weight"), "out.weight": of("value_proj.weight"),
            "ngrams.table.weight": of("ple_embedding.ngram_embedding.weight")[:rows],
            "conv.weight": of("conv1d.weight")[:, 0].T.flip(0),
            **{f"{ours}.scale": of(f"{name}.weight").view(num_streams, 24) + (not grad)
               for ours, name in norms.items()}}


@pytest.mark.parametrize("num_streams", [1, 3])
@pytest.mark.parametrize("padded", [False, True])
def test_engram_is_the_layer_of_transformers_in_values_and_gradients(num_streams, padded):
    ours, theirs = engram_pair(num_streams)
    tokens, x = small_tokens(3), torch.randn(3, 13, num_streams * 24)
    tokens[0, 4] = tokens[1, 6] = tokens[1, 8] = EOS
    positions = torch.arange(13) - torch.tensor([0, 2, 5])[:, None] if padded else torch.arange(13)
    seen = (positions >= 0).expand(3, 13)
    y = theirs(x, tokens.where(seen, EOS), None, seen if padded else None)
    wide = x.unflatten(-1, (num_streams, 24)).squeeze(2)
    found = ours(Stream(wide), Context(positions, tokens=tokens)).x - wide
    weights = seen[..., None] * torch.randn(13, num_streams * 24)
    assert_close(found.reshape_as(y) * seen[..., None], y * seen[..., None], "parity")
    (found.reshape_as(y) * weights).sum().backward()
    (y * weights).sum().backward()
    for name, expected in matching(theirs, num_streams, grad=True).items():
        assert_close(ours.get_parameter(name).grad, expected, "parity_grad")


def test_engram_is_its_formula():
    cfg = ENGRAM | {"engram.max_n": 4, "engram.eos_id": EOS, "engram.conv_len": 3, "engram.seed": 3}
    model = small_model(**cfg, layers=("x", "base"), kinds={"x": {"memory": "none"}}, num_layers=4)
    memory, tokens, x = model.blocks[3]["memory"], small_tokens(1), torch.randn(1, 13, 24)
    tokens[0, 6] = EOS
    text, sizes = tokens[0].tolist(), primes(20, number=12)[6:]  # those of the second layer that has it
    factors, vectors = hash_multipliers(37, 4, seed=3, index=1), []
    for t in range(13):
        start = max([i + 1 for i in range(t) if text[i] == EOS], default=0)
        gram = [text[t - back] if t - back >= start else EOS for back in range(4)]
        for n in (2, 3, 4):
            mixed = 0
            for token, factor in zip(gram[:n], factors, strict=False):
                mixed ^= token * factor
            for head in (2 * n - 4, 2 * n - 3):
                vectors.append(memory.ngrams.table.weight[sum(sizes[:head]) + mixed % sizes[head]])
    e = torch.cat(vectors).view(13, 30)

    def norm(y, scale):
        return y / (y.square().mean(-1, keepdim=True) + 1e-6).sqrt() * scale[0]

    score = (norm(x[0], memory.q_norm.scale) * norm(memory.k(e), memory.k_norm.scale)).sum(-1) / 24**0.5
    v = (score.sign() * score.abs().sqrt()).sigmoid()[:, None] * memory.out(e)
    normed = F.pad(norm(v, memory.v_norm.scale), (0, 0, 8, 0))
    conv = sum(memory.conv.weight[i] * normed[8 - 4 * i:21 - 4 * i] for i in range(3))
    found = memory(Stream(x), Context(torch.arange(13), tokens=tokens)).x
    assert_close(found[0], x[0] + v + F.silu(conv), "same")


def test_a_new_engram_adds_nothing_and_its_convolution_is_zero():
    model = Model(small_config(**ENGRAM, out_init="zero"))
    x, context = torch.randn(2, 13, 24), Context(torch.arange(13), tokens=small_tokens())
    assert torch.equal(model.blocks[0]["memory"](Stream(x), context).x, x)
    assert all(block["memory"].conv.weight.abs().max() == 0 for block in model.blocks)


def test_the_end_of_a_text_is_the_tokenizers_unless_a_flag_says_it():
    tokenizer = train_tokenizer("char", ["abcd"])
    for flags, expected in (({}, tokenizer.eos_id), ({"model.engram.eos_id": 4}, 4)):
        cfg = fit_vocabulary(override(Config(), {"model.memory": "engram"} | flags), tokenizer)
        assert cfg.model.engram.eos_id == expected
    assert fit_vocabulary(Config(), tokenizer).model.engram.eos_id is None


# ---- value embeddings ----


@pytest.mark.parametrize(("num_kv_heads", "most"), [(1, 2), (2, 3), (4, 2)])
def test_value_embeddings_are_added_by_a_gate_of_each_head(num_kv_heads, most):
    model = small_model(**{"attention.value_embedding": True, "attention.num_kv_heads": num_kv_heads,
                           "attention.value_gate_max": most})
    part, x = model.blocks[1].mixer.branch, torch.randn(2, 13, 24)
    context = Context(torch.arange(13), tokens=small_tokens())
    q, k, v = part.project(x, context.positions)
    gate = most * torch.sigmoid(part.value_embedding.gate(x)).transpose(1, 2)[..., None]
    e = part.value_embedding.table.weight[small_tokens()].unflatten(-1, (num_kv_heads, 6)).transpose(1, 2)
    assert_close(part(x, context), part.join(part.attend_to(q, k, v + gate * e, context, None), x), "same")
    assert part.value_embedding.table.weight is not model.blocks[0].mixer.branch.value_embedding.table.weight


def test_a_gate_reads_the_first_channels():
    part = small_model(**{"attention.value_embedding": True, "attention.value_gate_dim": 9}).blocks[0].mixer.branch
    part, v, x = part.value_embedding, torch.randn(2, 4, 13, 6), torch.randn(2, 13, 24)
    other = torch.cat((x[..., :9], torch.randn(2, 13, 15)), dim=-1)
    assert torch.equal(part(v, x, small_tokens()), part(v, other, small_tokens()))
    assert not torch.equal(part(v, x, small_tokens()), part(v, -x, small_tokens()))


def test_the_values_of_the_first_layer_are_mixed_with_their_embeddings():
    model = small_model(**{"attention.value_embedding": True, "attention.value_residual": "fixed"})
    x, context = torch.randn(2, 2, 13, 24), Context(torch.arange(13), tokens=small_tokens())
    first, second = (block.mixer.branch for block in model.blocks)
    _, stream = first(x[0], context, None, Stream(x[0]))
    (_, _, v_1), (q, k, v) = first.read(x[0], context), second.read(x[1], context)
    y, _ = second(x[1], context, None, stream)
    assert_close(y, second.join(second.attend_to(q, k, (v + v_1) / 2, context, None), x[1]), "same")


# ---- their tables ----


@pytest.mark.parametrize(("flags", "names"), [
    ({"memory": "bigram"}, ("blocks.0.memory.table.weight",)),
    (ENGRAM, ("blocks.0.memory.ngrams.table.weight", "blocks.1.memory.ngrams.table.weight")),
    ({"attention.value_embedding": True}, ("blocks.0.mixer.branch.value_embedding.table.weight",
                                           "blocks.1.mixer.branch.value_embedding.table.weight")),
], ids=str)
def test_tables_are_embeddings_for_the_optimizer_and_belong_to_the_ids_of_a_tokenizer(flags, names):
    model, other = Model(small_config(**flags)), Model(small_config(**flags, vocab_size=41))
    assert {name for name, role in roles(model).items() if role == "embedding"} == {*names, "embed.tokens.weight"}
    plain = Model(small_config()).num_parameters()
    assert model.num_parameters() > plain + sum(model.get_parameter(name).numel() for name in names)
    fits, _, misfits = compare(model.state_dict(), model.state_dict(), False)
    assert not fits.keys() & {*names} and {*names} <= {*misfits.other_ids}
    fits, rows, _ = compare(other.state_dict(), model.state_dict(), True)
    kept = {*names} if "attention.value_embedding" in flags else set()  # other hashes else
    assert not fits.keys() & {*names} and rows.keys() & {*names} == kept


@pytest.mark.parametrize(("flags", "sentence"), [
    ({"engram.rows": 9}, "engram.rows=9 would change nothing: it acts only when memory is engram"),
    ({"memory": "engram", "bigram.factor": 2}, "bigram.factor=2 would change nothing"),
    ({"memory": "engram", "engram.max_n": 1}, "max_n=1"), ({"memory": "engram", "engram.conv_len": 1}, "conv_len=1"),
    ({"memory": "engram", "engram.eos_id": 37}, "engram.eos_id=37 is not an id of a vocabulary of vocab_size=37"),
    ({"layers": ("x",), "kinds": {"x": {"memory": "bigram", "bigram.factor": 2}}}, "it is the same for all layers"),
    ({"mixer": "latent", "attention.value_embedding": True}, "acts only when a mixer is attention"),
    ({"layers": ("base", "x"), "kinds": {"x": {"attention.share_kv": True, "attention.value_embedding": True}}},
     "a layer that has it has values of its own"),
], ids=str)
def test_what_cannot_be_is_refused(flags, sentence):
    with pytest.raises(ValueError, match=sentence):
        small_config(**flags)
