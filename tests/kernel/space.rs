//! Network namespaces, and tools run inside of them.
//!
//! They have no names: they live as long as a descriptor of theirs, so that
//! nothing is left over however the test ends. Tools find them by
//! `/proc/PID/fd`.

use std::cell::Cell;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};

use nix::sched::{setns, unshare, CloneFlags};

/// A network namespace.
pub struct Space {
    file: File,
    number: u64,
}

static NUMBER: AtomicU64 = AtomicU64::new(1);

thread_local! {
    /// The namespace that the thread is in: to enter it again is not free.
    static INSIDE: Cell<u64> = const { Cell::new(0) };
}

/// What a tool printed.
pub struct Printed {
    pub done: bool,
    pub out: String,
    pub err: String,
}

impl Space {
    /// Makes one; the calling thread is in it then.
    pub fn new() -> io::Result<Self> {
        unshare(CloneFlags::CLONE_NEWNET)?;
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        INSIDE.set(number);
        Ok(Space { file: File::open("/proc/thread-self/ns/net")?, number })
    }

    /// Takes the calling thread into it.
    pub fn enter(&self) {
        if INSIDE.get() == self.number {
            return;
        }
        INSIDE.set(self.number);
        setns(&self.file, CloneFlags::CLONE_NEWNET).expect("a namespace of our own can be entered");
    }

    /// A path by which tools find it.
    pub fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.file.as_raw_fd())
    }

    /// Runs a tool inside.
    pub fn run(&self, program: &str, arguments: &[&str], input: &str) -> Printed {
        self.enter();
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|e| panic!("{program}: {e}"));
        // A tool that stops reading at an error says so by its status.
        let _ = child.stdin.take().expect("its input is piped").write_all(input.as_bytes());
        let output = child.wait_with_output().expect("a tool ends");
        Printed {
            done: output.status.success(),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Sets a sysctl; whether it is there.
    pub fn set(&self, key: &str, value: &str) -> bool {
        self.enter();
        fs::write(sysctl_path(key), value).is_ok()
    }

    /// Reads a sysctl.
    pub fn get(&self, key: &str) -> Option<String> {
        self.enter();
        Some(fs::read_to_string(sysctl_path(key)).ok()?.trim().to_owned())
    }
}

/// `/proc/sys` of a key, in which a slash stands for a dot inside a part.
fn sysctl_path(key: &str) -> String {
    let swapped = |c| match c {
        '.' => '/',
        '/' => '.',
        c => c,
    };
    format!("/proc/sys/{}", key.chars().map(swapped).collect::<String>())
}

/// Whether namespaces can be made here; as another user, inside of a user
/// namespace of one's own.
pub fn allowed() -> Result<(), String> {
    if !nix::unistd::geteuid().is_root() {
        let (uid, gid) = (nix::unistd::geteuid(), nix::unistd::getegid());
        unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS)
            .map_err(|e| format!("no user namespace: {e}"))?;
        let map = |file: &str, text: String| {
            fs::write(format!("/proc/self/{file}"), text).map_err(|e| format!("{file}: {e}"))
        };
        map("setgroups", "deny".into())?;
        map("uid_map", format!("0 {uid} 1"))?;
        map("gid_map", format!("0 {gid} 1"))?;
    }
    let made = std::thread::spawn(|| Space::new().map(drop)).join();
    made.map_err(|_| "no namespace".to_owned())?.map_err(|e| format!("no network namespace: {e}"))
}
