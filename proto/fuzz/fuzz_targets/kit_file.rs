#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fedledger_proto_fuzz::kit_file::run(data));
