//! Colours. A plot is drawn in those for a light page; the page's style sheet finds them again by
//! their value and changes them for a dark one, and gives each side its dashes.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use plotters::style::RGBColor;

use super::super::model::{EDGE, Report, Row};

/// One colour on a light and on a dark page.
#[derive(Clone, Copy)]
pub(in super::super) struct Colour {
    pub(super) light: RGBColor,
    dark: RGBColor,
    /// Of lines, so that colour is not the only difference.
    dashes: &'static str,
}

const fn colour(light: u32, dark: u32, dashes: &'static str) -> Colour {
    Colour {
        light: rgb(light),
        dark: rgb(dark),
        dashes,
    }
}

const fn rgb(hex: u32) -> RGBColor {
    let [_, red, green, blue] = hex.to_be_bytes();
    RGBColor(red, green, blue)
}

/// Text and marks.
pub(super) const INK: Colour = colour(0x1f_23_28, 0xe6_ed_f3, "");
/// Axes and their titles.
pub(super) const MUTED: Colour = colour(0x5c_65_6e, 0x91_98_a1, "");
/// Lines behind.
pub(super) const GRID: Colour = colour(0xdd_e2_e7, 0x2c_32_39, "");

pub(super) const MET: Colour = colour(0x2f_8f_52, 0x38_8e_55, "");
pub(super) const MISSED: Colour = colour(0xc9_45_3a, 0xd0_5a_50, "");
pub(super) const BESIDE: Colour = colour(0x8c_95_9f, 0x6e_76_81, "");

/// User, system and soft interrupts.
pub(super) const CPU: [Colour; 3] = [
    colour(0x1d_4f_7c, 0x9c_cb_f5, ""),
    colour(0x4a_90_c8, 0x4a_8f_cc, ""),
    colour(0xa9_cd_ea, 0x2a_5a_88, ""),
];

/// The edge first.
const SIDES: [Colour; 6] = [
    colour(0x0b_62_b0, 0x58_a6_ff, ""),
    colour(0xc4_50_0c, 0xf0_88_3e, "9 4"),
    colour(0x1a_7f_4b, 0x3f_b9_6f, "4 3"),
    colour(0x8a_3f_b5, 0xc2_97_f0, "10 3 2 3"),
    colour(0x86_6a_00, 0xd4_b7_3e, "7 3 2 3 2 3"),
    colour(0xb8_2e_74, 0xf0_78_b4, "14 5"),
];

impl Colour {
    /// As plots write it.
    pub(in super::super) fn hex(self) -> String {
        hex(self.light)
    }
}

fn hex(RGBColor(red, green, blue): RGBColor) -> String {
    format!("#{red:02X}{green:02X}{blue:02X}")
}

/// What a colour means, for the legend.
pub(in super::super) struct Key {
    pub(in super::super) colour: Colour,
    pub(in super::super) shape: Shape,
    pub(in super::super) text: String,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Shape {
    Line,
    Bar,
    /// Upright, across a bar.
    Mark,
    /// Along a bar, with ends.
    Spread,
}

/// Gives every side of a report its colour: the same one in all rows, and another one than the sides
/// that it stands beside have, as long as there are enough.
pub(super) struct Sides {
    /// Which of the colours.
    chosen: BTreeMap<String, usize>,
}

impl Sides {
    pub(super) fn of(report: &Report) -> Self {
        let mut chosen = BTreeMap::from([(EDGE.to_owned(), 0)]);
        for name in report.rows.iter().flat_map(drawn) {
            if chosen.contains_key(name) {
                continue;
            }
            let beside = report
                .rows
                .iter()
                .filter(|row| drawn(row).any(|side| side == name))
                .flat_map(drawn)
                .filter_map(|side| chosen.get(side).copied());
            let taken: BTreeSet<usize> = beside.collect();
            let free = (0..SIDES.len()).find(|colour| !taken.contains(colour));
            let colour = free.unwrap_or(chosen.len() % SIDES.len());
            chosen.insert(name.clone(), colour);
        }
        Self { chosen }
    }

    pub(super) fn colour(&self, side: &str) -> Colour {
        SIDES[self.chosen.get(side).copied().unwrap_or_default()]
    }

    pub(super) fn key(&self, side: &str) -> Key {
        Key {
            colour: self.colour(side),
            shape: Shape::Line,
            text: side.to_owned(),
        }
    }
}

/// Sides with a line of their own.
fn drawn(row: &Row) -> impl Iterator<Item = &String> {
    let measured = row.runs.iter().filter(|run| run.latency.is_some());
    measured.map(|run| &run.side)
}

/// Dashes, and the colours of a dark page.
pub(in super::super) fn style_sheet() -> String {
    let fixed = [INK, MUTED, GRID, MET, MISSED, BESIDE];
    let all = || fixed.iter().chain(&CPU).chain(&SIDES);
    let mut sheet = String::new();
    for colour in all().filter(|colour| !colour.dashes.is_empty()) {
        let (light, dashes) = (colour.hex(), colour.dashes);
        writeln!(
            sheet,
            "svg polyline[stroke=\"{light}\"],svg line.key[stroke=\"{light}\"]\
             {{stroke-dasharray:{dashes}}}"
        )
        .expect("a string takes everything");
    }
    sheet.push_str("@media screen and (prefers-color-scheme:dark){\n");
    for colour in all() {
        let (light, dark) = (colour.hex(), hex(colour.dark));
        writeln!(
            sheet,
            "svg [fill=\"{light}\"]{{fill:{dark}}}svg [stroke=\"{light}\"]{{stroke:{dark}}}"
        )
        .expect("a string takes everything");
    }
    sheet.push_str("}\n");
    sheet
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_colours_are_alike_on_a_light_page() {
        let fixed = [INK, MUTED, GRID, MET, MISSED, BESIDE];
        let all = fixed.iter().chain(&CPU).chain(&SIDES);
        let hexes: Vec<String> = all.map(|colour| colour.hex()).collect();
        let different: BTreeSet<&String> = hexes.iter().collect();
        assert_eq!(different.len(), hexes.len());
    }
}
