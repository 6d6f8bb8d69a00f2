"""What each contender offers, for the checks."""

from __future__ import annotations

from contract import extra, others, ours
from contract.checks import Contender


def of_ours(name: str) -> Contender:
    parts, stream = extra.PARTS.get(name), extra.STREAMS.get(name)
    return Contender(name, ours.WAYS[name], parts=parts, stream=stream)


def of_others(name: str) -> Contender:
    return Contender(
        name, others.WAYS[name], ranks=name not in others.ALONE, middle=name in others.IN_MIDDLE,
        parts=extra.PARTS.get(name), stream=extra.STREAMS.get(name),
    )  # fmt: skip
