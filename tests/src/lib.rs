//! Shared fixtures of the suites.
