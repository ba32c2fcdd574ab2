"""What holds for every entry of every menu, alone and mixed: a new part is tested by being listed."""

from functools import partial
from types import SimpleNamespace
from typing import Any, get_args

import numpy as np
import pytest
import torch
from helpers import SMALL, assert_close, loss_of, randomise, small_config, small_model, small_tokens
from helpers import ReadingModel as Model
from hypothesis import given, settings
from hypothesis import strategies as st
from thorough import some

import config
from config import Config, ModelConfig, SampleConfig, get, override, replace
from configuration.acting import WHOLE_TEXT
from configuration.recurrent import RECURRENT
from configuration.tree import flag_names
from data import Batches
from generation.sampling import generate
from modules.attend import SDPA, EagerAttention
from modules.mixers.recurrent import Recurrent
from modules.mlps import MLPS
from modules.mlps.dense import MLP
from modules.mlps.moe import MoE
from modules.rewind import mark, rewind
from objective import make_objective
from optim import GROUPS, make_optimizer, parameter_groups, roles
from presets import PRESETS, load_preset, tiny
from showing.gallery import state_bytes

MENUS = {"norm": config.Norm, "residual": config.Residual, "position": config.Position, "mlp": config.Mlp,
         "stack": config.Stack, "ahead": config.Ahead, "activation": config.Activation, "qk_norm": config.QKNorm,
         "attention.backend": config.AttentionBackend,
         "rope.layout": config.RopeLayout, "cross": config.Cross, "attention.gate": config.OutputGate,
         "attention.value_residual": config.ValueResidual,
         "attention.qk_norm_kind": config.Norm, "rope.scaling": config.RopeScaling}
# what a word needs beside it to act
WITH = {"attention.qk_norm_kind": {"qk_norm": "head"}, "rope.scaling": {"rope.factor": 4.0}}

ENGRAM = {"memory": "engram", "engram.rows": 20, "engram.num_heads": 2, "engram.head_dim": 5}
INDEXED = {"indexer.top_k": 3, "indexer.num_heads": 5, "indexer.head_dim": 8}
NOISED = {"noised": True, "tie_embeddings": True, "noised_dim": 8, "noised_steps": 20}

# the flags of each variant, by its name: every word of every menu, then what has no menu
VARIANTS: dict[str, dict[str, Any]] = {
    f"{flag}={word}": (WITH.get(flag, {}) if word != "none" else {}) | {flag: word}
    for flag, words in MENUS.items() for word in get_args(words) if (flag, word) != ("attention.qk_norm_kind", "none")
}
MIXERS = get_args(config.Mixer)
VARIANTS |= {f"mixer={word}": {"mixer": word} for word in MIXERS}
WORDS = set(VARIANTS)
# each word once as the first of two mixers, and once as the second
PAIRED = [word for word in MIXERS if word != "none"]
VARIANTS |= {f"mixer={first} beside={second}": {"mixer": first, "beside": second}
             for first, second in zip(PAIRED, [*PAIRED[1:], PAIRED[0]], strict=True)}
