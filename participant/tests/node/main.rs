//! The participant's node: its deciding part, driven by a ledger that is made by hand; its directory; and the whole node
//! over real connections.

mod directory;
mod fixture;
mod history;
mod kit;
mod live;
mod replica;
mod rounds;
