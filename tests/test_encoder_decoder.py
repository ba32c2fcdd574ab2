"""Cross-attention, and an encoder and a decoder, which equal T5 of Hugging Face in logits and gradients."""

import functools

import pytest
import torch
from helpers import TOLERANCES, assert_close, flops_of, one_source, randomise, small_config, small_model, small_tokens
from parts.translate import Translate
from torch import Tensor, nn

import train
from config import Config, ModelConfig, flat, override, replace
from configuration.rules import check_run
from data import Batch
from exchange.folder import read_model_type
from experiments.common import figures
from families import ENCODER_DECODERS, FAMILIES
from families.weights import weights_of
from memory_prediction.dry_run import sequence_bytes
from memory_prediction.prediction import predict
from model import Model
from modules.position import ALiBi
from modules.sizes import axis_sizes
from modules.stream import Context, Source
from presets import load_preset, tiny
from showing import command, gallery, gallery_commands
from tools import trace
from training.gradients import layer_norms

FAMILY = ENCODER_DECODERS["t5"]
READS = {"cross": "attention", "encoder_layers": 3}
VOCAB, S, T = 61, 17, 13
PADDING = torch.tensor([0, 6])  # of the source, by row


def tokens_of(length: int, seed: int) -> Tensor:
    return small_tokens(2, length, vocab_size=VOCAB, seed=seed)


SOURCE, TEXT = tokens_of(S, 1), tokens_of(T, 2)
PLACES = torch.arange(S) - PADDING[:, None]


# ---- parity with T5 ----


def toy(preset: str) -> ModelConfig:
    """A preset at toy size, its sizes different, its tables shorter than a text, and nothing dropped."""
    cfg = tiny(load_preset(preset), vocab_size=VOCAB).model
    off = dict.fromkeys(("embed_dropout", "attention.dropout", "residual_dropout", "mlp_dropout"), 0.0)
    return override(cfg, off | {"num_layers": 2, "encoder_layers": 3, "t5.num_buckets": 8, "t5.max_distance": 12,
                                "attention.num_heads": 4, "attention.num_kv_heads": None})


@functools.cache
def pair(preset: str) -> tuple[ModelConfig, nn.Module, Model]:
    """(our configuration at toy size, their model with random weights, ours with the same)."""
    transformers = pytest.importorskip("transformers")
    cfg = toy(preset)
    config = transformers.AutoConfig.for_model(**FAMILY.write(cfg))
    theirs = transformers.AutoModelForSeq2SeqLM.from_config(config, attn_implementation="eager")
    assert type(theirs).__name__ == FAMILY.architecture
    if not cfg.tie_embeddings:  # their library ties what the published weights do not
        theirs.lm_head.weight = nn.Parameter(theirs.lm_head.weight.clone())
    randomise(theirs).eval()
    ours, own = Model(cfg), weights_of(Model(cfg))
    weights = dict(FAMILY.weights.to_ours(cfg, own, dict(theirs.named_parameters())))
    ours.load_state_dict(weights, strict=not cfg.tie_embeddings)
    assert weights.keys() == own.keys()
    return cfg, theirs, ours.eval()


def their_output(theirs: nn.Module, **options) -> object:
    return theirs(input_ids=SOURCE, attention_mask=(PLACES >= 0).long(), **options)


each_preset = pytest.mark.parametrize("preset", ["t5", "t5-v1.1"])


@each_preset
def test_the_encoder_and_the_logits_of_a_ragged_source_are_equal(preset):
    _, theirs, ours = pair(preset)
    with torch.no_grad():
        source = ours.encode(SOURCE, positions=PLACES)
        expected = their_output(theirs, decoder_input_ids=TEXT)
        assert expected.logits.std() > 0.02
        assert_close(source.states[0], expected.encoder_last_hidden_state[0], "parity")
        assert_close(source.states[1, 6:], expected.encoder_last_hidden_state[1, 6:], "parity")
        assert_close(ours(TEXT, source=source), expected.logits, "parity")


