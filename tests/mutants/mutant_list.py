"""The mutants: small, wrong changes to what decides about jobs. Each must be noticed by its oracle.

`old` must stand exactly once in the file, so an entry whose line has changed fails and is looked at again. Anchor on
short lines that are there for their own sake.
"""

from __future__ import annotations

from typing import NamedTuple

MACHINE = ("machine",)
OUTCOME = ("tests/core/test_outcome.py",)
RETRY = ("tests/core/test_retry.py",)


def operation(*names: str, server: str = "valkey") -> tuple[str, ...]:
    """Tests of `tests/engine/test_operations.py` on one kind of server."""
    return "tests/engine/test_operations.py", "-k", f"({' or '.join(names)}) and {server}"


class Mutant(NamedTuple):
    """`file` is relative to src/headrace. `is_quick`: among those that the default suite runs."""

    file: str
    old: str
    new: str
    why: str
    oracle: tuple[str, ...] = MACHINE
    is_quick: bool = False


_GONE = "if not redis.call('ZSCORE', q.sessions, session) then"
_HELD = "if redis.call('SISMEMBER', KEYS[KEYS_PER_QUEUE + i - 2], id) == 1 then"

SETTLE = [
    Mutant("settle.lua", _GONE, "if false then", "a session that is gone settles and claims"),
    Mutant("settle.lua", "if redis.call('SREM', q.held, ARGV[first]) == 1 then",
           "if redis.call('SISMEMBER', q.held, ARGV[first]) == 1 then", "a settled job's claim is kept"),
    Mutant("settle.lua", "if redis.call('SREM', q.held, ARGV[first]) == 1 then",
           "if redis.call('SREM', q.held, ARGV[first]) >= 0 then", "one job is settled by who does not hold it"),
    Mutant("settle.lua", "if flags[i] == 1 then", "if true then", "of a batch, jobs are settled that others hold"),
    Mutant("settle.lua", "if #kept > 0 then redis.call('SREM', q.held, unpack(kept)) end", "", "a batch's claims are kept"),
    Mutant("settle.lua", "if is_suspect and #ids > 0 then redis.call('HDEL', q.crashes, unpack(ids)) end", "",
           "a suspect that ended keeps its crash count"),
    Mutant("settle.lua", "kind == 'f' and q.dead or q.done", "q.done", "failed jobs are kept among the succeeded"),
    Mutant("settle.lua", "if redis.call('EXISTS', q.cancels) == 0 then return ours, ids end", "if true then return ours, ids end",
           "a job that was asked to stop is tried again"),
    Mutant("settle.lua", "redis.call('ZADD', q.delayed, now_ms + delay, ids[i])", "redis.call('ZADD', q.delayed, delay, ids[i])",
           "a retry does not wait"),
    Mutant("settle.lua", "put_front(q, ids, redis.call('HMGET'", "put_back(q, ids, redis.call('HMGET'",
           "released jobs go to the tail"),
    Mutant("settle.lua", "for i = #ids, 1, -1 do redis.call('LPUSH', q.suspects, ids[i]) end",
           "for i = 1, #ids do redis.call('RPUSH', q.suspects, ids[i]) end", "a released suspect loses its turn", operation("released_suspect")),
    Mutant("settle.lua", "if expires == 0 or expires > now_ms then return true end", "if true then return true end",
           "an expired job runs", operation("expired_job", "seconds_to_expire")),
    Mutant("settle.lua", "if expires == 0 or expires > now_ms then return true end",
           "if expires == 0 or expires < now_ms then return true end", "a job expires before its time",
           operation("expired_job", "seconds_to_expire")),
    Mutant("settle.lua", "want = want - #ids", "", "two queues give more jobs than were wanted",
           operation("more_than_was_wanted")),
    Mutant("settle.lua", "if is_suspect == 1 then break end", "", "a suspect is claimed with jobs of the next queue",
           operation("suspect_of_one_queue")),
    Mutant("settle.lua", "if #ids > 0 then take_suspects = false end", "", "a suspect of the next queue is claimed with others",
           operation("suspect_of_one_queue")),
    Mutant("settle.lua", "redis.call('HDEL', q.jobs, unpack(ids))", "", "a dropped job's record stays"),
    Mutant("settle.lua", "redis.call('HSET', q.jobs, ids[i], record)", "", "a retry forgets what the attempt was"),
    Mutant("settle.lua", "redis.call('HSET', q.jobs, unpack(fields))", "", "an outcome is not stored"),
    Mutant("settle.lua", "if string.byte(record, 2) > LAYOUT then", "if false then", "a newer record is run by an older worker",
           operation("newer_layout")),
]  # fmt: skip

