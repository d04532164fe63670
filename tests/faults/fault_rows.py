"""Every fault and every bad input that headrace answers for, and the tests that show what it does: the source of docs/fault-matrix.md.

`tests` are ids below `tests/`, as pytest names them without parameters; `Row.absent` says why a row has none.
"""

from __future__ import annotations

from dataclasses import dataclass

F = "scenarios/test_faults.py::"
CRASH = "scenarios/test_crash_points.py::"
ROUGH = "scenarios/test_rough_jobs.py::"
LIVES = "scenarios/test_lives.py::"
NET = "scenarios/test_network.py::"
LINKS = "scenarios/test_links.py::"
STORM = "scenarios/test_storm.py::"
OVER = "scenarios/test_failover.py::"
SERVERS = "engine/test_servers.py::"
OPS = "engine/test_operations.py::"
LOST = "engine/test_lost_replies.py::"
CALLS = "engine/test_cancelled_calls.py::"
TLS = "engine/test_tls.py::"
TORTURE = "scenarios/test_torture.py::"
TICKS = "scenarios/test_ticks.py::"
LIMITS = "scenarios/test_limits.py::"
WIRE = "test_wire.py::"
ENQUEUE = "app/test_enqueueing.py::"
REGISTER = "app/test_registering.py::"
OPTIONS = "core/test_options.py::"
CRON = "core/test_cron.py::"
OUTCOME = "core/test_outcome.py::"
EXIT = "cli/test_exit_codes.py::"
VALUES = "cli/test_values.py::"
AUDIT = "engine/test_audit.py::"
TIES = "core/test_ties.py::"
WEB = "web/test_dashboard.py::"
WHY = SERVERS + "test_a_producer_hears_in_one_sentence_why_it_must_wait"
ON = SERVERS + "test_a_running_worker_survives_and_goes_on"


@dataclass(frozen=True)
class Row:
    """One fault: what happens, what headrace must do, and what shows it."""

    fault: str
    must: str
    tests: tuple[str, ...] = ()
    absent: str = ""


def row(fault: str, must: str, *tests: str, absent: str = "") -> Row:
    return Row(fault, must, tests, absent)


