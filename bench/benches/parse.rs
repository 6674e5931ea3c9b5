//! What judging a packet costs, without the memory the kernel would have to fetch.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use edge_ebpf::golden;
use edge_ebpf::steer;

fn judge(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("decide");
    for case in golden::all() {
        group.bench_function(case.name, |bencher| {
            bencher.iter(|| steer::decide(black_box(case.frame.as_slice()), &case.world));
        });
    }
    group.finish();
}

criterion_group!(benches, judge);
criterion_main!(benches);
