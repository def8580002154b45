//! The same test in a small virtual machine with Debian's kernel, which has the
//! devices that this machine's kernel may lack.
//!
//! It has no disk: the test, the tools it calls, what they link to and the
//! kernel's modules are what its memory starts with. It says what the test says
//! by its first serial line, and by the second, as an archive, how the test
//! ended and the snapshots that it kept.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Set inside of the machine.
const INSIDE: &str = "LAB_KERNEL_INSIDE";

/// What of the environment is handed over.
const HANDED: [&str; 6] =
    ["LAB_SEED", "LAB_KERNEL_MINUTES", "LAB_KERNEL_LABS", "LAB_KERNEL_LAB", "LAB_KERNEL_LEFT", "LAB_SHRINK"];

/// What makes and runs the machine, by the package that has it.
const MAKERS: [(&str, &str); 3] =
    [("qemu-system-x86_64", "qemu-system-x86"), ("busybox", "busybox-static"), ("wg", "wireguard-tools")];

/// What the test calls inside.
const TOOLS: [&str; 15] = [
    "ip",
    "bridge",
    "sysctl",
    "nft",
    "ipset",
    "wg",
    "iptables-save",
    "iptables-nft-save",
    "iptables-nft-restore",
    "iptables-legacy-save",
    "iptables-legacy-restore",
    "ip6tables-nft-save",
    "ip6tables-nft-restore",
    "ip6tables-legacy-save",
    "ip6tables-legacy-restore",
];

/// Folders that tools read.
const READ: [&str; 3] = ["/usr/lib/x86_64-linux-gnu/xtables", "/etc/iproute2", "/usr/share/iproute2"];

/// Modules of the kernel, or folders of them, that networks are made of.
const MODULES: [&str; 13] = [
    "net",
    "crypto",
    "lib",
    "arch/x86/crypto",
    "drivers/net/bonding",
    "drivers/net/vxlan",
    "drivers/net/wireguard",
    "drivers/net/dummy.ko",
    "drivers/net/macvlan.ko",
    "drivers/net/mii.ko",
    "drivers/net/tun.ko",
    "drivers/net/veth.ko",
    "drivers/net/vrf.ko",
];

/// Whether the test is to run in a machine of its own, and does not yet.
pub fn wanted() -> bool {
    std::env::var_os("LAB_KERNEL_VM").is_some() && !inside()
}

/// Whether the test runs in such a machine.
pub fn inside() -> bool {
    std::env::var_os(INSIDE).is_some()
}

