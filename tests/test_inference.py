"""Texts are drawn as they should be, whatever stands beside them; scores are exact; the command line."""

import io
import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from helpers import assert_close, loss_of, randomise, small_config, small_model
from small_runs import DATA
from thorough import some

import inference
import runs
from config import Config, SampleConfig, flat, from_dict, replace
from generation.sampling import distribution, generate, stream
from inference import score, write_texts
from model import Model
from objective import Objective
from presets import tiny
from runs import Progress, Run
from tokenizer import ByteTokenizer, load_tokenizer

EOS = 2
PROMPTS = [[1, 5, 9], [1], [3, 3, 7, 8, 9, 30, 31], list(range(1, 16)), list(range(4, 30))]
KINDS = {
    "rope": {}, "learned": {"position": "learned"}, "sinusoidal": {"position": "sinusoidal"},
    "alibi": {"position": "alibi"}, "attention.window": {"layers": ("local", "global"),
                                                         "kinds": {"local": {"attention.window": 5}, "global": {}}},
                                                         "softcap": {"attention.softcap": 2.0},
    "no attention": {"mixer": "none"}, "shared heads": {"attention.num_kv_heads": 2}, "pointer": {"pointer": True},
}
each_kind = pytest.mark.parametrize("flags", KINDS.values(), ids=KINDS)


def sample_config(**flags) -> SampleConfig:
    return SampleConfig(**{"max_new_tokens": 40, "temperature": 1.0, "stop_at_eos": False} | flags)


def small_writer(**flags) -> Model:
    """A small model whose next token depends on what stood before, so that a slip shows."""
    return randomise(small_model(**flags), std=0.4)


# ---- generation ----


@each_kind
@pytest.mark.parametrize("temperature", some([1.0, 0.0], 2))
def test_a_batch_equals_each_alone_past_the_limit_too(flags, temperature):
    model, cfg = small_writer(**flags), sample_config(temperature=temperature, stop_at_eos=True)
    together = generate(model, PROMPTS, cfg, eos_id=EOS)
    assert together == [generate(model, [prompt], cfg, eos_id=EOS)[0] for prompt in PROMPTS]
    assert together[::-1] == generate(model, PROMPTS[::-1], cfg, eos_id=EOS)


@each_kind
def test_the_cache_changes_nothing(flags):
    model, cfg = small_writer(**flags), sample_config()
    cached = generate(model, PROMPTS, cfg, eos_id=EOS)
    assert cached == generate(model, PROMPTS, cfg, eos_id=EOS, use_cache=False)
    assert len(cached[0]) == 40


@pytest.mark.parametrize("prompt", [[1], list(range(1, 17)), list(range(1, 18)), list(range(1, 37))], ids=len)
def test_past_the_limit_a_text_goes_on_from_its_last_half(prompt):
    model, seen, expected = small_writer(position="learned"), list(prompt), []
    for _ in range(40):
        if len(seen) > 16:
            seen = seen[-8:]
        with torch.no_grad():
            expected.append(model(torch.tensor([seen]))[0, -1].argmax().item())
        seen.append(expected[-1])
    assert generate(model, [prompt], sample_config(temperature=0.0), eos_id=EOS) == [expected]


def test_a_model_of_one_token_generates():
    model = small_writer(max_seq_len=1)
    assert len(generate(model, [[1, 5]], sample_config(), eos_id=EOS)[0]) == 40


def test_the_cache_is_read_one_token_at_a_time():
    model, lengths = small_writer(max_seq_len=64), []
    model.register_forward_pre_hook(lambda model, args: lengths.append(args[0].shape[1]))
    generate(model, [[1, 5, 9], [1]], sample_config(max_new_tokens=6), eos_id=EOS)
    assert lengths == [3, 1, 1, 1, 1, 1]


def test_a_finished_text_leaves_the_batch():
    model, sizes = small_writer(max_seq_len=64), []
    model.register_forward_pre_hook(lambda model, args: sizes.append(args[0].shape[0]))
    new = generate(model, PROMPTS, sample_config(stop_at_eos=True), eos_id=EOS)
    assert len({len(tokens) for tokens in new}) > 1
    assert sizes == [sum(len(tokens) > step for tokens in new) for step in range(max(map(len, new)))]


