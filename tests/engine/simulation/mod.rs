//! The crash simulation's parts: a pure model of both stores, and a world that runs a room beside
//! it.

pub mod calls;
pub mod model;
pub mod reading;
pub mod world;