fn done(program: &str, arguments: &[&str], folder: &Path) -> Result<String, String> {
    let output = Command::new(program)
        .args(arguments)
        .current_dir(folder)
        .output()
        .map_err(|e| format!("{program}: {e}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(format!("{program}: {}", String::from_utf8_lossy(&output.stderr).trim()))
}

/// The path of a program.
fn which(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let more = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(more).map(|p| p.join(program)).find(|p| p.is_file())
}

/// Installs what is missing.
fn install(here: &Path) -> Result<(), String> {
    let missing: Vec<&str> =
        MAKERS.iter().filter(|(tool, _)| which(tool).is_none()).map(|(_, package)| *package).collect();
    if missing.is_empty() {
        return Ok(());
    }
    println!("installing {}", missing.join(", "));
    let arguments = [&["install", "-y", "--no-install-recommends"], missing.as_slice()].concat();
    done("apt-get", &arguments, here).map(drop)
}

/// Where Debian's kernel is unpacked; it is fetched once.
fn kernel(here: &Path) -> Result<PathBuf, String> {
    let folder = here.join("linux");
    if folder.exists() {
        return Ok(folder);
    }
    let told = done("apt-cache", &["depends", "linux-image-amd64"], here)?;
    let package = told
        .lines()
        .find_map(|l| l.trim().strip_prefix("Depends: "))
        .ok_or("apt knows no linux-image-amd64")?;
    println!("fetching {package}");
    done("apt-get", &["download", package], here)?;
    let file = fs::read_dir(here)
        .map_err(|e| e.to_string())?
        .filter_map(|e| Some(e.ok()?.path()))
        .find(|p| p.extension().is_some_and(|e| e == "deb"))
        .ok_or("no package came")?;
    let partly = here.join("linux.partly");
    let _ = fs::remove_dir_all(&partly);
    done("dpkg-deb", &["-x", &file.display().to_string(), &partly.display().to_string()], here)?;
    fs::rename(&partly, &folder).map_err(|e| e.to_string())?;
    let _ = fs::remove_file(file);
    Ok(folder)
}

/// The machine's files, as they are laid out before they are packed.
struct Root(PathBuf);

impl Root {
    fn at(&self, path: &Path) -> PathBuf {
        self.0.join(path.strip_prefix("/").unwrap_or(path))
    }

    /// Copies a file to where it is here; what it is a link to, too.
    fn copy(&self, path: &Path) -> io::Result<()> {
        let (real, target) = (fs::canonicalize(path)?, self.at(path));
        if target.symlink_metadata().is_ok() {
            return Ok(());
        }
        fs::create_dir_all(target.parent().unwrap_or(&self.0))?;
        // Tools of one program differ by name alone.
        if real.file_name() != path.file_name() && !path.to_string_lossy().contains(".so") {
            self.copy(&real)?;
            return symlink(real, target);
        }
        fs::copy(real, target).map(drop)
    }

    fn folder(&self, path: &Path, target: &Path) -> io::Result<()> {
        if path.is_file() {
            fs::create_dir_all(target.parent().unwrap_or(&self.0))?;
            return fs::copy(path, target).map(drop);
        }
        fs::create_dir_all(target)?;
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            self.folder(&entry.path(), &target.join(entry.file_name()))?;
        }
        Ok(())
    }

    /// Copies a program and what it is linked to.
    fn program(&self, path: &Path) -> Result<(), String> {
        let failed = |e: io::Error| format!("{}: {e}", path.display());
        self.copy(path).map_err(failed)?;
        self.linked(path)
    }

    fn linked(&self, path: &Path) -> Result<(), String> {
        let Ok(told) = done("ldd", &[&path.display().to_string()], &self.0) else { return Ok(()) };
        for library in told.split_whitespace().filter(|w| w.starts_with('/')) {
            self.copy(Path::new(library)).map_err(|e| format!("{library}: {e}"))?;
        }
        Ok(())
    }
}

/// Packs what the machine's memory starts with.
fn pack(here: &Path, linux: &Path) -> Result<PathBuf, String> {
    let failed = |e: io::Error| format!("the machine's files: {e}");
    let root = Root(here.join("root"));
    let _ = fs::remove_dir_all(&root.0);
    for folder in ["test", "bin", "sbin", "lib/modules"] {
        fs::create_dir_all(root.0.join(folder)).map_err(failed)?;
    }
    let busybox = which("busybox").ok_or("no busybox")?;
    fs::copy(&busybox, root.0.join("bin/busybox")).map_err(failed)?;
    root.linked(&busybox)?;
    let test = std::env::current_exe().map_err(failed)?;
    fs::copy(&test, root.0.join("test/kernel")).map_err(failed)?;
    root.linked(&test)?;
    for tool in TOOLS {
        root.program(&which(tool).ok_or_else(|| format!("no {tool}"))?)?;
    }
    for folder in READ.map(Path::new).into_iter().filter(|f| f.exists()) {
        root.folder(folder, &root.at(folder)).map_err(failed)?;
    }
    // A plugin that lacks a library is no plugin: `statistic` wants one of its own.
    for plugin in fs::read_dir(READ[0]).map_err(failed)?.filter_map(Result::ok) {
        root.linked(&plugin.path())?;
    }
    for file in ["/etc/protocols", "/etc/services", "/etc/ethertypes"].map(Path::new) {
        if file.exists() {
            root.copy(file).map_err(failed)?;
        }
    }
    let all = linux.join("lib/modules");
    let version = fs::read_dir(&all)
        .map_err(failed)?
        .find_map(|e| e.ok()?.file_name().into_string().ok())
        .ok_or("a kernel without modules")?;
    let (from, to) = (all.join(&version), root.0.join("lib/modules").join(&version));
    for part in MODULES {
        let part = Path::new("kernel").join(part);
        root.folder(&from.join(&part), &to.join(&part)).map_err(failed)?;
    }
    for list in ["modules.builtin", "modules.order"] {
        fs::copy(from.join(list), to.join(list)).map_err(failed)?;
    }
    done("busybox", &["depmod", "-b", &root.0.display().to_string(), &version], here)?;
    fs::write(root.0.join("init"), include_str!("init.sh")).map_err(failed)?;
    done("chmod", &["+x", "init"], &root.0)?;
    done("sh", &["-c", "find . | busybox cpio -o -H newc > ../memory.cpio"], &root.0)?;
    Ok(here.join("memory.cpio"))
}

/// Runs the machine until the test in it has ended; how it did.
fn boot(here: &Path, linux: &Path, memory: &Path) -> Result<i32, String> {
    let image = fs::read_dir(linux.join("boot"))
        .map_err(|e| e.to_string())?
        .filter_map(|e| Some(e.ok()?.path()))
        .find(|p| p.file_name().is_some_and(|n| n.to_string_lossy().starts_with("vmlinuz")))
        .ok_or("a package without a kernel")?;
    let mut line = format!("console=ttyS0 quiet panic=-1 mitigations=off {INSIDE}=1");
    for key in HANDED {
        if let Ok(value) = std::env::var(key) {
            line += &format!(" {key}={value}");
        }
    }
    let kept = here.join("kept.tar");
    let _ = fs::remove_file(&kept);
    let status = Command::new("qemu-system-x86_64")
        .args(["-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", "3072"])
        .args(["-display", "none", "-monitor", "none", "-no-reboot", "-nic", "none", "-serial", "stdio"])
        .arg("-serial")
        .arg(format!("file:{}", kept.display()))
        .arg("-kernel")
        .arg(image)
        .arg("-initrd")
        .arg(memory)
        .args(["-append", &line])
        .stdin(std::process::Stdio::null())
        .status()
        .map_err(|e| format!("qemu: {e}"))?;
    if !status.success() {
        return Err(format!("qemu: {status}"));
    }
    let out = std::env::temp_dir().join("lab-kernel-vm");
    fs::create_dir_all(&out).map_err(|e| e.to_string())?;
    let _ = fs::remove_file(out.join("status"));
    done("tar", &["-xf", &kept.display().to_string(), "-C", &out.display().to_string()], here)
        .map_err(|e| format!("the machine ended before the test did: {e}"))?;
    println!("what was kept is in {}", out.display());
    let told = fs::read_to_string(out.join("status")).map_err(|e| e.to_string())?;
    told.trim().parse().map_err(|_| format!("the test ended with {told}"))
}

/// Runs the test in a machine, and ends as it does. Where no machine can be
/// made, says so and tests nothing.
pub fn run() {
    let here = Path::new(env!("CARGO_TARGET_TMPDIR")).join("vm");
    let made = fs::create_dir_all(&here).map_err(|e| e.to_string()).and_then(|()| {
        install(&here)?;
        let linux = kernel(&here)?;
        let memory = pack(&here, &linux)?;
        Ok((linux, memory))
    });
    match made {
        Err(why) => println!("SKIPPED: no virtual machine can be made here: {why}"),
        Ok((linux, memory)) => match boot(&here, &linux, &memory) {
            Ok(0) => {}
            Ok(code) => std::process::exit(code),
            Err(why) => panic!("{why}"),
        },
    }
}
