//! Statistics over seeds, acceptance bands and the table that people read.

use std::fmt;

use serde::Serialize;

use super::{Accuracies, CENTRES, Strategy};

/// Standard errors to each side of the reference that a mean may be away from it.
const BAND_STANDARD_ERRORS: f64 = 4.0;

/// Added to each side for what differs between implementations: rounding, and the seeds of the reference itself.
const BAND_SLACK: f64 = 0.005;

/// Bands are not made narrower for more seeds than this.
const BAND_SEEDS_MAX: usize = 30;

/// How far the means of FedYogi and FedAdagrad may be apart. At these settings both take the same path but for rounding.
const IDENTITY_TOLERANCE: f64 = 0.001;

/// What others get for one figure.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Reference {
    /// Mean over 100 seeds of an independent implementation of the protocol (numpy).
    pub mean: f64,
    /// Standard deviation over these seeds.
    pub deviation: f64,
    /// Mean over seeds 42 to 46 as FLamby publishes it, for comparison: aggregated from
    /// `flamby/results/results_benchmark_fed_heart_disease` of its repository.
    pub flamby: f64,
}

/// Where a mean over seeds is accepted.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Band {
    /// Lowest accepted mean.
    pub low: f64,
    /// Highest accepted mean.
    pub high: f64,
}

/// One figure of ours beside that of others.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Comparison {
    /// Mean over seeds.
    pub mean: f64,
    /// Standard deviation over seeds.
    pub deviation: f64,
    /// What others get.
    pub reference: Reference,
    /// Where `mean` is accepted.
    pub band: Band,
    /// Whether it is there.
    pub ok: bool,
}

/// Results of one strategy.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StrategyReport {
    /// The strategy's name.
    pub strategy: String,
    /// Mean accuracy on each centre's test rows.
    pub centres: [f64; CENTRES],
    /// Standard deviation of these over seeds.
    pub centre_deviations: [f64; CENTRES],
    /// Mean over the centres.
    pub mean: Comparison,
    /// Accuracy on all test rows together.
    pub pooled: Comparison,
    /// Whether both are accepted.
    pub ok: bool,
}

/// A relation between strategies that has to hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// The relation.
    pub relation: String,
    /// Whether it holds.
    pub ok: bool,
}

/// Results of all strategies.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// Name and version of this form.
    pub schema: &'static str,
    /// Seeds run.
    pub seeds: usize,
    /// Results, in the order asked for.
    pub strategies: Vec<StrategyReport>,
    /// Relations between those that were run.
    pub checks: Vec<Check>,
    /// Whether every mean is in its band and every relation holds.
    pub ok: bool,
}

impl Report {
    /// `by_seed` has one list per seed with the accuracies of each strategy.
    pub(super) fn new(strategies: &[Strategy], by_seed: &[Vec<Accuracies>]) -> Self {
        let reports: Vec<_> = strategies
            .iter()
            .enumerate()
            .map(|(index, &strategy)| {
                let results: Vec<Accuracies> = by_seed.iter().filter_map(|seed| seed.get(index)).copied().collect();
                StrategyReport::new(strategy, &results)
            })
            .collect();
        let checks = checks(strategies, &reports);
        let ok = reports.iter().all(|report| report.ok) && checks.iter().all(|check| check.ok);
        Self { schema: "fedledger.flamby/1", seeds: by_seed.len(), strategies: reports, checks, ok }
    }
}

impl StrategyReport {
    fn new(strategy: Strategy, results: &[Accuracies]) -> Self {
        let statistics: [(f64, f64); CENTRES] = std::array::from_fn(|centre| {
            mean_and_deviation(results.iter().filter_map(|result| result.centres.get(centre)).copied())
        });
        let (mean_reference, pooled_reference) = strategy.references();
        let means = results.iter().map(|result| result.centres.iter().sum::<f64>() / CENTRES as f64);
        let mean = mean_reference.compare(means);
        let pooled = pooled_reference.compare(results.iter().map(|result| result.pooled));
        Self {
            strategy: strategy.to_string(),
            centres: statistics.map(|(mean, _)| mean),
            centre_deviations: statistics.map(|(_, deviation)| deviation),
            mean,
            pooled,
            ok: mean.ok && pooled.ok,
        }
    }
}

