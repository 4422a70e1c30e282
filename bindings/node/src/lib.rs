//! The storage engine `cloakroom` for Node.js, Bun and Deno. The JavaScript beside it checks the
//! arguments, names the methods and makes the errors; this library calls the crate.

mod arguments;
mod failure;
#[expect(unsafe_code, reason = "raw promises of Node-API, for a fifth of the time")]
mod js;
mod out;
mod registry;
mod room;
mod stores;
mod watch;