CLAIM = [
    Mutant("include/claim.lua", "(tonumber(meta[3]) or 0) + 1, now_us", "(tonumber(meta[3]) or 0), now_us",
           "a fence is used again while the clock stands behind", operation("fences_grow")),
    Mutant("include/claim.lua", "math.max((tonumber(meta[3]) or 0) + 1, now_us)", "now_us",
           "a fence goes back with the clock", operation("fences_grow")),
    Mutant("include/claim.lua", "redis.call('HSET', q.meta, 'fence', fence)", "", "the last fence is not remembered"),
    Mutant("include/claim.lua", "redis.call('SADD', q.held, unpack(ids))", "", "nobody is noted as a job's holder"),
    Mutant("include/claim.lua", "if meta[2] or want < 1 then", "if want < 1 then", "a paused queue gives jobs"),
    Mutant("include/claim.lua", "if state == 3 then", "if state then", "a cancelled job's entry runs"),
    Mutant("include/claim.lua", "if is_suspect == 1 then more, is_taken = 1, true end", "is_suspect = 0", "a suspect is claimed with others"),
    Mutant("include/claim.lua", "redis.call('LPOP', q.suspects)", "redis.call('LINDEX', q.suspects, 0)",
           "a suspect is claimed and stays among the suspects"),
    Mutant("include/claim.lua", "or more == 1 and redis.call('EXISTS', q.ready, q.suspects, q.priority) > 0 then",
           "then", "the next consumer sleeps on"),
    Mutant("include/claim.lua", "more = #popped == missing and 1 or 0", "more = 0", "a claim says there is no more"),
    Mutant("include/claim.lua", "redis.call('SREM', q.lingering, ids[i])", "", "an entry that went is still noted"),
    Mutant("include/claim.lua", "if #ids > 0 then redis.call('ZREM', q.priority, unpack(ids)) end", "",
           "a job of high priority is claimed and stays"),
    Mutant("include/claim.lua", "if #low > 0 then redis.call('ZREM', q.priority, unpack(low)) end", "",
           "a job of low priority is claimed and stays"),
    Mutant("include/claim.lua", "local missing, first = want - #ids, #ids + 1", "local missing, first = want, #ids + 1",
           "a claim gives more than was wanted", operation("past_cancelled_jobs_gives")),
    Mutant("include/claim.lua", "local missing = want - #ids", "local missing = want",
           "a claim gives plain jobs beyond the urgent ones", operation("urgent_and_plain_jobs")),
]  # fmt: skip

PLACE = [
    Mutant("include/place.lua", "redis.call('ZREM', q.delayed, unpack(ids))", "", "a due job stays among the delayed"),
    Mutant("include/place.lua", "'ZRANGEBYSCORE', q.delayed, '-inf', now_ms,", "'ZRANGEBYSCORE', q.delayed, '-inf', '+inf',",
           "a due job takes along those that are not due", operation("due_job_leaves")),
    Mutant("include/place.lua", "if wait > 0 then return wait, 0 end", "", "a claim promotes, and tells a wrong next due time",
           operation("delayed_job_waits")),
    Mutant("include/place.lua", "for i = #ids, 1, -1 do", "for i = 1, #ids do", "what is given back is turned round"),
    Mutant("include/place.lua", "redis.call('HINCRBY', q.meta, 'seq', count)", "redis.call('HINCRBY', q.meta, 'seq', 0)",
           "jobs of one priority lose their order"),
]  # fmt: skip

