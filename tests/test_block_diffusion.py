"""Block diffusion: who sees whom, its loss by plain passes, its bound, its two ends, and texts with a cache."""

import math
from collections import Counter

import pytest
import torch
from helpers import assert_close, small_config
from test_objectives import LENGTH, ORDERS, SYMBOLS, Exact, batch_of, both_ways, chain_rows, nats_of
from thorough import some

from config import Config, DenoiseConfig, SampleConfig, TrainConfig, override
from data import IGNORED, Batch
from generation.sampling import begin_texts
from memory_prediction.dry_run import dry_run
from model import Hidden, Model
from modules.stream import Context
from objective import BlockDiffusion, MaskedDiffusion, make_objective
from objectives.block_diffusion import two_halves
from objectives.noise import uniform
from objectives.rows import Row
from tools import trace

MASK = 36
PARTS = {"attention": {}, "window": {"attention.window": 5}, "chunks": {"attention.chunk": 6},
         "window and dilation": {"attention.window": 3, "attention.dilation": 2},
         "window and global tokens": {"attention.window": 3, "attention.global_tokens": 2},
         "strides": {"attention.window": 2, "attention.stride": 3}, "latent": {"mixer": "latent"},
         "learned distances": {"position": "t5"}, "alibi": {"position": "alibi"}, "sinks": {"attention.sinks": True},
         "experts": {"mlp": "moe"}, "indexer": {"indexer.top_k": 4},
         "shared keys": {"num_layers": 4, "layers": ("base", "borrow"), "kinds": {
             "borrow": {"attention.share_kv": True}}}}


def pair_batch() -> Batch:
    """A whole row, a pair with a source of 6 tokens, and a row with padding."""
    batch = batch_of(padding=4)
    batch.y[1, :5] = IGNORED
    return batch._replace(num_targets=int((batch.y != IGNORED).sum()))


# ---- who sees whom ----

BLOCKS_OF_4 = """
XXXX............
XXXX............
XXXX............
XXXX............
....XXXXXXXX....
....XXXXXXXX....
....XXXXXXXX....
....XXXXXXXX....
........XXXX....
........XXXX....
........XXXX....
........XXXX....
........XXXXXXXX
........XXXXXXXX
........XXXXXXXX
........XXXXXXXX
"""
BLOCKS_OF_2 = """
XX..............
XX..............
..XX....XX......
..XX....XX......
....XX..XXXX....
....XX..XXXX....
......XXXXXXXX..
......XXXXXXXX..
........XX......
........XX......
........XXXX....
........XXXX....
........XXXXXX..
........XXXXXX..
........XXXXXXXX
........XXXXXXXX
"""


@pytest.mark.parametrize(("block_len", "picture"), [(2, BLOCKS_OF_2), (4, BLOCKS_OF_4)])
def test_a_masked_block_sees_itself_and_the_clean_text_before_it(block_len, picture):
    """Figure 3 of arXiv:2503.09573: the masked row first, then the clean one."""
    expected = [[seen == "X" for seen in line] for line in picture.split()]
    assert two_halves(8, block_len).tolist() == expected


@pytest.mark.parametrize("block_len", [1, 3, 4])
def test_what_is_invisible_moves_no_prediction_and_what_is_visible_does(block_len):
    """In float64: each masked token of each row, by each token of each half."""
    objective = BlockDiffusion(both_ways(num_layers=1).double(), block_len=block_len)
    row = Row.of(batch_of())
    shown = row.tokens.where(torch.arange(16) % 2 == 0, MASK)
    wanted = torch.ones_like(shown, dtype=torch.bool)

    def predicted(shown, tokens):
        return objective.read(row._replace(tokens=tokens), shown, wanted)[0].last

    plain, block = predicted(shown, row.tokens), torch.arange(16) // block_len
    for place in range(16):
        noisy, clean = shown.clone(), row.tokens.clone()
        noisy[:, place], clean[:, place] = (noisy[:, place] + 1) % 37, (clean[:, place] + 1) % 36
        of_noisy, of_clean = (noisy, row.tokens), (shown, clean)
        for halves, seen in ((of_noisy, block == block[place]), (of_clean, block > block[place])):
            moved = (predicted(*halves) - plain).abs().amax(-1) > 1e-12
            assert (moved == seen[1:]).all()


