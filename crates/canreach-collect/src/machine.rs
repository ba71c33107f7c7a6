//! The machine itself: kernel release, host name, what it runs inside, when it was read.
//!
//! What a system runs inside is told by what is in it: WSL by its kernel's name, a container by the
//! marks its engine leaves, a virtual machine by the processor's hypervisor bit or the names its
//! firmware gives. Nothing is asked of a service. Left out: which hypervisor it is, and containers
//! that leave no mark.

use std::path::Path;

use canreach_snapshot::{Machine, Virtualization};
use rustix::time::ClockId;

use crate::directory;

/// Names that hypervisors give themselves in DMI tables (`/sys/class/dmi/id`).
const HYPERVISORS: [&str; 14] = [
    "QEMU",
    "KVM",
    "VMware",
    "VirtualBox",
    "innotek",
    "Xen",
    "Bochs",
    "Parallels",
    "bhyve",
    "Hyper-V",
    "Virtual Machine",
    "Google Compute Engine",
    "Amazon EC2",
    "OpenStack",
];

/// Reads the machine. `privileged` is not about the machine but about the reader, who says it.
pub(crate) fn read(privileged: bool) -> Machine {
    let names = rustix::system::uname();
    let text = |name: &std::ffi::CStr| name.to_string_lossy().into_owned();
    let kernel_release = text(names.release());
    let hostname = text(names.nodename());
    let now = rustix::time::clock_gettime(ClockId::Realtime);
    let collected_at_ms = u64::try_from(now.tv_sec).unwrap_or(0) * 1000
        + u64::try_from(now.tv_nsec).unwrap_or(0) / 1_000_000;
    Machine {
        virtualization: Marks::read(&kernel_release).virtualization(),
        kernel_release,
        hostname: Some(hostname).filter(|name| !name.is_empty() && name != "(none)"),
        collected_at_ms,
        privileged,
    }
}

/// Whether this process is in another PID namespace than the one the machine booted with, whose
/// inode number is fixed (include/linux/proc_ns.h, `PROC_PID_INIT_INO`).
fn in_own_pid_namespace() -> bool {
    const INITIAL: &str = "pid:[4026531836]";
    std::fs::read_link("/proc/self/ns/pid").is_ok_and(|name| name.as_os_str() != INITIAL)
}

/// What tells where a system runs.
#[derive(Debug, Default)]
struct Marks {
    kernel_release: String,
    /// `/.dockerenv` or `/run/.containerenv`.
    container_file: bool,
    /// PID 1 was told by its container engine (`container=`), in its environment or by a file.
    container_variable: bool,
    /// A path of PID 1's control groups.
    init_cgroup: String,
    cpuinfo: String,
    dmi: String,
}

impl Marks {
    /// Reads no further than it has to: the later marks cost the most.
    fn read(kernel_release: &str) -> Self {
        let text = |path: &str| directory::read_text_piece(path).unwrap_or_default();
        let mut marks = Self { kernel_release: kernel_release.to_owned(), ..Self::default() };
        if marks.wsl().is_some() {
            return marks;
        }
        // Images unpacked onto a real or virtual machine keep the file; what they lack is a PID
        // namespace of their own.
        marks.container_file =
            ["/.dockerenv", "/run/.containerenv"].iter().any(|path| Path::new(path).exists())
                && in_own_pid_namespace();
        marks.init_cgroup = text("/proc/1/cgroup");
        // Root only; systemd copies the value to where everyone can read it.
        marks.container_variable = is_value(text("/run/systemd/container").trim())
            || text("/proc/1/environ")
                .split('\0')
                .any(|variable| variable.strip_prefix("container=").is_some_and(is_value));
        if marks.virtualization().is_some() {
            return marks;
        }
        marks.cpuinfo = first_processor();
        if marks.virtualization().is_none() {
            let names = ["sys_vendor", "product_name", "board_vendor", "bios_vendor"];
            marks.dmi = names.map(|name| text(&format!("/sys/class/dmi/id/{name}"))).join("");
        }
        marks
    }

    fn virtualization(&self) -> Option<Virtualization> {
        if let Some(wsl) = self.wsl() {
            return Some(wsl);
        }
        let cgroup_marks =
            ["/docker/", "/docker-", "/libpod-", "/kubepods", "/lxc/", "/lxc.payload"];
        let in_container = self.container_file
            || self.container_variable
            || cgroup_marks.iter().any(|mark| self.init_cgroup.contains(mark));
        if in_container {
            return Some(Virtualization::Container);
        }
        let has_hypervisor_bit = self
            .cpuinfo
            .lines()
            .filter(|line| line.starts_with("flags"))
            .any(|line| line.split_ascii_whitespace().any(|flag| flag == "hypervisor"));
        let named = HYPERVISORS.iter().any(|name| self.dmi.contains(name));
        (has_hypervisor_bit || named).then_some(Virtualization::VirtualMachine)
    }

