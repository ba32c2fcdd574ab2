"""Compare saved runs: `python experiments/compare.py RUN RUN ... ["tiny-*"] [curve.csv]`.

Prints a table of the runs, the flags in which they differ, and how sure the gap to the first one is, and draws their
curves. Runs that differ in train.seed alone are one line with a 95 % band. Logs of other programs can join: CSVs with a
column of steps, TensorBoard's event files, the output of nanoGPT. A run that is named and missing makes the exit
status 1; the others are shown. Of two scaling studies, by their names, it says whether the gain of the second over the
first holds, grows or fades with the size.
"""

import sys

if not __package__:  # run as a file, from any folder
    import _project  # noqa: F401

from rich.console import Console

from configuration.command_line import parse_flags, warn
from experiments.common.program import one_sentence
from experiments.comparing.compare_options import CompareOptions


def main() -> None:
    console = Console()
    with one_sentence(interrupted=""):
        options = parse_flags(sys.argv[1:], CompareOptions(), "python experiments/compare.py", __doc__)
        from configuration.command_line import print_line
        from experiments.comparing import comparison, sources, studies  # torch and pandas take seconds
        from run_store.listing import shown

        if folders := studies.find_studies(options.runs):
            return studies.compare(console, options, *folders)
        found, problems = sources.find(options.runs)
        for problem in problems:
            warn(f"skipped: {problem}")
        compared = comparison.compare(options, found)
        comparison.show(console, compared)
        for path in comparison.write(options, compared):
            print_line(console, f"wrote {shown(path.resolve())}")
    if sources.missing(options.runs):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
