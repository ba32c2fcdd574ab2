"""Enlarge the vocabulary of a byte-pair encoding by further merges; old ids keep their meaning.

All old merges come before the new ones: a text is first split as before, then into fewer tokens.
"""

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from heapq import heapify, heappop, heappush
from itertools import pairwise

from tokenization.base import Tokenizer, too_large_error
from tokenization.hugging_face import HuggingFaceTokenizer
from tokenization.pieces import field, piece, varint
from tokenization.sentence_piece import SPACE_MARK, BPETokenizer

Pair = tuple[int, int]
MARKS = r"!-/:-@\[-`{-~\u00a0-\u00bf\u2000-\u206f\u3000-\u303f"  # punctuation, which does not merge with letters
PIECE_WORD = re.compile(rf" ?[^\s\d{MARKS}]{{1,1000}}| ?[{MARKS}]{{1,1000}}| {{1,1000}}")  # digits never merge
WORD_CHARS = 1000  # a longer word is truncated


def grow(tokenizer: Tokenizer, texts: Iterable[str], vocab_size: int) -> Tokenizer:
    """The tokenizer with `vocab_size` ids, the new ones learned from the texts by further merges.

    The old ids keep their meaning, and no text gets more tokens. Raises ValueError if the kind has no merges to
    continue, or the size is not above the present one, or is more than the texts support.
    """
    if vocab_size <= tokenizer.vocab_size:
        raise ValueError(f"vocab_size={vocab_size} is not above the {tokenizer.vocab_size} ids that it has: "
                         "use a larger one")
    if isinstance(tokenizer, BPETokenizer):
        return _grow_pieces(tokenizer, texts, vocab_size)
    if isinstance(tokenizer, HuggingFaceTokenizer) and _has_byte_merges(tokenizer):
        return _grow_merges(tokenizer, texts, vocab_size)
    raise ValueError(f"kind={tokenizer.kind} has no merges of bytes or characters within words to continue: "
                     "grow one of kind=bpe or kind=hf_bpe, or train a new one")


def further_merges(words: Mapping[tuple[int, ...], int], tokens: list[str], vocab_size: int) -> list[Pair]:
    """The next merges of byte-pair encoding over words of ids with their counts, most frequent pair first.

    Appends new tokens to `tokens` (by id) until there are `vocab_size`. Raises ValueError if the words have fewer.
    """
    ids, merges, pairs = {token: i for i, token in enumerate(tokens) if token}, [], Pairs(words)
    while len(tokens) < vocab_size:
        pair = pairs.most_frequent()
        if pair is None:
            raise too_large_error(vocab_size, len(tokens))
        joined = tokens[pair[0]] + tokens[pair[1]]
        if joined not in ids:  # otherwise it is an older token, split in another way
            ids[joined] = len(tokens)
            tokens.append(joined)
        merges.append(pair)
        pairs.merge(pair, ids[joined])
    return merges


class Pairs:
    """The counts of neighboring pairs in words of ids, updated as pairs are merged."""

    def __init__(self, words: Mapping[tuple[int, ...], int]):
        self.words, self.weights = [list(word) for word in words], list(words.values())
        self.counts: Counter[Pair] = Counter()
        self.where: defaultdict[Pair, set[int]] = defaultdict(set)  # pair -> the words that have it, or once had it
        for n, word in enumerate(self.words):
            for pair in pairwise(word):
                self.counts[pair] += self.weights[n]
                self.where[pair].add(n)
        self.heap = [(-count, pair) for pair, count in self.counts.items()]
        heapify(self.heap)

    def most_frequent(self) -> Pair | None:
        """The pair with the highest count, of equals the one with the lowest ids; None if nothing is left to merge."""
        while self.heap:
            count, pair = heappop(self.heap)
            if 0 < self.counts[pair] == -count:  # otherwise it has changed, and a newer entry is in the heap
                return pair
        return None

    def merge(self, pair: Pair, joined: int) -> None:
        """Replace a pair by one id, in every word."""
        changes: Counter[Pair] = Counter()
        for n in self.where.pop(pair):
            for old in pairwise(self.words[n]):
                changes[old] -= self.weights[n]
            self.words[n] = _merged(self.words[n], pair, joined)
            for new in pairwise(self.words[n]):
                changes[new] += self.weights[n]
                self.where[new].add(n)
        for changed, change in changes.items():
            if change:
                self.counts[changed] += change
                heappush(self.heap, (-self.counts[changed], changed))


