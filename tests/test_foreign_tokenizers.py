"""Tokenizers of other people: their ids, our bytes."""

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from small_tokenizers import DIFFICULT, STORIES, byte_level_backend, llama_backend, write
from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

from tokenization import base, foreign
from tokenization.cuts import WORD_ENDS
from tokenization.hugging_face import BYTES
from tokenizer import load_tokenizer

ROOT = Path(__file__).resolve().parent.parent
END = "<|endoftext|>"
any_text = (st.text(st.characters(exclude_categories=["Cs"]))
            | st.text(st.sampled_from(" \t\n\ra1'.s\u00e9\u2581\u4f60")))


def check_exact(tokenizer, text):
    ids = tokenizer.encode(text)
    assert b"".join(tokenizer.token_bytes[i] for i in ids) == text.encode()
    assert tokenizer.byte_lengths[ids].sum() == len(text.encode())
    assert tokenizer.decode(ids) == text
    assert not {tokenizer.pad_id, tokenizer.bos_id, tokenizer.eos_id} & set(ids)


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory):
    """A folder with vocab.json and merges.txt, whose last token is <|endoftext|>, as in GPT-2."""
    folder = tmp_path_factory.mktemp("gpt2")
    byte_level_backend().model.save(str(folder))
    vocabulary = json.loads((folder / "vocab.json").read_text())
    (folder / "vocab.json").write_text(json.dumps(vocabulary | {END: len(vocabulary)}))
    return folder


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    return write(tmp_path_factory.mktemp("llama"), llama_backend(), bos_token="<s>", eos_token={"content": "</s>"})


def test_gpt2s_files_give_the_ids_of_transformers(gpt2):
    from transformers import GPT2Tokenizer
    reference, tokenizer = GPT2Tokenizer.from_pretrained(gpt2), load_tokenizer(gpt2)
    for text in [*DIFFICULT, *STORIES[:20]]:
        assert tokenizer.encode(text) == reference(text)["input_ids"], text
    assert (tokenizer.bos_id, tokenizer.eos_id) == (reference.bos_token_id, reference.eos_token_id) == (600, 600)


def test_gpt2s_end_of_text_is_bos_eos_and_pad_but_never_text(gpt2):
    tokenizer = load_tokenizer(gpt2)
    assert (tokenizer.pad_id, tokenizer.bos_id, tokenizer.eos_id, tokenizer.vocab_size) == (600, 600, 600, 601)
    assert tokenizer.encode("a", bos=True, eos=True) == [600, *tokenizer.encode("a"), 600]
    assert tokenizer.byte_lengths[600] == 0
    check_exact(tokenizer, f"a{END}b")


def test_files_without_end_of_text_get_it_at_the_end(gpt2, tmp_path):
    vocabulary = json.loads((gpt2 / "vocab.json").read_text())
    (tmp_path / "vocab.json").write_text(json.dumps({token: i for token, i in vocabulary.items() if token != END}))
    (tmp_path / "merges.txt").write_bytes((gpt2 / "merges.txt").read_bytes())
    tokenizer = load_tokenizer(tmp_path)
    assert (tokenizer.eos_id, tokenizer.vocab_size) == (600, 601)
    assert tokenizer.encode(STORIES[0]) == load_tokenizer(gpt2).encode(STORIES[0])


@pytest.fixture(scope="module", params=["gpt2", "llama"])
def tokenizer(request):
    return load_tokenizer(request.getfixturevalue(request.param))


@given(text=any_text)
@example(text="".join(DIFFICULT))
@example(text="<s></s><unk><0x41>\u2581<|endoftext|>")
def test_any_text_returns_and_its_bytes_add_up(tokenizer, text):
    check_exact(tokenizer, text)


def test_half_a_character_is_one_clear_sentence(tokenizer):
    with pytest.raises(ValueError, match="^text has '.udce9' as its character 3, which is half of a character"):
        tokenizer.encode("caf\udce9")


def test_a_folder_gives_the_ids_of_autotokenizer(tmp_path):
    from transformers import AutoTokenizer
    backend = byte_level_backend(special_tokens=["<a>", "<b>"])
    backend.add_tokens(["fox den"])
    tokenizer = load_tokenizer(write(tmp_path / "it", backend, bos_token="<a>", eos_token="<b>"))
    reference = AutoTokenizer.from_pretrained(tmp_path / "it", local_files_only=True)
    for text in [*DIFFICULT, *STORIES[:20], "the fox den is"]:
        assert tokenizer.encode(text) == reference(text, add_special_tokens=False)["input_ids"], text
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id) == (0, 1, 1)
    assert tokenizer.token_bytes[600] == b"fox den"


