//! git-gate end to end: a real agent with real git, the gate, and a real upstream with OpenSSH that writes down who comes.

// The lint knows tests by their attribute, and helpers and cases have none.
#![allow(clippy::expect_used, clippy::panic)]

mod attacks;
mod fixture;
mod flow;
mod forges;
mod protocol;
mod refusals;
mod review;
mod streams;
mod trouble;
mod upstreams;

use std::process::ExitCode;

use bottle_tests::suite;

macro_rules! cases {
    ($($module:ident :: $case:ident),* $(,)?) => {
        &[$((stringify!($case), $module::$case),)*]
    };
}

fn main() -> ExitCode {
    suite::run(
        fixture::make,
        cases![
            flow::clone_fetch_and_push,
            flow::a_mirror_is_indexed_and_still_up_to_date,
            flow::every_spelling_leads_to_the_gate,
            flow::shallow_and_partial_clones,
            flow::a_repository_of_sha256,
            flow::fetches_at_the_same_time_share_one,
            flow::what_the_upstream_says_comes_back,
            flow::two_pushes_at_once,
            flow::several_refs_are_all_or_nothing,
            flow::every_decision_is_on_record,
            refusals::foreign_branch,
            refusals::force_push,
            refusals::delete,
            refusals::tag,
            refusals::hostile_names,
            refusals::read_only_repository,
            refusals::protected_path,
            refusals::too_many_commits,
            refusals::secret_in_a_file,
            refusals::secret_in_a_message,
            refusals::secret_in_a_file_name,
            refusals::secret_in_an_author,
            refusals::secret_in_a_commit_that_a_later_one_removes,
            refusals::secret_in_a_merge,
            refusals::secret_in_base64,
            refusals::secret_in_gzip,
            refusals::the_words_that_silence_gitleaks,
            refusals::the_bottles_own_secrets,
            attacks::attributes_do_not_hide_anything,
            attacks::lfs_pointers,
            attacks::submodules,
            attacks::control_characters_in_a_path,
            attacks::replace_refs,
            attacks::alternates_and_dumb_requests,
            attacks::a_hidden_commit_does_not_get_there,
            attacks::a_pack_bomb,
            attacks::a_damaged_pack,
            attacks::a_secret_in_two_steps,
            attacks::a_listing_without_end,
            attacks::files_that_scanners_skip,
            protocol::what_a_push_says_of_before_is_looked_up,
            protocol::one_ref_twice_in_a_push,
            protocol::a_name_with_an_end_of_line,
            protocol::what_is_not_offered_opens_nothing,
            protocol::a_history_that_is_cut_off,
            protocol::a_branch_that_is_called_like_an_object,
            protocol::alternates,
            trouble::the_upstream_is_down,
            trouble::an_upstream_that_says_nothing,
            trouble::another_host_key,
            trouble::the_gate_dies_in_the_middle_of_a_push,
            trouble::the_gate_dies_while_it_scans,
            trouble::a_push_waits_for_the_first_fetch,
            streams::a_large_repository_streams,
            review::a_held_push_goes_on_when_it_is_approved,
            review::a_held_push_ends_with_the_operators_no,
            review::nobody_answers_and_a_later_push_goes_through,
            review::a_client_that_hangs_up_is_not_pushed_for,
            review::a_grant_lifts_the_ref_rule_for_one_push,
            review::a_grant_lifts_no_secret_and_no_force,
            review::a_protected_path_is_seen_before_it_is_allowed,
            review::a_grant_that_is_taken_back_lifts_nothing,
            upstreams::over_https_with_a_token_of_the_gates,
            upstreams::pushes_are_signed,
            upstreams::pushes_are_signed_over_https_too,
            upstreams::a_listed_tag_goes_through_and_does_not_move,
            forges::a_deploy_key_lives_as_long_as_its_bottle,
            forges::a_start_that_fails_leaves_no_deploy_key,
            forges::a_kill_between_a_key_and_its_record_leaves_no_deploy_key,
            forges::a_forge_that_does_not_answer_leaves_no_deploy_key,
            forges::gc_does_not_forget_the_key_of_a_start_beside_it,
        ],
    )
}
