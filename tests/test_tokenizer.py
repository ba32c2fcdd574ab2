import json
import multiprocessing
import os
import pickle
import subprocess
import sys
from collections import Counter
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import tales
import tokenizer as module
from tokenization import base, documents, sentence_piece
from tokenization.base import sample_evenly, split_long
from tokenization.cuts import BETWEEN_WORDS, LINE_ENDS, WORD_ENDS, last_cut, safe_cuts
from tokenization.hugging_face import BYTES, SPLIT
from tokenization.sentence_piece import sample
from tokenizer import BUILT_SIZES, TOKENIZERS, load_tokenizer, train_tokenizer

STORIES = [story.text for story in islice(tales.stories(0), 300)]
SIZES = {"char": None, "byte": None, "bpe": 600, "unigram": 600, "small bpe": 128, "hf_bpe": 600}
TRAINED = {name: train_tokenizer(name.split()[-1], STORIES, size) for name, size in SIZES.items()}
ALPHABET = "".join(sorted(set("".join(STORIES))))

ANY_TEXT = ["byte", "bpe", "unigram", "hf_bpe"]  # what has ids for every text
every_kind = pytest.mark.parametrize("name", TRAINED)
any_text = st.text(st.characters(exclude_categories=["Cs"]))
known_text = st.text(st.sampled_from(ALPHABET))


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def check_exact(tokenizer, text):
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert tokenizer.byte_lengths[ids].sum() == len(text.encode())
    assert not {tokenizer.pad_id, tokenizer.bos_id, tokenizer.eos_id} & set(ids)


@pytest.mark.parametrize("name", ANY_TEXT)
@given(text=any_text | st.text(st.sampled_from(" \t\n\r\0\u2581\u2585a1.\u00e9\U0001f600")))
@example("  Once\tupon  a time,\r\n\n there \u2581was\u2581\u2581 an \U0001f600 \u00e9t\u00e9 \n ")
@example("<s></s><pad><unk><0x41>\u2581")
@example("\ufeffe\u0301 \ufb01 \uff21 \u00a0\u200d")  # normalisation would change these
def test_any_text_returns_and_its_bytes_add_up(name, text):
    check_exact(TRAINED[name], text)


@pytest.mark.parametrize("name", ["char", "small bpe"])
@given(text=known_text)
def test_known_characters_return_and_their_bytes_add_up(name, text):
    check_exact(TRAINED[name], text)


@every_kind
def test_specials_are_three_ids_of_no_bytes_around_the_text(name):
    tokenizer = TRAINED[name]
    specials = [tokenizer.pad_id, tokenizer.bos_id, tokenizer.eos_id]
    assert specials == [0, 1, 2]
    assert tokenizer.byte_lengths[specials].tolist() == [0, 0, 0]
    ids = tokenizer.encode("Once", bos=True, eos=True)
    assert ids == [1, *tokenizer.encode("Once"), 2]
    assert tokenizer.decode([*ids, 0, 0]) == "Once"


@every_kind
def test_a_batch_equals_its_texts_one_by_one(name):
    texts = ["Once", "", *STORIES[:5]]
    assert TRAINED[name].encode_batch(texts) == [TRAINED[name].encode(text) for text in texts]


@every_kind
def test_vocabulary_size_is_that_of_the_byte_lengths(name):
    tokenizer = TRAINED[name]
    expected = {"char": len(ALPHABET) + 3, "byte": 259}.get(name, SIZES[name])
    assert tokenizer.vocab_size == len(tokenizer.byte_lengths) == expected
    assert tokenizer.byte_lengths.dtype == np.int32


@pytest.mark.parametrize("name", ANY_TEXT)
def test_half_a_character_decodes_to_the_replacement_character(name):
    ids = TRAINED[name].encode("a\U0001f600")
    assert TRAINED[name].decode(ids[:-1]) == "a\ufffd"


