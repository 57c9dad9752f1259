//! What every database must do, written once and run against each. A behaviour takes a [`Subject`]: a fresh, migrated database
//! behind the trait, and a back door to it for what no operation can bring about (time passing, a foreign table).

mod bodies;
mod buckets;
mod calls;
mod claims;
mod duties;
pub mod examining;
mod hosts;
mod letters;
mod memories;
mod outbox;
mod pages;
mod reading;
mod recording;
mod schema;
mod settling;
mod shapes;
mod spending;
mod steering;
mod subject;
mod submitting;
mod takeovers;
mod timing;
mod verbs;
mod waiting;

pub use subject::*;
pub use timing::timing;

/// Run these against one database.
macro_rules! against {
    ($db:ident; $($topic:ident: $($name:ident)+;)+) => {
        mod $db {
            $($(
                #[tokio::test]
                async fn $name() {
                    super::$topic::$name(&crate::db::$db::tests::subject().await).await;
                }
            )+)+
        }
    };
}

/// Run the behaviours of rows against each database, and those of a stored schema against each that has one.
macro_rules! behaviours {
    ({ $($rows:tt)+ } { $($stored:tt)+ }) => {
        against! { postgres; $($rows)+ $($stored)+ }
        against! { sqlite; $($rows)+ $($stored)+ }
        against! { memory; $($rows)+ }
    };
}

