//! Whether this kernel has a feature that is a module of its own: loaded, built in, or neither.
//!
//! Asking the kernel to use a feature may load its module. So this is asked first, by files alone.

use std::cell::OnceCell;
use std::path::Path;

/// What is known of one module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Presence {
    /// Loaded or built in.
    Present,
    /// Neither: nothing can be configured in it.
    Absent,
    /// The files that would say are not there.
    Unknown,
}

/// The modules of the running kernel.
#[derive(Debug, Default)]
pub(crate) struct KernelModules {
    /// `modules.builtin` of this release: one path a line. Read when it is first needed.
    built_in: OnceCell<Option<String>>,
}

impl KernelModules {
    /// Looks one up, by its name in the file system of modules: `nf_tables`.
    pub(crate) fn presence(&self, name: &str) -> Presence {
        if is_loaded(name) {
            return Presence::Present;
        }
        match self.built_in.get_or_init(read_built_in) {
            Some(list) if holds(list, name) => Presence::Present,
            // Without /sys or /proc/modules nothing says what is loaded.
            Some(_) if Path::new("/sys/module").exists() => Presence::Absent,
            _ => Presence::Unknown,
        }
    }
}

fn read_built_in() -> Option<String> {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let path = Path::new("/lib/modules").join(release).join("modules.builtin");
    std::fs::read_to_string(path).ok()
}

/// Loaded, or built in with parameters of its own.
fn is_loaded(name: &str) -> bool {
    Path::new("/sys/module").join(name).exists()
}

/// The list holds paths such as `kernel/net/netfilter/nf_tables.ko`.
fn holds(list: &str, name: &str) -> bool {
    list.lines().any(|line| {
        let file = line.rsplit('/').next().unwrap_or_default();
        file.strip_suffix(".ko") == Some(name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_whole_file_names() {
        let list = "kernel/net/netfilter/nf_tables.ko\nkernel/net/ipv4/netfilter/nf_nat_pptp.ko\n";
        assert!(holds(list, "nf_tables"));
        assert!(!holds(list, "nf_nat"));
        assert!(!holds(list, "tables"));
        assert!(!holds("", "nf_nat"));
    }

    #[test]
    fn what_is_not_listed_is_absent_and_without_a_list_unknown() {
        let none = KernelModules { built_in: None.into() };
        assert_eq!(none.presence("no_such_module"), Presence::Unknown);
        let some = KernelModules { built_in: Some("kernel/net/ipv6/ipv6.ko\n".to_owned()).into() };
        assert_eq!(some.presence("ipv6"), Presence::Present);
    }
}
