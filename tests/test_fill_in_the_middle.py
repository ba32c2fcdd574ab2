"""Fill in the middle: how rows are rearranged, what is scored, and that a gap is filled in."""

import math
from collections import Counter
from itertools import product

import pytest
import torch
from helpers import assert_close, small_config, small_model, small_tokens

import inference
import runs
from config import SampleConfig, TrainConfig
from data import IGNORED, Batch, eval_batches
from inference import load_objective
from model import Model
from objective import FillInTheMiddle, NextToken, make_objective
from objectives.cuts import Cut
from objectives.noise import row_keys
from objectives.rows import Row
from training.setup import prepare_run

PRE, SUF, MID = 34, 35, 36  # the last ids of small_config
SIZE = 9  # tokens of a row and the one after it


def batch_of(lengths: list[int], *, source: int = 0, seed: int = 0) -> Batch:
    """Rows of texts of so many tokens, then padding; the first has a source of so many tokens after the first."""
    tokens = small_tokens(len(lengths), SIZE, vocab_size=33, seed=seed) + 1
    place = torch.arange(SIZE)
    is_text = place < torch.tensor(lengths)[:, None]
    y = tokens[:, 1:].where(is_text[:, 1:], IGNORED)
    y[0, :source] = IGNORED
    x = tokens.where(is_text, 0)[:, :-1]
    return Batch(x, y, None, int((y != IGNORED).sum()), row_keys(5, torch.arange(len(lengths))))


def rearranged(tokens: list[int], first: int, left: int, right: int, *, spm: bool) -> list[int]:
    """The tokens of a text, whose last one ends it if the row has room for more."""
    end = len(tokens) - (len(tokens) < SIZE)
    head, prefix, middle = tokens[:first], tokens[first:left], tokens[left:right]
    suffix, tail = tokens[right:end], tokens[end:]
    if spm:
        return [*head, PRE, SUF, *suffix, MID, *prefix, *middle, *tail]
    return [*head, PRE, *prefix, SUF, *suffix, MID, *middle, *tail]