@each_kind
@pytest.mark.parametrize("seed", some(range(2), 2))
def test_texts_that_end_early_change_nothing_and_have_nothing_read_again(flags, seed):
    model, cfg = small_writer(max_seq_len=64, head_bias=True, **flags), sample_config(stop_at_eos=True, seed=seed)
    torch.nn.init.constant_(model.head.unembed.bias[EOS], 2.0)
    prompts = [[token] * length for length in (1, 7, 12) for token in range(3, 8)]
    alone = [generate(model, [prompt], cfg, eos_id=EOS)[0] for prompt in prompts]
    lengths = []
    model.register_forward_pre_hook(lambda model, args: lengths.append(args[0].shape[1]))
    assert generate(model, prompts, cfg, eos_id=EOS) == alone
    assert lengths == [12] + [1] * (max(map(len, alone)) - 1)


def test_a_text_ends_at_its_end_token_only_where_it_should():
    model, free = small_writer(), sample_config(max_new_tokens=200)
    (long,) = generate(model, [[1]], free, eos_id=EOS)
    (short,) = generate(model, [[1]], replace(free, stop_at_eos=True), eos_id=EOS)
    assert EOS in long[:-1]
    assert len(long) == 200
    assert short == long[: long.index(EOS) + 1]


def test_the_same_prompt_twice_gives_two_texts_and_a_seed_gives_the_same_again():
    model, cfg = small_writer(), sample_config()
    first, second, other = generate(model, [[1, 5], [1, 5], [1, 6]], cfg, eos_id=EOS)
    assert first != second
    assert [first, second] == generate(model, [[1, 5], [1, 5]], cfg, eos_id=EOS)
    assert [first] != generate(model, [[1, 5]], replace(cfg, seed=1), eos_id=EOS)
    assert [other] == generate(model, [[1, 6]], cfg, eos_id=EOS)


def test_draws_follow_the_distribution():
    model, cfg = small_writer(), sample_config(max_new_tokens=1, top_k=8)
    counts = np.bincount(np.ravel(generate(model, [[1, 5, 9]] * 4000, cfg, eos_id=EOS)), minlength=37)
    with torch.no_grad():
        p = distribution(model(torch.tensor([[1, 5, 9]]))[:, -1], cfg, [[1, 5, 9]])[0].numpy()
    assert not counts[p == 0].any()
    expected = 4000 * p[p > 0]
    assert ((counts[p > 0] - expected) ** 2 / expected).sum() < 24.3  # chi-squared, 7 degrees, 0.1 %


def test_drawing_moves_neither_the_global_random_state_nor_the_mode():
    model = small_writer(residual_dropout=0.5)
    evaluated = generate(model, [[1]], sample_config(), eos_id=EOS)
    state = torch.get_rng_state()
    assert generate(model.train(), [[1]], sample_config(), eos_id=EOS) == evaluated
    assert model.training
    assert torch.equal(state, torch.get_rng_state())


def test_tokens_arrive_row_by_row_as_they_are_drawn():
    model, cfg, heard = small_writer(), sample_config(max_new_tokens=3), []
    new = generate(model, [[1], [2, 3]], cfg, eos_id=EOS, on_token=lambda row, token: heard.append((row, token)))
    assert heard == [(row, new[row][i]) for i in range(3) for row in range(2)]
    assert heard == list(stream(model, [[1], [2, 3]], cfg, eos_id=EOS))


def test_entries_that_only_round_the_vocabulary_up_are_never_drawn():
    model = randomise(Model(small_config(vocab_multiple_of=64)), std=0.01)
    (new,) = generate(model, [[1]], sample_config(max_new_tokens=300), eos_id=EOS)
    assert max(new) < 37


@pytest.mark.parametrize(("prompt", "sentence"), [([], "has no tokens"), ([1, 37], "vocab_size=37"), ([-1], "outside")])
def test_a_prompt_that_no_model_can_read_is_refused(prompt, sentence):
    with pytest.raises(ValueError, match=rf"prompts\[1\].*{sentence}"):
        generate(small_model(), [[1], prompt], sample_config(), eos_id=EOS)


def test_a_diverged_model_is_named_as_such():
    model = small_model()
    torch.nn.init.constant_(model.norm.scale, math.nan)
    with pytest.raises(ValueError, match="not finite"):
        generate(model, [[1]], sample_config(), eos_id=EOS)


# ---- what tokens are drawn with ----

LOGITS = torch.tensor([[0.4, 0.1, 0.3, 0.2]]).log()


