"""A grown vocabulary says what it said before, in fewer tokens."""

import json
import sys
from collections import Counter
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_tokenizers import DIFFICULT, byte_level_backend, llama_backend, write

import tales
import tokenizer as program
from tokenization.grow import further_merges
from tokenizer import grow_tokenizer, load_tokenizer, train_tokenizer

STORIES = [story.text for story in islice(tales.stories(0), 200)]
OTHERS = [story.text for story in islice(tales.stories(1), 50)]
MORE = [*STORIES, "\u4f60\u597d\u4e16\u754c \u4f60\u597d, na\u00efve caf\u00e9s; '''quoted''' 1984 1984\n" * 20]
any_text = (st.text(st.characters(exclude_categories=["Cs"]))
            | st.text(st.sampled_from("the fox\n ,.12\u4f60\u597d\u2581")))


@pytest.fixture(scope="module", params=["hf_bpe", "bpe", "gpt2", "older", "llama3"])
def small(request, tmp_path_factory):
    if request.param in ("hf_bpe", "bpe"):
        return train_tokenizer(request.param, STORIES[:50], 600)
    folder, backend = tmp_path_factory.mktemp(request.param), byte_level_backend()
    backend.add_special_tokens(["<|begin|>", "<|end|>"])  # behind the vocabulary, not in it, as Llama 3's
    if request.param == "gpt2":
        backend.model.save(str(folder))
        return load_tokenizer(folder)
    write(folder, backend, eos_token="<|end|>")
    if request.param == "older":  # as the Hub has GPT-2's
        state = json.loads((folder / "tokenizer.json").read_text())
        del state["model"]["type"]
        state["model"] |= {"unk_token": "", "merges": [" ".join(merge) for merge in state["model"]["merges"]]}
        (folder / "tokenizer.json").write_text(json.dumps(state))
    return load_tokenizer(folder)


@pytest.fixture(scope="module")
def grown(small):
    return grow_tokenizer(small, MORE, 900)


def test_old_ids_stay_what_they_were(small, grown):
    assert grown.vocab_size == 900
    assert grown.token_bytes[:small.vocab_size] == small.token_bytes
    assert (grown.pad_id, grown.bos_id, grown.eos_id) == (small.pad_id, small.bos_id, small.eos_id)
    assert all(grown.token_bytes[small.vocab_size:])
    assert type(grown) is type(small) and grown.fingerprint != small.fingerprint


@given(text=any_text)
def test_no_text_gets_more_tokens_and_every_text_returns(small, grown, text):
    ids = grown.encode(text)
    assert len(ids) <= len(small.encode(text))
    assert grown.decode(ids) == text
    assert grown.byte_lengths[ids].sum() == len(text.encode())


def test_an_old_split_is_a_refinement_of_the_new_one(small, grown):
    for text in [*OTHERS, *DIFFICULT]:
        assert bounds(grown, text) <= bounds(small, text)


def bounds(tokenizer, text):
    lengths = tokenizer.byte_lengths[tokenizer.encode(text)]
    return set(lengths.cumsum().tolist())


@pytest.mark.parametrize("kind", ["bpe", "hf_bpe"])
def test_text_gets_shorter_about_as_by_training_anew(kind):
    small, anew = (train_tokenizer(kind, texts, size) for texts, size in ((STORIES[:50], 600), (STORIES, 900)))
    both = small, grow_tokenizer(small, STORIES, 900), anew
    lengths = [sum(map(len, tokenizer.encode_batch(OTHERS))) for tokenizer in both]
    assert lengths[1] < 0.9 * lengths[0]
    assert lengths[1] < 1.05 * lengths[2]


def test_growing_on_the_text_it_was_trained_on_is_training_anew():
    grown = grow_tokenizer(train_tokenizer("hf_bpe", STORIES, 600), STORIES, 900)
    assert grown.token_bytes == train_tokenizer("hf_bpe", STORIES, 900).token_bytes


