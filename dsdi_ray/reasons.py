"""Reasons why clips or images came out as they did, counted for people."""

import re
from collections import Counter
from collections.abc import Iterable

_NUMBER = re.compile(r"\b\d+(?:[.,]\d+)*")  # not those of names, such as h264
_FEW = 3  # as of HTTP status codes, which say something


def count_reasons(counts: Iterable[tuple[str, int]]) -> dict[str, int]:
    """How often each reason is given, the most frequent first.

    More than a few that differ in their numbers alone count as one, with N for these; an archive may
    have as many of them as it has clips.
    """
    by_kind: dict[str, Counter[str]] = {}
    for reason, count in counts:
        by_kind.setdefault(_NUMBER.sub("N", reason), Counter())[reason] += count
    merged = Counter[str]()
    for kind, reasons in by_kind.items():
        merged.update(reasons if len(reasons) <= _FEW else {kind: reasons.total()})
    return dict(merged.most_common())
