"""Objectives: what each sees, that its loss is its definition, that its bound is one, and that it writes."""

from collections import Counter
from itertools import product

import pytest
import torch
from helpers import assert_close, randomise, small_config, small_model, small_tokens
from small_runs import weights
from torch import nn

import inference
from config import DenoiseConfig, ModelConfig, SampleConfig, TrainConfig, override, to_dict
from data import IGNORED, Batch
from exchange.exporting import export_run
from experiments.comparing.gaps import gaps
from experiments.comparing.lines import lines
from experiments.comparing.run_tables import line_table, run_table
from experiments.comparing.sources import read_run
from model import Hidden, Model
from modules.stream import Context
from objective import MaskedDiffusion, NextToken, as_objective, make_objective
from objectives.noise import keys_of_text, normal, ranks, row_keys, uniform
from run_store.details import describe_run
from training.report import draw_loss

ORDERS = ("confidence", "first_hitting", "ancestral")


def both_ways(**flags) -> Model:
    return randomise(Model(small_config(**flags), causal=False)).eval()


def batch_of(rows: int = 3, t: int = 15, *, keys: bool = True, padding: int = 0) -> Batch:
    """Rows of t tokens and those after them, the last row with padding; no token is the mask of small_config."""
    tokens = small_tokens(rows, t + 1, vocab_size=36)
    y = tokens[:, 1:].clone()
    y[-1, t - padding:] = IGNORED
    return Batch(tokens[:, :-1], y, None, int((y != IGNORED).sum()), row_keys(5, torch.arange(rows)) if keys else None)


# ---- random numbers ----


def test_random_numbers_are_uniform_and_normal_and_follow_from_the_key_alone():
    keys = row_keys(3, torch.arange(4000))
    u, z = uniform(keys, (8,)), normal(keys, (8,))
    assert u.min() >= 0 and u.max() < 1
    assert abs(u.mean() - 0.5) < 0.01 and abs(u.var() - 1 / 12) < 0.003
    assert abs(z.mean()) < 0.03 and abs(z.std() - 1) < 0.02 and abs((z**4).mean() - 3) < 0.25
    columns = torch.cat([u, uniform(keys, (8,), draw=1), u.roll(1, 0)], dim=1)
    assert torch.corrcoef(columns.T).fill_diagonal_(0).abs().max() < 0.08
    assert torch.equal(uniform(keys[7:9], (8,)), u[7:9])


def test_ranks_are_an_order_of_the_places_that_take_part():
    among = torch.rand(50, 9, generator=torch.Generator().manual_seed(0)) < 0.6
    found = ranks(row_keys(0, torch.arange(50)), among)
    for row, there in zip(found, among, strict=True):
        assert row[there].sort().values.tolist() == list(range(int(there.sum())))
    first = Counter(ranks(row_keys(1, torch.arange(3000)), torch.ones(3000, 3, dtype=torch.bool)).argmin(-1).tolist())
    assert all(abs(count / 3000 - 1 / 3) < 0.04 for count in first.values())


def test_keys_of_a_text_tell_its_tokens_and_their_order():
    a, b = keys_of_text(torch.tensor([[1, 2, 3], [2, 1, 3]])), keys_of_text(torch.tensor([[1, 2, 3]]))
    assert a[0] == b[0] and a[0] != a[1]


# ---- what may be seen ----

SIGHTED = {"attention": {}, "latent": {"mixer": "latent"}, "window": {"attention.window": 5},
           "window and dilation": {"attention.window": 3, "attention.dilation": 2},
           "learned distances": {"position": "t5"}, "alibi": {"position": "alibi"}, "pointer": {"pointer": True},
           "indexer": {"indexer.top_k": 4}}