VARIANTS |= {
    "as Falcon-H1": {"beside": "mamba2", "mixer_scales": (0.8, 0.9), "beside_scales": (1.3, 0.4), "mlp": "glu",
                     "mlp_scales": (0.9, 0.6), "mamba2.scales": (0.4, 0.6, 0.7, 1.2, 0.5), "attention.num_kv_heads": 2,
                     "mamba2.norm": "none"},
    "as Hymba, values and keys shared": {
        "layers": ("global", "local", "local-2"), "num_layers": 4, "beside": "mamba", "attention.num_kv_heads": 2,
        "kinds": {"global": {"attention.value_residual": "learned"}, "local": {"attention.window": 3},
                  "local-2": {"attention.window": 3, "attention.share_kv": True}}},
    "two mixers in some layers, shifted, canon, parallel": {
        "layers": ("pair", "rwkv7"), "num_layers": 3, "kinds": {"pair": {
            "mixer": "rwkv7", "beside": "attention", "beside_scales": (1.0, 0.5)}, "rwkv7": {"mixer": "rwkv7"}},
        "token_shift": ("mixer",), "canon": ("mixer",), "residual": "parallel"},
    "mixers alternate": {"layers": ("none", "attention")},
    "minGRU and attention, shifted, parallel": {"layers": ("min_gru", "base"), "kinds": {"min_gru": {
        "mixer": "min_gru", "token_shift": ("mixer",), "min_gru.expand": 1.5}}, "num_layers": 3,
        "residual": "parallel"},
    "HGRN2 and minLSTM, wide heads, canon layers": {
        "layers": ("hgrn2", "min_lstm"), "canon": ("mixer",), "hgrn2.num_heads": 3, "hgrn2.key_dim": 5,
        "hgrn2.head_dim": 10, "hgrn2.floor": 0.2, "min_lstm.expand": 1.0},
    "mLSTM and attention, narrow heads, sandwich": {
        "layers": ("mlstm", "attention"), "num_layers": 3, "residual": "sandwich", "mlstm.num_heads": 3,
        "mlstm.key_dim": 5, "mlstm.head_dim": 6, "mlstm.gate_cap": 3.0, "mlstm.eps": 0.2},
    "as xLSTM v1": {
        "layers": ("mlstm", "slstm"), "num_layers": 3, "slstm.out_proj": False, "mlp": "glu", "activation": "gelu",
        "norm": "layer", "position": "none", "kinds": {
            "mlstm": {"mixer": "mlstm_v1", "mlp": "none", "mlstm_v1.num_heads": 3, "mlstm_v1.expand": 1.5,
                      "mlstm_v1.block_dim": 2, "mlstm_v1.conv_len": 2, "mlstm_v1.eps": 0.2}}},
    "GRU, LSTM and sLSTM with heads, parallel": {
        "layers": ("gru", "slstm", "lstm"), "num_layers": 4, "residual": "parallel", "gru.num_heads": 2,
        "gru.expand": 0.5, "lstm.num_heads": 3, "lstm.expand": 1.5, "slstm.num_heads": 2, "slstm.conv_len": 2},
    "RG-LRU and local attention, wider, tied": {
        "layers": ("rg_lru", "base"), "num_layers": 3, "attention.window": 3, "tie_embeddings": True,
        "embed_scale": "sqrt_dim_bfloat16", "rg_lru.inner_dim": 36, "rg_lru.num_heads": 3, "rg_lru.conv_len": 2},
    "Mamba with norms, few states, parallel": {
        "mixer": "mamba", "mamba.norms": "scaled", "mamba.state_dim": 3, "mamba.expand": 1.5, "mamba.step_rank": 5,
        "mamba.bias": True, "mamba.conv_bias": False, "mamba.conv_len": 2, "residual": "parallel"},
    "Mamba-2 in groups, its norm before the gate, limited": {
        "mixer": "mamba2", "mamba2.num_heads": 4, "mamba2.num_groups": 2, "mamba2.state_dim": 6, "mamba2.bias": True,
        "mamba2.norm": "before_gate", "mamba2.min_step": 0.1, "mamba2.max_step": 2.0, "layers": ("base", "attention")},
    "Mamba-3 in groups, all of its keys turned, a norm": {
        "mixer": "mamba3", "mamba3.num_heads": 4, "mamba3.num_groups": 2, "mamba3.state_dim": 6, "mamba3.turned": 1.0,
        "mamba3.norm": True, "layers": ("base", "attention"), "token_shift": ("mixer",)},
    "RWKV-7 after attention, wide heads, shifted": {
        "layers": ("base", "rwkv7", "rwkv7"), "num_layers": 3, "rwkv7.head_dim": 10, "rwkv7.num_heads": 2,
        "rwkv7.value_rank": 5, "token_shift": ("mlp",), "token_shift_power": 4.0, "norm": "layer", "norm_bias": True},
    "as Megalodon, chunks": {
        "layers": ("cema", "base"), "num_layers": 3, "kinds": {"cema": {"mixer": "cema"}}, "cema.num_heads": 2,
        "cema.qk_dim": 8, "cema.value_dim": 10, "cema.chunk": 4, "residual": "two_hop", "final_norm_groups": 3,
        "rope.layout": "interleaved", "mlp": "glu", "norm": "layer"},
    "CEMA without positions, shifted": {"mixer": "cema", "position": "none", "token_shift": ("mixer",),
                                        "residual": "parallel_each", "final_norm_groups": 8, "pointer": True},
    "lightning and attention, stream scaled": {"layers": ("lightning", "base"), "num_layers": 3, "residual": "post",
                                               "skip_scale": 2.0, "lightning.num_heads": 3, "lightning.head_dim": 5},
    "short convolutions with biases, sandwich": {"layers": ("short_conv", "base"), "short_conv.length": 5,
                                                 "short_conv.bias": True, "residual": "sandwich"},
    "Hyena, one band, between attention, sandwich": {
        "layers": ("hyena", "base"), "num_layers": 3, "residual": "sandwich", "hyena.bands": 1, "hyena.conv_len": 2,
        "hyena.filter_dim": 5, "hyena.filter_layers": 0, "hyena.frequency": 2.0},
    "long convolutions, canon, parallel, shorter than a text": {
        "layers": ("long_conv", "hyena"), "canon": ("mixer",), "residual": "parallel", "long_conv.threshold": 0.0,
        "max_seq_len": 5, "token_shift": ("mlp",)},
    "gated linear attention, wide, in loops": {"mixer": "gla", "gla.expand_k": 1.0, "gla.expand_v": 2.0, "gla.rank": 3,
                                               "gla.num_heads": 2, "gla.divisor": 1.0, "stack": "loop"},
    "Taylor features and attention": {"layers": ("linear", "base"), "linear.feature_map": "taylor",
                                      "linear.key_dim": 3, "linear.num_heads": 3, "linear.eps": 0.1},
    "retention without positions": {"mixer": "retnet", "position": "none", "retnet.first_power": 1.0,
                                    "retnet.num_heads": 5, "canon": ("mixer",)},
    "retention, half rotated": {"mixer": "retnet", "rope.fraction": 2 / 3, "rope.layout": "interleaved"},
    "gated delta products, shared keys": {
        "layers": ("gated_delta", "base"), "num_layers": 3, "residual": "parallel", "kinds": {"gated_delta": {
            "mixer": "gated_delta", "gated_delta.num_key_heads": 2, "gated_delta.num_updates": 3,
            "gated_delta.value_dim": 5, "gated_delta.neg_eigenvalues": True, "canon": ("mixer",)}}},
    "deltanet, kda, gdn2 without convolutions": {
        "layers": ("deltanet", "kda", "gdn2"), "num_layers": 3, "deltanet.conv_len": None, "deltanet.gate": True,
        "kda.conv_len": 2, "kda.decay_bound": 5.0, "kda.rank": 3, "gdn2.conv_len": None, "gdn2.key_dim": 7,
        "gdn2.neg_eigenvalues": True, "token_shift": ("mixer",)},
    "one key/value head": {"attention.num_kv_heads": 1},
    "two key/value heads": {"attention.num_kv_heads": 2},
    "wide heads": {"attention.head_dim": 10},
    "every bias": dict.fromkeys(("attention.q_bias", "attention.k_bias", "attention.v_bias", "attention.out_bias",
                                 "mlp_bias", "head_bias", "norm_bias"), True),
    "norm without scale": {"norm_affine": False, "qk_norm": "head"},
    "norm around one": {"norm": "rms", "norm_unit_offset": True, "qk_norm": "full"},
    "norm around one, queries without scale": {"norm": "rms", "norm_unit_offset": True, "qk_norm": "head",
                                               "attention.qk_norm_affine": False},
    "as ModernBERT": {"embed_norm": True, "skip_first_norm": True, "head_dense": "gelu", "head_bias": True,
                      "tie_embeddings": True, "norm": "layer"},
    "norm after the embedding": {"embed_norm": True},
    "no final norm": {"final_norm": False},
    "attention.window": {"attention.window": 5},
    "window of one": {"attention.window": 1},
    "window, fused, shared heads": {"attention.window": 3, "attention.num_kv_heads": 2, "attention.backend": "sdpa"},
    "window, explicit": {"attention.window": 5, "attention.backend": "eager"},
    "window alternates": {"layers": ("local", "global"), "kinds": {"local": {"attention.window": 5}, "global": {}}},
    "every third token of a window": {"attention.window": 3, "attention.dilation": 3, "attention.num_kv_heads": 2},
    "chunks": {"attention.chunk": 4, "position": "alibi"},
    "chunks and strides": {"attention.chunk": 5, "attention.stride": 3, "attention.backend": "eager"},
    "a window and global tokens": {"attention.window": 3, "attention.global_tokens": 2},
    "global tokens, latent, dilated": {"mixer": "latent", "attention.global_tokens": 1, "attention.window": 2,
                                       "attention.dilation": 2},
    "window with alibi": {"attention.window": 5, "position": "alibi"},
    "softcaps": {"attention.softcap": 2.0, "logit_softcap": 3.0},
    "softcap with alibi": {"attention.softcap": 2.0, "position": "alibi"},
    "alibi, explicit": {"position": "alibi", "attention.backend": "eager", "attention.num_kv_heads": 2},
    "half of each head turns": {"rope.fraction": 2 / 3, "rope.layout": "interleaved"},
    "key bias, learned positions": {"attention.k_bias": True, "position": "learned"},
    "key bias, alibi": {"attention.k_bias": True, "position": "alibi"},
    "tied": {"tie_embeddings": True, "embed_scale": "sqrt_dim"},
    "pointer": {"pointer": True, "pointer_dim": 5},
    "vectors with noise": NOISED,
    "pointer, softcap": {"pointer": True, "logit_softcap": 5.0, "tie_embeddings": True},
    "scaled": {"residual_scale": 0.5, "logit_scale": 0.5, "attention.scale": 0.3, "embed_scale": 2.0},
    "queries and keys normalised after they turn": {"qk_norm": "head", "attention.qk_norm_after_rope": True},
    "every head its norm": {"qk_norm": "each_head", "attention.num_kv_heads": 2, "attention.qk_norm_kind": "layer",
                            "attention.qk_norm_bias": True},
    "sinks": {"attention.sinks": True, "attention.num_kv_heads": 2, "attention.window": 5},
    "sinks, softcap": {"attention.sinks": True, "attention.softcap": 2.0},
    "clipped": {"attention.clip": 0.5}, "gated heads": {"attention.gate": "head", "attention.head_dim": 10},
    "values of the first layer that attends": {"layers": ("none", "base"), "num_layers": 4, "attention.num_kv_heads": 2,
                                               "attention.value_residual": "learned"},
    "shared keys of each window": {
        "layers": ("local", "global", "local-2", "global-2"), "num_layers": 4, "qk_norm": "head",
        "attention.num_kv_heads": 2,
        "kinds": {"local": {"attention.window": 3}, "local-2": {"attention.window": 3, "attention.share_kv": True},
                  "global": {}, "global-2": {"attention.share_kv": True}}},
    "a table of distances for each layer": {
        "position": "t5", "t5.shared": False, "t5.num_buckets": 6, "t5.max_distance": 9, "attention.window": 7},
    "one table, shared keys, eager": {"position": "t5", "attention.share_kv": True, "attention.backend": "eager",
                                      "layers": ("base", "none"), "num_layers": 5, "t5.num_buckets": 4},
    "differential, shared heads, sinks": {"attention.differential": True, "attention.num_kv_heads": 2,
                                          "attention.sinks": True, "attention.gate": "head", "attention.window": 5},
    "nGPT": {"residual": "ngpt", "mlp": "scaled_glu", "activation": "silu", "norm": "none", "final_norm": False,
             "qk_norm": "unit", "attention.qk_norm_after_rope": True, "attention.scale": 2.4, "token_scale": True,
             "unit_weights": True, "attention.num_kv_heads": 2},
    "experts in groups": {"mlp": "moe", "moe.scores": "sigmoid", "moe.num_experts": 8, "moe.num_groups": 4,
                          "moe.top_groups": 2, "moe.top_k": 3, "moe.balance_bias": True, "moe.scale": 2.5,
                          "moe.shared_dim": 10, "moe.shared_gate": True, "residual": "parallel", "inner_norm": True},
    "experts after a dense layer": {"layers": ("base", "routed"), "num_layers": 3, "kinds": {"routed": {
        "mlp": "moe", "moe.expert": "mlp", "moe.renormalise": False, "hidden_dim": 10, "moe.num_experts": 5}},
        "inner_norm": True},
    "experts chosen in turn": {"mlp": "moe", "moe.scores": "sparsemixer", "moe.margin": 3.0, "moe.top_k": 3,
                               "moe.renormalise": False},
    "one clamped expert, its input weighted": {"mlp": "moe", "moe.expert": "clamped_glu", "clamped_glu.limit": 0.5,
                                               "moe.scores": "sigmoid", "moe.top_k": 1, "moe.renormalise": False,
                                               "moe.weigh_inputs": True, "moe.router_bias": True, "mlp_bias": True},
    "latent, compressed queries, window": {
        "mixer": "latent", "latent.q_rank": 10, "latent.kv_rank": 14, "latent.nope_dim": 6, "latent.rope_dim": 4,
        "latent.v_dim": 5, "latent.bias": True, "attention.window": 5, "rope.layout": "interleaved",
        "inner_norm": True, "attention.out_bias": True},
    "latent without positions, eager, with sinks": {
        "mixer": "latent", "position": "none", "attention.backend": "eager", "attention.softcap": 2.0,
        "attention.sinks": True},
    "tempered": {"attention.temperature_scale": 0.5, "attention.temperature_len": 3, "attention.window": 5,
                 "position": "none"},
    "tempered, latent": {"mixer": "latent", "attention.temperature_scale": 0.5, "attention.temperature_len": 3,
                         "attention.temperature_first": 1},
    "tempered, borrowed keys": {"attention.temperature_scale": 0.5, "attention.temperature_len": 3,
                                "attention.share_kv": True, "num_layers": 3},
    "exclusive": {"attention.exclusive": True, "attention.num_kv_heads": 2, "attention.window": 5},
    "exclusive, borrowed keys, gate": {"attention.exclusive": True, "attention.share_kv": True, "num_layers": 3,
                                       "layers": ("first", "base", "base"), "kinds": {"first": {
                                           "attention.share_kv": False}}, "attention.gate": "head"},
    "a skip to the embedding, layer scale": {"skip_to_embedding": True, "layer_scale": 0.1, "layers": ("base", "none"),
                                             "num_layers": 4, "position": "sinusoidal"},
    "canon layers": {"canon": ("mixer", "mlp"), "layers": ("base", "none")},
    "canon layers, experts, local": {"canon": ("mlp", "mixer"), "canon_len": 3, "mlp": "moe", "attention.window": 5,
                                     "residual": "parallel"},
    "shifted tokens": {"token_shift": ("mixer", "mlp"), "canon": ("mlp",), "layers": ("base", "none"), "num_layers": 3},
    "a shifted mixer, smeared": {"token_shift": ("mixer",), "smear": True, "mlp": "moe", "pointer": True},
    "smeared": {"smear": True, "smear_dim": 5, "position": "learned"},
    "canon layers within branches": {"canon": ("qkv", "hidden"), "attention.num_kv_heads": 2, "mlp": "glu",
                                     "attention.value_residual": "learned", "inner_norm": True},
    "canon layers everywhere, offset keys": {"canon": ("mixer", "qkv", "mlp", "hidden"), "attention.key_offset": True,
                                             "canon_len": 2, "attention.window": 3, "mlp": "clamped_glu"},
    "offset keys": {"attention.key_offset": True, "qk_norm": "head", "attention.head_dim": 10},
    "a skip to the embedding, parallel": {"skip_to_embedding": True, "residual": "parallel"},
    "two streams": {"residual": "hyper", "hyper.num_streams": 2, "layers": ("base", "none"), "drop_branch": 0.2},
    "constrained streams, local, skip": {"residual": "mhc", "hyper.num_streams": 3, "hyper.sinkhorn_steps": 4,
                                         "attention.window": 3, "skip_to_embedding": True, "pointer": True},
    "attention over blocks of branches": {"residual": "attnres", "attnres.block_len": 3, "num_layers": 3,
                                          "layers": ("base", "none"), "pointer": True},
    "loops": {"stack": "loop", "loop.num_loops": 3, "loop.inject": True, "attention.value_residual": "learned",
              "skip_to_embedding": True, "canon": ("mixer",), "pointer": True},
    "a fast and a slow half": {"stack": "hrm", "num_layers": 4, "layers": ("base", "none"), "norm_affine": False,
                               "final_norm": False, "hrm.low_cycles": 2, "hrm.high_cycles": 1, "attention.window": 3},
    "skips of streams": {"stack": "unet", "num_layers": 5, "residual": "mhc", "hyper.num_streams": 2},
    "a middle layer's stream subtracted, pointer": {"backout": 0.3, "num_layers": 4, "pointer": True,
                                                    "layers": ("base", "none")},
    "a stream subtracted, attention over depth": {"backout": 0.3, "backout_depth": 0.2, "residual": "attnres",
                                                  "num_layers": 3},
    "bigrams": {"memory": "bigram", "bigram.factor": 2},
    "bigrams in some layers, parallel": {"layers": ("none", "base"), "num_layers": 4, "skip_to_embedding": True,
                                         "memory": "bigram", "kinds": {"none": {"mixer": "none", "memory": "none"}},
                                         "residual": "parallel"},
    "n-grams before the first layer": {"layers": ("first", "base"), "kinds": {"first": ENGRAM | {"engram.max_n": 4}}},
    "n-grams in each layer, an end of texts": {**ENGRAM, "engram.eos_id": 5, "engram.conv_len": 2,
                                               "residual": "parallel", "attention.window": 5},
    "n-grams of several streams": ENGRAM | {"residual": "hyper", "hyper.num_streams": 3},
    "bigrams of several streams": {"memory": "bigram", "residual": "mhc", "hyper.num_streams": 2},
    "bigrams, attention over depth": {"memory": "bigram", "residual": "attnres"},
    "n-grams and value embeddings in loops": ENGRAM | {"stack": "loop", "attention.value_embedding": True},
    "bigrams, fast and slow": {"stack": "hrm", "memory": "bigram", "norm": "rms"},
    "value embeddings": {"attention.value_embedding": True, "attention.num_kv_heads": 2, "attention.window": 5,
                         "attention.value_gate_max": 3.0, "attention.value_gate_dim": 5},
    "value embeddings, mixed with the first layer's": {
        "attention.value_embedding": True, "attention.value_residual": "learned", "attention.exclusive": True},
    "value embeddings in a layer that gives its keys": {
        "attention.value_embedding": True, "attention.share_kv": True, "attention.differential": True},
    "norms scaled by depth": {"depth_scaled_norms": True, "layers": ("base", "none")},
    "norms within branches": {"inner_norm": True, "mlp": "glu"},
    "alibi, flatter": {"position": "alibi", "alibi.scale": 0.25},
    "sinusoidal, longer": {"position": "sinusoidal", "sinusoidal.theta": 500.0, "sinusoidal.layout": "half",
                           "sinusoidal.first": 2},
    "yarn": {"rope.scaling": "yarn", "rope.factor": 4.0, "rope.original_len": 8, "rope.theta": 100.0,
             "rope.attention_factor": 1.2, "rope.fraction": 2 / 3},
    "llama3": {"rope.scaling": "llama3", "rope.factor": 4.0, "rope.original_len": 8, "rope.theta": 100.0},
    "an encoder, t5": {"cross": "attention", "encoder_layers": 3, "position": "t5", "t5.num_buckets": 6,
                       "t5.max_distance": 9, "attention.scale": 1.0, "tie_embeddings": True,
                       "logit_scale": "rsqrt_dim", "attention.num_kv_heads": 2},
    "a source in one layer, every flag of its attention": {
        "layers": ("base", "reads"), "num_layers": 3, "kinds": {"reads": {"cross": "attention", "mixer": "none"}},
        "encoder_layers": 1, "attention.num_kv_heads": 2, "attention.head_dim": 10, "attention.softcap": 2.0,
        "attention.sinks": True, "attention.gate": "head", "attention.clip": 0.5, "attention.q_bias": True,
        "attention.v_bias": True, "attention.out_bias": True, "qk_norm": "each_head", "attention.window": 5,
        "inner_norm": True, "position": "alibi"},
    "a source alone, differential, experts": {
        "mixer": "none", "cross": "attention", "attention.differential": True, "mlp": "moe", "position": "learned",
        "encoder_layers": 2, "attention.num_kv_heads": 2},
    "a source, latent, parallel": {"mixer": "latent", "cross": "attention", "residual": "parallel", "qk_norm": "full",
                                   "attention.num_kv_heads": 1, "attention.head_dim": 5, "pointer": True},
    "a source, several streams": {"cross": "attention", "encoder_layers": 3, "residual": "mhc", "stack": "loop",
                                  "attention.window": 4, "attention.global_tokens": 2},
    "a source, nGPT": {"cross": "attention", "encoder_layers": 2, "residual": "ngpt", "norm": "none", "qk_norm": "unit",
                       "final_norm": False, "unit_weights": True, "attention.value_residual": "learned"},
    "heads of several streams, experts, carried values": {
        "ahead": "heads", "ahead_depth": 3, "residual": "mhc", "hyper.num_streams": 2, "mlp": "moe",
        "attention.value_residual": "learned", "num_layers": 3},
    "modules that recur, shifted, tied": {
        "ahead": "modules", "ahead_depth": 2, "layers": ("base", "mamba2"), "token_shift": ("mixer",),
        "tie_embeddings": True, "pointer": True, "memory": "bigram", "residual": "parallel"},
    "parallel, gated": {"residual": "parallel", "mlp": "glu", "activation": "silu"},
    "an indexer, shared heads, window": INDEXED | {"attention.num_kv_heads": 2, "attention.window": 7},
    "an indexer, latent, compressed queries": INDEXED | {
        "mixer": "latent", "latent.q_rank": 10, "latent.rope_dim": 4, "indexer.head_dim": 9,
        "rope.layout": "interleaved", "attention.sinks": True},
    "an indexer of keys that are all chosen, latent": {"mixer": "latent", "indexer.top_k": 99},
    "an indexer, no positions, experts, canon": INDEXED | {
        "position": "none", "mlp": "moe", "canon": ("mixer", "qkv"), "attention.exclusive": True},
    "an indexer, shared values and table, eager": INDEXED | {
        "position": "t5", "attention.value_residual": "learned", "attention.backend": "eager",
        "attention.softcap": 2.0},
    "an indexer in some layers, loops": {
        "layers": ("sparse", "base", "none"), "num_layers": 4, "stack": "loop", "kinds": {"sparse": INDEXED | {
            "attention.chunk": 6, "attention.stride": 4, "position": "alibi"}}},
    "an indexer, two mixers, global tokens, heads": INDEXED | {
        "beside": "latent", "attention.window": 6, "attention.global_tokens": 2, "ahead": "heads",
        "indexer.head_dim": 16},
}