@pytest.mark.parametrize("character", ["\u00e9", "\u2581", "\t"])
@pytest.mark.parametrize("name", ["char", "small bpe"])
def test_a_character_outside_the_vocabulary_is_named(name, character):
    with pytest.raises(ValueError, match=rf"U\+{ord(character):04X}.*kind=byte"):
        TRAINED[name].encode(f"Once {character}")


@every_kind
@pytest.mark.parametrize("half", ["\ud800", "\udce9", "\udfff"])
def test_half_a_character_is_one_clear_sentence(name, half):
    sentence = rf"^text has '\\u{ord(half):x}' as its character 1, which is half of a character and not UTF-8: take it"
    for encode in (TRAINED[name].encode, TRAINED[name].show):
        with pytest.raises(ValueError, match=sentence):
            encode("a" + half)
    with pytest.raises(ValueError, match=sentence):
        TRAINED[name].encode_batch(["a", "", "a" + half])
    if name != "byte":  # which reads no text to learn from
        with pytest.raises(ValueError, match=sentence):
            train_tokenizer(name.split()[-1], [*STORIES, "a" + half], SIZES[name])


@pytest.mark.parametrize("bad", [-1, 259])
def test_an_id_outside_the_vocabulary_is_an_error(bad):
    with pytest.raises(ValueError, match=f"id={bad} .* 0 to 258"):
        TRAINED["byte"].decode([70, bad])


@every_kind
def test_a_batch_decodes_to_its_texts(name):
    texts = ["Once", "", *STORIES[:5]]
    assert TRAINED[name].decode_batch(TRAINED[name].encode_batch(texts)) == texts


# ---- text of any length ----


@pytest.mark.parametrize("name", ANY_TEXT)
@given(text=st.text(st.sampled_from("ab.'s1  \n\n\t\u00a0\u00e9\u4f60\u2581")), max_chars=st.integers(1, 9))
def test_the_chunks_of_a_text_have_its_ids(name, text, max_chars):
    chunks = list(split_long(text, max_chars))
    assert "".join(chunks) == text
    assert sum(TRAINED[name].encode_batch(chunks), []) == TRAINED[name].encode(text)


@every_kind
@given(text=st.text(st.sampled_from("abtOu'1 \n")), max_chars=st.integers(1, 9))
def test_a_text_may_be_cut_wherever_its_tokenizer_says(name, text, max_chars):
    tokenizer = TRAINED[name]
    text = text if name in ANY_TEXT else "".join(set(text) & set(ALPHABET)) * 3
    chunks, whole = list(split_long(text, max_chars, tokenizer.cuts)), tokenizer.encode(text)
    assert "".join(chunks) == text
    assert sum(tokenizer.encode_batch(chunks), []) == whole
    end = last_cut(text, tokenizer.cuts)
    assert tokenizer.encode(text[:end]) + tokenizer.encode(text[end:]) == whole
    assert end == max([0, *(found.end() for found in tokenizer.cuts.finditer(text))])


@pytest.mark.parametrize("token, left", [
    (b"a", {WORD_ENDS, LINE_ENDS}), (b" ", {WORD_ENDS, LINE_ENDS}), (b". ", {WORD_ENDS, LINE_ENDS}),
    (b"\xe3\x80\x82\n", {WORD_ENDS, LINE_ENDS}), (b" \nx", {WORD_ENDS, LINE_ENDS}), (b"a b", {LINE_ENDS}),
    (b"\xa9 ", {LINE_ENDS}), (b"\xc3\xa9\n", {LINE_ENDS}), (b"\n\xc3", {WORD_ENDS}), (b"\nx", {WORD_ENDS}),
    (b"\xa9\nx", set()), (b"a\nx", set()),
])
def test_a_token_forbids_the_places_where_it_goes_on(token, left):
    found = safe_cuts([b"x", token])
    assert (set(found.pattern.split("|")) if found else set()) == left


