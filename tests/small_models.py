"""Small reference architectures, some with marks and some without, to look at with trace()."""

import torch
from einops import einsum, rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from tools import LoggingModule, log_io

VOCAB = 97


class Attention(LoggingModule):
    """Every axis declared; scores spelled out; any number of key/value heads."""

    def __init__(self, d: int, h: int, g: int, p: int, rope: bool = False):
        super().__init__()
        self.h, self.g, self.rope = h, g, rope
        self.q, self.k = nn.Linear(d, h * p), nn.Linear(d, g * p)
        self.v, self.out = nn.Linear(d, g * p), nn.Linear(h * p, d)

    @log_io("b t d -> b h t p, b g s p, b g s p", name="queries, keys, values")
    def project(self, x: Tensor):
        q = rearrange(self.q(x), "b t (h p) -> b h t p", h=self.h)
        k, v = (rearrange(y(x), "b s (g p) -> b g s p", g=self.g) for y in (self.k, self.v))
        return q, k, v

    @log_io("b h t p, t p -> b h t p")
    def rotate(self, q: Tensor, angles: Tensor):
        a, b = q.chunk(2, -1)
        return q * angles.cos() + torch.cat([-b, a], -1) * angles.sin()

    @log_io("b h t p, b g s p -> b h t s")
    def scores(self, q: Tensor, k: Tensor):
        k = k.repeat_interleave(self.h // self.g, 1)
        scores = einsum(q, k, "b h t p, b h s p -> b h t s") * q.shape[-1] ** -0.5
        mask = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)
        return scores.masked_fill(mask, float("-inf"))

    @log_io("b h t s, b g s p -> b t (h p)")
    def mix(self, scores: Tensor, v: Tensor):
        v = v.repeat_interleave(self.h // self.g, 1)
        return rearrange(scores.softmax(-1) @ v, "b h t p -> b t (h p)")

    @log_io("b t d -> b t d")
    def forward(self, x: Tensor):
        q, k, v = self.project(x)
        if self.rope:
            t, p = x.shape[1], q.shape[-1]
            q = self.rotate(q, torch.arange(t)[:, None] * torch.ones(p))
        return self.out(self.mix(self.scores(q, k), v))


class MLP(LoggingModule):
    def __init__(self, d: int, f: int, act: type[nn.Module] = nn.GELU):
        super().__init__()
        self.up, self.act, self.down = nn.Linear(d, f), act(), nn.Linear(f, d)

    @log_io("... d -> ... d")
    def forward(self, x: Tensor):
        return self.down(self.act(self.up(x)))


class MoE(LoggingModule):
    """As many tokens for an expert as choose it: nonzero gives sizes that depend on the data."""

    def __init__(self, d: int, f: int, e: int, top_k: int = 2):
        super().__init__()
        self.router, self.top_k = nn.Linear(d, e), top_k
        self.experts = nn.ModuleList(MLP(d, f) for _ in range(e))

    @log_io("b t d -> b t d")
    def forward(self, x: Tensor):
        weights, chosen = self.router(x).softmax(-1).topk(self.top_k)
        flat, out = x.flatten(0, 1), torch.zeros_like(x.flatten(0, 1))
        for i, expert in enumerate(self.experts):
            token, slot = (chosen.flatten(0, 1) == i).nonzero(as_tuple=True)
            out[token] += expert(flat[token]) * weights.flatten(0, 1)[token, slot, None]
        return out.view_as(x)


class Scan(LoggingModule):
    """Mamba-like: a state of n numbers for each channel, carried through time."""

    def __init__(self, d: int, n: int):
        super().__init__()
        self.gates, self.out = nn.Linear(d, 2 * n), nn.Linear(d, d)
        self.decay = nn.Parameter(torch.randn(d, n))

    @log_io("b d n, b d, b n -> b d n")
    def step(self, state: Tensor, x: Tensor, write: Tensor):
        return state * torch.sigmoid(self.decay) + x[..., None] * write[:, None]

    @log_io("b t d -> b t d")
    def forward(self, x: Tensor):
        write, read = self.gates(x).chunk(2, -1)
        state, ys = x.new_zeros(x.shape[0], x.shape[2], write.shape[-1]), []
        for i in range(x.shape[1]):
            state = self.step(state, x[:, i], write[:, i])
            ys.append(einsum(state, read[:, i], "b d n, b n -> b d"))
        return self.out(torch.stack(ys, 1))


class ConvMixer(nn.Module):
    """A causal depthwise convolution; nothing is marked."""

    def __init__(self, d: int, width: int = 4):
        super().__init__()
        self.conv = nn.Conv1d(d, d, width, groups=d, padding=width - 1)

    def forward(self, x: Tensor):
        return self.conv(x.transpose(1, 2))[..., : x.shape[1]].transpose(1, 2)


class Block(LoggingModule):
    def __init__(self, d: int, mixer: nn.Module, mlp: nn.Module):
        super().__init__()
        self.norm1, self.mixer, self.norm2, self.mlp = nn.LayerNorm(d), mixer, nn.LayerNorm(d), mlp

    @log_io("b t d -> b t d")
    def forward(self, x: Tensor):
        x = x + self.mixer(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class Net(LoggingModule):
    """Embedding, blocks, norm, head; its letters in `sizes`."""

    def __init__(self, blocks: list[nn.Module], d: int, sizes: dict[str, int], tie: bool = False):
        super().__init__()
        self.embed = nn.Embedding(VOCAB, d)
        self.blocks = nn.ModuleList(blocks)
        self.norm, self.head = nn.LayerNorm(d), nn.Linear(d, VOCAB, bias=False)
        if tie:
            self.head.weight = self.embed.weight
        self.sizes = {"d": d, "v": VOCAB} | sizes

    def dims(self) -> dict[str, int]:
        return self.sizes

    @log_io("b t -> b t v")
    def forward(self, tokens: Tensor):
        x = self.embed(tokens)
        for block in self.blocks:
            x = block(x)
        logits = self.head(self.norm(x))
        return logits


def gpt(layers: int = 2, d: int = 48, tie: bool = False, act: type[nn.Module] = nn.GELU) -> Net:
    h, p, f = 4, d // 4, 4 * d
    blocks = [Block(d, Attention(d, h, h, p), MLP(d, f, act)) for _ in range(layers)]
    return Net(blocks, d, {"h": h, "g": h, "p": p, "f": f}, tie)


def llama(layers: int = 2) -> Net:
    blocks = [Block(48, Attention(48, 6, 2, 8, rope=True), MLP(48, 112, nn.SiLU)) for _ in range(layers)]
    return Net(blocks, 48, {"h": 6, "g": 2, "p": 8, "f": 112})


def mqa(layers: int = 2) -> Net:
    blocks = [Block(40, Attention(40, 5, 1, 8, rope=True), MLP(40, 96)) for _ in range(layers)]
    return Net(blocks, 40, {"h": 5, "g": 1, "p": 8, "f": 96})


def moe(layers: int = 2) -> Net:
    blocks = [Block(48, Attention(48, 4, 4, 12), MoE(48, 32, 6)) for _ in range(layers)]
    return Net(blocks, 48, {"h": 4, "g": 4, "p": 12, "f": 32, "e": 6})


def mamba(layers: int = 2) -> Net:
    blocks = [Block(48, Scan(48, 10), MLP(48, 64)) for _ in range(layers)]
    return Net(blocks, 48, {"n": 10, "f": 64})


def conv(layers: int = 2) -> Net:
    blocks = [Block(48, ConvMixer(48), MLP(48, 64)) for _ in range(layers)]
    return Net(blocks, 48, {"f": 64})


MODELS = {"gpt": gpt, "llama": llama, "mqa": mqa, "moe": moe, "mamba": mamba, "conv": conv}


class Tower(nn.Module):
    """One linear map and SDPA, without any mark: what a stranger's code looks like."""

    def __init__(self, d: int = 16, h: int = 2):
        super().__init__()
        self.qkv, self.out, self.h = nn.Linear(d, 3 * d), nn.Linear(d, d), h

    def forward(self, x: Tensor):
        q, k, v = rearrange(self.qkv(x), "b t (three h p) -> three b h t p", three=3, h=self.h)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.out(rearrange(y, "b h t p -> b t (h p)"))


def tokens(b: int = 3, t: int = 7) -> Tensor:
    return torch.randint(VOCAB, (b, t), generator=torch.Generator().manual_seed(0))
