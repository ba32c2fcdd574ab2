"""What moves information between positions: the `mixers` flag.

A mixer is `forward(x, *, positions, cache=None)` with x (b, t, d) -> (b, t, d), and has
`from_config(cfg, layer)` and `make_cache(max_len)`, whose result it fills as it generates. Tokens at negative
positions pad a shorter text on its left: no other token may see them. One without attention goes into
WITHOUT_ATTENTION of config.py, too, so that the flags of attention are refused for it.
"""

from modules.mixers.attention import Attention

MIXERS = {"attention": Attention, "none": None}
