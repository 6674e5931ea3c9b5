//! What judging a packet costs, without the memory the kernel would have to fetch.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use edge_ebpf::golden;
use edge_ebpf::steer;

/// One packet for each way through `decide`.
const CASES: [&str; 5] = [
    "another port",
    "a HELLO over IPv4",
    "a GET with a wrong cookie over IPv4",
    "a GET over IPv4 for a chunk that is not here",
    "a hit over IPv6",
];

fn judge(criterion: &mut Criterion) {
    let golden = golden::all();
    let mut group = criterion.benchmark_group("decide");
    for name in CASES {
        let case = golden.iter().find(|case| case.name == name);
        let case = case.expect("the packet is in the golden table");
        group.bench_function(name, |bencher| {
            bencher.iter(|| steer::decide(black_box(case.frame.as_slice()), &case.world));
        });
    }
    group.finish();
}

criterion_group!(benches, judge);
criterion_main!(benches);