# ---- the loss ----


def alone(model: Model, tokens: torch.Tensor, shown: torch.Tensor, first: int, block_len: int) -> torch.Tensor:
    """The log-probabilities of a block in a plain pass: the clean blocks before it, then the block as it is shown."""
    read = torch.cat([tokens[:first], shown[first : first + block_len]])
    block = torch.arange(len(read)) // block_len
    logits = model(read[None], sight=block[:, None] >= block)[0, first:, :MASK]
    return logits.log_softmax(-1)


@pytest.mark.parametrize("flags", PARTS.values(), ids=PARTS)
@pytest.mark.parametrize(("block_len", "options"), [(3, {"weighted": True}), (4, {"min_share": 0.3, "max_share": 0.8})])
def test_the_loss_is_that_of_a_pass_for_each_block(flags, block_len, options):
    model, batch = both_ways(**flags).double(), pair_batch()
    share_of = {"min_share": 1e-3, "max_share": 1.0} | options
    start, total, number = uniform(batch.keys[:1], draw=1).item(), 0.0, math.ceil(16 / block_len)
    for index, (x, y, key) in enumerate(zip(batch.x, batch.y, batch.keys, strict=True)):
        row = torch.cat([x, y[-1:]])[: 1 + int((y != IGNORED).nonzero().max()) + 1]
        row = torch.where(row == IGNORED, 0, row)
        noise = uniform(key[None], (16,))[0]
        is_target = torch.cat([torch.tensor([False]), y != IGNORED])
        for block in range(math.ceil(len(row) / block_len)):
            part = (start + (block * 3 + index) / (3 * number)) % 1
            t = share_of["min_share"] + (share_of["max_share"] - share_of["min_share"]) * part
            first = block * block_len
            places = [i for i in range(first, min(first + block_len, len(row))) if is_target[i] and noise[i] < t]
            shown = row.clone()
            shown[places] = MASK
            log_p = alone(model, row, shown, first, block_len)
            for place in places:
                total -= log_p[place - first, row[place]] * (1 / t if "weighted" in options else 2)
    losses = BlockDiffusion(model, block_len=block_len, **options)(batch)
    assert_close(losses.parts["block_diffusion"], (total / batch.num_targets).detach(), "rounding")
    losses.total.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize("flags", [{}, {"weighted": True}, {"by_orders": True, "num_draws": 1}])
@pytest.mark.parametrize("block_len", [16, 50])
def test_one_block_is_masked_diffusion(flags, block_len):
    model, batch = both_ways(), pair_batch()
    ours, theirs = BlockDiffusion(model, block_len=block_len, **flags), MaskedDiffusion(model, **flags)
    assert_close(ours(batch).total, theirs(batch).total, "rounding")
    for mine, other in zip(ours.score(batch, top_k=2), theirs.score(batch, top_k=2), strict=True):
        assert_close(mine, other, "rounding")


@pytest.mark.parametrize("by_orders", [False, True])
def test_blocks_of_one_token_predict_the_next_token(by_orders):
    """A mask after the clean tokens before it, each place in a pass of its own; the same whatever is drawn."""
    model, batch = both_ways(), pair_batch()
    past = torch.ones(16, 16, dtype=torch.bool).tril()
    nats = torch.zeros(3, 15)
    for i in range(15):
        read = torch.cat([batch.x[:, : i + 1], torch.full((3, 1), MASK)], dim=1)
        log_p = model(read, sight=past[: i + 2, : i + 2])[:, -1, :MASK].log_softmax(-1)
        nats[:, i] = -log_p.gather(-1, batch.y[:, i : i + 1].clamp(min=0)).squeeze(-1)
    expected = nats.where(batch.y != IGNORED, 0.0)
    for draws in (1, 3):
        scores = BlockDiffusion(model, block_len=1, by_orders=by_orders, num_draws=draws).score(batch)
        assert_close(scores.nats, expected, "rounding")
        assert torch.equal(scores.counted, batch.y != IGNORED)


