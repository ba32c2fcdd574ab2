"""The built-in corpus: children's stories from a grammar, so their exact entropy is known.

`python -m tales` prints stories, or grades those of a file. words.py holds the words and plots, grammar.py compiles
them, interpreters.py writes and reads stories, stories.py grades them and computes the entropy.
"""

from tales.interpreters import ParsedChoice, ParseError
from tales.stories import (
    GRAMMAR,
    SOURCES,
    STORY,
    Entropy,
    Grade,
    Parse,
    Story,
    bits,
    entropy,
    grade,
    parse,
    stories,
    story,
    words,
    write,
)

__all__ = [
    "GRAMMAR", "SOURCES", "STORY", "Entropy", "Grade", "Parse", "ParseError", "ParsedChoice", "Story", "bits",
    "entropy", "grade", "parse", "stories", "story", "words", "write",
]
