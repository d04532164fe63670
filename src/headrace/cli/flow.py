"""`headrace flow`: list, show, retry, cancel and signal flows."""

from __future__ import annotations

import json
from typing import Any

import click

from headrace import flow as flows
from headrace.cli.output import print_fields, print_rows
from headrace.cli.settings import NOT_FOUND, OK, settings, subcommand, talk
from headrace.engine import admin
from headrace.engine.clients import SyncClient
from headrace.engine.keys import QueueKeys, queue_keys
from headrace.errors import JobNotFound
from headrace.flow import FlowState, StepState

COLUMNS = ("id", "name", "state", "done", "jobs", "queue", "created_at")
WHEN = {"s": "", "a": " (ended)", "f": " (failed)"}
MARKS = {
    "succeeded": "✓", "gone": "✓", "failed": "✗", "expired": "✗", "cancelled": "–", "running": "▶", "queued": "·",
    "waiting": "…", "scheduled": "…", "retrying": "↻",
}  # fmt: skip

_queue = click.option(
    "--queue", "-Q", metavar="NAME", help="Where its first step is; else all queues are looked through."
)


def row(state: FlowState) -> dict[str, Any]:
    """A flow's row: stable keys."""
    jobs = sum(step.size for step in state.steps)
    done = sum(step.states.get("succeeded", 0) + step.states.get("gone", 0) for step in state.steps)
    return {
        "id": state.id,
        "name": state.name,
        "state": state.state,
        "done": done,
        "jobs": jobs,
        "queue": state.queue,
        "created_at": state.created_at.isoformat(timespec="seconds").replace("+00:00", "Z"),
    }


def drawing(state: FlowState) -> str:
    """The graph in text: a line a step, behind it what it comes after."""
    return "\n".join(_line(step, state) for step in state.steps)


def _line(step: StepState, state: FlowState) -> str:
    depth = _depth(step, state)
    counts = ", ".join(f"{count} {name}" if step.size > 1 else name for name, count in sorted(step.states.items()))
    mark = MARKS.get(next(iter(step.states)), "?") if len(step.states) == 1 else "▶"
    size = f" ×{step.size}" if step.size > 1 else ""
    after = ", ".join(f"{parent}{WHEN[when]}" for parent, when in step.after)
    words = [f"{'  ' * depth}{mark} {step.number} {step.task}{size}", counts]
    words += [f"after {after}"] if after else []
    words += [f"before {', '.join(map(str, step.before))}"] if step.before else []
    words += [step.first_error] if step.first_error else []
    return "  ".join(words)


def _value(text: str | None) -> Any:
    """JSON, or else the text itself."""
    try:
        return None if text is None else json.loads(text)
    except ValueError:
        return text


def _depth(step: StepState, state: FlowState) -> int:
    depths: list[int] = []
    for each in state.steps[: step.number + 1]:
        depths.append(1 + max((depths[parent] for parent, _ in each.after), default=-1))
    return depths[step.number]


def find_flow(client: SyncClient, flow_id: str, queue: str | None) -> tuple[QueueKeys, FlowState]:
    """Look for a flow where it began, or everywhere."""
    names = [queue] if queue else client.run(admin.queue_names(client.prefix))
    for name in names:
        keys = queue_keys(name, client.prefix)
        try:
            return keys, client.run(flows.look_at(keys, flow_id))
        except JobNotFound:
            continue
    talk(f"no flow {flow_id} in {f'queue {queue}' if queue else 'any queue'}: it never was, or is no longer kept")
    raise SystemExit(NOT_FOUND)


@click.group(epilog="\b\nExamples:\n  headrace flow ls\n  headrace flow show ID\n  headrace flow signal ID approve")
def command() -> None:
    """List, show, retry, cancel and signal flows."""


@subcommand(command, "ls", epilog="\b\nExample:\n  headrace flow ls --json | jq .state")
@click.option("--queue", "-Q", metavar="NAME", help="That began on this queue.")
@click.option(
    "--limit", "-n", type=click.IntRange(1, 1000), default=20, show_default=True, help="The newest of each queue."
)
def list_flows(queue: str | None, limit: int) -> int:
    """List flows, the newest first.

    In a pipe: id, name, state, jobs done, jobs, queue, created at.
    """
    client = settings().client()
    names = [queue] if queue else client.run(admin.queue_names(client.prefix))
    states = [state for name in names for state in client.run(flows.newest(queue_keys(name, client.prefix), limit))]
    states.sort(key=lambda state: state.created_at, reverse=True)
    print_rows([row(state) for state in states], COLUMNS, empty="no flow yet")
    return OK


@subcommand(command, "show", epilog="\b\nExample:\n  headrace flow show 1k84q0d9bc6hsm7cgcaf")
@click.argument("flow_id")
@_queue
def show(flow_id: str, queue: str | None) -> int:
    """Show a flow: each step with its state, and what it comes after."""
    _, state = find_flow(settings().client(), flow_id, queue)
    if settings().is_json:
        steps = [
            {"step": s.number, "task": s.task, "queue": s.queue, "size": s.size, "after": s.after, "states": s.states,
             "first_error": s.first_error, "before": s.before}
            for s in state.steps
        ]  # fmt: skip
        print_fields({**row(state), "steps": steps})
        return OK
    print_fields(row(state))
    click.echo(drawing(state))
    return OK


@subcommand(command, "retry", epilog="\b\nExample:\n  headrace flow retry 1k84q0d9bc6hsm7cgcaf")
@click.argument("flow_id")
@_queue
def retry(flow_id: str, queue: str | None) -> int:
    """Run what failed again, and after it what was cancelled for that. Prints how many failed jobs are queued."""
    client = settings().client()
    keys, _ = find_flow(client, flow_id, queue)
    count = client.run(flows.retry(keys, flow_id))
    talk(f"{count} failed jobs of flow {flow_id} are queued again")
    click.echo(count)
    return OK


@subcommand(command, "cancel", epilog="\b\nExample:\n  headrace flow cancel 1k84q0d9bc6hsm7cgcaf")
@click.argument("flow_id")
@_queue
def cancel(flow_id: str, queue: str | None) -> int:
    """Cancel all jobs of a flow that have not ended. Prints how many."""
    client = settings().client()
    keys, _ = find_flow(client, flow_id, queue)
    count = client.run(flows.cancel(keys, flow_id))
    talk(f"{count} jobs of flow {flow_id} are cancelled, or asked to stop")
    click.echo(count)
    return OK


@subcommand(
    command, "signal", epilog='\b\nExample:\n  headrace flow signal 1k84q0d9bc6hsm7cgcaf approve \'{"by": "Lan"}\''
)
@click.argument("flow_id")
@click.argument("name")
@click.argument("value", required=False)
@_queue
def signal(flow_id: str, name: str, value: str | None, queue: str | None) -> int:
    """Give a flow what one of its steps waits for. VALUE: JSON, or text; left out, null."""
    client = settings().client()
    keys, _ = find_flow(client, flow_id, queue)
    client.run(flows.send_signal(keys, flow_id, name, _value(value)))
    talk(f"flow {flow_id} has the signal {name}")
    return OK
