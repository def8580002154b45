//! Names must lead somewhere, and jumps must not lead in a circle.

use std::collections::BTreeMap;

use super::super::{Error, ErrorKind};
use crate::model::{
    Expression, Match, NatAddress, NftMap, NftSetRef, Rule, Statement, Table, Target, Verdict,
};

/// What a rule refers to.
#[derive(Default)]
struct References<'a> {
    chains: Vec<&'a str>,
    sets: Vec<&'a str>,
}

impl<'a> References<'a> {
    fn verdict(&mut self, verdict: &'a Verdict) {
        if let Verdict::Jump(chain) | Verdict::Goto(chain) = verdict {
            self.chains.push(chain);
        }
    }

    fn expression(&mut self, expression: &'a Expression) {
        match expression {
            Expression::Concat(parts) => parts.iter().for_each(|part| self.expression(part)),
            Expression::And(left, right) | Expression::Or(left, right) | Expression::Xor(left, right) => {
                self.expression(left);
                self.expression(right);
            }
            Expression::ShiftLeft(value, _) | Expression::ShiftRight(value, _) => self.expression(value),
            Expression::Map(key, map) => {
                self.expression(key);
                if let NftMap::Named(name) = map.as_ref() {
                    self.sets.push(name);
                }
            }
            _ => {}
        }
    }

    fn target(&mut self, target: &'a Target, table: &'a Table) {
        match target {
            Target::Verdict(verdict) => self.verdict(verdict),
            Target::VerdictMap { key, elements, name } => {
                self.expression(key);
                elements.iter().for_each(|(_, verdict)| self.verdict(verdict));
                if let Some(name) = name {
                    self.sets.push(name);
                    let verdicts = table.set(name).map(|set| set.verdicts.as_slice()).unwrap_or_default();
                    verdicts.iter().for_each(|verdict| self.verdict(verdict));
                }
            }
            Target::Mangle(_, value) => self.expression(value),
            Target::Nat { range, .. } => {
                if let Some(NatAddress::Computed(value)) = &range.address {
                    self.expression(value);
                }
            }
            _ => {}
        }
    }

    fn of(rule: &'a Rule, table: &'a Table) -> Self {
        let mut references = References::default();
        for statement in &rule.statements {
            match statement {
                Statement::Match(Match::Nft(condition)) => {
                    references.expression(&condition.left);
                    if let NftSetRef::Named(name) = &condition.right {
                        references.sets.push(name);
                    }
                }
                Statement::Match(_) => {}
                Statement::Target(target) => references.target(target, table),
            }
        }
        references
    }
}

fn dangling(rule: &Rule, what: &str, name: &str) -> Error {
    let kind = ErrorKind::Dangling { what: what.to_owned(), name: name.to_owned() };
    Error::new(&rule.origin.file, rule.origin.line, &rule.text, kind)
}

/// Checks the rules of a table.
pub(super) fn verify(table: &Table) -> Result<(), Error> {
    let numbers: BTreeMap<&str, usize> =
        table.chains.iter().enumerate().map(|(number, chain)| (chain.name.as_str(), number)).collect();
    let mut jumps: Vec<Vec<(usize, &Rule)>> = Vec::new();
    for chain in &table.chains {
        let mut from_here = Vec::new();
        for rule in &chain.rules {
            let references = References::of(rule, table);
            if let Some(name) = references.sets.iter().find(|name| table.set(name).is_none()) {
                return Err(dangling(rule, "set", name));
            }
            for name in references.chains {
                match numbers.get(name) {
                    Some(number) => from_here.push((*number, rule)),
                    None => return Err(dangling(rule, "chain", name)),
                }
            }
        }
        jumps.push(from_here);
    }
    acyclic(table, &jumps)
}

/// Walks the jumps depth first, without recursion: chains may be many.
fn acyclic(table: &Table, jumps: &[Vec<(usize, &Rule)>]) -> Result<(), Error> {
    let name = |number: usize| table.chains.get(number).map_or("", |chain| chain.name.as_str());
    let mut done = vec![false; jumps.len()];
    let mut on_path = vec![false; jumps.len()];
    for start in 0..jumps.len() {
        // Each step: a chain, and which of its jumps is next.
        let mut path = vec![(start, 0)];
        if done[start] {
            continue;
        }
        on_path[start] = true;
        while let Some((chain, next)) = path.pop() {
            match jumps[chain].get(next) {
                None => {
                    done[chain] = true;
                    on_path[chain] = false;
                }
                Some((to, rule)) => {
                    path.push((chain, next + 1));
                    if on_path[*to] {
                        let circle = path.iter().skip_while(|(chain, _)| chain != to);
                        let mut names: Vec<&str> = circle.map(|(chain, _)| name(*chain)).collect();
                        names.push(name(*to));
                        let kind = ErrorKind::Cycle(names.join(" -> "));
                        return Err(Error::new(&rule.origin.file, rule.origin.line, &rule.text, kind));
                    }
                    if !done[*to] {
                        on_path[*to] = true;
                        path.push((*to, 0));
                    }
                }
            }
        }
    }
    Ok(())
}
