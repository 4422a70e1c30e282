//! The repository polices itself: imports run one way, what the style forbids is not there, and the
//! documents agree with the code.

mod documents;
mod layers;
mod security;
mod shape;
mod sources;
mod tokens;
mod words;