SESSIONS = [
    Mutant("include/release.lua", "local MAX_CRASHES = 3", "local MAX_CRASHES = 4", "a poison job kills once more"),
    Mutant("include/release.lua", "charge and 1 or 0", "1", "a death is charged to a neighbour"),
    Mutant("include/release.lua", "redis.call('RPUSH', q.suspects, id)", "redis.call('RPUSH', q.ready, id)",
           "a suspect is not claimed alone"),
    Mutant("include/release.lua", "if crashes >= MAX_CRASHES then\n    redis.call('HDEL', q.crashes, id)",
           "if crashes >= MAX_CRASHES then", "a job that died keeps its crash count"),
    Mutant("include/release.lua", "if is_cancel_asked(q, id) then", "if false then",
           "a job that was asked to stop comes back as a suspect"),
    Mutant("release.lua", "redis.call('DEL', q.held)", "", "a released session still holds its jobs"),
    Mutant("release.lua", "redis.call('ZREM', q.sessions, ARGV[2])", "", "a released session lives on"),
    Mutant("release.lua", "elseif redis.call('HEXISTS', q.crashes, id) == 1 then", "elseif false then",
           "a suspect that is released is one no more"),
    Mutant("release.lua", "if #ids > 0 then ring(q) end", "", "nobody is woken for released jobs"),
    Mutant("release.lua", "if record and state_of(record) == LIVE then", "if false then", "a released session's jobs are lost"),
    Mutant("release.lua", "redis.call('HSET', q.jobs, id, record)", "", "why a job was stopped is forgotten"),
    Mutant("include/record.lua", "string.byte(record, -1) == 0xc0 and", "true and", "a second reason breaks the record",
           operation("first_reason")),
    Mutant("give_back.lua", "if not redis.call('ZSCORE', q.sessions, ARGV[2]) then", "if false then",
           "a session that is gone gives back", operation("session_that_ended")),
    Mutant("give_back.lua", "if flags[i] == 1 then", "if true then", "jobs are given back that others hold"),
    Mutant("give_back.lua", "redis.call('SREM', q.held, unpack(ids))", "", "what is given back is held still"),
    Mutant("give_back.lua", "if suspected[i] then", "if false then", "a suspect that is given back is one no more"),
    Mutant("give_back.lua", "put_front(q, plain, plain_records)", "put_back(q, plain, plain_records)",
           "what is given back loses its turn"),
    Mutant("adopt.lua", "redis.call('ZREM', q.sessions, ARGV[3])", "", "the old session lives beside the new"),
    Mutant("adopt.lua", "redis.call('DEL', q.adopted)", "", "both sessions hold the jobs"),
    Mutant("adopt.lua", "redis.call('HSET', q.meta, 'fence', fence)", "", "an adoption's fence is used again"),
    Mutant("adopt.lua", "redis.call('SUNIONSTORE', q.held, q.held, q.adopted)", "redis.call('SUNIONSTORE', q.held, q.adopted)",
           "an adoption forgets what the new session held"),
    Mutant("renew.lua", "if ends[i] then\n        redis.call('ZADD', q.sessions, 'XX',",
           "if true then\n        redis.call('ZADD', q.sessions,", "a renewal brings a session back"),
    Mutant("renew.lua", "now_ms + ARGV[2], ARGV[i + 2]", "now_ms, ARGV[i + 2]", "a renewal ends the lease"),
    Mutant("renew.lua", "if #asked > 0 then", "if false then", "a worker is not told to stop its job"),
]  # fmt: skip

TEND = [
    Mutant("tend.lua", "redis.call('ZREM', q.sessions, session)", "", "a swept session lives on"),
    Mutant("tend.lua", "redis.call('DEL', held)", "", "a swept session still holds its jobs"),
    Mutant("tend.lua", "'ZRANGEBYSCORE', q.sessions, '-inf', now_ms", "'ZRANGEBYSCORE', q.sessions, '-inf', '+inf'",
           "a living session is swept"),
    Mutant("tend.lua", "if now_ms <= tonumber(ARGV[2]) then", "if true then", "who may not judge leases sweeps"),
    Mutant("tend.lua", "now_ms <= tonumber(ARGV[2])", "ARGV[2] ~= '0'", "a sweep that comes too late takes the living", operation("too_late")),
    Mutant("tend.lua", "if meta[2] then", "if false then", "a dead session lives for an hour when the clock is put back", operation("put_back")),
    Mutant("open.lua", "redis.call('HSET', q.meta, 'longest_lease', ARGV[3])", "", "nobody knows how long a lease may be", operation("put_back")),
    Mutant("tend.lua", "#ids == 1 and redis.call", "redis.call", "a lost machine is charged to a neighbour", operation("lost_machine")),
    Mutant("tend.lua", "redis.call('ZREM', place, unpack(ids))", "", "a forgotten job keeps its entry"),
    Mutant("tend.lua", "if #gone > 0 then redis.call('HDEL', q.jobs, unpack(gone)) end", "", "a forgotten job keeps its record"),
    Mutant("tend.lua", "(now_ms - DAY_MS) / 1000", "(now_ms + DAY_MS) / 1000", "a producer is forgotten at once"),
    Mutant("tend.lua", "if #ids == 0 and excess > 0 then", "if excess > 0 then", "of what is kept, too little is trimmed at once", operation("kept_too_long")),
    Mutant("tend.lua", "if promoted > 0 or #jobs > 0 then ring(q) end", "", "nobody is woken for swept jobs"),
]  # fmt: skip

ENQUEUE = [
    Mutant("enqueue.lua", ">= tonumber(ARGV[3]) then", "> tonumber(ARGV[3]) then",
           "a call sent again is stored again", operation("sent_twice"), is_quick=True),
    Mutant("enqueue.lua", "'1' and (seen[id] or there[id])", "'1' and seen[id]", "a taken id is taken again"),
    Mutant("enqueue.lua", "'1' and (seen[id] or there[id])", "'1' and there[id]", "an id is stored twice by one call", operation("given_twice")),
    Mutant("enqueue.lua", "if #taken > 1 then return taken end", "", "a taken id does not refuse the call"),
    Mutant("enqueue.lua", "redis.call('HSET', q.producers, ARGV[2], ARGV[3]", "redis.call('ECHO', ARGV[3]", "a call is not remembered"),
    Mutant("enqueue.lua", "redis.call('SREM', q.lingering, id) == 1 then", "false then", "an old entry runs a new job"),
    Mutant("enqueue.lua", "how.delay > 0 and now_ms + how.delay or how.due, id)", "how.delay > 0 and how.delay or how.due, id)", "a delayed job is due at once"),
    Mutant("enqueue.lua", "if must_ring then", "if false then", "nobody is woken for a new job"),
    Mutant("enqueue.lua", "is_front and front or arrival + (n - 1) * gap", "is_front and arrival + (n - 1) * gap or front",
           "front and back of a priority are turned round"),
]  # fmt: skip

