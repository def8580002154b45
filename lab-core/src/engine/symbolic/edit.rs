//! Editing chains: rules put in and taken out, and who calls whom.

use std::collections::HashMap;

use super::chain::{Compiled, RuleId, TableChains};
use super::compile::{after, called, may_return, targets, Compiler};
use crate::model::{Rule, Target, Verdict};
use crate::space::Error;

/// Which rules call which chain.
#[derive(Debug, Default)]
pub(super) struct Callers {
    by_name: HashMap<u32, Vec<RuleId>, rustc_hash::FxBuildHasher>,
    /// Rules with verdict maps may call any.
    any: Vec<RuleId>,
}

impl Callers {
    fn note(&mut self, names: &TableChains, rule: &Rule, id: RuleId) {
        for target in targets(rule) {
            match target {
                Target::Verdict(Verdict::Jump(name) | Verdict::Goto(name)) => {
                    if let Some(callee) = names.index(name) {
                        self.by_name.entry(callee as u32).or_default().push(id);
                    }
                }
                Target::VerdictMap { .. } => self.any.push(id),
                _ => {}
            }
        }
    }

    fn forget(&mut self, names: &TableChains, rule: &Rule, id: RuleId) {
        for target in targets(rule) {
            match target {
                Target::Verdict(Verdict::Jump(name) | Verdict::Goto(name)) => {
                    let callee = names.index(name).and_then(|i| self.by_name.get_mut(&(i as u32)));
                    callee.into_iter().for_each(|callers| callers.retain(|other| *other != id));
                }
                Target::VerdictMap { .. } => self.any.retain(|other| *other != id),
                _ => {}
            }
        }
    }

    fn of(&self, callee: usize) -> Vec<RuleId> {
        let named = self.by_name.get(&(callee as u32)).map(Vec::as_slice).unwrap_or_default();
        named.iter().chain(&self.any).copied().collect()
    }
}

impl Compiler<'_, '_> {
    /// Puts a rule into a chain before the one at `place` (from 0), and brings
    /// the chains that call it up to date.
    ///
    /// # Errors
    /// [`Error::Loop`] if the chain would call itself, and if the store's budget
    /// is used up.
    pub fn insert(&mut self, chain: usize, place: usize, rule: &Rule) -> Result<RuleId, Error> {
        self.ready_for_edits(chain)?;
        if self.would_loop(chain, rule) {
            return Err(Error::Loop);
        }
        let id = RuleId(self.chains.next_id);
        self.chains.next_id += 1;
        if let Some(mut callers) = self.chains.callers.take() {
            callers.note(self.chains, rule, id);
            self.chains.callers = Some(callers);
        }
        self.edit(chain, |compiler, compiled, raw| {
            let part = compiler.rule(rule, id, (raw, compiled.context))?;
            let Compiler { sets, leaves, .. } = compiler;
            let place = place.min(compiled.ids.len());
            compiled.segments.insert(&mut sets.store, place, part, &mut |store, a, b| {
                store.sequence(a, b, &mut |store, leaf, next| after(leaves, store, leaf, next))
            })?;
            compiled.ids.insert(place, id);
            compiled.returns |= may_return(rule);
            Ok(())
        })?;
        self.chains.added.insert(id, (chain, rule.clone()));
        Ok(id)
    }

    /// Takes the rule at `place` (from 0) out of a chain.
    ///
    /// # Errors
    /// If the store's budget is used up.
    pub fn remove(&mut self, chain: usize, place: usize) -> Result<(), Error> {
        self.ready_for_edits(chain)?;
        self.edit(chain, |compiler, compiled, _| {
            if place < compiled.ids.len() {
                let Compiler { sets, leaves, .. } = compiler;
                compiled.segments.remove(&mut sets.store, place, &mut |store, a, b| {
                    store.sequence(a, b, &mut |store, leaf, next| after(leaves, store, leaf, next))
                })?;
                let id = compiled.ids.remove(place);
                compiler.forget(chain, id);
            }
            Ok(())
        })
    }

    /// A rule is gone from a chain, and calls nothing any more.
    fn forget(&mut self, chain: usize, id: RuleId) {
        let added = self.chains.added.remove(&id).map(|(_, rule)| rule);
        let table = self.table;
        let first = || table.chains.get(chain)?.rules.get(self.chains.place_at_first(chain, id)?);
        let Some(rule) = added.as_ref().or_else(first) else { return };
        if let Some(mut callers) = self.chains.callers.take() {
            callers.forget(self.chains, rule, id);
            self.chains.callers = Some(callers);
        }
    }

