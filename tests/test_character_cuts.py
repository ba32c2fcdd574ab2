"""Rows that are cut between characters and encoded anew, for fill in the middle."""

from itertools import islice

import pytest
import torch
from helpers import small_model
from small_tokenizers import STORIES

from config import TrainConfig
from data import IGNORED, Batch
from objective import FillInTheMiddle, batch_change
from objectives.cuts import CharacterCuts, Cut
from objectives.noise import keys_of_text, row_keys, uniform
from objectives.rows import Row
from tokenizer import ByteTokenizer, built_tokenizer

T = 40  # tokens of a row and the one after it
TOKENIZER = built_tokenizer(1024)
PAD, BOS, EOS = TOKENIZER.pad_id, TOKENIZER.bos_id, TOKENIZER.eos_id


def batch_of(rows: list[list[int]], *, t: int = T, source: int = 0, seed: int | None = 5) -> Batch:
    """Rows of at most t tokens, then padding; the first has so many tokens of a source after the first one."""
    tokens = torch.tensor([row + [PAD] * (t - len(row)) for row in rows])
    is_target = torch.arange(1, t) < torch.tensor([len(row) for row in rows])[:, None]
    is_target[0, :source] = False
    keys = None if seed is None else row_keys(seed, torch.arange(len(rows)))
    y = tokens[:, 1:].where(is_target, IGNORED)
    return Batch(tokens[:, :-1], y, None, int(is_target.sum()), keys)


def whole_rows(count: int) -> list[list[int]]:
    """The ends of stories, of 11 to 39 tokens with the first and the last."""
    ids = [TOKENIZER.encode(story) for story in islice(STORIES, count)]
    return [[BOS, *each[4 * (n % 8) + 3 - T :], EOS] for n, each in enumerate(ids)]


def cut_by_hand(tokens: list[int], u: torch.Tensor, *, first: int = 1) -> list[list[int]]:
    """Prefix, middle and suffix of a row that is one text and its end, between two characters drawn with u (2,)."""
    text = TOKENIZER.decode(tokens[first:])
    left, right = sorted(int(each * (len(text) + 1)) for each in u.tolist())
    return [TOKENIZER.encode(part) for part in (text[:left], text[left:right], text[right:])]


@pytest.mark.parametrize("source", [0, 2])
def test_the_parts_of_a_row_have_the_ids_of_their_texts(source):
    """Also if they are more tokens than a row has: then it ends early, and the text goes on."""
    rows = whole_rows(60)
    batch, changes = batch_of(rows, source=source), CharacterCuts(TOKENIZER, rate=1.0)
    changed, within, too_long = changes(batch), 0, 0
    for n, (tokens, u) in enumerate(zip(rows, uniform(batch.keys, (2,), draw=2), strict=True)):
        first = 1 + source * (n == 0)
        parts = cut_by_hand(tokens, u, first=first)
        row = (tokens[:first] + sum(parts, []) + [EOS])[:T]
        padding = T - len(row)
        assert changed.x[n].tolist() == (row + [PAD] * padding)[:-1]
        assert changed.y[n].tolist() == [IGNORED] * (first - 1) + row[first:] + [IGNORED] * padding
        left = first + len(parts[0])
        places = [left, left + len(parts[1]), left + len(parts[1]) + len(parts[2])]
        assert changed.cuts[n].tolist() == [min(place, T) for place in places]
        within += sum(map(len, parts)) > len(tokens) - first - 1
        too_long += places[2] >= T
    assert changed.num_targets == (changed.y != IGNORED).sum() > batch.num_targets
    assert within > 30 and too_long > 4
    assert torch.equal(changed.keys, batch.keys) and changed.documents is None


@pytest.mark.parametrize("spm", [False, True])
def test_a_model_reads_what_it_is_given_in_generation(spm):
    """The prompt and the suffix as they are encoded alone, then the middle and the end of the text."""
    rows = [row for row in whole_rows(20) if len(row) < T - 6]
    batch, seen = batch_of(rows), []
    objective = FillInTheMiddle(small_model(vocab_size=1027, max_seq_len=T + 3), rate=1.0, spm_rate=float(spm))
    read, objective.model.read = objective.model.read, lambda tokens: seen.append(tokens) or read(tokens)
    objective(CharacterCuts(TOKENIZER, rate=1.0)(batch))
    for x, tokens, u in zip(seen[0].tolist(), rows, uniform(batch.keys, (2,), draw=2), strict=True):
        prefix, middle, suffix = cut_by_hand(tokens, u)
        given = [1024, 1025, *suffix, 1026, *prefix] if spm else [1024, *prefix, 1025, *suffix, 1026]
        row = [BOS, *given, *middle, EOS]
        assert x[: len(row)] == row