@each_preset
def test_gradients_are_equal(preset):
    cfg, theirs, ours = pair(preset)
    ours.zero_grad()
    logits = ours(TEXT[:, :-1], source=ours.encode(SOURCE, positions=PLACES))
    nn.functional.cross_entropy(logits.flatten(0, 1), TEXT[:, 1:].flatten()).backward()
    theirs.zero_grad()
    their_output(theirs, decoder_input_ids=TEXT[:, :-1], labels=TEXT[:, 1:].clone()).loss.backward()
    own = dict(ours.named_parameters())
    gradients = {name: parameter.grad for name, parameter in theirs.named_parameters()}
    expected = dict(FAMILY.weights.to_ours(cfg, own, gradients))
    assert_close({name: parameter.grad for name, parameter in own.items()}, expected, "parity_grad")


@each_preset
def test_pieces_of_the_text_with_a_cache_are_equal(preset):
    _, theirs, ours = pair(preset)
    with torch.no_grad():
        cache, source = ours.make_cache(T), ours.encode(SOURCE, positions=PLACES)
        first, *rest = TEXT.split((5, 1, 1, 6), dim=1)
        pieces = [ours(first, source=source, cache=cache), *(ours(piece, cache=cache) for piece in rest)]
        assert_close(torch.cat(pieces, dim=1), their_output(theirs, decoder_input_ids=TEXT).logits, "parity")


# another value of each flag that leaves the weights as they are
OTHERS = {"norm_eps": 0.1, "norm": "l2", "activation": "silu", "position": "none", "attention.scale": 0.5,
          "t5.max_distance": 30, "logit_scale": 0.7, "embed_scale": 1.3, "residual": "post", "final_norm": False,
          "encoder_layers": 2, "num_layers": 1, "attention.softcap": 1.0, "residual_scale": 0.9, "qk_norm": "unit",
          "t5.shared": False, "attention.window": 4, "cross": "none", "logit_softcap": 1.0}


@each_preset
@pytest.mark.parametrize("flag", OTHERS)
def test_a_wrong_flag_breaks_the_equality(preset, flag):
    cfg, theirs, ours = pair(preset)
    besides = {"cross": {"encoder_layers": None}, "position": {"t5.num_buckets": 32, "t5.max_distance": 128}}
    changes = {flag: OTHERS[flag]} | besides.get(flag, {})
    model = Model(override(cfg, changes)).eval()
    model.load_state_dict(ours.state_dict(), strict=False)
    with torch.no_grad():
        source = None if flag == "cross" else model.encode(SOURCE, positions=PLACES)
        expected = their_output(theirs, decoder_input_ids=TEXT).logits
        assert not torch.allclose(model(TEXT, source=source), expected, **TOLERANCES["parity"])


@each_preset
def test_weights_and_fields_return_as_they_came(preset):
    cfg, theirs, ours = pair(preset)
    back, saved = FAMILY.weights.to_theirs(cfg, weights_of(ours)), dict(theirs.named_parameters())
    assert back.keys() == saved.keys()
    assert all(torch.equal(back[name], saved[name]) for name in saved)
    assert FAMILY.read(FAMILY.write(cfg)) == replace(cfg, attention=cfg.attention)
    assert not FAMILY.misfits(cfg)


def test_the_defaults_are_those_of_their_class():
    transformers = pytest.importorskip("transformers")
    assert FAMILY.read({}) == FAMILY.read(transformers.T5Config().to_dict())
    small = load_preset("t5-small").model
    assert FAMILY.read({}) == small


@pytest.mark.parametrize(("field", "flags"), [
    ("gated-silu", ("glu", "silu")), ("gated-gelu", ("glu", "gelu_tanh")), ("gelu", ("mlp", "gelu")),
    ("gated-gelu_python", ("glu", "gelu"))])
