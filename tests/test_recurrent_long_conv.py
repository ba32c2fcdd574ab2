"""Convolutions over a whole text equal their sums, written plainly; so do Hyena and free kernels: values and gradients.
"""

import math

import pytest
import torch
from helpers import assert_close, flops_of, randomise, small_config, small_model, small_tokens
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from config import Config
from memory_prediction.dry_run import sequence_bytes
from modules.mixers import MIXERS
from modules.mixers.long_conv import PastState
from modules.scans import convolution, long_conv
from modules.stream import Context
from optim import parameter_groups, roles
from showing.gallery import cache_bytes
from tools import shapes, trace

B, D = 2, 3
WORDS = ("hyena", "long_conv")
each_word = pytest.mark.parametrize("word", WORDS)


def drawn(*sizes: int, seed: int = 0) -> Tensor:
    return torch.randn(*sizes, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def plain(u: Tensor, kernel: Tensor, past: Tensor | None = None, runs: Tensor | None = None) -> Tensor:
    """The sum over each earlier token, one by one."""
    before = 0 if past is None else past.shape[1]
    x, found = u if past is None else torch.cat((past, u), dim=1), []
    for t in range(before, x.shape[1]):
        y = torch.zeros_like(x[:, 0])
        for s in range(max(0, t - kernel.shape[1] + 1), t + 1):
            same = 1.0 if runs is None else (runs[:, t] == runs[:, s]).double().unsqueeze(-1)
            y = y + kernel[:, t - s] * x[:, s] * same
        found.append(y)
    return torch.stack(found, dim=1)


def with_gradients(call, *given: Tensor) -> list[Tensor]:
    given = [x.clone().requires_grad_() for x in given]
    y = call(*given)
    return [y.detach(), *torch.autograd.grad((y * drawn(*y.shape, seed=1)).sum(), given)]


@pytest.fixture
def short_chunks(monkeypatch):
    """Chunks of 4 tokens, matrices from 4 to 4 and transforms from 8 on, so that short rows have all of them."""
    monkeypatch.setattr(convolution, "CHUNK", 4)
    monkeypatch.setattr(convolution, "PAIRS", 16)


@pytest.mark.parametrize(("t", "n"), [(1, 9), (2, 1), (4, 6), (5, 2), (17, 17), (30, 20)])
def test_a_convolution_equals_its_sums_also_after_others_and_in_packed_rows(short_chunks, t, n):
    u, kernel, past = drawn(B, t, D), drawn(D, n), drawn(B, 11, D, seed=2)
    runs = torch.tensor([[0.1], [0.4]]).expand(B, t).bernoulli(generator=torch.Generator().manual_seed(3)).cumsum(1)
    for call in (lambda f, u, k, p: f(u, k), lambda f, u, k, p: f(u, k, p), lambda f, u, k, p: f(u, k, runs=runs)):
        found, expected = (with_gradients(lambda *x, f=f, call=call: call(f, *x) + 0 * x[2].sum(), u, kernel, past)
                           for f in (long_conv, plain))
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("t", [31, 32, 33, 290])
def test_a_convolution_is_that_of_torch(t):
    def theirs(u: Tensor, kernel: Tensor) -> Tensor:
        x = F.pad(u.transpose(1, 2), (249, 0))
        return F.conv1d(x, kernel.flip(1).unsqueeze(1), groups=D).transpose(1, 2)

    given = drawn(B, t, D), drawn(D, 250)
    torch.testing.assert_close(with_gradients(long_conv, *given), with_gradients(theirs, *given), rtol=1e-9, atol=1e-10)


def test_a_token_changes_no_bit_before_it_nor_in_another_document():
    u, kernel = drawn(B, 290, D).float(), drawn(D, 290).float()
    runs = torch.zeros(B, 290, dtype=torch.int64)
    runs[:, 100:], runs[:, 230:] = 1, 2
    for place in (3, 64, 129, 200):
        other = u.clone()
        other[:, place] += 1
        assert torch.equal(long_conv(other, kernel)[:, :place], long_conv(u, kernel)[:, :place])
        changed = (long_conv(other, kernel, runs=runs) != long_conv(u, kernel, runs=runs)).any(-1)
        assert not changed[runs != runs[0, place]].any() and changed[:, place].all()


def test_pieces_equal_one_pass_and_float32_loses_few_digits():
    u, kernel = drawn(B, 290, D), drawn(D, 290)
    expected, found = long_conv(u, kernel), []
    for piece in u.split([70, 1, 150, 69], dim=1):
        past = u[:, :sum(y.shape[1] for y in found)]
        found.append(long_conv(piece, kernel, past))
    torch.testing.assert_close(torch.cat(found, dim=1), expected, rtol=1e-10, atol=1e-10)
    found = long_conv(u.float(), kernel.float())
    assert found.dtype == torch.float32 and (found - expected).abs().max() < 3e-7 * 290  # terms in a sum
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(long_conv(u.float(), kernel.float()), found)


def test_a_convolution_is_a_few_operations_for_meta_tensors_and_the_compiler(short_chunks):
    given, runs = [drawn(B, 9, D), drawn(D, 9)], (torch.arange(9) // 4).expand(B, -1)
    assert long_conv(*(x.to("meta") for x in given), runs=runs.to("meta")).shape == (B, 9, D)
    torch._dynamo.reset()
    compiled = torch.compile(long_conv, backend="aot_eager", fullgraph=True)
    found, expected = (with_gradients(lambda u, k, call=call: call(u, k, runs=runs), *given)
                       for call in (compiled, long_conv))
    assert_close(found, expected, "rounding")


def test_operations_of_matrices_and_transforms_are_counted():
    u, kernel = drawn(B, 130, D).float(), drawn(D, 130).float()
    with FlopCounterMode(display=False) as counter:
        long_conv(u, kernel)
    matrices = 2 * B * D * (5 * 32 * 32 + 2 * 32 * 32 + 64 * 64)  # within 5 chunks, in 2 pairs of them, in one of 64
    a_transform = round(2.5 * 256 * math.log2(256))
    counts = counter.get_flop_counts()["Global"]
    transforms = {name: number for name, number in counts.items() if "fft" in str(name)}
    assert sum(transforms.values()) == (D + 2 * B * D) * a_transform  # the kernel; what is given, and what comes out
    assert sum(counts.values()) - sum(transforms.values()) == matrices
    few, many = (flops_of(small_config(mixer="hyena", num_layers=1, mlp="none"), t) for t in (512, 4096))
    assert few < many < 1.5 * few  # for each token


def made(word: str, **flags) -> tuple[nn.Module, Tensor]:
    """A mixer of texts of 16 tokens with random weights in float64, and longer ones."""
    cfg = small_config(mixer=word, **{f"{word}.{name}": value for name, value in flags.items()})
    mixer = randomise(MIXERS[word].from_config(cfg.at(0)), std=0.5).double()
    return mixer, drawn(B, 19, cfg.dim, seed=4)


def hyena(m: nn.Module, x: Tensor) -> Tensor:
    """With loops over channels and distances."""
    own, rows = m.kernel, []
    for i in range(16):
        turns = [1e-4 + band * (own.bands - 1 - 1e-4) / max(1, own.bands - 1) for band in range(own.bands)]
        angles = torch.tensor([2 * math.pi * f * i / 16 for f in turns], dtype=x.dtype)
        z = torch.cat((torch.tensor([i / 15], dtype=x.dtype), angles.cos(), -angles.sin()))
        for layer in own.layers:
            z = torch.sin(own.frequency * (layer.weight @ z + layer.bias))
        deltas = [math.log(0.01) / 1.5 + c / 23 * (math.log(0.01) / 0.3 - math.log(0.01) / 1.5) for c in range(24)]
        rows.append((own.last.weight @ z) * torch.tensor([math.exp(-i / 15 * abs(d)) for d in deltas], dtype=x.dtype))
    read = torch.cat([F.linear(x, part.weight, part.bias) for part in (m.in_gate, m.out_gate, m.value)], dim=-1)
    read = torch.stack([m.conv.bias + sum(m.conv.weight[i] * read[:, t - i] for i in range(min(m.conv.length, t + 1)))
                        for t in range(x.shape[1])], dim=1)
    in_gate, out_gate, value = read.split(24, dim=-1)
    u = in_gate * value
    return F.linear(out_gate * (plain(u, torch.stack(rows, dim=1)) + m.skip * u), m.out.weight, m.out.bias)


def free(m: nn.Module, x: Tensor) -> Tensor:
    kernel = torch.where(m.kernel.abs() > m.threshold, m.kernel - m.threshold * m.kernel.sign(), 0.0)
    y = F.gelu(plain(x, kernel) + m.skip * x)
    return F.linear(y, m.out.weight, m.out.bias) * F.linear(y, m.gate.weight, m.gate.bias).sigmoid()


@pytest.mark.parametrize(("word", "formula", "flags"), [
    ("hyena", hyena, {}), ("hyena", hyena, {"bands": 1, "filter_layers": 1, "filter_dim": 5, "conv_len": 2}),
    ("long_conv", free, {"threshold": 0.2})])
def test_a_mixer_equals_its_formula_also_in_texts_longer_than_its_kernel(word, formula, flags):
    mixer, x = made(word, **flags)

    def results(call) -> list[Tensor]:
        given = x.clone().requires_grad_()
        y = call(given)
        return [y, *torch.autograd.grad((y * drawn(*y.shape, seed=5)).sum(), [given, *mixer.parameters()])]

    found, expected = results(lambda u: mixer(u, Context(torch.arange(19)))), results(lambda u: formula(mixer, u))
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


@each_word
def test_a_token_reads_as_many_as_the_kernel_has_numbers_with_and_without_a_cache(word):
    model = small_model(mixer=word, num_layers=1, max_seq_len=5, **({
        "hyena.conv_len": 1, "hyena.fast_decay": 9.0, "hyena.slow_decay": 9.0} if word == "hyena" else {}))
    tokens, cache = small_tokens(t=40), model.make_cache(40)
    other = tokens.clone()
    other[:, 20] = (tokens[:, 20] + 1) % 37
    with torch.no_grad():
        logits, changed = model(tokens), model(other)
        pieces = [model(piece, cache=cache) for piece in tokens.split([17, 1, 20, 2], dim=1)]
    assert_close(torch.cat(pieces, dim=1), logits, "same")
    seen = (logits - changed).abs().amax((0, 2)) > 1e-5
    assert seen.nonzero().flatten().tolist() == [20, 21, 22, 23, 24]


def test_kernels_and_skips_start_as_published():
    cfg = small_config(mixer="hyena", dim=192, max_seq_len=64).at(0)
    torch.manual_seed(0)
    mixer, distances = MIXERS["hyena"].from_config(cfg), torch.arange(64.0)
    window = mixer.kernel.window(distances)
    assert_close(window[:, 0], 0.01 ** (distances / 63 / 1.5), "rounding")
    assert_close(window[:, -1], 0.01 ** (distances / 63 / 0.3), "rounding")
    assert_close((window[1].log()[2:] - window[1].log()[1:-1]), (window[1, 1] / window[1, 0]).log().expand(190), "same")
    assert (mixer.kernel.frequency == 14).all() and mixer.kernel.features(distances).shape == (64, 33)
    assert all(abs(layer.weight.std() - 0.02) < 0.002 for layer in (*mixer.kernel.layers, mixer.kernel.last))
    assert all((layer.bias == 0).all() for layer in mixer.kernel.layers)
    assert abs(mixer.skip.std() - 1) < 0.2
    free = MIXERS["long_conv"].from_config(small_config(mixer="long_conv", dim=192, max_seq_len=64).at(0))
    assert abs(free.kernel[:, 0].std() / 0.02 - 1) < 0.2 and abs(free.skip.std() - 1) < 0.2
    places = torch.arange(64) / 64
    for channel in (0, 100):
        fall = torch.exp(-(96.0 ** (channel / 192)) * places)
        assert 0.7 < (free.kernel[channel:channel + 8] / fall).std() / 0.02 < 1.5


@each_word
def test_kernels_are_vectors_for_an_optimizer_and_not_decayed(word):
    model = small_model(mixer=word)
    of_kernel = {name for name, role in roles(model).items() if role == "vector"}
    assert of_kernel >= {name for name, _ in model.named_parameters() if "kernel" in name or "skip" in name}
    assert parameter_groups(model, Config().train)["vectors"]["weight_decay"] == 0
    names = {name.split("branch.")[1] for name in roles(model) if "branch." in name and "mlp" not in name}
    expected = {"long_conv": {"kernel"}, "hyena": {
        "kernel.frequency", "kernel.last.weight", *(f"kernel.layers.{i}.{part}" for i in range(3)
                                                    for part in ("weight", "bias"))}}
    assert {name for name in names if name.startswith("kernel")} == expected[word]


@each_word
def test_the_cache_grows_by_a_vector_a_token_and_makes_its_kernel_once(word):
    model, tokens = small_model(mixer=word, num_layers=1), small_tokens(t=16)
    cache, mixer = model.make_cache(16), model.blocks[0]["mixer"].branch
    with torch.no_grad():
        model(tokens[:, :9], cache=cache)
        state = cache.layers[0]["mixer"]
        kernel, inputs = state.kernel, state.inputs
        model(tokens[:, 9:], cache=cache)
    assert isinstance(state, PastState) and state.kernel is kernel and state.inputs is inputs
    assert (state.length, inputs.shape, kernel.shape) == (16, (2, 16, 24), (24, 16))
    assert_close(kernel[:, :7], mixer.kernel_for(7, None), "rounding")
    with torch.autocast("cpu", torch.bfloat16):
        assert_close(mixer.kernel_for(16, None), kernel, "rounding")
    with torch.no_grad(), pytest.raises(ValueError, match="the cache holds 16 tokens, not 17"):
        model(tokens[:, :1], cache=cache)
    growth, fixed = cache_bytes(small_config(mixer=word, num_layers=3, pointer=True))
    assert (growth, fixed) == (2 * 64 + 3 * 2 * 24, 3 * 2 * (2 * 72 if word == "hyena" else 0))
    assert cache_bytes(small_config(beside=word))[0] == 2 * 2 * (24 + 2 * 24)  # and keys and values
    kept = sequence_bytes(Config(model=small_config(mixer=word, num_layers=1)))
    assert kept - 4 * 2 * 16 * 24 in range(0, 4 * 200)  # inputs and kernel; the convolution's, and positions


def test_a_trace_finds_nothing_wrong():
    model = small_model(layers=WORDS)
    with torch.no_grad(), trace(model) as traced:
        model(small_tokens(1, 13))
    assert "convolve" in str(traced) and not [call.problem for call in traced.walk() if call.problem]


@pytest.mark.slow
def test_shapes_are_found_with_symbols_for_sizes():
    assert not [call.problem for call in shapes(small_model(layers=WORDS)).walk() if call.problem]


@pytest.mark.parametrize(("flags", "sentence"), [
    ({"hyena.fast_decay": 2.0}, "fast_decay=2.0 is slower than slow_decay=1.5"),
    ({"hyena.bands": 0}, "bands=0 must be above 0"), ({"hyena.filter_layers": -1}, "filter_layers=-1 is below 0"),
    ({"long_conv.threshold": -0.1, "mixer": "long_conv"}, "threshold=-0.1 is below 0"),
    ({"long_conv.threshold": 0.1}, "long_conv.threshold=0.1 would change nothing: it acts only when a layer has")])
def test_impossible_numbers_are_refused(flags, sentence):
    with pytest.raises(ValueError, match=sentence):
        small_config(**{"mixer": "hyena"} | flags)
