#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| bottle_sidecar::fuzzing::tokens(data));
