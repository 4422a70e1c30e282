//! What is compared.

pub mod cloakroom;