def test_the_word_of_their_mlp_is_read_and_written(field, flags):
    cfg = FAMILY.read({"feed_forward_proj": field})
    assert (cfg.mlp, cfg.activation) == flags and FAMILY.write(cfg)["feed_forward_proj"] == field


def test_a_t5_is_neither_imported_nor_taken_for_another_family(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "t5"}')
    with pytest.raises(ValueError, match="model_type='t5', an encoder and a decoder: only decoders"):
        read_model_type(tmp_path)
    found = [family.misfits(toy("t5")) for family in FAMILIES.values()]
    assert all(found) and "model.cross=attention" in "; ".join(FAMILIES["llama"].misfits(toy("t5")))


@pytest.mark.parametrize(("num_buckets", "max_distance"), [(32, 128), (8, 12), (5, 30)])
def test_an_encoder_has_a_half_of_the_buckets_for_each_side_as_in_t5(num_buckets, max_distance):
    t5 = pytest.importorskip("transformers.models.t5.modeling_t5")
    cfg = small_config(position="t5", **{"t5.num_buckets": num_buckets, "t5.max_distance": max_distance}, **READS)
    bias = Model(cfg).encoder.blocks[0].mixer.branch.distance_bias
    distance = torch.arange(-200, 200)
    expected = t5.T5Attention._relative_position_bucket(-distance, True, num_buckets, max_distance)
    assert torch.equal(bias.buckets(distance, causal=False), expected)


# ---- what cross-attention computes ----


def test_cross_attention_is_its_formula():
    part = small_model(**READS | {"attention.num_kv_heads": 2, "attention.scale": 0.7, "attention.v_bias": True,
                                  "qk_norm": "head"}).blocks[0].cross.branch
    x, source = torch.randn(2, 5, 24), torch.randn(2, 7, 24)

    def split(y: Tensor) -> Tensor:
        return y.unflatten(-1, (-1, 6)).transpose(1, 2)  # (b, heads, length, p)

    q, k = part.q_norm(split(x @ part.q.weight.T)), part.k_norm(split(source @ part.k.weight.T))
    v = split(source @ part.v.weight.T + part.v.bias)
    k, v = (y.repeat_interleave(2, dim=1) for y in (k, v))
    weights = (0.7 * q @ k.transpose(2, 3)).softmax(-1)
    expected = (weights @ v).transpose(1, 2).flatten(2) @ part.out.weight.T
    assert_close(part(x, Context(torch.arange(5), source=source)), expected, "same")


KINDS = {
    "t5": {"position": "t5"}, "alibi": {"position": "alibi"}, "rope, eager": {"attention.backend": "eager"},
    "latent": {"mixer": "latent"}, "windows, sinks": {"attention.window": 4, "attention.sinks": True},
    "learned, short convolutions": {"position": "learned", "canon": ("mixer", "mlp")},
    "attention over depth": {"residual": "attnres"}, "an indexer that chooses all": {"indexer.top_k": 9},
    "some layers": {"cross": "none", "layers": ("plain", "reads"), "num_layers": 4,
                    "kinds": {"plain": {}, "reads": {"cross": "attention"}}},
}
each_kind = pytest.mark.parametrize("flags", KINDS.values(), ids=KINDS)


@each_kind
def test_a_padded_source_equals_each_alone_and_its_padding_is_not_seen(flags):
    model, text = small_model(**READS | flags), small_tokens()
    source_tokens, places = small_tokens(2, 9, seed=4), torch.arange(9) - torch.tensor([[0], [5]])
    with torch.no_grad():
        source = model.encode(source_tokens, positions=places)
        together = model(text, source=source)
        other = source.states.masked_fill((places < 0).unsqueeze(-1), 7.0)
        assert torch.equal(model(text, source=source._replace(states=other)), together)
        for row, tokens in enumerate((source_tokens[:1], source_tokens[1:, 5:])):
            assert_close(together[row], model(text[row, None], source=model.encode(tokens))[0], "same")


