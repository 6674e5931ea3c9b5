//! Versions of the tools, and their packages. The only place of these facts.

use edge_testbed::paths::PYTHON;

/// Turns the compiler's output into a BPF object. 0.13 is the first with LLVM 21 to 23.
pub(crate) const BPF_LINKER: &str = "0.13.0";

/// LLVM versions bpf-linker 0.13 can be built with, each a feature `llvm-N`. The one used must not
/// be older than the compiler's LLVM, as it could not read newer bitcode.
pub(crate) const BPF_LINKER_LLVMS: &[u32] = &[21, 22, 23];

/// LLVM inside Debian 12's `rustc-web`, and the version of `LLVM_DEV` below.
pub(crate) const DEBIAN_LLVM: u32 = 22;

/// Debian 12's compiler that can build `core` for BPF: the Rust for its browsers, and the sources
/// of the library.
pub(crate) const DEBIAN_COMPILER: &[&str] = &["rustc-web", "rust-web-src"];

/// The linter of the same version. Optional: `check` has an alternative.
pub(crate) const DEBIAN_LINTER: &str = "rust-web-clippy";

/// What bpf-linker links: LLVM, what LLVM links, and a compiler's driver and C++ library.
pub(crate) const DEBIAN_LINKER: &[&str] = &[
    "llvm-22-dev",
    "libpolly-22-dev",
    "zlib1g-dev",
    "libzstd-dev",
    "g++",
];

/// The tools of the commands: package, program in it, purpose.
pub(crate) const TOOLS: &[(&str, &str, &str)] = &[
    ("gcc", "cc", "links Rust programs, compiles the allocator"),
    (
        "iproute2",
        "ip",
        "creates namespaces and links for demo and test",
    ),
    ("ethtool", "ethtool", "switches checksum offloads in tests"),
    (
        "mount",
        "umount",
        "removes the mount that `ip netns` creates",
    ),
    ("git", "git", "lists the source files that `check` reads"),
    (
        "python3",
        PYTHON,
        "runs `docs/reference/reader.py` in tests",
    ),
];

/// Counts instructions, as program and as package. Only for `bench --instructions`.
pub(crate) const VALGRIND: &str = "valgrind";

/// What `docs/reference/reader.py` imports: package, module.
pub(crate) const PYTHON_MODULE: (&str, &str) = ("python3-cryptography", "cryptography");

/// XDP and `AF_XDP` as the daemon uses them.
pub(crate) const KERNEL_MIN: (u32, u32) = (6, 1);
