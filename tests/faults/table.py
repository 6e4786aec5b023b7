"""The faults that the clients survive: what happens, what the caller sees, and the tests of it.

`tests.faults.page` makes the page docs/reference/faults.md of this table.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, final

import attrs

__all__ = ["FAULTS", "Fault"]


@final
@attrs.frozen
class Fault:
    """One fault.

    Attributes:
        what: what happens.
        behaviour: what the client does and the caller sees.
        test: a test that runs for both clients, each with a connection, a pool and a cluster.
        further: more tests.
    """

    what: str
    behaviour: str
    test: str
    further: Sequence[str] = ()


def _replies(name: str) -> str:
    return f"tests/faults/test_replies.py::{name}"


def _connections(name: str) -> str:
    return f"tests/faults/test_connections.py::{name}"


FAULTS: Final = (
    Fault(
        "The server closes the connection in the middle of a value",
        "`ConnectionLost`, and no part of the value. A read on a pooled connection is sent again once, on a new one",
        _replies("test_a_server_closes_in_the_middle_of_a_value"),
        (
            "tests/transports/test_faults.py::test_a_read_on_a_connection_that_turns_out_stale_is_sent_again_on_a_new_one",
            "tests/transports/test_aio_deadlines.py::test_a_read_is_sent_again_once_and_not_twice",
            "tests/memory/test_faults.py::test_a_read_survives",
        ),
    ),
    Fault(
        "The server resets the connection in the middle of a value",
        "As above. Errors of the operating system never reach the caller",
        _replies("test_a_server_resets_in_the_middle_of_a_value"),
        (
            "tests/transports/test_aio_isolation.py::test_a_reset_connection_marks_a_write_as_maybe_applied_and_sends_a_read_again",
        ),
    ),
    Fault(
        "A reply ends in the middle of its header",
        "`ConnectionLost`. An incomplete length is never used",
        _replies("test_a_reply_ends_in_the_middle_of_its_header"),
        ("tests/transports/test_faults.py::test_a_get_that_is_answered_wrongly_is_an_error_and_the_next_one_is_right",),
    ),
    Fault(
        "A reply arrives byte by byte, or is cut anywhere",
        "The result is the same as for a whole reply. Slow bytes do not extend the deadline",
        _replies("test_a_reply_is_cut_at_any_byte"),
        (
            _replies("test_a_slow_reply_does_not_extend_the_deadline"),
            "tests/protocol/test_streams.py::test_a_recorded_reply_is_the_same_wherever_it_is_cut",
            "tests/transports/test_deadlines.py::test_a_slow_reply_does_not_extend_the_deadline_of_a_batch",
        ),
    ),
    Fault(
        "Several replies, or one and a half, arrive in one packet",
        "Each request gets its own reply, in order",
        _replies("test_one_and_a_half_replies_arrive_in_one_packet"),
        ("tests/protocol/test_streams.py::test_replies_in_one_packet_keep_their_order_when_the_last_is_incomplete",),
    ),
    Fault(
        "No line end follows a value",
        "`ProtocolError`. The connection is closed",
        _replies("test_a_value_is_longer_than_its_header_says"),
        ("tests/protocol/test_broken_streams.py::test_a_data_block_without_crlf_behind_it_is_refused",),
    ),
    Fault(
        "A length is missing, negative or not a plain number",
        "`ProtocolError`. The connection is closed",
        _replies("test_a_length_is_not_a_plain_number"),
        ("tests/protocol/test_broken_streams.py::test_a_size_that_is_not_a_plain_number_within_the_limit_is_refused",),
    ),
    Fault(
        "A length is gigantic",
        "`ProtocolError` before memory is allocated. The limit is `Settings.max_reply_size`",
        _replies("test_a_length_is_gigantic"),
        ("tests/protocol/test_broken_streams.py::test_a_size_above_the_limit_is_refused_before_memory_is_taken",),
    ),
    Fault(
        "A header line has no end",
        "`ProtocolError` after 2048 bytes. The connection is closed",
        _replies("test_a_header_has_no_end"),
        ("tests/protocol/test_broken_streams.py::test_a_line_without_end_is_refused_at_the_length_limit",),
    ),
    Fault(
        "A reply is garbage, or of another protocol",
        "`ProtocolError`. The message quotes only a status word, because other text may be a value",
        _replies("test_a_reply_is_of_another_protocol"),
        ("tests/protocol/test_broken_streams.py::test_a_strange_line_is_quoted_only_if_it_is_a_status_word",),
    ),
    Fault(
        "A reply code exists, but cannot answer the command",
        "`ProtocolError`. A write says that it may have been applied",
        _replies("test_a_reply_code_is_impossible_for_the_command"),
        (
            _replies("test_a_reply_code_is_impossible_for_a_write"),
            "tests/protocol/test_broken_streams.py::test_a_code_that_cannot_answer_the_command_is_refused",
        ),
    ),
    Fault(
        "The opaque of a reply is missing, or belongs to another request",
        "`ProtocolError` for all requests on that connection. It is closed",
        _replies("test_the_opaque_is_missing_or_that_of_another_request"),
        ("tests/transports/test_aio_isolation.py::test_replies_in_the_wrong_order_are_a_protocol_error_for_all",),
    ),
    Fault(
        "Bytes arrive on an idle connection",
        "The connection is closed, and the next request uses a new one. The caller sees nothing",
        _replies("test_bytes_arrive_on_an_idle_connection"),
        ("tests/pool/test_idle.py::test_unrequested_bytes_make_an_idle_connection_stale",),
    ),
    Fault(
        "More replies arrive than requests were sent",
        "The expected reply is valid. The connection is closed",
        _replies("test_more_replies_arrive_than_requests_were_sent"),
        ("tests/protocol/test_broken_streams.py::test_a_second_mn_closes_the_connection",),
    ),
    Fault(
        "The server runs out of memory in the middle of a batch",
        "`ServerError` for that key. The other keys have their results, and the connection stays",
        _replies("test_a_server_out_of_memory_fails_one_request_of_a_batch"),
        ("tests/live/test_batches.py::test_a_server_without_memory_fails_only_the_values_that_do_not_fit",),
    ),
    Fault(
        "A value of a batch is too large for the server",
        "An error for that key, whose old value is gone. The other keys are stored",
        _replies("test_a_value_of_a_batch_is_too_large_for_the_server"),
        (
            "tests/live/test_batches.py::test_a_value_that_is_too_large_fails_alone_in_its_batch",
            "tests/protocol/test_replies.py::test_the_error_for_a_value_that_does_not_fit_says_that_the_old_value_is_gone",
        ),
    ),
    Fault(
        "An error line stands inside a batch",
        "It belongs to one key, because batches never use the quiet flag. It is never reported as a miss",
        _replies("test_a_batch_is_never_sent_with_the_quiet_flag"),
        ("tests/protocol/test_broken_streams.py::test_an_error_in_a_window_is_the_error_of_its_own_request",),
    ),
    Fault(
        "The server refuses the form of a set",
        "`ClientError`. The connection is closed: the server may have run the value as commands",
        _replies("test_a_server_refuses_the_form_of_a_set"),
        (
            "tests/transports/test_faults.py::test_after_a_client_error_in_a_batch_of_writes_the_later_writes_may_have_been_applied",
            "tests/transports/test_aio_deadlines.py::test_a_refused_set_closes_the_connection_and_its_load_is_right",
        ),
    ),
    Fault(
        "A reply arrives after its request timed out",
        "`OperationTimeout`; a write may have been applied. No later request ever gets the late reply",
        _connections("test_a_late_reply_is_never_the_reply_of_the_next_request"),
        (
            "tests/live/test_failing_nodes.py::test_a_late_reply_of_a_frozen_node_is_never_taken_for_another",
            "tests/transports/test_aio_deadlines.py::test_a_late_reply_is_dropped_and_the_connection_stays_open",
        ),
    ),
    Fault(
        "The server cannot be connected to, or its name cannot be resolved",
        "`ConnectError` within `connect_timeout`. A cluster stops asking the node for a while (`NodeDownError`)",
        _connections("test_a_server_cannot_be_connected_to"),
        (
            _connections("test_a_server_accepts_and_never_answers"),
            "tests/faults/test_hosts.py::test_calls_fail_at_their_deadline_while_the_cable_is_cut_and_work_again_later",
            "tests/pool/test_slot_leaks.py::test_failed_dials_leak_no_slot_and_no_descriptor",
            "tests/transports/test_aio_dialing.py::test_addresses_that_all_do_not_answer_fail_within_the_connect_timeout",
            "tests/cluster/test_failures.py::test_a_node_that_is_down_fails_in_microseconds_with_a_clear_error",
        ),
    ),
    Fault(
        "The server restarts between requests",
        "Reads are sent again on a new connection, and the caller sees a miss. Arithmetic is never sent twice",
        _connections("test_a_server_restarts_between_requests"),
        (
            "tests/pool/test_idle.py::test_six_stale_connections_after_a_restart_fail_no_call",
            "tests/transports/test_faults.py::test_arithmetic_on_a_connection_that_turns_out_stale_is_never_sent_twice",
        ),
    ),
    Fault(
        "The server closes idle connections",
        "The next request uses a new connection. The caller sees nothing",
        _connections("test_a_server_closes_idle_connections"),
        ("tests/pool/test_idle.py::test_idle_connections_that_the_server_closed_cause_no_error",),
    ),
    Fault(
        "The server has too many connections",
        "`ConnectError` with a hint. There is one dial for each call, and a pool uses the connections that it has",
        _connections("test_a_server_has_too_many_connections"),
        (
            "tests/pool/test_full_servers.py::test_after_a_refusal_callers_wait_for_the_connection_that_is_in_use",
            "tests/pool/test_aio_full_servers.py::test_a_pool_that_gets_no_further_connection_uses_the_one_it_has",
            "tests/live/test_servers.py::test_a_full_server_is_a_connect_error_and_not_a_protocol_error",
        ),
    ),
    Fault(
        "A call is interrupted: a signal handler raises, or the task is cancelled",
        "The exception propagates unchanged. The reply reaches no other call, and the next call is right",
        _connections("test_a_call_is_interrupted_while_it_waits_for_its_reply"),
        (
            "tests/transports/test_interrupts.py::test_wherever_a_signal_interrupts_a_call_the_next_calls_are_right",
            "tests/pool/test_slot_leaks.py::test_wherever_a_signal_interrupts_a_call_the_next_one_is_right_and_no_slot_leaks",
            "tests/transports/test_aio_cancellation.py::test_a_call_cancelled_at_any_loop_iteration_leaves_a_usable_connection",
        ),
    ),
    Fault(
        "A call is interrupted while it waits for a connection or dials",
        "No place in the pool and no socket is lost. Other waiting callers are served in order",
        _connections("test_a_call_is_interrupted_before_it_has_a_connection"),
        (
            "tests/pool/test_slot_leaks.py::test_a_signal_while_waiting_for_a_slot_leaves_the_queue",
            "tests/transports/test_aio_races.py::test_a_cancelled_dial_is_started_again_for_the_requests_that_still_wait",
            "tests/transports/test_aio_isolation.py::test_requests_wait_in_order_for_a_full_connection_and_a_cancelled_one_is_skipped",
        ),
    ),
    Fault(
        "The process forks with open connections",
        "The child uses connections of its own and sends nothing on those of the parent. The parent continues",
        _connections("test_a_process_forks_with_open_connections"),
        (
            "tests/transports/test_forking.py::test_a_forked_child_that_closes_its_client_sends_nothing_on_the_connection_of_the_parent",
            "tests/live/test_many_processes.py::test_a_parent_and_four_children_continue_after_a_fork",
        ),
    ),
    Fault(
        "Threads or tasks share a client, or an asyncio client is used in several event loops",
        "Each call gets its own value",
        _connections("test_threads_or_tasks_share_a_client"),
        (
            "tests/live/test_canary.py::test_no_key_ever_gets_the_value_of_another",
            "tests/live/test_many_nodes.py::test_64_threads_on_five_nodes_get_no_foreign_value_and_leak_nothing",
            "tests/cluster/test_per_loop.py::test_threads_with_loops_of_their_own_share_a_client",
        ),
    ),
    Fault(
        "A key, a TTL or another argument contains a request",
        "It is refused before a byte is sent, or the key is sent as base64. A whole batch is checked first",
        _replies("test_keys_and_arguments_cannot_add_a_request"),
        (
            "tests/client/test_bad_input.py::test_a_bad_key_is_refused_before_it_is_sent",
            "tests/client/test_writing.py::test_a_whole_batch_is_checked_before_its_first_byte",
            "tests/protocol/test_requests.py::test_a_token_out_of_its_range_is_refused",
        ),
    ),
    Fault(
        "Client and server both write until their buffers are full",
        "The client reads while it writes. Writing obeys the deadline too",
        _replies("test_a_large_batch_never_deadlocks_on_full_buffers"),
        (
            _replies("test_a_server_that_stops_reading_ends_a_large_write_at_its_deadline"),
            "tests/live/test_batches.py::test_half_a_gigabyte_in_one_call_does_not_deadlock",
            "tests/transports/test_tls.py::test_every_tls_write_ends_with_a_request_and_packs_at_most_16_kib_of_several",
            "tests/transports/test_aio_tls.py::test_many_concurrent_sets_over_tls_never_hang",
        ),
    ),
    Fault(
        "A correct reply is misleading: a lease placeholder, a padded number, a TTL that has wrapped",
        "A placeholder is a miss, the padding is removed, and a wrapped TTL is 0",
        _replies("test_a_reply_is_correct_but_misleading"),
        (
            "tests/transports/test_misleading_replies.py::test_a_base64_key_is_sent_without_the_k_flag",
            "tests/transports/test_misleading_replies.py::test_the_cas_of_a_lost_race_is_not_taken_for_one",
        ),
    ),
)
"""The thirty faults."""