@pytest.mark.parametrize(("flags", "expected"), [
    ({}, [0.4, 0.1, 0.3, 0.2]),
    ({"temperature": 0.5}, [16 / 30, 1 / 30, 9 / 30, 4 / 30]),
    ({"temperature": 0.0}, [1.0, 0.0, 0.0, 0.0]),
    ({"temperature": 1e-40}, [1.0, 0.0, 0.0, 0.0]),
    ({"top_k": 2}, [4 / 7, 0.0, 3 / 7, 0.0]),
    ({"top_k": 9}, [0.4, 0.1, 0.3, 0.2]),
    ({"top_p": 0.39}, [1.0, 0.0, 0.0, 0.0]),
    ({"top_p": 0.5}, [4 / 7, 0.0, 3 / 7, 0.0]),
    ({"top_p": 0.71}, [4 / 9, 0.0, 3 / 9, 2 / 9]),
    ({"top_p": 1.0}, [0.4, 0.1, 0.3, 0.2]),
    ({"min_p": 0.4}, [4 / 9, 0.0, 3 / 9, 2 / 9]),
    ({"min_p": 1.0}, [1.0, 0.0, 0.0, 0.0]),
    ({"top_k": 3, "top_p": 0.7}, [4 / 7, 0.0, 3 / 7, 0.0]),  # 4/9 + 3/9 of what top_k left reaches 0.7
], ids=str)
def test_distribution(flags, expected):
    assert_close(distribution(LOGITS, sample_config(**flags), [[]]), torch.tensor([expected]), "same")


def test_top_k_keeps_k_of_equals():
    assert (distribution(torch.zeros(1, 10), sample_config(top_k=3), [[]]) > 0).sum() == 3


@pytest.mark.parametrize("flags", [
    {"top_p": 1e-300}, {"min_p": 1e-300}, {"temperature": 1e-300}, {"temperature": 1e300},
    {"repetition_penalty": 1e-300}, {"repetition_penalty": 1e300}, {"repetition_penalty": 1e-300, "top_p": 1e-300}])
def test_no_number_leaves_nothing_to_draw(flags):
    logits = torch.tensor([[2.0, 1.0, 0.0, -1.0]])
    p = distribution(logits, sample_config(**flags), [[0, 1, 2, 3]])
    assert p.isfinite().all() and p.sum().item() == pytest.approx(1)


def test_the_repetition_penalty_weakens_tokens_of_either_sign_once():
    logits = torch.tensor([[1.0, -1.0, 2.0, -2.0], [1.0, -1.0, 2.0, -2.0]])
    p = distribution(logits, sample_config(repetition_penalty=2.0), [[0, 1, 1], [3]])
    assert_close(p, torch.tensor([[0.5, -2.0, 2.0, -2.0], [1.0, -1.0, 2.0, -4.0]]).softmax(-1), "same")


def test_the_repetition_penalty_reaches_back_past_the_limit():
    cfg = sample_config(temperature=0.0, repetition_penalty=1e9, max_new_tokens=35)
    model = randomise(Model(small_config(max_seq_len=4, head_bias=True, final_norm=False)))
    with torch.no_grad():
        model.head.unembed.bias += 1e4  # all logits above 0: what was there drops to 0
    (new,) = generate(model, [[1]], cfg, eos_id=EOS)
    assert len({1, *new}) == 36


# ---- scores ----


def test_a_score_is_the_mean_over_every_token():
    tokenizer, text = ByteTokenizer(), "héllo wörld, once"
    model = small_model(vocab_size=259, max_seq_len=64)
    ids = torch.tensor([tokenizer.encode(text, bos=True, eos=True)])
    with torch.no_grad():
        logits = model(ids[:, :-1])[0]
    nats = torch.nn.functional.cross_entropy(logits, ids[0, 1:], reduction="sum").item()
    ranks = (logits > logits.gather(1, ids[0, 1:, None])).sum(-1)
    result = score(model, tokenizer, text, top_k=(1, 40))
    assert result.num_tokens == len(text.encode()) + 1 == 20
    assert result.loss == pytest.approx(nats / 20, rel=1e-5)
    assert result.perplexity == pytest.approx(math.exp(nats / 20), rel=1e-4)
    assert result.bits_per_byte == pytest.approx(nats / math.log(2) / 19, rel=1e-5)
    assert result.accuracy == {k: (ranks < k).double().mean().item() for k in (1, 40)}


def test_a_long_text_is_scored_in_windows():
    tokenizer, text = ByteTokenizer(), "Once upon a time there was a fox."
    model = small_model(vocab_size=259)
    ids = tokenizer.encode(text, bos=True, eos=True)
    nats = 0.0
    for start in range(0, len(ids) - 1, 16):
        x, y = (torch.tensor([ids[start + i : min(start + 16, len(ids) - 1) + i]]) for i in (0, 1))
        with torch.no_grad():
            nats += loss_of(model, x, y).item() * y.numel()
    for batch_size in (1, 2, 8):
        result = score(model, tokenizer, text, batch_size=batch_size)
        assert result.loss == pytest.approx(nats / (len(ids) - 1), rel=1e-5)


