#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| machineid_sidecar::fuzzing::run("authority_body", data));