def test_the_last_place_to_cut_is_found_however_far_back_it_is():
    for far in (0, 1, 255, 256, 5000, 70_000):
        assert last_cut("ab " + "c" * far + "!" * 9, BETWEEN_WORDS) == 2
        assert last_cut("a" * far + "!" * 9, BETWEEN_WORDS) == 0


@every_kind
def test_long_texts_are_encoded_in_chunks_to_the_same_ids(name, monkeypatch):
    tokenizer, texts, handed = TRAINED[name], ["\n\n".join(STORIES[:9]), "", *STORIES[:9], "x" * 999], []
    whole = tokenizer.encode_batch(texts)
    monkeypatch.setattr(base, "MAX_CHARS", 300)
    work = tokenizer.encode_small_batch
    monkeypatch.setattr(tokenizer, "encode_small_batch", lambda chunks: handed.append(chunks) or work(chunks))
    assert tokenizer.encode_batch(texts) == whole
    assert max(sum(map(len, chunks)) for chunks in handed) < 300 + 999 + 20
    assert len(handed) > 9


def test_a_sample_is_all_of_a_small_text_and_even_over_a_large_one():
    texts = [f"{n:04} is a number" for n in range(10_000)]
    assert sample_evenly(iter(texts), 10**6) == texts
    kept = sample_evenly(iter(texts), 10_000)
    steps = {int(b[:4]) - int(a[:4]) for a, b in zip(kept, kept[1:], strict=False)}
    assert steps == {16} and 5_000 < sum(map(len, kept)) <= 10_000
    one = sample_evenly(["\n".join(texts)], 30_000, chunk_chars=1000)
    assert one[0].startswith("0000") and "95" in one[-1] and 15_000 < sum(map(len, one)) <= 30_000


@pytest.mark.parametrize("kind", ["bpe", "unigram", "hf_bpe"])
def test_training_reads_a_sample_of_a_huge_corpus(kind, monkeypatch):
    monkeypatch.setattr(module, "MAX_TRAIN_BYTES", 50_000)
    given = [*STORIES, *(["zzz"] * 100)]
    sampled = TOKENIZERS[kind].train(sample_evenly(given, 50_000), 600)
    assert train_tokenizer(kind, given, 600).fingerprint == sampled.fingerprint
    assert train_tokenizer("char", given).alphabet == "".join(sorted({*ALPHABET, "z"}))


@pytest.mark.parametrize("text", ["one two\nthree ", "x\u00e9\u4f60\U0001f600", "\n  \n", "a" * 64, "|", "| |a|"],
                         ids=len)
@pytest.mark.parametrize("size", [8, 9, 11])
def test_a_long_document_comes_in_parts_cut_between_characters(text, size, tmp_path, monkeypatch):
    monkeypatch.setattr(documents, "MAX_BYTES", size)
    (tmp_path / "a.txt").write_text(text * 50)
    found = list(documents.documents_in(tmp_path / "a.txt"))
    assert "".join(found) == (text * 50 if text.strip() else "")
    assert max(map(len, found), default=0) <= size
    between = [part for part in (text * 50).split("|") if part.strip()]
    assert "".join(documents.documents_in(tmp_path / "a.txt", "|")) == "".join(between)
    (tmp_path / "a.txt").write_bytes(b"good " * 20 + b"\xff" + b"good" * 20)
    with pytest.raises(ValueError, match=r"is not UTF-8 text \(byte 100\)"):
        list(documents.documents_in(tmp_path / "a.txt"))


# ---- processes ----


@every_kind
def test_a_tokenizer_can_be_sent_to_another_process(name):
    sent = pickle.loads(pickle.dumps(TRAINED[name]))
    assert type(sent) is type(TRAINED[name]) and sent.fingerprint == TRAINED[name].fingerprint
    texts = [*STORIES[:5], *["<|bos|> Once"] * (name in ANY_TEXT)]
    assert sent.encode_batch(texts) == TRAINED[name].encode_batch(texts)


