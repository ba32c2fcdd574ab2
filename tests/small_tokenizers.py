"""Small tokenizers in other people's forms, and text that is hard to split."""

import json
from itertools import islice
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

import tales
from tokenization.hugging_face import BYTES

STORIES = [story.text for story in islice(tales.stories(0), 100)]
DIFFICULT = [
    "  Once\tupon  a time,\r\n\r\n there's   \n\n\n it'll DON'T 'tis 12345 6.7 ", "<|pad|> <s>", "\0\x7f\u0080\u2028",
    "\u2581 \ufeffe\u0301 \ufb01 \u00a0\u200d \u4f60\u597d\U0001f600 ", "", " ", "\n", "   ", "a" * 99,
    "def f(x):\n\n    return {x: 'a'}  # \u00e9t\u00e9\n\n\n",
]


def byte_level_backend(**options) -> Tokenizer:
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.train_from_iterator(STORIES, trainers.BpeTrainer(
        vocab_size=600, show_progress=False, initial_alphabet=list(BYTES), **options))
    return backend


def llama_backend(*, metaspace: bool = False) -> Tokenizer:
    """A SentencePiece vocabulary with byte fallback, in either of the forms that Llama 2's tokenizer.json has had."""
    words = Tokenizer(models.BPE())
    words.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
    words.train_from_iterator(STORIES, trainers.BpeTrainer(vocab_size=300, show_progress=False))
    model = json.loads(words.to_str())["model"]
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *model["vocab"]]
    backend = Tokenizer(models.BPE({piece: i for i, piece in enumerate(pieces)}, [tuple(m) for m in model["merges"]],
                                   unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    if metaspace:
        backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    else:
        backend.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    backend.decoder = decoders.Sequence([
        decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    backend.add_special_tokens(["<unk>", "<s>", "</s>"])
    return backend


def write(folder: Path, backend: Tokenizer, **config) -> Path:
    folder.mkdir(exist_ok=True)
    backend.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast"} | config))
    return folder
