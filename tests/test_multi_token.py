"""Tokens beyond the next: losses as in the papers, what each part sees, and texts that drafts leave as they are."""

import pytest
import torch
from helpers import assert_close, flops_of, randomise, small_config, small_model, small_tokens
from safetensors.torch import load_file
from thorough import some
from torch import nn

from config import SampleConfig, override, replace
from data import IGNORED, Batch
from exchange.exporting import export_run
from generation.sampling import begin_texts, continue_texts
from model import Model
from modules.ahead import shifted
from objective import MultiToken, NextToken
from objectives.speculation import Reader, speculate
from run_store.details import describe_run
from tools import trace

WORDS = ("heads", "modules")
each_word = pytest.mark.parametrize("word", WORDS)
PLAIN = {"position": "none", "mlp": "mlp", "activation": "silu", "norm": "rms", "norm_eps": 1e-6, "num_layers": 2,
         "attention.num_heads": 3, "ahead_depth": 2}
DOCUMENTS = torch.tensor([[0] * 5 + [1] * 1 + [2] * 7, [0] * 2 + [1] * 11])


def batch_of(*, packed: bool = False, t: int = 13) -> Batch:
    """Two rows, the second with three positions without a target; packed, the last token of a document has none."""
    tokens = small_tokens(2, t + 1)
    y = tokens[:, 1:].clone()
    y[1, 4:7] = IGNORED
    if packed:
        y[:, :-1] = y[:, :-1].where(DOCUMENTS.diff(dim=1) == 0, IGNORED)
    return Batch(tokens[:, :-1], y, DOCUMENTS if packed else None, int((y != IGNORED).sum()))


# ---- the losses ----


def plain_norm(x, scale):
    return x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt() * scale


def plain_block(x, w, path, heads=3):
    """A pre-norm layer over one document (t, d)."""
    n = plain_norm(x, w[f"{path}.mixer.norm.scale"])
    q, k, v = (n @ w[f"{path}.mixer.branch.{name}.weight"].T for name in "qkv")
    y, p = [], q.shape[1] // heads
    for part in (slice(i * p, (i + 1) * p) for i in range(heads)):
        scores = q[:, part] @ k[:, part].T * p**-0.5
        scores = scores.masked_fill(torch.ones_like(scores, dtype=torch.bool).triu(1), float("-inf"))
        y.append(scores.softmax(-1) @ v[:, part])
    x = x + torch.cat(y, dim=1) @ w[f"{path}.mixer.branch.out.weight"].T
    up = nn.functional.silu(plain_norm(x, w[f"{path}.mlp.norm.scale"]) @ w[f"{path}.mlp.branch.up.weight"].T)
    return x + up @ w[f"{path}.mlp.branch.out.weight"].T


def plain_states(word, w, x, change):
    """What the head reads for each depth, of one document x; at depth k only the positions that have x[i + k]."""
    embedded = w["embed.tokens.weight"][x]
    before = plain_block(embedded, w, "blocks.0")
    after = plain_block(before, w, "blocks.1")
    found, h = [plain_norm(after, w["norm.scale"])], after
    for k in (1, 2):
        path = f"ahead.parts.{k - 1}"
        if word == "heads":
            y = plain_block(after if change == "after the last layer" else before, w, f"{path}.block")
            found.append(y if change == "no norm" else plain_norm(y, w["norm.scale"]))
            continue
        e, h = embedded[k:], h[: max(0, len(x) - k)]
        h = after[: len(h)] if change == "no chain" else h
        e, h = (y if change == f"no {name}" else plain_norm(y, w[f"{path}.{name}.scale"])
                for name, y in (("embed_norm", e), ("state_norm", h)))
        pair = (h, e) if change == "the other order" else (e, h)
        h = torch.cat(pair, dim=-1) @ w[f"{path}.join.weight"].T
        h = h if change == "no block" else plain_block(h, w, f"{path}.alone.block")
        found.append(plain_norm(h, w["norm.scale" if change == "the model's norm" else f"{path}.norm.scale"]))
    return found