impl Reference {
    /// Compares the mean of `results`, one per seed.
    fn compare(self, results: impl Iterator<Item = f64> + Clone) -> Comparison {
        let band = self.band(results.clone().count());
        let (mean, deviation) = mean_and_deviation(results);
        Comparison { mean, deviation, reference: self, band, ok: (band.low..=band.high).contains(&mean) }
    }

    /// Four standard errors of `seeds` runs and the slack to each side.
    fn band(self, seeds: usize) -> Band {
        let standard_error = self.deviation / (seeds.clamp(1, BAND_SEEDS_MAX) as f64).sqrt();
        let half = BAND_STANDARD_ERRORS * standard_error + BAND_SLACK;
        Band { low: self.mean - half, high: self.mean + half }
    }
}

impl Strategy {
    /// What others get with this strategy: the mean over centres, and the accuracy on all test rows together.
    #[expect(clippy::approx_constant, reason = "one accuracy happens to be close to 2/pi")]
    pub fn references(self) -> (Reference, Reference) {
        let reference = |(mean, deviation, flamby)| Reference { mean, deviation, flamby };
        let (mean, pooled) = match self {
            Self::Pooled => ((0.7356, 0.0024, 0.7353), (0.7967, 0.0036, 0.7953)),
            Self::Local(0) => ((0.7169, 0.0151, 0.7221), (0.7892, 0.0054, 0.7843)),
            Self::Local(1) => ((0.6294, 0.0106, 0.6287), (0.7305, 0.0128, 0.7268)),
            Self::Local(2) => ((0.5962, 0.0598, 0.5670), (0.5125, 0.0750, 0.4827)),
            Self::Local(_) => ((0.6467, 0.0233, 0.6366), (0.5992, 0.0366, 0.6110)),
            Self::FedAvg => ((0.6984, 0.0306, 0.6850), (0.7580, 0.0262, 0.7480)),
            Self::FedAdam => ((0.7357, 0.0123, 0.7255), (0.7770, 0.0126, 0.7787)),
            Self::FedYogi | Self::FedAdagrad => ((0.7362, 0.0118, 0.7314), (0.7797, 0.0121, 0.7787)),
        };
        (reference(mean), reference(pooled))
    }
}

/// The relations among those strategies that were run.
fn checks(strategies: &[Strategy], reports: &[StrategyReport]) -> Vec<Check> {
    let mean = |wanted: Strategy| {
        let found = strategies.iter().zip(reports).find(|(strategy, _)| **strategy == wanted);
        found.map(|(_, report)| report.mean.mean)
    };
    let local = match (mean(Strategy::Local(1)), mean(Strategy::Local(2)), mean(Strategy::Local(3))) {
        (Some(first), Some(second), Some(third)) => Some((first + second + third) / 3.0),
        _ => None,
    };
    let (avg, adam, yogi) = (mean(Strategy::FedAvg), mean(Strategy::FedAdam), mean(Strategy::FedYogi));
    let greater = |relation: &str, left: Option<f64>, right: Option<f64>| {
        Some(Check { relation: relation.to_owned(), ok: left? > right? })
    };
    let same = |left: Option<f64>, right: Option<f64>| {
        let ok = (left? - right?).abs() < IDENTITY_TOLERANCE;
        Some(Check { relation: "FedYogi = FedAdagrad".to_owned(), ok })
    };
    [
        greater("FedAdam > FedAvg", adam, avg),
        greater("FedYogi > FedAvg", yogi, avg),
        greater("Pooled > FedAvg", mean(Strategy::Pooled), avg),
        greater("FedAvg > mean of Local 1 to 3", avg, local),
        same(yogi, mean(Strategy::FedAdagrad)),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn mean_and_deviation(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let values: Vec<f64> = values.collect();
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count.max(1.0);
    let squares: f64 = values.iter().map(|value| (value - mean) * (value - mean)).sum();
    (mean, (squares / (count - 1.0).max(1.0)).sqrt())
}

impl fmt::Display for Strategy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local(centre) => f.pad(&format!("Local {centre}")),
            other => f.pad(&format!("{other:?}")),
        }
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { mean, deviation, reference, band, ok } = self;
        let accepted = format!("{:.3}-{:.3}", band.low, band.high);
        let verdict = verdict(*ok);
        write!(
            f,
            "{mean:.4}±{deviation:.4} {:>10.4} {:>10.4} {accepted:>11} {verdict}",
            reference.mean, reference.flamby
        )
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "FLamby Fed-Heart-Disease, test accuracy, mean and standard deviation over {} seeds\n",
            self.seeds
        )?;
        writeln!(f, "{:50}{:^52} {:^52}", "", "mean of the centres", "all test rows together")?;
        let columns = ["reference", "FLamby", "accepted"].map(|name| format!("{name:>10}")).join(" ");
        writeln!(
            f,
            "{:<11} {:>9} {:>9} {:>11} {:>6} {:>13} {columns}      {:>13} {columns}",
            "strategy", "cleveland", "hungarian", "switzerland", "va", "ours", "ours"
        )?;
        for report in &self.strategies {
            let [cleveland, hungarian, switzerland, va] = report.centres;
            writeln!(
                f,
                "{:<11} {cleveland:>9.3} {hungarian:>9.3} {switzerland:>11.3} {va:>6.3} {} {}",
                report.strategy, report.mean, report.pooled
            )?;
        }
        writeln!(f)?;
        for check in &self.checks {
            writeln!(f, "{:<32} {}", check.relation, verdict(check.ok))?;
        }
        write!(f, "\n{}", verdict(self.ok))
    }
}

