//! The common parts of the help texts of the subcommands.

/// The exit codes of all subcommands that work on a file.
macro_rules! exit_codes {
    () => {
        "\
Exit codes:
  0  Nothing is wrong.
  1  Something is wrong with the file: it is damaged (or salvage lost something of
     it), is not a cloakroom file, or was written by a version of cloakroom that
     this one cannot read.
  2  The command could not be run: the file is missing or locked, or has an older
     format and must be migrated first, the target exists, a system call failed,
     or the arguments are wrong."
    };
}

/// The end of a long help: its own sections, then the exit codes and related commands.
macro_rules! help_end {
    ($sections:expr, $see_also:expr) => {
        concat!($sections, "\n\n", exit_codes!(), "\n\nSee also:\n  ", $see_also)
    };
}

/// The end of the help of the command itself.
pub const OVERVIEW: &str = concat!(
    "\
What the subcommands do to FILE:
  stats, verify, dump, export, backup and salvage only read it: they write no byte
  of it and need only read permission. Several of them can read one file at the
  same time.
  sweep and compact write to it, and lock it exclusively meanwhile.
  A program that has the file open locks all of them out; it can do the same
  itself (room.stats(), room.backup(path), ...).

Output:
  Results go to standard output, everything else (notes, progress, errors) to
  standard error. With --json standard output is one JSON object per line, and
  an error is one JSON object on standard error. Progress is shown only when
  standard error is a terminal.

A damaged file:
  cloakroom verify edge.cloak
  cloakroom salvage edge.cloak edge.salvaged.cloak
  verify reports what is wrong and where; salvage copies everything intact into a
  new file and does not change the damaged one.

",
    exit_codes!()
);
