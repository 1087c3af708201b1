//! The picture: a panel per workload, percent allocated over percent arrived, measured beside published.

use std::path::Path;

use anyhow::{Context as _, anyhow};
use gpulease_core::request::PlacementPolicy;
use plotters::{
    prelude::*,
    style::{FontStyle, register_font},
};

use super::{
    experiment::{LAST_PERCENT, Placer},
    report::{Results, Summary},
};

const PANEL: (u32, u32) = (520, 380);
const COLUMNS: usize = 3;
/// Room for the title and the key.
const HEAD: u32 = 90;
const FONT: &str = "sans-serif";
/// Before so much has arrived every policy places everything.
const FIRST_PERCENT: usize = 70;
const LEAST: f64 = 65.0;
const GRID: RGBColor = RGBColor(225, 225, 225);
const PUBLISHED: RGBColor = RGBColor(110, 110, 110);

const fn color(placer: Placer) -> RGBColor {
    match placer {
        Placer::Random => RGBColor(150, 150, 60),
        Placer::Core(PlacementPolicy::BestFit) => RGBColor(196, 120, 30),
        Placer::Core(PlacementPolicy::MostFreeMemory) => RGBColor(140, 80, 160),
        Placer::Core(PlacementPolicy::LeastLoaded) => RGBColor(190, 40, 50),
        Placer::Core(PlacementPolicy::RoundRobin) => RGBColor(70, 150, 150),
        Placer::Core(PlacementPolicy::Fragmentation) => RGBColor(38, 110, 160),
        Placer::Core(PlacementPolicy::Pack) => RGBColor(50, 140, 60),
    }
}

type Area<'a> = DrawingArea<BitMapBackend<'a>, plotters::coord::Shift>;

/// Draws it into a PNG file.
pub(super) fn draw(path: &Path, results: &Results) -> anyhow::Result<()> {
    // The picture needs no fonts of the machine.
    register_font(FONT, FontStyle::Normal, dejavu::sans::regular())
        .map_err(|_| anyhow!("the font of the picture cannot be read"))?;
    let drawing = || format!("draw {}", path.display());
    let columns = results.workloads.len().clamp(1, COLUMNS);
    let rows = results.workloads.len().div_ceil(columns).max(1);
    let width = PANEL.0 * u32::try_from(columns).context("count the panels")?;
    let height = HEAD + PANEL.1 * u32::try_from(rows).context("count the panels")?;
    let root = BitMapBackend::new(path, (width, height)).into_drawing_area();
    root.fill(&WHITE).with_context(drawing)?;
    let (head, body) = root.split_vertically(HEAD);
    key(&head, results).with_context(drawing)?;
    let panels = body.split_evenly((rows, columns));
    for ((workload, policies), area) in results.workloads.iter().zip(&panels) {
        panel(area, workload, policies, results).with_context(drawing)?;
    }
    root.present().with_context(drawing)
}

/// The title, and which line is which.
fn key(area: &Area<'_>, results: &Results) -> anyhow::Result<()> {
    let title = "allocated, in percent of all devices, over what was asked for so far";
    area.draw_text(title, &(FONT, 22).into_text_style(area), (20, 14))?;
    let mut placers: Vec<Placer> = Vec::new();
    for (placer, _) in results.workloads.values().flatten() {
        if !placers.contains(placer) {
            placers.push(*placer);
        }
    }
    let named = placers.iter().map(|placer| (placer.name().to_owned(), color(*placer), false));
    let fgd = results.workloads.keys().any(|name| results.published.curve(name, "FGD").is_some());
    let published = fgd.then(|| ("FGD, published".to_owned(), PUBLISHED, true));
    let mut x = 20;
    for (name, color, dashed) in named.chain(published) {
        let dashes = if dashed { vec![(0, 8), (13, 21), (26, 34)] } else { vec![(0, 34)] };
        for (from, to) in dashes {
            let ends = [(x + from, 60), (x + to, 60)];
            area.draw(&PathElement::new(ends, color.stroke_width(3)))?;
        }
        area.draw_text(&name, &(FONT, 17).into_text_style(area), (x + 42, 50))?;
        let letters = i32::try_from(name.chars().count()).unwrap_or(0);
        x += 70 + 10 * letters;
    }
    Ok(())
}

fn panel(
    area: &Area<'_>,
    workload: &str,
    policies: &[(Placer, Summary)],
    results: &Results,
) -> anyhow::Result<()> {
    let failed = |error| anyhow!("{error}");
    let mut chart = ChartBuilder::on(area)
        .margin(12)
        .margin_right(22)
        .caption(workload, (FONT, 19))
        .x_label_area_size(40)
        .y_label_area_size(48)
        .build_cartesian_2d(FIRST_PERCENT as f64..LAST_PERCENT as f64, LEAST..100.0)
        .map_err(|error| failed(error.to_string()))?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(GRID)
        .label_style((FONT, 14))
        .axis_desc_style((FONT, 15))
        .x_desc("percent asked for")
        .x_labels(7)
        .y_labels(8)
        .x_label_formatter(&|percent| format!("{percent:.0}"))
        .y_label_formatter(&|percent| format!("{percent:.0}"))
        .draw()
        .map_err(|error| failed(error.to_string()))?;
    for (placer, summary) in policies {
        let line = LineSeries::new(points(&summary.curve), color(*placer).stroke_width(3));
        chart.draw_series(line).map_err(|error| failed(error.to_string()))?;
    }
    if let Some(curve) = results.published.curve(workload, "FGD") {
        let line = DashedLineSeries::new(points(curve), 6, 4, PUBLISHED.stroke_width(2));
        chart.draw_series(line).map_err(|error| failed(error.to_string()))?;
    }
    Ok(())
}

fn points(curve: &[f64]) -> Vec<(f64, f64)> {
    let points = curve.iter().enumerate().skip(FIRST_PERCENT);
    let points = points.map(|(percent, value)| (percent as f64, *value));
    points.filter(|(_, value)| value.is_finite() && *value >= LEAST).collect()
}
