#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fedledger_ledger_fuzz::state_receipt::run(data));