def plain_loss(word, w, batch, weight, change=None):
    """The total and the mean of each depth: documents one by one, targets one by one."""
    sums, counts = [0.0] * 3, [0] * 3
    for number, (row, y) in enumerate(zip(batch.x, batch.y, strict=True)):
        ids = torch.zeros(len(row)) if batch.documents is None else batch.documents[number]
        for document in ids.unique():
            x, targets = row[ids == document], y[ids == document].tolist()
            for k, states in enumerate(plain_states(word, w, x, change)):
                for i in range(len(x) - k):
                    target = targets[i + k - (change == "targets one too early" and k > 0)]
                    if target != IGNORED:
                        sums[k] = sums[k] - (states[i] @ w["head.unembed.weight"].T).log_softmax(-1)[target]
                        counts[k] += 1
    total = (sums[0] + weight * (sums[1] + sums[2]) / 2) / counts[0]
    return total, [s / n for s, n in zip(sums, counts, strict=True)]


@pytest.mark.parametrize("packed", [False, True], ids=["rows", "documents"])
@each_word
def test_losses_and_gradients_are_those_of_the_papers(word, packed):
    model, batch = small_model(ahead=word, **PLAIN).double(), batch_of(packed=packed)
    w = {name: p.detach().clone().requires_grad_() for name, p in model.named_parameters()}
    total, parts = plain_loss(word, w, batch, 0.3)
    losses = MultiToken(model, weight=0.3)(batch)
    assert_close(losses.total, total, "rounding")
    assert list(losses.parts) == ["multi_token", "ahead_1", "ahead_2"]
    assert_close(torch.stack(list(losses.parts.values())), torch.stack(parts).detach(), "rounding")
    losses.total.backward()
    expected = torch.autograd.grad(total, list(w.values()))
    for (name, p), grad in zip(model.named_parameters(), expected, strict=True):
        assert grad.abs().max() > 1e-6, name
        assert_close(p.grad, grad, "rounding")


CHANGES = {"heads": ("after the last layer", "no norm", "targets one too early"), "modules": (
    "no chain", "no embed_norm", "no state_norm", "the other order", "no block", "the model's norm",
    "targets one too early")}


@pytest.mark.parametrize(("word", "change"), [(word, change) for word in WORDS for change in CHANGES[word]])
def test_each_part_of_the_formula_matters(word, change):
    model, batch = small_model(ahead=word, **PLAIN).double(), batch_of()
    with torch.no_grad():
        total, _ = plain_loss(word, dict(model.named_parameters()), batch, 0.3, change)
        assert abs(total - MultiToken(model, weight=0.3)(batch).total) > 1e-4


def test_what_is_shifted_stays_within_its_document():
    places = torch.tensor([[0, 1, 2, 0, 0, 1, 2], [0, 1, 2, 3, 4, 0, 1]])
    values = torch.arange(14).view(2, 7)
    assert shifted(values, places, 1, fill=-1).tolist() == [[1, 2, -1, -1, 5, 6, -1], [8, 9, 10, 11, -1, 13, -1]]
    assert shifted(values, places, 2, fill=-1).tolist() == [[2, -1, -1, -1, 6, -1, -1], [9, 10, 11, -1, -1, -1, -1]]
    assert shifted(values, torch.arange(7), 3, fill=-100)[0].tolist() == [3, 4, 5, 6, -100, -100, -100]
    assert (shifted(values, torch.arange(7), 9, fill=-1) == -1).all()


@each_word
@pytest.mark.parametrize("packed", [False, True], ids=["rows", "documents"])
def test_a_part_sees_what_its_depth_allows_and_no_other_document(word, packed):
    model, batch = small_model(ahead=word, ahead_depth=2).double(), batch_of(packed=packed)
    ids = torch.zeros(13) if batch.documents is None else DOCUMENTS[1]

    def states(x):
        return model.look_ahead(model.read(x, documents=batch.documents))[0]

    with torch.no_grad():
        plain = states(batch.x)
        for place in range(13):
            x = batch.x.clone()
            x[1, place] = (x[1, place] + 1) % 37
            for k, (ours, other) in enumerate(zip(plain, states(x), strict=True), 1):
                moved = (ours - other).abs().amax(-1)[1] > 1e-12
                reach = k if word == "modules" else 0
                has_token = torch.arange(13) + reach <= torch.arange(13).where(ids == ids[place], -1).max()
                sees = (torch.arange(13) + reach >= place) & (ids == ids[place])
                assert moved[has_token | (torch.arange(13) < place - reach)].tolist() == \
                    sees[has_token | (torch.arange(13) < place - reach)].tolist()
                assert not moved[ids != ids[place]].any()


