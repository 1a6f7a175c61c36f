//! placeholder

pub mod demo;
pub mod flamby;
pub mod heart;
