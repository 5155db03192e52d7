//! The curve of the suite `scale`: what the largest broker uses, over the partitions that it carries.

use std::path::Path;

use anyhow::{Context, Result, anyhow};
use plotters::prelude::*;

use super::contest::Outcome;

const SIZE: (u32, u32) = (860, 340);
const FONT: &str = "sans-serif";

/// One of the panels: what is on it, its unit, and the figures with their names.
struct Panel {
    title: &'static str,
    unit: &'static str,
    lines: &'static [(&'static str, &'static str, RGBColor)],
}

const BLUE_LINE: RGBColor = RGBColor(31, 119, 180);
const ORANGE_LINE: RGBColor = RGBColor(255, 127, 14);

const PANELS: [Panel; 2] = [
    Panel {
        title: "memory of the largest broker",
        unit: "MiB",
        lines: &[("idle_rss", "idle", BLUE_LINE), ("trickle_rss", "1 record/s each", ORANGE_LINE)],
    },
    Panel {
        title: "processor",
        unit: "% of a core",
        lines: &[
            ("idle_cpu", "idle, busiest broker", BLUE_LINE),
            ("trickle_cpu", "1 record/s each, all brokers", ORANGE_LINE),
        ],
    },
];

/// Draws the medians of `outcomes` into an SVG file.
///
/// # Errors
/// If there are fewer than two points, or the file cannot be written.
pub(super) fn draw(outcomes: &[Outcome], side: &str, path: &Path) -> Result<()> {
    let text = svg(outcomes, side).map_err(|error| anyhow!("drawing the plot: {error}"))?;
    std::fs::write(path, text).with_context(|| format!("writing {}", path.display()))
}

fn svg(outcomes: &[Outcome], side: &str) -> Result<String, Box<dyn std::error::Error>> {
    let mut text = String::new();
    {
        let area = SVGBackend::with_string(&mut text, SIZE).into_drawing_area();
        area.fill(&WHITE)?;
        for (panel, part) in PANELS.iter().zip(area.split_evenly((1, PANELS.len()))) {
            let lines: Vec<_> = panel
                .lines
                .iter()
                .map(|(figure, name, colour)| (points(outcomes, side, figure), *name, *colour))
                .collect();
            let all = || lines.iter().flat_map(|(points, ..)| points.iter().copied());
            if all().count() < 2 {
                return Err(
                    "the plot needs at least two numbers of partitions: run the suite scale whole".into()
                );
            }
            let (right, top) =
                all().fold((1.0_f64, 1.0_f64), |(x, y), point| (x.max(point.0), y.max(point.1)));
            let mut chart = ChartBuilder::on(&part)
                .caption(panel.title, (FONT, 16))
                .margin(10)
                .x_label_area_size(34)
                .y_label_area_size(46)
                .build_cartesian_2d(0.0..right * 1.02, 0.0..top * 1.15)?;
            chart
                .configure_mesh()
                .x_desc("partitions")
                .y_desc(panel.unit)
                .light_line_style(TRANSPARENT)
                .draw()?;
            for (points, name, colour) in lines {
                chart
                    .draw_series(LineSeries::new(points.iter().copied(), colour.stroke_width(2)))?
                    .label(name)
                    .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], colour.stroke_width(2)));
                chart.draw_series(points.iter().map(|point| Circle::new(*point, 3, colour.filled())))?;
            }
            chart
                .configure_series_labels()
                .position(SeriesLabelPosition::UpperLeft)
                .background_style(WHITE.mix(0.8))
                .draw()?;
        }
        area.present()?;
    }
    Ok(text)
}

/// A figure over the number of partitions, which is in the name of its contest.
fn points(outcomes: &[Outcome], side: &str, figure: &str) -> Vec<(f64, f64)> {
    let point = |outcome: &Outcome| {
        let partitions = outcome.contest.strip_prefix("partitions-")?.parse().ok()?;
        Some((partitions, outcome.median(side, figure)?))
    };
    outcomes.iter().filter_map(point).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::contest::Figures;
    use super::*;

    fn outcome(contest: &'static str, cpu: f64) -> Outcome {
        let figures = Figures::from([("idle_rss", 30.0), ("idle_cpu", cpu), ("trickle_cpu", 2.0 * cpu)]);
        let runs = BTreeMap::from([("Altair", vec![figures])]);
        Outcome { contest, durability: BTreeMap::new(), runs, rows: Vec::new() }
    }

    #[test]
    fn a_point_for_each_number_of_partitions_is_drawn() {
        let outcomes = [outcome("partitions-0", 1.0), outcome("partitions-1000", 4.0), outcome("other", 9.0)];
        assert_eq!(points(&outcomes, "Altair", "idle_cpu"), [(0.0, 1.0), (1_000.0, 4.0)]);
        let text = svg(&outcomes, "Altair").expect("two points");
        assert!(
            text.starts_with("<svg") && text.contains("processor") && text.matches("<circle").count() >= 6
        );
        assert!(svg(&outcomes[..1], "Altair").is_err());
    }
}