def rows_read(objective: FillInTheMiddle, row: Row, places: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """What the model reads, and its targets."""
    seen = []
    read, objective.model.read = objective.model.read, lambda tokens: seen.append(tokens)
    _, targets = objective.read(row, places)
    objective.model.read = read
    return seen[0], targets


@pytest.mark.parametrize(("length", "source"), [(2, 0), (3, 0), (5, 0), (SIZE, 0), (8, 3), (SIZE, 3), (5, 3)])
def test_every_cut_in_both_orders_is_that_of_lists(length, source):
    first, end = source + 1, length - (length < SIZE)
    cuts = [(left, right, spm) for spm in (False, True) for left in range(first, end + 1)
            for right in range(left, end + 1)]
    one = batch_of([length], source=source)
    batch = one.map(lambda x: x.repeat(len(cuts), *[1] * (x.dim() - 1)))
    row, objective = Row.of(batch), FillInTheMiddle(small_model())
    left, right, is_spm = (torch.tensor(each) for each in zip(*cuts, strict=True))
    cut = Cut.of(row)._replace(left=left[:, None], right=right[:, None])
    places = cut.places(row, is_cut=torch.ones_like(is_spm, dtype=torch.bool), is_spm=is_spm.bool())
    x, y = rows_read(objective, row, places)
    assert x.shape == y.shape == (len(cuts), SIZE + 2)
    tokens = row.tokens[0, :length].tolist()
    for number, (left, right, spm) in enumerate(cuts):
        expected = rearranged(tokens, first, left, right, spm=spm)
        whole = [*x[number].tolist(), y[number, -1].item()]
        assert whole[: length + 3] == expected
        assert y[number].tolist() == [IGNORED] * source + expected[first:] + [IGNORED] * (SIZE - length)


def test_cuts_are_uniform_pairs_and_orders_as_often_as_asked():
    batch = batch_of([6] * 6000)
    row = Row.of(batch)
    cut = Cut.of(row)
    counts = Counter(zip(cut.left.flatten().tolist(), cut.right.flatten().tolist(), strict=True))
    for left, right in product(range(1, 6), repeat=2):
        p = (left <= right) * (1 + (left < right)) / 25  # two uniform places, in order
        assert abs(counts[left, right] / 6000 - p) < 0.015
    objective, seen = FillInTheMiddle(small_model(), rate=0.3, spm_rate=0.8), []
    objective.model.read = lambda tokens: seen.append(tokens) or Model.read(objective.model, tokens)
    objective(batch)
    x = seen[0][(cut.left > 1).flatten()]
    is_cut = x[:, 1] == PRE
    assert abs(is_cut.float().mean() - 0.3) < 0.03
    assert abs((x[is_cut][:, 2] == SUF).float().mean() - 0.8) < 0.03


def test_the_loss_is_that_of_rearranged_rows_one_at_a_time():
    model, batch = small_model(), batch_of([9, 2, 5, 8, 1, 9, 3], source=4)
    objective = FillInTheMiddle(model, rate=0.7)
    row, total, count = Row.of(batch), 0.0, 0
    cut, seen = Cut.of(row), []
    objective.model.read = lambda tokens: seen.append(tokens) or Model.read(model, tokens)
    loss = objective(batch).total
    del model.read
    kinds = set()
    for number, length in enumerate([9, 2, 5, 8, 1, 9, 3]):
        tokens, x = row.tokens[number, :length].tolist(), seen[0][number].tolist()
        first = 5 if number == 0 else 1
        left, right = cut.left[number].item(), cut.right[number].item()
        ways = {"plain": tokens, "psm": rearranged(tokens, first, left, right, spm=False),
                "spm": rearranged(tokens, first, left, right, spm=True)}
        kind = next(kind for kind, way in ways.items() if x[: len(way)] == way[: SIZE + 2])
        kinds.add(kind)
        if length == 1:
            assert kind == "plain"
        way = torch.tensor(ways[kind])
        nats = -model(way[None, :-1])[0].log_softmax(-1).gather(-1, way[1:, None]) if length > 1 else torch.zeros(0)
        total, count = total + nats[first - 1:].sum(), count + len(nats[first - 1:])
    assert kinds == {"plain", "psm", "spm"}
    assert_close(loss, total / count, "same")


def test_a_row_of_padding_stays_one():
    batch = batch_of([5, 0, 1])
    row = Row.of(batch)
    places = Cut.of(row).places(row, is_cut=torch.ones(3, dtype=torch.bool), is_spm=torch.zeros(3, dtype=torch.bool))
    _, y = rows_read(FillInTheMiddle(small_model()), row, places)
    assert (y[1:] == IGNORED).all() and (y[0] != IGNORED).sum() == 7


def test_without_cuts_it_is_next_token_training():
    model, batch = small_model(), batch_of([9, 4, 2])
    ours = FillInTheMiddle(model, rate=0.0)(batch)
    widened = batch._replace(x=torch.nn.functional.pad(Row.of(batch).tokens, (0, 2)),
                             y=torch.nn.functional.pad(batch.y, (0, 3), value=IGNORED))
    assert torch.equal(ours.total, NextToken(model)(widened).total)
    assert_close(ours.total, NextToken(model)(batch).total, "rounding")


def test_a_score_is_of_the_text_in_its_order_and_of_no_id_of_its_own():
    model, batch = small_model(), batch_of([9, 4, 2])
    scores = FillInTheMiddle(model).score(batch, top_k=2)
    expected = -model(batch.x)[..., :PRE].log_softmax(-1).gather(-1, batch.y.clamp(min=0)[..., None])[..., 0]
    is_target = batch.y != IGNORED
    assert torch.equal(scores.counted, is_target)
    assert_close(scores.nats, expected.where(is_target, 0.0), "rounding")


@pytest.mark.parametrize("spm", [False, True])
def test_a_middle_is_scored_after_both_sides_of_it(spm):
    model, lengths = small_model(), [9, 4, 2, 8, 7, 1, 9]
    batch = batch_of(lengths)
    scores = FillInTheMiddle(model).score_middle(batch, top_k=3, spm=spm)
    row = Row.of(batch._replace(keys=None))
    cut = Cut.of(row)
    for number, length in enumerate(lengths[:5]):
        tokens, nats = row.tokens[number, :length].tolist(), torch.zeros(SIZE - 1)
        left, right, end = (x[number].item() for x in (cut.left, cut.right, cut.end))
        way = rearranged(tokens, 1, left, right, spm=spm)
        p = model(torch.tensor([way]))[0, :, :PRE].log_softmax(-1)
        wanted = [*range(left, right), *range(end, length)]
        for back, token in enumerate(reversed(wanted)):  # they end the row
            nats[token - 1] = -p[len(way) - back - 2, tokens[token]]
        assert_close(scores.nats[number], nats, "same")
        assert scores.counted[number].nonzero().flatten().tolist() == [token - 1 for token in wanted]
    assert not scores.counted[5].any()
    assert torch.equal(scores.right.sum((1, 2)) > 0, (scores.right * scores.counted[..., None]).sum((1, 2)) > 0)


def test_chunks_change_neither_loss_nor_scores():
    model, batch = small_model(z_loss=1e-3), batch_of([9, 4, 8])
    whole, cut = (FillInTheMiddle(model, rate=1.0, loss_chunk=chunk, log_accuracy=True) for chunk in (None, 4))
    for name, part in whole(batch).parts.items():
        assert_close(cut(batch).parts[name], part, "rounding")
    for score in ("score", "score_middle"):
        pairs = zip(getattr(cut, score)(batch, top_k=3), getattr(whole, score)(batch, top_k=3), strict=True)
        for ours, theirs in pairs:
            assert_close(ours, theirs, "rounding")


@pytest.mark.thorough
def test_it_compiles_whole():
    torch._dynamo.reset()
    model, batch = small_model(num_layers=1), batch_of([9, 4, 8])
    compiled = torch.compile(FillInTheMiddle(model), backend="aot_eager", fullgraph=True)
    assert_close(compiled(batch).total, FillInTheMiddle(model)(batch).total, "rounding")


# ---- texts ----

def test_ids_of_its_own_are_never_drawn():
    objective = FillInTheMiddle(small_model())
    cfg = SampleConfig(temperature=5.0, stop_at_eos=False, max_new_tokens=40)
    assert max(map(max, objective.generate([[1]] * 20, cfg, eos_id=-1))) < PRE
    assert max(map(max, objective.generate([[1]] * 20, cfg, eos_id=-1, num_ids=20))) < 20


def test_a_gap_ends_with_the_context_and_must_fit_into_it():
    objective = FillInTheMiddle(small_model())
    cfg = SampleConfig(num_samples=2, stop_at_eos=False)
    assert [len(new) for new in objective.infill([1, 5, 6], [7, 8], cfg, eos_id=-1)] == [9, 9]  # 16 tokens are read
    with pytest.raises(ValueError, match="give a shorter prompt or suffix"):
        objective.infill([1] * 8, [7] * 6, cfg, eos_id=-1)


def test_what_is_learned_by_heart_is_filled_in():
    """Three texts whose ends are alike and whose middles are not: each gap of each, in both orders."""
    model = Model(small_config(dim=32))
    objective = FillInTheMiddle(model, rate=0.9)
    texts = torch.tensor([[1, 5, 6, 7, 8, 9, 10, 2], [1, 9, 9, 7, 5, 6, 10, 2], [1, 7, 5, 9, 11, 9, 10, 2]])
    rows = torch.nn.functional.pad(texts.repeat(8, 1), (0, 1))  # padding tells that the texts are whole
    y = rows[:, 1:].clone()
    y[:, -1] = IGNORED
    optimizer = torch.optim.Adam(model.parameters(), lr=8e-3)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.05, 400)
    for step in range(400):
        batch = Batch(rows[:, :-1], y, None, 168, row_keys(step, torch.arange(24)))
        objective(batch).total.backward()
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
    cfg = SampleConfig(temperature=0.0, num_samples=1)
    for tokens, spm, right in product(texts.tolist(), (False, True), range(3, 8)):
        for left in range(2, right + 1):  # the first two tell the texts apart
            middle, = objective.infill(tokens[:left], tokens[right:7], cfg, eos_id=2, spm=spm)
            assert middle == [*tokens[left:right], 2], (tokens, left, right, spm)
    for tokens in texts.tolist():
        assert objective.generate([tokens[:2]], cfg, eos_id=2) == [tokens[2:]]


