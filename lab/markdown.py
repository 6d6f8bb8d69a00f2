"""Tables of Markdown, for the pages of the studies and of the benchmarks."""

from collections.abc import Iterable, Sequence


def markdown(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """A table of Markdown."""
    head_line, *other_lines = (f"| {' | '.join(line)} |\n" for line in (head, *lines))
    return "".join([head_line, "|---" * len(head), "|\n", *other_lines])