@each_word
def test_with_weight_0_the_trunk_learns_as_from_the_next_token_alone(word):
    model, batch = small_model(ahead=word), batch_of()
    grads = []
    for objective in (NextToken(model), MultiToken(model, weight=0.0)):
        model.zero_grad()
        losses = objective(batch)
        losses.total.backward()
        grads.append({name: p.grad for name, p in model.named_parameters() if not name.startswith("ahead.")})
        assert torch.equal(losses.parts[objective.own], losses.total)
    assert all(torch.equal(grads[0][name], grads[1][name]) for name in grads[0])


@each_word
def test_scores_are_those_of_the_next_token(word):
    model, batch = small_model(ahead=word), batch_of()
    alone = Model(override(model.cfg, {"ahead": "none"}))
    alone.load_state_dict({name: x for name, x in model.state_dict().items() if not name.startswith("ahead.")})
    for ours, theirs in zip(MultiToken(model).score(batch, top_k=2), NextToken(alone.eval()).score(batch, top_k=2),
                            strict=True):
        assert torch.equal(ours, theirs)


@each_word
def test_chunks_change_nothing_and_auxiliary_losses_count_those_of_the_parts(word):
    flags = {"ahead": word, "ahead_depth": 2, "z_loss": 1e-3, "mlp": "moe", "moe.balance_loss": 0.1}
    model, batch = small_model(**flags), batch_of(packed=True)
    whole, cut = (MultiToken(model, loss_chunk=chunk, log_accuracy=True)(batch) for chunk in (None, 4))
    assert list(whole.parts) == ["multi_token", "z", "train_accuracy", "balance", "ahead_1", "ahead_2"]
    for name, part in whole.parts.items():
        assert_close(cut.parts[name], part, "rounding")
    hidden = model.read(batch.x, documents=batch.documents)
    assert_close(whole.parts["balance"], hidden.losses["balance"] + model.look_ahead(hidden)[1]["balance"], "rounding")
    total = whole.parts["multi_token"] + 1e-3 * whole.parts["z"] + whole.parts["balance"]
    counts = [(shifted(batch.y, hidden.context.positions, k, fill=IGNORED) != IGNORED).sum() for k in (1, 2)]
    ahead = sum(whole.parts[f"ahead_{k}"] * n for k, n in zip((1, 2), counts, strict=True)) / batch.num_targets
    assert_close(whole.total, total + 0.15 * ahead, "rounding")


@pytest.mark.parametrize("backend", some(["eager", "aot_eager"], 2))  # the second also traces the gradient
@each_word
def test_it_compiles_whole_and_is_traced(word, backend):
    torch._dynamo.reset()
    objective, batch = MultiToken(small_model(ahead=word, num_layers=1), loss_chunk=8), batch_of(packed=True)
    assert_close(torch.compile(objective, backend=backend, fullgraph=True)(batch).total, objective(batch).total,
                 "same")
    with trace(objective.model) as t:
        objective(batch)
    assert word.capitalize() in str(t)


@each_word
def test_its_parts_count_in_flops_and_parameters(word):
    one, two = (small_config(ahead=word, ahead_depth=depth) for depth in (1, 2))
    first, second = (flops_of(cfg, 16, objective="multi_token") for cfg in (one, two))
    more = second - first
    assert more == first - flops_of(small_config(), 16)
    assert more > 6 * 24 * 37  # its block, besides its logits
    assert Model(two).num_parameters() > Model(one).num_parameters() > Model(small_config()).num_parameters()


# ---- texts ----