@pytest.mark.parametrize("flags", SIGHTED.values(), ids=SIGHTED)
def test_a_sight_of_the_past_is_causality(flags):
    model, tokens = small_model(**flags), small_tokens()
    past = torch.ones(13, 13, dtype=torch.bool).tril()
    assert_close(model(tokens, sight=past), model(tokens), "rounding")
    documents = torch.tensor([[0] * 6 + [1] * 7] * 2)
    assert_close(model(tokens, documents=documents, sight=past), model(tokens, documents=documents), "rounding")
    positions = torch.arange(13) - torch.tensor([[0], [4]])
    ours, plain = (model(tokens, positions=positions, sight=sight) for sight in (past, None))
    assert_close(ours[1, 4:], plain[1, 4:], "rounding")


def test_what_a_sight_shows_changes_the_output_and_what_it_hides_does_not():
    model = small_model(num_layers=1).double()
    sight = torch.rand(13, 13, generator=torch.Generator().manual_seed(0)) < 0.4
    sight |= torch.eye(13, dtype=torch.bool)
    tokens = small_tokens(1)
    plain = model(tokens, sight=sight)
    for place in range(13):
        other = tokens.clone()
        other[0, place] = (other[0, place] + 1) % 37
        moved = (model(other, sight=sight) - plain).abs().amax(-1)[0] > 1e-12
        assert moved.tolist() == sight[:, place].tolist()


# ---- masked diffusion: the loss ----


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("shift", [False, True])
def test_the_loss_is_that_of_the_papers(weighted, shift):
    """MDLM and LLaDA, a row at a time: masked tokens, divided by all tokens; visible ones are carried over."""
    model, batch = both_ways(), batch_of(padding=4)
    objective = MaskedDiffusion(model, weighted=weighted, shift=shift)
    start, total = uniform(batch.keys[:1], draw=1).item(), 0.0
    for number, (x, y, key) in enumerate(zip(batch.x, batch.y, batch.keys, strict=True)):
        row = torch.cat([x[:1], y[y != IGNORED]])
        t = 1e-3 + (1 - 1e-3) * ((start + number / 3) % 1)
        masked = uniform(key[None], (16,))[0, : len(row)] < t
        masked[0] = False
        logits = model(torch.where(masked, 36, row)[None])[0, :, :36]
        for place in masked.nonzero().flatten().tolist():
            nats = -logits[place - shift].log_softmax(-1)[row[place]]
            total += nats * (1 / t if weighted else 2)
    losses = objective(batch)
    assert_close(losses.total, total / batch.num_targets, "rounding")
    losses.total.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_chunks_change_neither_loss_nor_scores():
    model, batch = both_ways(z_loss=1e-3), batch_of(padding=4)
    whole, cut = (MaskedDiffusion(model, loss_chunk=chunk, log_accuracy=True) for chunk in (None, 4))
    for name, part in whole(batch).parts.items():
        assert_close(cut(batch).parts[name], part, "rounding")
    for ours, theirs in zip(cut.score(batch, top_k=3), whole.score(batch, top_k=3), strict=True):
        assert_close(ours, theirs, "rounding")


def test_shares_are_spread_evenly_and_padding_is_never_masked():
    objective, seen = MaskedDiffusion(both_ways()), []
    objective.model.read = lambda tokens, positions: seen.append((tokens, positions)) or Model.read(
        objective.model, tokens, positions=positions)
    batch = batch_of(rows=32, padding=9)
    objective(batch)
    (tokens, positions), = seen
    share = (tokens[:-1] == 36).float().mean(-1).sort().values
    assert_close(share, torch.linspace(0, 1, 31) * 15 / 16, "rounded weights")
    assert (tokens[-1, 7:] != 36).all() and (positions[-1, 7:] == -1).all() and tokens[-1, 0] == batch.x[-1, 0]
    assert (tokens[:, 0] == batch.x[:, 0]).all()


# ---- masked diffusion: the bound ----

SYMBOLS, LENGTH = 3, 8
CHAIN = torch.tensor([[0.9, 0.07, 0.03], [0.03, 0.07, 0.9], [0.5, 0.47, 0.03]], dtype=torch.float64)


