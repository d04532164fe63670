"""Small charts as SVG, drawn here: a page needs no script to show them. Colours and labels are the style sheet's and the page's."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

WIDTH, HEIGHT = 600, 120
SPARK_WIDTH, SPARK_HEIGHT = 120, 24


def bars(pairs: Sequence[tuple[int, int]]) -> Markup:
    """Two numbers a span, good below bad. The last one is still being filled: it is drawn pale."""
    most = max((good + bad for good, bad in pairs), default=0) or 1
    step = WIDTH / max(len(pairs), 1)
    parts = []
    for n, (good, bad) in enumerate(pairs):
        pale = " open" if n == len(pairs) - 1 else ""
        tall, low = HEIGHT * good / most, HEIGHT * bad / most
        x, width = n * step + step * 0.1, step * 0.8
        if good:
            parts.append(_bar(x, HEIGHT - tall, width, tall, "good" + pale))
        if bad:
            parts.append(_bar(x, HEIGHT - tall - low, width, low, "bad" + pale))
    return Markup(
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" preserveAspectRatio="none" aria-hidden="true">{"".join(parts)}</svg>'
    )


def _bar(x: float, y: float, width: float, height: float, kind: str) -> str:
    return f'<rect class="{kind}" x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"/>'


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
