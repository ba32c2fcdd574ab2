"""The configurations of the benchmark memory: some that span the menus, and any number drawn at random."""

import random
from collections.abc import Iterator
from typing import Any, get_args

import config
from config import Config, override
from presets import load_preset

# in all cases: few samples, and a stated precision, because the fast one differs between machines
BASE = {"model.vocab_size": 2048, "train.precision": "float32", "train.graded_stories": 0, "sample.max_new_tokens": 32}
LLAMA = {"model.dim": 256, "model.num_layers": 6, "model.attention.num_heads": 8, "model.attention.num_kv_heads": 2,
         "model.mlp": "glu",
         "model.activation": "silu", "model.qk_norm": "none", "model.pointer": False, "train.optimizer": "adamw"}
PLAIN = {"model.norm": "layer", "model.norm_bias": True, "model.mlp_bias": True, "model.activation": "gelu",
         "model.position": "learned", "model.pointer": False, "model.qk_norm": "none", "train.optimizer": "adamw"}
CASES: dict[str, dict[str, Any]] = {
    "default": {"model.vocab_size": 4096},
    "default, 100 stories": {"model.vocab_size": 4096, "train.graded_stories": 100},
    "default, bfloat16": {"model.vocab_size": 4096, "train.precision": "bfloat16"},
    "llama": LLAMA | {"model.max_seq_len": 512, "train.batch_size": 4},
    "llama, bfloat16": LLAMA | {"model.max_seq_len": 512, "train.batch_size": 4, "train.precision": "bfloat16"},
    "llama, documents, 50k": LLAMA | {"data.packing": "documents", "model.vocab_size": 50304, "train.batch_size": 2},
    "gpt2 124M": {"preset": "gpt2", "model.max_seq_len": 64, "train.batch_size": 1, "model.vocab_size": 50257},
    "gpt2 of 4 layers": {"preset": "gpt2", "model.num_layers": 4, "model.max_seq_len": 128, "train.batch_size": 2,
                         "model.vocab_size": 50257, "model.attention.dropout": 0.0},
    "explicit attention": PLAIN | {"model.attention.backend": "eager", "model.max_seq_len": 512, "train.batch_size": 4},
    "explicit, softcaps": {"model.attention.backend": "eager", "model.attention.softcap": 30.0,
                           "model.logit_softcap": 20.0},
    "alibi, window": {"model.position": "alibi", "model.layers": ("local", "global"),
                      "model.kinds": {"local": {"attention.window": 64}, "global": {}}},
    "window in blocks, documents": {"model.attention.window": 48, "model.max_seq_len": 768, "train.batch_size": 3,
                                    "data.packing": "documents", "model.num_layers": 6},
    "chunks, global tokens": {"model.layers": ("local", "strided"), "model.max_seq_len": 512, "train.batch_size": 4,
                              "model.num_layers": 6, "model.kinds": {
                                  "local": {"attention.chunk": 64, "attention.global_tokens": 2},
                                  "strided": {"attention.window": 16, "attention.stride": 16}}},
    "documents": {"data.packing": "documents", "model.max_seq_len": 512, "train.batch_size": 6},
    "padded rows": {"data.packing": "pad", "train.batch_size": 24, "model.residual": "two_hop"},
    "sandwich, glu, z-loss": {"model.residual": "sandwich", "model.mlp": "glu", "model.z_loss": 1e-4},
    "parallel, layer norm": {"model.residual": "parallel", "model.norm": "layer", "model.dim": 256},
    "post, dropout": {"model.residual": "post", "model.out_init": "same", "model.residual_dropout": 0.1,
                      "model.mlp_dropout": 0.1, "model.embed_dropout": 0.1, "model.attention.dropout": 0.1},
    "branch_post, cosine": {"model.residual": "branch_post", "model.norm": "cosine", "model.activation": "mish"},
    "dyt, sinusoidal": {"model.norm": "dyt", "model.position": "sinusoidal", "model.qk_norm": "none"},
    "attention alone, l2": {"model.mlp": "none", "model.num_layers": 6, "model.dim": 192, "model.norm": "l2"},
    "no mixer": {"model.mixer": "none", "model.dim": 384, "model.position": "rope", "model.qk_norm": "none",
                 "train.optimizer": "sgd"},
    "tied, 32k": {"model.tie_embeddings": True, "model.vocab_size": 32768, "train.batch_size": 2,
                  "train.optimizer": "adamw"},
    "32k, logits in chunks": {"model.vocab_size": 32768, "train.loss_chunk": 32, "train.optimizer": "adafactor"},
    "checkpointing": {"model.dim": 256, "model.num_layers": 8, "train.checkpoint_activations": True,
                      "train.loss_chunk": 64, "train.batch_size": 16},
    "checkpointing, bfloat16": {"model.dim": 384, "model.num_layers": 8, "train.checkpoint_activations": True,
                                "train.precision": "bfloat16", "train.batch_size": 16, "train.optimizer": "adamw"},
    "accumulation, noise, clamped glu": {"train.accumulation": 4, "train.log_noise_scale": True, "model.dim": 256,
                                         "model.mlp": "clamped_glu", "model.activation": "quick_gelu"},
    "lion, average, t5": {"train.optimizer": "lion", "train.ema_decay": 0.999, "model.dim": 256, "model.num_layers": 6,
                          "model.position": "t5"},
    "experts": {"model.mlp": "moe", "model.dim": 192, "model.hidden_dim": 192, "model.moe.num_experts": 16,
                "model.moe.shared_dim": 96, "model.moe.balance_loss": 0.01, "model.moe.balance_bias": True},
    "latent": {"model.mixer": "latent", "model.dim": 256, "model.num_layers": 6, "model.latent.q_rank": 96,
               "model.latent.kv_rank": 64, "model.attention.num_heads": 8, "model.max_seq_len": 512},
    "indexed": {"model.layers": ("attention", "latent"), "model.dim": 192, "model.num_layers": 4,
                "model.indexer.top_k": 64, "model.max_seq_len": 512, "train.batch_size": 4},
    "recurrent": {"model.layers": ("min_gru", "mamba", "mamba2", "mamba3", "attention"), "model.dim": 192,
                  "model.num_layers": 5,
                  "model.max_seq_len": 512},
    "mixers side by side": {"model.beside": "mamba2", "model.dim": 192, "model.num_layers": 4,
                            "model.mixer_scales": (1.0, 0.9), "model.beside_scales": (1.2, 0.3),
                            "model.mlp_scales": (0.9, 0.6), "model.mamba2.scales": (0.4, 0.6, 0.7, 1.2, 0.5)},
    "gated recurrences": {"model.layers": ("min_lstm", "hgrn2", "rg_lru", "mlstm", "mlstm_v1"),
                          "model.dim": 192, "model.num_layers": 5},
    "cells": {"model.layers": ("gru", "slstm", "lstm"), "model.dim": 192, "model.num_layers": 3},
    "recurrent with chunks, time norm": {"model.layers": ("cema", "rwkv7", "attention", "rwkv7"), "model.dim": 192,
                  "model.num_layers": 4, "model.max_seq_len": 512, "model.final_norm_groups": 4},
    "linear attentions": {"model.layers": ("gla", "linear", "retnet", "lightning", "short_conv"), "model.dim": 192,
                          "model.num_layers": 5},
    "long convolutions": {"model.layers": ("hyena", "long_conv"), "model.dim": 192, "model.num_layers": 4,
                          "model.max_seq_len": 512, "train.batch_size": 8},
    "delta rules": {"model.layers": ("gated_delta", "kda", "gdn2", "deltanet", "attention"), "model.dim": 192,
                    "model.num_layers": 5, "model.max_seq_len": 512, "train.batch_size": 8},
    "streams": {"model.residual": "hyper", "model.dim": 192, "model.num_layers": 4},
    "constrained streams": {"model.residual": "mhc", "model.dim": 192, "model.num_layers": 4, "train.batch_size": 4},
    "attention over depth": {"model.residual": "attnres", "model.num_layers": 8, "train.optimizer": "adamw"},
    "loops": {"model.stack": "loop", "model.loop.num_loops": 4, "model.dim": 192},
    "a fast and a slow half": {"model.stack": "hrm", "model.num_layers": 4, "train.optimizer": "adamw"},
    "skips over depth": {"model.stack": "unet", "model.num_layers": 8, "model.dim": 192},
    "bigrams, value embeddings": {"model.memory": "bigram", "model.attention.value_embedding": True,
                                  "model.vocab_size": 8192, "train.batch_size": 4, "data.packing": "documents"},
    "n-grams": {"model.memory": "engram", "model.engram.rows": 20_000, "model.dim": 192, "model.num_layers": 4,
                "train.optimizer": "adamw"},
    "smeared, a middle stream subtracted": {
        "model.smear": True, "model.backout": 0.2, "model.skip_to_embedding": True, "model.num_layers": 8},
    "masked diffusion": {"train.objective": "masked_diffusion", "train.batch_size": 16, "model.num_layers": 4,
                         "model.dim": 192, "model.pointer": False},
    "prefix": {"train.objective": "prefix", "model.dim": 192, "model.num_layers": 4, "data.packing": "documents"},
    "fill in the middle": {"train.objective": "fill_in_the_middle", "model.dim": 192, "data.packing": "pad",
                           "train.batch_size": 16},
    "block diffusion": {"train.objective": "block_diffusion", "train.batch_size": 8, "model.num_layers": 4,
                        "model.dim": 192, "model.pointer": False},
    "masked language model": {"train.objective": "masked", "train.batch_size": 16, "model.num_layers": 4,
                              "model.dim": 192, "model.pointer": False},
    "encoder and decoder": {"model.cross": "attention", "model.encoder_layers": 4, "model.num_layers": 4,
                            "model.dim": 192, "model.position": "t5", "train.objective": "seq2seq"},
    "hidden spans": {"model.cross": "attention", "model.encoder_layers": 6, "model.num_layers": 2, "model.dim": 192,
                     "train.objective": "span_corruption", "data.packing": "pad"},
    "further tokens, modules": {"train.objective": "multi_token", "model.ahead": "modules", "model.ahead_depth": 3,
                                "model.dim": 192, "train.batch_size": 16, "train.loss_chunk": 64},
    "further tokens, heads": {"train.objective": "multi_token", "model.ahead": "heads", "model.ahead_depth": 2,
                              "data.packing": "documents", "model.num_layers": 6, "train.optimizer": "adamw"},
    "vectors with noise": {"train.objective": "diffuseq", "model.noised": True, "model.tie_embeddings": True,
                           "model.pointer": False,
                           "train.batch_size": 16, "model.num_layers": 4, "model.dim": 192},
    "soap": {"train.optimizer": "soap", "model.dim": 256, "model.num_layers": 4},
    "ngpt": {"preset": "ngpt", "model.dim": 256, "model.num_layers": 6, "model.attention.num_heads": 8,
             "model.hidden_dim": 1024, "model.max_seq_len": 256, "train.batch_size": 8},
    "schedule-free": {"train.optimizer": "schedule_free", "train.schedule": "constant", "model.dim": 320},
    "texts of a wide model": {"model.mlp": "glu", "model.dim": 640, "model.num_layers": 4, "model.max_seq_len": 64,
                              "train.optimizer": "sgd", "train.momentum": 0.0, "train.batch_size": 1},
    "wide and short, two norms": {"model.residual": "parallel_each", "model.dim": 768, "model.num_layers": 4,
                                  "model.max_seq_len": 64, "model.vocab_size": 8192,
                                  "train.batch_size": 4},
}
CHOICES: dict[str, tuple[Any, ...]] = {
    "model.dim": (32, 64, 96, 128, 192, 256, 384, 512), "model.num_layers": (1, 2, 3, 4, 6, 8, 12, 16),
    "model.attention.num_heads": (1, 2, 4, 8), "model.attention.num_kv_heads": (None, None, 1, 2),
    "model.max_seq_len": (32, 64, 128, 256, 512), "model.vocab_size": (512, 1000, 2048, 4096, 8192, 32000, 50257),
    "model.mlp": get_args(config.Mlp), "model.activation": get_args(config.Activation),
    "model.norm": get_args(config.Norm), "model.residual": get_args(config.Residual),
    "model.position": get_args(config.Position), "model.qk_norm": get_args(config.QKNorm),
    "model.attention.backend": get_args(config.AttentionBackend), "model.attention.window": (None, None, 32),
    "model.pointer": (False, True), "model.tie_embeddings": (False, True), "model.out_init": ("same", "depth"),
    "model.residual_dropout": (0.0, 0.0, 0.1), "model.attention.dropout": (0.0, 0.0, 0.1), "model.z_loss": (0.0, 1e-4),
    "model.logit_softcap": (None, None, 30.0), "model.mlp_bias": (False, True),
    "data.packing": get_args(config.Packing), "train.batch_size": (1, 2, 4, 8, 16, 32),
    "train.accumulation": (1, 1, 2, 4), "train.optimizer": get_args(config.Optimizer),
    "train.precision": ("float32", "float32", "bfloat16"), "train.checkpoint_activations": (False, False, True),
    "train.loss_chunk": (None, None, 16, 64), "train.ema_decay": (None, None, 0.99),
    "train.log_grad_norms": (False, False, True),
}
RUN = {  # of a drawn run of train.py: a short text, whose whole validation part is soon read
    "data.num_stories": 3000, "data.val_ratio": 0.003, "sample.max_new_tokens": 32, "train.eval_every": 10}
