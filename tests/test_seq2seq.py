"""An encoder and a decoder: a target from its source, and hidden spans from the rest of a text."""

import numpy as np
import pytest
import torch
from helpers import assert_close, randomise, small_config, small_tokens
from test_encoder_decoder import FAMILY, SOURCE, TEXT, S, T, each_preset, pair
from thorough import some

from config import Config, SampleConfig, SpansConfig, TrainConfig, override
from configuration.rules import check_run
from data import IGNORED, Batch
from exchange.exporting import export_run
from generation.sampling import begin_texts
from memory_prediction.dry_run import dry_run
from model import Model
from objective import OBJECTIVES, Seq2Seq, SpanCorruption, make_objective
from objectives.noise import row_keys
from objectives.rows import Row
from optim import parameter_groups
from tools import trace

READS = {"cross": "attention", "encoder_layers": 2, "position": "t5", "vocab_size": 150}
START = 149  # the last id
TOKENS = 37  # ids of the texts


def reader(**flags) -> Model:
    return randomise(Model(small_config(**READS | flags))).eval()


def pairs(sources: list[list[int]], targets: list[list[int]], t: int = 15) -> Batch:
    """Rows of t tokens: the source has no targets."""
    x, y = torch.zeros(len(sources), t, dtype=torch.int64), torch.full((len(sources), t), IGNORED)
    for row, (source, target) in enumerate(zip(sources, targets, strict=True)):
        text = torch.tensor(source + target)
        x[row, : len(text) - 1], y[row, len(source) - 1 : len(text) - 1] = text[:-1], torch.tensor(target)
    return Batch(x, y, None, int((y != IGNORED).sum()), row_keys(5, torch.arange(len(sources))))


PAIRS = pairs([[1, 5, 6, 2], [1, 9, 2], [1, 7, 8, 9, 10, 11, 2]], [[12, 13, 14, 2], [15, 16, 17, 18, 19, 2], [20, 2]])


def text_rows(rows: int = 3, t: int = 15, *, padding: int = 0, seed: int = 0) -> Batch:
    """Rows that are each one text, the last with padding."""
    tokens = small_tokens(rows, t + 1, vocab_size=TOKENS, seed=seed)
    y = tokens[:, 1:].clone()
    y[-1, t - padding:] = IGNORED
    return Batch(tokens[:, :-1], y, None, int((y != IGNORED).sum()), row_keys(5, torch.arange(rows)))


def plain_loss(model: Model, sources: list[list[int]], targets: list[list[int]]) -> torch.Tensor:
    """The nats of targets, each pair alone, without padding."""
    total = 0.0
    for source, target in zip(sources, targets, strict=True):
        states = model.encode(torch.tensor([source]))
        logits = model(torch.tensor([[START, *target[:-1]]]), source=states)[0]
        total = total - logits.log_softmax(-1)[torch.arange(len(target)), torch.tensor(target)].sum()
    return total / sum(map(len, targets))


# ---- seq2seq ----


def test_a_pair_is_read_as_its_source_and_its_shifted_target():
    found = Seq2Seq(reader()).pair(PAIRS)
    assert found.source[0, :5].tolist() == [1, 5, 6, 2, 0] and found.positions[0, :5].tolist() == [0, 1, 2, 3, -1]
    assert found.given[0, :5].tolist() == [START, 12, 13, 14, 2]
    assert found.targets[0, :5].tolist() == [12, 13, 14, 2, IGNORED]
    assert found.source[2, 7:].eq(0).all()  # what follows the source is not even there


def test_of_a_text_the_second_half_is_predicted_from_the_first():
    found, batch = Seq2Seq(reader()).pair(text_rows(padding=5)), text_rows(padding=5)
    assert (found.positions >= 0).sum(-1).tolist() == [8, 8, 6]  # of 16, 16 and 11 tokens
    assert torch.equal(found.targets[0, :8], batch.y[0, 7:]) and (found.targets[0, 8:] == IGNORED).all()
    assert found.targets[2].ne(IGNORED).sum() == 5
    counted = Seq2Seq(reader()).score(batch).counted
    assert counted[0].tolist() == [False] * 7 + [True] * 8


def test_the_loss_of_pairs_is_that_of_each_alone():
    model = reader()
    sources, targets = [[1, 5, 6, 2], [1, 9, 2]], [[12, 13, 14, 2], [15, 16, 17, 18, 19, 2]]
    losses = Seq2Seq(model)(pairs(sources, targets))
    assert_close(losses.total, plain_loss(model, sources, targets), "same")
    losses.total.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


