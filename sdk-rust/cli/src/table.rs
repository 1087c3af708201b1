//! Tables for people.
//!
//! Promises: no borders, two spaces between columns, no trailing blanks, so that a table reads well and
//! also survives `awk`; on a terminal it fits the width, elsewhere no line is ever broken.
//! Leaves to others: where the rows come from (`view`) and which colours are wanted (`output`).

mod device;
mod lease;
mod operator;
mod plan;
mod queue;

pub(crate) use device::{attribution_off, devices};
pub(crate) use lease::{
    NEVER, ask, device_line, history, lease_state, leases, notice, share, time_left,
};
pub(crate) use operator::{blocking, processes};
pub(crate) use plan::{assignments, loads};
pub(crate) use queue::{queue, services};

use std::time::Duration;

use comfy_table::{Cell, ContentArrangement, Table, presets};

use crate::output::{Output, Paint};

/// How a table is fitted and painted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Style {
    /// The width to fit in columns; none: as wide as it is.
    pub(crate) width: Option<u16>,
    pub(crate) color: bool,
}

impl Style {
    pub(crate) fn of(output: &Output) -> Self {
        Self { width: output.width(), color: output.color }
    }
}

/// Names and values, one pair a line.
pub(crate) fn pairs(pairs: &[(&str, String)], style: Style) -> String {
    let mut table = bare(style);
    for (name, value) in pairs {
        table.add_row(vec![painted(name, Paint::Heading, style), Cell::new(value)]);
    }
    finished(table)
}

fn table(headings: &[&str], style: Style) -> Table {
    let mut table = bare(style);
    let cells: Vec<Cell> =
        headings.iter().map(|heading| painted(heading, Paint::Heading, style)).collect();
    table.set_header(cells);
    table
}

/// A number of seconds as a duration; none: it is no length of time.
pub(crate) fn seconds(seconds: f64) -> Option<Duration> {
    Duration::try_from_secs_f64(seconds).ok()
}

fn bare(style: Style) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    match style.width {
        Some(width) => table.set_content_arrangement(ContentArrangement::Dynamic).set_width(width),
        None => table.set_content_arrangement(ContentArrangement::Disabled),
    };
    if style.color {
        table.enforce_styling();
    } else {
        table.force_no_tty();
    }
    table
}

fn painted(text: &str, paint: Paint, style: Style) -> Cell {
    let mut cell = Cell::new(text);
    if style.color {
        if let Some(color) = paint.color() {
            cell = cell.fg(color);
        }
        if let Some(attribute) = paint.attribute() {
            cell = cell.add_attribute(attribute);
        }
    }
    cell
}

/// Two blanks between columns, none at the left.
fn pad(table: &mut Table) {
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
}

/// The table as text: without the blanks that would pad each line to the full width.
fn finished(mut table: Table) -> String {
    pad(&mut table);
    let lines: Vec<String> = table.lines().map(|line| line.trim_end().to_owned()).collect();
    lines.join("\n")
}

#[cfg(test)]
pub(crate) mod tests;