def can_be(flag: str, value: Any, flags: dict[str, Any]) -> bool:
    """Whether a flag acts beside those of a variant."""
    try:
        small_config(**flags | {flag: value})
    except ValueError:
        return False
    return True


MODELS = {repr(small_config(**VARIANTS[name])): name for name in reversed(VARIANTS)}  # words of a default are alike
ALONE = [name for name in MODELS.values() if name in WORDS or len(VARIANTS[name]) < 2]
MIXED = [name for name in MODELS.values() if name not in ALONE]
each_name = pytest.mark.parametrize("name", [*ALONE, *some(MIXED, 4)])
each_variant = pytest.mark.parametrize(
    "flags", [*(VARIANTS[name] for name in ALONE), *some((VARIANTS[name] for name in MIXED), 4)], ids=[*ALONE, *MIXED])


@each_variant
def test_a_token_changes_nothing_before_it_and_something_from_it_on(flags):
    model, tokens, place = small_model(**flags), small_tokens(), 6
    other = tokens.clone()
    other[:, place] = (tokens[:, place] + 1) % 37
    with torch.no_grad():
        logits, changed = model(tokens), model(other)
    if any(isinstance(part, MoE) for part in model.modules()):  # another number of rows of an expert: other rounding
        assert_close(logits[:, :place], changed[:, :place], "rounding")
    else:
        assert torch.equal(logits[:, :place], changed[:, :place])
    assert not torch.allclose(logits[:, place], changed[:, place])


