//! The emulated machine: one processor, memory, and a serial line.
//!
//! Its clock counts instructions, not seconds: what the lab calls 60 milliseconds is so many
//! instructions however busy the real machine is, and time in which nothing happens is skipped. So the
//! lab's time limits mean the same here as elsewhere, and results do not depend on the load.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::image::STATUS;
use super::kernel::Kernel;

/// The emulator.
pub(crate) const PROGRAM: &str = "qemu-system-x86_64";

/// How long the machine may say nothing. The lab prints when all cases are through.
const SILENCE: Duration = Duration::from_secs(2 * 3600);

/// An instruction takes two to the power of this in nanoseconds.
const SHIFT: &str = "shift=0,sleep=off";

/// Boots a kernel with a file system, prints what it prints, and returns how each command ended and
/// the lines of the lab that count cases.
pub(crate) fn boot(kernel: &Kernel, image: &Path) -> Result<Vec<Ended>> {
    let mut command = Command::new(PROGRAM);
    command
        .args(["-accel", "tcg,thread=single", "-icount", SHIFT, "-cpu", "max", "-m", "3072"])
        .args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"])
        .args(["-serial", "stdio", "-append"])
        .arg("console=ttyS0 quiet loglevel=2 panic=-1 mitigations=off tsc=reliable nowatchdog")
        .arg("-kernel")
        .arg(&kernel.file)
        .arg("-initrd")
        .arg(image)
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    let child = command.spawn().with_context(|| format!("start {PROGRAM}"))?;
    Running { child }.watch()
}

/// How one command of the lab ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ended {
    /// Its exit status.
    pub(crate) status: i32,
    /// Its last line of counts.
    pub(crate) counts: String,
}

/// Ended, at the latest, when dropped.
struct Running {
    child: Child,
}

impl Running {
    fn watch(mut self) -> Result<Vec<Ended>> {
        let stdout = self.child.stdout.take().context("it was asked for")?;
        let (send, lines) = channel();
        std::thread::spawn(move || {
            let mut reader = BufReader::new(stdout);
            let mut line = Vec::new();
            while reader.read_until(b'\n', &mut line).is_ok_and(|length| length > 0) {
                let text = String::from_utf8_lossy(&line).trim_end().to_owned();
                if send.send(text).is_err() {
                    return;
                }
                line.clear();
            }
        });
        read(&lines)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn read(lines: &Receiver<String>) -> Result<Vec<Ended>> {
    let mut ended = Vec::new();
    let mut counts = String::new();
    loop {
        let line = match lines.recv_timeout(SILENCE) {
            Ok(line) => line,
            Err(RecvTimeoutError::Disconnected) => return Ok(ended),
            Err(RecvTimeoutError::Timeout) => bail!("the machine has said nothing for {SILENCE:?}"),
        };
        println!("{line}");
        if let Some(status) = line.strip_prefix(STATUS) {
            let status = status.parse().with_context(|| format!("`{line}`"))?;
            ended.push(Ended { status, counts: std::mem::take(&mut counts) });
        } else if line.ends_with(" skipped") && line.contains(" passed, ") {
            counts = line;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_each_command_is_read() {
        let (send, lines) = channel();
        for line in ["noise", "3 passed, 0 failed, 1 skipped", &format!("{STATUS}0"), "", "oops"] {
            send.send(line.to_owned()).expect("the other end is open");
        }
        send.send(format!("{STATUS}4")).expect("the other end is open");
        drop(send);
        let ended = |status, counts: &str| Ended { status, counts: counts.to_owned() };
        let expected = [ended(0, "3 passed, 0 failed, 1 skipped"), ended(4, "")];
        assert_eq!(read(&lines).expect("all lines are well formed"), expected);
    }
}