ONE_JOB = [
    Mutant("cancel.lua", "+ redis.call('ZREM', q.delayed, id)", "", "a cancelled job is still due later"),
    Mutant("cancel.lua", "+ redis.call('ZREM', q.priority, id)", "", "a cancelled job keeps its turn"),
    Mutant("cancel.lua", "if found == 0 then redis.call('SADD', q.lingering, id) end", "", "an entry that lingers is not noted"),
    Mutant("cancel.lua", "if state_of(record) ~= LIVE then return 'ended' end", "", "a job that ended is cancelled", operation("being_cancelled")),
    Mutant("cancel.lua", _HELD, "if false then", "a running job is cancelled under its worker"),
    Mutant("cancel.lua", "redis.call('HDEL', q.crashes, id)", "", "a cancelled suspect keeps its crash count"),
    Mutant("cancel.lua", "if redis.call('ZCARD', q.sessions) ~= #ARGV - 2 then return 'again' end", "",
           "a session that came meanwhile is overlooked", operation("opened_meanwhile")),
    Mutant("delete.lua", _HELD, "if false then", "a running job is deleted", operation("not_a_running_one"), is_quick=True),
    Mutant("delete.lua", "if redis.call('ZCARD', q.sessions) ~= #ARGV - 2 then return 'again' end", "",
           "a session that came meanwhile is overlooked", operation("opened_meanwhile")),
    Mutant("delete.lua", "redis.call('LREM', q.ready, 0, id)", "", "a deleted job keeps its entry"),
    Mutant("delete.lua", "redis.call('SREM', q.cancels, id)", "", "a deleted job is still asked to stop"),
    Mutant("requeue.lua", "if redis.call('HGET', q.jobs, id) ~= ARGV[3] then return 0 end", "", "a job that changed is retried",
           operation("retried_twice")),
    Mutant("requeue.lua", "redis.call('ZREM', q.done, id)", "", "a retried job is kept among the ended"),
    Mutant("requeue.lua", "redis.call('ZREM', q.dead, id)", "", "a retried job is kept among the dead"),
    Mutant("requeue.lua", "if redis.call('SREM', q.lingering, id) == 1 then", "if false then", "a retried job runs twice", operation("cancelled_job_that_is_retried"), is_quick=True),
    Mutant("include/ending.lua", "redis.call('HDEL', q.watched, id)", "", "what is kept beside a job outlives it"),
    Mutant("include/ending.lua", "redis.call('ZADD', keep_in, keep_until, id)", "", "an ended job stands nowhere"),
    Mutant("include/ending.lua", "redis.call('RPUSH', key, record)", "", "nobody is told of a job's end"),
    Mutant("include/ending.lua", "then redis.call('SREM', q.cancels, id) end", "then end", "a job that ended is still asked to stop"),
    Mutant("include/ending.lua", "then redis.call('HDEL', q.progress, id) end", "then end", "a job's progress outlives it"),
    Mutant("admin_purge.lua", "(state_of(records[i]) ~= LIVE) == ends_here", "true", "a purge of the queue deletes ended jobs"),
    Mutant("admin_purge.lua", "redis.call('HDEL', q.crashes, unpack(gone))", "", "a purged suspect keeps its crash count",
        operation("purged_suspect"),
    ),
    Mutant("admin_pause.lua", "redis.call('HDEL', q.meta, 'paused', 'paused_at', 'paused_until')\n  ring(q)",
           "redis.call('HDEL', q.meta, 'paused', 'paused_at', 'paused_until')", "nobody is woken when a queue goes on"),
]  # fmt: skip

