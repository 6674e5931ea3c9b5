//! Processor time of programs, from /proc.

use std::fs;

use anyhow::{Context as _, Result};

/// `USER_HZ`, which Linux fixes at 100 for user space.
pub const TICKS_A_SECOND: f64 = 100.0;

/// Processor time of all threads of a process and its ended children, in seconds.
#[derive(Clone, Copy, Debug, Default)]
pub struct CpuTime {
    pub user: f64,
    pub system: f64,
}

impl CpuTime {
    pub fn of(pid: u32) -> Result<Self> {
        let file = format!("/proc/{pid}/stat");
        let stat = fs::read_to_string(&file).with_context(|| format!("cannot read {file}"))?;
        // The name may contain blanks. After it and the state: fields 14 to 17 of proc(5).
        let fields = stat.rsplit_once(") ").context("a line of /proc")?.1;
        let seconds = |at| -> Result<f64> {
            let field = fields.split(' ').nth(at).context("a field of /proc")?;
            Ok(f64::from(field.parse::<u32>()?) / TICKS_A_SECOND)
        };
        Ok(Self {
            user: seconds(11)? + seconds(13)?,
            system: seconds(12)? + seconds(14)?,
        })
    }

    #[must_use]
    pub fn since(self, before: Self) -> Self {
        Self {
            user: self.user - before.user,
            system: self.system - before.system,
        }
    }

    pub fn all(self) -> f64 {
        self.user + self.system
    }
}