def test_chunks_change_neither_loss_nor_scores():
    model, batch = both_ways(z_loss=1e-3), pair_batch()
    whole, cut = (BlockDiffusion(model, block_len=3, loss_chunk=chunk, log_accuracy=True) for chunk in (None, 4))
    for name, part in whole(batch).parts.items():
        assert_close(cut(batch).parts[name], part, "rounding")
    for ours, theirs in zip(cut.score(batch, top_k=3), whole.score(batch, top_k=3), strict=True):
        assert_close(ours, theirs, "rounding")


def test_shares_are_spread_over_rows_and_blocks_between_their_limits():
    objective = BlockDiffusion(both_ways(), block_len=4, min_share=0.2, max_share=0.7)
    share = objective.shares(Row.of(batch_of(rows=8)))
    assert all((block == block[:, :1]).all() for block in share.split(4, dim=1))
    parts = ((share[:, ::4].flatten() - 0.2) / 0.5).sort().values
    assert ((parts * 32).long() == torch.arange(32)).all()


# ---- the bound ----


class ExactBlocks(Exact):
    """`Exact`, of the two halves: each masked block after the clean text before it."""

    def __init__(self, block_len: int):
        super().__init__()
        self.block_len = block_len

    def read(self, tokens, *, positions, sight):
        t = tokens.shape[1] // 2
        shown, clean = tokens.split(t, dim=1)
        found = []
        for first in range(0, t, self.block_len):
            text = torch.cat([clean[:, :first], shown[:, first : first + self.block_len]], dim=1)
            found.append(super().read(text, positions=None).last[:, first:])
        last = torch.cat([*found, torch.zeros(len(tokens), t, SYMBOLS + 1)], dim=1)
        return Hidden(last, last, tokens, Context(positions), {})


def test_with_blocks_of_one_token_the_loss_is_exact_and_is_called_so():
    for block_len, sign in ((1, ""), (2, "≤ ")):
        cfg = override(Config(), {"model.pointer": False, "train.objective": "block_diffusion",
                                  "train.diffusion.block_len": block_len})
        assert cfg.facts.sign == sign


@pytest.mark.parametrize("block_len", [1, 2, 4])
def test_whole_orders_of_an_exact_model_give_the_probability_of_each_text(block_len):
    batch = chain_rows(24)
    objective = BlockDiffusion(ExactBlocks(block_len), block_len=block_len, by_orders=True, num_draws=2)
    assert_close(objective.score(batch).nats.sum(-1), nats_of(batch), "rounding")


def test_masks_give_it_within_their_error_which_is_smaller_in_smaller_blocks():
    batch, spreads = chain_rows(2000), []
    for block_len in (1, 2, 4, 9):
        found = BlockDiffusion(ExactBlocks(block_len), block_len=block_len, num_draws=2).score(batch).nats.sum(-1)
        off = found - nats_of(batch)
        assert abs(off.mean()) < 3.5 * off.std() / len(off) ** 0.5 + 1e-6
        spreads.append(off.std().item())
    assert spreads == sorted(spreads) and spreads[0] < 1e-5 and spreads[-1] > 0.3


def test_the_loss_of_an_exact_model_is_the_bound_too_unless_shares_are_clipped():
    off = {False: [], True: []}
    for first in range(20):
        part = chain_rows(2000, seed=first)
        for clipped, values in off.items():
            objective = BlockDiffusion(ExactBlocks(3), block_len=3, weighted=True, min_share=0.4 if clipped else 1e-4)
            values.append(objective(part).total - nats_of(part).mean() / LENGTH)
    distance = {clipped: (torch.stack(values).mean() / torch.stack(values).std() * 20**0.5).abs()
                for clipped, values in off.items()}
    assert distance[False] < 3.5 and distance[True] > 6


# ---- texts ----