fn verdict(ok: bool) -> &'static str {
    if ok { "PASS" } else { "FAIL" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bands_are_four_standard_errors_of_at_most_thirty_seeds() {
        let expected = [
            (Strategy::FedAvg, 0.671, 0.726),
            (Strategy::FedAdam, 0.722, 0.750),
            (Strategy::FedYogi, 0.723, 0.750),
            (Strategy::Pooled, 0.729, 0.742),
            (Strategy::Local(1), 0.617, 0.642),
        ];
        for (strategy, low, high) in expected {
            let (reference, _) = strategy.references();
            let band = reference.band(30);
            assert!((band.low - low).abs() < 0.0006 && (band.high - high).abs() < 0.0006, "{strategy}: {band:?}");
            assert_eq!(reference.band(100), band, "more seeds do not narrow the band");
        }
    }

    /// Results of one seed.
    fn results<const N: usize>(results: [(f64, f64); N]) -> Vec<Vec<Accuracies>> {
        vec![results.map(|(mean, pooled)| Accuracies { centres: [mean; 4], pooled }).to_vec()]
    }

    #[test]
    fn a_mean_outside_its_band_or_a_broken_relation_fails() {
        let averaging = [Strategy::FedAvg, Strategy::FedAdam];
        let good = Report::new(&averaging, &results([(0.70, 0.76), (0.73, 0.78)]));
        assert!(good.ok, "{good}");
        let outside = Report::new(&averaging, &results([(0.70, 0.76), (0.90, 0.78)]));
        assert!(!outside.ok && !outside.strategies[1].mean.ok, "{outside}");
        let outside = Report::new(&averaging, &results([(0.70, 0.96), (0.73, 0.78)]));
        assert!(!outside.ok && !outside.strategies[0].pooled.ok, "{outside}");
        let order = Report::new(&averaging, &results([(0.74, 0.76), (0.73, 0.78)]));
        assert!(!order.ok && order.strategies.iter().all(|report| report.ok), "{order}");
        let apart = Report::new(&[Strategy::FedYogi, Strategy::FedAdagrad], &results([(0.73, 0.78), (0.732, 0.78)]));
        assert!(!apart.ok && !apart.checks[0].ok, "{apart}");
    }

    #[test]
    fn statistics_are_those_of_a_calculation_by_hand() {
        let (mean, deviation) = mean_and_deviation([0.7, 0.8, 0.9].into_iter());
        assert!((mean - 0.8).abs() < 1e-12 && (deviation - 0.1).abs() < 1e-12);
    }
}