MODELS = {"plain": {}, "learned positions, pointer": {"position": "learned", "pointer": True},
          "window": {"attention.window": 3}, "recurrent": {"mixer": "mamba2", "layers": ("mamba2", "attention")},
          "several streams, shifted": {"residual": "mhc", "token_shift": ("mixer",), "smear": True},
          "a state before the head": {"final_norm_groups": 3}, "experts, loops": {"mlp": "moe", "stack": "loop"}}
SAMPLES = {"greedy": {"temperature": 0.0}, "drawn": {"temperature": 1.0},
           "cut": {"temperature": 0.8, "top_k": 9, "repetition_penalty": 1.3, "stop_at_eos": False}}


def written(write, model: Model, cfg: SampleConfig, prompts=((1, 2, 3), (4,), (5, 6), (4,))) -> list[tuple[int, int]]:
    texts = begin_texts(model.cfg, prompts, cfg.seed)
    return list(write(model, texts, cfg, eos_id=2, num_ids=30))


@each_word
@pytest.mark.parametrize("flags", some(MODELS.values(), 2), ids=MODELS)
def test_drafts_change_no_text(word, flags):
    """Past the end of the context, of several texts that end at different times, for several seeds, draw for draw."""
    if word == "heads" and "final_norm_groups" in flags:
        return
    for depth, (seed, sample) in zip((1, 3, 2), enumerate(SAMPLES.values()), strict=True):
        model = small_model(ahead=word, ahead_depth=depth, **flags)
        cfg = SampleConfig(max_new_tokens=25, seed=seed, **sample)
        assert written(speculate, model, cfg) == written(continue_texts, model, cfg)


@pytest.fixture(scope="module", params=WORDS)
def learned(request):
    """A model that knows a text by heart."""
    torch.manual_seed(0)
    model = Model(small_config(ahead=request.param, ahead_depth=3, dim=32, max_seq_len=48, qk_norm="head"))
    text = torch.randint(3, 37, (1, 40), generator=torch.Generator().manual_seed(5))
    optimizer, objective = torch.optim.Adam(model.parameters(), lr=5e-3), MultiToken(model, weight=1.0)
    for _ in range(150):
        losses = objective(Batch(text[:, :-1], text[:, 1:], None, 39))
        losses.total.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert max(losses.parts.values()) < 0.1
    return objective.eval(), text[0].tolist()


def passes(monkeypatch) -> list[int]:
    """Grows by a number for each forward pass of a model: the tokens read."""
    seen, read = [], Model.read
    monkeypatch.setattr(Model, "read", lambda self, tokens, **options: seen.append(tokens.shape[1]) or read(
        self, tokens, **options))
    return seen


def test_a_model_that_foresees_its_text_writes_it_in_a_quarter_of_the_passes(learned, monkeypatch):
    objective, text = learned
    seen, cfg = passes(monkeypatch), SampleConfig(temperature=0.0, max_new_tokens=37, stop_at_eos=False)
    assert objective.generate([text[:3]], cfg, eos_id=2) == [text[3:]]
    assert seen == [3, *[4] * 9]
    seen.clear()
    assert objective.generate([text[:3]] * 3, cfg, eos_id=2) == [text[3:]] * 3 and len(seen) == 10
    seen.clear()
    assert objective.generate([text[:3]] * 5, cfg, eos_id=2) == [text[3:]] * 5 and len(seen) == 37
    seen.clear()
    assert objective.generate([text[:3]], replace(cfg, drafts=False), eos_id=2) == [text[3:]] and len(seen) == 37


def test_a_wrong_draft_costs_no_pass_and_what_was_right_is_kept(learned, monkeypatch):
    """Parts that know nothing: as many passes as tokens, each with the drafts in vain."""
    objective, text = learned
    model = Model(objective.model.cfg)
    model.load_state_dict(objective.model.state_dict())
    randomise(model.ahead, seed=3)
    seen, cfg = passes(monkeypatch), SampleConfig(temperature=0.0, max_new_tokens=20, stop_at_eos=False)
    assert MultiToken(model).generate([text[:3]], cfg, eos_id=2) == [text[3:23]]
    assert 15 <= len(seen) <= 20 and max(seen) == 4