def test_a_uniform_model_needs_log2_v_bits_for_each_token():
    model = Model(small_config(vocab_size=259, head_zero_init=True, pointer=False))
    result = score(model, ByteTokenizer(), "abc")
    assert result.bits_per_byte == pytest.approx(4 * math.log2(259) / 3)
    assert model.training


def test_documents_between_separators_are_scored_each_from_its_start():
    tokenizer, model = ByteTokenizer(), small_model(vocab_size=259, max_seq_len=64)
    alone = [score(model, tokenizer, text) for text in ("The fox ran.", "It was late.")]
    both = score(model, tokenizer, "The fox ran.\n\nIt was late.\n\n", separator="\n\n")
    assert both.num_bytes == sum(result.num_bytes for result in alone) == 24
    assert both.num_tokens == sum(result.num_tokens for result in alone) + 1  # the second's bos


@pytest.mark.parametrize("packing", ["pad", "documents"])
def test_whole_documents_are_scored_as_each_alone(packing):
    model, tokenizer = small_model(vocab_size=259, max_seq_len=10, pointer=True), ByteTokenizer()
    texts = ("The fox ran.", "It was late.", "Oh!", "No.")
    alone = [score(model, tokenizer, text) for text in texts]
    together = score(model, tokenizer, "|".join(texts), separator="|", packing=packing, batch_size=3)
    assert (together.num_tokens, together.num_bytes) == (sum(s.num_tokens for s in alone), len("".join(texts)))
    assert together.loss * together.num_tokens == pytest.approx(sum(s.loss * s.num_tokens for s in alone), rel=1e-5)


def test_an_empty_text_has_no_score():
    with pytest.raises(ValueError, match="text='' is empty"):
        score(small_model(vocab_size=259), ByteTokenizer(), "")


# ---- the terminal ----


class Pieces(io.StringIO):
    """What was written, and in which pieces."""

    def __init__(self):
        super().__init__()
        self.pieces = []

    def write(self, text):
        self.pieces.append(text)
        return super().write(text)


def pretend_to_draw(*texts: bytes) -> Objective:
    """An objective that gives these bytes, one row after another in each step, then the end token."""
    rows = [[byte + 3 for byte in text] + [EOS] for text in texts]
    drawn = [(row, rows[row][i]) for i in range(max(map(len, rows))) for row in range(len(rows)) if i < len(rows[row])]
    objective = Objective(small_model())
    objective.stream = lambda *args, **kwargs: iter(drawn)
    return objective


def test_a_character_is_written_when_all_its_bytes_are_there():
    objective = pretend_to_draw("é€😀!".encode())
    out = Pieces()
    write_texts(objective, ByteTokenizer(), SampleConfig(prompts=("ü",), num_samples=1), out)
    assert out.getvalue() == "üé€😀!\n"
    assert [piece for piece in out.pieces if piece] == ["ü", "é", "€", "😀", "!", "\n"]


def test_bytes_that_are_no_character_show_as_such_at_the_end():
    objective = pretend_to_draw("a€".encode()[:-1])
    out = io.StringIO()
    write_texts(objective, ByteTokenizer(), SampleConfig(prompts=("x",), num_samples=1), out)
    assert out.getvalue() == "xa\ufffd\n"


def test_several_texts_are_written_in_order():
    objective = pretend_to_draw(b"12", b"345", b"6")
    out = io.StringIO()
    write_texts(objective, ByteTokenizer(), SampleConfig(prompts=("a", "b", "c"), num_samples=1), out)
    assert out.getvalue() == "--- 1 of 3 ---\na12\n--- 2 of 3 ---\nb345\n--- 3 of 3 ---\nc6\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder of runs with one in it: `toy`, two checkpoints of untrained models."""
    folder = tmp_path_factory.mktemp("models")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs, "MODELS", folder)
        cfg = tiny(Config(sample=SampleConfig(prompts=("One",), num_samples=1, max_new_tokens=6)), vocab_size=259)
        run = Run.create("toy", cfg, ByteTokenizer(), DATA)
        for step, loss in ((1, 1.0), (2, 2.0)):
            model = randomise(Model(cfg.model), seed=step)
            run.save(model, torch.optim.SGD(model.parameters(), lr=1.0), Progress(step=step, val_loss=loss))
    return folder


