"""What moves information between positions: the `mixer` flag.

A mixer is a part with `from_config(cfg: LayerConfig)` and `forward(x, context, cache=None)`, x (b, t, d) -> (b, t, d).

`context.positions` (t,) or (b, t): tokens at negative positions pad a shorter text on its left, and no other token may
see them. `context.documents` is None if each row is one text. Otherwise rows are packed: `documents.ids` (b, t) are
equal within a document, and nothing may pass from one document into the next, so that each comes out as if it were
alone. Attention takes its mask from `documents.mask(window)`, for the `window` that it has as an attribute; a state or
a convolution begins anew at each new id. There is no cache then. `context.causal` is False in an encoder.

`make_cache(max_len)` gives what the mixer fills as it generates. Its `keep_rows(rows, padding=n)` keeps those rows of
the batch, and drops the first n tokens, which are padding in all of them.
"""

from modules.mixers.attention import Attention

MIXERS = {"attention": Attention, "none": None}
