//! The machine under the numbers, in one line.

use std::fs;

/// Processor, kernel, memory.
pub(super) fn machine() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let field = |text: &str, name: &str| {
        let line = text.lines().find_map(|l| l.strip_prefix(name).map(str::to_owned));
        line.unwrap_or_default().trim_start_matches([' ', '\t', ':']).trim().to_owned()
    };
    let (cpu, memory) = (field(&read("/proc/cpuinfo"), "model name"), field(&read("/proc/meminfo"), "MemTotal"));
    let count = std::thread::available_parallelism().map_or(1, |n| n.get());
    let gib = memory.split(' ').next().and_then(|n| n.parse::<f64>().ok()).unwrap_or(0.0) / 1024.0 / 1024.0;
    format!(
        "haechi-bench: {count} processors ({cpu}), {gib:.0} GiB, Linux {}; load {}",
        read("/proc/sys/kernel/osrelease").trim(),
        read("/proc/loadavg").trim()
    )
}