    /// Version 1 has no Linux kernel and calls itself `4.4.0-19041-Microsoft`; version 2 runs one
    /// that is built as `5.15.90.1-microsoft-standard-WSL2`. A kernel of one's own under WSL2 keeps
    /// neither name unless it was given one.
    fn wsl(&self) -> Option<Virtualization> {
        let release = self.kernel_release.as_str();
        if release.contains("WSL2") || release.contains("microsoft-standard") {
            Some(Virtualization::Wsl2)
        } else if release.contains("Microsoft") {
            Some(Virtualization::Wsl1)
        } else {
            None
        }
    }
}

/// A container engine names itself, or says `1`.
fn is_value(value: &str) -> bool {
    !value.is_empty() && value != "0"
}

/// The first processor of `/proc/cpuinfo`. The file takes milliseconds to make on machines with many,
/// so only its first page is asked for.
fn first_processor() -> String {
    let mut page = [0; 4096];
    let read = std::fs::File::open("/proc/cpuinfo")
        .and_then(|mut file| std::io::Read::read(&mut file, &mut page));
    let page = page.get(..read.unwrap_or(0)).unwrap_or_default();
    String::from_utf8_lossy(page).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(marks: &Marks, expect: Option<Virtualization>) {
        assert_eq!(marks.virtualization(), expect, "{marks:?}");
    }

    #[test]
    fn wsl_is_told_by_its_kernel() {
        for (release, expect) in [
            ("4.4.0-19041-Microsoft", Some(Virtualization::Wsl1)),
            ("5.15.90.1-microsoft-standard-WSL2", Some(Virtualization::Wsl2)),
            ("6.6.36.3-microsoft-standard-WSL2+", Some(Virtualization::Wsl2)),
            ("6.12.9-custom-WSL2", Some(Virtualization::Wsl2)),
            ("6.1.0-18-amd64", None),
            // Azure's kernels are not WSL.
            ("6.8.0-1010-azure", None),
        ] {
            let kernel_release = release.to_owned();
            check(&Marks { kernel_release, ..Marks::default() }, expect);
        }
    }

    #[test]
    fn a_container_is_told_by_any_of_its_marks() {
        let container = Some(Virtualization::Container);
        check(&Marks { container_file: true, ..Marks::default() }, container);
        check(&Marks { container_variable: true, ..Marks::default() }, container);
        for (cgroup, expect) in [
            ("0::/\n", None),
            ("0::/init.scope\n", None),
            ("4:memory:/docker/4f9c\n0::/\n", container),
            ("0::/kubepods.slice/x/cri-containerd-4f.scope\n", container),
            ("0::/lxc.payload.web/init.scope\n", container),
        ] {
            check(&Marks { init_cgroup: cgroup.to_owned(), ..Marks::default() }, expect);
        }
    }

    #[test]
    fn a_virtual_machine_is_told_by_its_processor_or_firmware() {
        let machine = Some(Virtualization::VirtualMachine);
        for (cpuinfo, dmi, expect) in [
            ("processor : 0\nflags\t\t: fpu hypervisor lahf_lm\n", "", machine),
            ("processor : 0\nflags\t\t: fpu lahf_lm\n", "", None),
            ("model name : hypervisor\nflags : fpu\n", "", None),
            ("", "QEMU\nStandard PC (Q35 + ICH9, 2009)\n", machine),
            ("", "LENOVO\n20XW\n", None),
        ] {
            let (cpuinfo, dmi) = (cpuinfo.to_owned(), dmi.to_owned());
            check(&Marks { cpuinfo, dmi, ..Marks::default() }, expect);
        }
        // A container inside a virtual machine hides the network more than the machine does.
        let both = Marks { container_file: true, dmi: "QEMU".into(), ..Marks::default() };
        check(&both, Some(Virtualization::Container));
    }

    #[test]
    fn the_machine_is_read_as_it_is() {
        let machine = read(false);
        let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").expect("Linux has it");
        assert_eq!(machine.kernel_release, release.trim());
        assert!(machine.kernel_version().is_some());
        let now =
            std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("later");
        assert!(now.as_millis() as u64 - machine.collected_at_ms < 60_000);
        assert!(!machine.privileged);
    }
}