    /// Whether a rule in a chain would call a chain that calls this one.
    fn would_loop(&self, chain: usize, rule: &Rule) -> bool {
        let called: Vec<usize> = targets(rule)
            .filter_map(|t| match t {
                Target::Verdict(Verdict::Jump(name) | Verdict::Goto(name)) => self.chains.index(name),
                _ => None,
            })
            .collect();
        let mut above = vec![chain];
        let mut next = 0;
        while let Some(chain) = above.get(next).copied().filter(|_| !called.is_empty()) {
            next += 1;
            if called.contains(&chain) {
                return true;
            }
            let calling = self.chains.callers.as_ref().map(|c| c.of(chain)).unwrap_or_default();
            for owner in calling.into_iter().filter_map(|id| self.chains.owner(id)) {
                if !above.contains(&owner) {
                    above.push(owner);
                }
            }
        }
        false
    }

    /// Compiles a chain that is to be edited if nobody called it yet, and
    /// finds out who calls whom.
    fn ready_for_edits(&mut self, chain: usize) -> Result<(), Error> {
        self.prepare();
        // A form that is compiled only later would not know of the edit.
        for raw in [false, true] {
            if self.chains.runs[usize::from(raw)] && self.chains.compiled(chain, raw).is_none() {
                std::mem::swap(&mut self.sets.oracles, &mut self.chains.oracles);
                let result = self.whole_chain(chain, raw);
                std::mem::swap(&mut self.sets.oracles, &mut self.chains.oracles);
                result?;
            }
        }
        if self.chains.callers.is_none() {
            let mut callers = Callers::default();
            for (index, chain) in self.table.chains.iter().enumerate() {
                for (place, rule) in chain.rules.iter().enumerate() {
                    if let Some(id) = self.chains.first_id(index, place) {
                        callers.note(self.chains, rule, id);
                    }
                }
            }
            self.chains.callers = Some(callers);
        }
        Ok(())
    }

    /// Changes a chain, in each form that is compiled, and its callers after.
    fn edit(
        &mut self,
        chain: usize,
        mut change: impl FnMut(&mut Self, &mut Compiled, bool) -> Result<(), Error>,
    ) -> Result<(), Error> {
        std::mem::swap(&mut self.sets.oracles, &mut self.chains.oracles);
        let mut result = Ok(());
        for raw in [false, true] {
            if let Some(mut compiled) = self.chains.take(chain, raw) {
                if !compiled.edited {
                    let count = self.table.chains.get(chain).map_or(0, |c| c.rules.len());
                    compiled.ids =
                        (0..count).filter_map(|place| self.chains.first_id(chain, place)).collect();
                    compiled.edited = true;
                }
                result = change(self, &mut compiled, raw).and_then(|()| {
                    compiled.called = called(self, compiled.segments.value(), compiled.returns)?;
                    Ok(())
                });
                self.chains.put(chain, raw, compiled);
                result = result.and_then(|()| self.callers(chain, raw));
            }
            if result.is_err() {
                break;
            }
        }
        std::mem::swap(&mut self.sets.oracles, &mut self.chains.oracles);
        result
    }

    /// Brings the chains that call one up to date.
    fn callers(&mut self, callee: usize, raw: bool) -> Result<(), Error> {
        let calling = self.chains.callers.as_ref().map(|c| c.of(callee)).unwrap_or_default();
        let mut changed = Vec::new();
        for id in calling {
            let Some(index) = self.chains.owner(id) else { continue };
            let Some(context) = self.chains.compiled(index, raw).map(|c| c.context) else { continue };
            let part = self.rule_by_id(index, id, (raw, context))?;
            let Some(mut compiled) = self.chains.take(index, raw) else { continue };
            let place = match compiled.edited {
                true => compiled.ids.iter().position(|other| *other == id),
                false => self.chains.first_id(index, 0).map(|first| (id.0 - first.0) as usize),
            };
            if let Some(place) = place {
                let Compiler { sets, leaves, .. } = self;
                compiled.segments.replace(&mut sets.store, place, part, &mut |store, a, b| {
                    store.sequence(a, b, &mut |store, leaf, next| after(leaves, store, leaf, next))
                })?;
                let before = compiled.called;
                compiled.called = called(self, compiled.segments.value(), compiled.returns)?;
                if compiled.called != before && !changed.contains(&index) {
                    changed.push(index);
                }
            }
            self.chains.put(index, raw, compiled);
        }
        changed.into_iter().try_for_each(|index| self.callers(index, raw))
    }
}
