//! Sides that do the same work in turns, and what their medians have to be.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use futures::future::BoxFuture;

use super::table::say;

/// How often and how long.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plan {
    pub(super) runs: u32,
    pub(super) span: Duration,
}

/// Figures of one run, by the names that rows use.
pub(super) type Figures = BTreeMap<&'static str, f64>;

/// One that does the work.
pub(super) struct Side {
    pub(super) name: &'static str,
    /// What an answer promises.
    pub(super) durability: &'static str,
    pub(super) work: Box<dyn Fn() -> BoxFuture<'static, Result<Figures>>>,
}

impl Side {
    pub(super) fn new<F>(name: &'static str, durability: &'static str, work: impl Fn() -> F + 'static) -> Self
    where
        F: Future<Output = Result<Figures>> + Send + 'static,
    {
        Self { name, durability, work: Box::new(move || Box::pin(work())) }
    }
}

/// What a median has to be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

impl Bound {
    pub(super) fn holds(self, value: f64) -> bool {
        match self {
            Self::AtLeast(least) => value >= least,
            Self::AtMost(most) => value <= most,
        }
    }
}

/// One line of the table.
#[derive(Debug, Clone, Copy)]
pub(super) struct Row {
    /// The figure, and what people call it.
    pub(super) figure: &'static str,
    pub(super) what: &'static str,
    pub(super) unit: &'static str,
    /// The side whose figure counts.
    pub(super) of: &'static str,
    /// The side that it is divided by; `None`: the figure itself is judged.
    pub(super) against: Option<&'static str>,
    pub(super) asked: Option<Bound>,
    /// The worst of all runs counts, which is the highest, not the median.
    pub(super) worst: bool,
}

impl Row {
    /// A figure of a side, for which nothing is asked.
    pub(super) fn plain(
        of: &'static str,
        figure: &'static str,
        what: &'static str,
        unit: &'static str,
    ) -> Self {
        Self { figure, what, unit, of, against: None, asked: None, worst: false }
    }
}

/// Sides, and rows over what they reach.
pub(super) struct Contest {
    pub(super) name: &'static str,
    pub(super) what: &'static str,
    pub(super) sides: Vec<Side>,
    pub(super) rows: Vec<Row>,
    /// Runs of each side, whatever the plan says.
    pub(super) runs: Option<u32>,
}

/// What a contest came to.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) contest: &'static str,
    pub(super) durability: BTreeMap<&'static str, &'static str>,
    /// Every run of every side.
    pub(super) runs: BTreeMap<&'static str, Vec<Figures>>,
    pub(super) rows: Vec<Row>,
}

impl Contest {
    /// Lets the sides work in turns.
    ///
    /// # Errors
    /// If a side cannot do it.
    pub(super) async fn run(self, plan: Plan) -> Result<Outcome> {
        let mut runs: BTreeMap<&'static str, Vec<Figures>> = BTreeMap::new();
        let turns = self.runs.unwrap_or(plan.runs);
        for run in 1..=turns {
            for side in &self.sides {
                say(&format!("{}: {}, run {run} of {turns}", self.name, side.name));
                let figures =
                    (side.work)().await.with_context(|| format!("{} by {}", self.name, side.name))?;
                runs.entry(side.name).or_default().push(figures);
            }
        }
        let durability = self.sides.iter().map(|side| (side.name, side.durability)).collect();
        let known = |name: &str| self.sides.iter().any(|side| side.name == name);
        let rows =
            self.rows.into_iter().filter(|row| known(row.of) && row.against.is_none_or(known)).collect();
        Ok(Outcome { contest: self.name, durability, runs, rows })
    }
}

impl Outcome {
    /// Median of a figure over the runs of a side.
    pub(super) fn median(&self, side: &str, figure: &str) -> Option<f64> {
        let mut values: Vec<f64> =
            self.runs.get(side)?.iter().filter_map(|run| run.get(figure).copied()).collect();
        values.sort_by(f64::total_cmp);
        let (low, high) = (values.get(values.len().checked_sub(1)? / 2)?, values.get(values.len() / 2)?);
        Some(f64::midpoint(*low, *high))
    }

    /// The figure of a row on one side.
    pub(super) fn figure(&self, row: &Row, side: &str) -> Option<f64> {
        if !row.worst {
            return self.median(side, row.figure);
        }
        self.runs.get(side)?.iter().filter_map(|run| run.get(row.figure).copied()).reduce(f64::max)
    }

    /// What is judged in a row: a ratio, or the figure itself.
    pub(super) fn judged(&self, row: &Row) -> Option<f64> {
        let value = self.figure(row, row.of)?;
        match row.against {
            None => Some(value),
            Some(against) => Some(value / self.figure(row, against)?),
        }
    }

    /// True if every row is as was asked.
    pub(super) fn holds(&self) -> bool {
        let holds = |row: &Row| match row.asked {
            Some(bound) => self.judged(row).is_some_and(|value| bound.holds(value)),
            None => true,
        };
        self.rows.iter().all(holds)
    }
}

/// The contests of these names, or all.
///
/// # Errors
/// A name that there is not.
pub(super) fn chosen(all: Vec<Contest>, names: &[String]) -> Result<Vec<Contest>> {
    for name in names {
        if !all.iter().any(|contest| contest.name == name) {
            let known: Vec<_> = all.iter().map(|contest| contest.name).collect();
            bail!("there is no contest {name:?}; there are: {}", known.join(", "));
        }
    }
    Ok(all
        .into_iter()
        .filter(|contest| names.is_empty() || names.iter().any(|name| contest.name == name))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(asked: Bound) -> Outcome {
        let runs = |values: &[f64]| values.iter().map(|value| Figures::from([("rate", *value)])).collect();
        Outcome {
            contest: "c",
            durability: BTreeMap::new(),
            runs: [("we", runs(&[9.0, 1.0, 6.0])), ("they", runs(&[2.0, 3.0, 100.0]))].into(),
            rows: vec![Row {
                figure: "rate",
                what: "rate",
                unit: "/s",
                of: "we",
                against: Some("they"),
                asked: Some(asked),
                worst: false,
            }],
        }
    }

    #[test]
    fn medians_are_divided_and_judged() {
        let held = outcome(Bound::AtLeast(2.0));
        assert_eq!(held.rows.first().and_then(|row| held.judged(row)), Some(2.0));
        assert!(held.holds());
        assert!(!outcome(Bound::AtLeast(2.1)).holds());
        assert!(!outcome(Bound::AtMost(1.9)).holds());
    }

    #[test]
    fn the_worst_of_all_runs_is_judged_where_that_is_asked() {
        let mut outcome = outcome(Bound::AtMost(9.0));
        outcome.rows = vec![Row { against: None, worst: true, ..outcome.rows[0] }];
        assert_eq!(outcome.rows.first().and_then(|row| outcome.judged(row)), Some(9.0));
    }

    #[test]
    fn an_unknown_contest_is_named_with_those_that_there_are() {
        let all = vec![Contest { name: "one", what: "", sides: Vec::new(), rows: Vec::new(), runs: None }];
        let told = chosen(all, &["two".to_owned()]).err().map(|error| error.to_string());
        assert_eq!(told.as_deref(), Some("there is no contest \"two\"; there are: one"));
    }
}
