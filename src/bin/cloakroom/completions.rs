//! `cloakroom completions`: completion scripts for shells.

use crate::Cli;
use crate::output::Output;
use crate::problem::{Problem, Verdict};
use clap::{Args, CommandFactory};
use clap_complete::Shell;
use serde_json::json;

/// Prints the script with which a shell completes the arguments of this command.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  bash, for the current user:
    mkdir -p ~/.local/share/bash-completion/completions
    cloakroom completions bash > ~/.local/share/bash-completion/completions/cloakroom
  zsh, in a directory of $fpath:
    cloakroom completions zsh > ~/.zfunc/_cloakroom
  fish:
    cloakroom completions fish > ~/.config/fish/completions/cloakroom.fish

Exit codes:
  0  Nothing is wrong.
  2  There is no such shell, or standard output cannot be written.")]
pub struct CompletionsOptions {
    /// The shell.
    #[arg(value_enum)]
    shell: Shell,
}

pub fn run(options: &CompletionsOptions, out: &mut Output) -> Result<Verdict, Problem> {
    let mut script = Vec::new();
    clap_complete::generate(options.shell, &mut Cli::command(), "cloakroom", &mut script);
    let script = String::from_utf8_lossy(&script);
    if out.is_json() {
        out.object(&json!({ "shell": options.shell.to_string(), "script": script }))?;
    } else {
        out.text(&script)?;
    }
    Ok(Verdict::Fine)
}