def sample_config(order: str = "confidence", *, tokens_per_step: float = 1.0, **flags) -> SampleConfig:
    options = {"temperature": 1.0, "stop_at_eos": False, "max_new_tokens": 11} | flags
    return SampleConfig(denoise=DenoiseConfig(order=order, tokens_per_step=tokens_per_step), **options)


def written(objective, prompts, cfg, **options) -> list[list[int]]:
    new = [[] for _ in prompts]
    for row, token in objective.continue_texts(begin_texts(objective.model.cfg, prompts, cfg.seed), cfg, **options):
        new[row].append(token)
    return new


PROMPTS = [[1], [4, 5, 6, 7, 8, 9], [1], [3, 3, 3], [9, 8, 7, 6]]


@pytest.mark.parametrize("flags", PARTS.values(), ids=PARTS)
@pytest.mark.parametrize("block_len", some([3, 1], 2))
def test_a_cache_changes_no_text(flags, block_len):
    """Texts of different lengths that end at different times, and outgrow the context of 16 tokens."""
    objective = BlockDiffusion(both_ways(**flags).double(), block_len=block_len)
    cfg = sample_config("ancestral", tokens_per_step=2.0, max_new_tokens=30, stop_at_eos=True)
    cached, plain = (written(objective, PROMPTS, cfg, eos_id=2, use_cache=on) for on in (True, False))
    assert cached == plain and len({len(text) for text in cached}) > 1


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("block_len", [1, 3, 40])
def test_the_mask_is_never_a_token_and_batches_change_nothing(order, block_len):
    objective = BlockDiffusion(both_ways(), block_len=block_len)
    cfg = sample_config(order, tokens_per_step=1.5)
    texts = objective.generate(PROMPTS, cfg, eos_id=2, num_ids=30)
    assert [len(text) for text in texts] == [11] * 5 and max(map(max, texts)) < 30 and texts[0] != texts[2]
    assert [objective.generate([prompt], cfg, eos_id=2, num_ids=30)[0] for prompt in PROMPTS[:2]] == texts[:2]
    longer = objective.generate(PROMPTS, override(cfg, {"max_new_tokens": 14}), eos_id=2, num_ids=30)
    assert [text[:11] for text in longer] == texts


def test_texts_outgrow_the_context_and_end_within_a_block():
    objective = BlockDiffusion(both_ways(), block_len=4)
    texts = objective.generate([[1]] * 20, sample_config(max_new_tokens=40, stop_at_eos=True), eos_id=2)
    assert all((2 in text[-1:] or len(text) == 40) and 2 not in text[:-1] for text in texts)
    assert {len(text) % 4 for text in texts if len(text) < 40} == {0, 1, 2, 3}


def test_texts_of_blocks_of_one_token_have_the_probabilities_of_the_model():
    objective = BlockDiffusion(both_ways(vocab_size=6, num_layers=1), block_len=1)
    cfg = sample_config(max_new_tokens=1)
    found = Counter(text[0] for text in objective.generate([[1, 2]] * 3000, cfg, eos_id=-1))
    past = torch.ones(3, 3, dtype=torch.bool).tril()
    p = objective.model(torch.tensor([[1, 2, 5]]), sight=past)[0, -1, :5].softmax(-1)
    assert sum(abs(found[token] / 3000 - p[token].item()) for token in range(5)) < 0.08


def test_what_is_learned_by_heart_is_written():
    """Three texts, one of which each prompt begins; blocks of which the prompt is a part."""
    torch.manual_seed(0)
    model = Model(small_config(dim=32), causal=False)
    objective = BlockDiffusion(model, block_len=3)
    texts = torch.tensor([[1, 5, 6, 7, 8, 9, 10, 11, 12], [2, 9, 9, 5, 5, 6, 6, 12, 8], [3, 7, 5, 9, 11, 12, 5, 5, 7]])
    rows = texts.repeat(4, 1)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for step in range(200):
        batch = Batch(rows[:, :-1], rows[:, 1:], None, 96, torch.arange(12) + 12 * step)
        objective(batch).total.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert objective.score(Batch(texts[:, :-1], texts[:, 1:], None, 24)).nats.mean() < 0.3
    for order in ORDERS:
        cfg = sample_config(order, temperature=0.0, max_new_tokens=8)
        assert objective.generate([[1], [2], [3]], cfg, eos_id=-1) == texts[:, 1:].tolist()