SECTIONS: dict[str, list[Row]] = {
    "A worker dies, step by step": [
        row("after the server has handed a job out, before the worker reads that", "the lease ends, the job runs, uncharged",
            CRASH + "test_a_child_dies_and_is_replaced", LOST + "test_claims_and_outcomes_are_never_half_known"),
        row("after the claim, before the job begins", "the same", CRASH + "test_a_child_dies_and_is_replaced"),
        row("in the middle of a job", "it runs again; a death alone counts, and the third fails it",
            F + "test_a_killed_child_loses_no_job_and_is_replaced_within_a_second", OPS + "test_a_third_death_alone_fails_the_job_with_its_reason"),
        row("after the job, before its end is stored", "it runs again; an effect under the fence is had once",
            CRASH + "test_a_child_dies_and_is_replaced", "effects/test_effects.py::test_the_second_run_finds_what_the_first_has_done",
            "effects/test_effects.py::test_a_process_killed_before_its_commit_leaves_no_effect"),
        row("after its end is stored", "nothing", CRASH + "test_a_child_dies_and_is_replaced"),
        row("its end is stored, and the reply is lost", "the end stands; it is not run again",
            NET + "test_a_job_that_ends_while_its_session_is_in_doubt_is_settled_not_run_again", LOST + "test_claims_and_outcomes_are_never_half_known"),
        row("a supervisor, at any of its steps", "another worker takes over", CRASH + "test_a_supervisor_dies_and_another_worker_takes_over",
            CRASH + "test_a_supervisor_dies_as_it_gives_back_a_dead_childs_jobs", CRASH + "test_a_supervisor_dies_around_a_tick"),
        row("a producer, at any of its steps", "its job is stored whole, or not", CRASH + "test_a_producer_dies_with_its_job_stored_or_not",
            CRASH + "test_a_producer_dies_as_it_stores_a_flow", CRASH + "test_every_point_is_tried"),
    ],
    "Processes and machines": [
        row("the job's process is killed for its memory", "the death is told with its signal and peak memory; the job runs again",
            F + "test_a_killed_child_loses_no_job_and_is_replaced_within_a_second", "worker/test_spawner.py::test_a_death_is_told_with_its_signal_and_peak_memory"),
        row("the supervisor is killed", "its children end with it: no job runs beside its next run", F + "test_a_killed_supervisor_takes_its_children_along"),
        row("the machine is gone", "its jobs are taken over when its leases end", F + "test_a_dead_worker_is_taken_over_when_its_leases_end",
            F + "test_a_worker_just_started_takes_over_within_25_seconds"),
        row("SIGTERM at a deploy", "what runs may finish, the rest goes back uncharged",
            F + "test_sigterm_lets_the_running_job_finish_and_gives_the_rest_back", F + "test_grace_over_the_job_is_released_uncharged"),
        row("SIGSTOP, or a sleeping machine, for longer than the lease", "what the older run gives is refused",
            STORM + "test_a_paused_worker_does_not_run_jobs_twice_for_ever", LIVES + "test_a_child_whose_lease_was_lost_is_killed_and_its_job_ends_once",
            LIVES + "test_what_an_older_run_gives_is_dropped_when_its_own_process_has_claimed_the_job_anew"),
        row("a job hangs in Python", "it is stopped at its timeout", F + "test_a_job_over_its_timeout_is_stopped"),
        row("a job hangs in C and holds the GIL", "its process is killed; its neighbours go back uncharged",
            F + "test_a_job_that_holds_the_gil_over_its_timeout_is_killed"),
        row("a job hangs in a blocking call", "it is stopped at its timeout", F + "test_a_job_over_its_timeout_is_stopped",
            F + "test_a_job_that_holds_the_gil_over_its_timeout_is_killed"),
        row("a fork after threads were started", "such an app is refused, and told how to start fresh interpreters",
            LIVES + "test_an_app_that_starts_threads_while_it_is_imported_is_refused", LIVES + "test_children_may_be_fresh_interpreters"),
        row("a job leaves processes behind", "they end with its child", F + "test_processes_a_job_left_behind_end_with_its_child"),
        row("a job changes its folder, umask, signals, random numbers, timeouts; closes all files", "the jobs after it run; none runs for ever",
            ROUGH + "test_a_job_that_changes_its_process_harms_no_other"),
        row("too few file descriptors", "said in words; the job is still there", ROUGH + "test_a_worker_that_may_open_too_few_files_says_so_and_loses_nothing"),
        row("the log's disk is full, or its reader gone", "jobs run on", ROUGH + "test_a_full_log_disk_stops_no_job"),
        row("memory grows from job to job", "the child is replaced between two jobs", LIVES + "test_a_child_that_has_grown_too_large_is_replaced_between_two_jobs"),
    ],
    "The server": [
        row("restarts without persistence", "`headrace check` warns before; a worker goes on and tells its queues again",
            SERVERS + "test_a_worker_tells_its_queues_again_to_a_server_that_lost_them", "faults/test_matrix.py::test_a_check_warns_of_a_server_that_keeps_nothing"),
        row("is killed, with an append-only file", "no acknowledged job is lost", STORM + "test_a_server_restart_loses_nothing", TORTURE + "test_a_short_torture_loses_nothing"),
        row("is killed with its disk in step (`appendfsync always`)", "the same", TORTURE + "test_a_minute_of_torture_loses_nothing"),
        row("LOADING", "waited for", SERVERS + "test_a_server_that_loads_its_data_is_waited_for"),
        row("is full (noeviction)", "producers hear ServerFull, workers drain",
            SERVERS + "test_a_full_server_refuses_producers_and_lets_workers_drain", STORM + "test_a_full_server_refuses_clearly_and_drains"),
        row("may evict (allkeys-*, volatile-*)", "refused, with the setting to make", SERVERS + "test_a_policy_that_deletes_queues_is_refused"),
        row("its disk is full", "MISCONF is waited out; a server that ends is a restart", WHY, ON, TORTURE + "test_what_is_done_to_the_server_is_undone"),
        row("failover to a replica that is behind", "only what was not confirmed is lost; fences grow",
            OVER + "test_a_replica_that_is_behind_loses_only_what_was_not_confirmed", OPS + "test_fences_grow_when_the_clock_stands_behind_the_last_one"),
        row("planned failover, primary killed or paused", "work goes on", OVER + "test_work_goes_on_after_the_primary_is_killed",
            OVER + "test_nothing_confirmed_is_lost_by_failovers_under_load", OVER + "test_nothing_confirmed_is_lost_by_a_pause_of_the_primary"),
        row("READONLY", "the primary is looked for again", SERVERS + "test_a_worker_waits_for_a_replica_to_be_promoted", WHY),
        row("NOREPLICAS: a primary alone", "waited out", WHY, ON),
        row("BUSY: somebody's endless script", "waited out", WHY, ON),
        row("SCRIPT FLUSH", "scripts are sent again", OPS + "test_flushed_scripts_are_sent_again", STORM + "test_a_worker_goes_on_by_itself"),
        row("is slow, asleep, paused", "waited for; no job is taken from who is well", STORM + "test_a_worker_goes_on_by_itself",
            SERVERS + "test_nobody_waits_for_long_at_a_server_that_accepts_and_says_nothing"),
        row("CLIENT KILL, too many clients", "connected again; the limit is named", STORM + "test_a_worker_goes_on_by_itself", WHY),
        row("cluster: a slot has moved, a primary dies", "followed", OVER + "test_a_cluster_goes_on_when_a_slot_moves_and_a_primary_dies",
            OVER + "test_a_cluster_goes_on_through_many_moves_and_deaths"),
        row("cluster: a slot is being moved", "waited out", OVER + "test_a_cluster_goes_on_when_a_slot_moves_and_a_primary_dies"),
        row("cluster: a key in another slot", "none: the engine's tests run on a cluster too", OPS + "test_jobs_are_claimed_in_the_order_they_came"),
        row("its clock jumps or stands still", "no job is taken from who is well; no dead session lives on",
            "scenarios/test_clock.py::test_no_running_job_is_taken_from_a_living_worker", OPS + "test_a_clock_that_was_put_back_keeps_no_dead_session",
            "worker/test_supervisor.py::test_a_jump_of_the_servers_clock_puts_the_sweep_off"),
        row("replies out of step after a cancelled call", "never: such a connection is closed", CALLS + "test_cancelled_at_any_await_a_call_leaves_no_reply_behind",
            CALLS + "test_a_call_that_timed_out_leaves_no_reply_behind"),
        row("a torn reply", "the call is sent again, and done once", NET + "test_lost_and_torn_replies_lose_no_job_and_run_none_twice"),
    ],
    "The network": [
        row("connections are reset", "connected again", NET + "test_producers_on_a_bad_link_store_each_job_once", "testing/test_proxy.py::test_open_connections_are_reset"),
        row("half open: bytes vanish", "noticed within the command's timeout", NET + "test_a_half_open_link_is_noticed_within_the_command_timeout",
            LINKS + "test_a_half_open_link_is_left_within_the_command_timeout", NET + "test_a_worker_goes_on_after_a_black_hole"),
        row("requests pass, replies are lost", "each call is done once", LOST + "test_an_operation_is_done_once", LOST + "test_jobs_are_stored_once",
            LINKS + "test_a_workers_command_is_obeyed_once_though_replies_are_lost"),
        row("Sentinels with old news", "a node that is no primary is left", SERVERS + "test_a_worker_waits_for_a_replica_to_be_promoted",
            OVER + "test_work_goes_on_after_the_primary_is_killed"),
        row("TLS: wrong certificate, authority or port", "one clear error, exit code 69", TLS + "test_a_wrong_certificate_or_port_is_told_at_once",
            TLS + "test_a_worker_with_a_wrong_certificate_ends_with_69"),
        row("many workers come back at once", "each at its own random moment", "faults/test_matrix.py::test_those_who_come_back_are_spread"),
    ],
    "What a queue must hold": [
        row("a lease ends while its job runs", "the older run's words are refused; a consumer cut off works on", LINKS + "test_a_worker_cut_off_for_long_loses_its_job_to_another_and_works_again",
            OPS + "test_a_job_taken_back_meanwhile_is_reported_lost_and_left_alone"),
        row("a poison job", "it takes only itself, three times at most", F + "test_a_poison_job_takes_only_itself"),
        row("a giant payload", "refused where it is enqueued, its largest argument named", WIRE + "test_a_payload_over_the_limit_names_its_largest_argument",
            ENQUEUE + "test_a_payload_over_the_limit_is_refused"),
        row("an argument that cannot be stored", "refused, with its path", WIRE + "test_a_value_that_cannot_be_stored_is_named_with_its_path"),
        row("a result that cannot be stored, or is too large", "the job has succeeded, and says why there is none",
            F + "test_a_result_that_cannot_be_stored_is_a_success_that_says_so", WIRE + "test_a_result_that_cannot_be_stored_says_why"),
        row("a task that this worker does not know", "no attempt: it waits for one that does", F + "test_an_unknown_task_waits_for_a_worker_that_knows_it"),
        row("arguments of another version of the task", "the same", OUTCOME + "test_what_the_job_did_not_do_is_not_charged", WIRE + "test_the_arguments_are_checked_against_the_signature"),
        row("another version of headrace", "older code leaves newer data alone", OPS + "test_a_queue_written_by_a_newer_headrace_is_left_alone",
            OPS + "test_a_record_of_a_newer_layout_waits_for_a_newer_worker", WIRE + "test_stored_payloads_can_be_read_for_ever"),
        row("a call sent twice after a timeout", "stored once", OPS + "test_a_call_sent_twice_enqueues_once", LOST + "test_jobs_are_stored_once"),
        row("many schedulers", "one job a tick", TICKS + "test_five_workers_of_which_four_are_killed_make_each_tick_once",
            "engine/test_schedules.py::test_a_tick_is_fired_once_however_many_workers_look"),
        row("summer time begins and ends", "a time that is named is neither lost nor doubled", CRON + "test_a_clock_that_is_changed_neither_loses_nor_doubles_a_named_time",
            CRON + "test_ticks_are_those_that_a_look_at_every_minute_finds"),
        row("no scheduler for hours", "caught up as asked", "engine/test_schedules.py::test_after_an_outage_what_was_missed_is_caught_up_as_asked",
            TICKS + "test_a_worker_that_comes_back_catches_up"),
        row("a queue that starves another", "weights, where they are asked for", F + "test_weighted_queues_all_get_their_share", F + "test_strict_order_runs_the_first_queue_first"),
        row("one tenant floods a queue", "groups take turns; queues may be bounded", LIMITS + "test_a_tenant_with_many_jobs_delays_another_by_little",
            "engine/test_ties.py::TestQueueLimits::test_a_full_queue_refuses_and_says_so"),
        row("a storm of retries after an outage", "spread by jitter; a rate holds", "core/test_retry.py::test_full_jitter_spreads_over_the_whole_delay", LIMITS + "test_a_rate_is_never_exceeded"),
        row("a herd at the doorbell", "one job wakes few", ROUGH + "test_one_job_wakes_few_of_many_sleepers"),
        row("a job that has expired", "it never runs", OPS + "test_an_expired_job_never_runs"),
        row("cancel, while it runs", "asked, interrupted, killed; one end", F + "test_a_running_job_is_cancelled", LIMITS + "test_a_cancelled_job_that_does_not_stop_is_killed",
            "engine/test_state_machine.py::test_no_history_loses_or_doubles_a_job"),
        row("failed jobs pile up", "kept for a time and to a number", OPS + "test_what_has_ended_is_kept_no_longer_than_asked"),
    ],
    "What the server answers": [
        row("no connection, timeout, LOADING, MASTERDOWN, NOREPLICAS, BUSY, MISCONF, READONLY, too many clients", "never the job's failure; a producer hears it in one sentence, and the id",
            WHY, SERVERS + "test_a_producer_gets_through_when_it_is_over", ON, ENQUEUE + "test_no_server_is_one_clear_error"),
        row("OOM", "never the job's failure", SERVERS + "test_a_full_server_refuses_producers_and_lets_workers_drain"),
        row("NOSCRIPT", "loaded again", SERVERS + "test_forgotten_scripts_and_broken_doorbells_are_not_noticed"),
        row("NOAUTH, NOPERM", "the missing right is named", SERVERS + "test_a_user_without_a_right_hears_which", WHY, ON),
        row("WRONGTYPE, no Redis at all", "the key is named", OPS + "test_a_foreign_key_under_our_prefix_is_named_as_such", SERVERS + "test_what_is_no_redis_at_all_is_told", WHY),
    ],
    "Bad input": [
        row("a lambda, a nested function, a bound method, a partial as a task", "TaskNotRegistered", REGISTER + "test_what_no_worker_can_find_is_refused"),
        row('the text "os.system"; a name misspelt', "TaskNotRegistered, with the nearest name", REGISTER + "test_a_worker_finds_only_what_is_registered_or_allowed",
            REGISTER + "test_a_plain_function_needs_its_module_allowed"),
        row("a missing argument, one too many, a wrong type", "ArgumentsMismatch, where it is enqueued", ENQUEUE + "test_wrong_arguments_fail_at_the_call",
            WIRE + "test_an_argument_of_the_wrong_type_is_named"),
        row("a connection, file, generator; a database row; a circle; NaN, a long integer; text with a lone surrogate", "PayloadNotSerializable, with the path",
            WIRE + "test_a_value_that_cannot_be_stored_is_named_with_its_path", WIRE + "test_a_database_row_is_told_apart"),
        row("Decimal, UUID, dates, bytes, Enum, sets, dataclasses, bools, negative zero", "exactly what it was", WIRE + "test_an_annotated_value_comes_back_as_what_it_was",
            WIRE + "test_plain_data_round_trips_exactly", WIRE + "test_subclasses_of_plain_types_travel_as_plain"),
        row("a job id, a queue name with letters that are not allowed", "UsageError, with those that are", OPTIONS + "test_a_wrong_value_names_its_option", ENQUEUE + "test_a_wrong_queue_name_is_refused"),
        row("an id that is taken; a unique key that is held", "JobExists; DuplicateJob, with the holder", ENQUEUE + "test_a_chosen_id_is_used_once", "engine/test_ties.py::TestUnique::test_raise_tells_the_holder"),
        row("delays, retries, timeouts, priorities out of range", "the option is named", OPTIONS + "test_a_wrong_value_names_its_option", OPTIONS + "test_an_unknown_option_is_answered_with_the_nearest"),
        row("a job that waits for itself, a circle, an unknown job", "DependencyError", "scenarios/test_flows.py::test_wrong_flows_are_refused_where_they_are_written"),
        row("a wrong cron expression, one that never fires, an unknown zone", "the field and the value are named", CRON + "test_a_wrong_expression_is_named_by_field_and_value", CRON + "test_an_unknown_time_zone_is_named"),
        row("a limit of 0, a cost over the burst, two limits of one name; a long name of a group", "refused, with what to write", TIES + "test_what_cannot_be_is_refused_with_what_to_write",
            TIES + "test_a_limit_with_two_sets_of_numbers_is_refused", TIES + "test_a_long_name_is_cut_and_stays_its_own"),
        row("an app used after it was closed", "says so", ENQUEUE + "test_a_closed_app_says_so"),
        row("many thousand jobs in one call", "in parts, in order", ENQUEUE + "test_many_jobs_go_in_parts_and_come_back_in_order", ENQUEUE + "test_many_refuses_before_anything_is_stored"),
        row("no server, a wrong password, a wrong URL", "one sentence, the password masked", EXIT + "test_no_server_is_one_sentence_and_69", EXIT + "test_a_wrong_password_is_one_sentence",
            ENQUEUE + "test_a_wrong_url_fails_at_once_and_hides_the_password", "engine/test_masking.py::test_a_shown_url_has_no_password"),
        row("a server that is too old, no Redis, a replica", "named as what it is", SERVERS + "test_an_old_server_is_refused_clearly", SERVERS + "test_what_is_no_redis_at_all_is_told"),
        row("a stored job that cannot be read", "it fails as such; the worker goes on", WIRE + "test_any_bytes_are_arguments_or_a_clear_refusal", "app/test_results.py::test_a_record_that_is_not_ours_is_a_clear_error",
            AUDIT + "test_a_record_that_cannot_be_read_is_told_and_left"),
        row("a record without a place, a place without a record, a job in two", "`headrace check` finds and mends it", AUDIT + "test_each_kind_of_damage_is_found_and_mended"),
        row("a task that raises SystemExit, or an error that cannot be told; a huge traceback", "the job fails alone, its text within 64 KiB", F + "test_system_exit_in_a_job_fails_the_job_alone",
            OUTCOME + "test_any_exception_can_be_told_within_64_kib", OUTCOME + "test_a_deep_traceback_keeps_its_bottom"),
        row("a task that calls os._exit, segfaults, aborts", "a crash, told with its signal", F + "test_a_poison_job_takes_only_itself", "worker/test_spawner.py::test_an_exit_code_is_told_as_one"),
        row("floods of output", "bounded by nothing of ours, harming nothing", ROUGH + "test_a_full_log_disk_stops_no_job"),
        row("wrong words on the command line; a reader that has had enough", "exit code 2 and what is right; no traceback", EXIT + "test_wrong_use_is_2_and_says_what_is_right", EXIT + "test_a_reader_that_has_enough_is_no_error",
            VALUES + "test_arguments_that_cannot_be_meant_are_refused"),
        row("a forged or changed payload", "not accepted", absent="payloads are not signed yet: who may write to the server is trusted to enqueue registered tasks"),
        row("what a browser may send to the dashboard", "refused or shown as text", WEB + "test_a_write_from_another_site_is_refused",
            WEB + "test_what_jobs_say_is_never_markup", WEB + "test_read_only_is_refused_each_write_there_is",
            WEB + "test_every_answer_forbids_what_is_not_ours", WEB + "test_only_names_that_were_allowed_reach_it"),
    ],
}  # fmt: skip
