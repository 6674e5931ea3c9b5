//! Where `unsafe` may be written, and which part may name which.

use super::Fault;
use super::files::File;
use super::rust;

/// The addresses of `unsafe`: where bytes of the kernel are touched.
const UNSAFE: &[&str] = &[
    "edge-user/src/sys",
    "edge-ebpf/src/main.rs",
    "edge-ebpf/src/cursor.rs",
    PASS,
    MEASURE,
    ORDERS,
];

/// These two have attributes that are called unsafe, for the loader, and no unsafe code.
const PASS: &str = "edge-ebpf/src/pass.rs";
const MEASURE: &str = "edge-ebpf/src/bench.rs";

/// Stands in for `edge-user/src/sys` under loom.
const ORDERS: &str = "edge-user/orders/src/sys";

/// Code in `place`, save in `except`, must not name `module`; `advice` says what to do instead.
struct Border {
    place: &'static str,
    except: &'static [&'static str],
    module: &'static str,
    advice: &'static str,
}

const BORDERS: &[Border] = &[
    Border {
        place: "edge-user/src/hit",
        except: &[],
        module: "miss",
        advice: "a hit knows nothing of misses: hand the request to `inbox`",
    },
    Border {
        place: "edge-user/src/miss",
        except: &[],
        module: "hit",
        advice: "a miss knows nothing of hits: share the code in a module both may name",
    },
    Border {
        place: "edge-user/src",
        except: &[
            "edge-user/src/seal",
            "edge-user/src/client",
            "edge-user/src/bin/edge",
            "edge-user/src/bin/edge.rs",
        ],
        module: "seal",
        advice: "the server side never has a key (I11): only seal/, client/ and bin/edge may \
                 name `seal`",
    },
];

pub(super) fn check(files: &[File]) -> Vec<Fault> {
    let mut faults = Vec::new();
    for file in files.iter().filter(|file| file.is_rust()) {
        let code = rust::code(&file.text);
        let place = |at| format!("{}:{}", file.path, rust::line_of(&code, at));
        if !UNSAFE.iter().any(|allowed| file.within(allowed)) {
            faults.extend(rust::words(&code, "unsafe").map(|at| {
                let advice = format!(
                    "`unsafe` is written in {} only: put a safe function there and call it",
                    UNSAFE.join(", ")
                );
                Fault::new(place(at), advice)
            }));
        }
        for border in BORDERS {
            let outside = !file.within(border.place)
                || border.except.iter().any(|allowed| file.within(allowed));
            if !outside {
                let named = rust::names_module(&code, border.module);
                faults.extend(named.map(|at| Fault::new(place(at), border.advice)));
            }
        }
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(path: &str, text: &str) -> usize {
        check(&[File {
            path: path.into(),
            text: text.into(),
        }])
        .len()
    }

    #[test]
    fn unsafe_has_two_addresses() {
        let text = "// unsafe in words\nfn f() { unsafe { g() } }";
        assert_eq!(faults("edge-user/src/store/mod.rs", text), 1);
        assert_eq!(faults("edge-user/src/sys/mmap.rs", text), 0);
        assert_eq!(faults("edge-ebpf/src/main.rs", text), 0);
    }

    #[test]
    fn the_server_never_names_seal() {
        let text = "use crate::seal::Key;";
        assert_eq!(faults("edge-user/src/edge.rs", text), 1);
        assert_eq!(faults("edge-user/src/bin/edge.rs", text), 0);
        assert_eq!(faults("edge-user/src/seal/ticket.rs", text), 0);
        assert_eq!(faults("edge-user/src/lib.rs", "pub mod seal;"), 0);
    }

    #[test]
    fn hit_and_miss_do_not_name_each_other() {
        assert_eq!(
            faults("edge-user/src/hit/mod.rs", "use crate::miss::Inbox;"),
            1
        );
        assert_eq!(
            faults("edge-user/src/miss/fill.rs", "use crate::{hit, store};"),
            1
        );
        assert_eq!(faults("edge-user/src/miss/fill.rs", "use crate::store;"), 0);
    }
}