@pytest.mark.parametrize("metaspace", [False, True])
def test_a_sentencepiece_vocabulary_differs_only_in_the_space_before_the_text(metaspace, tmp_path):
    reference = llama_backend(metaspace=metaspace)
    tokenizer = load_tokenizer(write(tmp_path / "llama", reference, bos_token="<s>", eos_token={"content": "</s>"}))
    for text in STORIES[:20]:
        assert tokenizer.encode(" " + text) == reference.encode(text, add_special_tokens=False).ids
        check_exact(tokenizer, text)
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id) == (1, 2, 2)


@pytest.mark.parametrize("change", [
    {"normalizer": normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])},
    {"post_processor": processors.TemplateProcessing(single="<a> $A", special_tokens=[("<a>", 0)])},
    {"pre_tokenizer": pre_tokenizers.ByteLevel(add_prefix_space=True)},
])
def test_what_would_change_the_text_is_taken_out(change, tmp_path):
    backend = byte_level_backend(special_tokens=["<a>"])
    plain = load_tokenizer(write(tmp_path / "plain", backend))
    for name, part in change.items():
        setattr(backend, name, part)
    backend.enable_truncation(3)
    backend.enable_padding()
    changed = load_tokenizer(write(tmp_path / "changed", backend))
    assert [changed.encode(text) for text in DIFFICULT] == [plain.encode(text) for text in DIFFICULT]


def test_a_tokenizer_that_loses_text_is_refused(tmp_path):
    words = Tokenizer(models.WordPiece({"[UNK]": 0, "a": 1}, unk_token="[UNK]"))
    with pytest.raises(ValueError, match="words' cannot encode every text .WordPiece.*bits per byte"):
        load_tokenizer(write(tmp_path / "words", words))
    backend = byte_level_backend()
    backend.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(" "), "removed"), pre_tokenizers.ByteLevel(add_prefix_space=False)])
    with pytest.raises(ValueError, match="spaces' does not give the text .*bits per byte"):
        load_tokenizer(write(tmp_path / "spaces", backend))
    backend = byte_level_backend()
    backend.add_tokens([AddedToken("fox", lstrip=True)])
    with pytest.raises(ValueError, match="strips' does not give the text 'a fox b'"):
        load_tokenizer(write(tmp_path / "strips", backend))


