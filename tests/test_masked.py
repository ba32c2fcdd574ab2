"""The masked language model: its loss is its formula, and one slice of masked diffusion."""

import pytest
import torch
from helpers import assert_close, small_config
from test_objectives import batch_of, both_ways
from thorough import some

from config import Config, TrainConfig, override
from configuration.objectives import MaskedConfig
from data import IGNORED
from memory_prediction.dry_run import dry_run
from objective import MaskedDiffusion, MaskedTokens, make_objective
from objectives.noise import uniform
from objectives.rows import Row
from tools import trace

MASK = 36


@pytest.mark.parametrize("shares", [{}, {"random": 0.5, "keep": 0.25}, {"random": 0.0, "keep": 1.0}])
def test_the_loss_is_that_of_bert(shares):
    """A row at a time: of the chosen tokens some are shown as others, some as they are, the rest as the mask."""
    model, batch = both_ways(), batch_of(rows=6, padding=4)
    random, keep = shares.get("random", 0.1), shares.get("keep", 0.1)
    nats, fates = [], {"random": 0, "keep": 0, "mask": 0}
    for x, y, key in zip(batch.x, batch.y, batch.keys, strict=True):
        row = torch.cat([x[:1], y[y != IGNORED]])
        chance, fate, other = (uniform(key[None], (16,), draw=draw)[0] for draw in (0, 1, 2))
        chosen = [i for i in range(1, len(row)) if chance[i] < 0.5]
        shown = row.clone()
        for i in chosen:
            kind = "random" if fate[i] < random else "mask" if fate[i] < 1 - keep else "keep"
            shown[i] = {"random": int(other[i] * MASK), "mask": MASK, "keep": row[i]}[kind]
            fates[kind] += 1
        log_p = model(shown[None])[0, :, :MASK].log_softmax(-1)
        nats += [-log_p[i, row[i]] for i in chosen]
    losses = MaskedTokens(model, rate=0.5, **shares)(batch)
    assert_close(losses.total, torch.stack(nats).mean(), "rounding")
    assert all((fates[kind] > 0) == (share > 0) for kind, share in
               {"random": random, "keep": keep, "mask": 1 - random - keep}.items())
    losses.total.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_fates_have_their_shares_and_random_tokens_are_all_but_the_mask():
    objective, batch = MaskedTokens(both_ways(), rate=0.4), batch_of(rows=2000)
    row = Row.of(batch)
    chosen = (uniform(row.keys, (16,)) < 0.4) & row.is_target
    shown = objective.shown(row, chosen)
    assert (shown == row.tokens)[~chosen].all() and not chosen[:, 0].any()
    assert abs(chosen[:, 1:].float().mean() - 0.4) < 0.01
    assert abs((shown == MASK)[chosen].float().mean() - 0.8) < 0.01
    replaced = shown[chosen & (shown != MASK) & (shown != row.tokens)]
    assert abs(len(replaced) / chosen.sum() - 0.1 * 35 / 36) < 0.01 and set(replaced.tolist()) == set(range(36))


def test_with_masks_alone_it_is_a_slice_of_masked_diffusion():
    """The same masked tokens, of a share that is fixed: there divided by all tokens and counted 1 / share times."""
    model, batch = both_ways(), batch_of(rows=8)
    ours = MaskedTokens(model, rate=0.5, random=0.0, keep=0.0)(batch).total
    theirs = MaskedDiffusion(model, weighted=True, min_share=0.5, max_share=0.5)(batch).total
    row = Row.of(batch)
    number = ((uniform(row.keys, (16,)) < 0.5) & row.is_target).sum()
    assert_close(ours * number, theirs * 0.5 * batch.num_targets, "rounding")


def test_what_is_hidden_moves_no_prediction_and_what_is_shown_does():
    model = both_ways(num_layers=1).double()
    objective, row = MaskedTokens(model, rate=1.0, random=0.0, keep=0.0), Row.of(batch_of())
    chosen = torch.arange(16).expand(3, -1) % 3 == 1

    def predicted(tokens):
        changed = row._replace(tokens=tokens)
        return objective.read(changed, objective.shown(changed, chosen), chosen)[0].last

    plain = predicted(row.tokens)
    for place in range(16):
        other = row.tokens.clone()
        other[:, place] = (other[:, place] + 1) % 36
        moved = (predicted(other) - plain).abs().amax(-1) > 1e-12
        assert moved.all() if place % 3 != 1 else not moved.any()


