"""What moves information between positions: the `mixers` flag.

A mixer is `forward(x, *, positions, documents=None, cache=None)` with x (b, t, d) -> (b, t, d), and has
`from_config(cfg, layer)`. Tokens at negative positions pad a shorter text on its left: no other token may see them.

`documents` is None where each row is one text. Else rows are packed: `documents.ids` (b, t) are equal within a
document, and nothing may pass from one document into the next, so that each comes out as if it were alone. Attention
takes its mask from `documents.sight(window)`, for the `window` that it has as an attribute; a state or a convolution
begins anew where the id changes. No cache is given then.

`make_cache(max_len)` gives what the mixer fills as it generates. Its `keep_rows(rows, padding=n)` keeps those rows of
the batch, and drops the first n tokens, which are padding in all of them.

One without attention goes into WITHOUT_ATTENTION of config.py, too, so that the flags of attention are refused for it.
"""

from modules.mixers.attention import Attention

MIXERS = {"attention": Attention, "none": None}
