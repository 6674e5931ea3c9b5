//! Time per call of each pure stage.

/// The stages.
mod stages;

use std::env;
use std::time::Duration;

use criterion::Criterion;

use self::stages::Meter;

struct Timer {
    criterion: Criterion,
    /// Without the argument `--bench` each stage runs once, as a test.
    measures: bool,
}

impl Meter for Timer {
    fn resident_max(&self) -> u32 {
        if self.measures { 1_000_000 } else { 1000 }
    }

    fn measure<S, R>(
        &mut self,
        stage: &str,
        case: &str,
        set_up: impl Fn() -> S,
        mut call: impl FnMut(&mut S) -> R,
    ) {
        // Only selected cases are set up, and once.
        let mut ready = None;
        self.criterion
            .benchmark_group(stage)
            .bench_function(case, |bencher| {
                let ready = ready.get_or_insert_with(&set_up);
                bencher.iter(|| call(ready));
            });
    }
}

fn main() {
    let criterion = Criterion::default()
        .warm_up_time(Duration::from_secs(1))
        .measurement_time(Duration::from_secs(2))
        .configure_from_args();
    let mut timer = Timer {
        criterion,
        measures: env::args().any(|word| word == "--bench"),
    };
    stages::all(&mut timer);
    timer.criterion.final_summary();
}
