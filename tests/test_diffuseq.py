"""DiffuSeq: its noise, loss and draws are their formulas, what it sees, and that it writes what it knows."""

import math
from collections import Counter

import pytest
import torch
from helpers import assert_close, randomise, small_config, small_tokens
from rich.console import Console
from small_runs import weights

import train
from config import Config, ModelConfig, SampleConfig, TrainConfig, VectorsConfig, override
from data import IGNORED, Batch
from experiments.benchmarks import noised_texts
from experiments.benchmarks.benchmark_options import Vectors
from memory_prediction.dry_run import dry_run
from model import Model
from modules.denoiser import LossHistory
from objective import DiffuSeq, make_objective
from objectives.bleu import bleu, most_alike
from objectives.noise import normal, row_keys, uniform
from objectives.vectors import from_noise, nearest, signal, spaced
from run_store.listing import DIVERGED
from tools import trace
from training.pairs import write_targets
from training.step import TrainState, Useless

NOISED = {"noised": True, "tie_embeddings": True, "noised_dim": 8, "noised_steps": 40}
PADDING = 36  # of small_config, the last id


def noised_model(**flags) -> Model:
    return randomise(Model(small_config(**NOISED | flags), causal=False)).eval()


def batch_of_pairs(rows: int = 3, *, padding: int = 4, seed: int = 5) -> Batch:
    """Rows of 16 tokens, those of the context: 4 of a source, and the last row with padding."""
    tokens = small_tokens(rows, 16, vocab_size=36, seed=seed)
    y = tokens[:, 1:].clone()
    y[:, :3] = IGNORED
    y[-1, 15 - padding:] = IGNORED
    return Batch(tokens[:, :-1], y, None, int((y != IGNORED).sum()), row_keys(seed, torch.arange(rows)))


# ---- noise ----


@pytest.mark.parametrize("num_steps", [2000, 20])
def test_the_signal_is_the_product_of_capped_steps(num_steps):
    def wanted(t: float) -> float:
        return 1 - math.sqrt(t + 1e-4)

    kept, product = signal(num_steps).tolist(), 1.0
    for i, value in enumerate(kept):
        product *= 1 - min(1 - wanted((i + 1) / num_steps) / wanted(i / num_steps), 0.999)
        assert value == pytest.approx(product, rel=1e-12)
        if i < num_steps - 1:
            assert value == pytest.approx(wanted((i + 1) / num_steps) / wanted(0), rel=1e-9)
    assert kept[-1] == pytest.approx(kept[-2] * 0.001) and wanted(1) < 0  # the last step is capped


def test_steps_are_spaced_from_the_last_one():
    assert spaced(2000, 2000) == list(range(1999, -1, -1))
    assert spaced(10, 3) == [9, 5, 2] and spaced(10, 1) == [9]


def no_noise():
    raise AssertionError("no noise is added")


@pytest.mark.parametrize("number", [1, 7, 200])
def test_who_knows_the_vectors_gives_them_back_in_any_number_of_steps(number):
    known = torch.randn(2, 5, 4, generator=torch.Generator().manual_seed(0))
    start = torch.randn(2, 5, 4, generator=torch.Generator().manual_seed(1))
    assert_close(from_noise(lambda x, step: known, start, num_steps=200, number=number, noise=no_noise), known, "same")


def test_steps_of_a_known_gaussian_lead_to_it():
    """Numbers of variance 4: f = 4 sqrt(a) x / (4 a + 1 - a) is the mean of x_0. Without noise x_0 is twice the start,
    the better the more steps; with it the variance is that of the numbers."""
    kept = signal(2000).tolist()

    def clean(x, step):
        return 4 * kept[step] ** 0.5 * x / (4 * kept[step] + 1 - kept[step])

    generator = torch.Generator().manual_seed(0)
    start = torch.randn(20_000, dtype=torch.float64, generator=generator)
    off = [(from_noise(clean, start, num_steps=2000, number=number, noise=no_noise) / start - 2).abs().max().item()
           for number in (20, 200, 2000)]
    assert off[0] > 3 * off[1] > 9 * off[2] and off[2] < 0.05
    drawn = from_noise(clean, start, num_steps=2000, number=200, eta=1.0,
                       noise=lambda: torch.randn(20_000, dtype=torch.float64, generator=generator))
    assert abs(drawn.var() / 4 - 1) < 0.06
    assert abs(torch.corrcoef(torch.stack([drawn, start]))[0, 1]) < 0.1