def test_what_is_grown_is_saved_loaded_and_grown_again(grown, tmp_path):
    grown.save(tmp_path)
    loaded = load_tokenizer(tmp_path)
    assert loaded.encode_batch(MORE) == grown.encode_batch(MORE)
    again = grow_tokenizer(loaded, MORE, 950)
    assert again.token_bytes[:900] == grown.token_bytes
    assert again.token_bytes == grow_tokenizer(grow_tokenizer(grown, MORE, 925), MORE, 950).token_bytes


def test_digits_and_newlines_still_stand_alone():
    grown = grow_tokenizer(train_tokenizer("bpe", STORIES[:50], 600), ["it was 1984\n\n" * 99, *STORIES], 700)
    tokens = [grown.token_bytes[i] for i in grown.encode("it was 1984\n\nit")]
    assert [token for token in tokens if token.strip(b"\n 0123456789") == b""] == [
        b" ", b"1", b"9", b"8", b"4", b"\n", b"\n"]


def test_merges_are_those_of_byte_pair_encoding_spelled_out():
    words = Counter({tuple(map(ord, word)): count for word, count in Counter(" ".join(STORIES[:20]).split()).items()})
    tokens = [chr(i) for i in range(128)]
    merges = further_merges(words, tokens, 160)
    expected, spelled = [], {word: [chr(i) for i in word] for word in words}
    while len(expected) < len(merges):
        pairs = Counter()
        for word, count in words.items():
            for pair in zip(spelled[word], spelled[word][1:], strict=False):
                pairs[pair] += count
        expected.append(min(pairs, key=lambda pair: (-pairs[pair], tokens.index(pair[0]), tokens.index(pair[1]))))
        for parts in spelled.values():
            n = 0
            while n < len(parts) - 1:
                if (parts[n], parts[n + 1]) == expected[-1]:
                    parts[n:n + 2] = ["".join(expected[-1])]
                n += 1
    assert [(tokens[a], tokens[b]) for a, b in merges] == expected


@pytest.mark.parametrize("kind, size, to, message", [
    ("byte", None, 300, "kind=byte has no merges"), ("char", None, 300, "kind=char has no merges"),
    ("unigram", 600, 900, "kind=unigram has no merges"), ("bpe", 600, 600, "vocab_size=600 is not above the 600 ids"),
    ("hf_bpe", 600, 10**6, r"vocab_size=1000000 is more than this text supports: use \d+ or less"),
    ("bpe", 600, 10**6, r"vocab_size=1000000 is more than this text supports: use \d+ or less"),
])
def test_what_cannot_grow_says_why(kind, size, to, message):
    with pytest.raises(ValueError, match=message) as error:
        grow_tokenizer(train_tokenizer(kind, STORIES, size), STORIES, to)
    if "use" in message:
        most = int(str(error.value).split("use ")[1].split()[0])
        assert grow_tokenizer(train_tokenizer(kind, STORIES, size), STORIES, most).vocab_size == most


def test_text_with_half_a_character_is_one_clear_sentence():
    with pytest.raises(ValueError, match="^text has '.ud800' as its character 1, which is half of a character"):
        grow_tokenizer(train_tokenizer("hf_bpe", STORIES, 600), ["a\ud800"], 700)


def test_a_vocabulary_whose_merges_cross_words_cannot_grow(tmp_path):
    with pytest.raises(ValueError, match="kind=hf has no merges of bytes"):
        grow_tokenizer(load_tokenizer(write(tmp_path / "llama", llama_backend())), STORIES, 900)


def test_the_command_line_grows(tmp_path, monkeypatch, capsys):
    (tmp_path / "a.txt").write_text("\n".join(STORIES))
    monkeypatch.setattr(sys, "argv", ["tokenizer.py", "grow", "tales_1024", "--data", str(tmp_path / "a.txt"),
                                      "--vocab-size", "1100", "--out", str(tmp_path / "grown")])
    program.main()
    assert "bpe, 1100 ids" in capsys.readouterr().out
    assert load_tokenizer(tmp_path / "grown").token_bytes[:1024] == load_tokenizer("tales_1024").token_bytes
