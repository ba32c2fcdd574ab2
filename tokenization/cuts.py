"""Where a long text may be cut, so that its parts have the ids of the whole."""

import re
from collections.abc import Callable, Iterable, Iterator

WORD_ENDS = r"[^\W\d_](?=[ \n])"  # a letter, before a space or newline
LINE_ENDS = r"\S\n(?=\S)"  # a newline that stands alone
# how a token looks that goes on behind such a place. U+DC80 to U+DCFF are bytes of a character that is not all in it
CROSSING = {WORD_ENDS: re.compile(r"(?:[^\W\d_]|[\udc80-\udcff])[ \n]"), LINE_ENDS: re.compile(r"(?:\A|\S)\n\S")}
BOUNDARY = re.compile(WORD_ENDS)
BETWEEN_WORDS = re.compile(f"{WORD_ENDS}|{LINE_ENDS}")
ANYWHERE = re.compile(".", re.DOTALL)
# words of many lengths and writings: what splits a text by position or by pairs of words shows here
WORDS = "a be sea deep words caf\u00e9 I'll \u4f60\u597d 12 x1 \u03b1\u03b2 (so) end. \u0928\u0939\u0940\u0902"
PROBE = " ".join(WORDS.split() * 3) + (
    "\nOne line.\nAnother, 'tis 3\n4 more\u3002\n\u4f60\u597d\n(x)\n\n  indented \n\tit\r\nend a\nb\n")


def safe_cuts(
    tokens: Iterable[bytes], split: Callable[[str], list[str]] | None = None,
) -> re.Pattern[str] | None:
    """The places at whose end any text may be cut, for merges into these tokens; None = there are none.

    No token goes on behind such a place. `split` is what splits a text into words before its tokens are merged: it
    must split there, and split the words on either side as if the other were not there.
    """
    decoded = [token.decode(errors="surrogateescape") for token in tokens]
    safe = [places for places, crossing in CROSSING.items()
            if not any(map(crossing.search, decoded)) and (split is None or splits_at(places, split))]
    return re.compile("|".join(safe)) if safe else None


def splits_at(places: str, split: Callable[[str], list[str]]) -> bool:
    """Whether `split` gives the words of PROBE also if it is cut at any of these places."""
    words, ends = split(PROBE), [found.end() for found in re.finditer(places, PROBE)]
    return all(split(PROBE[:end]) + split(PROBE[end:]) == words for end in ends)


def split_long(text: str, max_chars: int, cuts: re.Pattern[str] = BOUNDARY) -> Iterator[str]:
    """Cut a text into parts of `max_chars` characters or a few more, at places where it may be cut.

    Without such a place the rest is not cut.
    """
    start = 0
    while len(text) - start > max_chars and (match := cuts.search(text, start + max_chars - 1)):
        yield text[start:match.end()]
        start = match.end()
    yield text[start:]


def last_cut(text: str, cuts: re.Pattern[str] | None) -> int:
    """The last position at which a text may be cut; 0 if there is none."""
    start, window, ends = len(text) if cuts else 0, 1 << 8, []
    while start and not ends:
        start = max(0, len(text) - window)
        ends = [found.end() for found in cuts.finditer(text, start)]
        window *= 16
    return ends[-1] if ends else 0