@each_preset
def test_loss_and_gradients_are_those_of_t5(preset):
    cfg, theirs, ours = pair(preset)
    ours.zero_grad()
    theirs.zero_grad()
    lengths = [S, S - 6]
    sources = [[1, *SOURCE[row, S - length:].tolist()] for row, length in enumerate(lengths)]  # tokens before targets
    targets = [[*TEXT[0].tolist()], [*TEXT[1, :5].tolist()]]
    labels = torch.full((2, T), IGNORED)
    ids, mask = torch.zeros(2, S + 1, dtype=torch.int64), torch.zeros(2, S + 1, dtype=torch.int64)
    for row in range(2):
        labels[row, : len(targets[row])] = torch.tensor(targets[row])
        ids[row, : len(sources[row])], mask[row, : len(sources[row])] = torch.tensor(sources[row]), 1
    theirs.config.decoder_start_token_id = theirs.config.pad_token_id = 3
    expected = theirs(input_ids=ids, attention_mask=mask, labels=labels).loss
    expected.backward()
    loss = Seq2Seq(ours, start_id=3)(pairs(sources, targets, t=S + T)).total
    loss.backward()
    assert_close(loss, expected, "parity")
    own = dict(ours.named_parameters())
    gradients = {name: parameter.grad for name, parameter in theirs.named_parameters()}
    assert_close({name: p.grad for name, p in own.items()}, dict(FAMILY.weights.to_ours(cfg, own, gradients)),
                 "parity_grad")


def nats(objective, batch: Batch) -> torch.Tensor:
    return objective.score(batch).nats


def test_the_source_is_seen_and_later_targets_and_padding_are_not():
    objective = Seq2Seq(reader().double())
    plain = nats(objective, PAIRS)
    for place in range(3):  # of the source of the first row, whose targets stand at 3, 4, 5 and 6
        other = PAIRS.x.clone()
        other[0, place] += 1
        moved = (nats(objective, PAIRS._replace(x=other)) - plain).abs() > 1e-9
        assert moved[0].tolist() == [False] * 3 + [True] * 4 + [False] * 8 and not moved[1:].any()
    later = PAIRS.x.clone(), PAIRS.y.clone()
    later[0][0, 5] = later[1][0, 4] = 30
    moved = (nats(objective, PAIRS._replace(x=later[0], y=later[1])) - plain).abs() > 1e-9
    assert moved[0, 3:7].tolist() == [False, True, True, True]
    padding = PAIRS.x.clone()
    padding[0, 10:] = 33
    assert torch.equal(nats(objective, PAIRS._replace(x=padding)), plain)


# ---- span corruption ----


def reference_mask(length: int, visible: list[int], hidden: list[int]) -> np.ndarray:
    """T5's mask of given segments: they alternate, and begin with a visible one."""
    mask, start = np.zeros(length, dtype=bool), 0
    for seen, gone in zip(visible, hidden, strict=True):
        mask[start + seen : start + seen + gone] = True
        start += seen + gone
    return mask


def reference_ids(tokens: np.ndarray, mask: np.ndarray, first: int, end: int) -> tuple[list[int], list[int]]:
    """T5's input and target: a span is one sentinel in the input, and follows its sentinel in the target."""
    source, target, sentinel = [], [], first + 1
    for place, (token, gone) in enumerate(zip(tokens.tolist(), mask.tolist(), strict=True)):
        if gone and (place == 0 or not mask[place - 1]):
            sentinel -= 1
            source.append(sentinel)
            target.append(sentinel)
        (target if gone else source).append(token)
    return source, [*target, end]


def cut(random: np.random.Generator, size: int, number: int) -> list[int]:
    places = np.sort(random.choice(np.arange(1, size), number - 1, replace=False))
    return np.diff([0, *places, size]).tolist()


def test_inputs_and_targets_are_those_of_t5_for_given_masks():
    objective, random = SpanCorruption(reader(max_seq_len=60)), np.random.default_rng(0)
    for length in (2, 3, 7, 20, 33, 60):
        batch = text_rows(2, 59, padding=60 - length)
        hidden, spans = SpansConfig().counts(length)
        mask = np.zeros((2, 60), dtype=bool)
        mask[1, :length] = reference_mask(length, cut(random, length - hidden, spans), cut(random, hidden, spans))
        row = Row.of(batch)
        found = objective.corrupted(row, torch.from_numpy(mask))
        source, target = reference_ids(row.tokens[1, :length].numpy(), mask[1, :length], START - 1, START)
        assert found.source[1, : len(source)].tolist() == source
        assert (found.positions[1] >= 0).sum() == len(source)
        assert found.targets[1][found.targets[1] != IGNORED].tolist() == target
        assert found.given[1, : len(target)].tolist() == [START, *target[:-1]]


