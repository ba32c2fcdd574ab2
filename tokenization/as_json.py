"""Any tokenizer as a tokenizer.json, which other programs read: the same ids for the same text.

A text with U+2581, or with the words of special tokens, gets other ids there: SentencePiece's form reads U+2581 as a
space, and other programs find special tokens in a text.
"""

import json
from collections.abc import Callable, Iterable, Sequence

from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, processors
from tokenizers import Tokenizer as Backend

from tokenization.base import Tokenizer
from tokenization.hugging_face import BYTES, HuggingFaceTokenizer
from tokenization.lossless import HARD_TEXTS
from tokenization.plain import ByteTokenizer, CharTokenizer
from tokenization.sentence_piece import SPACE_MARK, SentencePieceTokenizer

SPECIALS = ("<pad>", "<s>", "</s>")  # ids 0, 1 and 2 of tokenizers made here
MOST_CHARS = 200_000  # of the texts that are compared


def to_backend(tokenizer: Tokenizer, texts: Iterable[str], *, bos: bool) -> Backend:
    """The library's tokenizer with the same ids, which with `bos` begins a text with bos_id unless told otherwise.

    Raises ValueError if its kind has no such form, or a text gets other ids.
    """
    texts = encodable(tokenizer, [*HARD_TEXTS, *texts])
    for make in forms(tokenizer):
        backend = make(tokenizer)
        wrong = first_difference(tokenizer, backend, texts)
        if wrong is None:
            if bos:
                begin_with(backend, tokenizer.bos_id)
            return backend
    raise ValueError(f"tokenizer.kind={tokenizer.kind} has no tokenizer.json with the same ids (of {wrong!r}): train "
                     "the model with --tokenizer.kind hf_bpe")


def forms(tokenizer: Tokenizer) -> list[Callable[[Tokenizer], Backend]]:
    """The ways to make a tokenizer.json of a kind. Raises ValueError if there are none."""
    if isinstance(tokenizer, SentencePieceTokenizer):
        return [{"bpe": from_merges, "unigram": from_scores}[tokenizer.kind]] if tokenizer.kind in (
            "bpe", "unigram") else [from_merges, from_scores]
    for kind, make in ((HuggingFaceTokenizer, from_content), (CharTokenizer, from_characters),
                       (ByteTokenizer, from_bytes)):
        if isinstance(tokenizer, kind):
            return [make]
    raise ValueError(f"tokenizer.kind={tokenizer.kind} has no tokenizer.json: train the model with --tokenizer.kind "
                     "hf_bpe")


def encodable(tokenizer: Tokenizer, texts: Iterable[str]) -> list[str]:
    """The texts that a tokenizer has ids for, as far as both programs mean the same by them."""
    kept, room = [], MOST_CHARS
    for text in texts:
        text = text[:room]
        if not text or SPACE_MARK in text:
            continue
        try:
            tokenizer.encode(text)
        except ValueError:  # a character without an id
            continue
        kept.append(text)
        room -= len(text)
    return kept


def first_difference(tokenizer: Tokenizer, backend: Backend, texts: Sequence[str]) -> str | None:
    """The first text that gets other ids, or does not come back from them; None = there is none."""
    for text in texts:
        ids = tokenizer.encode(text)
        if backend.encode(text, add_special_tokens=False).ids != ids or backend.decode(ids) != text:
            return text[:60]
    return None


def begin_with(backend: Backend, token: int) -> None:
    word = backend.id_to_token(token)
    backend.post_processor = processors.TemplateProcessing(
        single=f"{word} $A", pair=f"{word} $A {word} $B", special_tokens=[(word, token)])


# ---- forms ----


def from_content(tokenizer: HuggingFaceTokenizer) -> Backend:
    return Backend.from_str(tokenizer.content)


def from_characters(tokenizer: CharTokenizer) -> Backend:
    """One id per character: pairs without merges. A character without an id is left out."""
    words = (*SPECIALS, *tokenizer.alphabet)
    backend = Backend(models.BPE({word: i for i, word in enumerate(words)}, []))
    backend.decoder = decoders.Fuse()
    backend.add_special_tokens(list(SPECIALS))
    return backend


def from_bytes(tokenizer: ByteTokenizer) -> Backend:
    """One id per byte."""
    vocabulary = dict(zip(SPECIALS, range(3), strict=True)) | {word: byte + 3 for word, byte in BYTES.items()}
    backend = Backend(models.BPE(vocabulary, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(list(SPECIALS))
    return backend


def from_merges(tokenizer: SentencePieceTokenizer) -> Backend:
    """SentencePiece's byte-pair encoding: neighbours merge if their piece is in the vocabulary, best score first."""
    pieces = tokenizer.processor
    words = [pieces.id_to_piece(i) for i in range(pieces.vocab_size())]
    ids = {word: i for i, word in enumerate(words)}
    merged = {word for i, word in enumerate(words) if is_normal(pieces, i) and not is_symbol(pieces, i)}
    merges = []
    for word in sorted(merged, key=lambda word: (-pieces.get_score(ids[word]), ids[word])):
        cuts = [(word[:n], word[n:]) for n in range(1, len(word))]
        merges += sorted((pair for pair in cuts if merged.issuperset(pair)),
                         key=lambda pair: (ids[pair[0]], ids[pair[1]]))
    return finished(pieces, models.BPE(ids, merges, unk_token=words[pieces.unk_id()], fuse_unk=True,
                                       byte_fallback=has_bytes(pieces)))


def from_scores(tokenizer: SentencePieceTokenizer) -> Backend:
    """SentencePiece's unigram model: the split of the highest total score."""
    pieces = tokenizer.processor
    scored = [(pieces.id_to_piece(i), pieces.get_score(i)) for i in range(pieces.vocab_size())]
    return finished(pieces, models.Unigram(scored, pieces.unk_id(), has_bytes(pieces)))


def finished(pieces, model) -> Backend:
    """A tokenizer of SentencePiece's pieces that changes no text."""
    backend = Backend(model)
    backend.normalizer = normalizers.Replace(" ", SPACE_MARK)
    backend.decoder = decoders.Sequence([decoders.Replace(SPACE_MARK, " "), decoders.ByteFallback(), decoders.Fuse()])
    numbers = range(pieces.vocab_size())
    backend.add_special_tokens([pieces.id_to_piece(i) for i in numbers
                                if pieces.is_control(i) or pieces.is_unknown(i)])
    backend.add_tokens([AddedToken(pieces.id_to_piece(i), normalized=False) for i in numbers if is_symbol(pieces, i)])
    return backend


def is_normal(pieces, i: int) -> bool:
    return not (pieces.is_control(i) or pieces.is_unknown(i) or pieces.is_byte(i) or pieces.is_unused(i))


def is_symbol(pieces, i: int) -> bool:
    """Whether a piece is found before all others: a single character with the score of none, as '\\n'."""
    return is_normal(pieces, i) and len(pieces.id_to_piece(i)) == 1 and pieces.get_score(i) == 0.0


def has_bytes(pieces) -> bool:
    return pieces.is_byte(pieces.piece_to_id("<0x0A>"))


def describe(tokenizer: Tokenizer, backend: Backend, max_len: int) -> str:
    """The tokenizer_config.json beside it."""
    words = {f"{role}_token": backend.id_to_token(getattr(tokenizer, f"{role}_id")) for role in ("bos", "eos", "pad")}
    return json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": max_len,
                       "clean_up_tokenization_spaces": False} | words, indent=2) + "\n"
