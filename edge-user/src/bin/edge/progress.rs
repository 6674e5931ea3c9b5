//! Progress bar on standard error, and figures for people.

use std::io::{IsTerminal, stderr};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Visible only on a terminal.
pub(crate) fn bar(size_bytes: u64, quiet: bool) -> ProgressBar {
    let bar = ProgressBar::new(size_bytes);
    if quiet || !stderr().is_terminal() {
        bar.set_draw_target(ProgressDrawTarget::hidden());
        return bar;
    }
    let style = ProgressStyle::with_template(
        "{bar:40} {binary_bytes:>11} of {binary_total_bytes}  {binary_bytes_per_sec}  {eta}",
    );
    bar.with_style(style.expect("a constant template"))
}

pub(crate) fn human(bytes: u64) -> String {
    indicatif::HumanBytes(bytes).to_string()
}

/// A number of things, such as "1 chunk" or "2 chunks".
pub(crate) fn count(number: u64, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {noun}{plural}")
}

pub(crate) fn rate(bytes: u64, seconds: f64) -> String {
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a figure for people"
    )]
    let per_second = (bytes as f64 / seconds.max(1e-9)) as u64;
    format!("{}/s", human(per_second))
}