PYTHON = [
    Mutant("core/outcome.py", "attempt <= retry.retries", "attempt < retry.retries", "a policy gives one retry less", OUTCOME),
    Mutant("core/outcome.py", "attempt <= retry.retries", "attempt <= retry.retries + 1", "a policy gives one retry more", OUTCOME),
    Mutant("core/outcome.py", "attempt = record.attempt + 1 if charged else record.attempt", "attempt = record.attempt + 1",
           "a cancel is charged as an attempt", OUTCOME),
    Mutant("core/outcome.py", '"s" if result_ttl_ms > 0 else "d"', '"s"', "what shall not be kept is kept", OUTCOME),
    Mutant(
        "core/outcome.py", "if not is_left or not (is_asked", "if not (is_asked", "a job is retried for ever", OUTCOME
    ),
    Mutant("core/outcome.py", 'return Decision("p", new, delay_ms=wait_ms)', 'return Decision("r", new, delay_ms=wait_ms)',
           "an unknown task is a retry", OUTCOME),
    Mutant("core/outcome.py", 'return Decision("l", record)', 'return Decision("r", record)', "a release is a retry", OUTCOME),
    Mutant("core/outcome.py", "[-ERRORS_KEPT:]", "", "the errors of a job grow for ever", OUTCOME),
    Mutant("core/outcome.py", "now_ms, reason=reason, charged=True", "now_ms, reason=reason, charged=False",
           "the last attempt is not counted", OUTCOME),
    Mutant("core/retry.py", "if beyond <= 0:", "if beyond < -1:", "the delays of a list are passed over", RETRY),
    Mutant("core/retry.py", "spec.delays_ms[max(attempt, 1) - 1]", "spec.delays_ms[max(attempt, 1) - 2]",
           "the delays of a list are shifted", RETRY),
    Mutant("core/retry.py", "base = min(base, float(spec.max_delay_ms or DELAY_MAX_MS))", "", "a delay passes its longest", RETRY),
    Mutant("core/retry.py", "(1.0 - spec.jitter * random())", "spec.jitter * random()", "a fixed delay is none", RETRY),
    Mutant("core/retry.py", "if any(name in spec.give_up_on for name in type_names):", "if False:",
           "what shall be given up is retried", RETRY),
    Mutant("core/retry.py", "not spec.on or any(", "any(", "a policy for all types covers none", RETRY),
    Mutant("engine/ops.py", "want -= len(total.claimed.claims) - before", "", "a cluster's queues give more jobs than were wanted",
           operation("more_than_was_wanted", server="cluster")),
    Mutant("engine/ops.py", "        if total.claimed.claims:\n            take_suspects = False", "        if False:\n            take_suspects = False",
           "on a cluster a suspect is claimed with others", operation("suspect_of_one_queue", server="cluster")),
    Mutant("engine/ops.py", "item.delay_ms or item.keep_ms", "item.keep_ms", "a retry does not wait"),
    Mutant("engine/ops.py", "suspect = bool(is_suspect)", "suspect = False", "a consumer does not know that it runs a suspect"),
    Mutant("engine/ops.py", "int(fence), count is not None", "int(fence), False",
           "who adopts a suspect does not know it"),
    Mutant("engine/ops.py", "key = (item.queue, item.kind, item.is_suspect)", "key = (item.queue, item.kind, False)",
           "a suspect is settled as if it were none"),
]  # fmt: skip

