//! Sweeps of whole rooms.
