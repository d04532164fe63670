"""What each command prints, changes and answers; data on stdout, talk on stderr."""

import re
import threading

import msgspec
import pytest

from cli_kit import documents, lines
from headrace import Headrace, Limit
from headrace.core.record import AttemptError, Stored, decode, encode
from headrace.engine import ops, schedules
from headrace.engine.call import command
from headrace.engine.keys import queue_keys
from headrace.testing import FaultProxy


def fail_jobs(app, queue, *messages):
    """Run a job for each message by hand, and fail it with that."""
    keys = [queue_keys(queue)]
    app.client.run(ops.open_session(keys, "s", 10_000, split=False))
    claims = app.client.run(ops.claim(keys, "s", len(messages), split=False)).claims
    for claim, message in zip(claims, messages, strict=True):
        error = AttemptError(1, "ValueError", message, at_ms=5)
        record = msgspec.structs.replace(
            decode(claim.record), state=int(Stored.FAILED), attempt=1, errors=[error], ended_at_ms=9
        )
        settlement = ops.Settlement(queue, claim.id, ops.Kind.FAILED, encode(record), keep_ms=60_000)
        app.client.run(ops.settle(keys, "s", [settlement], split=False))
    app.client.run(ops.close_session(keys, "s", split=False))


def succeed_job(app, queue, result):
    """Run the next job by hand, with this result."""
    keys = [queue_keys(queue)]
    app.client.run(ops.open_session(keys, "t", 10_000, split=False))
    (claim,) = app.client.run(ops.claim(keys, "t", 1, split=False)).claims
    packed = msgspec.msgpack.encode(result)
    record = msgspec.structs.replace(decode(claim.record), state=int(Stored.SUCCEEDED), result=packed, ended_at_ms=9)
    settlement = ops.Settlement(queue, claim.id, ops.Kind.SUCCEEDED, encode(record), keep_ms=60_000)
    app.client.run(ops.settle(keys, "t", [settlement], split=False))
    app.client.run(ops.close_session(keys, "t", split=False))


def test_enqueue_prints_the_id_and_the_arguments_arrive(run, app):
    """Text by =, JSON by :=, and the options of the shell are the options of the API."""
    result = run("enqueue", "app.resize", "cat.png", "width:=400", "--queue", "low", "--priority", "3")
    assert result.exit_code == 0
    job = app.job(result.stdout.strip())
    assert (job.args, job.kwargs, job.queue, job.priority) == (["cat.png"], {"width": 400}, "low", 3)
    delayed = run("enqueue", "app.resize", "--delay", "10m", "--json")
    assert documents(delayed)[0]["state"] == "scheduled"


def test_a_taken_job_id_is_refused(run):
    """Exit code 4, and one sentence."""
    assert run("enqueue", "t", "--job-id", "mine").exit_code == 0
    again = run("enqueue", "t", "--job-id", "mine")
    assert again.exit_code == 4
    assert again.stdout == ""
    assert again.stderr.startswith("headrace: job_id mine is taken")


