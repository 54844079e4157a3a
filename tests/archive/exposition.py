"""Strict readers of the Prometheus text format 0.0.4 and of OpenMetrics 1.0, written from their specifications."""

from __future__ import annotations

import re

_NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
_LABEL = r'[a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\\n]|\\["\\n])*"'
_SAMPLE = re.compile(rf"({_NAME})(?:\{{({_LABEL}(?:,{_LABEL})*)?\}})? (\S+)")
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*(?:[eE][+-]?\d+)?|Inf)|NaN")

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def parse(text: str, *, openmetrics: bool = False) -> tuple[Samples, dict[str, str]]:
    """Return samples by name and labels, and the type of each metric.

    Raises
    ------
    ValueError
        A line that the format does not allow, a sample that is there twice or outside its metric's group, a counter
        whose samples' names do not end in ``_total`` or that is below zero.
    """
    if not text.endswith("\n"):
        raise ValueError("the last line has no end")
    lines = text.split("\n")[:-1]
    if openmetrics and lines.pop() != "# EOF":
        raise ValueError("no # EOF")
    samples: Samples = {}
    types: dict[str, str] = {}
    helped: set[str] = set()
    metric = ""
    for line in lines:
        if found := re.fullmatch(rf"# (HELP|TYPE) ({_NAME}) (.+)", line):
            what, name, value = found.groups()
            if what == "TYPE":
                if name in types or value not in ("counter", "gauge"):
                    raise ValueError(f"type of {name}: {value}")
                types[name] = value
            elif name in helped or re.search(r"\\[^\\n\"]", value):
                raise ValueError(f"help of {name}: {value}")
            helped.add(name)
            metric = name
            continue
        found = _SAMPLE.fullmatch(line)
        if not found or not _NUMBER.fullmatch(found[3]):
            raise ValueError(f"no sample: {line!r}")
        name, labels, number = found.groups()
        counter = types.get(metric) == "counter"
        if name != metric + ("_total" if counter and openmetrics else ""):
            raise ValueError(f"{name} within {metric}")
        if counter and (not name.endswith("_total") or float(number) < 0):
            raise ValueError(f"counter {line!r}")
        pairs = tuple((pair.partition("=")[0], _plain(pair.partition("=")[2][1:-1])) for pair in _split(labels or ""))
        if (name, pairs) in samples or len({label for label, _ in pairs}) < len(pairs):
            raise ValueError(f"twice: {line!r}")
        samples[name, pairs] = float(number)
    return samples, types


def _split(labels: str) -> list[str]:
    return re.findall(_LABEL, labels)


def _plain(text: str) -> str:
    return re.sub(r"\\(.)", lambda found: "\n" if found[1] == "n" else found[1], text)