@each_kind
def test_the_encoder_sees_both_sides_and_the_decoder_all_of_the_source(flags):
    model, text, tokens = small_model(**READS | flags), small_tokens(), small_tokens(2, 9, seed=4)
    with torch.no_grad():
        states, logits = (model.encode(tokens).states, model(text, source=model.encode(tokens)))
        for place in (0, 8):
            changed = tokens.clone()
            changed[:, place] = (tokens[:, place] + 1) % 37
            other = model.encode(changed)
            assert not torch.isclose(other.states, states).all(-1)[:, 5].any()  # within a window of 4 in three layers
            assert not torch.isclose(model(text, source=other), logits).all(-1).any()


@each_kind
def test_packed_documents_with_their_sources_equal_each_alone(flags):
    model, text, tokens = small_model(**READS | flags), small_tokens(), small_tokens(2, 9, seed=4)
    lengths, source_lengths = ([5, 8], [11, 2]), ([4, 5], [1, 8])
    documents, source_documents = (torch.stack([torch.arange(2).repeat_interleave(torch.tensor(row)) for row in rows])
                                   for rows in (lengths, source_lengths))
    with torch.no_grad():
        together = model(text, documents=documents, source=model.encode(tokens, documents=source_documents))
        for row in range(2):
            pairs = zip(text[row].split(lengths[row]), tokens[row].split(source_lengths[row]), strict=True)
            alone = [model(own[None], source=model.encode(theirs[None]))[0] for own, theirs in pairs]
            assert_close(together[row], torch.cat(alone), "same")


def test_a_document_without_a_source_takes_nothing_and_gives_no_nan():
    model, text = small_model(**READS, **{"attention.backend": "eager"}), small_tokens()
    documents = torch.tensor([0] * 9 + [1] * 4).expand(2, -1)  # e.g. padding at the end of a row
    logits = model(text, documents=documents, source=model.encode(text[:, :5], documents=documents[:, :5]))
    logits.square().sum().backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())
    layer = model.blocks[0].cross.branch
    given = []
    layer.out.register_forward_pre_hook(lambda _, args: given.append(args[0]))
    model(text, documents=documents, source=model.encode(text[:, :5], documents=documents[:, :5]))
    assert given[0][:, 9:].abs().max() == 0 < given[0][:, :9].abs().min()


# ---- the cache ----


def test_the_source_is_read_once_and_rows_leave_with_their_sources():
    model, text = small_model(**READS), small_tokens(3, 6)
    tokens, places = small_tokens(3, 9, seed=4), torch.arange(9) - torch.tensor([[0], [5], [2]])
    calls = []
    model.blocks[1].cross.branch.k.register_forward_hook(lambda *_: calls.append(1))
    with torch.no_grad():
        source, cache = model.encode(tokens, positions=places), model.make_cache(6)
        expected, calls[:] = model(text, source=source), []
        first = model(text[:, :3], source=source, cache=cache)
        cache.keep_rows([2, 1], padding=0)
        rest = [Model.forward(model, piece, cache=cache) for piece in text[[2, 1], 3:].split(1, dim=1)]
    assert len(calls) == 1
    assert_close(first, expected[:, :3], "same")
    assert_close(torch.cat(rest, dim=1), expected[[2, 1], 3:], "same")


def test_a_source_is_given_exactly_if_it_is_read():
    reads, plain, text = Model(small_config(**READS)), Model(small_config()), small_tokens()
    alone = Model(small_config(cross="attention"))
    source = Source(torch.randn(2, 7, 24))
    assert alone(text, source=source).isfinite().all()
    cache = reads.make_cache(13)
    reads(text[:, :1], source=source, cache=cache)
    for call, sentence in (
            (lambda: reads(text), "model.cross=attention reads a source, and none is given"),
            (lambda: plain(text, source=source), "no layer has model.cross=attention to read it"),
            (lambda: reads(text[:, :1], source=source, cache=cache), "the cache holds one"),
            (lambda: alone.encode(text), "model.encoder_layers=None: this model has no encoder"),
            (lambda: reads(text, source=reads.encode(text, documents=text)), "a source with documents is for packed")):
        with pytest.raises(ValueError, match=sentence):
            call()


