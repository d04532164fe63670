"""Charts as SVG, drawn here: a page needs no script to show them. Colours and labels are the style sheet's and the page's.

Across, all is in shares of the width, so that nothing is squeezed on a narrow screen; up and down in pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from markupsafe import Markup, escape

HEIGHT, TOP = 130, 14
SPARK_WIDTH, SPARK_HEIGHT = 120, 24
LEAST_S = 0.001
DECADES: tuple[tuple[float, str], ...] = (
    (0.001, "1 ms"),
    (0.1, "0.1 s"),
    (1, "1 s"),
    (60, "1 min"),
    (3600, "1 h"),
    (86_400, "1 d"),
)


def bars(pairs: Sequence[tuple[int, int]], titles: Sequence[str]) -> Markup:
    """Two numbers a span, good below bad. The last one is still being filled: it is drawn pale."""
    most = max((good + bad for good, bad in pairs), default=0)
    parts = [_line(TOP, f"{most:,}")]
    for n, ((good, bad), title) in enumerate(zip(pairs, titles, strict=True)):
        pale = " open" if n == len(pairs) - 1 else ""
        tall, low = (HEIGHT - TOP) * good / (most or 1), (HEIGHT - TOP) * bad / (most or 1)
        x, width = (n + 0.1) * 100 / len(pairs), 80 / len(pairs)
        parts.append(
            f'<g class="span"><title>{escape(title)}</title><rect class="all" x="{x:.2f}%" y="0" width="{width:.2f}%" height="{HEIGHT}"/>'
        )
        if good:
            parts.append(_bar(x, HEIGHT - tall, width, tall, "good" + pale))
        if bad:
            parts.append(_bar(x, HEIGHT - tall - low, width, low, "bad" + pale))
        parts.append("</g>")
    return _svg(parts)


def waits(middle: Sequence[float | None], slow: Sequence[float | None], oldest: Sequence[float | None]) -> Markup:
    """Half of all and 95 % waited no longer than that, in seconds, on a scale of powers; over it the age of what waits still.

    The two tell of jobs that have started, and so fall silent just when none does; the third does not.
    """
    most = max((value for row in (middle, slow, oldest) for value in row if value is not None), default=1.0)
    top_s = max(most, 0.1) * 1.2

    def y(value: float) -> float:
        share = math.log(max(value, LEAST_S) / LEAST_S) / math.log(top_s / LEAST_S)
        return HEIGHT - 1 - (HEIGHT - TOP - 1) * share

    parts = [_line(y(at), name) for at, name in DECADES if at <= top_s]
    for row, kind in ((slow, "slow"), (middle, "middle"), (oldest, "oldest")):
        step = 100 / max(len(row), 1)
        for n, (one, following) in enumerate(zip(row, [*row[1:], None], strict=False)):
            if one is None:
                continue
            x1, x2 = (n + 0.5) * step, (n + 1.5) * step
            if following is None:
                parts.append(f'<circle class="{kind}" cx="{x1:.2f}%" cy="{y(one):.1f}" r="1.5"/>')
            else:
                parts.append(
                    f'<line class="{kind}" x1="{x1:.2f}%" y1="{y(one):.1f}" x2="{x2:.2f}%" y2="{y(following):.1f}"/>'
                )
    return _svg(parts)


def ages(at_ms: Sequence[int], width_ms: int, now_ms: int, oldest_s: float | None) -> list[float | None]:
    """How long the job that is oldest now had waited at the end of each span: as old at least was the oldest one then."""
    if oldest_s is None:
        return [None] * len(at_ms)
    since_ms = now_ms - oldest_s * 1000
    ends = [min(at + width_ms, now_ms) for at in at_ms]
    return [(end - since_ms) / 1000 if end > since_ms else None for end in ends]


def _svg(parts: Sequence[str]) -> Markup:
    return Markup(f'<svg class="chart" width="100%" height="{HEIGHT}" aria-hidden="true">{"".join(parts)}</svg>')


def _line(y: float, label: str) -> str:
    return f'<line class="grid" x1="0" y1="{y:.1f}" x2="100%" y2="{y:.1f}"/><text x="2" y="{y - 3:.1f}">{label}</text>'


def _bar(x: float, y: float, width: float, height: float, kind: str) -> str:
    return f'<rect class="{kind}" x="{x:.2f}%" y="{y:.1f}" width="{width:.2f}%" height="{height:.1f}"/>'


def spark(values: Sequence[int]) -> Markup:
    """One line."""
    most = max(values, default=0) or 1
    step = SPARK_WIDTH / max(len(values) - 1, 1)
    points = " ".join(
        f"{n * step:.1f},{SPARK_HEIGHT - 1 - (SPARK_HEIGHT - 2) * value / most:.1f}" for n, value in enumerate(values)
    )
    return Markup(
        f'<svg class="spark" viewBox="0 0 {SPARK_WIDTH} {SPARK_HEIGHT}" aria-hidden="true"><polyline points="{points}"/></svg>'
    )
