"""How alike texts of tokens are, and the text that is most like the others."""

import math
from collections import Counter
from collections.abc import Sequence

LONGEST = 4  # tokens of an n-gram


def bleu(text: Sequence[int], reference: Sequence[int]) -> float:
    """The BLEU of a text by one reference, of n-grams up to 4: the geometric mean of the shares of its n-grams that the
    reference has, times exp(1 - r / c) if the text's length c is below the reference's r.

    Papineni et al. 2002, "BLEU", ACL; smoothed by method 4 of Chen & Cherry 2014, "A systematic comparison of smoothing
    techniques for sentence-level BLEU", WMT: the k-th length without a match counts ln c / (5 * 2^k) matches; here a
    text of one token has c = 2 in this. Without a common token it is 0.
    """
    k, logs = 0, 0.0
    for n in range(1, LONGEST + 1):
        ours, theirs = _grams(text, n), _grams(reference, n)
        found = sum((ours & theirs).values())
        if found == 0:
            if n == 1:
                return 0.0
            k += 1
            found = math.log(max(2, len(text))) / (5 * 2**k)
        logs += math.log(found / max(1, len(text) - n + 1)) / LONGEST
    return math.exp(logs + min(0.0, 1 - len(reference) / len(text)))


def _grams(text: Sequence[int], n: int) -> Counter:
    return Counter(tuple(text[i : i + n]) for i in range(len(text) - n + 1))


def most_alike(texts: Sequence[Sequence[int]]) -> int:
    """The number of the text whose BLEU by all others is largest in sum, the first of equals: minimum Bayes risk.

    Kumar & Byrne 2004, "Minimum Bayes-risk decoding for statistical machine translation", NAACL.
    """
    sums = [sum(bleu(text, other) for place, other in enumerate(texts) if place != number)
            for number, text in enumerate(texts)]
    return sums.index(max(sums))