behaviours! { {
    claims:
        a_task_without_a_row_is_claimed_under_its_first_fence
        a_batch_is_answered_in_its_order
        input_and_output_are_kept_byte_for_byte
        a_task_ahead_of_its_time_is_scheduled_and_runs_when_it_is_due
        a_task_past_its_deadline_ends_expired
        a_task_that_cannot_run_here_is_parked_once_and_claimed_where_it_can
        a_claim_whose_answer_was_lost_is_mine
        a_task_whose_owner_lives_is_left_to_it
        a_terminal_task_is_a_duplicate_and_never_changes
        another_message_under_the_same_id_is_a_conflict
        of_duplicates_in_a_batch_the_first_is_claimed
        a_row_that_the_database_refuses_fails_alone
        of_concurrent_claims_of_one_task_one_wins;
    takeovers:
        a_lost_owners_task_is_taken_over_and_the_former_owner_is_fenced
        a_lost_owners_task_is_parked_where_it_cannot_run
        a_task_that_keeps_losing_its_hosts_is_isolated_and_its_own_budget_ends_it
        a_lapsed_lease_is_believed_only_by_who_is_steady
        a_host_that_renews_while_it_is_wedged_is_past_its_hard_deadline
        a_cancelled_task_of_a_lost_owner_ends_instead_of_running
        a_lost_owners_task_is_put_up_once_per_lease_time
        a_task_whose_owner_lives_is_not_put_up;
    settling:
        each_end_of_an_attempt_is_recorded_with_its_event_and_attempt
        a_retried_task_keeps_its_failure_until_it_completes
        a_snooze_and_an_interruption_burn_no_attempt
        a_settlement_is_recorded_once
        a_settlement_under_another_claim_is_fenced
        an_earlier_settlement_is_recognised_after_another_claim
        an_outcome_that_the_database_refuses_becomes_a_failure_and_its_neighbours_are_settled
        logs_go_on_over_all_attempts_and_are_made_storable
        a_large_batch_is_settled_in_one_call;
    recording:
        a_first_attempt_is_recorded_from_its_birth_to_its_end
        a_submitted_task_is_recorded_in_its_row
        a_recorded_attempt_is_followed_by_the_next
        an_attempt_is_recorded_once
        nothing_is_recorded_over_a_row_that_does_not_await_its_first_attempt
        a_batch_of_records_is_answered_in_its_order
        a_record_that_the_database_rejects_fails_alone
        of_a_record_and_a_claim_of_one_task_one_wins;
    calls:
        calls_are_stored_with_their_attempts_settlement
        calls_are_made_storable_and_go_with_an_outcome_that_is_not
        a_fenced_settlement_leaves_no_calls
        calls_are_read_from_where_the_reader_was
        an_erased_task_keeps_the_counts_of_its_calls_and_none_of_their_words;
    bodies:
        bodies_are_kept_with_their_calls_and_read_only_if_asked_for
        bodies_go_with_a_settlement_that_is_fenced_or_refused_and_no_other
        bodies_are_erased_with_their_task_and_forgotten_with_it
        a_batch_of_large_bodies_is_settled_in_one_call;
    buckets:
        what_was_set_is_read_until_it_is_deleted
        buckets_and_plugins_do_not_meet
        keys_are_listed_page_by_page
        numbers_are_text_that_both_sides_read
        of_concurrent_increments_none_is_lost
        a_batch_is_set_whole_or_not_at_all
        limits_hold_whoever_writes_at_the_same_time
        an_attempt_that_lost_its_task_writes_nothing;
    memories:
        a_text_is_found_by_its_words_in_any_order
        of_equals_the_newest_is_first_and_without_a_word_all_are_equal
        words_of_every_script_are_found_however_they_are_written
        nothing_in_a_query_is_an_operator
        memories_and_plugins_do_not_meet
        the_same_is_remembered_once_and_forgotten_for_good
        a_memory_is_full_at_its_limit
        an_attempt_that_lost_its_task_remembers_and_forgets_nothing;
    spending:
        an_allowance_is_used_up_by_a_task_and_by_a_day
        several_amounts_are_spent_together_or_not_at_all
        only_what_has_a_maximum_is_counted
        of_concurrent_spenders_none_spends_what_another_has
        what_was_taken_is_put_right_and_never_below_nothing
        what_an_interrupted_run_spent_is_returned_to_its_task_and_not_to_the_day
        what_is_returned_to_a_task_is_at_most_its_allowance
        what_a_run_spent_that_counts_stays_spent
        a_task_that_killed_a_child_of_the_isolation_lane_gets_nothing_returned
        a_claim_that_was_taken_over_spends_nothing_and_corrects_nothing
        what_was_spent_goes_with_its_task_and_after_its_time;
    submitting:
        a_submitted_task_is_pending_and_in_the_outbox
        a_submitted_task_ahead_of_its_time_is_scheduled
        a_repeated_submission_is_recognised_and_a_conflict_undoes_the_batch
        duplicates_in_a_submitted_batch_are_one_task
        a_waiting_task_is_cancelled_and_a_running_one_is_marked_for_its_owner;
    outbox:
        a_row_is_held_under_its_token_and_dropped_by_it
        a_hold_that_runs_out_makes_the_row_due_again
        a_deferred_row_says_why_and_comes_back
        a_drop_does_not_take_what_was_queued_anew
        a_message_from_the_outbox_is_the_one_that_was_submitted
        an_ended_task_is_not_published
        a_batch_of_large_rows_is_cut
        rows_of_a_queue_that_rests_are_set_aside
        a_hold_can_be_extended_by_its_holder_alone
        a_search_from_a_time_finds_what_was_due_since;
    duties:
        what_is_due_goes_to_its_queue
        what_has_expired_ends
        what_nobody_serves_ends_after_its_grace
        parked_tasks_are_read_by_priority_then_age
        what_is_old_is_forgotten_in_small_batches;
    waiting:
        due_tasks_that_wait_are_found_with_what_they_wait_for
        tasks_that_wait_for_a_time_or_do_not_wait_are_not_found
        the_outbox_is_counted_with_its_first_due_time;
    hosts:
        a_lease_is_renewed_and_lapses
        hosts_are_listed_with_what_they_say;
    steering:
        brakes_hold_until_they_are_released
        recorded_changes_are_paged_filtered_and_forgotten
        what_a_brake_holds_is_neither_offered_nor_ended_as_unserved
        waiting_tasks_are_counted_by_queue
        host_says_which_brakes_it_heeds;
    letters:
        a_redelivered_letter_has_one_row
        a_letter_with_an_id_has_one_row_whoever_comes_first
        a_letter_with_an_id_is_a_rejected_task_unless_it_is_a_conflict
        a_letter_is_made_storable_and_its_body_is_cut_for_reading
        letters_are_paged_and_filtered
        a_batch_of_letters_is_answered_in_its_order_and_each_has_one_row
        a_letter_that_the_database_refuses_fails_alone
        a_letter_is_due_until_it_is_published
        a_task_whose_message_is_unusable_waits_for_a_host_that_can_use_it;
    reading:
        tasks_are_paged_newest_first
        tasks_are_filtered
        a_list_of_several_filters_is_one_list
        large_fields_are_read_only_if_asked_for
        a_waiting_task_says_why
        histories_and_logs_are_read_from_where_the_reader_was
        ends_are_told_of_many_tasks_at_once;
    pages:
        a_page_of_tasks_ends_at_its_bytes
        a_page_of_a_history_ends_at_its_bytes
        a_page_of_logs_ends_at_its_bytes
        a_page_of_calls_ends_at_its_bytes
        a_page_of_letters_ends_at_its_bytes;
    verbs:
        an_ended_task_is_retried_as_a_new_one
        a_task_is_not_retried_while_a_retry_is_under_way
        of_concurrent_retries_of_one_task_one_is_made
        an_erased_task_stays_without_what_it_held
        erasing_a_rejected_task_erases_its_letter
        erasing_a_redriven_task_erases_the_letter_it_was_made_of
        a_redrive_goes_under_one_id_until_it_is_seen_through
        tasks_are_filtered_by_failure_and_time
        what_is_past_its_time_is_counted_and_tables_are_measured
        a_completed_retry_is_not_forgotten_before_the_task_that_it_repeats
        labelled_tasks_are_deleted_in_batches_once_they_have_ended;
} {
    waiting:
        parked_tasks_are_found_behind_a_backlog;
    duties:
        a_deletion_takes_tasks_until_they_have_too_many_lines
        parked_tasks_are_read_until_they_have_too_many_bytes
        a_row_that_cannot_be_read_stops_no_duty
        rows_that_cannot_be_read_do_not_stand_before_others;
    spending:
        what_an_earlier_build_counted_is_held_against_the_allowance;
    outbox:
        a_row_that_cannot_be_read_is_held_apart_from_its_neighbours;
    letters:
        a_task_whose_row_cannot_be_read_either_is_published_again_later;
    settling:
        an_attempt_that_cannot_be_recorded_at_all_stops_no_other;
    shapes:
        every_well_formed_row_is_accepted_and_every_legal_transition_between_them
        every_malformed_row_is_refused;
    schema:
        migrating_twice_changes_nothing
        of_concurrent_migrations_one_migrates
        a_newer_schema_that_no_longer_supports_this_build_is_refused
        a_newer_schema_that_supports_this_build_is_accepted
        a_schema_whose_history_was_edited_is_refused
        a_foreign_schema_is_refused_and_left_alone
        a_missing_table_is_noticed
        an_empty_database_is_told_apart;
} }