TIED = ("tests/engine/test_ties.py", "tests/engine/test_ties_histories.py", "-k", "not redis7 and not cluster")
TIES = [
    Mutant(
        "include/ties.lua",
        "if owners[i] == rest.owners[i] then",
        "if owners[i] then",
        "a settled job frees the key of another",
        TIED,
    ),
    Mutant(
        "include/ties.lua",
        "if ties.u and not ties.m then rest",
        "if ties.u then rest",
        "a key for a time is free when its job is settled",
        TIED,
    ),
    Mutant(
        "include/ties.lua",
        "if #rest.ids > 0 then redis.call('HDEL', q.ties, unpack(rest.ids)) end",
        "",
        "settled jobs keep their ties",
        TIED,
    ),
    Mutant(
        "include/ties.lua",
        "(limit.c or not is_calm(q)) then redis.call('SREM'",
        "false then redis.call('SREM'",
        "slots are never freed",
        TIED,
    ),
    Mutant(
        "include/ties.lua",
        "if at then redis.call('HSET'",
        "if false then redis.call('HSET'",
        "what was given back unstarted has cost its share",
        TIED,
    ),
    Mutant(
        "include/ties.lua",
        "      redis.call('ZADD', key_of(q, 'gates'), 0, limit.n)\n",
        "",
        "a freed slot lets nobody in",
        TIED,
    ),
    Mutant(
        "include/ties.lua",
        "if is_unstarted and ties.s then",
        "if false then",
        "a job given back has lost its unique key",
        TIED,
    ),
    Mutant(
        "include/ties.lua",
        "if ties.u and not ties.m and",
        "if ties.u and",
        "a key for a time is freed with its job",
        TIED,
    ),
    Mutant(
        "include/ties.lua",
        "ties.u) == id then redis.call('HDEL'",
        "ties.u) then redis.call('HDEL'",
        "a job frees the key of another",
        TIED,
    ),
    Mutant("include/ties.lua", "  redis.call('HDEL', q.ties, id)\n", "", "an ended job keeps its ties", TIED),
    Mutant(
        "include/ties.lua",
        "  redis.call('ZREM', key_of(q, 'parked'), id)\n",
        "",
        "a job that goes on is still listed as parked",
        TIED,
    ),
    Mutant(
        "include/limits.lua",
        "if takes_slot and has_slot and flags < 2 then return 'later' end",
        "",
        "one consumer takes several slots",
        TIED,
    ),
    Mutant(
        "include/limits.lua",
        "has_slot and flags < 2 then",
        "has_slot then",
        "an event loop takes one slot a round trip",
        TIED,
    ),
    Mutant(
        "include/ties.lua",
        "(has_ended or not limit.f) and ",
        "",
        "a slot kept until the finish goes with the attempt",
        TIED,
    ),
    Mutant(
        "include/limits.lua",
        "kept, from = kept or {}, true",
        "kept = kept or {}",
        "who kept a slot waits behind those that wait for it",
        TIED,
    ),
    Mutant(
        "include/limits.lua",
        "park(q, id, where, opens, score)",
        "park(q, id, where, opens, score + LEVEL / 2)",
        "a job goes to the end of its second limit's line",
        TIED,
    ),
    Mutant(
        "include/limits.lua",
        ">= rule.c then return -1 end",
        "> rule.c then return -1 end",
        "one more runs than may",
        TIED,
    ),
    Mutant(
        "include/limits.lua",
        "if earliest > now_ms then return math.ceil(earliest) end",
        "",
        "a rate holds nothing back",
        TIED,
    ),
    Mutant(
        "include/limits.lua",
        "buckets[limit.n] + rule.p / rule.r * limit.k",
        "buckets[limit.n] + rule.p / rule.r",
        "cost is not counted",
        TIED,
    ),
    Mutant(
        "include/limits.lua",
        "tonumber(held_until) > now_ms then return tonumber(held_until) end",
        "tonumber(held_until) < now_ms then return tonumber(held_until) end",
        "a held limit lets jobs through",
        TIED,
    ),
    Mutant(
        "include/limits.lua",
        "if limit.n ~= from and from ~= true and (",
        "if false and (",
        "a later job passes those that are parked",
        TIED,
    ),
    Mutant(
        "include/limits.lua",
        "local score = front or (100 - priority_of(record)) * LEVEL",
        "local score = front or 0",
        "urgent jobs do not overtake",
        TIED,
    ),
    Mutant("include/turns.lua", "step = 1 / (weights[n] or 1)", "step = 1", "weights do not count", TIED),
    Mutant(
        "include/turns.lua",
        "and line[place - 1].at > group.at do",
        "and false do",
        "a group of great weight waits for all others",
        TIED,
    ),
    Mutant(
        "include/turns.lua",
        "if #empty > 0 then redis.call('ZREM', groups, unpack(empty)) end",
        "",
        "an empty group has its turn for ever",
        TIED,
    ),
    Mutant(
        "include/turns.lua",
        "if redis.call('EXISTS', q.ready, pop and q.priority or q.ready) > 0 then take_part(q, '') end",
        "",
        "jobs without a group starve",
        TIED,
    ),
    Mutant(
        "include/limits.lua",
        "  if ties.s and redis.call('HGET'",
        "  if false and redis.call('HGET'",
        "a key until the start is kept longer",
        TIED,
    ),
    Mutant(
        "include/place.lua",
        "    if before then\n",
        "    if false then\n",
        "a limited job that comes back loses its turn",
        TIED,
    ),
    Mutant(
        "include/unique.lua",
        "    redis.call('ZADD', key_of(q, 'throttled'), now_ms + ties.m, ties.u)\n",
        "",
        "a key for a time is kept for ever",
        TIED,
    ),
    Mutant(
        "enqueue.lua",
        "local owner = mine[key] or found[n]",
        "local owner = found[n]",
        "two of one call have the same key",
        TIED,
    ),
    Mutant("enqueue.lua", "flush() -- the owner", "-- the owner", "a job of the same call is not replaced", TIED),
    Mutant("enqueue.lua", "if #held > 1 then return held end", "", "a refused duplicate is stored", TIED),
    Mutant("requeue.lua", "if owner and owner ~= id then return owner end", "", "two live jobs have one key", TIED),
]

FIRED = ("tests/engine/test_schedules.py", "-k", "valkey or declares or gone")
_MAY = "if may ~= true then return may end"

