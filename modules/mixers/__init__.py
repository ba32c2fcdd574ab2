"""Mixers, which move information between positions: the `mixer` flag.

A mixer is a part with `from_config(cfg: LayerConfig)` and `forward(x, context, cache=None)`, x (b, t, d) -> (b, t, d).

`context.positions` (t,) or (b, t): negative positions are left padding of a shorter text, which no other token may see.
`context.documents` is None if each row is one text. Otherwise rows are packed: `documents.ids` (b, t) are equal within
a document, and no information may pass between documents, so that each comes out as if it were alone. Attention takes
its mask from `documents.mask(pattern)`, for its attribute `pattern`; a state or a convolution restarts at each new id.
With documents there is no cache. `context.causal` is False in an encoder. Cross-attention, in cross.py, is no mixer but
a branch of its own.

`make_cache(max_len)` returns the cache that the mixer fills during generation. Its `keep_rows(rows, padding=n)` keeps
these rows of the batch, without their first n tokens, which are padding in all of them.
"""

from config import LayerConfig
from configuration.sharing import shares
from modules.mixers.attention import Attention
from modules.mixers.cells import GRU, LSTM, SLSTM
from modules.mixers.cema import CEMA
from modules.mixers.delta import DeltaNet, GatedDelta, GatedDelta2, KimiDelta
from modules.mixers.gla import GatedLinearAttention
from modules.mixers.hgrn2 import HGRN2
from modules.mixers.hyena import Hyena
from modules.mixers.indexed import IndexedAttention, IndexedLatentAttention
from modules.mixers.latent import LatentAttention
from modules.mixers.lightning import LightningAttention
from modules.mixers.linear import LinearAttention
from modules.mixers.long_conv import LongConv
from modules.mixers.mamba import Mamba
from modules.mixers.mamba2 import Mamba2
from modules.mixers.mamba3 import Mamba3
from modules.mixers.min_gru import MinGRU, MinLSTM
from modules.mixers.mlstm import MLSTM
from modules.mixers.mlstm_v1 import MLSTMV1
from modules.mixers.retnet import Retention
from modules.mixers.rg_lru import RGLRU
from modules.mixers.rwkv7 import RWKV7
from modules.mixers.sharing import SharingAttention
from modules.mixers.short_conv import GatedShortConv


class AttentionByFlags:
    """Attention, or SharingAttention if the layer takes something from other layers or gives it to them.

    With an indexer, IndexedAttention.
    """

    @staticmethod
    def from_config(cfg: LayerConfig) -> Attention:
        if cfg.indexer.top_k is not None:
            return IndexedAttention.from_config(cfg)
        return (SharingAttention if shares(cfg) else Attention).from_config(cfg)


class LatentByFlags:
    """LatentAttention, or with an indexer IndexedLatentAttention."""

    @staticmethod
    def from_config(cfg: LayerConfig) -> LatentAttention:
        return (LatentAttention if cfg.indexer.top_k is None else IndexedLatentAttention).from_config(cfg)


MIXERS = {
    "attention": AttentionByFlags,
    "cema": CEMA,
    "deltanet": DeltaNet,
    "gated_delta": GatedDelta,
    "gdn2": GatedDelta2,
    "gla": GatedLinearAttention,
    "gru": GRU,
    "hgrn2": HGRN2,
    "hyena": Hyena,
    "kda": KimiDelta,
    "latent": LatentByFlags,
    "lightning": LightningAttention,
    "linear": LinearAttention,
    "long_conv": LongConv,
    "lstm": LSTM,
    "mamba": Mamba,
    "mamba2": Mamba2,
    "mamba3": Mamba3,
    "min_gru": MinGRU,
    "min_lstm": MinLSTM,
    "mlstm": MLSTM,
    "mlstm_v1": MLSTMV1,
    "retnet": Retention,
    "rwkv7": RWKV7,
    "short_conv": GatedShortConv,
    "none": None,
    "rg_lru": RGLRU,
    "slstm": SLSTM,
}
