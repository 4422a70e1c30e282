//! What the help texts of the subcommands share.

/// The exit codes of the subcommands that work on a file. They are the same for all.
macro_rules! exit_codes {
    () => {
        "\
Exit codes:
  0  All is well.
  1  Something is wrong with the file: it is damaged (or salvage lost something of
     it), is not a cloakroom file, or was written by a version of cloakroom that
     this one does not know.
  2  The command could not be carried out: the file is missing or locked, or of an
     older format that must be brought up to date first, the target exists, the
     system failed a call, or the arguments are wrong."
    };
}

/// The end of a long help: sections of its own, then the exit codes and where to read on.
macro_rules! help_end {
    ($sections:expr, $see_also:expr) => {
        concat!($sections, "\n\n", exit_codes!(), "\n\nSee also:\n  ", $see_also)
    };
}

/// The end of the help of the command itself.
pub const OVERVIEW: &str = concat!(
    "\
What the subcommands do to FILE:
  stats, verify, dump, export, backup and salvage only read it: not a byte of it
  is written, and a file that may not be written is enough. Several of them can
  read one file at the same time.
  sweep and compact write to it, and keep everybody else out meanwhile.
  A program that has the file open keeps all of them out; it can do the same
  from within (room.stats(), room.backup(path), ...).

Output:
  Results go to standard output, everything else (notes, progress, errors) to
  standard error. With --json standard output is one JSON object per line, and
  an error is one JSON object on standard error. Progress is shown only when
  standard error is a terminal.

A damaged file:
  cloakroom verify edge.cloak
  cloakroom salvage edge.cloak edge.salvaged.cloak
  verify says what is wrong and where; salvage copies whatever is intact into a
  new file and leaves the damaged one as it is.

",
    exit_codes!()
);
