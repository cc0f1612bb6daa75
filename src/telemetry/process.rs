//! What does the process cost? What Prometheus' own libraries say of one, from where the kernel says it.
//!
//! The `process` feature of the `prometheus` crate would say the same and bring a second `rustix` with it.

use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::process::{Resource, getrlimit};
use rustix::time::{ClockId, clock_gettime};

use super::sampled::Asked;

/// The process now.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Standing {
    cpu_seconds: f64,
    open_fds: f64,
    max_fds: f64,
    resident_bytes: f64,
    started: f64,
}

/// The metrics of this process. Read at each scrape, on the thread that answers it: with many descriptors it takes some
/// milliseconds to count them.
pub(super) fn standing() -> Asked<Standing> {
    let asked = Asked::new(&[
        ("process_cpu_seconds_total", "Processor time used, user and system, seconds.", |now: &Standing| now.cpu_seconds),
        ("process_max_fds", "Limit on open file descriptors.", |now| now.max_fds),
        ("process_open_fds", "Open file descriptors.", |now| now.open_fds),
        ("process_resident_memory_bytes", "Memory in use, bytes.", |now| now.resident_bytes),
        ("process_start_time_seconds", "Start of the process, seconds since 1970.", |now| now.started),
    ]);
    let started = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64());
    asked.watch(move || look(started));
    asked
}

fn look(started: f64) -> Standing {
    let cpu = clock_gettime(ClockId::ProcessCPUTime);
    Standing {
        cpu_seconds: cpu.tv_sec as f64 + cpu.tv_nsec as f64 / 1e9,
        // The directory that is being read is one of them.
        open_fds: fs::read_dir("/proc/self/fd").map_or(0.0, |all| (all.count() as f64 - 1.0).max(0.0)),
        max_fds: getrlimit(Resource::Nofile).current.map_or(f64::INFINITY, |limit| limit as f64),
        resident_bytes: resident_pages().unwrap_or(0) as f64 * rustix::param::page_size() as f64,
        started,
    }
}

/// The second number of statm, proc(5).
fn resident_pages() -> Option<u64> {
    fs::read_to_string("/proc/self/statm").ok()?.split(' ').nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_says_what_this_process_costs() {
        let before = look(1.0);
        assert!(before.open_fds >= 3.0 && before.max_fds >= before.open_fds, "{before:?}");
        assert!(before.resident_bytes > 1e5 && before.cpu_seconds > 0.0, "{before:?}");
        assert!(look(1.0).cpu_seconds >= before.cpu_seconds);
    }
}
