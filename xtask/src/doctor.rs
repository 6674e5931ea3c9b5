//! Lists the prerequisites and which are missing; changes nothing.

use std::fs;
use std::path::PathBuf;

use anyhow::{Result, bail};
use edge_testbed::{hugepages, paths::PYTHON, privileges, process};

use crate::setup;
use crate::toolchain;
use crate::versions::{
    BPF_LINKER, DEBIAN_COMPILER, DEBIAN_LINKER, KERNEL_MIN, PYTHON_MODULE, TOOLS,
};

/// Needed by a demo of the default size.
const HUGEPAGE_BYTES: u64 = 576 << 20;

/// A prerequisite: its name, what was found, and the fix if that is insufficient.
struct Finding {
    what: &'static str,
    found: String,
    fix: Option<String>,
}

impl Finding {
    fn new(
        what: &'static str,
        good: bool,
        found: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        Self {
            what,
            found: found.into(),
            fix: (!good).then(|| fix.into()),
        }
    }

    fn path(
        what: &'static str,
        path: Option<PathBuf>,
        missing: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        let good = path.is_some();
        let found = path.map_or_else(|| missing.into(), |path| path.display().to_string());
        Self::new(what, good, found, fix)
    }

    /// Present if the kernel was built with it.
    fn kernel_file(what: &'static str, path: &str, fix: &str) -> Self {
        let found = Some(PathBuf::from(path)).filter(|path| path.exists());
        Self::path(what, found, format!("no {path}"), fix)
    }
}

pub(crate) fn doctor() -> Result<()> {
    let mut findings = vec![kernel()?];
    findings.extend(build_tools()?);
    findings.extend(run_tools());
    findings.extend([root(), bpf(), namespaces(), io_uring(), memory()?]);
    for Finding { what, found, fix } in &findings {
        match fix {
            None => println!("ok       {what}: {found}"),
            Some(fix) => println!("MISSING  {what}: {found}\n         fix: {fix}"),
        }
    }
    let missing = findings
        .iter()
        .filter(|finding| finding.fix.is_some())
        .count();
    if missing > 0 {
        bail!("{missing} prerequisites are missing; `cargo xtask setup` installs tools");
    }
    Ok(())
}

fn kernel() -> Result<Finding> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let release = release.trim();
    let (major, minor) = KERNEL_MIN;
    Ok(Finding::new(
        "kernel",
        version(release) >= Some(KERNEL_MIN),
        release,
        format!("run Linux {major}.{minor} or later"),
    ))
}

fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|letter: char| !letter.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn build_tools() -> Result<Vec<Finding>> {
    let state = setup::look()?;
    let compilers = toolchain::compilers();
    let list: Vec<String> = compilers
        .iter()
        .map(toolchain::Compiler::describe)
        .collect();
    let list = if list.is_empty() {
        "none".into()
    } else {
        list.join("; ")
    };
    let (compiler, llvm) = state.pair.unzip();
    let clippy = compiler.and_then(|compiler| compiler.clippy_driver());
    let no_clippy = "not found: `check` builds the program with warnings denied instead";
    Ok(vec![
        Finding::new(
            "compiler that can build core for BPF",
            !compilers.is_empty(),
            list,
            setup::apt_line(DEBIAN_COMPILER),
        ),
        Finding::path(
            "LLVM for bpf-linker, not older than the compiler's",
            llvm.map(|llvm| llvm.prefix),
            "none",
            setup::apt_line(DEBIAN_LINKER),
        ),
        Finding::path(
            "bpf-linker",
            state.linker,
            format!("{BPF_LINKER} is not built"),
            "cargo xtask setup",
        ),
        // Optional: `check` has an alternative.
        Finding {
            fix: None,
            ..Finding::path("linter for the XDP program", clippy, no_clippy, "")
        },
    ])
}

fn run_tools() -> Vec<Finding> {
    let find = |(package, program, purpose): &(&'static str, &'static str, &'static str)| {
        let missing = format!("not found; it {purpose}");
        let fix = setup::apt_line(&[package]);
        Finding::path(program, process::find(program), missing, fix)
    };
    let (package, module) = PYTHON_MODULE;
    let there = setup::python_module();
    let found = format!("{PYTHON} imports {module}: {there}");
    let module = Finding::new(package, there, found, setup::apt_line(&[package]));
    TOOLS.iter().map(find).chain([module]).collect()
}

fn root() -> Finding {
    let root = privileges::is_root();
    let user = if root { "root" } else { "not root" };
    let found = format!("{user} (demo, test and run need root)");
    Finding::new("rights", root, found, privileges::as_root())
}

fn bpf() -> Finding {
    Finding::kernel_file(
        "BPF with type information",
        "/sys/kernel/btf/vmlinux",
        "run a kernel with CONFIG_BPF_SYSCALL, CONFIG_XDP_SOCKETS, CONFIG_DEBUG_INFO_BTF",
    )
}

fn namespaces() -> Finding {
    Finding::kernel_file(
        "network namespaces",
        "/proc/self/ns/net",
        "run a kernel with CONFIG_NET_NS and CONFIG_VETH",
    )
}

fn io_uring() -> Finding {
    // The file exists since 6.6; before, io_uring could not be disabled.
    let setting = fs::read_to_string("/proc/sys/kernel/io_uring_disabled").unwrap_or_default();
    let off = setting.trim() == "2" || (setting.trim() == "1" && !privileges::is_root());
    Finding::new(
        "io_uring",
        !off,
        if off { "disabled" } else { "allowed" },
        "sysctl -w kernel.io_uring_disabled=0",
    )
}

fn memory() -> Result<Finding> {
    let memory = hugepages::meminfo()?;
    let pages = HUGEPAGE_BYTES.checked_div(memory.page_bytes).unwrap_or(0);
    Ok(Finding::new(
        "hugepages",
        pages > 0 && memory.available_bytes > HUGEPAGE_BYTES,
        format!(
            "{} reserved, {} of them free; {} MiB of memory to reserve more from (demo borrows \
             about {pages} pages while it runs)",
            memory.total,
            memory.free,
            memory.available_bytes >> 20
        ),
        "free some memory; the kernel needs CONFIG_HUGETLBFS",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_versions_are_numbers_not_text() {
        assert!(version("6.18.44-fc") >= Some(KERNEL_MIN));
        assert!(version("6.1.0-13-amd64") >= Some(KERNEL_MIN));
        assert!(version("5.15.0") < Some(KERNEL_MIN));
    }
}