@pytest.mark.parametrize("spans", [SpansConfig(), SpansConfig(rate=0.4, mean_len=1.5), SpansConfig(rate=0.8)])
def test_counts_are_exact_for_every_length(spans):
    objective = SpanCorruption(reader(max_seq_len=60), spans)
    for length in range(2, 61):
        batch = text_rows(3, 59, padding=60 - length)
        hidden = objective.draw(Row.of(batch))
        num_hidden = min(max(int(np.round(length * spans.rate)), 1), length - 1)
        num_spans = max(1, int(np.round(num_hidden / spans.mean_len)))
        assert hidden[-1].sum() == num_hidden and not hidden[:, 0].any() and not hidden[-1, length:].any()
        begins = hidden[-1, 1:] & ~hidden[-1, :-1]
        assert begins.sum() == min(num_spans, length - num_hidden)
        found = objective.pair(batch)
        assert found.is_text.sum(-1)[-1] == num_hidden
        assert (found.targets[-1] != IGNORED).sum() == num_hidden + begins.sum() + 1


def test_every_mask_is_as_likely():
    """Of 8 tokens 3 are hidden in 2 spans: 2 cuts of the hidden ones times 4 of the others."""
    objective = SpanCorruption(reader(), SpansConfig(rate=0.4, mean_len=1.5))
    batch = text_rows(1, 7)
    batch = Batch(batch.x.expand(4000, -1), batch.y.expand(4000, -1), None, 28_000, row_keys(1, torch.arange(4000)))
    masks, counts = objective.draw(Row.of(batch)).unique(dim=0, return_counts=True)
    assert len(masks) == 8 and ((counts / 4000 - 1 / 8).abs() < 0.02).all()


def test_the_source_of_a_pair_is_never_hidden():
    hidden = SpanCorruption(reader(), SpansConfig(rate=0.5)).draw(Row.of(PAIRS))
    assert hidden.any(-1).all() and not (hidden & ~Row.of(PAIRS).is_target).any()


def test_the_loss_and_the_score_of_spans_are_those_of_each_row_alone():
    model, batch = reader(), text_rows(padding=4)
    objective = SpanCorruption(model, SpansConfig(rate=0.3, mean_len=2.0))
    row = Row.of(batch)
    mask, sources, targets = objective.draw(row).numpy(), [], []
    for number, length in enumerate((16, 16, 12)):
        ids = reference_ids(row.tokens[number, :length].numpy(), mask[number, :length], START - 1, START)
        sources.append(ids[0])
        targets.append(ids[1])
    assert_close(objective(batch).total, plain_loss(model, sources, targets), "same")
    by_text = Row.of(batch._replace(keys=None))
    hidden, scores = objective.draw(by_text), objective.score(batch)
    assert torch.equal(scores.counted, hidden[:, 1:])
    for number in range(3):
        length = (16, 16, 12)[number]
        source, target = reference_ids(by_text.tokens[number, :length].numpy(), hidden[number, :length].numpy(),
                                       START - 1, START)
        logits = model(torch.tensor([[START, *target[:-1]]]), source=model.encode(torch.tensor([source])))[0]
        each = -logits.log_softmax(-1)[torch.arange(len(target)), torch.tensor(target)]
        expected = [value.item() for value, token in zip(each, target, strict=True) if token < TOKENS]
        assert_close(scores.nats[number][hidden[number, 1:]], torch.tensor(expected), "same")
    assert (scores.nats[~scores.counted] == 0).all()


def test_hidden_tokens_are_not_in_the_source():
    objective = SpanCorruption(reader())
    row = Row.of(text_rows())
    hidden = objective.draw(row)
    other = row._replace(tokens=row.tokens.where(~hidden, 36))
    ours, theirs = (objective.corrupted(each, hidden) for each in (row, other))
    assert torch.equal(ours.source, theirs.source) and not torch.equal(ours.targets, theirs.targets)


# ---- both ----

each_objective = pytest.mark.parametrize("kind", [Seq2Seq, SpanCorruption])