def _merged(word: list[int], pair: Pair, joined: int) -> list[int]:
    result, n = [], 0
    while n < len(word):
        found = tuple(word[n:n + 2]) == pair
        result.append(joined if found else word[n])
        n += 1 + found
    return result


# ---- Hugging Face's ----


def _has_byte_merges(tokenizer: HuggingFaceTokenizer) -> bool:
    model = json.loads(tokenizer.content)["model"]
    parts = [model.get(name) for name in ("continuing_subword_prefix", "end_of_word_suffix")]
    return (tokenizer.byte_level and "merges" in model and not any(parts)
            and tokenizer.backend.pre_tokenizer is not None)


def _grow_merges(tokenizer: HuggingFaceTokenizer, texts: Iterable[str], vocab_size: int) -> HuggingFaceTokenizer:
    backend, counts = tokenizer.backend, Counter()
    split, normalizer, model = backend.pre_tokenizer.pre_tokenize_str, backend.normalizer, backend.model
    for text in texts:
        text = normalizer.normalize_str(text) if normalizer else text
        counts.update(word[:WORD_CHARS] for word, _ in split(text))
    words: Counter[tuple[int, ...]] = Counter()
    for word, count in counts.items():
        words[tuple(token.id for token in model.tokenize(word))] += count
    tokens = [backend.id_to_token(i) or "" for i in range(tokenizer.vocab_size)]
    merges = further_merges(words, tokens, vocab_size)
    state = json.loads(tokenizer.content)
    vocabulary, old = state["model"]["vocab"], state["model"]["merges"]
    # the library gives an added token its id in the vocabulary, or else one after the vocabulary's end
    vocabulary |= {token["content"]: token["id"] for token in state["added_tokens"]}
    vocabulary |= {tokens[i]: i for i in range(tokenizer.vocab_size, vocab_size)}
    as_text = bool(old) and isinstance(old[0], str)  # older files write a merge as "a b"
    old += [f"{tokens[a]} {tokens[b]}" if as_text else [tokens[a], tokens[b]] for a, b in merges]
    return type(tokenizer)(json.dumps(state, ensure_ascii=False), pad_id=tokenizer.pad_id, bos_id=tokenizer.bos_id,
                           eos_id=tokenizer.eos_id)


# ---- SentencePiece's ----


def _grow_pieces(tokenizer: BPETokenizer, texts: Iterable[str], vocab_size: int) -> BPETokenizer:
    """Append pieces with ever lower scores: SentencePiece merges the pair with the highest score first."""
    processor, counts = tokenizer.processor, Counter()
    for text in texts:
        counts.update(PIECE_WORD.findall(text.replace(SPACE_MARK, " ")))
    unmerged = {i for i in range(tokenizer.vocab_size) if _never_merges(processor, i)}
    words: Counter[tuple[int, ...]] = Counter()
    for word, ids in zip(counts, processor.encode(list(counts)), strict=True):
        for run in _merging_runs(ids, unmerged):
            words[run] += counts[word]
    tokens = [processor.id_to_piece(i) for i in range(tokenizer.vocab_size)]
    further_merges(words, tokens, vocab_size)
    lowest = min(processor.get_score(i) for i in range(tokenizer.vocab_size))
    new = tokens[tokenizer.vocab_size:]
    pieces = b"".join(piece(word, lowest - 1 - n) for n, word in enumerate(new))
    return BPETokenizer(tokenizer.model + pieces + field(2, b"\x20" + varint(vocab_size)))


def _never_merges(processor, i: int) -> bool:
    return (processor.is_control(i) or processor.is_unknown(i) or processor.is_byte(i)
            or processor.id_to_piece(i) == "\n")


def _merging_runs(ids: list[int], unmerged: set[int]) -> Iterable[tuple[int, ...]]:
    """The parts of a word between ids that never merge."""
    run = []
    for i in ids:
        if i not in unmerged:
            run.append(i)
        elif run:
            yield tuple(run)
            run = []
    if run:
        yield tuple(run)
