"""Prometheus' text format, version 0.0.4: families of lines. No I/O, and nothing of what is measured."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def escaped(text: str) -> str:
    """As the value of a label."""
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def line(name: str, labels: Mapping[str, str], value: float) -> str:
    inner = ",".join(f'{key}="{escaped(text)}"' for key, text in labels.items())
    number = f"{value:.15g}" if isinstance(value, float) else str(value)
    return f"{name}{{{inner}}} {number}" if inner else f"{name} {number}"


def family(name: str, kind: str, told: str, lines: Iterable[str]) -> list[str]:
    """`kind`: counter, gauge or histogram."""
    return [f"# HELP {name} {told}", f"# TYPE {name} {kind}", *lines]


def simple(name: str, kind: str, told: str, value: float) -> list[str]:
    """A family of one line without labels."""
    return family(name, kind, told, [line(name, {}, value)])


def histogram(
    name: str, labels: Mapping[str, str], buckets: Sequence[tuple[float, int]], total: float, count: int
) -> list[str]:
    """The lines of one histogram. `buckets`: (upper bound, how many were not above it), the bounds growing."""
    return [
        *(line(f"{name}_bucket", {**labels, "le": f"{bound:g}"}, below) for bound, below in buckets),
        line(f"{name}_bucket", {**labels, "le": "+Inf"}, count),
        line(f"{name}_sum", labels, total),
        line(f"{name}_count", labels, count),
    ]


def text(families: Iterable[Sequence[str]]) -> str:
    return "\n".join(row for one in families for row in one) + "\n"