class Exact(nn.Module):
    """A model that knows the probability of each masked symbol of a Markov chain, by messages from both sides."""

    causal = False

    def __init__(self, length: int = LENGTH):
        super().__init__()
        self.head = nn.Identity()
        self.cfg = override(ModelConfig(), {"vocab_size": SYMBOLS + 1, "max_seq_len": length + 1})
        self.register_parameter("weight", nn.Parameter(torch.zeros(())))

    def read(self, tokens, *, positions):
        seen = nn.functional.one_hot(tokens, SYMBOLS + 1)[..., :SYMBOLS].double()
        seen = seen + (tokens == SYMBOLS).unsqueeze(-1)  # (b, t, symbols)
        left, right = [seen[:, 0]], [torch.ones_like(seen[:, 0])]
        for i in range(1, tokens.shape[1]):
            left.append(left[-1] @ CHAIN * seen[:, i])
            right.append((right[-1] * seen[:, -i]) @ CHAIN.T)
        p = torch.stack(left, dim=1) * torch.stack(right[::-1], dim=1)
        logits = nn.functional.pad(p, (0, 1)).log().clamp(min=-700)
        return Hidden(logits, logits, tokens, Context(positions), {})

    def predict(self, hidden):
        return hidden.last

    def copied(self, hidden, targets):
        return ()

    def forward(self, tokens, *, positions):
        return self.read(tokens, positions=positions).last


def chain_rows(rows: int, *, seed: int = 0) -> Batch:
    generator, texts = torch.Generator().manual_seed(seed), [torch.zeros(rows, dtype=torch.int64)]
    for _ in range(LENGTH):
        texts.append(torch.multinomial(CHAIN[texts[-1]], 1, generator=generator).squeeze(-1))
    text = torch.stack(texts, dim=1)
    return Batch(text[:, :-1], text[:, 1:], None, rows * LENGTH, row_keys(seed, torch.arange(rows)))


def nats_of(batch: Batch) -> torch.Tensor:
    return -CHAIN[batch.x, batch.y].log().sum(-1)


@pytest.fixture(scope="module")
def exact():
    return Exact()


def test_whole_orders_of_an_exact_model_give_the_probability_of_each_text(exact):
    batch = chain_rows(24)
    scores = MaskedDiffusion(exact, by_orders=True, num_draws=2).score(batch)
    assert_close(scores.nats.sum(-1), nats_of(batch), "rounding")


def test_masks_of_every_size_give_it_within_their_error(exact):
    batch = chain_rows(3000)
    for draws, largest in ((1, 4.0), (8, 1.4)):
        off = MaskedDiffusion(exact, num_draws=draws).score(batch).nats.sum(-1) - nats_of(batch)
        assert abs(off.mean()) < 3.5 * off.std() / len(off) ** 0.5
        assert off.std() < largest  # nats of a row of 8 tokens


@pytest.mark.parametrize(("min_share", "is_right"), [(1e-4, True), (0.1, False)])
def test_shares_that_begin_at_a_tenth_bias_the_bound(exact, min_share, is_right):
    batch, off = chain_rows(60_000, seed=1), []
    objective = MaskedDiffusion(exact, weighted=True, min_share=min_share)
    for first in range(0, 60_000, 2000):
        part = batch.map(lambda x, first=first: x[first : first + 2000])
        off.append(objective(part).total - nats_of(part).mean() / LENGTH)
    off = torch.stack(off)
    distance = off.mean().abs() / (off.std() / len(off) ** 0.5)
    assert (distance < 3.5) if is_right else (distance > 6), distance


def test_the_right_answers_are_counted_as_the_nats_are(exact):
    batch = chain_rows(40)
    right = MaskedDiffusion(exact, by_orders=True, num_draws=1).score(batch, top_k=3).right
    assert (right[..., 2] == 1).all() and ((right[..., 0] == 0) | (right[..., 0] == 1)).all()
    sizes = MaskedDiffusion(exact, num_draws=LENGTH).score(batch, top_k=1).right.mean()
    assert abs(sizes - right[..., 0].mean()) < 0.06


