//! placeholder

pub mod evaluation;
pub mod node;
pub mod table;
pub mod training;
