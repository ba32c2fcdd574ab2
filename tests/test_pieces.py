"""SentencePiece models of other people: their ids, our bytes. A tokenizer's file by its path."""

import io
import json
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import sentencepiece
from hypothesis import given, settings
from hypothesis import strategies as st
from small_tokenizers import DIFFICULT, STORIES, byte_level_backend, llama_backend, write

import tokenizer as program
from tokenization.pieces import OthersPieces
from tokenizer import TOKENIZERS, grow_tokenizer, load_tokenizer, train_tokenizer

ROOT = Path(__file__).resolve().parent.parent
PLAIN = {"normalization_rule_name": "identity", "add_dummy_prefix": False, "remove_extra_whitespaces": False}
MADE = {  # how the models of others differ from the library's defaults
    "plain": PLAIN, "plain unigram": PLAIN | {"model_type": "unigram"},
    "llama": {"normalization_rule_name": "identity", "remove_extra_whitespaces": False, "split_digits": True},
    "nfkc": {"normalization_rule_name": "nmt_nfkc_cf", "model_type": "unigram"},
    "symbols": PLAIN | {"user_defined_symbols": ["fox", "\t", "<hr>"], "control_symbols": ["<mask>"], "pad_id": 3},
    "across words": PLAIN | {"split_by_whitespace": False}, "suffix": {"treat_whitespace_as_suffix": True},
    "only eos": PLAIN | {"bos_id": -1}, "no ends": PLAIN | {"bos_id": -1, "eos_id": -1},
    "tested": {"self_test_sample_size": 20},
}


def make(folder: Path, options: dict, name: str = "tokenizer.model") -> Path:
    """A model trained by the library itself."""
    content = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(**{
        "sentence_iterator": iter(STORIES), "model_writer": content, "vocab_size": 500, "model_type": "bpe",
        "byte_fallback": True, "minloglevel": 2, "num_threads": 1, **options})
    (folder / name).write_bytes(content.getvalue())
    return folder / name


def library(path: Path) -> sentencepiece.SentencePieceProcessor:
    return sentencepiece.SentencePieceProcessor(model_file=str(path))


@pytest.fixture(scope="module", params=MADE)
def model(request, tmp_path_factory):
    return make(tmp_path_factory.mktemp("model"), MADE[request.param])


@settings(max_examples=15)
@given(text=st.text(st.characters(exclude_categories=["Cs"])) | st.text(st.sampled_from("\t\n\r a1'.fox<hr>é\u2581")))
def test_any_text_returns_and_its_bytes_add_up(model, text):
    tokenizer = load_tokenizer(model)
    ids = tokenizer.encode(text)
    assert b"".join(tokenizer.token_bytes[i] for i in ids) == text.encode()
    assert not {tokenizer.pad_id, tokenizer.bos_id, tokenizer.eos_id} & set(ids)


@pytest.mark.parametrize("made", ["plain", "plain unigram", "symbols", "across words", "only eos", "no ends"])
def test_a_model_that_does_not_change_text_gives_the_ids_of_the_library(made, tmp_path):
    path = make(tmp_path, MADE[made])
    tokenizer, reference = load_tokenizer(path), library(path)
    texts = [*STORIES, *(text.replace("\u2581", "") for text in DIFFICULT), "a fox, foxes <hr> <mask></s>"]
    assert tokenizer.encode_batch(texts) == reference.encode(texts)


@pytest.mark.parametrize("made", ["llama", "tested"])
def test_a_model_that_puts_a_space_before_text_differs_only_in_it(made, tmp_path):
    path = make(tmp_path, MADE[made])
    tokenizer, reference = load_tokenizer(path), library(path)
    for text in STORIES:
        text = text.replace("\n", " ").strip().replace("  ", " ")
        assert tokenizer.encode(" " + text) == reference.encode(text)


def test_special_ids_are_those_of_the_model_or_made_up(tmp_path):
    found = {}
    for made in ("plain", "symbols", "only eos", "no ends"):
        tokenizer = load_tokenizer(make(tmp_path, MADE[made]))
        found[made] = tokenizer.pad_id, tokenizer.bos_id, tokenizer.eos_id, tokenizer.vocab_size
    assert found == {"plain": (2, 1, 2, 500), "symbols": (3, 1, 2, 500), "only eos": (2, 2, 2, 500),
                     "no ends": (500, 500, 500, 501)}


def test_long_text_is_cut_only_if_no_token_crosses_words(tmp_path, monkeypatch):
    text = "\n".join(STORIES)
    for made, cuts in (("plain", True), ("across words", False)):
        tokenizer = load_tokenizer(make(tmp_path, MADE[made]))
        whole = tokenizer.encode(text)
        monkeypatch.setattr("tokenization.base.MAX_CHARS", 1000)
        assert tokenizer.encode(text) == whole and bool(tokenizer.cuts and tokenizer.cuts.search("end of")) == cuts


def test_what_is_saved_is_loaded_and_sent(model, tmp_path):
    tokenizer = load_tokenizer(model)
    tokenizer.save(tmp_path / "saved")
    for other in (load_tokenizer(tmp_path / "saved"), pickle.loads(pickle.dumps(tokenizer))):
        assert type(other) is OthersPieces and other.fingerprint == tokenizer.fingerprint
        assert other.encode_batch(DIFFICULT) == tokenizer.encode_batch(DIFFICULT)
    assert OthersPieces.kind not in TOKENIZERS
    with pytest.raises(ValueError, match="kind=sentencepiece has no merges"):
        grow_tokenizer(tokenizer, STORIES, 900)


@pytest.mark.parametrize("options", [{"byte_fallback": False}, {"byte_fallback": False, "model_type": "char",
                                                                "vocab_size": 60}], ids=str)
