"""What moves information between positions: the `mixers` flag.

A mixer is `forward(x, *, positions, cache=None)` with x (b, t, d) -> (b, t, d), and has
`from_config(cfg, layer)` and `make_cache(max_len)`, whose result it fills as it generates.
"""

from modules.mixers.attention import Attention

MIXERS = {"attention": Attention, "none": None}
