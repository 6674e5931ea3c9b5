//! The page: results first, then plots, then every run. It loads nothing and runs nothing.

use anyhow::Result;
use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::model::{Against, Report, Row, Run};
use super::plot::palette::{Key, Shape, style_sheet};
use super::plot::{self, Chapter, Drawing, Figures, Plot, cost_of_run, quantile};
use super::{facts, figure};

const STYLE: &str = include_str!("style.css");
/// What the page may load: nothing but the style it brings.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'";

/// HTML, complete.
pub fn page(report: &Report) -> Result<String> {
    let chapters = plot::all(report)?;
    let title = format!("Sealedge benchmark, {}", report.commit);
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta http-equiv="Content-Security-Policy" content=(POLICY);
                title { (title) }
                style { (PreEscaped(STYLE)) (PreEscaped(style_sheet())) }
            }
            body {
                (header(report))
                main {
                    (results(report))
                    @for (index, chapter) in chapters.iter().enumerate() { (plots(index, chapter)) }
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
        h2 id="results" { "Results" }
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
            td class="ours" rowspan=(span) data-name="edge" { (figure::measure(&row.ours)) }
            @match row.against.first() {
                Some(first) => (beside(row, first)),
                None => { td data-name="against" { "nothing" } td {} td {} td {} td {} }
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
    let theirs = against
        .theirs
        .map(|theirs| figure::with_unit(theirs, &row.ours.unit));
    let (text, class) = match against.met {
        Some(true) => (figure::met(against.met), "met"),
        Some(false) => (figure::met(against.met), "missed"),
        None => (figure::met(against.met), ""),
    };
    let ratio = if against.absent.is_some() { "text" } else { "" };
    html! {
        td data-name="against" { (against.name) }
        td data-name="theirs" { (theirs.unwrap_or_else(|| "—".into())) }
        td class=(ratio) data-name="ratio" { (figure::ratio(against)) }
        td data-name="target" { (figure::target(against)) }
        td class=(class) data-name=[against.met.is_none().then_some("result")] { (text) }
    }
}

fn plots(index: usize, chapter: &Chapter) -> Markup {
    html! {
        h2 { (chapter.title) }
        @for (place, plot) in chapter.plots.iter().enumerate() {
            (figure_of(&format!("plot-{index}-{place}"), plot))
        }
    }
}

fn figure_of(id: &str, plot: &Plot) -> Markup {
    html! {
        figure {
            figcaption { h3 { (plot.title) } }
            ul class="keys" { @for key in &plot.keys { li { (swatch(key)) (key.text) } } }
            (svg(&format!("{id}-wide"), "wide", plot, &plot.wide))
            (svg(&format!("{id}-narrow"), "narrow", plot, &plot.narrow))
            (scroll(&plot.title, table(&plot.figures)))
        }
    }
}

/// The drawing is complete SVG of our own making; the frame around it adds its name.
fn svg(id: &str, class: &str, plot: &Plot, drawing: &Drawing) -> Markup {
    let (title, description) = (format!("{id}-title"), format!("{id}-description"));
    html! {
        svg class=(class) role="img" viewBox=(format!("0 0 {} {}", drawing.width, drawing.height))
            aria-labelledby=(format!("{title} {description}")) {
            title id=(title) { (plot.title) }
            desc id=(description) { (plot.description) }
            (PreEscaped(&drawing.svg))
        }
    }
}

fn swatch(key: &Key) -> Markup {
    let colour = key.colour.hex();
    html! {
        svg width="28" height="14" aria-hidden="true" {
            @match key.shape {
                Shape::Line => {
                    line class="key" x1="0" y1="7" x2="28" y2="7" stroke=(colour) stroke-width="2" {}
                }
                Shape::Bar => { rect x="4" y="1" width="20" height="12" fill=(colour) {} }
                Shape::Mark => {
                    line x1="14" y1="0" x2="14" y2="14" stroke=(colour) stroke-width="2" {}
                }
                Shape::Spread => {
                    line x1="4" y1="7" x2="24" y2="7" stroke=(colour) stroke-width="2" {}
                    line x1="4" y1="4" x2="4" y2="10" stroke=(colour) stroke-width="2" {}
                    line x1="24" y1="4" x2="24" y2="10" stroke=(colour) stroke-width="2" {}
                }
            }
        }
    }
}

/// Wider than a narrow screen: reached by keyboard too.
fn scroll(name: &str, inside: Markup) -> Markup {
    html! { div class="scroll" role="region" tabindex="0" aria-label=(name) { (inside) } }
}

fn table(figures: &Figures) -> Markup {
    html! {
        table {
            thead { tr { @for name in &figures.head { th scope="col" { (name) } } } }
            tbody { @for row in &figures.rows { tr { @for cell in row { td { (cell) } } } } }
        }
    }
}

fn runs(report: &Report) -> Markup {
    let measured = report.rows.iter().filter(|row| !row.runs.is_empty());
    html! {
        h2 { "Runs" }
        p { "In the order they ran. Processor time is in seconds per GB." }
        @for row in measured {
            details {
                summary { (row.id) " " (row.title()) ", " (row.runs.len()) " runs" }
                (scroll(&format!("Runs of {}", row.id), table(&figures(row))))
            }
        }
    }
}

fn figures(row: &Row) -> Figures {
    let mut figures = Figures::new(&[
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
    ]);
    figures.rows.extend(row.runs.iter().map(cells));
    figures
}

fn cells(run: &Run) -> Vec<String> {
    let dash = || "—".to_owned();
    let latency = |at: f64| {
        let latency = run.latency.as_ref();
        latency.map_or_else(dash, |latency| quantile(latency, at))
    };
    let [server, client] = cost_of_run(run).map(|cost| cost.map_or_else(dash, figure::number));
    vec![
        run.pair.to_string(),
        run.side.clone(),
        figure::with_unit(run.value, &run.unit),
        run.offered
            .map_or_else(dash, |offered| figure::with_unit(offered, "requests/s")),
        latency(0.5),
        latency(0.99),
        latency(0.999),
        run.loss.map_or_else(dash, figure::percent),
        server,
        client,
        figure::count(run.verified),
        figure::count(run.wrong),
    ]
}
