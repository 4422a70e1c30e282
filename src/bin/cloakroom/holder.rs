//! The processes that have a file locked, as far as the system reports them.

use std::path::Path;

/// A process that has a file open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    pub pid: u32,
    /// The name of its program, if it is known.
    pub name: Option<String>,
    /// Whether it has the file open for writing.
    pub writes: bool,
}

impl Holder {
    /// The process as text.
    pub fn shown(&self) -> String {
        match &self.name {
            Some(name) => format!("process {} ({name})", self.pid),
            None => format!("process {}", self.pid),
        }
    }
}

/// The processes that have the file at `path` locked. Empty when the system does not report them.
#[cfg(target_os = "linux")]
pub fn holders(path: &Path) -> Vec<Holder> {
    use std::os::unix::fs::MetadataExt;
    let Ok(metadata) = std::fs::metadata(path) else { return Vec::new() };
    let Ok(locks) = std::fs::read_to_string("/proc/locks") else { return Vec::new() };
    let mut found = parse(&locks, &device(metadata.dev()), metadata.ino());
    for holder in &mut found {
        let name = std::fs::read_to_string(format!("/proc/{}/comm", holder.pid));
        holder.name = name.ok().map(|name| name.trim().to_owned()).filter(|name| !name.is_empty());
    }
    found
}

/// The processes that have the file at `path` locked, which this system does not report.
#[cfg(not(target_os = "linux"))]
pub fn holders(_path: &Path) -> Vec<Holder> {
    Vec::new()
}

/// A device number as the list of locks writes it.
#[cfg(any(target_os = "linux", test))]
fn device(dev: u64) -> String {
    let major = (dev >> 8) & 0xfff | (dev >> 32) & !0xfff;
    let minor = dev & 0xff | (dev >> 12) & 0xffff_ff00;
    format!("{major:02x}:{minor:02x}")
}

/// The owners of the whole-file locks on one file. A line reads `1: FLOCK  ADVISORY  WRITE 16090
/// fe:00:5316680 0 EOF`; that of a process that waits for a lock has `->` in it.
#[cfg(any(target_os = "linux", test))]
fn parse(locks: &str, device: &str, inode: u64) -> Vec<Holder> {
    let file = format!("{device}:{inode}");
    let holder = |line: &str| {
        let words: Vec<_> = line.split_whitespace().collect();
        let [_, "FLOCK", _, kind, pid, of, ..] = words.as_slice() else { return None };
        (*of == file).then_some(())?;
        // A process in another container has the number 0.
        let pid = pid.parse().ok().filter(|&pid| pid > 0)?;
        Some(Holder { pid, name: None, writes: *kind == "WRITE" })
    };
    locks.lines().filter_map(holder).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_owners_of_whole_file_locks_on_this_file_are_found() {
        let locks = "\
1: FLOCK  ADVISORY  WRITE 16090 fe:00:5316680 0 EOF
1: -> FLOCK  ADVISORY  WRITE 99 fe:00:5316680 0 EOF
2: POSIX  ADVISORY  WRITE 7 fe:00:5316680 0 EOF
3: FLOCK  ADVISORY  READ 16048 fe:00:5316680 0 EOF
4: FLOCK  ADVISORY  READ 5 08:01:5316680 0 EOF
5: FLOCK  ADVISORY  READ -1 fe:00:5316680 0 EOF
6: FLOCK  ADVISORY  READ 0 fe:00:5316680 0 EOF
nonsense
";
        let found = parse(locks, "fe:00", 5_316_680);
        let told: Vec<_> = found.iter().map(|holder| (holder.pid, holder.writes)).collect();
        assert_eq!(told, [(16_090, true), (16_048, false)]);
        assert_eq!(found[0].shown(), "process 16090");
        let named = Holder { name: Some("edge".into()), ..found[0].clone() };
        assert_eq!(named.shown(), "process 16090 (edge)");
    }

    #[test]
    fn a_device_is_written_as_the_list_of_locks_does() {
        assert_eq!(device(0xfe00), "fe:00");
        assert_eq!(device(0x0801), "08:01");
        assert_eq!(device(0x31_0302), "103:302");
    }
}
