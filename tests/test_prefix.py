"""The prefix language model: who sees whom, what is predicted, and that a prompt is read in both directions."""

import pytest
import torch
from helpers import assert_close, randomise, small_config, small_model, small_tokens

from config import SampleConfig
from data import IGNORED, Batch
from exchange.exporting import export_run
from generation.sampling import begin_texts
from model import Model
from objective import NextToken, Prefix
from objectives.noise import row_keys
from objectives.prefix import prefix_lens

SIGHTED = {"attention": {}, "latent": {"mixer": "latent"}, "window": {"attention.window": 5},
           "learned distances": {"position": "t5"}, "alibi": {"position": "alibi"}, "pointer": {"pointer": True},
           "indexer": {"indexer.top_k": 4}}


def batch_of(rows: int = 3, t: int = 15, *, padding: int = 0, source: int = 0, documents: bool = False) -> Batch:
    """Rows of t tokens and those after them, the last one with padding; the first has a source."""
    tokens = small_tokens(rows, t + 1)
    y = tokens[:, 1:].clone()
    y[-1, t - padding:] = IGNORED
    y[0, :source] = IGNORED
    ids = torch.tensor([[0] * 6 + [1] * 1 + [2] * (t - 7)] * rows) if documents else None
    return Batch(tokens[:, :-1], y, ids, int((y != IGNORED).sum()), row_keys(5, torch.arange(rows)))


@pytest.mark.parametrize("documents", [False, True])
def test_the_length_of_a_prefix_is_uniform_within_its_document_and_that_of_a_source(documents):
    batch = batch_of(4000, padding=5, source=4, documents=documents)
    lens = prefix_lens(batch, batch.keys)
    spans = [(0, 6), (6, 7), (7, 15)] if documents else [(0, 15)]
    for first, stop in spans:
        own = lens[1:-1, first:stop]
        assert (own == own[:, :1]).all()
        counts = own[:, 0].bincount(minlength=stop - first + 1)
        assert counts[0] == 0 and len(counts) == stop - first + 1
        assert (counts[1:] / 3998 - 1 / (stop - first)).abs().max() < 0.03
    assert (lens[0, :6] == 5).all()
    assert 1 <= lens[-1, 0] <= 10
    if documents:
        assert abs(torch.corrcoef(torch.stack([lens[1:-1, 0], lens[1:-1, 7]]).float())[0, 1]) < 0.1


@pytest.mark.parametrize("documents", [False, True])
def test_the_loss_is_that_of_the_tokens_after_a_prefix_which_sees_all_of_itself(documents):
    """Against a loop over pairs of tokens, and rows one at a time."""
    model, batch = small_model(), batch_of(padding=4, source=3, documents=documents)
    lens, total, count = prefix_lens(batch, batch.keys), 0.0, 0
    for row in range(3):
        ids = [0] * 15 if batch.documents is None else batch.documents[row].tolist()
        within = [place - ids.index(ids[place]) for place in range(15)]
        sight = torch.zeros(15, 15, dtype=torch.bool)
        for i in range(15):
            for j in range(15):
                sight[i, j] = ids[i] == ids[j] and (j <= i or within[j] < lens[row, j])
        logits = model(batch.x[row : row + 1], positions=torch.tensor(within)[None], sight=sight)[0]
        for i in range(15):
            if batch.y[row, i] != IGNORED and within[i] + 1 >= lens[row, i]:
                total, count = total - logits[i].log_softmax(-1)[batch.y[row, i]], count + 1
    assert_close(Prefix(model)(batch).total, total / count, "same")


def test_of_a_pair_the_whole_target_is_predicted_and_nothing_else():
    model, batch = small_model(), batch_of(1, source=6)
    scores = Prefix(model).score(batch)
    assert scores.counted.tolist() == [[False] * 6 + [True] * 9]
    sight = torch.ones(15, 15, dtype=torch.bool).tril()
    sight[:, :7] = True
    expected = -model(batch.x, sight=sight).log_softmax(-1).gather(-1, batch.y.clamp(min=0)[..., None])[..., 0]
    assert_close(scores.nats[:, 6:], expected[:, 6:], "rounding")


@pytest.mark.parametrize("documents", [False, True])
def test_a_prefix_of_one_token_is_next_token_training(documents):
    model, batch = small_model(), batch_of(padding=4, documents=documents)
    objective = Prefix(model)
    ours = objective.scores(*objective.read(batch, torch.ones_like(batch.x)), 3)
    plain = NextToken(model).score(batch, top_k=3)
    assert torch.equal(ours.counted, plain.counted)
    assert_close(ours.nats, plain.nats, "rounding")
    assert_close(ours.right, plain.right, "rounding")


def test_a_token_sees_its_past_and_the_prefix_and_nothing_else():
    model = small_model(num_layers=1).double()
    batch, objective = batch_of(1), Prefix(model)
    lens = torch.full((1, 15), 6)

    def logits(x):
        return model.predict(objective.read(batch._replace(x=x), lens)[0])

    plain = logits(batch.x)
    for place in range(15):
        other = batch.x.clone()
        other[0, place] = (other[0, place] + 1) % 37
        moved = (logits(other) - plain).abs().amax(-1)[0] > 1e-12
        assert moved.tolist() == [i >= place or place < 6 for i in range(15)]


