"""The built-in corpus: children's stories from a grammar whose exact entropy is known.

`python -m tales` prints stories and grades them; stories.py writes and reads them, grammar.py is the engine, words.py
holds the words and plots.
"""

from tales.grammar import Break, Choice
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
    "GRAMMAR", "SOURCES", "STORY", "Break", "Choice", "Entropy", "Grade", "Parse", "Story", "bits", "entropy",
    "grade", "parse", "stories", "story", "words", "write",
]