# ---- runs ----

FIM = {"train.objective": "fill_in_the_middle", "train.log_accuracy": True}


def bits_of_middles(run: runs.Run) -> float:
    """The bits per byte of a middle of each validation text and of the texts' ends, which have no bytes."""
    objective, nats, num_bytes = load_objective(run, "last"), 0.0, 0
    setup = prepare_run(run.config, torch.device("cpu"), run=run)
    for batch in map(setup.change, eval_batches(setup.val_part, 3, run.config.row_len, "pad")):
        scores = objective.score_middle(batch)
        nats += scores.nats.sum().item()
        num_bytes += run.tokenizer().byte_lengths[batch.y[scores.counted]].sum()
    return nats / math.log(2) / num_bytes


@pytest.mark.usefixtures("models")
def test_a_run_learns_and_fills_in(go, capsys):
    run = go(FIM | {"data.packing": "pad", "tokenizer.kind": "bpe", "tokenizer.vocab_size": 44})  # pieces of words
    log = run.log()
    assert log.bits_per_byte.iloc[-1] < log.bits_per_byte.dropna().iloc[0]
    assert log.middle_bits_per_byte.iloc[-1] == pytest.approx(bits_of_middles(run), rel=1e-5)
    assert run.config.model.vocab_size == run.tokenizer().vocab_size + 3
    capsys.readouterr()
    inference.main(["toy", "the", "--suffix", " fox", "--num-samples", "1"])
    text = capsys.readouterr().out
    assert text.startswith("the") and text.endswith(" fox\n")


