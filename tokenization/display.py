"""Show the tokens of a text, in the terminal and as HTML."""

import html as escaping

from rich.text import Text

COLORS = ("#a6cee3", "#b2df8a", "#fdbf6f", "#fb9a99", "#cab2d6", "#ffff99")  # ColorBrewer Paired
VISIBLE = str.maketrans({" ": "·", "\n": "⏎", "\t": "⇥", "\r": "␍"})


def colored_text(text: str, tokens: list[tuple[int, bytes]], *, ids: bool) -> Text:
    """The (id, bytes) tokens of a text, one color each, with their number and size."""
    shown = Text()
    for n, (_, label) in enumerate(labels(tokens, ids)):
        shown.append(label, style=f"black on {COLORS[n % len(COLORS)]}")
    return shown.append("\n" + summary(text, len(tokens)))


def html(text: str, tokens: list[tuple[int, bytes]], *, ids: bool) -> str:
    """The same as a static HTML element."""
    spans = "".join(
        f'<span title="{i}" style="background:{COLORS[n % len(COLORS)]};color:black">'
        f"{escaping.escape(label)}</span>" for n, (i, label) in enumerate(labels(tokens, ids)))
    return f'<pre style="white-space:pre-wrap">{spans}\n{summary(text, len(tokens))}</pre>'


def labels(tokens: list[tuple[int, bytes]], ids: bool) -> list[tuple[int, str]]:
    """(id, visible form) of each token; a part of a character is shown as its bytes in hex."""
    made = []
    for i, token in tokens:
        try:
            label = token.decode().translate(VISIBLE)
        except UnicodeDecodeError:
            label = "".join(f"\\x{byte:02x}" for byte in token)
        made.append((i, label + f"[{i}]" * ids + "\n" * label.endswith("⏎")))
    return made


def summary(text: str, num_tokens: int) -> str:
    """The number of tokens and bytes, and their ratio."""
    num_bytes = len(text.encode())
    return (f"{num_tokens} tokens, {num_bytes} bytes, "
            f"{num_bytes / max(num_tokens, 1):.2f} bytes per token")
