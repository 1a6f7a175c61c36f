//! placeholder

pub mod flamby;
pub mod heart;
