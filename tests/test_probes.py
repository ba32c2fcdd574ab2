"""Each synthetic task asks what its definition says, and is a corpus like any other."""

import numpy as np
import pytest
import torch
from small_runs import assert_same_run

from config import DataConfig, load_config, override
from corpora.corpus import load_corpus
from corpora.probe_rows import BLOCK, ProbeRows
from data import NewBatches, eval_batches
from experiments.probe import BASE as BASE_FILE
from probes import IGNORED, PROBES
from probes.tracking import elements, products
from runs import Run
from tokenization.symbols import SymbolTokenizer
from tokenizer import load_tokenizer
from train import train
from training.setup import prepare_run

BASE = load_config(BASE_FILE)


Row = tuple[list[str], list[str | None]]  # inputs, and answers; None = nothing is asked


def spelled(name: str, length: int | None = None, count: int = 40, **numbers) -> list[Row]:
    """Rows of a task in words."""
    task = PROBES[name]
    numbers = task.numbers._replace(**numbers)
    words = task.words(numbers)
    inputs, answers = task.draw(np.random.default_rng(1), count, length or task.length, numbers)
    return [([words[i] for i in x], [None if i == IGNORED else words[i] for i in y])
            for x, y in zip(inputs, answers, strict=True)]


def asked(row: Row) -> dict[int, str]:
    """The answers of a row by their places."""
    return {place: answer for place, answer in enumerate(row[1]) if answer is not None}


def corpus(name: str, **flags):
    return load_corpus(override(DataConfig(name=(name,), packing="pad"), flags))


# ---- the definitions ----


@pytest.mark.parametrize("length", [64, 129])
def test_mqar_asks_for_each_key_once_and_the_answer_stands_beside_it(length):
    for inputs, answers in spelled("mqar", length):
        pairs = dict(zip(inputs[:16:2], inputs[1:16:2], strict=True))
        found = asked((inputs, answers))
        assert len(pairs) == len(set(pairs.values())) == 8 and min(found) >= 16
        assert {inputs[place]: answer for place, answer in found.items()} == pairs
        assert all(word == "_" for place, word in enumerate(inputs) if place >= 16 and place not in found)


def test_the_gaps_of_mqar_follow_their_power_law():
    rows = PROBES["mqar"].draw(np.random.default_rng(0), 4000, 64, PROBES["mqar"].numbers._replace(items=1))
    gaps = (np.nonzero(rows.answers >= 0)[1] - 2) // 2 + 1
    chances = np.arange(1, 32) ** -0.99
    np.testing.assert_allclose(np.bincount(gaps, minlength=32)[1:] / 4000, chances / chances.sum(), atol=0.02)


@pytest.mark.parametrize("name", ["recall", "noisy_recall"])
def test_recall_asks_for_the_value_of_a_key_that_came_before(name):
    noises = []
    for inputs, answers in spelled(name, 63):
        known = {}
        for place, (word, following) in enumerate(zip(inputs, [*inputs[1:], None], strict=True)):
            assert answers[place] == (known.get(word) if word[0] == "k" else None)
            if word[0] == "k" and following is not None:
                assert following[0] == "v" and known.setdefault(word, following) == following
            noises += [word[0] == "n"] * (word[0] != "v")
    assert np.mean(noises) == pytest.approx(0.2 * (name == "noisy_recall"), abs=0.03)


def test_fuzzy_recall_asks_for_all_symbols_of_a_value_whose_motif_came_before():
    sizes = set()
    for inputs, answers in spelled("fuzzy_recall", 90):
        parsed, key, value = [], (), ()
        for word in [*inputs, "k"]:
            if word[0] == "k" and value:
                parsed.append((key, value))
                key, value = (), ()
            key, value = (key + (word,), value) if word[0] == "k" else (key, value + (word,))
        table, expected = {}, []
        for number, (one, its) in enumerate(parsed):
            expected += [None] * (len(one) - 1) + ([*its] if one in table else [None] * len(its)) + [None]
            assert table.setdefault(one, its) == its or number == len(parsed) - 1  # the last may be cut
            sizes |= {len(one), len(its)}
        assert answers[:len(expected) - 1] == expected[:-1]
    assert sizes == {1, 2, 3}


def test_memorisation_has_one_map_for_all_rows_and_another_for_another_seed():
    def table(seed: int) -> dict[str, str]:
        pairs = [(x[place - 1], answer) for x, y in spelled("memorisation", seed=seed, count=200)
                 for place, answer in asked((x, y)).items()]
        assert len(set(pairs)) == len(dict(pairs)) == 128
        assert all(set(x[1::2]) == {"_"} and not set(y[::2]) - {None} for x, y in spelled("memorisation"))
        return dict(pairs)

    assert table(0) == table(0) != table(1)


