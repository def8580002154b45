use std::collections::HashMap;

use super::super::{Error, ErrorKind};
use crate::model::{Statement, Table, Target, Verdict};

/// A jump of a chain: where to, and the rule's place among the chain's.
type Jump = (usize, usize);

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Unseen,
    Open,
    Done,
}

/// Refuses a table whose chains jump in a circle, as the kernel does. Chains
/// may be nested deeper than a call stack is.
pub(super) fn check(file: &str, table: &Table) -> Result<(), Error> {
    let index: HashMap<&str, usize> =
        table.chains.iter().enumerate().map(|(at, chain)| (chain.name.as_str(), at)).collect();
    let jumps: Vec<Vec<Jump>> = table
        .chains
        .iter()
        .map(|chain| {
            let rules = chain.rules.iter().enumerate();
            let of_rule = |(at, statement): (usize, &Statement)| match statement {
                Statement::Target(Target::Verdict(Verdict::Jump(to) | Verdict::Goto(to))) => {
                    index.get(to.as_str()).map(|to| (*to, at))
                }
                _ => None,
            };
            rules.flat_map(|(at, r)| r.statements.iter().map(move |s| (at, s))).filter_map(of_rule).collect()
        })
        .collect();
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
            let Some(&(to, rule)) = jumps.get(chain).and_then(|j| j.get(*followed)) else {
                set(&mut states, chain, State::Done);
                path.pop();
                continue;
            };
            *followed += 1;
            match states.get(to) {
                Some(State::Open) => return Err(circle(file, table, &path, to, (chain, rule))),
                Some(State::Unseen) => {
                    set(&mut states, to, State::Open);
                    path.push((to, 0));
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
fn circle(file: &str, table: &Table, path: &[(usize, usize)], to: usize, closing: (usize, usize)) -> Error {
    let name = |at: usize| table.chains.get(at).map_or("", |c| c.name.as_str());
    let inside = path.iter().map(|(chain, _)| *chain).skip_while(|chain| *chain != to);
    let names: Vec<&str> = inside.chain([to]).map(name).collect();
    let rule = table.chains.get(closing.0).and_then(|c| c.rules.get(closing.1));
    let (line, text) = rule.map_or((table.origin.line, ""), |r| (r.origin.line, r.text.as_ref()));
    Error::new(file, line, text, ErrorKind::Cycle(names.join(" -> ")))
}