@each_word
def test_states_are_returned_to_and_little_is_read_again(word, monkeypatch):
    """A recurrent model cannot forget single tokens: it reads what was right once more, with the next drafts."""
    model = small_model(ahead=word, ahead_depth=2, mixer="mamba2", max_seq_len=64)
    seen, cfg = passes(monkeypatch), SampleConfig(temperature=0.0, max_new_tokens=50, stop_at_eos=False)
    ours, number = written(speculate, model, cfg, [[1, 2]]), len(seen)
    assert ours == written(continue_texts, model, cfg, [[1, 2]])
    assert number <= 50 and max(seen) <= 8 + 1 + 2 and sum(seen[:number]) > 100


@each_word
def test_a_draft_is_what_its_part_predicts_of_the_whole_text(word, monkeypatch):
    """From caches, with what depends on earlier drafts taken back, as from one pass over text and drafts."""
    model = small_model(ahead=word, ahead_depth=3, max_seq_len=40)
    read, checked = Reader.read, []

    def check(self):
        logits, drafts = read(self)
        for text, new in zip(self.texts, drafts.tolist(), strict=True):
            for k in range(1, len(new) + 1):
                hidden = model.read(torch.tensor([text.tokens + new[: k - 1]]))
                last = model.look_ahead(hidden)[0][k - 1][0, len(text.tokens) - 2]  # before the newest token
                assert model.head(last[None, None])[..., :30].argmax().item() == new[k - 1]
                checked.append(k)
        return logits, drafts

    monkeypatch.setattr(Reader, "read", check)
    with torch.no_grad():
        written(speculate, model, SampleConfig(temperature=0.0, max_new_tokens=14, stop_at_eos=False),
                prompts=[[1, 2, 3], [4]])
    assert {1, 2, 3} <= set(checked) and len(checked) > 30


# ---- runs ----

TRAINED = {"train.objective": "multi_token", "model.ahead": "modules", "model.ahead_depth": 2}


@pytest.mark.usefixtures("models")
def test_a_run_of_multi_token_learns_and_its_loss_is_exact(go):
    run = go(TRAINED)
    log = run.log()
    assert log.ahead_2.iloc[-1] < log.ahead_2.dropna().iloc[0]
    assert log.bits_per_byte.iloc[-1] < log.bits_per_byte.dropna().iloc[0]
    assert "≤" not in describe_run(run.path) and "≠" not in describe_run(run.path)


@each_word
@pytest.mark.usefixtures("models")
def test_an_export_leaves_the_parts_behind_and_says_so(word, folder, go, tmp_path):
    llama = {"model.attention.dropout": 0.0, "model.mlp": "glu", "model.activation": "silu", "model.qk_norm": "none",
             "model.norm": "rms", "model.norm_bias": False, "model.mlp_bias": False}
    run = go(TRAINED | llama | {"model.ahead": word, "train.steps": 2})
    assert any("model.ahead stay behind" in said for said in export_run(run, tmp_path / "exported"))
    assert not any("ahead" in name for name in load_file(tmp_path / "exported" / "model.safetensors"))


REFUSED = {
    "no parts": ({"train.objective": "multi_token"}, "model.ahead=none has no parts"),
    "parts that nothing trains": ({"model.ahead": "heads"}, "would train nothing of model.ahead=heads"),
    "a group of another": ({"train.multi_token.weight": 0.5}, "objective is multi_token"),
    "no weight": (TRAINED | {"train.multi_token.weight": 0.0}, "weight=0.0 must be above 0"),
    "a depth without parts": ({"model.ahead_depth": 2}, "ahead is not none"),
    "a norm with a state": (TRAINED | {"model.ahead": "heads", "model.final_norm_groups": 2}, "heads of"),
}


@pytest.mark.usefixtures("models")
@pytest.mark.parametrize(("flags", "sentence"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_is_said(go, flags, sentence):
    with pytest.raises(ValueError, match=sentence):
        go(flags)
