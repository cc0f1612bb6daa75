//! The machine: its cores, and what runs on it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// One core for the target, another for the generator.
pub struct Cores {
    target: usize,
    load: usize,
}

impl Cores {
    /// The first core that we may use, and the next that is not the same core by another name (hyper-threading), where there is one.
    pub fn choose() -> Self {
        let allowed = sched_getaffinity(None).unwrap_or_else(|_| CpuSet::new());
        let all: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|core| allowed.is_set(*core)).collect();
        let target = all.first().copied().unwrap_or(0);
        let siblings = siblings(target);
        let other = all.iter().find(|core| !siblings.contains(core)).or_else(|| all.get(1));
        if other.is_none() {
            eprintln!("one core only: generator and target share it, the figures mean little");
        }
        Self { target, load: other.copied().unwrap_or(target) }
    }

    /// Keeps this thread, and those it starts, on the generator's core.
    pub fn on_load(&self) {
        pin(self.load);
    }

    /// Does `start` on the target's core: a process started there stays there.
    pub fn on_target<T>(&self, start: impl FnOnce() -> T) -> T {
        pin(self.target);
        let started = start();
        pin(self.load);
        started
    }
}

fn pin(core: usize) {
    let mut cores = CpuSet::new();
    cores.set(core);
    if let Err(e) = sched_setaffinity(None, &cores) {
        eprintln!("core {core} is not to be had: {e}");
    }
}

fn siblings(core: usize) -> Vec<usize> {
    let path = format!("/sys/devices/system/cpu/cpu{core}/topology/thread_siblings_list");
    let text = fs::read_to_string(path).unwrap_or_default();
    text.trim().split([',', '-']).filter_map(|core| core.parse().ok()).collect()
}

/// Thousands of sockets are opened here.
pub fn raise_descriptor_limit() {
    let hard = getrlimit(Resource::Nofile).maximum;
    let _ = setrlimit(Resource::Nofile, Rlimit { current: hard, maximum: hard });
}

/// Where a program is; servers stand in sbin, which is not in everybody's path.
pub fn find(program: &str) -> PathBuf {
    let path = std::env::var("PATH").unwrap_or_default();
    let folders = path.split(':').chain(["/usr/local/sbin", "/usr/sbin", "/sbin"]);
    folders.map(|folder| Path::new(folder).join(program)).find(|path| path.exists()).unwrap_or_else(|| program.into())
}

/// What runs here, in a line.
pub fn describe() -> String {
    let first = |program: &Path, arg: &str| {
        let output = Command::new(program).arg(arg).output().ok()?;
        let text = [output.stdout, output.stderr].concat();
        String::from_utf8_lossy(&text).lines().next().map(str::to_owned)
    };
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let cpu = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or("");
    let cpu = cpu.trim_matches([' ', '\t', ':']);
    let cores = cpuinfo.lines().filter(|line| line.starts_with("processor")).count();
    let virtual_machine = if cpuinfo.contains("hypervisor") { ", virtual" } else { "" };
    let version = |text: Option<String>| {
        let text = text?;
        let words = text.split([' ', '/']).find(|word| word.starts_with(|c: char| c.is_ascii_digit()))?;
        Some(words.split(['-', '+']).next().unwrap_or_default().to_owned())
    };
    let named = |name: &str, version: Option<String>| version.map(|version| format!("{name} {version}"));
    let lines = [
        Some(format!("{cpu}, {cores} cores{virtual_machine}")),
        first(Path::new("uname"), "-sr"),
        named("HAProxy", version(first(&find("haproxy"), "-v"))),
        named("nginx", version(first(&find("nginx"), "-v"))),
        first(Path::new(env!("CARGO_BIN_EXE_relay")), "--version"),
    ];
    lines.into_iter().flatten().collect::<Vec<_>>().join(" · ")
}
