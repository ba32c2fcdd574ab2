"""`python -m tales`: print stories of the built-in corpus, or grade the stories of a file."""

import argparse
import sys
from pathlib import Path
from typing import NoReturn

from tales.stories import grade, story


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Print the mistake on one line and exit with status 2."""
        self.exit(2, f"error: {message.removeprefix('argument ')}\n")


def main() -> None:
    """Print stories with their bits, or grade the stories of a file."""
    parser = Parser(description="Print or grade stories of the built-in corpus.")
    parser.add_argument("--seed", type=int, default=0, help="seed of the corpus")
    parser.add_argument("--num-stories", type=int, default=3, help="number of stories to print")
    parser.add_argument("--grade", type=Path, metavar="FILE", help="grade the stories of this file")
    args = parser.parse_args()
    if args.num_stories < 1:
        parser.error(f"argument --num-stories: {args.num_stories} is not a number of stories: use 1 or more")
    if args.grade is None:
        for index in range(args.num_stories):
            one = story(args.seed, index)
            print(one.text + "\n", flush=True)
            print(f"({one.plot}: {one.bits:.1f} bits, {len(one.text)} bytes)\n", file=sys.stderr)
        return
    try:
        texts = args.grade.read_text(encoding="utf-8").strip().split("\n\n")
    except (OSError, UnicodeDecodeError) as error:
        parser.error(f"argument --grade: {args.grade} cannot be read: {getattr(error, 'strerror', 'no UTF-8 text')}")
    grades = [grade(text) for text in texts]
    for number, result in enumerate(grades, start=1):
        print(f"{number}: {'passed' if result.passed else result.message}")
    print(f"{sum(result.passed for result in grades)} of {len(grades)} stories passed")


if __name__ == "__main__":
    main()
