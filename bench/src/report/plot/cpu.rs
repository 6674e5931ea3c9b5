//! Processor time per GB delivered, on both ends of every side.

use anyhow::Result;

use super::super::figure::{self, GB};
use super::super::model::{Cpu, Row, Run, Sides as Ends};
use super::axis::Axis;
use super::bars::{self, Bar};
use super::palette::{CPU, Key, Shape};
use super::{Figures, Plot, both};

/// One end of one side.
struct Cost {
    name: String,
    /// Seconds per GB.
    cpu: Cpu,
}

pub(super) fn plot(row: &Row) -> Result<Vec<Plot>> {
    let costs = costs(row);
    let most = costs
        .iter()
        .map(|cost| cost.cpu.seconds())
        .fold(0.0, f64::max);
    if most <= 0.0 {
        return Ok(Vec::new());
    }
    let bars: Vec<Bar> = costs.iter().map(bar).collect();
    let (wide, narrow) = both(|size| {
        let title = "processor seconds per GB";
        let x = Axis::linear(most, size.choose(8, 4), title, |tick| tick.to_string());
        bars::draw(size, &x, &bars)
    })?;
    let mut figures = Figures::new(&["side", "user", "system", "softirq", "all, s/GB"]);
    figures.rows.extend(costs.iter().map(|cost| {
        let parts = parts(&cost.cpu).into_iter().chain([cost.cpu.seconds()]);
        let parts = parts.map(figure::number);
        [cost.name.clone()].into_iter().chain(parts).collect()
    }));
    Ok(vec![Plot {
        title: format!("{}: {}", row.id, row.title()),
        description: "Processor seconds per GB of payload, stacked: user, system and soft \
                      interrupts, for server and client of each side. The table below has the same \
                      figures."
            .into(),
        keys: keys(),
        wide,
        narrow,
        figures,
    }])
}

fn keys() -> Vec<Key> {
    let names = ["user", "system", "softirq"];
    let key = |(colour, text): (_, &str)| Key {
        colour,
        shape: Shape::Bar,
        text: text.to_owned(),
    };
    CPU.into_iter().zip(names).map(key).collect()
}

fn parts(cpu: &Cpu) -> [f64; 3] {
    [cpu.user_seconds, cpu.system_seconds, cpu.softirq_seconds]
}

fn bar(cost: &Cost) -> Bar {
    let mut at = 0.0;
    let segments = parts(&cost.cpu).into_iter().zip(CPU).map(|(part, colour)| {
        let from = at;
        at += part;
        (from, at, colour)
    });
    Bar {
        name: cost.name.clone(),
        segments: segments.collect(),
        spread: None,
        mark: None,
        text: figure::with_unit(cost.cpu.seconds(), "s"),
    }
}

/// Over all pairs.
fn costs(row: &Row) -> Vec<Cost> {
    let mut sides: Vec<&str> = Vec::new();
    for run in &row.runs {
        if !sides.contains(&run.side.as_str()) {
            sides.push(&run.side);
        }
    }
    let mut costs = Vec::new();
    for side in sides {
        let own: Vec<&Run> = row.runs.iter().filter(|run| run.side == side).collect();
        for (end, of) in [("server", server as Of), ("client", client as Of)] {
            if let Some(cpu) = per_gb(&own, of) {
                let name = format!("{side}, {end}");
                costs.push(Cost { name, cpu });
            }
        }
    }
    costs
}

type Of = fn(&Ends) -> Option<Cpu>;

fn server(ends: &Ends) -> Option<Cpu> {
    ends.server
}

fn client(ends: &Ends) -> Option<Cpu> {
    ends.client
}

fn per_gb(runs: &[&Run], of: Of) -> Option<Cpu> {
    let (mut sum, mut bytes) = (Cpu::default(), 0.0);
    for run in runs {
        let Some(cpu) = run.cpu.as_ref().and_then(of) else {
            continue;
        };
        sum.user_seconds += cpu.user_seconds;
        sum.system_seconds += cpu.system_seconds;
        sum.softirq_seconds += cpu.softirq_seconds;
        bytes += figure::float(run.bytes);
    }
    let gb = bytes / GB;
    (gb > 0.0).then(|| Cpu {
        user_seconds: sum.user_seconds / gb,
        system_seconds: sum.system_seconds / gb,
        softirq_seconds: sum.softirq_seconds / gb,
    })
}

/// What one run cost, for the list of runs.
pub(in super::super) fn of_run(run: &Run) -> [Option<f64>; 2] {
    [server as Of, client as Of].map(|of| per_gb(&[run], of).map(|cpu| cpu.seconds()))
}