RUN_CHOICES: dict[str, tuple[Any, ...]] = CHOICES | {
    "model.max_seq_len": (32, 64, 128, 256, 512, 1024), "model.num_layers": (1, 2, 3, 4, 6),
    "model.layers": (("base",), ("base",), ("attention", "none")),
    "model.residual": ("pre", "post", "sandwich", "branch_post", "parallel"),  # none diverges
    "model.vocab_size": (None, None, None, 8192, 32000),
    "tokenizer.kind": ("char", "byte", "bpe"), "tokenizer.path": (None, "tales_512", "tales_4096"),
    "train.precision": ("auto", "float32", "bfloat16"), "train.steps": (12, 30), "train.graded_stories": (0, 0, 10),
    "train.compile": (False, False, False, True),
}


def named_cases() -> dict[str, Config]:
    """The configurations that are measured, by name."""
    return {name: override(load_preset(case.get("preset", "tales")),
                           BASE | {flag: value for flag, value in case.items() if flag != "preset"})
            for name, case in CASES.items()}


def drawn_cases(seed: int, choices: dict[str, tuple[Any, ...]] = CHOICES, base: dict[str, Any] = BASE,
                ) -> Iterator[Config]:
    """An endless stream of valid configurations drawn from `choices`, the same for the same seed."""
    random_of_seed = random.Random(seed)
    while True:
        flags = {flag: random_of_seed.choice(values) for flag, values in choices.items()}
        if flags["train.optimizer"] == "schedule_free":
            flags |= {"train.schedule": "constant", "train.ema_decay": None}
        try:
            yield override(Config(), base | flags)
        except ValueError:  # incompatible flags
            continue
