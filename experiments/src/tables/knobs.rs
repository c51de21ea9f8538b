//! What each method reaches on the held-out prompts over its knob, its steps or its rounds: `knobs.csv`.

use recovery::Standing;

use super::Columns;
use super::Values::{Real, Text, Whole};
use super::means::shared;
use crate::record::{Arm, Record, groups};

/// The mean over the models of a method at one of the points where it could stop.
#[derive(Debug, Clone, PartialEq)]
pub struct Point<'a> {
    pub variant: &'a str,
    pub method: &'a str,
    pub models: usize,
    /// The knob's value, the step, or the number of restored weights.
    pub at: f64,
    pub standing: Standing,
}

/// The points of every variant and method that has some, over the cells that all methods have. A method that stopped earlier in one
/// model stays there.
pub fn points(records: &[Record]) -> Vec<Point<'_>> {
    let with_curves = shared(records).0.into_iter().filter(|record| !record.curve.is_empty());
    let mut points = Vec::new();
    for (Arm { variant, method }, own) in groups(with_curves, Record::arm) {
        let most = own.iter().map(|record| record.curve.len()).max().unwrap_or(0);
        for place in 0..most {
            let stops = || own.iter().map(|record| &record.curve[place.min(record.curve.len() - 1)]);
            let mean = |value: fn(&(f64, Standing)) -> f64| stops().map(value).sum::<f64>() / own.len() as f64;
            let standing = Standing {
                harmful: mean(|stop| stop.1.harmful),
                harmless: mean(|stop| stop.1.harmless),
                task: mean(|stop| stop.1.task),
                merit: mean(|stop| stop.1.merit),
            };
            points.push(Point { variant, method, models: own.len(), at: mean(|stop| stop.0), standing });
        }
    }
    points
}

/// The columns of `knobs.csv`.
pub fn columns<'a>() -> Columns<Point<'a>> {
    vec![
        ("variant", Text(|point: &Point<'a>| point.variant.to_owned())),
        ("method", Text(|point| point.method.to_owned())),
        ("models", Whole(|point| Some(point.models as u64))),
        ("at", Real(|point| point.at)),
        ("harmful", Real(|point| point.standing.harmful)),
        ("harmless", Real(|point| point.standing.harmless)),
        ("task", Real(|point| point.standing.task)),
        ("merit", Real(|point| point.standing.merit)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::tests::record;
    use crate::record::{FINE_TUNED, STRONG};

    #[test]
    fn a_curve_is_the_mean_over_models_and_one_that_stopped_stays() {
        let stop = |at, harmful| (at, Standing { harmful, harmless: 0.5, task: 0.25, merit: 2.0 * harmful });
        let with = |model, curve| Record { curve, ..record(model, 0, STRONG, 0, 0.5) };
        let records = [
            record("a", 0, FINE_TUNED, 90, 0.5),
            record("b", 0, FINE_TUNED, 90, 0.5),
            with("a", vec![stop(0.0, 4.0), stop(10.0, 1.0)]),
            with("b", vec![stop(0.0, 2.0), stop(20.0, 1.0), stop(40.0, 0.0)]),
        ];
        let points = points(&records);
        let found: Vec<_> =
            points.iter().map(|point| (point.at, point.standing.harmful, point.standing.merit)).collect();
        assert_eq!(found, [(0.0, 3.0, 6.0), (15.0, 1.0, 2.0), (25.0, 0.5, 1.0)]);
        assert!(points.iter().all(|point| (point.method, point.models, point.standing.harmless) == (STRONG, 2, 0.5)));
    }
}