def test_the_app_checks_the_arguments_before_anything_is_sent(run, app, tmp_path, monkeypatch):
    """With -A an unknown task or a wrong argument is wrong use; nothing is stored."""
    (tmp_path / "shopjobs.py").write_text(
        "from headrace import Headrace\napp = Headrace()\n\n\n@app.task\ndef resize(path: str, width: int = 800): ...\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    wrong = run("-A", "shopjobs:app", "enqueue", "shopjobs.resize", "cat.png", "height:=3")
    assert wrong.exit_code == 2
    assert "height" in wrong.stderr
    unknown = run("enqueue", "shopjobs.resise", "-A", "shopjobs.py")
    assert unknown.exit_code == 2
    assert "its tasks: shopjobs.resize" in unknown.stderr
    assert lines(run("job", "ls")) == []
    assert run("enqueue", "shopjobs.resize", "cat.png", "-A", "shopjobs").exit_code == 0


def test_queues_are_listed_paused_resumed_and_purged(run, app):
    """Tab-separated in a pipe, a document a line with --json; a purge asks, or wants --yes."""
    for n in range(3):
        app.enqueue("t", n)
    assert lines(run("queue", "ls")) == [["default", "3", "0", "0", "0", "0", "0", ""]]
    assert run("queue", "pause", "default", "--reason", "deploy").exit_code == 0
    assert documents(run("queue", "show", "default", "--json"))[0]["paused"] == "deploy"
    assert run("queue", "resume", "default").exit_code == 0
    refused = run("queue", "purge", "default")
    assert (refused.exit_code, refused.stdout) == (4, "")
    assert "pass --yes" in refused.stderr
    assert run("queue", "purge", "default", "--dry-run").stdout == "3\n"
    assert run("queue", "purge", "default", "--yes").stdout == "3\n"
    assert lines(run("queue", "ls"))[0][1] == "0"


def test_a_queue_that_is_not_there_is_not_found(run):
    """Exit code 3, and the names there are."""
    result = run("queue", "show", "nope")
    assert (result.exit_code, result.stdout) == (3, "")
    assert "no queue 'nope'" in result.stderr


def test_jobs_are_listed_shown_cancelled_retried_and_deleted(run, app):
    """By id; what cannot be done is refused with why."""
    job = app.enqueue("mail.send", "an", subject="chào")
    assert lines(run("job", "ls"))[0][:4] == [job.id, "default", "mail.send", "queued"]
    shown = documents(run("job", "show", job.id, "--json"))[0]
    assert (shown["args"], shown["kwargs"]) == (["an"], {"subject": "chào"})
    assert run("job", "retry", job.id).exit_code == 4
    assert run("job", "cancel", job.id).stdout == f"{job.id}\n"
    assert lines(run("job", "ls", "--state", "cancelled"))[0][0] == job.id
    assert run("job", "cancel", job.id).exit_code == 4
    assert run("job", "retry", job.id).exit_code == 0
    assert run("job", "delete", job.id).exit_code == 4
    assert run("job", "delete", job.id, "--yes").exit_code == 0
    assert run("job", "show", job.id).exit_code == 3


def test_a_limit_and_a_filter_narrow_the_list(run, app):
    """And stderr says when there is more."""
    for n in range(5):
        app.enqueue("a.one", n)
        app.queue("low").enqueue("b.two", n)
    result = run("job", "ls", "--limit", "4")
    assert len(lines(result)) == 4
    assert "more than 4" in result.stderr
    assert {line[2] for line in lines(run("job", "ls", "--filter", "queue:low"))} == {"b.two"}
    assert len(lines(run("job", "ls", "--task", "a.one", "--since", "1h"))) == 5
    assert len(lines(run("job", "cancel", "--filter", "task:b.two", "--yes"))) == 5


def test_many_are_found_by_arguments_and_age_and_acted_on_after_their_number_was_asked_about(run, app):
    """The dashboard's language: shown first with --dry-run, refused without --yes where nobody can be asked, then done."""
    jobs = [app.options(delay=600, tags=["vip"]).enqueue("mail.send", user={"id": n}) for n in range(4)]
    assert run("job", "ls", "--filter", "args.user.id:2 since:1h").stdout.split("\t")[0] == jobs[2].id
    assert run("job", "ls", "--filter", "args.user.id:2 since:nine").exit_code == 2
    assert run("job", "run", "--filter", "tag:vip", "--dry-run").stdout.split() == [job.id for job in jobs]
    refused = run("job", "run", "--filter", "tag:vip")
    assert refused.exit_code == 4
    assert "Run 4 jobs now?" in refused.stderr
    assert len(lines(run("job", "run", "--filter", "tag:vip", "--yes"))) == 4
    assert {line[3] for line in lines(run("job", "ls"))} == {"queued"}
    again = run("job", "run", jobs[0].id)
    assert (again.exit_code, again.stdout) == (4, "")
    assert "does not wait for a time" in again.stderr
    assert run("job", "delete", "--filter", "tag:vip").exit_code == 4
    assert len(lines(run("job", "delete", "--filter", "tag:vip", "--yes"))) == 4


def test_a_queue_keeps_an_index_when_it_is_asked_to(run, app):
    """Jobs are found as before, and the index goes when it is no longer wanted."""
    app.options(queue="mail", tags=["vip"]).enqueue("mail.send", 1)
    assert run("queue", "index", "none").exit_code == 3
    assert "keeps an index" in run("queue", "index", "mail").stderr
    app.options(queue="mail", tags=["vip"]).enqueue("mail.send", 2)
    assert len(lines(run("job", "ls", "--filter", "tag:vip"))) == 2
    assert len(lines(run("job", "cancel", "--filter", "tag:vip", "--yes"))) == 2
    assert run("check").exit_code == 0
    assert run("queue", "index", "mail", "--off").exit_code == 0
    assert len(lines(run("job", "ls", "--filter", "tag:vip state:cancelled"))) == 2


def test_a_job_is_cloned_as_it_is_or_with_other_arguments(run, app):
    """Its task, tags and priority stay; the queue, the time and the arguments are what was said."""
    job = app.options(priority=3, tags=["vip"], unique="once:1").enqueue("mail.send", "an", size=5)
    same = run("job", "clone", job.id).stdout.strip()
    (shown,) = documents(run("job", "show", same, "--json"))
    assert (shown["task"], shown["args"], shown["kwargs"], shown["priority"]) == ("mail.send", ["an"], {"size": 5}, 3)
    assert shown["options"]["g"] == ["vip"]
    other = run("job", "clone", job.id, "binh", "html:=true", "--to", "low", "--delay", "10m", "--priority", "0")
    (shown,) = documents(run("job", "show", other.stdout.strip(), "--json"))
    assert (shown["queue"], shown["state"], shown["priority"]) == ("low", "scheduled", 0)
    assert (shown["args"], shown["kwargs"]) == (["binh"], {"size": 5, "html": True})
    assert run("job", "clone", "nothing").exit_code == 3


def test_wait_prints_the_result_and_its_code_tells_the_end(run, app):
    """0 with the result, 1 when it failed, 124 when it has not ended in time."""
    good, bad, slow = app.enqueue("t"), app.queue("bad").enqueue("t"), app.queue("slow").enqueue("t")
    succeed_job(app, "default", {"words": 17})
    fail_jobs(app, "bad", "no such page")
    assert (run("job", "wait", good.id).stdout, run("job", "wait", good.id).exit_code) == ('{"words":17}\n', 0)
    failed = run("job", "wait", bad.id)
    assert (failed.exit_code, failed.stdout) == (1, "")
    assert "ValueError: no such page" in failed.stderr
    assert run("job", "wait", slow.id, "--timeout", "50ms").exit_code == 124


def test_wait_is_told_when_the_job_ends(run, app):
    """It does not ask again and again: the end rings."""
    job = app.enqueue("t")
    ender = threading.Timer(0.2, succeed_job, (app, "default", "done"))
    ender.start()
    assert run("job", "wait", job.id, "--timeout", "20s").stdout == "done\n"
    ender.join()


def test_wait_goes_on_when_its_connection_was_lost(run, app, url):
    """As job.result() does."""
    watched = queue_keys("default").watched
    with FaultProxy(url) as link:

        def reset_and_end():
            while not app.client.run(command("EXISTS", watched, key=watched, decode=int)) or link.connections < 2:
                pass
            link.reset_all()
            succeed_job(app, "default", "done")

        job = app.enqueue("t")
        ender = threading.Thread(target=reset_and_end)
        ender.start()
        done = run("--url", link.url, "job", "wait", job.id, "--timeout", "20s")
        ender.join()
    assert done.stdout == "done\n", done.stderr


def test_failures_are_grouped_and_a_group_is_retried_or_purged(run, app):
    """Grouped by what went wrong, whatever numbers stand in it."""
    for n in range(5):
        app.enqueue("t", n)
    fail_jobs(app, "default", "row 1", "row 2", "row 3", "disk", "disk")
    groups = lines(run("dead", "ls"))
    assert [(line[1], line[4].rstrip("123")) for line in groups] == [
        ("3", "ValueError: row "),
        ("2", "ValueError: disk"),
    ]
    rows, disk = groups[0][0], groups[1][0]
    assert run("dead", "retry").exit_code == 2
    assert run("dead", "retry", rows).exit_code == 4
    assert run("dead", "retry", rows, "--dry-run").stdout == "3\n"
    assert run("dead", "retry", rows, "--yes").stdout == "3\n"
    assert run("dead", "purge", disk, "--yes").stdout == "2\n"
    assert lines(run("dead", "ls")) == []
    assert lines(run("queue", "ls"))[0][1] == "3"


def test_workers_are_listed_and_told(run, app):
    """A command waits for the worker's next beat; one that is not there is not found."""
    info = msgspec.msgpack.encode({"host": "web1", "pid": 7, "pool": "prefork", "queues": ["high", "low"]})
    app.client.run(ops.beat("hr", "web1-7", info))
    (row,) = documents(run("workers", "ls", "--json"))
    assert (row["id"], row["pid"], row["queues"]) == ("web1-7", 7, ["high", "low"])
    assert run("workers", "quiet", "web1-7").stdout == "web1-7\n"
    assert app.client.run(ops.beat("hr", "web1-7", info)) == "quiet"
    assert run("workers", "stop", "--all").exit_code == 0
    assert app.client.run(ops.beat("hr", "web1-7", info)) == "stop"
    assert run("workers", "stop", "web2").exit_code == 3


def report(days: int = 1): ...


def test_schedules_are_listed_changed_and_run(run, app):
    """What is declared stays beside what was changed; next ticks are shown on the schedule's own clock."""
    app.cron("0 2 * * *", tz="Asia/Ho_Chi_Minh", name="nightly", args=[7])(app.task(report))
    (declared,) = app.declared_schedules()
    app.client.run(schedules.declare("hr", declared, is_start=True))
    ((name, queue, state, when, tick, last, fired, changed),) = lines(run("schedule", "ls"))
    assert (name, queue, state, when) == ("nightly", "default", "active", "0 2 * * * Asia/Ho_Chi_Minh")
    assert tick.endswith("T02:00:00+07:00")
    assert (last, fired, changed) == ("", "0", "")
    ticks = lines(run("schedule", "next", "nightly", "-n", "2"))
    assert (ticks[0][0], ticks[0][1][10:]) == (tick, "T19:00:00+00:00")
    assert run("schedule", "skip", "nightly").stderr == f"schedule nightly is active, next {ticks[1][0]}\n"
    assert run("schedule", "change", "nightly", "--cron", "0 5 * * *", "--overlap", "skip").exit_code == 0
    shown = documents(run("schedule", "show", "nightly", "--json"))[0]
    assert (shown["declared"]["cron"], shown["changed"]["cron"]) == ("0 2 * * *", "0 5 * * *")
    assert (shown["now"]["cron"], shown["now"]["overlap"], len(shown["next_ticks"])) == ("0 5 * * *", "skip", 5)
    assert "@" in shown["changed_by"]
    assert run("schedule", "reset", "nightly").exit_code == 0
    assert lines(run("schedule", "ls"))[0][3] == when
    assert run("schedule", "pause", "nightly", "--reason", "deploy").stderr == "schedule nightly is paused\n"
    assert documents(run("schedule", "ls", "--json"))[0]["pause_reason"] == "deploy"
    assert lines(run("schedule", "next", "nightly")) == []
    job = app.job(run("schedule", "run", "nightly").stdout.strip())
    assert (job.args, job.state) == ([7], "queued")
    assert run("schedule", "resume", "nightly").stderr.startswith("schedule nightly is active, next ")


def test_what_cannot_be_done_with_a_schedule_has_its_exit_code(run, app):
    """Wrong use 2, not found 3, refused 4; what running code declares cannot be removed."""
    assert run("schedule", "show", "nope").exit_code == 3
    assert run("schedule", "pause", "a b").exit_code == 2
    assert lines(run("schedule", "ls")) == []
    task = app.task(report)
    app.schedules.add("s", task.call(), every=60)
    wrong = run("schedule", "change", "s", "--cron", "61 * * * *")
    assert (wrong.exit_code, wrong.stderr) == (2, "headrace: cron '61 * * * *': minute 61 not in 0-59\n")
    assert run("schedule", "change", "s").exit_code == 2
    assert run("schedule", "change", "s", "--every", "10m", "--jitter", "5s", "--catch-up", "3").exit_code == 0
    assert app.schedules.get("s").changed == {"cron": None, "every": 600.0, "jitter": 5.0, "catch_up": 3}
    assert run("schedule", "rm", "s").exit_code == 4
    assert run("schedule", "rm", "s", "--yes").exit_code == 0
    assert app.schedules.list() == []


def test_ping_and_check_pass_on_a_sound_server(run, app):
    """Check names version, policy, persistence and clock, and looks through every queue."""
    app.enqueue("t")
    assert run("ping").exit_code == 0
    result = run("check")
    assert result.exit_code == 0
    assert {"server", "maxmemory-policy", "persistence", "clock", "queue default"} <= {
        line[1] for line in lines(result)
    }


@pytest.mark.damages
def test_check_fails_when_a_job_is_nowhere(run, app):
    """It names the job; exit code 1."""
    job = app.enqueue("t")
    keys = queue_keys("default")
    app.client.run(ops.command("LREM", keys.ready, 0, job.id, key=keys.ready, decode=int))
    result = run("check")
    assert result.exit_code == 1
    assert f"job {job.id} has not ended, but stands nowhere" in result.stdout


def test_check_repairs_what_it_found_when_it_may(run, app):
    """It asks, or wants --yes; what is mended is told; the next check is clean and the job can be claimed."""
    job = app.enqueue("t")
    keys = queue_keys("default")
    app.client.run(ops.command("LREM", keys.ready, 0, job.id, key=keys.ready, decode=int))
    refused = run("check", "--repair")
    assert refused.exit_code == 4
    assert "pass --yes" in refused.stderr
    assert run("check").exit_code == 1
    mended = run("check", "--repair", "--yes")
    assert mended.exit_code == 0, mended.output
    assert [
        "mended",
        "queue default",
        f"job {job.id} has not ended, but stands nowhere: no worker will find it",
    ] in lines(mended)
    assert "0 wrong" in mended.stderr and "1 mended" in mended.stderr
    assert run("check").exit_code == 0
    assert app.client.run(ops.command("LRANGE", keys.ready, 0, -1, key=keys.ready, decode=list)) == [job.id.encode()]


@pytest.mark.damages
def test_check_names_a_queue_that_it_cannot_read(run, app):
    """A foreign key under our prefix: that queue is wrong, the others are looked at all the same."""
    app.enqueue("t")
    app.queue("low").enqueue("t")
    keys = queue_keys("default")
    app.client.run(ops.command("UNLINK", keys.ready, key=keys.ready, decode=int))
    app.client.run(ops.command("SET", keys.ready, "mine", key=keys.ready, decode=lambda _: None))
    result = run("check")
    assert result.exit_code == 1
    verdicts = {line[1]: line[0] for line in lines(result)}
    assert ("wrong", "ok") == (verdicts["queue default"], verdicts["queue low"])


def test_status_needs_attention_when_jobs_wait_for_no_worker(run, app):
    """Exit code 1 and what to do; 0 when there is nothing to say."""
    assert run("status").exit_code == 0
    app.enqueue("t")
    result = run("status", "--json")
    assert result.exit_code == 1
    assert "headrace worker default" in documents(result)[0]["attention"][0]


def test_shared_options_may_stand_before_or_after_the_command(run, app, url, monkeypatch):
    """The one nearer to the command counts, and both count more than the environment."""
    monkeypatch.setenv("HEADRACE_URL", "redis://127.0.0.1:1/0")
    assert run("--url", url, "ping").exit_code == 0
    assert run("ping", "--url", url).exit_code == 0
    assert run("--url", "redis://127.0.0.1:2/0", "ping", "--url", url).exit_code == 0
    assert run("ping").exit_code == 69


def test_a_terminal_gets_a_table(run, app, monkeypatch):
    """With a head; FORCE_COLOR stands for a terminal."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    app.enqueue("t")
    plain = re.sub(r"\x1b\[[0-9;]*m", "", run("queue", "ls").stdout)
    assert re.search(r"queue +queued +running", plain)


@pytest.mark.parametrize(
    "words",
    [["--help"], ["worker", "-h"], ["queue", "--help"], ["job", "ls", "--help"], ["dev", "--help"], ["demo", "--help"]],
)
def test_every_help_has_examples(run, words):
    """And says which environment variable stands for a flag."""
    result = run(*words)
    assert result.exit_code == 0
    assert re.search(r"Examples?:\n", result.stdout)
    assert "env var: HEADRACE_URL" in re.sub(r"\s+", " ", result.stdout) or words == ["queue", "--help"]


def test_limits_are_listed_set_reset_and_held(run, app):
    """What is set or held is listed; a wrong rate is wrong use; `reset` forgets it."""
    app.enqueue("t", 1)
    assert lines(run("limit", "ls")) == []
    assert (
        run("limit", "set", "mail:{account}", "--queue", "default", "--rate", "50/min", "--concurrency", "3").exit_code
        == 0
    )
    assert lines(run("limit", "ls"))[0][:3] == ["default", "mail:{account}", "50/60s, 3 at once"]
    assert run("limit", "hold", "mail:7", "--queue", "default", "--for", "10m").exit_code == 0
    held = next(row for row in documents(run("limit", "ls", "--json")) if row["limit"] == "mail:7")
    assert held["held_until"] is not None
    wrong = run("limit", "set", "mail", "--queue", "default", "--rate", "often")
    assert wrong.exit_code == 2
    assert "100/min" in wrong.stderr
    assert run("limit", "set", "mail", "--queue", "defualt", "--rate", "1/s").exit_code == 3
    assert run("limit", "reset", "mail:{account}", "--queue", "default").exit_code == 0
    assert [row[1] for row in lines(run("limit", "ls"))] == ["mail:7"]


def test_a_queue_is_bounded(run, app):
    """A full queue refuses, and says what to do; the bounds are shown."""
    app.enqueue("t", 1)
    assert run("queue", "bound", "default", "--max-length", "1", "--max-running", "4").exit_code == 0
    shown = documents(run("queue", "show", "default", "--json"))[0]
    assert (shown["max_length"], shown["max_running"], shown["overflow"]) == (1, 4, "refuse")
    full = run("enqueue", "t", "2")
    assert full.exit_code == 1
    assert "raise its max_length" in full.stderr
    assert run("queue", "bound", "default", "--ageing", "90").exit_code == 0
    assert run("enqueue", "t", "2").exit_code == 0
    assert documents(run("queue", "show", "default", "--json"))[0]["ageing"] == 90
    mixed = run("queue", "bound", "default", "--ageing", "90", "--max-length", "5", "--overflow", "drop_oldest")
    assert mixed.exit_code == 2
    assert "no oldest job to drop" in mixed.stderr


def test_jobs_of_a_group_are_cancelled_together(run, app):
    """`--filter group:` finds them wherever they wait."""
    for n in range(3):
        app.options(group=f"tenant-{n % 2}", delay=60 * (n // 2)).enqueue("t", n)
    assert len(lines(run("job", "cancel", "--filter", "group:tenant-0", "--yes"))) == 2
    assert [row[3] for row in lines(run("job", "ls", "--filter", "group:tenant-1"))] == ["queued"]


def test_flows_are_listed_shown_signalled_and_cancelled(run, app):
    """The graph is drawn in text; a signal is an input; cancel ends what has not ended."""
    flow = app.flow("import")
    first = flow.signal("approve")
    flow.add(app.options().call("t.load", 1), after=[first])
    flow.add(app.options().call("t.undo", 1), after=[first], when="failed")
    flow_run = flow.enqueue()
    assert lines(run("flow", "ls"))[0][:5] == [flow_run.id, "import", "running", "0", "3"]
    shown = run("flow", "show", flow_run.id).stdout
    assert "… 0 signal approve  waiting" in shown
    assert "  … 2 t.undo  waiting  after 0 (failed)" in shown
    assert run("flow", "signal", flow_run.id, "approve", "3").exit_code == 0
    assert documents(run("flow", "show", flow_run.id, "--json"))[0]["steps"][0]["states"] == {"queued": 1}
    assert run("flow", "signal", flow_run.id, "other").exit_code == 3
    assert run("flow", "cancel", flow_run.id).stdout == "3\n"
    assert lines(run("flow", "ls"))[0][2] == "cancelled"
    assert run("flow", "retry", flow_run.id).stdout == "0\n"
    assert run("flow", "show", "nope").exit_code == 3


def test_why_tells_what_stands_between_a_job_and_its_run(run, app):
    """Its place, its limit, its time, what it waits for; and what keeps the whole queue back."""
    first = app.enqueue("t", 1)
    second = app.enqueue("t", 2)
    later = app.options(delay=600).enqueue("t", 3)
    child = app.options(depends_on=second).enqueue("t", 4)
    lonely = "no worker listens to the queue default"
    assert run("why", first.id).stdout.splitlines() == ["it is next in line", lonely]
    assert run("why", second.id).stdout.splitlines()[0] == "it stands behind 1 job"
    assert "it is scheduled for " in run("why", later.id).stdout
    assert run("why", child.id).stdout.splitlines()[0] == f"it waits for 1 of these jobs to succeed: {second.id}"
    run("queue", "pause", "default", "--reason", "deploy")
    assert "the queue is paused: deploy" in documents(run("why", first.id, "--json"))[0]["reasons"]
    run("queue", "resume", "default")
    first.cancel()
    assert run("why", first.id).stdout == "it has ended: cancelled\n"
    assert run("why", "nope").exit_code == 3


def test_why_tells_a_step_of_a_flow_from_a_job_with_a_dot_in_its_id(run, app):
    """Only a flow's step is sent to `flow show`; others name the jobs they depend on. Priorities have a line of their own."""
    parent = app.enqueue("t", 1)
    dotted = app.options(depends_on=parent, job_id="invoice.7").enqueue("t", 2)
    flow = app.flow()
    flow.add(app.options().call("t", 5), after=[flow.add(app.options().call("t", 4))])
    step = flow.enqueue()
    assert run("why", dotted.id).stdout.splitlines()[0] == f"it waits for 1 of these jobs to succeed: {parent.id}"
    assert (
        run("why", f"{step.id}.1").stdout.splitlines()[0]
        == f"it waits for 1 job: headrace flow show {step.id} tells which"
    )
    urgent = [app.options(priority=5).enqueue("t", n) for n in range(2)]
    assert run("why", urgent[0].id).stdout.splitlines()[:2] == ["it is next in line", "its priority is 5"]
    assert run("why", urgent[1].id).stdout.splitlines()[:2] == ["it stands behind 1 job", "its priority is 5"]


def test_why_names_the_limit_and_the_group(run, app):
    """The limit that is full, and the turns a group takes."""
    jobs = [app.options(limits=Limit("mail", rate="1/h")).enqueue("t", n) for n in range(2)]
    grouped = [app.options(group="g").enqueue("t", n) for n in range(2)]
    assert "when it is its turn, it must pass mail" in run("why", jobs[1].id).stdout
    assert "behind 1 job of its group g" in run("why", grouped[1].id).stdout
    for _ in range(3):  # one of each, in turn; the second of the limit is passed over
        succeed_job(app, "default", None)
    told = run("why", jobs[1].id).stdout
    assert told.startswith("the limit mail is full: 0 running, 1 wait for it; it opens at ")


def test_status_tells_of_memory_and_of_schedules_that_are_late(run, app):
    """A tick that no worker fires is a reason to look; a server without a bound of memory is none."""
    job = Headrace(app.server_config.url).task(name="report")(report_of_the_tests).call()
    app.schedules.add("nightly", job, cron="0 2 * * *")
    calm = documents(run("status", "--json"))[0]
    assert calm["memory_bytes"] > 100_000 and calm["memory_most_bytes"] == 0
    assert (["nightly"], []) == ([row["name"] for row in calm["schedules"]], calm["attention"])
    keys = queue_keys("default")
    row = app.client.run(schedules.find("hr", "nightly"))
    late = msgspec.structs.replace(row.entry, next_ms=row.server_ms - 90_000)
    app.client.run(schedules._put(keys, "nightly", row.data, late))
    result = run("status", "--json")
    assert result.exit_code == 1
    assert "schedule nightly is 90 s late: no worker of queue default fires it" in documents(result)[0]["attention"]


def report_of_the_tests() -> None: ...


def test_a_jobs_timeline_is_told_in_order(run, app):
    """Made, failed attempts with their errors, its end; with the time between them, and on a terminal a line each."""
    job = app.enqueue("t")
    fail_jobs(app, "default", "no such page")
    told = documents(run("job", "show", job.id, "--json"))[0]["timeline"]
    assert {"created", "attempt 1 failed", "failed"} == {step["what"] for step in told}
    assert ["ValueError: no such page"] == [step["text"] for step in told if step["text"]]
    assert sorted(step["at"] for step in told) == [step["at"] for step in told]
    shown = run("job", "show", job.id, "--color", "always").stdout
    assert re.search(
        r"^timeline +\d{4}-.* \+0\.000 s  attempt 1 failed: ValueError: no such page$", shown, re.MULTILINE
    )
