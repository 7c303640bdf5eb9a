#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| machineid_sidecar::fuzzing::run("socket_list", data));