@pytest.fixture
def command(folder, monkeypatch, capfd):
    """Run the command line on the folder's runs: (exit status, standard output, standard error)."""
    monkeypatch.setattr(runs, "MODELS", folder)

    def run(*words: str) -> tuple[int, str, str]:
        status = 0
        try:
            inference.main(list(words))
        except SystemExit as stop:
            status = stop.code
        return status, *capfd.readouterr()

    return run


def test_the_command_continues_what_it_is_given_or_the_runs_own_prompts(command):
    status, own, errors = command("toy")
    assert (status, errors) == (0, "")
    assert own.startswith("One") and len(own) > 4
    assert command("toy", "One") == (0, own, "")
    status, two, _ = command("toy", "One", "Two", "--num-samples", "2", "--temperature", "0")
    assert two.count("--- ") == 4 and "--- 3 of 4 ---\nTwo" in two
    assert command("toy", "--num-samples", "2", "--temperature", "0", "One", "Two") == (0, two, "")


def test_the_command_takes_a_path_and_a_checkpoint(command, folder):
    best = command("toy", "--temperature", "0")
    assert best == command(str(folder / "toy"), "--temperature", "0", "--checkpoint", "1")
    last = command("toy", "--temperature", "0", "--checkpoint", "last")
    assert last == command("toy", "--temperature", "0", "--checkpoint", "2")
    assert last != best


def test_the_command_scores_a_file_and_standard_input(command, tmp_path, monkeypatch):
    (tmp_path / "text.txt").write_text("Once,\ré", encoding="utf-8", newline="")
    status, table, errors = command("toy", "--score", str(tmp_path / "text.txt"))
    expected = score(Run("toy").load_model(), ByteTokenizer(), "Once,\ré")
    assert (status, errors) == (0, "")
    assert f"{expected.bits_per_byte:.4f}" in table and "9 tokens, 8 bytes" in table
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("Once,\ré".encode())))
    assert command("toy", "--score", "-") == (0, table, "")


@pytest.mark.parametrize(("words", "sentence"), [
    ([], "RUN is missing: name one of models/ (toy)"),
    (["--temperature", "1"], "RUN is missing"),
    (["nowhere"], "nowhere is not a run"),
    (["toy", "--checkpoint", "7"], "checkpoint=7"),
    (["toy", "--temperature", "-1"], "temperature=-1.0 is below 0"),
    (["toy", "--denoise.order", "ancestral"], "denoise.order=ancestral would change nothing: it acts only when"),
    (["toy", "--vectors.steps", "7"], "vectors.steps=7 would change nothing: it acts only when train.objective is"),
    (["toy", "--temprature", "1"], "perhaps --temperature was meant"),
    (["toy", "--device", "abacus"], "device=abacus"),
    (["toy", "--score", "no/such/file"], "score='no/such/file' cannot be read"),
    (["toy", "--score", "binary"], "score='binary' is not UTF-8 text (byte 1)"),
    (["toy", "--score", "empty"], "score='empty' is empty"),
    (["toy", "A prompt", "--score", "empty"], "score='empty' generates nothing"),
    (["toy", "--score", "empty", "--top-k", "3"], "score='empty' generates nothing"),
], ids=str)
def test_a_mistake_is_one_sentence_and_status_2(command, tmp_path, monkeypatch, words, sentence):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "binary").write_bytes(b"a\xff")
    (tmp_path / "empty").write_text("")
    status, output, errors = command(*words)
    assert (status, output) == (2, "")
    assert sentence in errors and errors.startswith("error: ") and errors.count("\n") == 1


def test_a_prompt_that_the_tokenizer_cannot_write_is_a_sentence(command, folder, monkeypatch):
    monkeypatch.setattr(Run, "tokenizer", lambda run: load_tokenizer("tales_128"))
    status, output, errors = command("toy", "日本")
    assert (status, output) == (2, "")
    assert "日" in errors and errors.count("\n") == 1


def test_help_lists_the_flags_without_a_run(command):
    status, output, _ = command("--help")
    assert status == 0
    assert all(f"--{flag.replace('_', '-')}" in output for flag in flat(from_dict({}).sample))
    assert all(flag in output for flag in ("--checkpoint", "--device", "--score"))


def test_an_interrupt_leaves_quietly(command, monkeypatch):
    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(inference, "write_texts", interrupt)
    assert command("toy")[::2] == (130, "")


def test_the_file_runs_as_a_program():
    done = subprocess.run([sys.executable, inference.__file__], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: RUN is missing")