def test_a_text_that_goes_on_has_no_end_and_specials_count_as_characters():
    tokens = [BOS, *TOKENIZER.encode("the old fox"), EOS, BOS, *TOKENIZER.encode("saw Eric and a tea")][:12]
    rows, seen = [tokens] * 400, set()
    changed = CharacterCuts(TOKENIZER, rate=1.0)(batch_of(rows, t=12))
    row = Row.of(changed)
    specials = [i for i in tokens[1:] if i in (BOS, EOS)]
    for n, (left, right, end) in enumerate(changed.cuts.tolist()):
        new = row.tokens[n, : end].tolist()
        assert [i for i in new[1:] if i in (BOS, EOS)] == specials[: len(specials)]
        assert TOKENIZER.decode(tokens).startswith(TOKENIZER.decode(new))
        assert (changed.y[n] != IGNORED).sum() == end - 1  # nothing follows the suffix
        seen |= {(tuple(new[1:left]), tuple(new[left:right]))}
    assert any(prefix[-1:] == (EOS,) for prefix, _ in seen) and any(middle[:1] == (EOS,) for _, middle in seen)


def test_a_row_that_divides_a_character_is_cut_around_it():
    tokenizer = ByteTokenizer()
    ids = tokenizer.encode("€ä.€")[1:-2]  # two bytes of the first character, one of the last
    cuts = CharacterCuts(tokenizer, rate=1.0)
    assert cuts.spell([tokenizer.bos_id, *ids]) == [tokenizer.bos_id, *ids[:2], "ä", ".", ids[-1]]
    changed = cuts(batch_of([[tokenizer.bos_id, *ids]] * 200, t=len(ids) + 1))
    assert torch.equal(Row.of(changed).tokens, torch.tensor([[tokenizer.bos_id, *ids]] * 200))
    assert set(changed.cuts[:, :2].flatten().tolist()) == {1, 2, 3, 5, 6, 7}  # not 4, within a character


def test_of_training_the_share_is_cut_that_is_moved_and_of_an_evaluation_every_row():
    rows = whole_rows(60) * 5
    batch, changes = batch_of(rows), CharacterCuts(TOKENIZER, rate=0.3)
    changed, objective = changes(batch), FillInTheMiddle(small_model(vocab_size=1027, max_seq_len=T + 3), rate=0.3)
    is_new = (changed.y != batch.y).any(-1)
    seen, read = [], objective.model.read
    objective.model.read = lambda tokens: seen.append(tokens) or read(tokens)
    objective(changed)
    is_moved = seen[0][:, 1] == 1024
    assert not (is_new & ~is_moved).any() and 0.2 < is_moved.float().mean() < 0.4 and is_new.sum() > 50
    for n in is_moved.nonzero().flatten().tolist():
        u = uniform(batch.keys[n : n + 1], (2,), draw=2)[0]
        assert changed.cuts[n, 0] == min(T, 1 + len(cut_by_hand(rows[n], u)[0]))
    alone = changes(batch_of(rows[:7], seed=None))
    for n in range(7):  # by its tokens, whatever stands beside it
        assert torch.equal(changes(batch_of([rows[n]], seed=None)).cuts[0], alone.cuts[n])
        u = uniform(keys_of_text(torch.tensor([rows[n] + [PAD] * (T - len(rows[n]))])), (2,), draw=2)[0]
        assert alone.cuts[n, 0] == min(T, 1 + len(cut_by_hand(rows[n], u)[0]))


def test_rows_without_text_stay_as_they_are():
    batch = batch_of([[BOS, EOS], [BOS], []], t=4)
    changed = CharacterCuts(TOKENIZER, rate=1.0)(batch)
    assert torch.equal(changed.x, batch.x.where(batch.x != PAD, changed.x)) and torch.equal(changed.y, batch.y)
    assert changed.cuts[0].tolist() == [1, 1, 1] and Cut.of(Row.of(changed), changed.cuts).end[0] == 1


def test_the_flag_says_what_cuts_are_between():
    cut = [batch_change(TrainConfig(objective="fill_in_the_middle", fim=fim), TOKENIZER)
           for fim in ({}, {"cut": "token"}, {"rate": 0.25})]
    assert isinstance(cut[0], CharacterCuts) and cut[1] is None and cut[2].rate == 0.25
    assert batch_change(TrainConfig(), TOKENIZER) is None