SCHEDULES = [
    Mutant("fire.lua", _MAY, "", "a tick is fired by what was changed since the look, and undoes it", FIRED),
    Mutant("fire.lua", "if now_ms < tonumber(tick) then return 'early' end", "", "a tick is fired early", FIRED),
    Mutant("fire.lua", "if not ends or tonumber(ends) <= now_ms then return 'lapsed' end", "",
           "a schedule that no code declares makes jobs", FIRED),
    Mutant("fire.lua", "if #live > 0 then return live end", "", "jobs overlap that must not", FIRED),
    Mutant("fire.lua", "if redis.call('HEXISTS', q.jobs, id) == 1 then return 0 end", "", "a tick's job is made again", FIRED),
    Mutant("fire.lua", "if ties and ties.u and owner_of(q, ties.u, now_ms) then return 0 end", "",
           "a tick's job takes a unique key that is taken", FIRED),
    Mutant("fire.lua", "if due > now_ms then", "if false then", "jitter is left out", FIRED),
    Mutant("fire.lua", "redis.call('HINCRBY', q.stats, 'enqueued', made)", "", "jobs of ticks are not counted", FIRED),
    Mutant("fire.lua", "write_entry(q, name, new, look_at)", "", "a schedule stands at its tick for ever", FIRED),
    Mutant("schedule_put.lua", _MAY, "", "a change overwrites another", FIRED),
    Mutant("schedule_put.lua", "if lease_ms > 0 then", "if false then", "a declaration holds for no time", FIRED),
    Mutant("schedule_renew.lua", "tonumber(ends) > now_ms and 'other' or 'lapsed'", "'other' or 'other'",
           "a deploy that was taken back stays", FIRED),
    Mutant("schedule_renew.lua", "state = 'idle'", "", "what was set aside stays so", FIRED),
    Mutant("include/schedule.lua", "if look_at == '' then redis.call('ZREM'", "if false then redis.call('ZREM'",
           "a paused schedule is looked at", FIRED),
    Mutant("include/schedule.lua", "if (stored or '') == new then return 'done' end", "",
           "who asks again is told that it failed", ("tests/engine/test_lost_replies.py", "-k", "fire or schedule")),
    Mutant("tend.lua", "tonumber(tick[2] or -1)", "-1", "no worker wakes for a tick", FIRED),
]  # fmt: skip

JOINED = ("tests/engine/test_edges.py", "tests/engine/test_graphs.py", "-k", "not redis7 and not cluster")
EDGES = [
    Mutant(
        "include/edges.lua",
        "return when == 'a' or",
        "return false or",
        "a step that runs whatever happens does not",
        JOINED,
    ),
    Mutant(
        "include/edges.lua",
        "has_failed = state == FAILED or state == EXPIRED",
        "has_failed = state ~= 6",
        "a cancel counts as a failure",
        JOINED,
    ),
    Mutant(
        "include/edges.lua",
        "left = left - redis.call('HSETNX'",
        "left = left - 1 - 0 * redis.call('HSETNX'",
        "an input sent twice counts twice",
        JOINED,
    ),
    Mutant(
        "include/edges.lua",
        "if left == 0 then",
        "if left == 1 then",
        "a step does not wait for the last of its inputs",
        JOINED,
    ),
    Mutant(
        "include/edges.lua",
        "  redis.call('HDEL', key_of(q, 'waiting'), unpack(ids))\n",
        "",
        "a step that starts is still waiting",
        JOINED,
    ),
    Mutant(
        "include/edges.lua",
        "if edge.q ~= '' or count > budget then",
        "if edge.q ~= '' then",
        "one script follows any number of edges",
        JOINED,
    ),
    Mutant(
        "include/edges.lua",
        "if never then",
        "if false then",
        "a step that can never run waits for ever",
        JOINED,
    ),
    Mutant("include/ties.lua", "if ties.e and record then", "if false then", "edges are not followed", JOINED),
    Mutant(
        "include/ties.lua",
        "      redis.call('DEL', key_of(q, 'inputs:' .. id), key_of(q, 'expects:' .. id))\n",
        "",
        "inputs are left behind",
        JOINED,
    ),
    Mutant("requeue.lua", "if missing > 0 then", "if false then", "a step put back does not wait", JOINED),
    Mutant(
        "link.lua", "then return 1 end\n", "then ties.e[#ties.e + 1] = edge end\n", "an edge is noted twice", JOINED
    ),
    Mutant(
        "link.lua",
        "if state_of(record) ~= LIVE then",
        "if false then",
        "who waits for a job that has ended waits for ever",
        JOINED,
    ),
    Mutant("enqueue.lua", "check == '2' and (", "false and (", "a flow stored again is doubled", JOINED),
    Mutant(
        "settle.lua", "if rare_ones then rare_ones.follow(q) end", "", "a settled job's edges are not followed", JOINED
    ),
]

