"""Groups get their shares: by weight in each stretch of claims, and at once when they come beside a tenant with very many jobs."""

from __future__ import annotations

import random
from collections import Counter
from itertools import accumulate

import pytest
from engine_kit import Kit

from headrace.core.ties import Group, Ties
from headrace.engine import ops
from headrace.engine.clients import ServerConfig, SyncClient

A_CALL = 1_000


def add_jobs(kit: Kit, group: str, weight: float, count: int) -> None:
    ties = Ties(group=Group(group, weight)).of("kit.task", {})
    news = [ops.NewJob(f"{group}.{n}", kit.record(ties=ties), ties=ties) for n in range(count)]
    for first in range(0, count, A_CALL):
        kit.client.enqueue("default", news[first : first + A_CALL])


def take_in_turn(kit: Kit, count: int, most: int, rng: random.Random) -> list[str]:
    """The groups of so many jobs, in the order of their claims, which are of changing sizes."""
    order: list[str] = []
    while len(order) < count:
        claims = kit.claim("one", rng.randint(1, most))
        assert claims
        order += [claim.id.partition(".")[0] for claim in claims]
        kit.settle("one", claims, ops.Kind.DROPPED)
    return order[:count]


def shares_hold(order: list[str], weights: dict[str, float], first: int) -> None:
    """Each prefix, from `first` claims on, is within 5 % of what the weights say, and within one turn of each group before."""
    total = sum(weights.values())
    counts: Counter[str] = Counter()
    for n, group in enumerate(order, 1):
        counts[group] += 1
        for name, weight in weights.items():
            due = n * weight / total
            allowed = max(0.05 * due, 1.0 + weight / min(weights.values())) if n < first else 0.05 * due
            assert abs(counts[name] - due) <= allowed, (n, name, counts[name], due)


def proof_of_weights(url: str, weights: dict[str, float], claims: int, first: int, most: int) -> None:
    client = SyncClient(ServerConfig(url), retry=False)
    try:
        client.run(ops.command("FLUSHALL", decode=lambda reply: reply))
        kit = Kit(client)
        kit.open("one")
        total = sum(weights.values())
        for name, weight in weights.items():
            add_jobs(kit, name, weight, int(claims * weight / total * 1.1) + most + 2)
        shares_hold(take_in_turn(kit, claims, most, random.Random(7)), weights, first)
    finally:
        client.close()


ONE_TWO_FOUR = {"a": 1.0, "b": 2.0, "c": 4.0}


@pytest.mark.parametrize("most", [1, 16])
def test_three_groups_share_by_their_weights(url: str, most: int) -> None:
    """1 : 2 : 4 in each prefix of 700 claims, whatever the size of a claim."""
    proof_of_weights(url, ONE_TWO_FOUR, 700, 300, most)


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("most", [1, 7, 64])
@pytest.mark.parametrize("count", [3, 20])
def test_many_claims_of_many_groups_are_shared_by_weight(url: str, count: int, most: int) -> None:
    """Three groups at 1 : 2 : 4, and twenty of nine weights; 20,000 claims, each prefix."""
    weights = ONE_TWO_FOUR if count == 3 else {f"g{n}": 1.0 + n % 9 / 2 for n in range(count)}
    proof_of_weights(url, weights, 20_000, 200 * count, most)


def proof_of_tenants(url: str, many: int) -> None:
    """A newcomer's first job comes next or one later, at any time of a tenant's work, and also while others come and go."""
    client = SyncClient(ServerConfig(url), retry=False)
    try:
        client.run(ops.command("FLUSHALL", decode=lambda reply: reply))
        kit = Kit(client)
        kit.open("one")
        add_jobs(kit, "big", 1, many)
        rng = random.Random(11)
        for newcomer, busy in enumerate(accumulate(rng.randint(1, many // 50) for _ in range(20))):
            take_in_turn(kit, min(busy, many // 3) // 10 + 1, 16, rng)
            add_jobs(kit, f"small{newcomer}", 1, 3)
            order = take_in_turn(kit, 2, 1, rng)
            assert f"small{newcomer}" in order, (newcomer, order)
    finally:
        client.close()


def test_a_tenant_with_many_jobs_delays_anothers_first_by_one(url: str) -> None:
    """2,000 jobs before it."""
    proof_of_tenants(url, 2_000)


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_tenant_with_a_hundred_thousand_jobs_delays_anothers_first_by_one(url: str) -> None:
    """100,000 jobs before it; their number changes nothing."""
    proof_of_tenants(url, 100_000)


def test_a_group_that_comes_late_owes_no_turns_and_has_none_to_claim(url: str) -> None:
    """It takes part from the turn it comes at: it neither waits for those that others have had, nor makes up for its own."""
    client = SyncClient(ServerConfig(url), retry=False)
    try:
        client.run(ops.command("FLUSHALL", decode=lambda reply: reply))
        kit = Kit(client)
        kit.open("one")
        add_jobs(kit, "a", 1, 400)
        take_in_turn(kit, 200, 4, random.Random(1))
        add_jobs(kit, "b", 1, 100)
        assert abs(Counter(take_in_turn(kit, 100, 1, random.Random(2)))["b"] - 50) <= 1
    finally:
        client.close()