@each_objective
def test_a_score_depends_on_the_row_alone_and_an_empty_row_on_nothing(kind):
    objective, batch = kind(reader()), text_rows(4, padding=15)
    assert objective.score(batch).counted[:3].any(-1).all() and not objective.score(batch).counted[3].any()
    together = nats(objective, batch)
    alone = torch.cat([nats(objective, batch.map(lambda x, i=i: x[i : i + 1])) for i in range(4)])
    assert together.isfinite().all()
    assert_close(alone, together, "same")


@each_objective
def test_chunks_change_neither_loss_nor_scores(kind):
    model, batch = reader(z_loss=1e-3), text_rows(padding=4)
    whole, chunked = (kind(model, loss_chunk=chunk, log_accuracy=True) for chunk in (None, 2))
    for name, part in whole(batch).parts.items():
        assert_close(chunked(batch).parts[name], part, "rounding")
    for ours, theirs in zip(chunked.score(batch, top_k=3), whole.score(batch, top_k=3), strict=True):
        assert_close(ours, theirs, "rounding")


@pytest.mark.parametrize("backend", some(["eager", "aot_eager"], 2))  # the second also traces the gradient
@pytest.mark.parametrize("kind", some([SpanCorruption, Seq2Seq], 2))
def test_it_compiles_in_one_piece_and_is_traced(kind, backend):
    torch._dynamo.reset()
    objective, batch = kind(reader(num_layers=1, encoder_layers=1)), text_rows(padding=4)
    compiled = torch.compile(objective, backend=backend, fullgraph=True)
    assert_close(compiled(batch).total, objective(batch).total, "same")
    with torch.no_grad(), trace(objective) as t:
        objective(batch)
    assert not [call.problem for call in t.walk() if call.problem] and "CrossAttention" in str(t)


# ---- texts ----

GREEDY = SampleConfig(temperature=0.0, stop_at_eos=False, max_new_tokens=9)
PROMPTS = [[1, 5, 6, 2], [1], [1, 7, 8, 9, 10, 11, 12, 2]]


def test_cached_texts_are_those_read_anew_each_time():
    model = reader()
    for prompt, text in zip(PROMPTS, Seq2Seq(model).generate(PROMPTS, GREEDY, eos_id=-1, num_ids=30), strict=True):
        tokens = [START]
        for _ in range(9):
            with torch.no_grad():
                logits = model(torch.tensor([tokens]), source=model.encode(torch.tensor([prompt])))
            tokens.append(logits[0, -1, :30].argmax().item())
        assert text == tokens[1:]


@each_objective
def test_batches_change_no_text_and_the_prompt_is_encoded_once(kind, monkeypatch):
    objective, cfg = kind(reader()), override(GREEDY, {"temperature": 1.0, "stop_at_eos": True})
    calls = []
    objective.model.encoder.register_forward_hook(lambda *_: calls.append(1))
    together = objective.generate(PROMPTS, cfg, eos_id=2, num_ids=30)
    assert len(calls) == 1 and max(map(max, together)) < 30
    monkeypatch.setattr("generation.sampling.rows_at_a_time", lambda cfg: 1)
    assert objective.generate(PROMPTS, cfg, eos_id=2, num_ids=30) == together
    assert objective.generate(PROMPTS, override(cfg, {"repetition_penalty": 1.5}), eos_id=2, num_ids=30)


@each_objective
def test_texts_outgrow_the_context_and_of_a_long_prompt_the_end_is_read(kind):
    objective = kind(reader())
    cfg = override(GREEDY, {"max_new_tokens": 40, "temperature": 1.0})
    texts = objective.generate([[1] * 40, [1, 2, 3]], cfg, eos_id=-1, num_ids=30)
    assert [len(text) for text in texts] == [40, 40]
    long = list(range(4, 30))
    text, = begin_texts(objective.model.cfg, [long], 0)
    assert objective.begin(text).source == (long[-16:] if kind is Seq2Seq else [*long[-15:], START - 1])


def test_a_span_ends_where_its_next_sentinel_would_come():
    objective = SpanCorruption(reader())
    weight = objective.model.head.unembed.weight.data
    weight[2] = 0
    texts = objective.generate([[1, 4]], override(GREEDY, {"stop_at_eos": True}), eos_id=2, num_ids=30)
    with torch.no_grad():
        source = objective.model.encode(torch.tensor([[1, 4, START - 1]]))
        logits = objective.model(torch.tensor([[START, START - 1]]), source=source)[0, -1]
    ends = logits[[2, START - 2, START]].logsumexp(0)
    others = logits[:30].clone()
    others[2] = ends
    assert texts[0][0] == others.argmax()


