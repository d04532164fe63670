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


@dataclasses.dataclass(frozen=True, slots=True)
class Layout:
    """`rows`: layer by layer what stands there, in its order. `ways`: of each edge, what it passes on its way to the child.

    Where an edge passes a layer, a place is kept free for it, which has a number below zero.
    """

    rows: list[list[int]]
    ways: dict[tuple[int, int], list[int]]


def lay_out(nodes: Sequence[Node]) -> Layout:
    """Where each step stands, and how each edge goes."""
    parents = parents_of(nodes)
    depth = _depths(parents)
    rows: list[list[int]] = [[] for _ in range(max(depth.values(), default=-1) + 1)]
    for node in nodes:
        rows[depth[node.number]].append(node.number)
    ways: dict[tuple[int, int], list[int]] = {}
    before: dict[int, list[int]] = {}  # what stands one layer before it, and leads to it
    for child, all_parents in parents.items():
        for parent in all_parents:
            way = [-1 - len(before) - n for n in range(depth[child] - depth[parent] - 1)]
            for passed, (one, at) in zip(
                [parent, *way], zip(way, range(depth[parent] + 1, depth[child]), strict=True), strict=False
            ):
                before[one] = [passed]
                rows[at].append(one)
            before.setdefault(child, []).append(way[-1] if way else parent)
            ways[parent, child] = way
    place: dict[int, float] = {}
    for row in rows:
        middle = {
            n: sum(place[p] for p in before[n]) / len(before[n]) if n in before else float(i) for i, n in enumerate(row)
        }
        row.sort(key=lambda number: (middle[number], abs(number)))
        for i, number in enumerate(row):
            place[number] = i - (len(row) - 1) / 2
    return Layout(rows, ways)


def _depths(parents: Mapping[int, list[int]]) -> dict[int, int]:
    """One more than that of the deepest parent; without recursion, since chains may be long."""
    depth: dict[int, int] = {}
    for number in parents:
        todo = [number]
        while todo:
            at = todo[-1]
            missing = [parent for parent in parents[at] if parent not in depth]
            todo += missing
            if not missing:
                depth[at] = 1 + max((depth[parent] for parent in parents[at]), default=-1)
                todo.pop()
    return depth


def parents_of(nodes: Sequence[Node]) -> Mapping[int, list[int]]:
    """What each comes after, the added steps that it waits for included."""
    found: dict[int, list[int]] = {node.number: [parent for parent, _ in node.after] for node in nodes}
    for node in nodes:
        for child in node.before:
            found[child].append(node.number)
    return found


def draw(nodes: Sequence[Node], say: Callable[[str], str]) -> Markup:
    """The picture. `say`: the words of what an edge waits for, other than success."""
    layout = lay_out(nodes)
    tallest = max(map(len, layout.rows))
    at: dict[int, tuple[int, int]] = {}
    for column, row in enumerate(layout.rows):
        top = (tallest - len(row)) * (HEIGHT + GAP_Y) // 2
        for place, number in enumerate(row):
            at[number] = MARGIN + column * (WIDTH + GAP_X), MARGIN + top + place * (HEIGHT + GAP_Y)
    words = {"s": "", "a": say("when_ended"), "f": say("when_failed")}
    parts = []
    for node in nodes:
        edges = [(parent, node.number, words[when]) for parent, when in node.after]
        edges += [(node.number, child, "") for child in node.before]
        for parent, child, word in edges:
            passed = [at[one] for one in layout.ways[parent, child]]
            parts.append(_edge([at[parent], *passed, at[child]], word))
    parts += (_box(node, *at[node.number]) for node in nodes)
    width = 2 * MARGIN + len(layout.rows) * (WIDTH + GAP_X) - GAP_X
    height = 2 * MARGIN + tallest * (HEIGHT + GAP_Y) - GAP_Y
    return Markup(
        f'<svg class="graph" width="{width}" height="{height}" viewBox="0 0 {width} {height}" aria-hidden="true">{"".join(parts)}</svg>'
    )


def _edge(places: Sequence[tuple[int, int]], word: str) -> str:
    """From the right of the first, through the middle of what is passed, to the left of the last."""
    x, y = places[0][0] + WIDTH, places[0][1] + HEIGHT // 2
    line = f"M{x} {y}"
    for n, place in enumerate(places[1:], 2):
        to_x, to_y, bend = place[0], place[1] + HEIGHT // 2, GAP_X // 2
        is_last = n == len(places)
        line += f"C{x + bend} {y} {to_x - bend} {to_y} {to_x - 5 * is_last} {to_y}"
        x, y = to_x + WIDTH, to_y
        line += "" if is_last else f"H{x}"
    end_x, end_y = places[-1]
    kind = "edge other" if word else "edge"
    label = f'<text class="word" x="{end_x + 2}" y="{end_y - 3}">{escape(word)}</text>' if word else ""
    return f'<path class="{kind}" d="{line}"/><path class="tip" d="M{end_x} {end_y + HEIGHT // 2}l-7 -4v8z"/>{label}'


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