def test_a_score_depends_on_the_row_alone():
    objective, batch = MaskedDiffusion(both_ways()), batch_of(4)
    together = objective.score(batch).nats
    alone = torch.cat([objective.score(batch.map(lambda x, i=i: x[i : i + 1])).nats for i in range(4)])
    assert_close(alone, together, "rounding")


# ---- masked diffusion: texts ----


def sample_config(order: str, **flags) -> SampleConfig:
    own = {"order": order, "tokens_per_step": 1.0, "block_len": None} | flags
    return SampleConfig(temperature=1.0, stop_at_eos=False, max_new_tokens=LENGTH, denoise=DenoiseConfig(**own))


def test_texts_of_an_exact_model_have_its_probabilities():
    """Token after token in random places, which is exact: Zheng et al. 2024, arXiv:2409.02908."""
    number = 1200
    objective = MaskedDiffusion(Exact(3))
    cfg = SampleConfig(temperature=1.0, stop_at_eos=False, max_new_tokens=3,
                       denoise=DenoiseConfig(order="first_hitting", block_len=None))
    found = Counter(map(tuple, objective.generate([[0]] * number, cfg, eos_id=-1)))
    distance = 0.0
    for text in product(range(SYMBOLS), repeat=3):
        p = CHAIN[torch.tensor([0, *text[:-1]]), torch.tensor(text)].prod().item()
        distance += abs(found[text] / number - p)
    assert distance < 0.15


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("flags", [{}, {"tokens_per_step": 3.0}, {"block_len": 3}], ids=["one", "three", "blocks"])
def test_a_canvas_is_filled_and_the_mask_is_never_a_token(order, flags):
    objective = MaskedDiffusion(both_ways())
    prompts = [[1], [4, 5, 6], [1]]
    texts = objective.generate(prompts, sample_config(order, **flags), eos_id=2, num_ids=30)
    assert [len(text) for text in texts] == [LENGTH] * 3 and max(map(max, texts)) < 30
    assert texts[0] != texts[2]  # the same prompt, drawn anew
    assert objective.generate(prompts[:1], sample_config(order, **flags), eos_id=2, num_ids=30) == texts[:1]


@pytest.mark.parametrize("make", [lambda: NextToken(small_model()), lambda: MaskedDiffusion(both_ways())],
                         ids=["next token", "masked diffusion"])
def test_batches_change_no_text_and_repeat_none(make, monkeypatch):
    objective, cfg = make(), sample_config("confidence")
    together = objective.generate([[1]] * 5, cfg, eos_id=-1)
    monkeypatch.setattr("generation.sampling.rows_at_a_time", lambda cfg: 2)
    assert objective.generate([[1]] * 5, cfg, eos_id=-1) == together
    assert len(set(map(tuple, together))) == 5


def test_texts_outgrow_the_context_and_end_at_the_end():
    objective = MaskedDiffusion(both_ways())
    cfg = override(sample_config("confidence", block_len=4), {"max_new_tokens": 40, "stop_at_eos": True})
    texts = objective.generate([[1]] * 20, cfg, eos_id=2)
    assert all((2 in text[-1:] or len(text) == 40) and 2 not in text[:-1] for text in texts)
    assert len({len(text) for text in texts}) > 2


@pytest.mark.parametrize("shift", [False, True])
def test_what_is_learned_by_heart_is_written(shift):
    """Three texts, one of which each prompt begins; in every order of filling in."""
    model = Model(small_config(dim=32, num_layers=2), causal=False)
    objective = MaskedDiffusion(model, shift=shift)
    texts = torch.tensor([[1, 5, 6, 7, 8, 9, 10, 11, 12], [2, 9, 9, 5, 5, 6, 6, 12, 8], [3, 7, 5, 9, 11, 12, 5, 5, 7]])
    rows = texts.repeat(4, 1)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for step in range(250):
        batch = Batch(rows[:, :-1], rows[:, 1:], None, 96, row_keys(step, torch.arange(12)))
        objective(batch).total.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert objective.score(Batch(texts[:, :-1], texts[:, 1:], None, 24)).nats.mean() < 0.3
    for order in ORDERS:
        written = objective.generate([[1], [2], [3]], override(sample_config(order), {"temperature": 0.0}), eos_id=-1)
        assert written == texts[:, 1:].tolist()


