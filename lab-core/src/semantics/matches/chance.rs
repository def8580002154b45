//! statistic (`xt_statistic.c`).

use crate::model::Statistic;
use crate::semantics::Tri;

/// Whether a packet is picked: certain only where all or none are.
pub fn statistic(mode: &Statistic) -> Tri {
    match mode {
        Statistic::Random(probability) => match probability.parse::<f64>() {
            Ok(p) if p >= 1.0 => Tri::Yes,
            Ok(p) if p <= 0.0 => Tri::No,
            _ => Tri::Unknown(format!("chance ({probability})")),
        },
        Statistic::Nth(nth) if nth.every <= 1 => Tri::Yes,
        Statistic::Nth(nth) => Tri::Unknown(format!("every {} packets", nth.every)),
    }
}
