# ruff: noqa: E402 - `rq` is pointed at the layer before anything imports it
"""A tour of a Django site with django-rq: enqueue, work, look at every page, act on what failed. Prints what it saw."""

from __future__ import annotations

import os

os.environ["DJANGO_SETTINGS_MODULE"] = "site_settings"

import django

django.setup()

import django_rq
import eco_jobs
from django.contrib.auth.models import User
from django.core.management import call_command
from django.test import Client


def main() -> None:
    call_command("migrate", verbosity=0)
    User.objects.create_superuser("root", "root@example.com", "secret")
    queue = django_rq.get_queue("default")
    good = eco_jobs.add.delay(2, 3)
    bad = queue.enqueue(eco_jobs.divide, 1, 0)
    later = django_rq.get_queue("low").enqueue(eco_jobs.plain, 4)
    assert (queue.count, good.get_status().value) == (2, "queued")
    call_command("rqworker", "default", burst=True, verbosity=0)
    good.refresh()
    bad.refresh()
    print("add", good.return_value(), "divide", bad.get_status().value)
    call_command("rqstats")

    client = Client()
    client.force_login(User.objects.get(username="root"))
    pages = [
        "/admin/",
        "/django-rq/",
        "/django-rq/queues/0/",
        "/django-rq/queues/1/",
        *(
            f"/django-rq/queues/0/{registry}/"
            for registry in ("finished", "failed", "scheduled", "started", "deferred")
        ),
        "/django-rq/workers/0/",
        f"/django-rq/queues/0/{good.id}/",
        f"/django-rq/queues/0/{bad.id}/",
        f"/django-rq/queues/1/{later.id}/",
        "/django-rq/stats.json",
    ]
    for page in pages:
        print(
            "page",
            page.replace(good.id, "GOOD").replace(bad.id, "BAD").replace(later.id, "LATER"),
            client.get(page).status_code,
        )
    told = client.get(f"/django-rq/queues/0/{bad.id}/").content.decode()
    print("traceback is shown", "ZeroDivisionError" in told)
    print("requeue", client.post(f"/django-rq/queues/0/{bad.id}/requeue/").status_code, bad.get_status().value)
    print(
        "delete",
        client.post(f"/django-rq/queues/1/{later.id}/delete/", {"post": "yes"}).status_code,
        len(django_rq.get_queue("low")),
    )


if __name__ == "__main__":
    main()