def test_what_is_learned_by_heart_is_written():
    """A target that is its source reversed."""
    torch.manual_seed(0)
    model = Model(small_config(**READS | {"dim": 32}))
    objective, optimizer = Seq2Seq(model), torch.optim.Adam(model.parameters(), lr=3e-3)
    sources = [[1, 5, 6, 7, 2], [1, 9, 8, 2], [1, 11, 10, 12, 13, 2]]
    batch = pairs(sources, [[*source[-2:0:-1], 2] for source in sources])
    for _ in range(150):
        objective(batch).total.backward()
        optimizer.step()
        optimizer.zero_grad()
    cfg = override(GREEDY, {"stop_at_eos": True})
    assert objective.generate(sources, cfg, eos_id=2) == [[*source[-2:0:-1], 2] for source in sources]


# ---- runs ----

MODEL = {"model.cross": "attention", "model.encoder_layers": 2}
RUNS = {"seq2seq": MODEL | {"train.objective": "seq2seq"},
        "span_corruption": MODEL | {"train.objective": "span_corruption", "train.spans.rate": 0.3}}
each_run = pytest.mark.parametrize("name", RUNS)


@pytest.mark.usefixtures("models")
@each_run
def test_a_run_learns_and_is_not_exported(name, go, tmp_path):
    run = go(RUNS[name])
    log = run.log()
    assert log.val_loss.iloc[-1] < log.val_loss.dropna().iloc[0]
    with pytest.raises(ValueError, match="model.cross=attention"):
        export_run(run, tmp_path / "exported")


@pytest.mark.usefixtures("models")
def test_seq2seq_begins_with_the_weights_of_span_corruption(go):
    first = go(RUNS["span_corruption"] | {"train.name": "first", "train.steps": 4})
    size = first.config.model.vocab_size
    assert size == first.tokenizer().vocab_size + 101
    tuned = go(RUNS["seq2seq"] | {"train.name": "tuned", "train.init_from": "first", "model.vocab_size": size,
                                  "train.steps": 1, "train.lr": 1e-12})
    ours, theirs = tuned.load_model().state_dict(), first.load_model().state_dict()
    assert ours.keys() == theirs.keys()
    for name, tensor in theirs.items():
        assert_close(ours[name], tensor, "rounding")


@each_run
def test_every_weight_is_in_a_group_of_the_optimizer(name):
    model = Model(small_config(**READS))
    groups = parameter_groups(model, TrainConfig()).values()
    assert len(list(model.parameters())) == sum(len(group["params"]) for group in groups)
    assert isinstance(make_objective(model, TrainConfig(objective=name)), OBJECTIVES[name])


@each_run
def test_its_memory_is_that_of_real_tensors(name):
    cfg = override(Config(), {f"model.{flag}": value for flag, value in READS.items()} | {
        "model.dim": 32, "model.num_layers": 2, "model.attention.num_heads": 4, "model.max_seq_len": 32,
        "train.objective": name, "train.precision": "float32"})
    fake, real = (dry_run(cfg, rows=3, num_texts=2, fake=fake) for fake in (True, False))
    assert {where: part.num_bytes for where, part in fake.items()} == {
        where: part.num_bytes for where, part in real.items()}
    assert {("forward", "encoder"), ("sampling", "texts")} <= fake.keys()


REFUSED = {
    "no encoder": ({"train.objective": "seq2seq"}, "seq2seq is of an encoder and a decoder: give model.cross"),
    "no source": (MODEL | {"train.objective": "masked_diffusion"}, "masked_diffusion gives no source"),
    "documents": (RUNS["seq2seq"] | {"data.packing": "documents"}, "use data.packing=stream or pad"),
    "sentinels": (RUNS["span_corruption"] | {"model.max_seq_len": 1024, "train.spans.mean_len": 1.0},
                  "in 307 spans, and there are 100 sentinels"),
    "targets": (RUNS["span_corruption"] | {"train.spans.rate": 0.9}, "must fit in model.max_seq_len too"),
    "flags": ({"train.spans.rate": 0.3}, "acts only when objective is span_corruption"),
    "rate": (RUNS["span_corruption"] | {"train.spans.rate": 1.0}, "rate=1.0 must lie between 0 and 1"),
    "length": (RUNS["span_corruption"] | {"train.spans.mean_len": 0.5}, "mean_len=0.5 must be 1 or more"),
}


@pytest.mark.parametrize(("flags", "sentence"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_is_said(flags, sentence):
    with pytest.raises(ValueError, match=sentence):
        check_run(override(Config(), {"model.max_seq_len": 16, "model.pointer": False} | flags))
