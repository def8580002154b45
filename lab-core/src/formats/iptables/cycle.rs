use super::super::{Error, ErrorKind};
use crate::model::Table;

/// A jump from one chain to another, each by its place in the table.
#[derive(Clone, Copy)]
pub(super) struct Jump {
    pub from: usize,
    pub to: usize,
    /// The line of the rule.
    pub line: u32,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Unseen,
    Open,
    Done,
}

/// Refuses a table whose chains jump in a circle, as the kernel does. Chains
/// may be nested deeper than a call stack is.
pub(super) fn check(file: &str, table: &Table, jumps: &[Jump]) -> Result<(), Error> {
    // The jumps of chain n stand between places n and n + 1.
    let mut places = vec![0; table.chains.len() + 1];
    for jump in jumps {
        if let Some(place) = places.get_mut(jump.from + 1) {
            *place += 1;
        }
    }
    let mut sum = 0;
    for place in &mut places {
        sum += *place;
        *place = sum;
    }
    let mut sorted = jumps.to_vec();
    sorted.sort_by_key(|jump| jump.from);
    let mut states = vec![State::Unseen; table.chains.len()];
    for start in 0..table.chains.len() {
        if states.get(start) != Some(&State::Unseen) {
            continue;
        }
        // The chains entered, each with the number of jumps followed so far.
        let mut path: Vec<(usize, usize)> = vec![(start, 0)];
        set(&mut states, start, State::Open);
        while let Some((chain, followed)) = path.last_mut() {
            let chain = *chain;
            let of_chain =
                places.get(chain).zip(places.get(chain + 1)).and_then(|(from, to)| sorted.get(*from..*to));
            let Some(jump) = of_chain.and_then(|jumps| jumps.get(*followed)) else {
                set(&mut states, chain, State::Done);
                path.pop();
                continue;
            };
            *followed += 1;
            match states.get(jump.to) {
                Some(State::Open) => return Err(circle(file, table, &path, jump)),
                Some(State::Unseen) => {
                    set(&mut states, jump.to, State::Open);
                    path.push((jump.to, 0));
                }
                _ => {}
            }
        }
    }
    Ok(())
}

fn set(states: &mut [State], at: usize, state: State) {
    if let Some(slot) = states.get_mut(at) {
        *slot = state;
    }
}

/// The error, at the rule that closes the circle.
fn circle(file: &str, table: &Table, path: &[(usize, usize)], closing: &Jump) -> Error {
    let name = |at: usize| table.chains.get(at).map_or("", |c| c.name.as_str());
    let inside = path.iter().map(|(chain, _)| *chain).skip_while(|chain| *chain != closing.to);
    let names: Vec<&str> = inside.chain([closing.to]).map(name).collect();
    let rules = table.chains.get(closing.from).map_or(&[][..], |c| &c.rules);
    let rule = rules.iter().find(|r| r.origin.line == closing.line);
    Error::new(file, closing.line, rule.map_or("", |r| &r.text), ErrorKind::Cycle(names.join(" -> ")))
}