# ---- flags, sizes, what is printed ----


@pytest.mark.parametrize(("flags", "sentence"), [
    ({"encoder_layers": 2}, "encoder_layers=2 would change nothing: it acts only when cross is attention in a layer"),
    (READS | {"encoder_layers": 0}, "encoder_layers=0 must be above 0"),
    (READS | {"kinds": {"x": {"encoder_layers": 2}}, "layers": ("x",)}, "kinds.x.encoder_layers would change nothing"),
    (READS | {"position": "t5", "t5.num_buckets": 3}, "encoder_layers=3 with t5.num_buckets=3: an encoder has half"),
    (READS | {"encoder_layers": 1, "attention.value_residual": "fixed"}, "encoder_layers=1: in the encoder attention"),
    ({"cross": "attention", "mixer": "none", "attention.window": 3}, "attention.window=3 would change nothing"),
    ({"cross": "attention", "mixer": "none", "attention.share_kv": True}, "share_kv=True would change nothing"),
    ({"cross": "attention", "mixer": "none", "attention.num_heads": 5}, "num_heads=5 does not divide dim=24"),
])
def test_flags_that_do_not_fit_are_refused_by_name(flags, sentence):
    with pytest.raises(ValueError, match=sentence):
        small_config(**flags)


def test_the_layers_of_the_encoder_are_those_of_the_decoder_without_the_source():
    cfg = small_config(**READS | {"layers": ("local", "global"), "num_layers": 4, "kinds": {
        "local": {"attention.window": 3}, "global": {"cross": "none", "mlp": "glu"}}})
    model = Model(cfg)
    assert [block.branches for block in model.blocks] == [("mixer", "cross", "mlp"), ("mixer", "mlp")] * 2
    assert [block.branches for block in model.encoder.blocks] == [("mixer", "mlp")] * 3
    assert [block.mixer.branch.pattern.window for block in model.encoder.blocks] == [3, None, 3]
    assert cfg.encoder.at(2).index == 2 and cfg.encoder.at(2).model.num_layers == 3 and cfg.encoder.encoder is None
    assert "(encoder): Encoder(" in str(model) and "local: attention.window=3" in str(model)


def test_parameters_flops_and_the_cache_are_counted_with_the_encoder():
    cfg, plain = small_config(**READS, mlp_bias=True), small_config(mlp_bias=True)
    model, d, t = Model(cfg), 24, 16
    block = sum(p.numel() for p in model.encoder.blocks[0].parameters())
    cross = 4 * d * d + d
    assert model.num_parameters() == Model(plain).num_parameters() + 3 * block + d + 2 * cross
    layer = 2 * t * (4 * d * d + 2 * 4 * d * d) + 4 * t * t * d  # matrices, then scores and their values
    reading = 2 * t * 4 * d * d + 4 * t * t * d
    assert flops_of(cfg, t, objective="seq2seq") - flops_of(plain, t) == 3 * (3 * layer + 2 * reading) / t
    assert gallery.source_bytes(cfg) == 2 * 2 * 2 * d  # keys and values of two layers in bfloat16
    sizes = [sequence_bytes(override(Config(), {"model": flat(model)})) for model in (cfg, plain)]
    assert sizes[0] - sizes[1] == 2 * gallery.source_bytes(cfg) * t  # in float32
    assert gallery.cache_bytes(cfg) == gallery.cache_bytes(plain)


