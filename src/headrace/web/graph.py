"""A flow's steps as an SVG: laid out in layers from left to right, drawn here, so that a page needs no script to show it.

Each step stands one layer behind the last that it comes after. Within a layer the steps stand in the order of the middle of
their parents (the barycentre of Sugiyama, Tagawa and Toda, 1981), which keeps most edges from crossing. Colours are the style
sheet's; the page has the same in a table, for who cannot see the picture.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

from markupsafe import Markup, escape

WIDTH, HEIGHT = 184, 46
GAP_X, GAP_Y = 52, 16
MARGIN = 4
MOST_NODES = 120
"""A larger picture tells nobody anything."""
NAME_CHARS = 22


@dataclasses.dataclass(frozen=True, slots=True)
class Node:
    """One step. `kind`: its state, a class of the style sheet. `share`: of its jobs, how many have ended well, 0 to 1."""

    number: int
    name: str
    note: str
    kind: str
    share: float
    after: Sequence[tuple[int, str]]
    before: Sequence[int] = ()


def layers(nodes: Sequence[Node]) -> list[list[int]]:
    """The numbers of the nodes, layer by layer, each in its order."""
    parents = parents_of(nodes)
    depth: dict[int, int] = {}

    def depth_of(number: int) -> int:
        todo = [number]
        while todo:
            at = todo[-1]
            missing = [parent for parent in parents[at] if parent not in depth]
            if missing:
                todo += missing
                continue
            depth[at] = 1 + max((depth[parent] for parent in parents[at]), default=-1)
            todo.pop()
        return depth[number]

    found: list[list[int]] = []
    for node in nodes:
        at = depth_of(node.number)
        while len(found) <= at:
            found.append([])
        found[at].append(node.number)
    place: dict[int, float] = {}
    for layer in found:
        middle = {
            n: sum(place[p] for p in parents[n]) / len(parents[n]) if parents[n] else float(i)
            for i, n in enumerate(layer)
        }
        layer.sort(key=lambda number: (middle[number], number))
        for i, number in enumerate(layer):
            place[number] = i - (len(layer) - 1) / 2
    return found


def parents_of(nodes: Sequence[Node]) -> Mapping[int, list[int]]:
    """What each comes after, the added steps that it waits for included."""
    found: dict[int, list[int]] = {node.number: [parent for parent, _ in node.after] for node in nodes}
    for node in nodes:
        for child in node.before:
            found[child].append(node.number)
    return found


def draw(nodes: Sequence[Node], say: Callable[[str], str]) -> Markup:
    """The picture. `say`: the words of what an edge waits for, other than success."""
    rows = layers(nodes)
    tallest = max(map(len, rows))
    at: dict[int, tuple[int, int]] = {}
    for column, layer in enumerate(rows):
        top = (tallest - len(layer)) * (HEIGHT + GAP_Y) // 2
        for row, number in enumerate(layer):
            at[number] = MARGIN + column * (WIDTH + GAP_X), MARGIN + top + row * (HEIGHT + GAP_Y)
    parts = []
    for node in nodes:
        for parent, when in node.after:
            parts.append(
                _edge(at[parent], at[node.number], {"s": "", "a": say("when_ended"), "f": say("when_failed")}[when])
            )
        parts += (_edge(at[node.number], at[child], "") for child in node.before)
    parts += (_box(node, *at[node.number]) for node in nodes)
    width = 2 * MARGIN + len(rows) * (WIDTH + GAP_X) - GAP_X
    height = 2 * MARGIN + tallest * (HEIGHT + GAP_Y) - GAP_Y
    return Markup(
        f'<svg class="graph" width="{width}" height="{height}" viewBox="0 0 {width} {height}" aria-hidden="true">{"".join(parts)}</svg>'
    )


def _edge(start: tuple[int, int], end: tuple[int, int], word: str) -> str:
    x1, y1, x2, y2 = start[0] + WIDTH, start[1] + HEIGHT // 2, end[0], end[1] + HEIGHT // 2
    bend = max((x2 - x1) // 2, 16)
    kind = "edge other" if word else "edge"
    label = f'<text class="word" x="{x2 + 2}" y="{end[1] - 3}">{escape(word)}</text>' if word else ""
    return (
        f'<path class="{kind}" d="M{x1} {y1}C{x1 + bend} {y1} {x2 - bend} {y2} {x2 - 5} {y2}"/>'
        f'<path class="tip" d="M{x2} {y2}l-7 -4v8z"/>{label}'
    )


def _box(node: Node, x: int, y: int) -> str:
    name = node.name if len(node.name) <= NAME_CHARS else "…" + node.name[1 - NAME_CHARS :]
    done = (
        f'<rect class="done" x="{x}" y="{y + HEIGHT - 4}" width="{WIDTH * node.share:.0f}" height="4"/>'
        if node.share
        else ""
    )
    return (
        f'<g class="step {escape(node.kind)}"><rect class="box" x="{x}" y="{y}" width="{WIDTH}" height="{HEIGHT}" rx="5"/>{done}'
        f'<text x="{x + 10}" y="{y + 19}">{escape(name)}</text><text class="note" x="{x + 10}" y="{y + 35}">{escape(node.note)}</text></g>'
    )
