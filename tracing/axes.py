"""Names of the axes of tensors: declared in a dims string and verified, or guessed from sizes.

One letter per axis: b batch, t time (queries), s source (keys), d residual width, h heads, g key/value heads,
p head width, f MLP width, n state, e experts, v vocabulary, l layers; _ in a dims string is an axis without a name.
"""

import re
from functools import cache, lru_cache
from math import prod

Size = int | str  # a number, or a symbolic expression such as "b*t"
Shape = tuple[Size, ...]
Labels = tuple[str | None, ...]
Axis = tuple[str, ...]  # the factors of one axis: ("h", "p") for "(h p)"
Axes = tuple[Axis, ...]
Bound = tuple[tuple[str, Size], ...]  # letters and their sizes

Letters = frozenset[str]

ELLIPSIS = ("...",)
NAMELESS = ("_",)
MOVING = {"b", "t", "s", "l"}  # sizes that depend on the data, and layers, which are not an axis
PRODUCTS = ("h*p", "g*p", "e*f", "2*d", "3*d", "4*d", "2*f")  # widths of fused projections


@cache
def parse_dims(text: str) -> tuple[tuple[Axes, ...], tuple[Axes, ...]]:
    """The axes of each input and each output of "b t d -> b h t p, b g s p".

    Raises ValueError if the text is not a dims string.
    """
    if text.count("->") != 1:
        raise ValueError(f"dims={text!r} must contain one '->': write 'inputs -> outputs'")
    inputs, outputs = text.split("->")
    return _parse_side(inputs, text), _parse_side(outputs, text)


def _parse_side(side: str, text: str) -> tuple[Axes, ...]:
    return tuple(_parse_tensor(part, text) for part in side.split(",")) if side.strip() else ()


def _parse_tensor(part: str, text: str) -> Axes:
    axes = [tuple((m[1] or m[0]).split()) for m in re.finditer(r"\(([^()]+)\)|\S+", part)]
    for factor in (factor for axis in axes for factor in axis):
        if not (factor.isidentifier() or factor.isdigit() or factor == "..."):
            raise ValueError(f"dims={text!r}: {factor!r} is not an axis: use a letter, a number or ...")
    if axes.count(ELLIPSIS) > 1:
        raise ValueError(f"dims={text!r}: one '...' for each tensor, not more")
    return tuple(axes)


class AxisGuesser:
    """Guesses the names of axes from the `sizes` of some letters (one size, or a tuple of them)."""

    def __init__(self, sizes: dict[str, int | tuple[int, ...]]):
        self.sizes = {k: v if isinstance(v, tuple) else (v,) for k, v in sizes.items()}

    def _guess(self, shape: Shape, bound: Bound, hidden: Letters = frozenset()) -> Labels:
        """Names by size and position: batch first, then time, then widths. If several letters fit: "v|f".

        Letters that are `hidden` are left out if others fit.
        """
        letters = dict(bound)
        b, t, s = (letters.get(k) for k in "bts")
        if len(shape) < 2:
            return tuple("t" if size == t and (size != b or size == 1) else None for size in shape)
        first = None
        if b is not None and shape[0] == b and (len(shape) > 2 or shape[1:] == (t,)):
            first = "b"
        elif len(shape) == 2 and 1 not in (b, t):
            first = self._rows(shape[0], b, t)
        moving = ("t", "s") if s not in (None, t) else ("t",)
        moving = moving if first == "b" else ()
        labels = [first, *(self._guess_axis(size, letters, moving, hidden) for size in shape[1:])]
        if first == "b" and t == 1 and (place := place_of_step(shape)):
            labels[place] = "t"
        if len(shape) == 4 and shape[1] == 1 and labels[1] is None and labels[3] and labels[3] not in MOVING:
            labels[1] = self._single(letters, hidden)
        return tuple(labels)

    def _rows(self, size: Size, b: Size | None, t: Size | None) -> str | None:
        """The name of an axis of all tokens, or of all experts of all tokens."""
        if size == product([b, t]):
            return "b*t"
        return "b*t*k" if any(size == product([b, t, k]) for k in self.sizes.get("k", ())) else None

    def _single(self, letters: dict[str, Size], hidden: Letters) -> str | None:
        """The name of an axis of size 1 in the place of heads, before time and a width: "g" if there is one of g."""
        fits = [k for k, sizes in self.sizes.items() if k not in MOVING and 1 in (letters.get(k), *sizes)]
        return "|".join([k for k in fits if k not in hidden] or fits) or None

    def _guess_width(self, size: Size, bound: Bound, source: str | None, hidden: Letters = frozenset()) -> str | None:
        """The name of the last axis, which is neither batch nor time.

        A map from `source` to the same width may lead to heads: "d|h*p".
        """
        letters = dict(bound)
        label = self._guess_axis(size, letters, (), hidden)
        if label is None or label != source:
            return label
        products = self._fitting_products(size, letters, ("h*p", "g*p"))
        return "|".join([label, *(name for name in products if not hidden.intersection(name.split("*")))])

    def _guess_axis(self, size: Size, letters: dict[str, Size], moving, hidden: Letters) -> str | None:
        if size == 1 or not isinstance(size, int):
            return next((k for k in moving if letters.get(k) == size != 1), None)
        widths = self.sizes | {k: (v,) for k, v in letters.items()}
        names = [*moving, *(k for k in widths if k not in MOVING)]
        fits = [k for k in names if size in widths.get(k, ())]
        fits = fits or self._fitting_products(size, letters, PRODUCTS)
        fits = [name for name in fits if not hidden.intersection(name.split("*"))] or fits
        return "|".join(fits) if 0 < len(fits) <= 4 else None

    def _fitting_products(self, size: Size, letters: dict[str, Size], names) -> list[str]:
        single = {k: v[0] for k, v in self.sizes.items() if len(v) == 1} | letters
        factors = {name: [int(k) if k.isdigit() else single.get(k) for k in name.split("*")]
                   for name in names}  # fmt: skip
        fits = [name for name in names if product(factors[name]) == size]
        return fits if single.get("g") != single.get("h") else [x for x in fits if x != "g*p"]


