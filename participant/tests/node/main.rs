//! The participant's node: its deciding part, driven by a ledger that is made by hand; its directory; and the whole node
//! over real connections.

#![expect(clippy::unwrap_used, clippy::panic, reason = "what is unexpected in a test fails it")]

mod described;
mod device;
mod directory;
mod external;
mod faults;
mod fixture;
mod history;
mod kit;
mod live;
mod outages;
mod replica;
mod rounds;
mod side_by_side;
mod surprises;
mod trainers;