@pytest.mark.usefixtures("models")
def test_a_suffix_is_refused_by_another_objective_and_with_a_score(folder, go, capsys):
    go({"train.steps": 1})
    for words, sentence in ((["the", "--suffix", " fox"], "has learned next_token: leave it out"),
                            (["--suffix", " fox", "--score", "-"], "generates nothing")):
        with pytest.raises(SystemExit):
            inference.main(["toy", *words])
        assert sentence in " ".join(capsys.readouterr().err.split())


REFUSED = {
    "documents": ({"data.packing": "documents"}, "use data.packing=stream or pad"),
    "a task": ({"data.name": "mqar", "data.packing": "pad", "tokenizer.kind": "bpe"}, "asks for answers"),
    "a small vocabulary": ({"model.vocab_size": 17}, "needs beside them"),
    "a rate above 1": ({"train.fim.rate": 1.5}, "must lie between 0 and 1"),
}


@pytest.mark.usefixtures("models")
@pytest.mark.parametrize(("flags", "sentence"), REFUSED.values(), ids=REFUSED)
def test_what_it_cannot_do_is_said(go, flags, sentence):
    with pytest.raises(ValueError, match=sentence):
        go(FIM | flags)


def test_flags_of_another_objective_are_refused():
    with pytest.raises(ValueError, match="objective is fill_in_the_middle"):
        TrainConfig(fim={"rate": 0.9})
    objective = make_objective(small_model(), TrainConfig(objective="fill_in_the_middle", fim={"spm_rate": 0.25}))
    assert (objective.rate, objective.spm_rate, objective.row_len) == (0.5, 0.25, 13)
