"""The twelve rungs of the ladder: what each changes and why, and its configuration."""

from dataclasses import dataclass
from typing import Any

from config import Config, DataConfig, diff, override, replace
from presets import LADDER, LADDER_TOKENS, load_preset, paced

# flags that follow from a rung's batch size, its context length and the number of tokens
FOLLOWING = {f"train.{name}" for name in paced(1, 1, 1)}
NUM_STORIES = 2000  # of tales: 1.5 million characters, and 150,000 held out
WORDS = {
    "ladder-01-bigram": ("A bigram table", """\
The least that can be called a language model is a table: for each character, the logits of the one that follows it.
It is kept here as a product of two matrices. A character looks up its vector, 64 numbers, and the head makes logits
of them, so `head(embed.weight)` is the whole table, and also all there is to know about this model. It learns by
plain gradient descent, one row of 64 characters a step. However long it learns, it sees one character and no more."""),
    "ladder-02-batches": ("Mini-batches, and a text held out", """\
The gradient of a single row is noisy, and a processor built to multiply matrices has little to do with it. So eight
rows from random places go through the model at once, and a step follows their mean gradient: an eighth of the steps
for the same tokens. What is measured matters more. A model can come to know its own text by heart, so a part of it is
kept away from training. All losses on this ladder are those of the part held out; where they rise while the training
loss falls, the model memorises."""),
    "ladder-03-positions": ("Positions", """\
Every place in a row has a learned vector, too, which is added to the vector of the character that stands there. Most
rows begin in the midst of a text, so a place by itself tells little about what comes next. It is laid in here for
attention, which takes a set of vectors, and could not tell an early one from a late one without it."""),
    "ladder-04-adam": ("Adam", """\
Plain descent has one rate for all weights: it is too low for the vectors of rare characters by the time it is too
high for those of frequent ones. Adam keeps a running mean of each weight's gradient and divides it by the running
root mean square, so that every weight moves about as far as the rate says, however large its gradients are. The rate
changes with the optimizer, because the two mean different things by it."""),
    "ladder-05-attention": ("One attention head", """\
So far no character knew of any other. Now each position asks a query, and each position up to it answers with a key
and offers a value; the better query and key match, the more of that value is fetched. This is the only part of a
transformer that moves anything from one position to another. What is fetched takes the place of the character's own
vector: nothing leads around the attention yet."""),
    "ladder-06-heads": ("Several heads", """\
One softmax makes one weighted mean. A position that wants two things at once, the last letter and the start of the
word, say, gets a blur of both. The same 64 channels are cut into four heads of 16, each with queries, keys and a mean
of its own; parameters and multiplications stay as many as they were."""),
    "ladder-07-feed-forward": ("Feed-forward", """\
Attention fetches, but it computes little: given its weights, what comes out is linear in what goes in. A small
network, 64 to 256 channels and back with a ReLU between, now works at each position by itself on what was fetched.
Most weights of a transformer are in this part."""),
    "ladder-08-blocks": ("Stacked blocks", """\
Four blocks of attention and feed-forward in a row, so that what one has worked out can be looked up by the next.
Depth has a price. On its way to the first block a gradient passes through eight branches, each of which multiplies
it, and the characters themselves have to come through the same eight on the way up."""),
    "ladder-09-residual": ("Residual connections", """\
Each branch adds to what it was given in place of replacing it: `x + f(x)`. Vectors and gradients now have a way
through the whole stack that nothing multiplies, and a branch only has to learn what is missing. What runs past all
blocks is called the residual stream: a memory that each of them reads and adds to."""),
    "ladder-10-norm": ("Layer norm", """\
The more the branches add, the larger the stream gets, and each of them would have to keep up. Layer norm hands every
branch a copy of the stream with its mean taken away and its standard deviation divided out, times a learned factor
for each channel; so does a last one for the head. The stream itself is left as it is."""),
    "ladder-11-dropout": ("Dropout", """\
While training, each channel of what a branch adds is set to zero with a probability of 0.1, so that no channel can
count on another being there. It is a remedy against learning a text by heart, and it costs a part of every step.
Whether that is a good bargain depends on how often the text is seen."""),
    "ladder-12-scale": ("Scale", """\
Nothing new, and more of it: twice the width, twice the heads, and 128 characters of context in place of 64, which
makes four times the parameters. A batch has as many tokens as before, in four rows that are twice as long."""),
}


@dataclass(frozen=True)
class Rung:
    """A preset that is the one below it and one more change."""

    number: int  # from 1, the lowest
    preset: str
    title: str
    words: str  # what changes, and why

    def run_name(self, ladder: str, seed: int = 0) -> str:
        """The name of a seed's saved run."""
        return self.preset.replace("ladder", ladder, 1) + (f"-seed-{seed}" if seed else "")

    def changes(self) -> dict[str, tuple[Any, Any]]:
        """The flags that differ from the rung below: (value there, value here)."""
        if self.number == 1:
            return {}
        flags = diff(load_preset(RUNGS[self.number - 2].preset), load_preset(self.preset))
        return {flag: pair for flag, pair in flags.items() if flag not in FOLLOWING}

    def config(
        self, *, ladder: str = "ladder", tokens: int = LADDER_TOKENS, seed: int = 0, data: DataConfig | None = None,
    ) -> Config:
        """The configuration of its run: the same number of tokens, whatever the batch size."""
        cfg = load_preset(self.preset)
        pace = paced(cfg.train.batch_size, cfg.model.max_seq_len, tokens)
        cfg = replace(cfg, data=data or DataConfig(num_stories=NUM_STORIES))
        return override(cfg, {"train": pace | {"name": self.run_name(ladder, seed), "seed": seed, "graded_stories": 0},
                              "sample.num_samples": 1})


RUNGS = tuple(Rung(number, preset, title=WORDS[preset][0], words=" ".join(WORDS[preset][1].split()))
              for number, preset in enumerate(LADDER, 1))
