"""Ways through the layers: loops, a fast and a slow half, and skips over depth."""

import pytest
import torch
from helpers import assert_close, randomise, small_config, small_model, small_tokens

from model import Model
from modules.stream import Context, Stream


def walk(model: Model, tokens: torch.Tensor, route) -> torch.Tensor:
    """The logits if `route(x, layer)` is the way from the embedding to the final norm, and layer(i, x) a layer."""
    context = Context(torch.arange(tokens.shape[1]))
    x = model.embed(tokens, context.positions)
    return model.head(model.norm(route(x, lambda i, x: model.blocks[i](Stream(x), context).x)))


@pytest.mark.parametrize("inject", [False, True])
def test_a_loop_passes_through_all_layers_again(inject):
    model = small_model(stack="loop", num_layers=3, **{"loop.num_loops": 4, "loop.inject": inject})

    def route(x, layer):
        y = x
        for loop in range(4):
            y = y + x if inject and loop else y
            for i in range(3):
                y = layer(i, y)
        return y

    assert_close(model(small_tokens()), walk(model, small_tokens(), route), "same")
    assert len(model.make_cache(9).layers) == 12
    assert model.num_parameters() == Model(small_config(num_layers=3)).num_parameters()


@pytest.mark.parametrize("num_layers", [2, 5])
def test_skips_join_layers_as_far_from_both_ends(num_layers):
    model = small_model(stack="unet", num_layers=num_layers)

    def route(x, layer):
        outputs = []
        for i in range(num_layers):
            mirror = num_layers - 1 - i
            x = layer(i, x + model.stack.weights[mirror] * outputs[mirror] if mirror < num_layers // 2 else x)
            outputs.append(x)
        return x

    assert_close(model(small_tokens()), walk(model, small_tokens(), route), "same")


@pytest.mark.parametrize(("flags", "middle"), [
    ({"num_layers": 2}, 0), ({"num_layers": 5}, 2), ({"num_layers": 5, "backout_depth": 0.95}, 3),
    ({"num_layers": 4, "stack": "loop"}, 4), ({"num_layers": 3, "residual": "hyper", "backout_depth": 0.1}, 0),
], ids=str)
def test_the_stream_after_a_middle_layer_is_taken_from_the_last(flags, middle):
    model, plain = small_model(backout=0.3, **flags), small_model(**{**flags, "backout_depth": 0.5})
    plain.load_state_dict(model.state_dict(), strict=False)
    streams = []
    for block in plain.blocks:
        block.register_forward_hook(lambda block, given, stream: streams.append(plain.leave(stream)))
    plain(small_tokens())
    expected = model.head(model.norm(streams[-1] - model.backout.factor * streams[middle]))
    assert_close(model(small_tokens()), expected, "same")
    assert Model(small_config(backout=0.3, **flags)).backout.factor.item() == pytest.approx(0.3)


HRM = {"norm_affine": False, "final_norm": False, "mlp": "glu", "activation": "silu", "attention.gate": "channel",
       "attention.head_dim": 6, "stack": "hrm", "num_layers": 4, "embed_scale": 3.0, "hidden_dim": 40}


@pytest.mark.parametrize(("cycles", "grads"), [((2, 3, 2), [2]), ((1, 2, 1), [1]), ((3, 1, 1), [1])], ids=str)
def test_a_fast_and_a_slow_half_equal_transformers(cycles, grads):
    transformers = pytest.importorskip("transformers")
    high, low, grad = cycles
    theirs = transformers.HrmTextForCausalLM(transformers.HrmTextConfig(
        hidden_size=24, intermediate_size=40, num_hidden_layers=2, num_attention_heads=4, head_dim=6, vocab_size=37,
        H_cycles=high, L_cycles=low, L_bp_cycles=grads, embedding_scale=3.0, attn_implementation="eager"))
    randomise(theirs, std=0.15)
    with torch.no_grad():
        theirs.model.z_L_init.zero_()  # which never trains
    ours = Model(small_config(**HRM, **{"hrm.high_cycles": high, "hrm.low_cycles": low, "hrm.grad_cycles": grad}))
    names = {"embed.tokens.weight": "model.embed_tokens.weight", "head.unembed.weight": "lm_head.weight"}
    parts = {"mixer.branch.q": "self_attn.q_proj", "mixer.branch.k": "self_attn.k_proj",
             "mixer.branch.v": "self_attn.v_proj", "mixer.branch.gate.gate": "self_attn.gate_proj",
             "mixer.branch.out": "self_attn.o_proj", "mlp.branch.gate": "mlp.gate_proj", "mlp.branch.up": "mlp.up_proj",
             "mlp.branch.out": "mlp.down_proj"}
    names |= {f"blocks.{i}.{part}.weight": f"model.{half}_module.layers.{i % 2}.{other}.weight"
              for i, half in enumerate("LLHH") for part, other in parts.items()}
    weights = theirs.state_dict()
    ours.load_state_dict({name: weights[other] for name, other in names.items()})
    tokens = small_tokens()
    logits, expected = ours(tokens), theirs(tokens).logits
    assert_close(logits, expected, "parity")
    torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens.flatten()).backward()
    torch.nn.functional.cross_entropy(expected.flatten(0, 1), tokens.flatten()).backward()
    their_grads = {name: parameter.grad for name, parameter in theirs.named_parameters()}
    for name, parameter in ours.named_parameters():
        assert_close(parameter.grad, their_grads[names[name]], "parity_grad")


@pytest.mark.parametrize(("flags", "sentence"), [
    ({"stack": "hrm", "num_layers": 3}, "stack=hrm has a fast and a slow half, so num_layers=3 must be even"),
    ({"stack": "unet", "num_layers": 1}, "num_layers=1 is too few"),
    ({"backout": 0.2, "num_layers": 1}, "num_layers=1 is too few"),
    ({"stack": "loop", "residual": "attnres"}, "stack=loop does not go with residual=attnres"),
    ({"stack": "loop", "loop.num_loops": 1}, "num_loops=1 is no loop"),
    ({"stack": "hrm", "hrm.low_cycles": 1}, "grad_cycles=2 is more than low_cycles=1"),
    ({"hrm.low_cycles": 4}, "hrm.low_cycles=4 would change nothing"),
])
def test_impossible_ways_are_refused(flags, sentence):
    with pytest.raises(ValueError, match=sentence):
        small_config(**flags)