def test_induction_asks_what_followed_the_mark():
    for inputs, answers in spelled("induction"):
        assert inputs.count("!") == 2 and asked((inputs, answers)) == {63: inputs[inputs.index("!") + 1]}


def test_a_needle_is_a_pair_in_noise():
    places = set()
    for inputs, answers in spelled("needle", count=200):
        keys = [place for place, word in enumerate(inputs[:-1]) if word[0] == "k"]
        place = inputs.index(inputs[-1])
        places.add(keys.index(place))
        assert len(keys) == 2 and asked((inputs, answers)) == {63: inputs[place + 1]}
        assert sum(word[0] == "n" for word in inputs) == 59
    assert places == {0, 1}


@pytest.mark.parametrize("length", [20, 64])
def test_selective_copying_asks_for_what_is_no_blank_in_its_order(length):
    for inputs, answers in spelled("selective_copying", length):
        bar = inputs.index("|")
        assert [word for word in inputs[:bar] if word != "_"] == answers[bar + 1:] and len(answers[bar + 1:]) == 8
        assert set(answers[:bar + 1]) == {None} and set(inputs[bar + 1:]) == {"_"}


def test_copying_asks_for_the_string_and_its_end():
    sizes = set()
    for inputs, answers in spelled("copying", 41, count=200):
        bar = inputs.index("|")
        assert inputs[bar + 1:2 * bar + 1] == inputs[:bar] and set(inputs[2 * bar + 1:]) <= {"_"}
        assert answers == [None] * bar + inputs[:bar] + ["."] + [None] * (40 - 2 * bar)
        sizes.add(bar)
    assert sizes == set(range(10, 21))


def test_ngram_lookup_asks_what_followed_an_ngram_that_stands_once():
    for inputs, answers in spelled("ngram_lookup", 40, symbols=5, items=3):
        bar = inputs.index("|")
        windows = [inputs[place:place + 3] for place in range(bar - 2)]
        assert windows.count(inputs[bar + 1:]) == 1
        assert asked((inputs, answers)) == {39: inputs[windows.index(inputs[bar + 1:]) + 3]}


def test_parity_is_that_of_the_ones_so_far():
    for inputs, answers in spelled("parity"):
        assert answers == [str(inputs[:place].count("1") % 2) for place in range(1, 41)]


def test_modular_arithmetic_is_read_from_left_to_right():
    for inputs, answers in spelled("modular_arithmetic", 21):
        value = int(inputs[0])
        assert answers[0] == inputs[0] and set(answers[1::2]) == {None}
        for place in range(2, 21, 2):
            a, b = value, int(inputs[place])
            value = {"+": a + b, "-": a - b, "*": a * b}[inputs[place - 1]] % 5
            assert answers[place] == str(value)


@pytest.mark.parametrize(("name", "order", "commutes"), [("s3", 6, False), ("a5", 60, False), ("s5", 120, False),
                                                         ("z60", 60, True)])
def test_the_table_is_that_of_a_group(name, order, commutes):
    table = products(name)
    unit = int(np.flatnonzero((table == np.arange(order)).all(1))[0])
    assert table.shape == (order, order) == (len(elements(name)), order)
    assert (np.sort(table, 0) == np.arange(order)[:, None]).all() and (np.sort(table, 1) == np.arange(order)).all()
    assert (table[:, unit] == np.arange(order)).all() and (table == table.T).all() == commutes
    triples = np.random.default_rng(0).integers(order, size=(500, 3))
    assert all(table[table[a, b], c] == table[a, table[b, c]] for a, b, c in triples)


def test_a5_has_the_elements_of_its_orders():
    def order(one: int) -> int:
        state, count = one, 1
        while elements("a5")[state] != (0, 1, 2, 3, 4):
            state, count = products("a5")[state, one], count + 1
        return count

    assert np.bincount([order(one) for one in range(60)]).tolist() == [0, 1, 15, 20, 0, 24]


@pytest.mark.parametrize("name", ["s3", "a5", "s5"])
def test_a_word_problem_asks_for_the_running_product(name):
    for inputs, answers in spelled(name, count=5):
        points = list(range(len(inputs[0]) - 2))
        state = points
        for word, answer in zip(inputs, answers, strict=True):
            state = [int(word[1 + point]) for point in state]  # first what came before, then this one
            assert answer == f"({''.join(map(str, state))})"


