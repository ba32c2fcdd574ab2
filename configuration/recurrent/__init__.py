"""The numbers of recurrent mixers: a group for each word of `mixer`, as ModelConfig has them.

A preset of a published model states every number of its mixer, so that editing a default here never changes it. The
method `axes` gives the sizes of axes by their letters, for traces; see modules/__init__.py. `resized`, if there is one,
gives the numbers that change with the width of a model, at another width: see families/sizing.py. `spelled_out`, if
there is one, gives what None stands for.
"""

from dataclasses import fields

from configuration.recurrent.convolution import HyenaConfig, LongConvConfig
from configuration.recurrent.delta import DeltaNetConfig, GatedDeltaConfig, Gdn2Config, KdaConfig
from configuration.recurrent.gated import GruConfig, LstmConfig, MinGruConfig, MinLstmConfig, RgLruConfig, SlstmConfig
from configuration.recurrent.linear import (
    GlaConfig,
    Hgrn2Config,
    LightningConfig,
    LinearConfig,
    MlstmConfig,
    MlstmV1Config,
    RetnetConfig,
)
from configuration.recurrent.others import CemaConfig, Rwkv7Config, ShortConvConfig
from configuration.recurrent.ssm import Mamba2Config, Mamba3Config, MambaConfig

__all__ = [
    "CemaConfig", "DeltaNetConfig", "GatedDeltaConfig", "Gdn2Config", "GlaConfig", "GruConfig",
    "Hgrn2Config", "HyenaConfig", "KdaConfig", "LightningConfig", "LinearConfig", "LongConvConfig", "LstmConfig",
    "Mamba2Config", "Mamba3Config", "MambaConfig", "MinGruConfig", "MinLstmConfig", "MlstmConfig", "MlstmV1Config",
    "PLAIN_RECURRENT", "RECURRENT", "RetnetConfig", "RgLruConfig", "Rwkv7Config", "ShortConvConfig", "SlstmConfig",
]

# word of `mixer` -> its group
RECURRENT = {
    "cema": CemaConfig,
    "deltanet": DeltaNetConfig,
    "gated_delta": GatedDeltaConfig,
    "gdn2": Gdn2Config,
    "gla": GlaConfig,
    "gru": GruConfig,
    "hgrn2": Hgrn2Config,
    "hyena": HyenaConfig,
    "kda": KdaConfig,
    "lightning": LightningConfig,
    "linear": LinearConfig,
    "long_conv": LongConvConfig,
    "lstm": LstmConfig,
    "mamba": MambaConfig,
    "mamba2": Mamba2Config,
    "mamba3": Mamba3Config,
    "min_gru": MinGruConfig,
    "min_lstm": MinLstmConfig,
    "mlstm": MlstmConfig,
    "mlstm_v1": MlstmV1Config,
    "retnet": RetnetConfig,
    "rg_lru": RgLruConfig,
    "rwkv7": Rwkv7Config,
    "short_conv": ShortConvConfig,
    "slstm": SlstmConfig,
}

# the defaults as they stand here, for the plain choices in plain.py
PLAIN_RECURRENT = {f"{word}.{flag.name}": flag.default for word, group in RECURRENT.items() for flag in fields(group)}
