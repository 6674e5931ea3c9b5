//! The HTML page: results first, then plots, then every run. It has no scripts and loads nothing.

use anyhow::Result;
use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::cost::{ENDS, per_gb};
use super::model::{Against, Report, Row, Run};
use super::plot::{self, Plot, sides};
use super::{facts, figure};

const STYLE: &str = include_str!("style.css");
/// Content security policy: only the inline style.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'";

/// A complete HTML document.
pub fn page(report: &Report) -> Result<String> {
    let latencies = report.rows.iter().map(plot::percentiles);
    let latencies = latencies.collect::<Result<Vec<_>>>()?.into_iter().flatten();
    let loads = report.rows.iter().map(|row| plot::loads(report, row));
    let loads = loads.collect::<Result<Vec<_>>>()?.into_iter().flatten();
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta http-equiv="Content-Security-Policy" content=(POLICY);
                title { "Sealedge benchmark, " (report.commit) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                (header(report))
                main {
                    (results(report))
                    (chapter("Latency by percentile", latencies))
                    (chapter("Goodput and latency by offered load", loads))
                    (processors(report))
                    (runs(report))
                }
                footer { "Made by edge-bench from the JSON report of the same run." }
            }
        }
    };
    Ok(page.into_string())
}

fn header(report: &Report) -> Markup {
    html! {
        header {
            h1 { "Sealedge benchmark" }
            @if report.quick {
                p class="quick" {
                    strong { "A quick run." } " Its figures are too short for claims."
                }
            }
            dl {
                @for (name, value) in facts::of_report(report) {
                    dt { (name) }
                    dd { (value) }
                }
            }
        }
    }
}

fn results(report: &Report) -> Markup {
    let head = [
        "row",
        "edge",
        "against",
        "theirs",
        "ratio (low … high)",
        "target",
        "result",
    ];
    let count = |met| report.rows.iter().filter(|row| row.met == met).count();
    html! {
        h2 { "Results" }
        p {
            (report.rows.len()) " rows: " (count(Some(true))) " met, " (count(Some(false)))
            " missed, " (count(None)) " without a verdict. A ratio is ours to theirs, the median "
            "over the pairs, with the least and the greatest of them."
        }
        (scroll("Results", html! {
            table class="results" {
                thead { tr { @for name in head { th scope="col" { (name) } } } }
                @for row in &report.rows { tbody { (result(row)) } }
            }
        }))
    }
}

fn result(row: &Row) -> Markup {
    let remarks = facts::remarks(row);
    let mode = facts::of_mode(row).into_iter();
    let mode: Vec<String> = mode
        .map(|(name, value)| format!("{name} {value}"))
        .collect();
    let span = row.against.len().max(1);
    html! {
        tr {
            th scope="rowgroup" rowspan=(span) { (row.id) " " (row.title()) }
            td rowspan=(span) { (figure::measure(&row.ours)) }
            @match row.against.first() {
                Some(first) => (beside(row, first)),
                None => { td { "nothing" } td {} td {} td {} td {} }
            }
        }
        @for against in row.against.iter().skip(1) { tr { (beside(row, against)) } }
        tr class="remarks" {
            td colspan="7" {
                @if !row.name.is_empty() { p { (row.work) } }
                @if !remarks.is_empty() { p class="note" { (remarks.join("; ")) } }
                @if !mode.is_empty() { p { "mode: " (mode.join(", ")) } }
            }
        }
    }
}

fn beside(row: &Row, against: &Against) -> Markup {
    let class = match against.met {
        Some(true) => "met",
        Some(false) => "missed",
        None => "",
    };
    let ratio = if against.absent.is_some() { "text" } else { "" };
    html! {
        td { (against.name) }
        td { (figure::optional(against.theirs, &row.ours.unit)) }
        td class=(ratio) { (figure::ratio(against)) }
        td { (figure::target(against)) }
        td class=(class) { (figure::met(against.met)) }
    }
}

fn chapter(title: &str, plots: impl Iterator<Item = Plot>) -> Markup {
    let plots: Vec<Plot> = plots.collect();
    html! {
        @if !plots.is_empty() {
            h2 { (title) }
            @for plot in plots {
                figure {
                    figcaption { h3 { (plot.title) } }
                    div role="img" aria-label=(plot.description) { (PreEscaped(plot.svg)) }
                }
            }
        }
    }
}

/// Seconds per GB, over all pairs.
fn processors(report: &Report) -> Markup {
    let mut lines = Vec::new();
    for row in &report.rows {
        for (side, (name, end)) in sides(row)
            .into_iter()
            .flat_map(|side| ENDS.map(|end| (side, end)))
        {
            let runs: Vec<&Run> = row.runs.iter().filter(|run| run.side == side).collect();
            if let Some(cpu) = per_gb(&runs, end) {
                let parts = [
                    cpu.user_seconds,
                    cpu.system_seconds,
                    cpu.softirq_seconds,
                    cpu.seconds(),
                ];
                let words = [&row.id, side, name].map(str::to_owned).into_iter();
                lines.push(words.chain(parts.map(figure::number)).collect());
            }
        }
    }
    let head = [
        "row",
        "side",
        "end",
        "user",
        "system",
        "softirq",
        "all, s/GB",
    ];
    html! {
        @if !lines.is_empty() {
            h2 { "Processor time per GB" }
            (scroll("Processor time per GB", table(&head, &lines)))
        }
    }
}

fn runs(report: &Report) -> Markup {
    let head = [
        "pair",
        "side",
        "value",
        "offered",
        "p50",
        "p99",
        "p99.9",
        "loss",
        "server CPU",
        "client CPU",
        "verified",
        "wrong",
    ];
    let measured = report.rows.iter().filter(|row| !row.runs.is_empty());
    html! {
        h2 { "Runs" }
        p { "In the order they ran. Processor time is in seconds per GB." }
        @for row in measured {
            details {
                summary { (row.id) " " (row.title()) ", " (row.runs.len()) " runs" }
                @let lines: Vec<_> = row.runs.iter().map(cells).collect();
                (scroll(&format!("Runs of {}", row.id), table(&head, &lines)))
            }
        }
    }
}

fn cells(run: &Run) -> Vec<String> {
    let latency = |at: f64| {
        let latency = run.latency.as_ref();
        figure::optional(
            latency.map(|it| figure::float(it.value_at_quantile(at))),
            "ns",
        )
    };
    let [server, client] = ENDS.map(|(_, end)| {
        let cpu = per_gb(&[run], end);
        cpu.map_or_else(figure::none, |cpu| figure::number(cpu.seconds()))
    });
    vec![
        run.pair.to_string(),
        run.side.clone(),
        figure::with_unit(run.value, &run.unit),
        figure::optional(run.offered, "requests/s"),
        latency(0.5),
        latency(0.99),
        latency(0.999),
        run.loss.map_or_else(figure::none, figure::percent),
        server,
        client,
        figure::count(run.verified),
        figure::count(run.wrong),
    ]
}

/// Can scroll horizontally, also by keyboard.
fn scroll(name: &str, inside: Markup) -> Markup {
    html! { div class="scroll" role="region" tabindex="0" aria-label=(name) { (inside) } }
}

fn table(head: &[&str], lines: &[Vec<String>]) -> Markup {
    html! {
        table {
            thead { tr { @for name in head { th scope="col" { (name) } } } }
            tbody { @for line in lines { tr { @for cell in line { td { (cell) } } } } }
        }
    }
}