@each_variant
def test_one_token_at_a_time_equals_one_pass(flags):
    model, tokens = small_model(**flags), small_tokens()
    cache = model.make_cache(13)
    with torch.no_grad():
        steps = [model(tokens[:, i : i + 1], cache=cache) for i in range(13)]
        assert_close(torch.cat(steps, dim=1), model(tokens), "same")


@each_variant
def test_a_lean_model_equals_the_model(flags):
    model, tokens = small_model(**flags).eval(), small_tokens()
    caches, positions = (model.make_cache(13), model.make_cache(13)), torch.arange(13) - torch.tensor([[0], [3]])
    with torch.no_grad():
        for i, j in ((0, 9), (9, 10), (10, 11), (11, 13)):
            plain, lean = (each(tokens[:2, i:j], positions=positions[:, i:j], cache=cache)
                           for each, cache in zip((model, model.lean()), caches, strict=True))
            real = positions[:, i:j] >= 0
            assert_close(lean[real], plain[real], "same")


@each_variant
def test_pieces_of_any_length_equal_one_pass_also_after_others_are_taken_back(flags):
    model, tokens = small_model(**flags), small_tokens()
    cache = model.make_cache(13)
    with torch.no_grad():
        pieces = []
        for piece in tokens.split([4, 3, 1, 5], dim=1):
            before = mark(cache)
            for taken_back in (piece.flip(1), piece[:, :1]):
                model(taken_back, cache=cache)
                rewind(before)
            pieces.append(model(piece, cache=cache))
        assert_close(torch.cat(pieces, dim=1), model(tokens), "same")


@each_variant
def test_texts_of_different_lengths_equal_each_alone(flags):
    model, lengths = small_model(**flags), (13, 8, 1)
    tokens = small_tokens(b=3)
    positions = torch.arange(13) - (13 - torch.tensor(lengths))[:, None]
    cache = model.make_cache(14)
    more = small_tokens(b=3, t=1, seed=1)
    with torch.no_grad():
        together = model(tokens, positions=positions, cache=cache)
        after = model(more, positions=torch.tensor(lengths)[:, None], cache=cache)
        for row, length in enumerate(lengths):
            text = torch.cat((tokens[row, -length:], more[row]))[None]
            expected = model(text)
            assert_close(together[row, -length:], expected[0, :-1], "same")
            assert_close(after[row], expected[0, -1:], "same")


@each_variant
def test_rows_that_leave_a_cache_change_nothing_for_those_that_stay(flags):
    model, lengths = small_model(**flags), (13, 8, 6)
    tokens, more = small_tokens(b=3), small_tokens(b=3, t=1, seed=1)
    positions = torch.arange(13) - (13 - torch.tensor(lengths))[:, None]
    cache = model.make_cache(14)
    with torch.no_grad():
        model(tokens, positions=positions, cache=cache)
        cache.keep_rows([2, 1], padding=5)
        after = model(more[[2, 1]], positions=torch.tensor([[6], [8]]), cache=cache)
        for logits, row in zip(after, (2, 1), strict=True):
            text = torch.cat((tokens[row, -lengths[row] :], more[row]))[None]
            assert_close(logits, model(text)[0, -1:], "same")


def is_recurrent(word: str) -> bool:
    return any(isinstance(part, Recurrent) for part in small_model(mixer=word).modules())