class AxisNamer(AxisGuesser):
    """Names axes as their dims string declares them, or else by guessing. Results are cached, since layers repeat."""

    def __init__(self, sizes: dict[str, int | tuple[int, ...]]):
        super().__init__(sizes)
        remembering = lru_cache(maxsize=4096)
        self.declare, self.guess = remembering(self._declare), remembering(self._guess)
        self.guess_width, self.bind = remembering(self._guess_width), remembering(self._bind)

    @classmethod
    @lru_cache(maxsize=16)
    def of(cls, sizes: Bound) -> "AxisNamer":
        """The namer for these sizes, with its cache: a second trace of the same model reuses it."""
        return cls(dict(sizes))

    @staticmethod
    def _bind(bound: Bound, own: Bound) -> Bound:
        """All bound letters; those of the call itself come first."""
        return tuple((dict(bound) | dict(own)).items())

    def _declare(self, axes: Axes, shape: Shape, bound: Bound) -> tuple[Labels, str, Bound]:
        """The labels that `axes` declare for `shape`, what is wrong with them ("" if nothing), and the bound letters.

        `bound` are the letters that the same call declared before.
        """
        declared = axes
        if ELLIPSIS in axes:
            at = axes.index(ELLIPSIS)
            axes = axes[:at] + (ELLIPSIS,) * (len(shape) - len(axes) + 1) + axes[at + 1 :]
        if not shape:  # a scalar, such as a loss returned instead of logits
            return (), "", bound
        if len(axes) != len(shape):
            problem = f"declared '{written(declared)}', got {len(shape)} axes {[*shape]}"
            return (None,) * len(shape), problem, bound
        own = dict(bound)
        checks = [self._check(*pair, own) for pair in zip(axes, shape, strict=True)]
        problem = "; ".join(filter(None, checks))
        labels = tuple(label_of(axis) for axis in axes)
        if problem:
            problem = f"declared '{written(declared)}', got {[*shape]}: {problem}"
        return labels, problem, tuple(own.items()) if len(own) > len(bound) else bound

    def _check(self, axis: Axis, size: Size, own: dict[str, Size]) -> str:
        if axis in (ELLIPSIS, NAMELESS):
            return ""
        letter = axis[0]
        if len(axis) == 1 and not letter.isdigit() and letter not in own:
            own[letter] = size
            allowed = self.sizes.get(letter)
            if allowed and size not in allowed:
                return f"{letter} is {' or '.join(map(str, allowed))}, not {size}"
            return ""
        expected = product([self._size_of(letter, own) for letter in axis])
        wrong = expected is not None and expected != size
        return f"{'*'.join(axis)} is {expected}, not {size}" if wrong else ""

    def _size_of(self, letter: str, own: dict[str, Size]) -> Size | None:
        if letter.isdigit():
            return int(letter)
        if letter in own:
            return own[letter]
        known = self.sizes.get(letter, ())
        return known[0] if len(known) == 1 else None


def written(axes: Axes) -> str:
    """The axes as they are written in a dims string."""
    return " ".join(axis[0] if len(axis) == 1 else f"({' '.join(axis)})" for axis in axes)


def label_of(axis: Axis) -> str | None:
    """The label that a dims string declares: "" for an axis without a name, None for one that it leaves open."""
    if len(axis) > 1:
        return "*".join(axis)
    return None if axis == ELLIPSIS else "" if axis == NAMELESS or axis[0].isdigit() else axis[0]


def place_of_step(shape: Shape) -> int | None:
    """The axis of the only token, in (b, ...): the last but one, or else the only one of size 1 before the last."""
    ones = [i for i in range(1, max(2, len(shape) - 1)) if shape[i] == 1]
    if len(shape) - 2 in ones:
        return len(shape) - 2
    return ones[0] if len(ones) == 1 else None


def product(factors: list[Size | None]) -> Size | None:
    """The product; None if a factor is unknown, text if one is symbolic."""
    if None in factors:
        return None
    if all(isinstance(x, int) for x in factors):
        return prod(factors)
    return "*".join(sorted(map(str, factors)))
