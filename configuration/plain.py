"""The plain value of each flag of ModelConfig, and the flags that belong to the whole model."""

from typing import Any

from configuration.recurrent import PLAIN_RECURRENT

# The plain choices, on which presets are based, so that editing a default in config.py never changes a published
# architecture. Setting a flag to its plain value is never an error.
PLAIN_MODEL: dict[str, Any] = {
    "hidden_dim": None, "hidden_mult": 4.0, "hidden_multiple_of": 32, "vocab_multiple_of": 1,
    "mixer": "attention", "beside": "none", "layers": ("base",), "kinds": {}, "cross": "none", "encoder_layers": None,
    "mlp": "mlp", "activation": "gelu_tanh",
    "mlp_bias": False, "head_bias": False,
    "norm": "layer", "norm_eps": 1e-5, "norm_affine": True, "norm_bias": False, "norm_unit_offset": False,
    "depth_scaled_norms": False, "residual": "pre", "inner_norm": False, "final_norm": True,
    "final_norm_groups": None, "embed_norm": False,
    "skip_first_norm": False, "head_dense": "none",
    "qk_norm": "none", "position": "rope",
    "attention.num_kv_heads": None, "attention.head_dim": None, "attention.window": None,
    "attention.dilation": 1, "attention.chunk": None, "attention.stride": None, "attention.global_tokens": 0,
    "attention.softcap": None, "attention.scale": None, "attention.dropout": 0.0, "attention.q_bias": False,
    "attention.k_bias": False, "attention.v_bias": False, "attention.out_bias": False,
    "attention.qk_norm_kind": None, "attention.qk_norm_affine": None, "attention.qk_norm_bias": None,
    "attention.qk_norm_after_rope": False, "attention.clip": None, "attention.gate": "none", "attention.sinks": False,
    "attention.differential": False, "attention.value_residual": "none", "attention.share_kv": False,
    "attention.exclusive": False, "attention.value_embedding": False, "attention.key_offset": False,
    "attention.value_gate_max": 2.0, "attention.value_gate_dim": 32,
    "attention.temperature_scale": None, "attention.temperature_len": 8192, "attention.temperature_first": 0,
    "alibi.scale": 1.0, "t5.num_buckets": 32, "t5.max_distance": 128, "t5.shared": True, "sinusoidal.theta": 10_000.0,
    "sinusoidal.layout": "interleaved", "sinusoidal.first": 0,
    "clamped_glu.limit": 7.0, "clamped_glu.offset": 1.0, "ngpt.alpha": 0.05,
    "hyper.num_streams": 4, "hyper.sinkhorn_steps": 20, "hyper.eps": 1e-6, "attnres.block_len": 1,
    "stack": "plain", "loop.num_loops": 2, "loop.inject": False,
    "hrm.high_cycles": 2, "hrm.low_cycles": 3, "hrm.grad_cycles": 2,
    "latent.kv_rank": 64, "latent.q_rank": None, "latent.nope_dim": 32, "latent.rope_dim": 16, "latent.v_dim": 32,
    "latent.bias": False, "latent.norm_eps": 1e-6,
    "indexer.top_k": None, "indexer.num_heads": 4, "indexer.head_dim": 32, "indexer.loss": 1.0,
    "moe.expert": "glu", "moe.num_experts": 8, "moe.top_k": 2, "moe.scores": "softmax", "moe.renormalise": True,
    "moe.margin": 0.02, "moe.scale": 1.0, "moe.weigh_inputs": False, "moe.num_groups": 1, "moe.top_groups": 1,
    "moe.router_bias": False, "moe.shared_dim": None, "moe.shared_gate": False, "moe.balance_loss": 0.0,
    "moe.router_z_loss": 0.0, "moe.balance_bias": False, "moe.balance_logits": False, "moe.bias_rate": 0.001,
    "rope.theta": 10_000.0, "rope.fraction": 1.0, "rope.layout": "half", "rope.scaling": "none", "rope.factor": 1.0,
    "rope.original_len": 8192, "rope.low_freq_factor": 1.0, "rope.high_freq_factor": 4.0, "rope.beta_fast": 32.0,
    "rope.beta_slow": 1.0, "rope.truncate": True, "rope.attention_factor": None,
    "pointer": False, "pointer_dim": 64, "ahead": "none", "ahead_depth": 1, "noised": False, "noised_dim": 64,
    "noised_steps": 2000,
    "tie_embeddings": False, "embed_scale": 1.0, "logit_softcap": None, "logit_scale": 1.0, "token_scale": False,
    "mixer_scales": (1.0, 1.0), "beside_scales": (1.0, 1.0), "mlp_scales": (1.0, 1.0),
    "residual_scale": 1.0, "skip_scale": 1.0, "layer_scale": None, "drop_branch": 0.0, "canon": (), "canon_len": 4,
    "skip_to_embedding": False, "token_shift": (), "token_shift_power": 1.0, "smear": False, "smear_dim": 12,
    "backout": None, "backout_depth": 0.5,
    "memory": "none", "bigram.factor": 5, "bigram.start": 0.1, "engram.max_n": 3, "engram.num_heads": 4,
    "engram.head_dim": 16, "engram.rows": 4096, "engram.conv_len": 4, "engram.seed": 0, "engram.eos_id": None,
    "engram.norm_eps": 1e-6,
    "embed_dropout": 0.0, "residual_dropout": 0.0, "mlp_dropout": 0.0,
    "init": "normal", "init_std": 0.02, "out_init": "same", "head_zero_init": False, "unit_weights": False,
    "scaling": "standard", "base_dim": 128, "base_layers": 3, "z_loss": 0.0,
} | PLAIN_RECURRENT
# further values that a flag may always have
NEUTRAL_MODEL = PLAIN_MODEL | {"attention.backend": "sdpa", "attention.num_heads": 4}

# flags of the whole model: layers cannot differ in them
WHOLE_MODEL = {"dim", "num_layers", "encoder_layers", "vocab_size", "vocab_multiple_of", "max_seq_len", "layers",
               "kinds", "head_bias", "head_dense", "final_norm", "final_norm_groups",
               "embed_norm", "skip_first_norm", "pointer", "noised", "noised_dim", "noised_steps",
               "pointer_dim", "tie_embeddings", "embed_scale", "logit_softcap", "logit_scale", "token_scale",
               "embed_dropout", "init", "init_std", "out_init", "head_zero_init", "unit_weights", "z_loss",
               "skip_to_embedding", "smear", "smear_dim", "backout", "backout_depth", "stack", "loop", "hrm",
               "bigram", "ahead", "ahead_depth", "scaling", "base_dim", "base_layers"}
ALSO_WHOLE_MODEL = {"norm", "norm_eps", "norm_affine", "norm_bias", "norm_unit_offset", "residual"}  # the final norm's
