//! physdev (`xt_physdev.c`).

use crate::model::PhysdevMatch;
use crate::semantics::{Context, Tri};

/// Whether the condition on bridge ports holds. Packets that have nothing to
/// do with a bridge meet only inverted conditions.
pub fn holds(condition: &PhysdevMatch, at: &Context) -> Tri {
    let (input, output) = (at.phys_input, at.phys_output);
    if input.is_none() && output.is_none() {
        let inverted = |flag: Option<bool>| flag.is_none_or(|invert| invert);
        return (inverted(condition.is_bridged.as_ref().map(|n| n.invert))
            && inverted(condition.is_in.as_ref().map(|n| n.invert))
            && inverted(condition.is_out.as_ref().map(|n| n.invert))
            && inverted(condition.input.as_ref().map(|n| n.invert))
            && inverted(condition.output.as_ref().map(|n| n.invert)))
        .into();
    }
    if condition.is_bridged.is_some_and(|n| output.is_some() == n.invert)
        || condition.is_in.is_some_and(|n| input.is_some() == n.invert)
        || condition.is_out.is_some_and(|n| output.is_some() == n.invert)
    {
        return Tri::No;
    }
    if let (Some(wanted), Some(name)) = (&condition.input, input) {
        if wanted.value.holds(name) == wanted.invert {
            return Tri::No;
        }
    }
    match (&condition.output, output) {
        (None, _) => Tri::Yes,
        (Some(_), None) => Tri::No,
        (Some(wanted), Some(name)) => (wanted.value.holds(name) != wanted.invert).into(),
    }
}