@pytest.mark.parametrize("length", [16, 63])
def test_depo_asks_where_a_walk_along_a_cycle_ends(length):
    for inputs, answers in spelled("depo", length):
        nodes = length // 4
        edges, found = dict(zip(inputs[:2 * nodes:2], inputs[1:2 * nodes:2], strict=True)), asked((inputs, answers))
        assert len(edges) == nodes == len(set(edges.values())) and set(found) == set(range(2 * nodes + 1, length, 3))
        walk, node = [inputs[0]], edges[inputs[0]]
        while node != inputs[0]:
            walk, node = [*walk, node], edges[node]
        assert len(walk) == nodes  # one cycle
        for place, answer in found.items():
            node = inputs[place]
            for _ in range(int(inputs[place - 1])):
                node = edges[node]
            assert node == answer == ([*inputs, answer])[place + 1]


def test_mano_asks_for_the_value_of_an_expression_in_prefix_notation():
    def value(words: list[str]) -> int:
        word = words.pop(0)
        if word not in "+-*":
            return int(word)
        a, b = value(words), value(words)
        return {"+": a + b, "-": a - b, "*": a * b}[word]

    sizes = set()
    for inputs, answers in spelled("mano", 12):
        end = inputs.index("=")
        words = inputs[:end]
        assert asked((inputs, answers)) == {end: str(value(words) % 23)} and not words
        sizes.add(end // 2)
    assert sizes == {3, 4, 5}


# ---- as a corpus ----


@pytest.mark.parametrize("name", PROBES)
def test_rows_are_of_the_vocabulary_begin_with_bos_and_may_be_longer(name):
    task, found = PROBES[name], corpus(name)
    assert task.source and len(set(found.tokenizer.words)) == len(found.tokenizer.words) < 512
    for seq_len in (task.length + 1, 2 * task.length + 2):
        x, y = found.rows(0, 5, seq_len, part="train")
        assert x.shape == y.shape == (5, seq_len) and x.dtype == y.dtype == np.int64
        assert (x[:, 0] == 1).all() and (x[:, 1:] >= 3).all() and max(x.max(), y.max()) < found.tokenizer.vocab_size
        assert ((y >= 3) | (y == IGNORED)).all() and (y >= 3).any(1).all() and (y[:, 0] == IGNORED).all()


@pytest.mark.parametrize("name", ["mqar", "mano", "s3"])
def test_a_row_follows_from_seed_part_and_number_alone(name):
    def rows(first: int, count: int, *, data_seed: int = 0, **which) -> np.ndarray:
        return np.stack(corpus(name, seed=data_seed).rows(first, count, 33, **{"part": "train"} | which))

    all_rows = rows(0, 2 * BLOCK + 9)
    assert np.array_equal(all_rows[:, 5:BLOCK + 20], rows(5, BLOCK + 15))
    assert len(np.unique(all_rows[0], axis=0)) == 2 * BLOCK + 9
    for other in ({"seed": 1}, {"part": "val"}, {"data_seed": 1}):
        assert not (rows(0, 40, **other) == all_rows[:, :40]).all(-1).all(0).any()


def test_batches_are_rows_in_order_and_ranks_share_them():
    found = corpus("parity")
    batches = NewBatches(found, batch_size=6, seq_len=9, seed=3)
    x, y = found.rows(12, 6, 9, part="train", seed=3)
    assert batches[2].x.tolist() == x.tolist() and batches[2].y.tolist() == y.tolist()
    assert batches[2].num_targets == 48 and batches[2].documents is None
    halves = [NewBatches(found, batch_size=3, seq_len=9, seed=3, rank=rank, world_size=2)[2].x for rank in (0, 1)]
    assert torch.equal(torch.cat(halves), batches[2].x)
    with pytest.raises(IndexError):
        batches[-1]


def test_evaluation_sees_each_validation_row_once_with_its_answers():
    found = corpus("mqar")
    part = ProbeRows(found, 65, 10)
    batches = list(eval_batches(part, 4, 65, "pad"))
    x, y = found.rows(0, 10, 65, part="val")
    assert torch.cat([batch.x for batch in batches])[:10].tolist() == x.tolist()
    assert torch.cat([batch.y for batch in batches])[:10].tolist() == y.tolist()
    assert sum(batch.num_targets for batch in batches) == part.num_targets == 80


def test_the_texts_of_a_task_have_the_ids_of_its_rows(tmp_path):
    found = corpus("depo")
    tokenizer, ids = found.tokenizer, found.rows(0, 2, 65, part="val")[0]
    tokenizer.save(tmp_path)
    read = load_tokenizer(tmp_path)
    assert isinstance(read, SymbolTokenizer) and read.fingerprint == tokenizer.fingerprint
    assert [[1, *row] for row in read.encode_batch(list(found.val())[:2])] == ids.tolist()
    assert read.byte_lengths[ids[0]].sum() == len(read.decode(ids[0]).encode())
    with pytest.raises(ValueError, match=r"the word 'x99', which is no symbol of this task: .* such as x0, x1, x2"):
        tokenizer.encode("x1 x99")


def test_the_fingerprint_follows_the_numbers():
    changes = ({}, {"probe.items": 4}, {"seed": 1}, {"probe.symbols": 32})
    prints = [corpus("mqar", **flags).fingerprint for flags in changes]
    assert len({*prints, corpus("needle").fingerprint}) == 5 and corpus("mqar").fingerprint == prints[0]


@pytest.mark.parametrize(("flags", "sentence"), [
    ({"data.packing": "stream"}, "packing=stream would join the rows of name=mqar, each a text of its own: use"),
    ({"data.name": ["mqar", "tales"]}, "name=mqar tales has a synthetic task beside another text: it stands alone"),
    ({"data.val_name": ["parity"]}, "name=mqar parity has a synthetic task beside another text"),
    ({"data.sample_ratio": 0.5}, "sample_ratio=0.5 would change nothing: it acts only when a text is neither"),
    ({"data.workers": 2}, "workers=2 would change nothing: it acts only when name is no synthetic task"),
    ({"data.val_ratio": 0.2}, "val_ratio=0.2 would change nothing"),
    ({"data.name": ["tales"], "data.probe.items": 3}, "probe.items=3 would change nothing: it acts only when"),
    ({"data.probe.noise": 1.0}, "noise=1.0 must lie between 0 and 1"),
    ({"data.probe.longer": [1, 2]}, "longer=1 2 must be different numbers from 2 on"),
    ({"data.probe.noise": 0.3}, "data.probe.noise=0.3 would change nothing: data.name=mqar has no such number"),
    ({"data.name": ["parity"], "data.probe.symbols": 3}, "data.probe.symbols=3 would change nothing: data.name="),
    ({"data.probe.items": 33}, "data.probe.symbols=64 must be even, half of them keys, and at least 66"),
    ({"data.probe.items": 20}, "model.max_seq_len=65 is too short for data.probe.items=20 pairs and their"),
    ({"data.name": ["ngram_lookup"], "data.probe.symbols": 2}, "data.probe.items=2 symbols hardly ever stand"),
    ({"tokenizer.kind": "char"}, "tokenizer.kind=char would change nothing: the tokens of data.name=mqar"),
    ({"train.epochs": 2.0}, "train.epochs: data.name=mqar has no epochs, its rows are new at every step"),
    ({"train.schedule": "step", "train.decay_fraction": 0.5}, "train.step_unit=epochs: data.name=mqar has no epochs"),
    ({"model.position": "learned", "data.probe.longer": [2]}, "data.probe.longer=2: model.position=learned has"),
])
def test_what_a_task_cannot_have_is_refused_in_a_sentence(flags, sentence):
    with pytest.raises(ValueError) as caught:
        prepare_run(override(BASE, flags), torch.device("cpu"))
    assert sentence in str(caught.value) and "\n" not in str(caught.value)


# ---- in training ----

SMALL = {"model.dim": 32, "model.max_seq_len": 17, "model.token_shift": ["mixer"], "model.mlp": "none",
         "data.probe.items": 4, "data.probe.symbols": 16, "train.batch_size": 32, "train.lr": 1e-2, "train.steps": 120,
         "train.eval_every": 60, "train.checkpoint_every": 60, "train.sample_every": 1000, "data.probe.longer": [2, 4],
         "train.eval_tokens": 2000, "train.final_eval_share": 0.0, "model.init": "fan_in"}


def test_a_model_learns_a_task_and_its_log_has_the_accuracy_on_longer_rows(models):
    run = train(override(BASE, SMALL | {"train.name": "learns"}))
    log = run.log().dropna(subset="accuracy")
    assert log.step.tolist() == [60, 120] and log.accuracy.iloc[-1] > 0.95
    assert log.train_accuracy.iloc[-1] == pytest.approx(log.accuracy.iloc[-1], abs=0.05)
    assert log[["accuracy_2x", "accuracy_4x"]].notna().all(axis=None) and log.accuracy_2x.iloc[-1] > 0.3
    assert run.data["train_tokens"] is None and run.data["val_documents"] == 1024


def test_a_run_on_a_task_goes_on_bit_for_bit(models, at_step):
    short = SMALL | {"train.steps": 10, "train.eval_every": 4, "train.checkpoint_every": 4, "train.log_every": 2}
    whole = train(override(BASE, short | {"train.name": "whole"}))

    def stop(_) -> None:
        raise RuntimeError("killed")

    at_step(7, stop)
    with pytest.raises(RuntimeError):
        train(override(BASE, short | {"train.name": "killed"}))
    assert_same_run(train(Run("killed").config, run=Run("killed")), whole)