def test_a_model_without_bytes_is_refused(options, tmp_path):
    path = make(tmp_path, PLAIN | options)
    with pytest.raises(ValueError, match=f"^tokenizer='{path}' cannot encode every text .SentencePiece without all"):
        load_tokenizer(path)


# ---- by path ----


def test_a_file_is_its_folder(tmp_path):
    path = make(tmp_path, MADE["llama"])
    assert load_tokenizer(path).fingerprint == load_tokenizer(tmp_path).fingerprint
    assert load_tokenizer(path.rename(tmp_path / "x.model")).vocab_size == 500
    folder = write(tmp_path / "json", llama_backend(), bos_token="<s>", eos_token="</s>")
    for name in (folder, str(folder), folder / "tokenizer.json", str(folder / "tokenizer.json")):
        tokenizer = load_tokenizer(name)
        assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id) == (1, 2, 2)
    byte_level_backend().save(str(tmp_path / "other.json"))
    (tmp_path / "tokenizer_config.json").write_text('{"eos_token": "a"}')  # of another tokenizer
    assert load_tokenizer(tmp_path / "other.json").eos_id == 600


@pytest.mark.parametrize("name", ["meta.json", "tokenizer.json"])
def test_the_description_of_a_saved_tokenizer_stands_for_its_folder(name, tmp_path):
    saved = train_tokenizer("bpe", STORIES, 600)
    saved.save(tmp_path)
    (tmp_path / "meta.json").rename(tmp_path / name)
    assert load_tokenizer(tmp_path / name).fingerprint == load_tokenizer(tmp_path).fingerprint == saved.fingerprint


def test_a_model_trained_here_without_its_description_can_be_read_as_a_file(tmp_path):
    saved = train_tokenizer("bpe", STORIES, 600)
    saved.save(tmp_path)
    (tmp_path / "meta.json").unlink()
    with pytest.raises(ValueError, match="no meta.json beside a model as it is trained here.: save it again, or give"):
        load_tokenizer(tmp_path)
    assert load_tokenizer(tmp_path / "tokenizer.model").encode_batch(STORIES) == saved.encode_batch(STORIES)


def test_the_programs_take_a_file(tmp_path, monkeypatch, capsys):
    for path in (make(tmp_path, MADE["llama"]), write(tmp_path / "it", byte_level_backend()) / "tokenizer.json"):
        monkeypatch.setattr(sys, "argv", ["tokenizer.py", "show", str(path), "Once upon a time"])
        program.main()
        assert "tokens, 16 bytes" in capsys.readouterr().out
    from config import DataConfig, TokenizerConfig
    from training.setup import choose_tokenizer
    assert choose_tokenizer(TokenizerConfig(path=str(path)), DataConfig(), None).vocab_size == 601


class Boom:
    def __reduce__(self):
        return exec, ("raise SystemExit('it ran')",)


@pytest.mark.parametrize(("name", "content", "message"), [
    ("tokenizer.pkl", pickle.dumps(Boom()), "is a file of another kind: .* a pickle is never read, .* docs/"),
    ("vocab.txt", b"a\nb\n", "is a file of another kind"), ("x.model", b"", "is not a SentencePiece model"),
    ("x.model", pickle.dumps(Boom()), "is not a SentencePiece model"), ("x.model", b"\x0a\xff" * 99, "cannot be read"),
    ("x.json", pickle.dumps(Boom()), "cannot be read"), ("x.json", b"[]", "cannot be read"),
    ("meta.json", b'{"kind": []}', "cannot be read"), ("tokenizer.json", b'{"model": {}}', "cannot be read"),
])
def test_a_file_that_is_no_tokenizer_is_one_clear_sentence(name, content, message, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=f"^tokenizer='{tmp_path}.*' .*{message}") as error:
        load_tokenizer(tmp_path / name)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("config", ["[]", '"x"', '{"eos_token": ["a"]}', '{"eos_token": {}}', "[" * 100_000], ids=len)
def test_odd_descriptions_beside_a_tokenizer_json_are_no_crash(config, tmp_path):
    write(tmp_path / "it", byte_level_backend())
    (tmp_path / "it" / "tokenizer_config.json").write_text(config)
    try:
        assert load_tokenizer(tmp_path / "it").eos_id == 600
    except ValueError as error:
        assert str(error).startswith(f"tokenizer='{tmp_path / 'it'}' cannot be read (tokenizer_config.json ")


def test_an_id_beyond_all_vocabularies_is_refused(tmp_path):
    folder = write(tmp_path / "it", byte_level_backend())
    state = json.loads((folder / "tokenizer.json").read_text())
    state["model"]["vocab"]["huge"] = 4_000_000_000
    (folder / "tokenizer.json").write_text(json.dumps(state))
    with pytest.raises(ValueError, match="^tokenizer='.*it' cannot be read .*4,000,000,000"):
        load_tokenizer(folder)


def test_the_recipe_of_the_manual_converts_a_pickled_vocabulary(tmp_path):
    recipe = (ROOT / "docs" / "tokenizer.md").read_text().split("```python\n")[1].split("```")[0]
    merges = {(116, 104): 256, (256, 101): 257, (32, 257): 258}  # "th", "the", " the"
    (tmp_path / "tokenizer.pkl").write_bytes(pickle.dumps({"merges": merges}))
    subprocess.run([sys.executable, "-c", recipe], cwd=tmp_path, check=True)
    tokenizer = load_tokenizer(tmp_path / "tokenizer.json")
    assert tokenizer.encode("the the 1") == [257, 258, 32, 49]
    assert tokenizer.vocab_size == 260 and tokenizer.decode(tokenizer.encode(STORIES[0])) == STORIES[0]
