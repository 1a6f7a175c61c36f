//! Whole consortia on one machine: the demo, and the reproduction of published results with the cores of production.

pub mod arguments;
pub mod demo;
pub mod federated;
pub mod flamby;
pub mod heart;
pub mod images;
