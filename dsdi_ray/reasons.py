"""Reasons why clips or images came out as they did, counted for people."""

import re
from collections import Counter
from collections.abc import Iterable

_NUMBER = re.compile(r"\d[\d.,]*")


def count_reasons(counts: Iterable[tuple[str, int]]) -> dict[str, int]:
    """How often each reason is given, the most frequent first.

    Reasons that differ in their numbers alone count as one, with N for these; an archive may have
    as many of them as it has clips.
    """
    by_kind: dict[str, Counter[str]] = {}
    for reason, count in counts:
        by_kind.setdefault(_NUMBER.sub("N", reason), Counter())[reason] += count
    merged = Counter[str]()
    for kind, reasons in by_kind.items():
        only = next(iter(reasons)) if len(reasons) == 1 else kind
        merged[only] += reasons.total()
    return dict(merged.most_common())