def test_chunks_change_neither_loss_nor_scores():
    model, batch = small_model(z_loss=1e-3), batch_of(padding=4)
    whole, cut = (Prefix(model, loss_chunk=chunk, log_accuracy=True) for chunk in (None, 4))
    for name, part in whole(batch).parts.items():
        assert_close(cut(batch).parts[name], part, "rounding")
    for ours, theirs in zip(cut.score(batch, top_k=3), whole.score(batch, top_k=3), strict=True):
        assert_close(ours, theirs, "rounding")


def test_a_score_depends_on_the_row_alone():
    objective, batch = Prefix(small_model()), batch_of(4)
    together = objective.score(batch)
    alone = [objective.score(batch.map(lambda x, i=i: x[i : i + 1])) for i in range(4)]
    assert_close(torch.cat([one.nats for one in alone]), together.nats, "rounding")
    assert torch.equal(objective.score(batch._replace(keys=None)).counted, together.counted)


@pytest.mark.thorough
@pytest.mark.parametrize("documents", [False, True])
def test_it_compiles_whole(documents):
    torch._dynamo.reset()
    model, batch = small_model(num_layers=1), batch_of(padding=4, documents=documents)
    compiled = torch.compile(Prefix(model), backend="aot_eager", fullgraph=True)
    assert_close(compiled(batch).total, Prefix(model)(batch).total, "rounding")


# ---- texts ----

def texts_of(objective: Prefix, prompts: list[list[int]], **options) -> list[list[int]]:
    cfg = SampleConfig(temperature=1.0, stop_at_eos=False, max_new_tokens=25)
    new = [[] for _ in prompts]
    for row, token in objective.continue_texts(begin_texts(objective.model.cfg, prompts, 0), cfg, eos_id=-1, **options):
        new[row].append(token)
    return new


@pytest.mark.parametrize("flags", SIGHTED.values(), ids=SIGHTED)
def test_a_prompt_is_a_prefix_with_and_without_a_cache_alone_and_among_others(flags):
    """Past the context too, which is 16: prompts of 3, 11 and 16 tokens, of which 8 are seen after it."""
    objective = Prefix(small_model(**flags))
    prompts = [small_tokens(1, n, seed=n)[0].tolist() for n in (3, 11, 16)]
    together = texts_of(objective, prompts)
    assert texts_of(objective, prompts, use_cache=False) == together
    assert [texts_of(objective, [prompt])[0] for prompt in prompts] == together


def test_each_token_is_drawn_after_a_sight_of_the_prompt():
    """Greedy, against whole reads with the sight spelled out."""
    model, prompts = randomise(small_model(), std=0.6), small_tokens(8, 6).tolist()
    cfg, texts = SampleConfig(temperature=0.0, stop_at_eos=False, max_new_tokens=8), []
    for prompt in prompts:
        text = list(prompt)
        for _ in range(8):
            sight = torch.ones(len(text), len(text), dtype=torch.bool).tril()
            sight[:, :6] = True
            text.append(model(torch.tensor([text]), sight=sight)[0, -1].argmax().item())
        texts.append(text[6:])
    assert Prefix(model).generate(prompts, cfg, eos_id=-1) == texts
    assert NextToken(model).generate(prompts, cfg, eos_id=-1) != texts


def test_what_is_learned_by_heart_is_written():
    model = Model(small_config(dim=32))
    objective = Prefix(model)
    texts = torch.tensor([[1, 5, 6, 7, 8, 9, 10, 11, 12], [2, 9, 9, 5, 5, 6, 6, 12, 8], [3, 7, 5, 9, 11, 12, 5, 5, 7]])
    rows = texts.repeat(4, 1)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    for step in range(80):
        objective(Batch(rows[:, :-1], rows[:, 1:], None, 96, row_keys(step, torch.arange(12)))).total.backward()
        optimizer.step()
        optimizer.zero_grad()
    cfg = SampleConfig(temperature=0.0, stop_at_eos=False, max_new_tokens=8)
    for n in (1, 3, 6):
        written = objective.generate(texts[:, :n].tolist(), cfg, eos_id=-1)
        assert [new[: 9 - n] for new in written] == texts[:, n:].tolist()


# ---- runs ----

PREFIX = {"train.objective": "prefix", "train.log_accuracy": True}


@pytest.mark.usefixtures("models")
@pytest.mark.parametrize("packing", ["stream", "documents"])
def test_a_run_learns(go, packing):
    log = go(PREFIX | {"data.packing": packing}).log()
    assert log.bits_per_byte.iloc[-1] < log.bits_per_byte.dropna().iloc[0]


@pytest.mark.usefixtures("models")
def test_it_is_not_exported_nor_learned_by_a_recurrence(go, tmp_path):
    with pytest.raises(ValueError, match="sees later tokens"):
        export_run(go(PREFIX | {"train.steps": 1}), tmp_path / "exported")
    with pytest.raises(ValueError, match="mixer=min_gru reads a text from left to right"):
        go(PREFIX | {"model.mixer": "min_gru", "model.attention.num_heads": 4, "model.attention.dropout": 0.0,
                     "train.name": "recurrent"})
