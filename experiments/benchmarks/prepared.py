"""Text and tokenizer of a benchmark that trains."""

from typing import NamedTuple

from config import Config
from corpora.corpus import load_corpus
from corpora.shards import JoinedTokenFile, TokenFile, prepare
from tokenizer import Tokenizer
from training.setup import choose_tokenizer, fit_vocabulary


class Prepared(NamedTuple):
    """A configuration with its vocabulary size, and the encoded text."""

    cfg: Config
    tokenizer: Tokenizer
    train: list[tuple[TokenFile, int]]
    val: TokenFile | JoinedTokenFile


def prepare_text(cfg: Config) -> Prepared:
    corpus = load_corpus(cfg.data)
    tokenizer = choose_tokenizer(cfg.tokenizer, cfg.data, corpus)
    return Prepared(fit_vocabulary(cfg, tokenizer), tokenizer, *prepare(corpus, tokenizer, cfg.data.cache_path))