EDGES += [
    Mutant("include/edges.lua", "elseif not is_there[n] then", "else", "of inputs that come together, one sent twice counts twice", JOINED),
    Mutant("include/edges.lua", "if #counts > 0 then", "if false then", "inputs that come together are not counted", JOINED),
    Mutant("include/edges.lua", "if #values > 0 then", "if false then", "inputs that come together are lost", JOINED),
]  # fmt: skip
TIES += [
    Mutant("enqueue.lua", "if tie.l or tie.s or tie.i or tie.v then", "if false then", "claims pass over what hangs on jobs", TIED),
    Mutant("tend.lua", "if redis.call('EXISTS', q.ties) == 0 then redis.call('HDEL', q.meta, 'weighs') end",
           "redis.call('HDEL', q.meta, 'weighs')", "limits are forgotten while jobs have them", TIED),
    Mutant("include/limits.lua", "LEVEL + first + (n - 1) * gap", "LEVEL + first", "jobs parked together lose their order", TIED),
    Mutant("include/limits.lua", "if kept == want then", "if false then", "a claim gives more limited jobs than were wanted", TIED),
]  # fmt: skip

KEPT_TESTS = ("tests/engine/test_kept.py", "-k", "valkey")
KEPT = [
    Mutant("include/kept.lua", "if not is_held_by(q, id, session, next_session) then return false end", "",
           "a run that was taken over adds items", KEPT_TESTS),
    Mutant("include/kept.lua", "if last and tonumber(last) > tonumber(fence) then return false end", "",
           "an earlier run adds items among those of a later one", KEPT_TESTS),
    Mutant("include/kept.lua", "redis.call('SISMEMBER', held .. next_session, id) == 1", "false",
           "a run is refused while its session is adopted", KEPT_TESTS),
    Mutant("stream.lua", "if number > count then", "if number ~= count then", "an item is stored twice", KEPT_TESTS),
    Mutant("stream.lua", "redis.call('XTRIM', key, 'MAXLEN', ARGV[6])", "", "a stream grows for ever", KEPT_TESTS),
    Mutant("lines.lua", "i > tonumber(ARGV[7]) or", "", "a run keeps any number of lines", KEPT_TESTS),
    Mutant("lines.lua", "(bytes > tonumber(ARGV[8]) and i > 1)", "false", "a run keeps lines of any size", KEPT_TESTS),
    Mutant("lines.lua", "if over > 0 then", "if false then", "the lines of all runs are kept", KEPT_TESTS),
    Mutant("tend.lua", "  forget_kept(q, gone)\n", "", "a trimmed job's stream stays", KEPT_TESTS),
    Mutant("admin_purge.lua", "forget_kept(q, gone)\n", "", "a purged job's stream stays", KEPT_TESTS),
    Mutant("delete.lua", "forget_kept(q, {id})\n", "", "a deleted job's stream stays", KEPT_TESTS),
    Mutant("settle.lua", "then rare().drop_kept(q, ids[i]) end", "then end", "a dropped job's stream stays", KEPT_TESTS),
    Mutant("requeue.lua", "then add_token(q, id, 'k') end", "then end", "a job put back leaves its stream behind", KEPT_TESTS),
]  # fmt: skip

AGED = ("tests/engine/test_ageing.py", "-k", "not redis7 and not cluster")
AGEING = [
    Mutant("include/place.lua", "math.max(now() - aged.since, 0) / aged.step * LEVEL", "0", "no job ages", AGED),
    Mutant("include/place.lua", "math.max(math.ceil(risen / gap), math.floor(last / gap) + 1) * gap", "risen",
           "jobs of one instant lose their order", AGED),
    Mutant("include/place.lua", "math.ldexp(1, exponent - 52)", "1", "jobs of one call share a score after years", AGED),
    Mutant("include/place.lua", "(aged and aged.base or 0)", "0", "what is put to the front stands behind what has aged", AGED),
    Mutant("include/place.lua", "priority == 0 and not is_ageing(q)", "priority == 0", "a retried job overtakes those that wait", AGED),
    Mutant("enqueue.lua", "or found[5] and not how.is_front then", "then", "a job with ties does not age", AGED),
    Mutant("enqueue.lua", "if plain > 0 and found[5] then", "if false then", "a plain job does not age", AGED),
    Mutant("include/claim.lua", "if has_groups and rare().ageing_of(q) then return rare().take_turns(q, want, pop) end", "",
           "jobs without a group starve the groups", AGED),
    Mutant("include/limits.lua", "local first, gap = arrivals(q, #met)", "local first, gap = redis.call('HINCRBY', q.meta, 'seq', #met), 1",
           "parked jobs do not age", AGED),
    Mutant("admin_queue_set.lua", "elseif tonumber(step) ~= (aged and aged.step or nil) then", "else",
           "saying the same ageing again takes the age of what waits", AGED),
    Mutant("admin_queue_set.lua", "redis.call('HDEL', q.meta, 'ageing', 'aged', 'arrival')", "", "a queue that aged once never forgets it", AGED),
]  # fmt: skip

MUTANTS = [
    *AGEING,
    *KEPT,
    *SETTLE,
    *CLAIM,
    *PLACE,
    *SESSIONS,
    *TEND,
    *ENQUEUE,
    *TIES,
    *EDGES,
    *SCHEDULES,
    *ONE_JOB,
    *PYTHON,
]