def test_spawned_processes_encode(tmp_path):
    both = [TRAINED["bpe"], TRAINED["hf_bpe"]]
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        for tokenizer in both:
            assert pool.apply(tokenizer.encode_batch, (STORIES[:9],)) == tokenizer.encode_batch(STORIES[:9])


FORKING = """
import os, sys
from tokenizer import load_tokenizer
for folder in sys.argv[1:]:
    tokenizer = load_tokenizer(folder)
    texts = ["Once upon a time"] * 1000
    expected = tokenizer.encode_batch(texts)
    child = os.fork()
    if not child:
        os._exit(tokenizer.encode_batch(texts) != expected)
    assert os.waitpid(child, 0)[1] == 0
    assert tokenizer.encode_batch(texts) == expected
print(os.environ.get("TOKENIZERS_PARALLELISM"))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="nothing forks here")
@pytest.mark.parametrize("switch", [None, "true"])
def test_a_forked_process_encodes_without_warning_or_waiting(switch, tmp_path):
    for name in ("bpe", "hf_bpe"):
        TRAINED[name].save(tmp_path / name)
    environment = {name: value for name, value in os.environ.items() if name != "TOKENIZERS_PARALLELISM"}
    environment |= {"RAYON_NUM_THREADS": "2"} | ({"TOKENIZERS_PARALLELISM": switch} if switch else {})
    python = [sys.executable, "-W", "ignore::DeprecationWarning"]  # Python 3.12 warns of any fork beside threads
    done = subprocess.run([*python, "-c", FORKING, tmp_path / "bpe", tmp_path / "hf_bpe"], text=True,
                          cwd=Path(module.__file__).parent, env=environment, capture_output=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{switch}\n", "")


# ---- what is learned ----


@pytest.mark.parametrize("text, words", [
    ("I'LL don't they've", ["I", "'LL", " don", "'t", " they", "'ve"]),
    ("in 1234567", ["in", " ", "123", "456", "7"]),
    ("(a) $b ...\n\nc", ["(a", ")", " $", "b", " ...\n\n", "c"]),
    ("a   b \n\n  c  ", ["a", "  ", " b", " \n\n", " ", " c", "  "]),
])
def test_words_are_drawn_as_by_gpt4(text, words):
    regex = pytest.importorskip("regex")
    split = TRAINED["hf_bpe"].backend.pre_tokenizer.pre_tokenize_str(text)
    assert regex.findall(SPLIT, text) == words
    assert [bytes(BYTES[c] for c in word).decode() for word, _ in split] == words


@given(text=any_text | st.text(st.sampled_from("abS ' \r\n\t12\u00e9\u4f60.!\u00bd\u0301")))
def test_merges_are_byte_pair_encoding_spelled_out(text):
    regex, tokenizer = pytest.importorskip("regex"), TRAINED["hf_bpe"]
    merges = [tuple(bytes(BYTES[c] for c in part) for part in merge)
              for merge in json.loads(tokenizer.content)["model"]["merges"]]
    expected = []
    for word in regex.findall(SPLIT, text):
        parts = [bytes([byte]) for byte in word.encode()]
        pairs = enumerate(zip(parts, parts[1:], strict=False))
        while known := [(merges.index(pair), n) for n, pair in pairs if pair in merges]:
            _, n = min(known)
            parts[n:n + 2] = [parts[n] + parts[n + 1]]
            pairs = enumerate(zip(parts, parts[1:], strict=False))
        expected += parts
    assert [tokenizer.token_bytes[i] for i in tokenizer.encode(text)] == expected


def test_newlines_and_digits_stand_alone():
    text = "\n".join(f"in 19{n:02} it was\n\n" for n in range(100)) * 5
    tokenizer = train_tokenizer("bpe", ["".join(STORIES), text], 600)
    tokens = [tokenizer.token_bytes[i] for i in tokenizer.encode("it was 1984\n\nit")]
    assert [token for token in tokens if token.strip(b"\n 0123456789") == b""] == [
        b" ", b"1", b"9", b"8", b"4", b"\n", b"\n"]


def test_sentencepiece_shortens_text_and_char_does_not():
    text = STORIES[0]
    lengths = {name: len(TRAINED[name].encode(text)) for name in TRAINED}
    assert lengths["char"] == lengths["byte"] == len(text)
    assert max(lengths["bpe"], lengths["unigram"], lengths["small bpe"], lengths["hf_bpe"]) < 0.8 * len(text)


@pytest.mark.parametrize("name", ["bpe", "unigram", "small bpe", "hf_bpe"])
def test_lines_the_trainer_would_drop_are_learnt(name):
    dropped = ["\tOnce\u2581" + " ".join(STORIES).replace("\n", " ")]  # a tab, and too long
    tokenizer = train_tokenizer(name.split()[-1], dropped, SIZES[name])
    text = STORIES[0].replace("\n", " ")
    assert len(tokenizer.encode(text)) < 1.2 * len(TRAINED[name].encode(text))


@every_kind
def test_two_builds_are_the_same_files(name, tmp_path):
    TRAINED[name].save(tmp_path / "a")
    train_tokenizer(name.split()[-1], iter(STORIES), SIZES[name]).save(tmp_path / "b")
    assert files(tmp_path / "a") == files(tmp_path / "b")


@every_kind
def test_a_loaded_tokenizer_is_the_saved_one(name, tmp_path):
    TRAINED[name].save(tmp_path)
    loaded = load_tokenizer(tmp_path)
    assert loaded.fingerprint == TRAINED[name].fingerprint
    assert loaded.kind == name.split()[-1]
    assert loaded.encode(STORIES[0]) == TRAINED[name].encode(STORIES[0])
    assert loaded.token_bytes == TRAINED[name].token_bytes


def test_a_folder_of_before_meta_json_is_still_read(tmp_path):
    TRAINED["bpe"].save(tmp_path)
    (tmp_path / "meta.json").rename(tmp_path / "tokenizer.json")
    assert load_tokenizer(tmp_path).fingerprint == TRAINED["bpe"].fingerprint


def test_fingerprints_tell_kinds_and_texts_apart():
    other = [train_tokenizer("char", ["abc"]), train_tokenizer("bpe", STORIES[:200], 600)]
    prints = [tokenizer.fingerprint for tokenizer in [*TRAINED.values(), *other]]
    assert len(set(prints)) == len(prints)


def test_the_menu_is_the_kinds():
    assert list(TOKENIZERS) == [cls.kind for cls in TOKENIZERS.values()]
    assert set(TOKENIZERS) == set(module.Kind.__args__)


@pytest.mark.parametrize("file", ["meta.json", "tokenizer.model"])
@pytest.mark.parametrize("damage", ["missing", "empty", "cut", "foreign"])
def test_a_broken_folder_is_one_clear_sentence(file, damage, tmp_path):
    TRAINED["bpe"].save(tmp_path)
    content = (tmp_path / file).read_bytes()
    (tmp_path / file).unlink()
    if damage != "missing":
        damaged = {"empty": b"", "cut": content[: len(content) // 2], "foreign": b'{"a": 1}'}
        (tmp_path / file).write_bytes(damaged[damage])
    with pytest.raises(ValueError, match=f"tokenizer='{tmp_path}' .*: save it again"):
        load_tokenizer(tmp_path)


def test_a_changed_alphabet_does_not_match_its_fingerprint(tmp_path):
    TRAINED["char"].save(tmp_path)
    description = json.loads((tmp_path / "meta.json").read_text())
    description["alphabet"] = "z" + description["alphabet"][1:]
    (tmp_path / "meta.json").write_text(json.dumps(description))
    with pytest.raises(ValueError, match="does not match its fingerprint"):
        load_tokenizer(tmp_path)


def test_an_unknown_name_lists_the_built_ones():
    with pytest.raises(ValueError, match="tokenizer='tales_9' .*tales_128.*tales_4096"):
        load_tokenizer("tales_9")


@pytest.mark.parametrize("kind, vocab_size", [
    *((kind, size) for kind in ("bpe", "unigram") for size in (-5, 3, 40, 515, 2_000_000)),
    *(("hf_bpe", size) for size in (-5, 3, 258, 2_000_000)),
])
def test_a_size_that_does_not_suit_the_text_names_one_that_does(kind, vocab_size):
    check_advice(kind, ["The quick brown fox. " + chr(200 + n) for n in range(300)], vocab_size)


@pytest.mark.parametrize("kind", ["bpe", "unigram", "hf_bpe"])
def test_a_text_too_small_for_byte_pieces_is_advised_a_size_without_them(kind):
    check_advice(kind, ["the cat sat on the mat, then on another"], 600)


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
@pytest.mark.parametrize("rare", ["\u00a7", "\t", "\u2585", "\U0001f600\u2047\ufffd", " "])
def test_a_small_vocabulary_has_every_character_of_the_text_and_of_others(kind, rare, monkeypatch):
    monkeypatch.setattr(sentence_piece, "sample", lambda sentences: sample(sentences, 50))  # without the rare line
    texts = [story.replace(" ", "_") for story in STORIES[:60]]
    for learned, others in (([*texts[:30], rare, *texts[30:]], ()), (texts, [f"Once{rare}"])):
        tokenizer = train_tokenizer(kind, learned, 128, others=others)
        assert tokenizer.vocab_size == 128
        check_exact(tokenizer, f"Once{rare}upon {rare}" if rare == " " else f"Once{rare}upon{rare}")


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
@pytest.mark.parametrize("character", ["\0", "\u2581"])
def test_what_no_small_vocabulary_can_have_is_not_advised_to_be_learnt(kind, character):
    tokenizer = train_tokenizer(kind, [*STORIES, f"Once{character}"], 128)
    with pytest.raises(ValueError, match=rf"U\+{ord(character):04X}\), which this vocabulary cannot have: use kind=byte"
                                         ", kind=bpe with vocab_size>512, or text without it$"):
        tokenizer.encode(f"Once{character}")


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_what_a_small_vocabulary_knows_changes_no_other(kind):
    prints = [train_tokenizer(kind, STORIES, 128, others=others).fingerprint for others in ((), STORIES)]
    assert prints[0] == prints[1]
    with pytest.raises(ValueError, match=r"too small for the characters of this text: use \d+ or more") as error:
        train_tokenizer(kind, STORIES, 70, others=["".join(map(chr, range(0x4e00, 0x4e40)))])
    assert train_tokenizer(kind, STORIES, int(str(error.value).split("use ")[1].split()[0]),
                           others=["".join(map(chr, range(0x4e00, 0x4e40)))])


def check_advice(kind, texts, vocab_size):
    with pytest.raises(ValueError, match=rf"^vocab_size={vocab_size} is .*use \d+ or") as error:
        train_tokenizer(kind, texts, vocab_size)
    advised = int(str(error.value).split("use ")[1].split()[0])
    assert train_tokenizer(kind, texts, advised).vocab_size == advised


@pytest.mark.parametrize("arguments, message", [
    (("words", ["a"], 10), "kind='words' is not known: use one of char, byte, bpe, unigram, hf_bpe"),
    (("bpe", ["a"]), "vocab_size is missing"),
    (("bpe", ["", "\n"], 600), "empty"),
    (("char", [""]), "empty"),
    (("char", ["ab"], 600), "vocab_size=600 cannot be chosen for kind=char, it has 5 ids"),
    (("byte", ["ab"], 600), "vocab_size=600 cannot be chosen for kind=byte"),
])
def test_a_users_mistake_is_one_clear_sentence(arguments, message):
    with pytest.raises(ValueError, match=message):
        train_tokenizer(*arguments)


def test_the_sample_is_uniform_repeatable_and_bounded():
    assert sample(map(str, range(50)), 100) == list(map(str, range(50)))
    drawn = sample(map(str, range(100_000)), 1000)
    assert drawn == sample(map(str, range(100_000)), 1000)
    assert len(set(drawn)) == 1000
    tenths = Counter(int(number) // 10_000 for number in drawn)
    assert min(tenths[n] for n in range(10)) > 60  # 100 expected, deviation 9.5


def test_show_makes_tokens_and_spaces_visible():
    shown = TRAINED["bpe"].show("Once upon\n<b>\u00e9")
    assert "·upon⏎\n" in shown.plain
    assert "\\xc3\\xa9" in shown.plain
    assert len(shown.spans) == len(TRAINED["bpe"].encode("Once upon\n<b>\u00e9"))
    assert shown.plain.endswith(f"{len(shown.spans)} tokens, 15 bytes, "
                                f"{15 / len(shown.spans):.2f} bytes per token")
    assert TRAINED["byte"].show("a\nb", ids=True).plain.startswith("a[100]⏎[13]\nb[101]\n3 tok")
    assert TRAINED["byte"].show("").plain.startswith("\n0 tokens")


def test_show_html_escapes_the_text():
    page = TRAINED["byte"].show_html("<b")
    assert page.count("<span") == 2
    assert '<span title="63"' in page
    assert "&lt;</span>" in page


@pytest.mark.parametrize("size", BUILT_SIZES)
def test_the_built_tokenizers_write_the_tales(size):
    tokenizer = module.built_tokenizer(size)
    assert tokenizer.vocab_size == size
    for text in islice((story.text for story in tales.stories(7)), 50):
        check_exact(tokenizer, text)


def test_a_size_that_was_not_built_lists_those_that_were():
    with pytest.raises(ValueError, match="vocab_size=300 .*128, 256, 512"):
        module.built_tokenizer(300)


def test_build_writes_every_size_and_its_hash(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "BUILT_SIZES", (128, 600))
    monkeypatch.setattr(module, "BUILT_STORIES", 300)
    module.build(tmp_path)
    readme = (tmp_path / "README.md").read_text()
    for size, name in [(128, "small bpe"), (600, "bpe")]:
        assert load_tokenizer(tmp_path / f"tales_{size}").fingerprint == TRAINED[name].fingerprint
        assert f"| tales_{size} | {size} | " in readme
        assert TRAINED[name].details()["model_sha256"] in readme


def command(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["tokenizer.py", *map(str, arguments)])
    module.main()


def test_the_command_line_trains_and_shows(tmp_path, monkeypatch, capsys):
    (tmp_path / "a.txt").write_text("Once|upon|a time")
    command(monkeypatch, "train", "--data", tmp_path / "a.txt", "--kind", "char",
            "--separator", "|", "--out", tmp_path / "char")
    assert load_tokenizer(tmp_path / "char").alphabet == "".join(sorted(set("Onceupona time")))
    command(monkeypatch, "show", tmp_path / "char", "Once upon")
    assert "Once·upon" in capsys.readouterr().out


@pytest.mark.parametrize("arguments, message", [
    (["show", "nowhere", "text"], "error: tokenizer='nowhere' is not a folder"),
    (["train", "--data", "nowhere.txt", "--kind", "byte", "--out", "x"], "error: data='nowhere.txt' is"),
])
def test_a_mistake_on_the_command_line_exits_2_without_traceback(arguments, message, tmp_path):
    script = Path(module.__file__)
    done = subprocess.run([sys.executable, script, *arguments], cwd=tmp_path, text=True,
                          capture_output=True)
    assert done.returncode == 2
    assert done.stderr.startswith(message)
    assert done.stderr.count("\n") == 1


def test_an_interrupt_leaves_quietly(monkeypatch, capsys):
    def interrupt(folder):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "load_tokenizer", interrupt)
    with pytest.raises(SystemExit) as stop:
        command(monkeypatch, "show", "tales_128", "Once")
    assert (stop.value.code, *capsys.readouterr()) == (130, "", "")