def test_the_experts_of_an_encoder_are_not_all_active():
    cfg = override(Config(), {"model": flat(small_config(**READS | {"mlp": "moe", "num_layers": 4}))})
    assert gallery.num_parameters(cfg) == (
        figures.num_parameters(cfg.model), figures.num_active_parameters(cfg.model))


def test_each_stack_starts_by_its_own_depth_and_has_columns_of_its_own():
    cfg = small_config(**READS | {"out_init": "depth", "dim": 96, "num_layers": 2, "encoder_layers": 8})
    model = Model(cfg)
    stds = [stack[0].mlp.branch.out.weight.std().item() for stack in (model.blocks, model.encoder.blocks)]
    assert stds == pytest.approx([0.02 * 4**-0.5, 0.02 * 16**-0.5], rel=0.05)
    assert {name.split(".")[0] for name in layer_norms(model)} == {"embed", "encoder", "blocks", "norm", "head"}
    assert {"encoder.blocks.7", "encoder.norm", "blocks.1"} <= layer_norms(model).keys()


def test_the_losses_of_an_encoders_experts_are_in_the_total():
    flags = {"mlp": "moe", "moe.balance_loss": 0.1}
    model = randomise(Model(small_config(**READS | flags)))
    batch = Batch(small_tokens(), small_tokens(seed=1), None, 26)
    losses = Translate(model)(batch)
    source = model.encode(batch.x.flip(1))
    decoder = model.read(batch.x, source=source._replace(losses={})).losses["balance"]
    assert source.losses["balance"] > 0
    assert_close(losses.parts["balance"], (decoder + source.losses["balance"]).detach(), "rounding")
    losses.total.backward()
    assert model.encoder.blocks[0].mlp.branch.router.logits.weight.grad.abs().max() > 0


def test_a_trace_calls_the_source_s_and_finds_nothing_wrong():
    model = small_model(**READS)
    with torch.no_grad(), trace(model) as t:
        Model.forward(model, small_tokens(), source=one_source(model, 2))
    assert not [call.problem for call in t.walk() if call.problem]
    reads = [call for call in t.walk() if call.path == "blocks.0.cross.branch"]
    shapes = {call.method: [dict(zip(v.labels, v.shape, strict=True)) for v in call.outputs] for call in reads}
    assert shapes["ask"] == [{"b": 2, "h": 4, "t": 13, "p": 6}]
    assert shapes["read_source"] == [{"b": 2, "g": 4, "s": 7, "p": 6}] * 2
    k = next(call for call in t.walk() if call.path == "blocks.0.cross.branch.k")
    assert k.outputs[0].labels[:2] == ("b", "s")
    assert axis_sizes(small_config(mixer="none", cross="attention"))["h"] == 4


def test_alibi_is_the_same_on_both_sides():
    bias = ALiBi(4)(torch.arange(7), torch.arange(7), causal=False)
    assert torch.equal(bias, bias.transpose(1, 2)) and bias.max() == 0


def test_a_model_that_reads_a_source_is_no_run_of_an_objective_without_one():
    cfg = override(Config(), {"model": {"cross": "attention", "vocab_size": 61}})
    for check in (check_run, predict):
        with pytest.raises(ValueError, match="train.objective=next_token gives no source, which a layer with "
                                             "model.cross=attention reads"):
            check(cfg)


@pytest.mark.parametrize(("program", "words", "status", "said"), [
    (train.main, "t5 --scale 1M", 2, "error: train.objective=next_token gives no source"),
    (command.main, "t5 --scale 1M", 0, "CrossAttention"),
    (gallery_commands.main, "show t5", 0, "x + cross-attention(norm(x))  cross-attention: 12 heads of 64, scale=1"),
], ids=["train.py", "model.py", "presets.py"])
def test_the_programs_show_t5_and_do_not_train_it(program, words, status, said, call):
    ended, output, errors = call(program, *words.split())
    assert ended == status and said in output + errors and errors.count("\n") == (status > 0)