# ---- runs ----

DIFFUSION = {"train.objective": "masked_diffusion", "train.log_accuracy": True}


@pytest.mark.usefixtures("models")
def test_a_run_of_masked_diffusion_learns_and_its_model_predicts_no_next_token(go):
    run = go(DIFFUSION)
    log = run.log()
    assert log.bits_per_byte.iloc[-1] < log.bits_per_byte.dropna().iloc[0]
    assert run.config.model.vocab_size == run.tokenizer().vocab_size + 1
    assert not run.load_model().causal
    with pytest.raises(ValueError, match="sees later tokens"):
        as_objective(run.load_model())


REFUSED = {
    "a recurrence": ({"model.mixer": "min_gru", "model.attention.num_heads": 4, "model.attention.dropout": 0.0},
                     "mixer=min_gru reads a text from left to right"),
    "documents": ({"data.packing": "documents"}, "use data.packing=stream or pad"),
    "a task": ({"data.name": "mqar", "data.packing": "pad"}, "asks for answers"),
    "a small vocabulary": ({"model.vocab_size": 17}, "needs beside them"),
}


@pytest.mark.usefixtures("models")
@pytest.mark.parametrize(("flags", "sentence"), REFUSED.values(), ids=REFUSED)
def test_what_masked_diffusion_cannot_do_is_said(go, flags, sentence):
    if "data.name" in flags:
        flags = {**flags, "tokenizer.kind": "bpe"}
    with pytest.raises(ValueError, match=sentence):
        go(DIFFUSION | flags)


def test_flags_of_another_objective_are_refused():
    with pytest.raises(ValueError, match="objective is masked_diffusion"):
        TrainConfig(diffusion={"weight": "bound"})
    assert isinstance(make_objective(small_model(), TrainConfig()), NextToken)
    assert set(to_dict(TrainConfig())["diffusion"]) == {
        "weight", "shift", "min_share", "max_share", "block_len", "estimate", "draws"}


@pytest.mark.usefixtures("models")
def test_a_bound_is_called_one_wherever_bits_per_byte_stand(folder, go, capsys):
    """In what training prints, in the list of runs, in a comparison with an exact loss, and in a score."""
    bound = go(DIFFUSION | {"train.name": "bound"})
    exact = go({"train.name": "exact"})
    sources = [read_run(run.path) for run in (bound, exact)]
    compared = lines(sources)  # lines of one run each
    table = line_table(run_table(compared, {}, None), compared)
    assert table.loc["bound", "final bits/byte"].startswith("≤ ") and table.loc["exact", "final bits/byte"][0].isdigit()
    assert "The loss of bound is an upper bound" in str(gaps(compared, {}, None)[0])
    assert "≤ " in describe_run(bound.path) and "≤ " not in describe_run(exact.path)
    labels = [line.get_label() for line in draw_loss([bound]).axes[0].get_lines()]
    assert labels == ["bound, validation, an upper bound"]
    text = folder / "text.txt"
    inference.main(["bound", "--score", str(text)])
    assert "≤" in capsys.readouterr().out


@pytest.mark.usefixtures("models")
def test_masked_diffusion_begins_with_the_weights_of_next_token_training_and_is_not_exported(go, tmp_path):
    first = go({"train.name": "first", "train.steps": 6})
    again = go(DIFFUSION | {"train.init_from": "first", "train.steps": 1, "train.lr": 1e-12,
                            "train.diffusion.shift": True})
    before, after = weights(first), weights(again)
    for name, tensor in before.items():
        assert_close(after[name][: len(tensor)], tensor, "rounding")
    assert len(after["embed.tokens.weight"]) == len(before["embed.tokens.weight"]) + 1
    with pytest.raises(ValueError, match="sees later tokens"):
        export_run(again, tmp_path / "exported")