def test_a_score_is_of_the_share_of_each_row_and_depends_on_it_alone():
    objective, batch = MaskedTokens(both_ways(), rate=0.2), batch_of(4, padding=12)
    scores = objective.score(batch, top_k=2)
    assert scores.counted.sum(-1).tolist() == [3, 3, 3, 1] and not scores.nats[~scores.counted].any()
    alone = [objective.score(batch.map(lambda x, i=i: x[i : i + 1])).nats for i in range(4)]
    assert_close(torch.cat(alone), scores.nats, "rounding")
    row = torch.cat([batch.x[0, :1], batch.y[0]])
    shown = row.clone()
    shown[1:][scores.counted[0]] = MASK
    log_p = objective.model(shown[None])[0, 1:, :MASK].log_softmax(-1)
    assert_close(scores.nats[0], -log_p.gather(-1, row[1:, None])[:, 0].where(scores.counted[0], 0.0), "rounding")


def test_chunks_change_neither_loss_nor_scores():
    model, batch = both_ways(z_loss=1e-3), batch_of(padding=4)
    whole, cut = (MaskedTokens(model, rate=0.5, loss_chunk=chunk, log_accuracy=True) for chunk in (None, 4))
    for name, part in whole(batch).parts.items():
        assert_close(cut(batch).parts[name], part, "rounding")
    for ours, theirs in zip(cut.score(batch, top_k=3), whole.score(batch, top_k=3), strict=True):
        assert_close(ours, theirs, "rounding")


def test_it_writes_as_masked_diffusion_does():
    model = both_ways()
    cfg = override(Config(), {"sample.max_new_tokens": 9, "sample.temperature": 1.0}).sample
    ours, theirs = (kind(model).generate([[1], [2, 3]], cfg, eos_id=-1) for kind in (MaskedTokens, MaskedDiffusion))
    assert ours == theirs and [len(text) for text in ours] == [9, 9]


# ---- runs ----

RUN = {"train.objective": "masked", "train.log_accuracy": True}


@pytest.mark.usefixtures("models")
def test_a_run_learns_and_its_loss_is_not_that_of_the_text(go):
    run = go(RUN)
    facts = run.config.train.facts
    assert (facts.sign, facts.meaning) == ("≠ ", "of masked tokens") and run.samples()
    log = run.log().val_loss.dropna()
    assert log.iloc[-1] < log.iloc[0]


REFUSED = {
    "a recurrence": ({"model.mixer": "min_gru", "model.attention.num_heads": 4, "model.attention.dropout": 0.0},
                     "mixer=min_gru reads a text from left to right"),
    "documents": ({"data.packing": "documents"}, "use data.packing=stream or pad"),
    "no tokens": ({"train.masked.rate": 0.0}, "rate=0 predicts no token"),
    "too many": ({"train.masked.random": 0.7, "train.masked.keep": 0.7}, "more than 1 together"),
    "shares of diffusion": ({"train.diffusion.draws": 4}, "objective is masked_diffusion or block_diffusion"),
}


@pytest.mark.usefixtures("models")
@pytest.mark.parametrize(("flags", "sentence"), REFUSED.values(), ids=REFUSED)
def test_what_it_cannot_do_is_said(go, flags, sentence):
    with pytest.raises(ValueError, match=sentence):
        go(RUN | flags)


def test_its_flags_are_its_own():
    with pytest.raises(ValueError, match="objective is masked"):
        TrainConfig(masked={"rate": 0.3})
    made = make_objective(both_ways(), TrainConfig(objective="masked", masked={"rate": 0.3, "random": 0.0}))
    assert (made.rate, made.random, made.keep) == (0.3, 0.0, MaskedConfig().keep)


def small_run() -> Config:
    return override(Config(model=small_config(num_layers=1)), {
        "train.objective": "masked", "train.precision": "float32"})


def test_its_memory_is_that_of_real_tensors():
    fake, real = (dry_run(small_run(), rows=3, num_texts=2, fake=fake) for fake in (True, False))
    assert {where: part.num_bytes for where, part in fake.items()} == {
        where: part.num_bytes for where, part in real.items()}


@pytest.mark.parametrize("backend", some(["eager", "aot_eager"], 2))  # the second also traces the gradient
def test_it_is_traced_and_compiles_in_one_piece(backend):
    objective, batch = make_objective(both_ways(num_layers=1), small_run().train), batch_of(padding=4)
    with torch.no_grad(), trace(objective) as t:
        plain = objective(batch).total
    assert "MaskedTokens" in str(t) and not [call.problem for call in t.walk() if call.problem]
    torch._dynamo.reset()
    compiled = torch.compile(objective, backend=backend, fullgraph=True)
    assert_close(compiled(batch).total, plain, "same")
