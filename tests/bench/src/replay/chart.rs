//! The picture: devices taken and tasks waiting over the replay, with the kills.

use std::path::Path;

use anyhow::{Context as _, anyhow};
use plotters::{
    coord::types::RangedCoordf64,
    prelude::*,
    style::{FontStyle, register_font},
};

use super::{kills::Kill, timeline::Point};

const WIDTH: u32 = 1_200;
const HEIGHT: u32 = 760;
/// Of the height, for the upper panel.
const UPPER: u32 = 430;
const FONT: &str = "sans-serif";
const TAKEN: RGBColor = RGBColor(38, 110, 160);
const QUEUED: RGBColor = RGBColor(196, 120, 30);
const KILLED: RGBColor = RGBColor(190, 40, 50);
const GRID: RGBColor = RGBColor(225, 225, 225);

/// What is drawn.
pub(super) struct Picture<'a> {
    pub(super) points: &'a [Point],
    pub(super) kills: &'a [Kill],
    /// Seconds of replay.
    pub(super) end: f64,
    pub(super) devices: f64,
    pub(super) title: String,
    pub(super) time_label: String,
}

/// Draws it into a PNG file.
pub(super) fn draw(path: &Path, picture: &Picture<'_>) -> anyhow::Result<()> {
    // The picture needs no fonts of the machine.
    register_font(FONT, FontStyle::Normal, dejavu::sans::regular())
        .map_err(|_| anyhow!("the font of the picture cannot be read"))?;
    let drawing = || format!("draw {}", path.display());
    let root = BitMapBackend::new(path, (WIDTH, HEIGHT)).into_drawing_area();
    root.fill(&WHITE).with_context(drawing)?;
    let (upper, lower) = root.split_vertically(UPPER);
    let taken = Panel {
        title: &picture.title,
        time_label: "",
        label: "devices taken",
        most: picture.devices,
        limit: Some(picture.devices),
        color: TAKEN,
        value: |point| point.taken,
    };
    let queued_most = picture.points.iter().map(|point| point.queued).fold(1.0, f64::max);
    let queued = Panel {
        title: "",
        time_label: &picture.time_label,
        label: "tasks waiting",
        most: queued_most,
        limit: None,
        color: QUEUED,
        value: |point| point.queued,
    };
    taken.draw(&upper, picture).with_context(drawing)?;
    queued.draw(&lower, picture).with_context(drawing)?;
    root.present().with_context(drawing)
}

struct Panel<'a> {
    title: &'a str,
    time_label: &'a str,
    label: &'a str,
    most: f64,
    limit: Option<f64>,
    color: RGBColor,
    value: fn(&Point) -> f64,
}

type Area<'a> = DrawingArea<BitMapBackend<'a>, plotters::coord::Shift>;
type Chart<'a, 'b> =
    ChartContext<'a, BitMapBackend<'b>, Cartesian2d<RangedCoordf64, RangedCoordf64>>;

impl Panel<'_> {
    fn draw(&self, area: &Area<'_>, picture: &Picture<'_>) -> anyhow::Result<()> {
        let mut builder = ChartBuilder::on(area);
        builder.margin(14).margin_right(28).y_label_area_size(64);
        builder.x_label_area_size(if self.time_label.is_empty() { 28 } else { 52 });
        if !self.title.is_empty() {
            builder.caption(self.title, (FONT, 22));
        }
        let mut chart = builder
            .build_cartesian_2d(0.0..picture.end.max(1.0), 0.0..self.most * 1.08)
            .map_err(|error| anyhow!("{error}"))?;
        chart
            .configure_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(GRID)
            .label_style((FONT, 15))
            .axis_desc_style((FONT, 17))
            .x_desc(self.time_label)
            .y_desc(self.label)
            .x_label_formatter(&|seconds| format!("{seconds:.0}"))
            .y_label_formatter(&|value| format!("{value:.0}"))
            .draw()
            .map_err(|error| anyhow!("{error}"))?;
        self.draw_series(&mut chart, picture)
    }

    fn draw_series(&self, chart: &mut Chart<'_, '_>, picture: &Picture<'_>) -> anyhow::Result<()> {
        let steps = steps(picture.points, picture.end, self.value);
        let area = AreaSeries::new(steps, 0.0, self.color.mix(0.25)).border_style(self.color);
        chart.draw_series(area).map_err(|error| anyhow!("{error}"))?;
        if let Some(limit) = self.limit {
            let line = LineSeries::new([(0.0, limit), (picture.end, limit)], BLACK.mix(0.5));
            chart.draw_series(line).map_err(|error| anyhow!("{error}"))?;
        }
        for kill in picture.kills {
            let line = [(kill.at, 0.0), (kill.at, self.most * 1.08)];
            let series = LineSeries::new(line, KILLED.stroke_width(2));
            chart.draw_series(series).map_err(|error| anyhow!("{error}"))?;
        }
        Ok(())
    }
}

/// Each value holds until the next point.
fn steps(points: &[Point], end: f64, value: fn(&Point) -> f64) -> Vec<(f64, f64)> {
    let mut line = vec![(0.0, 0.0)];
    let mut last = 0.0;
    for point in points {
        line.push((point.at, last));
        last = value(point);
        line.push((point.at, last));
    }
    line.push((end, last));
    line
}
