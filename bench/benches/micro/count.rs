//! Calls one pure stage a given number of times, for `cargo xtask bench --instructions`, which runs
//! it under callgrind: `count STAGE/CASE CALLS`. Without arguments it lists the stages.
#![expect(clippy::print_stdout, reason = "xtask reads the list")]

/// The stages.
mod stages;

use std::env;
use std::hint::black_box;
use std::process::ExitCode;

use self::stages::Meter;

struct Caller {
    wanted: Option<(String, u64)>,
    found: bool,
}

impl Meter for Caller {
    /// More chunks would cost memory and execute the same instructions.
    fn resident_max(&self) -> u32 {
        1000
    }

    fn measure<S, R>(
        &mut self,
        stage: &str,
        case: &str,
        set_up: impl Fn() -> S,
        mut call: impl FnMut(&mut S) -> R,
    ) {
        let name = format!("{stage}/{case}");
        let Some((wanted, calls)) = &self.wanted else {
            println!("{name}");
            return;
        };
        if name == *wanted {
            self.found = true;
            let mut ready = set_up();
            for _ in 0..*calls {
                once(&mut ready, &mut call);
            }
        }
    }
}

/// Not inlined, so that no work of the stage moves out of the loop.
#[inline(never)]
fn once<S, R>(ready: &mut S, call: &mut impl FnMut(&mut S) -> R) {
    black_box(call(black_box(ready)));
}

fn main() -> ExitCode {
    let words: Vec<String> = env::args().skip(1).collect();
    let wanted = match words.as_slice() {
        [] => None,
        [name, calls] => {
            let calls = calls.parse().expect("the second word is a number of calls");
            Some((name.clone(), calls))
        }
        _ => return ExitCode::FAILURE,
    };
    let mut caller = Caller {
        found: wanted.is_none(),
        wanted,
    };
    stages::all(&mut caller);
    if caller.found {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