@pytest.mark.parametrize("word", [word for word in MIXERS if is_recurrent(word) and word not in WHOLE_TEXT])
def test_the_state_of_a_text_does_not_grow(word):
    model = small_model(mixer=word).bfloat16()
    cache, sizes = model.make_cache(16), []
    with torch.no_grad():
        for piece in small_tokens().split([4, 1, 8], dim=1):
            model(piece, cache=cache)
            sizes.append(sum(x.numel() for layer in cache.layers for x in layer["mixer"].tensors()))
            kept = [x.untyped_storage().nbytes() for layer in cache.layers for x in layer["mixer"].tensors()]
            assert sum(kept) == sum(x.nbytes for layer in cache.layers for x in layer["mixer"].tensors())
    assert len(set(sizes)) == 1
    assert state_bytes(small_config(mixer=word)) == sum(kept) // 2  # of two rows


LENGTHS = ((5, 1, 4, 3), (2, 7, 1, 3))  # of the documents in two rows of 13 tokens


def packed_documents() -> torch.Tensor:
    """Which document of its row each token is of (2, 13)."""
    return torch.stack([torch.arange(4).repeat_interleave(torch.tensor(row)) for row in LENGTHS])


@each_variant
@pytest.mark.slow
def test_documents_in_one_row_come_out_as_each_alone(flags):
    model, tokens, targets = small_model(**flags), small_tokens(), small_tokens(seed=1)
    with torch.no_grad():
        together = model(tokens, documents=packed_documents())
        for row, lengths in enumerate(LENGTHS):
            alone = [model(text[None])[0] for text in tokens[row].split(lengths)]
            assert_close(together[row], torch.cat(alone), "same")
        loss = loss_of(model, tokens[row, None], targets[row, None], documents=packed_documents()[row, None])
        losses = [loss_of(model, text[None], wanted[None]) for text, wanted in
                  zip(tokens[row].split(lengths), targets[row].split(lengths), strict=True)]
        assert_close(loss, (torch.stack(losses) * torch.tensor(lengths)).sum() / 13, "same")


