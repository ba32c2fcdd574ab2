"""Others' SentencePiece models: a tokenizer.model with byte fallback, such as Llama 2's."""

import struct
from collections.abc import Mapping
from typing import Self

import sentencepiece as spm

from tokenization.cuts import safe_cuts
from tokenization.lossless import END, check_lossless, incomplete, unreadable
from tokenization.sentence_piece import SentencePieceTokenizer

NORMAL, UNKNOWN, CONTROL, USER_DEFINED = range(1, 5)  # types of a piece
UNCHANGED = b"\x12\x00\x18\x00\x20\x00"  # NormalizerSpec: precompiled_charsmap "", add_dummy_prefix and
# remove_extra_whitespaces false


class OthersPieces(SentencePieceTokenizer):
    """The tokenizer of a .model that does not change text: `from_model` takes care of that."""

    kind = "sentencepiece"

    def __init__(self, model: bytes, *, pad_id: int, bos_id: int, eos_id: int):
        super().__init__(model, pad_id=pad_id, bos_id=bos_id, eos_id=eos_id)
        self.cuts = safe_cuts(self.token_bytes)

    @classmethod
    def rebuild(cls, description: Mapping, files: Mapping[str, bytes]) -> Self:
        return cls(files["tokenizer.model"], **{name: description[name] for name in ("pad_id", "bos_id", "eos_id")})


def from_model(model: bytes, source: str) -> OthersPieces:
    """The tokenizer of a SentencePiece model, without the steps that change text; the ids of other text stay the same.

    Removed are normalization, a space before the text, and the removal of spaces. Of bos and eos, the only one stands
    for both; if there is neither, <|endoftext|> is added. Without pad, eos is used.
    Raises ValueError if the file is damaged, or an id does not stand for fixed bytes.
    """
    model += field(3, UNCHANGED)  # protobuf merges a message that comes again into the first
    processor = parse(model, source)
    if not all(processor.is_byte(processor.piece_to_id(f"<0x{byte:02X}>")) for byte in range(256)):
        raise incomplete(source, "SentencePiece")
    ends = [i for i in (processor.eos_id(), processor.bos_id()) if i >= 0]
    if not ends:
        model, ends = model + piece(END, 0.0, CONTROL), [processor.vocab_size()]
        parse(model, source)
    pad = processor.pad_id()
    tokenizer = OthersPieces(model, pad_id=pad if pad >= 0 else ends[0], bos_id=ends[-1], eos_id=ends[0])
    words = (processor.id_to_piece(i) for i in range(processor.vocab_size()) if not processor.is_unused(i))
    check_lossless(tokenizer, source, (word for word in words if word.startswith("<") and word.endswith(">")))
    return tokenizer


def parse(model: bytes, source: str) -> spm.SentencePieceProcessor:
    """The library's processor of a model. Raises ValueError if the model is damaged."""
    processor = spm.SentencePieceProcessor()
    try:
        processor.LoadFromSerializedProto(model)
    except RuntimeError as error:
        raise unreadable(source, f"it is not a SentencePiece model: {error}") from None
    return processor


# ---- as protobuf writes them: a repeated field is appended to, a scalar that comes again replaces the first ----


def piece(text: str, score: float, kind: int = NORMAL) -> bytes:
    """ModelProto.pieces += {piece, score, type}; a normal one needs no type."""
    last = b"" if kind == NORMAL else b"\x18" + varint(kind)
    return field(1, field(1, text.encode()) + b"\x15" + struct.pack("<f", score) + last)


def field(number: int, content: bytes) -> bytes:
    """A field of bytes, or of a message."""
    return varint(number << 3 | 2) + varint(len(content)) + content


def varint(number: int) -> bytes:
    """Seven bits per byte, lowest first."""
    low = number & 0x7F
    return bytes([low]) if number == low else bytes([low | 0x80]) + varint(number >> 7)


# how a model begins that `SentencePieceTokenizer` has trained
TRAINED_HERE = b"".join(piece(text, 0.0, kind) for text, kind in (
    ("<pad>", CONTROL), ("<s>", CONTROL), ("</s>", CONTROL), ("<unk>", UNKNOWN), ("\n", USER_DEFINED)))