def test_a_step_with_noise_is_that_of_the_posterior():
    """Ho et al. 2020, arXiv:2006.11239, eq. 6 and 7, for two steps of three."""
    kept = signal(3)
    x, clean, seen = torch.tensor([0.7]).double(), torch.tensor([-0.4]).double(), []
    from_noise(lambda x, step: seen.append(x) or clean, x, num_steps=3, number=3, eta=1.0,
               noise=lambda: torch.tensor([1.3]).double())
    for step, (before, after) in zip((2, 1), zip(seen[:-1], seen[1:], strict=True), strict=True):
        now, then = kept[step], kept[step - 1]
        beta = 1 - now / then
        mean = then.sqrt() * beta / (1 - now) * clean + (1 - beta).sqrt() * (1 - then) / (1 - now) * before
        assert_close(after, mean + ((1 - then) / (1 - now) * beta).sqrt() * 1.3, "rounding")


# ---- the loss ----


def restated(model: Model, row: list[int], source: int, key: torch.Tensor, step: int) -> tuple[float, float, float]:
    """mse, nll and t_T of a row, number by number."""
    vectors, kept = model.embed.tokens.weight, signal(40).float()
    first, further = (normal(key[None], (16, 8), draw=i)[0] for i in (1, 2))
    start = [vectors[token] + (1 - kept[0]).sqrt() * first[i] for i, token in enumerate(row)]
    x = [start[i] if i < source else kept[step].sqrt() * start[i] + (1 - kept[step]).sqrt() * further[i]
         for i in range(16)]
    embed = model.embed
    angles = [step * 1000 / 40 / 10_000 ** (i / 4) for i in range(4)]
    waves = torch.tensor([*map(math.cos, angles), *map(math.sin, angles)])
    first, second = embed.time.first, embed.time.second
    hidden = first.weight @ waves + first.bias
    time = second.weight @ (hidden * hidden.sigmoid()) + second.bias
    up = embed.up
    stream = torch.stack([up.second.weight @ (up.first.weight @ v + up.first.bias).tanh() + up.second.bias + time
                          for v in x])
    last = model.read(torch.zeros(1, 16, dtype=torch.int64), x=stream[None]).last[0]
    down, mse, nll, left = model.head.down, 0.0, 0.0, 0.0
    for i, token in enumerate(row):
        found = down.second.weight @ (down.first.weight @ last[i] + down.first.bias).tanh() + down.second.bias
        target = vectors[token] if step == 0 else start[i]
        mse += ((target - found) ** 2).mean() / 16
        nll -= (vectors @ start[i]).log_softmax(-1)[token] / 16
        left += kept[-1] * (start[i] ** 2).mean() / 16
    return mse, nll, left


def test_the_loss_is_that_of_the_paper():
    model, batch = noised_model(), batch_of_pairs(rows=12)
    objective, expected = DiffuSeq(model), torch.zeros(3)
    steps = (uniform(batch.keys) * 40).long().tolist()
    steps[0] = 0
    objective.draw = lambda keys: (torch.tensor(steps), torch.ones(12, dtype=torch.float64))
    for x, y, key, step in zip(batch.x, batch.y, batch.keys, steps, strict=True):
        row = [*x[:4].tolist(), *y[3:][y[3:] != IGNORED].tolist()]
        row += [PADDING] * (16 - len(row))
        expected += torch.stack(restated(model, row, 4, key, step)) / 12
    losses = objective(batch)
    assert_close(torch.stack([losses.parts[name] for name in ("mse", "nll", "t_T")]), expected, "same")
    assert_close(losses.total, expected.sum(), "same")
    vectors = model.embed.tokens.weight
    pairs = torch.cdist(vectors, vectors).square().sum() / (37 * 36)
    assert_close(losses.parts["embedding_distance"], (pairs / (2 * 8)).sqrt(), "same")
    losses.total.backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in model.parameters())


