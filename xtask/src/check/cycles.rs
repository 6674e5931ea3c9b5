//! Files of the product must not depend on each other in cycles.

use std::collections::{BTreeMap, BTreeSet};

use super::Fault;
use super::files::File;
use super::rust;

const PRODUCT: &str = "edge-user/src/";

/// The dependencies of each module; modules by their path from the crate's root.
type Graph = BTreeMap<String, BTreeSet<String>>;

pub(super) fn check(files: &[File]) -> Vec<Fault> {
    let graph = graph(files);
    let mut faults = Vec::new();
    let mut seen = BTreeSet::new();
    for module in graph.keys() {
        if seen.contains(module) {
            continue;
        }
        let reached = reach(&graph, module);
        let cycle: BTreeSet<_> = (reached.iter())
            .filter(|other| reach(&graph, other).contains(module))
            .cloned()
            .collect();
        if !cycle.is_empty() {
            let names: Vec<_> = cycle.iter().map(String::as_str).collect();
            let advice = format!(
                "these modules depend on each other in a cycle: {}; pass in what is needed, or move \
                 what they share below them",
                names.join(", ")
            );
            faults.push(Fault::new(PRODUCT.to_owned(), advice));
        }
        seen.extend(cycle);
    }
    faults
}

fn graph(files: &[File]) -> Graph {
    let modules: BTreeMap<String, &File> = (files.iter().filter(|file| file.is_rust()))
        .filter_map(|file| Some((module(&file.path)?, file)))
        .collect();
    let named = |(module, file): (&String, &&File)| {
        let (product, _) = rust::split_tests(&file.text);
        let code = rust::code(&product);
        let children = modules.keys().filter_map(|other| {
            let child = other.strip_prefix(module)?.strip_prefix("::")?;
            let begins = |at: usize| {
                !code[..at].ends_with("::") && code[at + child.len()..].starts_with("::")
            };
            rust::words(&code, child).any(begins).then(|| other.clone())
        });
        let children: Vec<_> = children.collect();
        let named = (paths(&code, module).iter().chain(&children))
            .filter_map(|path| longest(path, |path| modules.contains_key(path)))
            .filter(|other| other != module)
            .collect();
        (module.clone(), named)
    };
    modules.iter().map(named).collect()
}

/// Programs are above the crate, and `lib.rs` only lists it.
fn module(path: &str) -> Option<String> {
    let path = path.strip_prefix(PRODUCT)?.strip_suffix(".rs")?;
    let path = path.strip_suffix("/mod").unwrap_or(path);
    (path != "lib" && !path.starts_with("bin/")).then(|| path.replace('/', "::"))
}

/// The paths in a module's code that name its own crate, each from the crate's root.
fn paths(code: &str, module: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (word, above) in [("crate", None), ("self", Some(0)), ("super", Some(1))] {
        for at in rust::words(code, word) {
            let Some(mut rest) = code[at + word.len()..].strip_prefix("::") else {
                continue;
            };
            if code[..at].ends_with("::") {
                continue;
            }
            let mut above = above;
            while let Some(further) = rest.strip_prefix("super::") {
                rest = further;
                above = above.map(|levels| levels + 1);
            }
            let parts: Vec<&str> = module.split("::").collect();
            let kept = above.map_or(0, |levels| parts.len().saturating_sub(levels));
            let group = rest
                .strip_prefix('{')
                .and_then(|group| group.split_once('}'));
            let tails = group.map_or(rest, |(group, _)| group).split(',');
            let tails = tails.take(if group.is_some() { usize::MAX } else { 1 });
            for tail in tails {
                let tail = tail.trim();
                let is_path = |byte: char| byte.is_alphanumeric() || "_:".contains(byte);
                let end = tail.find(|byte| !is_path(byte)).unwrap_or(tail.len());
                let mut path = parts[..kept].join("::");
                if !path.is_empty() {
                    path.push_str("::");
                }
                path.push_str(&tail[..end]);
                found.push(path);
            }
        }
    }
    found
}

/// The longest prefix of a path that is a module.
fn longest(path: &str, is_module: impl Fn(&str) -> bool) -> Option<String> {
    let mut path = path;
    loop {
        if is_module(path) {
            return Some(path.to_owned());
        }
        path = path.rsplit_once("::")?.0;
    }
}

/// Every module reachable from this one.
fn reach(graph: &Graph, module: &str) -> BTreeSet<String> {
    let mut reached = BTreeSet::new();
    let mut next = vec![module];
    while let Some(module) = next.pop() {
        for named in graph.get(module).into_iter().flatten() {
            if reached.insert(named.clone()) {
                next.push(named);
            }
        }
    }
    reached
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(files: &[(&str, &str)]) -> usize {
        let file = |(path, text): &(&str, &str)| File {
            path: format!("{PRODUCT}{path}"),
            text: (*text).to_owned(),
        };
        check(&files.iter().map(file).collect::<Vec<_>>()).len()
    }

    #[test]
    fn a_cycle_is_found_over_any_number_of_files() {
        let a = ("a/mod.rs", "use self::b::B;\npub mod b;");
        let child = ("a/b.rs", "use super::A;");
        assert_eq!(faults(&[("a/mod.rs", "fn f() { b::go() }"), child]), 1);
        assert_eq!(faults(&[("a/mod.rs", "fn f() { c::b::go() }"), child]), 0);
        let c = ("c.rs", "fn f() { crate::a::go() }");
        assert_eq!(faults(&[a, ("a/b.rs", "use crate::c::C;"), c]), 1);
        assert_eq!(
            faults(&[a, ("a/b.rs", "use super::super::{d, c::C};"), c]),
            1
        );
        assert_eq!(faults(&[a, ("a/b.rs", "// crate::c\nuse crate::d;"), c]), 0);
        assert_eq!(
            faults(&[
                a,
                ("a/b.rs", "#[cfg(test)]\nmod tests { use super::super::A; }")
            ]),
            0
        );
        assert_eq!(
            faults(&[
                ("a/b.rs", "use super::c::C;"),
                ("a/c.rs", "use super::b::B;")
            ]),
            1
        );
    }
}
