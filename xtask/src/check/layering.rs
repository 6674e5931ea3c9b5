//! Where `unsafe` is allowed, and which modules may depend on which.

use super::Fault;
use super::files::File;
use super::rust;

/// The places of `unsafe`: where bytes of the kernel are touched.
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

/// Replaces `edge-user/src/sys` under loom.
const ORDERS: &str = "edge-user/orders/src/sys";

/// Code in `place`, except in `except`, must not name `module`; `advice` says what to do instead.
struct Forbidden {
    place: &'static str,
    except: &'static [&'static str],
    module: &'static str,
    advice: &'static str,
}

const FORBIDDEN: &[Forbidden] = &[Forbidden {
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
}];

/// Its modules are in the order of their layers: each may name those below it.
const LAYERS: &str = "edge-user/src/lib.rs";

pub(super) fn check(files: &[File]) -> Vec<Fault> {
    let mut faults = Vec::new();
    let layers = layers(files);
    for file in files.iter().filter(|file| file.is_rust()) {
        let code = rust::code(&file.text);
        let place = |at| format!("{}:{}", file.path, rust::line_of(&code, at));
        if !UNSAFE.iter().any(|allowed| file.within(allowed)) {
            faults.extend(rust::words(&code, "unsafe").map(|at| {
                let advice = format!(
                    "`unsafe` is allowed only in {}: put a safe function there and call it",
                    UNSAFE.join(", ")
                );
                Fault::new(place(at), advice)
            }));
        }
        for forbidden in FORBIDDEN {
            let outside = !file.within(forbidden.place)
                || forbidden.except.iter().any(|allowed| file.within(allowed));
            if !outside {
                let named = rust::names_module(&code, forbidden.module);
                faults.extend(named.map(|at| Fault::new(place(at), forbidden.advice)));
            }
        }
        let (product, _) = rust::split_tests(&file.text);
        let product = rust::code(&product);
        for above in above(&file.path, &layers) {
            let named = rust::names_of_crate(&product, above);
            faults.extend(named.map(|at| {
                let advice = format!(
                    "`{above}` is a higher layer ({LAYERS}): pass in what is needed, or move it \
                     down"
                );
                Fault::new(place(at), advice)
            }));
        }
    }
    faults
}

/// The modules of the crate, from the top.
fn layers(files: &[File]) -> Vec<String> {
    let code = (files.iter().find(|file| file.path == LAYERS))
        .map_or_else(String::new, |file| rust::code(&file.text));
    let modules = code.lines().filter_map(|line| {
        let line = line.trim().strip_suffix(';')?;
        line.strip_prefix("pub mod ")
            .or_else(|| line.strip_prefix("mod "))
    });
    modules.map(str::to_owned).collect()
}

/// The layers that a file may not name.
fn above<'a>(path: &str, layers: &'a [String]) -> &'a [String] {
    let inside = path.strip_prefix("edge-user/src/").unwrap_or_default();
    let module = inside.split(['/', '.']).next().unwrap_or_default();
    let own = layers.iter().position(|layer| layer == module);
    &layers[..own.unwrap_or(0)]
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
        assert_eq!(faults("edge-user/src/cache/mod.rs", text), 1);
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
    fn a_layer_names_only_those_below_it() {
        let faults = |path: &str, text: &str| {
            let layers = "pub mod serve;\npub mod cache;\nmod sync;\n";
            let file = |path: &str, text: &str| File {
                path: path.into(),
                text: text.into(),
            };
            check(&[file(LAYERS, layers), file(path, text)]).len()
        };
        let (serve, cache) = ("edge-user/src/serve/xdp/mod.rs", "edge-user/src/cache.rs");
        assert_eq!(faults(serve, "use crate::cache::Store; // crate::serve"), 0);
        assert_eq!(faults(cache, "use crate::serve::plan;"), 1);
        assert_eq!(faults(cache, "use crate::{serve, sync};"), 1);
        assert_eq!(faults(cache, "fn f() { crate::serve::go() }"), 1);
        assert_eq!(faults(cache, "use crate::sync::fence; use axum::serve;"), 0);
        assert_eq!(faults("edge-user/tests/sim.rs", "use crate::serve;"), 0);
    }
}