def test_steps_are_uniform_and_follow_from_the_key():
    objective, keys = DiffuSeq(noised_model()), row_keys(1, torch.arange(8000))
    step, weight = objective.draw(keys)
    count = step.bincount(minlength=40)
    assert len(count) == 40 and (count / 200 - 1).abs().max() < 0.3 and (weight == 1).all()
    assert torch.equal(objective.draw(keys[5:9])[0], step[5:9])


def test_each_term_moves_the_vectors():
    """A gradient stopped at the target, or at the rounding, would let them come together."""
    model, batch = noised_model(), batch_of_pairs()
    objective = DiffuSeq(model)
    noised = objective.noised(*objective.filled(batch), torch.tensor([3, 9, 0]))
    for part in objective.parts(noised, torch.zeros_like(noised.x)).values():
        grad, = torch.autograd.grad(part.sum(), model.embed.tokens.weight, retain_graph=True)
        assert grad[batch.x[0, 0]].abs().sum() > 0


def test_chunks_change_neither_loss_nor_gradient_nor_scores():
    whole, cut = (DiffuSeq(noised_model(), loss_chunk=chunk) for chunk in (None, 5))
    for objective in (whole, cut):
        objective(batch_of_pairs()).total.backward()
    assert_close(cut(batch_of_pairs()).parts, whole(batch_of_pairs()).parts, "rounding")
    ours, theirs = ({name: p.grad for name, p in objective.named_parameters()} for objective in (cut, whole))
    assert_close(ours, theirs, "same")
    for ours, theirs in zip(cut.score(batch_of_pairs(), top_k=3), whole.score(batch_of_pairs(), top_k=3), strict=True):
        assert_close(ours, theirs, "rounding")


# ---- importance sampling ----


def test_the_history_keeps_the_last_ten_losses_of_each_step_in_order():
    history, expected = LossHistory(4), [[] for _ in range(4)]
    generator = torch.Generator().manual_seed(0)
    for size in (5, 70, 1, 30, 2):
        steps = torch.randint(3, (size,), generator=generator)
        losses = torch.rand(size, generator=generator)
        history.note(steps, losses)
        for step, loss in zip(steps.tolist(), losses.tolist(), strict=True):
            expected[step] = (expected[step] + [loss])[-10:]
    for row, kept in zip(history.losses.tolist(), expected, strict=True):
        assert sorted(row) == pytest.approx(sorted(kept or [0.0] * 10))
    assert torch.equal(history.chances(), torch.full((4,), 0.25).double())  # one step has none yet
    history.note(torch.full((10,), 3), torch.full((10,), 0.5))
    size = history.losses.double().square().mean(-1).sqrt()
    assert_close(history.chances(), 0.001 / 4 + 0.999 * size / size.sum(), "rounding")


def test_weights_leave_the_mean_loss_as_it_is():
    objective = DiffuSeq(noised_model(), by_losses=True)
    size = torch.linspace(0.1, 3, 40)
    objective.model.embed.history.note(torch.arange(40).repeat(10), size.repeat(10))
    step, weight = objective.draw(row_keys(2, torch.arange(40_000)))
    chance = objective.model.embed.history.chances()
    assert_close(step.bincount(minlength=40) / 40_000, chance.float(), "rounded weights")
    assert abs((step >= 20).double().mean() - chance[20:].sum()) < 0.01
    loss = torch.sin(torch.arange(40.0)).double() + 2  # any function of the step
    assert abs((loss[step] * weight).mean() - loss.mean()) < 0.03
    plain = abs(loss[step].mean() - loss.mean())
    assert plain < 1 and abs(weight.mean() - 1) < 0.03


def test_only_training_notes_losses():
    objective = DiffuSeq(noised_model(), by_losses=True)
    objective.eval()
    objective(batch_of_pairs())
    objective.score(batch_of_pairs())
    assert objective.model.embed.history.count.sum() == 0
    objective.train()
    losses = objective(batch_of_pairs())
    history = objective.model.embed.history
    assert history.count.sum() == 3
    assert_close(history.losses.sum() / 3, losses.parts["diffuseq"], "rounding")