def test_what_is_saved_needs_neither_the_folder_nor_transformers(tokenizer, tmp_path):
    tokenizer.save(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["meta.json", "tokenizer.json"]
    code = ("import sys; sys.modules['transformers'] = None; from tokenizer import load_tokenizer\n"
            f"t = load_tokenizer({str(tmp_path)!r}); print(t.fingerprint, t.kind, t.encode({STORIES[0]!r}))")
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == f"{tokenizer.fingerprint} hf {tokenizer.encode(STORIES[0])}\n"


# ---- long texts ----


def unsplit_backend(texts):
    """Bytes merged across words: no pre-tokenizer splits the text."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    backend.train_from_iterator(texts, trainers.BpeTrainer(
        vocab_size=400, show_progress=False, initial_alphabet=list(BYTES)))
    return backend


def check_pieces(tokenizer, text, monkeypatch, num_calls):
    """A text that is encoded in so many pieces has the ids of the whole text."""
    whole, calls, work = tokenizer.encode(text), [], tokenizer.encode_small_batch
    with monkeypatch.context() as patch:
        patch.setattr(base, "MAX_CHARS", 100)
        patch.setattr(tokenizer, "encode_small_batch", lambda texts: calls.append(texts) or work(texts))
        assert tokenizer.encode(text) == whole
    assert (len(calls) > 1) == (num_calls > 1), len(calls)


LINES = "The fox ran. It hid,\nand caf\u00e9 12 was\n\nopen\nagain\u3002\n" * 50


@pytest.mark.parametrize("text", ["caf\u00e9 " * 300, "\u4f60\u597d \n" * 300, "a b c\nd " * 300, ". " * 300, LINES])
def test_a_text_is_not_cut_where_tokens_cross(text, tmp_path, monkeypatch):
    tokenizer = load_tokenizer(write(tmp_path / "it", unsplit_backend([text])))
    check_pieces(tokenizer, text, monkeypatch, 1)


@pytest.mark.parametrize("step", [
    pre_tokenizers.FixedLength(7), pre_tokenizers.Split(Regex(r"\w+ \w+"), "isolated"),
    pre_tokenizers.Split(Regex(r"(?<=\w )\w+"), "isolated")], ids=str)
def test_a_text_is_not_cut_where_the_words_depend_on_what_is_before(step, tmp_path, monkeypatch):
    backend = byte_level_backend()
    backend.pre_tokenizer = pre_tokenizers.Sequence([
        step, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    check_pieces(load_tokenizer(write(tmp_path / "it", backend)), LINES, monkeypatch, 1)


def test_added_words_that_must_stand_alone_forbid_cuts(tmp_path, monkeypatch):
    backend = byte_level_backend()
    backend.add_tokens([AddedToken(" ran", single_word=True)])
    check_pieces(load_tokenizer(write(tmp_path / "it", backend)), LINES, monkeypatch, 1)


def test_most_tokenizers_have_places_to_cut(tokenizer, monkeypatch):
    check_pieces(tokenizer, LINES, monkeypatch, 2)
    assert WORD_ENDS in tokenizer.cuts.pattern


# ---- code of strangers ----

AUTO_MAP = {"AutoTokenizer": ["theirs.Theirs", "theirs.Theirs"], "AutoConfig": "theirs.Theirs"}


@pytest.mark.parametrize("described", [("tokenizer_config.json",), ("config.json",),
                                       ("tokenizer_config.json", "config.json")], ids=str)
def test_a_folder_with_a_program_is_refused_without_running_it_or_asking(described, tmp_path, monkeypatch, capfd):
    folder, ran = tmp_path / "it", tmp_path / "ran"
    folder.mkdir()
    (folder / "theirs.py").write_text(f"open({str(ran)!r}, 'w').close()\nclass Theirs: pass\n")
    for name in described:
        (folder / name).write_text(json.dumps({"tokenizer_class": "Theirs", "model_type": "theirs",
                                               "auto_map": AUTO_MAP}))
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n" * 9))
    with pytest.raises(ValueError, match=f"^tokenizer='{folder}' ") as refused:
        load_tokenizer(folder)
    said = capfd.readouterr()
    assert not ran.exists() and (said.out, said.err, sys.stdin.tell()) == ("", "", 0)
    assert "\n" not in str(refused.value)
    if "tokenizer_config.json" in described:
        assert str(refused.value).endswith("consists of a program of its own, which is never run: use one with a "
                                           "tokenizer.json, or save it as one with the library that it is for")


def test_a_program_beside_a_tokenizer_json_is_not_run(tmp_path):
    ran, folder = tmp_path / "ran", write(tmp_path / "it", byte_level_backend(), auto_map=AUTO_MAP)
    (folder / "theirs.py").write_text(f"open({str(ran)!r}, 'w').close()\nclass Theirs: pass\n")
    assert load_tokenizer(folder).vocab_size == 601
    assert not ran.exists()


# ---- the Hub ----


@pytest.fixture
def offline(monkeypatch, tmp_path):
    """The Hub's cache, empty, and no network."""
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        monkeypatch.setattr(f"huggingface_hub.constants.{name}", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return tmp_path / "hub"


def test_a_name_of_the_hub_is_read_from_its_cache(offline, gpt2):
    snapshot = offline / "models--some--gpt2" / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (offline / "models--some--gpt2" / "refs").mkdir()
    (offline / "models--some--gpt2" / "refs" / "main").write_text("0" * 40)
    for name, content in {"config.json": b'{"model_type": "gpt2"}', "tokenizer_config.json": b"{}",
                          **{name: (gpt2 / name).read_bytes() for name in ("vocab.json", "merges.txt")}}.items():
        (snapshot / name).write_bytes(content)
    named, read = load_tokenizer("some/gpt2"), load_tokenizer(gpt2)
    assert (named.bos_id, named.eos_id, named.pad_id) == (read.bos_id, read.eos_id, read.pad_id)
    assert named.encode_batch(DIFFICULT) == read.encode_batch(DIFFICULT)


def test_without_network_a_name_says_which_files_to_get(offline):
    with pytest.raises(ValueError, match="'some/gpt2' is not a folder, .*Hub.* tokenizer.json .* folder$") as error:
        load_tokenizer("some/gpt2")
    assert "\n" not in str(error.value)


def test_without_transformers_a_name_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ValueError, match="'some/gpt2' needs the package transformers: install it, or"):
        load_tokenizer("some/gpt2")


def test_a_hub_that_does_not_answer_is_asked_once(offline, monkeypatch):
    asked = []
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr(foreign, "from_auto", lambda name, **flags: asked.append(flags) or no_files())
    monkeypatch.setattr(foreign.urllib.request, "urlopen", lambda *_, **__: no_files())
    with pytest.raises(ValueError, match="not give it .no files.:"):
        load_tokenizer("some/gpt2")
    assert asked == [{"local_files_only": True}]


def no_files():
    raise OSError("no files")


@pytest.mark.parametrize("files", [
    {}, {"tokenizer.json": "{"}, {"tokenizer.json": "{}"}, {"tokenizer.json": ""}, {"tokenizer.model": "x"},
    {"vocab.json": "{}", "merges.txt": "#version: 0.2\na b\n"}, {"vocab.json": "{", "merges.txt": ""},
    {"tokenizer_config.json": "{", "tokenizer.json": "{}"},
])
def test_a_damaged_folder_is_one_clear_sentence(files, tmp_path):
    (tmp_path / "it").mkdir()
    for name, content in files.items():
        (tmp_path / "it" / name).write_text(content)
    with pytest.raises(ValueError, match="it' cannot be read .*save it again|is not JSON") as error:
        load_tokenizer(tmp_path / "it")
    assert "\n" not in str(error.value)
