"""Falcon Mamba, Technology Innovation Institute 2024, arXiv:2410.05355: Mamba with norms of its steps, B and C."""

from families.family import Family
from families.fields import Field
from families.mamba import ALONE, FIELDS
from families.ssm import COMPUTING, INIT, backbone, mamba_rules

FAMILY = Family(
    model_type="falcon_mamba", architecture="FalconMambaForCausalLM",
    fixed=ALONE | {"mamba.norms": "plain"},
    fields=(*FIELDS, Field("mixer_rms_eps", "mamba.norm_eps", 1e-6)),
    only={"hidden_act": "silu"},
    harmless=(*INIT, *COMPUTING, "use_falcon_mambapy"),
    weights=backbone(*mamba_rules("mixer")),
)