@pytest.mark.thorough
def test_it_compiles_in_one_piece_and_notes_the_same():
    torch._dynamo.reset()
    plain, compiled = (DiffuSeq(noised_model(num_layers=1), by_losses=True, loss_chunk=9).train() for _ in range(2))
    call = torch.compile(compiled, backend="aot_eager", fullgraph=True)
    for seed in (5, 6):
        ours, theirs = call(batch_of_pairs(seed=seed)).total, plain(batch_of_pairs(seed=seed)).total
        assert_close(ours, theirs, "rounding")
        (ours + theirs).backward()
    ours, theirs = (dict(objective.model.named_buffers()) for objective in (compiled, plain))
    assert_close(ours, theirs, "rounding")
    assert_close(compiled.model.embed.up.first.weight.grad, plain.model.embed.up.first.weight.grad, "same")


# ---- what is seen ----


def test_every_place_sees_all_vectors_and_the_time_and_no_token():
    objective = DiffuSeq(noised_model(num_layers=1).double())
    x = torch.randn(1, 16, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def found(x, step):
        return objective.model.head.vectors(objective.read(x, torch.tensor([step])).last)

    plain = found(x, 3)
    for place in (0, 7, 15):
        other = x.clone()
        other[0, place] += 0.1
        assert ((found(other, 3) - plain).abs().amax(-1) > 1e-9).all()
    assert ((found(x, 4) - plain).abs().amax(-1) > 1e-9).all()


def test_the_source_has_no_noise_of_its_step_and_what_follows_has():
    objective, batch = DiffuSeq(noised_model()), batch_of_pairs()
    noised = objective.noised(*objective.filled(batch), torch.tensor([39, 39, 39]))
    assert torch.equal(noised.x[:, :4], noised.start[:, :4])
    assert (noised.x[:, 4:] - noised.start[:, 4:]).abs().amax(-1).min() > 0.01
    other = batch.y.clone()
    other[:, 5] = (other[:, 5] + 1) % 36
    changed = objective.noised(*objective.filled(batch._replace(y=other)), torch.tensor([39, 39, 39]))
    moved = (changed.x - noised.x).abs().amax(-1)
    assert (moved[:, 6] < 0.1).all() and moved[:, 6].max() > 0 and moved[:, :6].max() == moved[:, 7:].max() == 0


def test_a_score_depends_on_the_row_alone():
    objective, batch = DiffuSeq(noised_model()), batch_of_pairs(4)
    together = objective.score(batch)
    alone = torch.cat([objective.score(batch.map(lambda x, i=i: x[i : i + 1])).nats for i in range(4)])
    assert_close(alone, together.nats, "rounding")
    assert torch.equal(together.counted, batch.y != IGNORED) and (together.nats[~together.counted] == 0).all()
    short = Batch(batch.x[-1:, :11], batch.y[-1:, :11], None, 8)  # the last row without its padding
    assert_close(objective.score(short).nats, together.nats[-1:, :11], "rounding")


def test_it_is_traced():
    objective = DiffuSeq(noised_model())
    with torch.no_grad(), trace(objective) as t:
        objective(batch_of_pairs())
    said = str(t)
    assert "Rounding" in said and "enter" in said and "vectors" in said
    assert not [call.problem for call in t.walk() if call.problem]


# ---- texts ----


def test_bleu_is_that_of_its_formula():
    text, reference = [1, 2, 3, 4, 5], [1, 2, 3, 9, 5, 6]
    shares = [4 / 5, 2 / 4, 1 / 3, math.log(5) / 10 / 2]
    expected = math.prod(shares) ** 0.25 * math.exp(1 - 6 / 5)
    assert bleu(text, reference) == pytest.approx(expected)
    assert bleu(text, text) == pytest.approx(1) and bleu([1, 1, 1], [2]) == 0 == bleu([], [1])
    assert bleu([1, 1, 1], [1, 2]) < bleu([1, 3, 4], [1, 3, 2]) < 1
    assert most_alike([[7, 8], text, [1, 2, 3, 4, 6], [1, 2, 3, 9, 9], []]) in (1, 2)
    assert most_alike([[5], [4], [4]]) == 1 and most_alike([[5]]) == 0


def test_the_nearest_vector_is_that_of_the_least_distance():
    x, vectors = (torch.randn(*size, generator=torch.Generator().manual_seed(0)) for size in ((2, 5, 3), (9, 3)))
    assert torch.equal(nearest(x, vectors), torch.cdist(x, vectors.expand(2, 9, 3)).argmin(-1))
    barred = torch.arange(9) < 7
    assert torch.equal(nearest(x, vectors, barred), 7 + torch.cdist(x, vectors[7:].expand(2, 2, 3)).argmin(-1))


def test_it_runs_in_bfloat16():
    objective = DiffuSeq(noised_model().to(torch.bfloat16), by_losses=True)
    assert objective(batch_of_pairs()).total.isfinite() and objective.score(batch_of_pairs()).nats.isfinite().all()
    assert len(objective.generate([[1]], sample_config(eta=0.5), eos_id=2)[0]) == 9


def sample_config(**flags) -> SampleConfig:
    return SampleConfig(stop_at_eos=False, max_new_tokens=9, vectors=VectorsConfig(**{"steps": 5} | flags))


@pytest.mark.parametrize("flags", [{}, {"eta": 1.0, "steps": 40}, {"snap": False}, {"candidates": 3}],
                         ids=["few", "all with noise", "free", "candidates"])
def test_texts_are_written_alone_as_together(flags, monkeypatch):
    objective, prompts = DiffuSeq(noised_model()), [[1], [4, 5, 6], [1], [7] * 14]
    together = objective.generate(prompts, sample_config(**flags), eos_id=2, num_ids=30)
    assert [len(text) for text in together] == [9] * 4 and max(map(max, together)) < 30
    ended = objective.generate(prompts * 5, override(sample_config(**flags), {"stop_at_eos": True}), eos_id=2)
    monkeypatch.setattr("generation.sampling.rows_at_a_time", lambda cfg: 1)
    assert objective.generate(prompts, sample_config(**flags), eos_id=2, num_ids=30) == together
    assert together[0] != together[2]  # the same prompt, drawn anew
    assert all(2 not in text[:-1] and (text[-1] == 2 or len(text) == 9) and PADDING not in text for text in ended)
    with pytest.raises(ValueError, match="vectors.steps=41 is more than the model's noised_steps=40"):
        objective.generate(prompts, sample_config(steps=41), eos_id=2)


def test_the_candidate_that_is_most_like_the_others_is_taken(monkeypatch):
    drawn = iter([[[1, 2, 3], [9]], [[4, 5, 6], [8]], [[4, 5, 7], [8]]])
    monkeypatch.setattr("objectives.vectors._written", lambda *_: next(drawn))
    cfg = override(sample_config(candidates=3), {"max_new_tokens": 3, "stop_at_eos": True})
    objective = DiffuSeq(noised_model())
    tokens = list(objective.stream([[1], [2]], override(cfg, {"max_new_tokens": 1}), eos_id=8))
    assert Counter(row for row, _ in tokens) == {0: 3, 1: 1} and tokens[0] == (0, 4) and tokens[-1] == (1, 8)


def test_what_is_learned_by_heart_is_written():
    torch.manual_seed(0)
    sizes = {"dim": 32, "num_layers": 1, "noised_dim": 16, "vocab_size": 14, "max_seq_len": 9}
    model = Model(small_config(**NOISED | sizes), causal=False)
    objective = DiffuSeq(model, by_losses=True)
    texts = torch.tensor([[1, 5, 6, 7, 8, 9, 10, 11, 12], [2, 9, 9, 5, 5, 6, 0, 0, 0], [3, 7, 5, 9, 0, 0, 0, 0, 0]])
    y = texts[:, 1:].where(texts[:, 1:] != 0, IGNORED)
    optimizer = torch.optim.Adam(model.parameters(), lr=6e-3)
    for step in range(300):
        batch = Batch(texts[:, :-1].repeat(4, 1), y.repeat(4, 1), None, 64, row_keys(step, torch.arange(12)))
        objective(batch).total.backward()
        optimizer.step()
        optimizer.zero_grad()
    cfg = override(sample_config(), {"stop_at_eos": True, "max_new_tokens": 8})
    expected = [[5, 6, 7, 8, 9, 10, 11, 12], [9, 9, 5, 5, 6, 12], [7, 5, 9, 12]]  # padding ends a text, as 12 does
    for steps in (1, 5, 40):
        written = objective.generate([[1], [2], [3]], override(cfg, {"vectors.steps": steps}), eos_id=12)
        assert written == expected
    assert objective.score(Batch(texts[:, :-1], y, None, 16)).right.sum() > 15


# ---- runs ----

RUN = {"train.objective": "diffuseq", **{f"model.{name}": value for name, value in NOISED.items()},
       "model.noised_steps": 6, "sample.vectors.steps": 3, "train.accumulation": 2}


@pytest.mark.usefixtures("models")
def test_a_run_learns_and_keeps_the_history_of_its_losses(go):
    flags = RUN | {"train.diffuseq.sampling": "loss", "train.ema_decay": 0.9}
    run = go(flags)
    count = weights(run)["embed.history.count"]
    assert count.sum() == 24 * 2 * 4 and (count >= 10).all()
    log = run.log()
    assert {"mse", "nll", "t_T", "embedding_distance"} <= set(log.columns)
    assert log.val_loss.dropna().iloc[-1] < log.val_loss.dropna().iloc[0]
    assert run.config.model.vocab_size == run.tokenizer().vocab_size + 1


@pytest.mark.usefixtures("models")
def test_the_benchmark_counts_the_right_targets_for_each_number_of_steps(go, tmp_path, capsys, monkeypatch):
    def write(objective, tokenizer, pairs, cfg):
        lines = write_targets(objective, tokenizer, pairs, cfg)
        right = cfg.vectors.steps + 10 * cfg.vectors.candidates  # an untrained model knows none
        return [line | {"exact": number < right} for number, line in enumerate(lines)]

    (tmp_path / "pairs.csv").write_text("source,text\n" + 400 * "a,b\n")
    go(RUN | {"data.name": str(tmp_path / "pairs.csv"), "data.source_column": "source", "data.packing": "pad",
              "train.steps": 1, "train.graded_stories": 0})
    monkeypatch.setattr(noised_texts, "write_targets", write)
    capsys.readouterr()
    assert noised_texts.run(Vectors(run="toy", steps=(6, 1), candidates=(1, 2), texts=30), Console(width=120))
    rows = [line.split("  ")[:4] for line in capsys.readouterr().out.splitlines()[1:]]
    assert rows == [["6", "1", "16 of 30", "-"], ["6", "2", "26 of 30", "-"], ["1", "1", "11 of 30", "-"],
                    ["1", "2", "21 of 30", "-"]]
    go({"train.steps": 1, "train.name": "other"})
    with pytest.raises(ValueError, match="run=other has learned train.objective=next_token"):
        noised_texts.run(Vectors(run="other"), Console())


@pytest.mark.usefixtures("models")
def test_vectors_that_come_together_end_a_run(go, models, monkeypatch):
    def shrink(state, *args, **kwargs):
        with torch.no_grad():
            state.model.embed.tokens.weight.mul_(0.5)
        return step(state, *args, **kwargs)

    step = TrainState.step
    monkeypatch.setattr(TrainState, "step", shrink)
    with pytest.raises(train.Diverged, match="step 4: the vectors of tokens have come together: embedding_distance="):
        go(RUN)
    assert "come together" in (models / "toy" / DIVERGED).read_text()


def test_nothing_changes_in_a_step_whose_vectors_have_come_together():
    cfg = override(TrainConfig(), {"objective": "diffuseq"})
    state = TrainState(noised_model(), cfg)
    with torch.no_grad():
        state.model.embed.tokens.weight.mul_(0.01)
    before = {name: p.clone() for name, p in state.model.named_parameters()}
    with pytest.raises(Useless):
        state.step([batch_of_pairs()], number=1, lr=0.1, noise=[])
    assert_close(dict(state.model.named_parameters()), before, "rounding")


def test_its_memory_is_that_of_real_tensors():
    flags = {f"model.{name}": value for name, value in NOISED.items()} | {
        "model.dim": 24, "model.num_layers": 2, "model.vocab_size": 300, "model.noised_dim": 64,
        "model.max_seq_len": 64}
    cfg = override(Config(), flags | {"train.objective": "diffuseq", "train.precision": "float32"})
    fake, real = (dry_run(cfg, rows=3, num_texts=2, fake=fake) for fake in (True, False))
    assert {where: part.num_bytes for where, part in fake.items()} == {
        where: part.num_bytes for where, part in real.items()}
    assert ("forward", "loss") in fake and any(phase == "sampling" for phase, _ in fake)


def test_building_on_meta_and_giving_weights_equals_building_directly():
    cfg = small_config(**NOISED)
    torch.manual_seed(0)
    direct = Model(cfg, causal=False)
    with torch.device("meta"):
        later = Model(cfg, causal=False)
    torch.manual_seed(0)
    later.to_empty(device="cpu").init_weights()
    assert_close(dict(later.state_dict()), dict(direct.state_dict()), "rounding")
    assert later.head.unembed.weight is later.embed.tokens.weight and abs(later.embed.tokens.weight.std() - 1) < 0.15


REFUSED = {
    "tokens": ({"model.noised": False, "model.tie_embeddings": False, "model.noised_dim": 64,
                "model.noised_steps": 2000}, "train.objective=diffuseq gives vectors with noise"),
    "another objective": ({"train.objective": "next_token", "sample.vectors.steps": 20},
                          "model.noised=True reads vectors with noise, which"),
    "a pointer": ({"model.pointer": True}, "pointer=True does not go with noised=True"),
    "a memory": ({"model.memory": "bigram"}, "memory=bigram does not go with noised=True"),
    "a cap": ({"model.logit_softcap": 3.0}, "logit_softcap=3.0 does not go with noised=True"),
    "an untied head": ({"model.tie_embeddings": False}, "use tie_embeddings=True"),
    "an odd width": ({"model.noised_dim": 7}, "noised_dim=7 must be even"),
    "a recurrence": ({"model.mixer": "min_gru", "model.attention.num_heads": 4, "model.attention.dropout": 0.0},
                     "reads a text from left to right"),
    "too many steps": ({"sample.vectors.steps": 7}, "sample.vectors.steps=7 is more than model.noised_steps=6"),
    "temperature": ({"sample.temperature": 0.5}, "sample.temperature=0.5 would change nothing"),
    "masks": ({"sample.denoise.block_len": 4}, "sample.denoise.block_len=4 would change nothing"),
    "z-loss": ({"model.z_loss": 0.1}, "model.z_loss=0.1 would change nothing"),
    "accuracy": ({"train.log_accuracy": True}, "train.log_accuracy=True"),
    "documents": ({"data.packing": "documents"}, "use data.packing=stream or pad"),
}


@pytest.mark.usefixtures("models")
@pytest.mark.parametrize(("flags", "sentence"), REFUSED.values(), ids=REFUSED)
def test_what_it_cannot_do_is_said(go, flags, sentence):
    with pytest.raises(ValueError, match=sentence):
        go(RUN | flags)


def test_its_flags_are_refused_without_it():
    with pytest.raises(ValueError, match="objective is diffuseq"):
        TrainConfig(diffuseq={"draws": 3})
    with pytest.raises(ValueError, match="noised is on"):
        override(ModelConfig(), {"noised_dim": 32})
    objective = make_objective(noised_model(), override(TrainConfig(), {
        "objective": "diffuseq", "diffuseq.sampling": "loss", "diffuseq.draws": 3, "loss_chunk": 5}))
    assert (objective.by_losses, objective.num_draws, objective.loss_chunk) == (True, 3, 5)
