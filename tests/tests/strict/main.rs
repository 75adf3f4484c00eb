//! `isolation: strict`: an agent without any network works as in any other bottle, and has less to reach. Tried from
//! inside, on the real engine.

// The lint knows tests by their attribute, and helpers and cases have none.
#![allow(clippy::expect_used, clippy::panic)]

mod checked;
mod closed;
mod fixture;
mod life;
mod work;

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
            closed::only_the_loopback_is_there,
            closed::nothing_else_is_reached,
            work::both_ways_out_work,
            work::a_refusal_says_why,
            closed::no_question_leaves_by_dns,
            closed::the_sockets_are_the_sidecars_own,
            closed::two_bottles_are_two_worlds,
            work::git_goes_through_the_gate,
            work::a_request_is_asked_for_and_granted,
            work::a_terminal_is_a_terminal,
            life::the_forwarder_cannot_be_ended,
            life::a_sidecar_that_died_is_found_again,
            checked::the_check_passes_without_a_network,
            checked::a_file_that_was_changed_is_refused,
            life::a_snapshot_is_gone_on_from,
        ],
    )
}