def train_pass(
    model: Model, *, documents: torch.Tensor | None = None, loss_chunk: int | None = None,
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """The loss of a batch, in training, and its gradient by parameter."""
    torch.manual_seed(0)
    model.train().zero_grad()
    targets = small_tokens(seed=1)
    targets[0, 3:5] = -100
    loss = loss_of(model, small_tokens(), targets, documents=documents, loss_chunk=loss_chunk)
    loss.backward()
    return loss.detach(), {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@each_variant
def test_every_part_runs_in_every_dtype(flags):
    model = randomise(Model(small_config(**flags)))
    expected, weights = train_pass(model)[0], model.state_dict()
    for dtype, tolerance in ((torch.float64, "same"), (torch.bfloat16, "rounded weights")):
        model = Model(small_config(**flags))
        model.load_state_dict(weights)
        loss, grads = train_pass(model.to(dtype))
        assert_close(loss.float(), expected, tolerance)
        assert all(grad.dtype == dtype and grad.isfinite().all() for grad in grads.values())
        with torch.no_grad():
            logits = model.eval()(small_tokens())
        assert logits.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert train_pass(model, documents=packed_documents(), loss_chunk=5)[0].isfinite()  # in bfloat16
    cache = model.eval().make_cache(13)
    with torch.no_grad():
        pieces = [model(piece, cache=cache) for piece in small_tokens().split([4, 3, 1, 5], dim=1)]
    assert_close(torch.cat(pieces, dim=1), logits, tolerance)


@each_variant
def test_constants_are_those_of_a_float32_model_in_every_dtype(flags):
    plain = Model(small_config(**flags))
    expected, names = dict(plain.named_buffers()), plain.state_dict().keys()
    for move in (torch.nn.Module.bfloat16, torch.nn.Module.half, torch.nn.Module.double):
        model = move(Model(small_config(**flags)))
        assert all(p.dtype != torch.float32 for p in model.parameters())
        found = dict(model.named_buffers())
        assert found.keys() == expected.keys()
        assert all(x.dtype == expected[name].dtype and torch.equal(x, expected[name]) for name, x in found.items())
        assert not any(x.dtype in (torch.float16, torch.bfloat16, torch.float64) for x in found.values())
        assert model.state_dict().keys() == names


@each_variant
def test_building_on_meta_in_another_dtype_keeps_the_constants(flags):
    with torch.device("meta"):
        model = Model(small_config(**flags)).bfloat16()
    model.to_empty(device="cpu").init_weights()
    expected = dict(Model(small_config(**flags)).named_buffers())
    assert all(torch.equal(x, expected[name]) for name, x in model.named_buffers())


DROPOUTS = dict.fromkeys(("embed_dropout", "attention.dropout", "residual_dropout", "mlp_dropout"), 0.2)


@each_variant
@pytest.mark.slow
def test_checkpointed_activations_change_no_bit_and_a_chunked_loss_only_rounds(flags):
    fits = {name: p for name, p in DROPOUTS.items() if can_be(name, p, flags)}
    plain, checkpointed = (randomise(Model(small_config(**{"z_loss": 0.1, **flags, **fits}), checkpoint_activations=on))
                           for on in (False, True))
    for documents in (None, packed_documents()):
        (loss, grads), (other, others) = (train_pass(model, documents=documents) for model in (plain, checkpointed))
        assert torch.equal(loss, other) and grads.keys() == others.keys()
        assert all(torch.equal(grads[name], others[name]) for name in grads)
    other, others = train_pass(plain, documents=documents, loss_chunk=5)
    assert_close(other, loss, "rounding")
    assert_close(others, grads, "rounding")


# parameters that no data can teach, by the ends of their names
SILENT = {
    "window of one": ("q.weight", "k.weight"),  # a softmax over one score is 1
    "key bias, learned positions": ("k.bias",),  # adds the same to all scores of a query: softmax drops it
    "key bias, alibi": ("k.bias",),
}


@each_name
def test_every_parameter_learns(name):
    model, tokens = randomise(small_model(**VARIANTS[name]), std=0.5), small_tokens()
    loss_of(model, tokens, small_tokens(seed=1)).backward()
    silent = {path for path, p in model.named_parameters() if p.grad is None or p.grad.abs().max() < 1e-7}
    assert silent == {path for path, _ in model.named_parameters() if path.endswith(SILENT.get(name, "none"))}


@pytest.mark.parametrize("flags", [
    {}, {"attention.num_kv_heads": 2}, {"attention.window": 4}, {"position": "alibi"}, {"position": "t5"},
    {"position": "alibi", "attention.window": 4},
    {"attention.scale": 0.7, "qk_norm": "head"},
], ids=str)
def test_the_fused_kernel_equals_the_explicit_one(flags):
    fused, explicit = (small_model(**flags, **{"attention.backend": backend}) for backend in ("sdpa", "eager"))
    tokens, targets = small_tokens(), small_tokens(seed=1)
    assert_close(fused(tokens), explicit(tokens), "same")
    loss_of(fused, tokens, targets).backward()
    loss_of(explicit, tokens, targets).backward()
    for p, expected in zip(fused.parameters(), explicit.parameters(), strict=True):
        assert_close(p.grad, expected.grad, "same")


# flag -> another value; with what must be set for the flag to act, where it does not act by itself
YARN = {"rope.scaling": "yarn", "rope.factor": 4.0, "rope.original_len": 30, "rope.theta": 100.0,
        "rope.beta_fast": 8.0, "rope.beta_slow": 0.5, "attention.head_dim": 16}
LLAMA3 = {"rope.scaling": "llama3", "rope.factor": 4.0, "rope.original_len": 30, "rope.theta": 100.0}
MOE, LATENT, BIGRAM = {"mlp": "moe"}, {"mixer": "latent"}, {"memory": "bigram"}
VALUES = {"attention.value_embedding": True}
CEMA, RWKV7 = {"mixer": "cema"}, {"mixer": "rwkv7"}
GLA, LINEAR, RETNET = {"mixer": "gla"}, {"mixer": "linear"}, {"mixer": "retnet"}
LIGHTNING, SHORT_CONV = {"mixer": "lightning"}, {"mixer": "short_conv"}
OF_DELTA_RULES = {"num_heads": 2, "key_dim": 4, "value_dim": 5, "conv_len": 3, "neg_eigenvalues": True, "norm_eps": 0.1}
OF_KDA = OF_DELTA_RULES | {"rank": 3, "decay_bound": 5.0}
OF_MIXERS = {"deltanet": OF_DELTA_RULES | {"num_key_heads": 2, "num_updates": 2, "gate": True},
             "gated_delta": OF_DELTA_RULES | {"num_key_heads": 2, "num_updates": 2, "gate": False, "step_bias": 1.0},
             "kda": OF_KDA | {"gate_bias": True}, "gdn2": OF_KDA | {"gate_bias": False}}
OTHER: dict[str, tuple[Any, dict[str, Any]]] = {
    **{f"{word}.{name}": (value, {"mixer": word}) for word, own in OF_MIXERS.items() for name, value in own.items()},
    **{f"mamba.{name}": (value, {"mixer": "mamba", "mamba.norms": "scaled"}) for name, value in {
        "expand": 1.5, "state_dim": 5, "step_rank": 5, "conv_len": 3, "conv_bias": False, "bias": True,
        "norms": "plain", "norm_eps": 0.1}.items()},
    **{f"mamba2.{name}": (value, {"mixer": "mamba2"}) for name, value in {
        "num_heads": 4, "head_dim": 5, "state_dim": 20, "num_groups": 2, "conv_len": 3, "conv_bias": False,
        "bias": True, "norm": "before_gate", "norm_eps": 0.1, "min_step": 2.0, "max_step": 0.1,
        "scales": (0.5, 0.6, 0.7, 0.8, 0.9)}.items()},
    **{f"mamba3.{name}": (value, {"mixer": "mamba3"}) for name, value in {
        "num_heads": 4, "head_dim": 5, "state_dim": 20, "num_groups": 2, "turned": 1.0, "norm": True,
        "norm_eps": 0.1}.items()},
    "min_gru.expand": (1.0, {"mixer": "min_gru"}), "min_gru.start": (3.0, {"mixer": "min_gru"}),
    "min_lstm.expand": (1.0, {"mixer": "min_lstm"}), "min_lstm.start": (3.0, {"mixer": "min_lstm"}),
    **{f"hgrn2.{name}": (value, {"mixer": "hgrn2"}) for name, value in {
        "num_heads": 3, "key_dim": 5, "head_dim": 5, "floor": 0.3, "norm_eps": 0.1}.items()},
    **{f"mlstm.{name}": (value, {"mixer": "mlstm"}) for name, value in {
        "num_heads": 3, "key_dim": 5, "head_dim": 5, "gate_cap": 0.5, "input_start": 0.0, "eps": 0.5,
        "norm_eps": 0.1}.items()},
    **{f"{word}.{name}": (value, {"mixer": word}) for word, changes in {
        "gru": {"expand": 1.5, "num_heads": 2}, "lstm": {"expand": 1.5, "num_heads": 2, "start": 3.0},
        "slstm": {"num_heads": 2, "conv_len": 2, "norm_eps": 0.1, "out_proj": False},
        "mlstm_v1": {"num_heads": 3, "expand": 1.0, "block_dim": 2, "conv_len": 2, "eps": 0.5, "norm_eps": 0.1},
    }.items() for name, value in changes.items()},
    "rg_lru.inner_dim": (32, {"mixer": "rg_lru"}), "rg_lru.num_heads": (2, {"mixer": "rg_lru"}),
    "rg_lru.conv_len": (2, {"mixer": "rg_lru"}),
    **{f"cema.{name}": (value, CEMA) for name, value in {
        "state_dim": 5, "num_heads": 3, "qk_dim": 12, "value_dim": 10, "chunk": 5, "norm_groups": 3,
        "norm_eps": 0.1}.items()}, "final_norm_groups": (3, {}),
    **{f"rwkv7.{name}": (value, RWKV7) for name, value in {
        "num_heads": 3, "head_dim": 5, "decay_rank": 5, "rate_rank": 5, "value_rank": 5, "gate_rank": 5,
        "norm_eps": 0.1}.items()},
    "lightning.num_heads": (3, LIGHTNING), "lightning.head_dim": (5, LIGHTNING),
    "lightning.by_depth": (False, LIGHTNING), "lightning.norm_eps": (0.1, LIGHTNING),
    "gla.num_heads": (2, GLA), "gla.expand_k": (1.0, GLA), "gla.expand_v": (1.5, GLA), "gla.rank": (5, GLA),
    "gla.divisor": (4.0, GLA), "gla.norm_eps": (0.1, GLA),
    "linear.num_heads": (3, LINEAR), "linear.feature_map": ("taylor", LINEAR), "linear.key_dim": (5, LINEAR),
    "linear.eps": (0.5, LINEAR),
    "retnet.num_heads": (2, RETNET), "retnet.expand_v": (1.0, RETNET), "retnet.first_power": (1.0, RETNET),
    "retnet.norm_eps": (0.1, RETNET),
    **{f"hyena.{name}": (value, {"mixer": "hyena"}) for name, value in {
        "conv_len": 2, "filter_dim": 5, "filter_layers": 1, "bands": 3, "frequency": 2.0, "fast_decay": 0.1,
        "slow_decay": 3.0}.items()}, "long_conv.threshold": (0.1, {"mixer": "long_conv"}),
    "short_conv.length": (2, SHORT_CONV), "short_conv.bias": (True, SHORT_CONV),
    "latent.kv_rank": (20, LATENT), "latent.q_rank": (10, LATENT), "latent.nope_dim": (10, LATENT),
    "latent.rope_dim": (8, LATENT), "latent.v_dim": (10, LATENT), "latent.bias": (True, LATENT),
    "latent.norm_eps": (0.1, LATENT), "indexer.top_k": (5, {}), "indexer.num_heads": (3, INDEXED),
    "indexer.head_dim": (10, INDEXED), "indexer.loss": (0.5, INDEXED),
    "moe.expert": ("mlp", MOE), "moe.num_experts": (5, MOE), "moe.top_k": (3, MOE), "moe.scores": ("sigmoid", MOE),
    "moe.renormalise": (False, MOE), "moe.scale": (2.0, MOE), "moe.margin": (5.0, MOE | {"moe.scores": "sparsemixer"}),
    "moe.weigh_inputs": (True, MOE),
    "moe.num_groups": (4, MOE), "moe.top_groups": (2, MOE | {"moe.num_groups": 4}), "moe.router_bias": (True, MOE),
    "moe.shared_dim": (10, MOE), "moe.shared_gate": (True, MOE | {"moe.shared_dim": 10}),
    "moe.balance_loss": (0.1, MOE), "moe.router_z_loss": (0.1, MOE), "moe.balance_bias": (True, MOE),
    "moe.bias_rate": (0.1, MOE | {"moe.balance_bias": True}),
    "memory": ("bigram", {}), "bigram.factor": (2, BIGRAM), "bigram.start": (0.3, BIGRAM),
    "engram.max_n": (2, ENGRAM), "engram.num_heads": (1, ENGRAM), "engram.head_dim": (4, ENGRAM),
    "engram.rows": (30, ENGRAM), "engram.conv_len": (2, ENGRAM), "engram.seed": (1, ENGRAM),
    "engram.eos_id": (5, ENGRAM), "engram.norm_eps": (0.1, ENGRAM), "attention.value_embedding": (True, {}),
    "moe.balance_logits": (True, MOE | {"moe.balance_bias": True}),
    "layers": (("none", "base"), {}), "kinds": ({"x": {"norm": "layer"}}, {"layers": ("x",), "kinds": {"x": {}}}),
    "cross": ("attention", {}), "encoder_layers": (3, {"cross": "attention"}),
    "dim": (32, {}), "num_layers": (3, {}), "attention.num_heads": (2, {}), "attention.num_kv_heads": (2, {}),
    "attention.head_dim": (8, {}),
    "hidden_dim": (48, {}), "hidden_mult": (5.0, {}),
    "hidden_multiple_of": (10, {}), "vocab_size": (41, {}), "vocab_multiple_of": (8, {}),
    "max_seq_len": (15, {"position": "learned"}),
    "beside": ("min_gru", {}), "mixer_scales": ((0.7, 1.3), {"beside": "min_gru"}),
    "beside_scales": ((0.7, 1.3), {"beside": "min_gru"}), "mlp_scales": ((0.7, 1.3), {}),
    "mixer": ("none", {}), "mlp": ("glu", {}), "activation": ("silu", {}),
    "attention.q_bias": (True, {}), "attention.k_bias": (True, {}), "attention.v_bias": (True, {}),
    "attention.out_bias": (True, {}),
    "mlp_bias": (True, {}), "head_bias": (True, {}),
    "pointer": (True, {}), "pointer_dim": (7, {"pointer": True}),
    "ahead": ("heads", {}), "ahead_depth": (2, {"ahead": "modules"}),
    "noised": (True, {"tie_embeddings": True}), "noised_dim": (12, NOISED), "noised_steps": (30, NOISED),
    "norm": ("layer", {}), "norm_eps": (0.1, {}), "norm_affine": (False, {}), "norm_bias": (True, {}),
    "norm_unit_offset": (True, {}), "residual": ("post", {}), "final_norm": (False, {}), "embed_norm": (True, {}),
    "skip_first_norm": (True, {}), "head_dense": ("gelu", {}),
    "qk_norm": ("head", {}), "attention.window": (5, {}),
    "attention.softcap": (1.0, {}), "attention.scale": (1.0, {}), "attention.backend": ("eager", {}),
    "position": ("alibi", {}), "rope.theta": (100.0, {}), "rope.fraction": (1 / 3, {}),
    "rope.layout": ("interleaved", {}),
    "tie_embeddings": (True, {}), "embed_scale": (2.0, {}), "logit_softcap": (1.0, {}), "logit_scale": (2.0, {}),
    "residual_scale": (0.5, {}), "skip_scale": (2.0, {"residual": "post"}), "embed_dropout": (0.5, {}),
    "attention.dropout": (0.5, {}),
    "residual_dropout": (0.5, {}), "mlp_dropout": (0.5, {}),
    "init": ("xavier", {}), "init_std": (0.1, {}), "out_init": ("depth", {}), "head_zero_init": (True, {}),
    "z_loss": (0.5, {}), "inner_norm": (True, {}), "depth_scaled_norms": (True, {}),
    "attention.qk_norm_kind": ("layer", {"qk_norm": "head"}),
    "attention.qk_norm_affine": (False, {"qk_norm": "head"}), "attention.qk_norm_bias": (True, {"qk_norm": "head"}),
    "attention.qk_norm_after_rope": (True, {"qk_norm": "head"}), "attention.clip": (0.01, {}),
    "attention.dilation": (2, {"attention.window": 3}), "attention.chunk": (5, {}),
    "attention.stride": (4, {"attention.window": 3}), "attention.global_tokens": (2, {"attention.window": 3}),
    "attention.exclusive": (True, {}), "layer_scale": (0.1, {}), "drop_branch": (0.9, {}),
    "skip_to_embedding": (True, {}), "canon": (("mlp",), {}), "canon_len": (3, {"canon": ("mixer",)}),
    "token_shift": (("mlp",), {}), "token_shift_power": (4.0, {"token_shift": ("mlp",)}),
    "attention.key_offset": (True, {}), "smear": (True, {}),
    "smear_dim": (5, {"smear": True}), "backout": (0.3, {}),
    "backout_depth": (0.3, {"backout": 0.3, "num_layers": 4}),
    "attention.value_gate_max": (3.0, VALUES), "attention.value_gate_dim": (5, VALUES),
    "attention.temperature_scale": (0.9, {"attention.temperature_scale": 0.5, "attention.temperature_len": 3}),
    "attention.temperature_len": (3, {"attention.temperature_scale": 0.5}),
    "attention.temperature_first": (1, {"attention.temperature_scale": 0.5, "attention.temperature_len": 3}),
    "attention.gate": ("channel", {}), "attention.sinks": (True, {}),
    "attention.value_residual": ("fixed", {}), "attention.share_kv": (True, {}),
    "attention.differential": (True, {}), "token_scale": (True, {}), "unit_weights": (True, {}),
    "ngpt.alpha": (0.3, {"residual": "ngpt"}), "hyper.num_streams": (3, {"residual": "hyper"}),
    "hyper.sinkhorn_steps": (3, {"residual": "mhc"}), "hyper.eps": (0.1, {"residual": "mhc"}),
    "scaling": ("mup", {}), "base_dim": (16, {"scaling": "mup"}), "base_layers": (4, {"scaling": "completep"}),
    "stack": ("unet", {}), "loop.num_loops": (3, {"stack": "loop"}), "loop.inject": (True, {"stack": "loop"}),
    "hrm.high_cycles": (3, {"stack": "hrm"}), "hrm.low_cycles": (4, {"stack": "hrm"}),
    "hrm.grad_cycles": (1, {"stack": "hrm"}),
    "attnres.block_len": (2, {"residual": "attnres"}),
    "rope.scaling": ("yarn", {"rope.scaling": "linear", "rope.factor": 4.0}),
    "rope.factor": (8.0, {"rope.scaling": "linear", "rope.factor": 4.0}),
    "rope.original_len": (50, YARN), "rope.low_freq_factor": (2.0, LLAMA3), "rope.high_freq_factor": (3.0, LLAMA3),
    "rope.beta_fast": (1.5, YARN), "rope.beta_slow": (2.0, YARN), "rope.truncate": (False, YARN),
    "rope.attention_factor": (2.0, YARN),
    "alibi.scale": (2.0, {"position": "alibi"}), "sinusoidal.theta": (10.0, {"position": "sinusoidal"}),
    "sinusoidal.layout": ("half", {"position": "sinusoidal"}), "sinusoidal.first": (2, {"position": "sinusoidal"}),
    "t5.num_buckets": (8, {"position": "t5"}), "t5.max_distance": (20, {"position": "t5", "t5.num_buckets": 8}),
    "t5.shared": (False, {"position": "t5"}),
    "clamped_glu.limit": (0.1, {"mlp": "clamped_glu"}), "clamped_glu.offset": (0.5, {"mlp": "clamped_glu"}),
}


def made(cfg: ModelConfig) -> tuple[Model, list[Any]]:
    """A model, with what tells it apart before it runs: its weights as drawn, and its kernels."""
    torch.manual_seed(0)
    model = Model(cfg)
    kernels = [type(part).__name__ for part in model.modules() if isinstance(part, SDPA | EagerAttention)]
    return model, [kernels, *(parameter.detach().clone() for parameter in model.parameters())]


def behaviour(model: Model, *, gradients: bool = False) -> list[torch.Tensor]:
    """With other weights: logits, loss, gradients, and state after a step."""
    randomise(model)
    torch.manual_seed(0)
    with torch.no_grad():
        logits = model(small_tokens())
    loss = loss_of(model, small_tokens(), small_tokens(seed=1))
    grads = torch.autograd.grad(loss, list(model.parameters())) if gradients else ()
    model.after_step()
    trained = {name for name, _ in model.named_parameters()}
    return [logits, loss, *grads, *(value for name, value in model.state_dict().items() if name not in trained)]


def equal(before: list[Any], after: list[Any]) -> bool:
    return len(before) == len(after) and all(
        torch.equal(x, y) if isinstance(x, torch.Tensor) else x == y for x, y in zip(before, after, strict=True))


IN_THE_GRADIENT = {"hrm.grad_cycles"}  # flags that change nothing else


def test_every_flag_has_another_value_to_try():
    assert set(OTHER) == {*flag_names(ModelConfig)}


@pytest.mark.parametrize("flag", OTHER)
def test_every_flag_changes_the_model(flag):
    value, needs = OTHER[flag]
    base = small_config(**needs)
    (one, drawn), (other, others) = made(base), made(replace(base, **{flag: value}))
    results = [behaviour(model, gradients=flag in IN_THE_GRADIENT) for model in (one, other)]
    assert not (equal(drawn, others) and equal(*results))


def train_and_generate(cfg: Config) -> tuple[float, float]:
    """The loss on a batch before and after three steps on it; then the model writes."""
    torch.manual_seed(0)
    model = Model(cfg.model, checkpoint_activations=cfg.train.checkpoint_activations)
    objective = make_objective(model, cfg.train)
    optimizer = make_optimizer(model, cfg.train)
    tokens = small_tokens(1, 99, vocab_size=cfg.model.vocab_size)[0].numpy()
    part = SimpleNamespace(tokens=tokens, targets=tokens, num_tokens=99, document_starts=np.array([0, 9, 12, 50]),
                           pad_id=0)
    batch = Batches([(part, 1.0)], batch_size=4, seq_len=cfg.model.max_seq_len, packing=cfg.data.packing)[0]
    losses = partial(objective, batch)
    with torch.no_grad():
        before = losses().total.item()
    for _ in range(3):
        losses().total.backward()
        optimizer.step()
        optimizer.zero_grad()
    sample = SampleConfig(max_new_tokens=cfg.model.max_seq_len, stop_at_eos=False)
    assert [len(new) for new in generate(model, [[1, 5, 7], [2]], sample, eos_id=2)] == [cfg.model.max_seq_len] * 2
    with torch.no_grad():
        return before, losses().total.item()


@pytest.mark.parametrize("preset", some(PRESETS, 2))
def test_every_preset_learns_and_generates(preset):
    cfg = tiny(load_preset(preset), max_seq_len=12)
    dropout = dict.fromkeys(("embed_dropout", "attention.dropout", "residual_dropout"), 0.0)  # noise hides small steps
    before, after = train_and_generate(replace(cfg, model=replace(cfg.model, **dropout)))
    assert after < before


ANY = {flag: st.just(value) for flag, (value, _) in OTHER.items() if flag != "kinds"}
ANY |= {flag: st.sampled_from(get_args(words)) for flag, words in MENUS.items()}
ANY |= {"layers": st.lists(st.sampled_from(get_args(config.Mixer)), min_size=1, max_size=2).map(tuple),
        "attention.num_heads": st.sampled_from((1, 2, 3, 4, 5)), "attention.num_kv_heads": st.sampled_from((None, 1,
                                                                                                            2, 3)),
        "attention.head_dim": st.sampled_from((None, 5, 8)), "rope.fraction": st.sampled_from((0.3, 0.5, 1.0)),
        "norm_bias": st.booleans(), "tie_embeddings": st.booleans(), "attention.window": st.sampled_from((None, 1, 4,
                                                                                                          99))}


@pytest.mark.slow
@settings(max_examples=120)
@given(st.sets(st.sampled_from(sorted(ANY)), max_size=7).flatmap(
    lambda names: st.fixed_dictionaries({name: ANY[name] for name in sorted(names)})),
    st.sampled_from(get_args(config.Packing)), st.booleans(), st.sampled_from((None, 1, 7)))
def test_any_flags_train_and_generate_or_are_refused_by_name(flags, packing, checkpointed, chunk):
    try:
        cfg = override(Config(), {
            "model": SMALL | flags, "data.packing": packing, "train.checkpoint_activations": checkpointed,
            "train.loss_chunk": chunk})
    except ValueError as error:
        assert any(f"{flag}={flags[flag]}" in str(error).replace("'", "") for flag in flags), error
    else:
        before, after = train_and_generate(cfg)
        assert before == before and after == after  # no NaN


@each_variant
def test_building_on_meta_and_giving_weights_equals_building_directly(flags):
    def state(model: Model) -> dict[str, torch.Tensor]:
        return dict([*model.named_parameters(), *model.named_buffers()])

    cfg = small_config(**flags)
    torch.manual_seed(0)
    direct, after = Model(cfg), torch.rand(1)
    with torch.device("meta"):
        later = Model(cfg)
    torch.manual_seed(0)
    later.to_empty(device="cpu").init_weights()
    assert torch.equal(torch.rand(1), after)  # it has drawn as many numbers
    assert state(direct).keys() == state(later).keys()
    different = [path for path, value in state(direct).items() if not torch.equal(value, state(later)[path])]
    assert not different


@each_variant
def test_each_branch_ends_in_a_projection_that_out_init_reaches(flags):
    for block in Model(small_config(**flags)).blocks:
        for name in block.branches:
            names = [path.rpartition(".")[2] for path, _ in block[name].branch.named_modules()]
            assert "out" in names, f"the projection of {name} into the stream must be called out"


@each_variant
def test_every_parameter_has_one_role_and_one_group(flags):
    model = Model(small_config(**flags))
    names, groups = dict(model.named_parameters()), parameter_groups(model, Config().train)
    grouped = [p for group in groups.values() for p in group["params"]]
    assert roles(model).keys() == names.keys() and set(roles(model).values()) <= set(GROUPS)
    assert len(grouped) == len(set(grouped)) == len(names)
    assert all(p.dim() >= 2 for p in groups.get("matrices", {"params": []})["params"])


# ---- flags that would change nothing ----

OFF = (None, False, "none")  # what asks for nothing
NOT_IN_A_FORWARD = {"max_seq_len", "layers", "kinds", "attention.temperature_scale"}  # the last: in longer texts
# flags that act, but not at these sizes: a floor of vectors shorter than any here, pairs of channels rounded to one,
# distances longer than a text
UNSEEN = {("norm", "cosine"): {"norm_eps"}, ("norm", "l2"): {"norm_eps"},
          ("rope.scaling", "yarn"): {"rope.beta_slow"}, ("position", "t5"): {"t5.max_distance"}}
BASES = [WITH.get(flag, {}) | {flag: word} for flag, words in (MENUS | {"mixer": config.Mixer}).items()
         for word in get_args(words) if word != "none" or flag not in WITH]
BASES += [{"pointer": True}, {"tie_embeddings": True}, {"layers": ("x", "none"), "kinds": {"x": {"norm": "dyt"}}}]
BASES += [INDEXED, INDEXED | LATENT | {"indexer.head_dim": 16}]
BASES += [BIGRAM, ENGRAM, {"beside": "mamba2"}, {"mixer": "rwkv7", "beside": "attention"}]


def accepted_in_vain(base: dict[str, Any]) -> set[str]:
    """The flags that are accepted beside those of a base, and change nothing of the model.

    One rule refuses those of a recurrent mixer that is not there, whatever else a layer has: bases of mixers try them.
    """
    plain = ModelConfig()
    flags = {flag for flag, (value, _) in OTHER.items()
             if flag not in base and value not in (*OFF, get(plain, flag)) and flag not in
             NOT_IN_A_FORWARD | IN_THE_GRADIENT and (flag.partition(".")[0] not in RECURRENT or "mixer" in base)}
    if can_be("num_layers", 1, base):  # which is quicker: what acts in one layer acts
        flags -= accepted(base | {"num_layers": 1}, flags, acting=True)
    return accepted(base, flags, acting=False)


def accepted(base: dict[str, Any], flags: set[str], *, acting: bool) -> set[str]:
    """The flags that are accepted beside those of a base, and change something of the model, or nothing."""
    cfg = small_config(**base)
    model, drawn = made(cfg)
    before, found = behaviour(model), set()
    for flag in sorted(flags):
        try:
            model, others = made(replace(cfg, **{flag: OTHER[flag][0]}))
        except ValueError:
            continue
        if acting != (equal(drawn, others) and equal(before, behaviour(model))):
            found.add(flag)
    return found


@pytest.mark.parametrize("base", some(BASES, 5), ids=str)
@pytest.mark.slow
def test_no_flag_is_accepted_in_vain(base):
    unseen = set().union(*(names for (flag, word), names in UNSEEN.items() if base.get(flag) == word))
    assert accepted_in_vain(base) == unseen


def test_a_part_that_forgets_its_flags_is_found(monkeypatch):
    class Forgetful(MLP):
        @classmethod
        def from_config(cls, cfg):
            return cls(cfg.dim, hidden_dim=96)

    monkeypatch.setitem(MLPS, "mlp", Forgetful)
    assert accepted_in_vain({"mlp": "mlp"}) == {"activation", "mlp_bias", "mlp_dropout", "hidden_dim", "hidden_mult",
                                                "hidden_multiple_of", "mlp_scales"}
