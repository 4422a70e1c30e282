//! The storage engine `cloakroom` for Node.js, Bun and Deno. The JavaScript beside it checks the
//! arguments, names the methods and makes the errors; this library calls the crate.

mod arguments;
mod failure;
mod js;
mod out;
mod registry;
mod room;
mod stores;
mod watch;