# ---- runs ----

RUN = {"train.objective": "block_diffusion", "train.diffusion.block_len": 3, "train.log_accuracy": True}


@pytest.mark.usefixtures("models")
def test_a_run_learns_and_its_loss_is_a_bound(go):
    run = go(RUN)
    log = run.log().bits_per_byte.dropna()
    assert log.iloc[-1] < log.iloc[0]
    assert run.config.model.vocab_size == run.tokenizer().vocab_size + 1
    assert run.config.train.facts.sign == "≤ " and run.samples()


REFUSED = {
    "a pointer": ({"model.pointer": True}, "hides tokens, and model.pointer=True would copy"),
    "smear": ({"model.smear": True}, "model.smear=True goes by the places"),
    "canon layers": ({"model.canon": ("mixer",)}, "model.canon=mixer goes by the places"),
    "bigrams": ({"model.memory": "bigram"}, "model.memory=bigram goes by the places"),
    "shifted keys": ({"model.attention.key_offset": True}, "model.attention.key_offset=True goes by the places"),
    "learned positions": ({"model.position": "learned"}, "use another position"),
    "shift": ({"train.diffusion.shift": True}, "it acts only when objective is masked_diffusion"),
    "a recurrence": ({"model.mixer": "min_gru", "model.attention.num_heads": 4, "model.attention.dropout": 0.0},
                     "mixer=min_gru reads a text from left to right"),
    "documents": ({"data.packing": "documents"}, "use data.packing=stream or pad"),
    "another block": ({"sample.denoise.block_len": 8}, "only when train.objective is masked_diffusion or masked"),
    "no block": ({"train.diffusion.block_len": 0}, "block_len=0"),
    "limits that cross": ({"train.diffusion.min_share": 0.8, "train.diffusion.max_share": 0.3}, "not below min_share"),
}


@pytest.mark.usefixtures("models")
@pytest.mark.parametrize(("flags", "sentence"), REFUSED.values(), ids=REFUSED)
def test_what_it_cannot_do_is_said(go, flags, sentence):
    with pytest.raises(ValueError, match=sentence):
        go(RUN | flags)


def test_its_flags_are_refused_elsewhere():
    for objective in ("next_token", "masked_diffusion"):
        with pytest.raises(ValueError, match="objective is block_diffusion"):
            TrainConfig(objective=objective, diffusion={"block_len": 8})
    own = TrainConfig(objective="block_diffusion", diffusion={"block_len": 8, "max_share": 0.9, "weight": "bound"})
    made = make_objective(both_ways(), own)
    assert (made.block_len, made.max_share, made.weighted, made.shift) == (8, 0.9, True, False)


def small_run() -> Config:
    return override(Config(model=small_config(num_layers=1)), {
        "train.objective": "block_diffusion", "train.precision": "float32", "sample.max_new_tokens": 8})


def test_its_memory_is_that_of_real_tensors():
    fake, real = (dry_run(small_run(), rows=3, num_texts=2, fake=fake) for fake in (True, False))
    assert {where: part.num_bytes for where, part in fake.items()} == {
        where: part.num_bytes for where, part in real.items()}


@pytest.mark.parametrize("backend", some(["eager", "aot_eager"], 2))  # the second also traces the gradient
def test_it_is_traced_and_compiles_in_one_piece(backend):
    objective, batch = make_objective(both_ways(num_layers=1), small_run().train), pair_batch()
    with torch.no_grad(), trace(objective) as t:
        plain = objective(batch).total
    assert "BlockDiffusion" in str(t) and not [call.problem for call in t.walk() if call.problem]
    torch._dynamo.reset()
    compiled = torch.compile(objective, backend=backend, fullgraph=True)
    assert_close(compiled(batch).total, plain, "same")
